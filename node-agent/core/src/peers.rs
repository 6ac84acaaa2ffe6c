//! What is heard of every peer, per path: silence, two-way LANs, echoes.
//!
//! Intuition: a peer is *suspected* when nothing at all of it arrived for `timeout`, on any path. It is
//! *partitioned* when something still arrives, but no LAN worked in both directions for `timeout`. One healthy LAN of
//! any kind: nothing moves. Every silence counts from the last thing heard, at the earliest from `baseline`: the
//! start of this process, the adoption of the view, or the end of an own stall (R24).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::compact::Compact;
use crate::config::{Config, PathKind};
use crate::core::Core;
use crate::frame::{Frame, Heard};
use crate::names::{PathName, ServerName};
use crate::planted::planted;
use crate::time::Instant;
use crate::view::Epoch;

/// One path from one peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Hearing {
    /// Newest sequence that arrived on this path.
    pub(crate) sequence: u64,
    /// When.
    pub(crate) received: Instant,
    /// Newest own send that the peer says it received on this path.
    pub(crate) echoed: Instant,
    /// Half of the last round trip.
    pub(crate) latency: Option<Duration>,
    /// Longest silence while the path was up.
    pub(crate) longest_gap: Duration,
    /// Frames that arrived and that were sent since `window`.
    pub(crate) counted: (u64, u64),
    /// Beginning of the loss window.
    pub(crate) window: Instant,
    /// (expected, received) of the last full window.
    pub(crate) loss: (u64, u64),
    /// Last reported (receiving, two-way), and since when.
    pub(crate) shown: (bool, bool),
    /// See `shown`.
    pub(crate) since: Instant,
    /// It went down and was not told to be up since.
    pub(crate) fell: bool,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Peer {
    /// The newest whole frame.
    pub(crate) frame: Option<Frame>,
    /// The newest frame of a serial line, of the same boot.
    pub(crate) compact: Option<Compact>,
    /// [`moment`] of the newest heartbeat.
    pub(crate) newest: u64,
    /// When the newest heartbeat arrived, on any path.
    pub(crate) received: Instant,
    /// Per path.
    pub(crate) paths: BTreeMap<PathName, Hearing>,
    /// Newest sequence of a frame of our own epoch and of the boot that the view names: what we acknowledge (R7).
    pub(crate) granted: u64,
    /// Receipt of that frame, or the adoption of the view, whichever is later (R7, R10).
    pub(crate) last_heard: Instant,
    /// Newest own send that this peer acknowledged in our epoch.
    pub(crate) grant: Instant,
    /// Since when a LAN works both ways without a break.
    pub(crate) connected_since: Option<Instant>,
    /// When it was last told the newest view.
    pub(crate) told: Instant,
}

/// Which boot of which server speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// Orders the boots of one acceptor.
    pub(crate) counter: u64,
    /// [`crate::names::BootId::folded`].
    pub(crate) boot: u64,
    /// [`crate::names::AcceptorId::folded`].
    pub(crate) acceptor: u64,
}

/// What a heartbeat says that counts for leases (R7).
#[derive(Debug)]
pub(crate) struct Word {
    /// Lineage and epoch of the sender.
    pub(crate) order: (u32, Epoch),
    /// It speaks from the boot that our view names.
    pub(crate) admitted: bool,
    /// It is the acceptor that our view names.
    pub(crate) votes: bool,
    /// When it was sent.
    pub(crate) sequence: u64,
    /// What it acknowledges of ours.
    pub(crate) granted: Option<Instant>,
}

/// A send time as all paths can carry it: in µs. Two heartbeats are never sent within one.
pub(crate) fn moment(sequence: u64) -> u64 {
    sequence / 1000
}

/// How a member of the view looks from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Verdict {
    /// A LAN works both ways.
    Connected,
    /// No LAN, but alive elsewhere.
    Partitioned,
    /// Silent on all paths.
    Suspected,
}

impl Peer {
    /// Whether a heartbeat with this sequence is news on `path`. A later incarnation replaces what was known of the one
    /// before; an earlier one, a repetition, or what was overtaken on the same path is refused.
    pub(crate) fn meets(
        &mut self,
        speaks: Known,
        path: &PathName,
        sequence: u64,
        now: Instant,
        limit: Duration,
    ) -> bool {
        let whole = self.frame.as_ref().map(|frame| Known {
            counter: frame.boot_counter,
            boot: frame.boot.folded(),
            acceptor: frame.acceptor.folded(),
        });
        let compact = self.compact.as_ref();
        let compact = compact.map(|c| Known { counter: c.boot_counter, boot: c.boot, acceptor: c.acceptor });
        let Some(known) = whole.or(compact) else { return true };
        if speaks.boot == known.boot {
            return self.paths.get(path).is_none_or(|hearing| sequence > hearing.sequence);
        }
        // Incarnations are ordered by the durable boot counter; a server that lost its state (another acceptor) starts
        // counting anew. Either is taken once the old one is silent: a machine that boots again never speaks from its
        // old boot any more, so while that speaks, the other one is a second machine of that name (a copy of its disk),
        // and must not make a working member look rebooted, and its groups free.
        let later = speaks.counter > known.counter || speaks.acceptor != known.acceptor;
        let newer = later && now.since(self.received) >= limit;
        if newer {
            *self = Peer { last_heard: self.last_heard, told: self.told, ..Peer::default() };
        }
        newer
    }

    /// Takes a heartbeat for a sign of life, unless a later one has arrived: the same heartbeat on a slower path is none.
    pub(crate) fn lives(&mut self, moment: u64, now: Instant) -> bool {
        let news = moment > self.newest;
        if news {
            self.newest = moment;
            self.received = now;
        }
        news
    }

    /// What is heard on `path`.
    pub(crate) fn hearing(&mut self, path: &PathName, now: Instant) -> &mut Hearing {
        self.paths.entry(path.clone()).or_insert_with(|| Hearing::new(now))
    }

    /// How long a LAN may go without an echo: the echo of a send comes back with the next heartbeat, so it lags by up
    /// to two intervals even when all is well.
    pub(crate) fn echo_limit(config: &Config) -> Duration {
        config.timeout + 2 * config.interval
    }

    /// Whether some LAN works both ways, judged from `baseline` on.
    fn lan_works(&self, config: &Config, now: Instant, baseline: Instant) -> bool {
        config.paths.iter().filter(|(_, kind)| kind.is_lan()).any(|(path, _)| match self.paths.get(path) {
            Some(hearing) => {
                now.since(hearing.received.max(baseline)) < config.timeout
                    && now.since(hearing.echoed.max(baseline)) < Self::echo_limit(config)
            }
            None => now.since(baseline) < config.timeout,
        })
    }

    /// Whether `path` works both ways right now.
    pub(crate) fn two_way(&self, config: &Config, now: Instant, path: &PathName) -> bool {
        self.paths.get(path).is_some_and(|hearing| {
            now.since(hearing.received) < config.timeout && now.since(hearing.echoed) < Self::echo_limit(config)
        })
    }

    pub(crate) fn receiving(&self, config: &Config, now: Instant, path: &PathName) -> bool {
        self.paths.get(path).is_some_and(|hearing| now.since(hearing.received) < config.timeout)
    }

    fn verdict(&self, config: &Config, now: Instant, baseline: Instant) -> Verdict {
        if now.since(self.received.max(baseline)) >= config.timeout {
            Verdict::Suspected
        } else if self.lan_works(config, now, baseline) || planted!(PartitionIgnored) {
            Verdict::Connected
        } else {
            Verdict::Partitioned
        }
    }
}

/// Last moments at which a server heard another one over a LAN, neither of them this one, as their frames tell.
pub(crate) type Links = BTreeMap<ServerName, BTreeMap<ServerName, Instant>>;

impl Core {
    /// Takes a whole heartbeat: hearing, echo, links; then knowledge (who is behind is told).
    pub(crate) fn hear(&mut self, path: PathName, frame: Frame) {
        let (now, me) = (self.now, self.boot.server.clone());
        let Some(config) = self.config.clone() else { return };
        if frame.from == me || !config.servers.contains_key(&frame.from) || !config.paths.contains_key(&path) {
            return;
        }
        if let (Some(view), Some(cluster)) = (&self.durable.view, frame.cluster)
            && view.cluster != cluster
        {
            self.note_once(
                "foreign",
                "PartitionDetected",
                format!("{} belongs to another sub-cluster ({cluster})", frame.from),
            );
            return;
        }
        if self.is_rival_chain(frame.lineage, frame.chain) {
            return self.note_rival_chain(&frame.from.0.clone(), frame.lineage);
        }
        let limit = config.timeout;
        let peer = self.peers.entry(frame.from.clone()).or_default();
        let known = Known { counter: frame.boot_counter, boot: frame.boot.folded(), acceptor: frame.acceptor.folded() };
        if !peer.meets(known, &path, frame.sequence, now, limit) {
            return;
        }
        let on_disk = config.paths.get(&path) == Some(&PathKind::Disk);
        let hearing = peer.hearing(&path, now);
        if on_disk && hearing.sequence == 0 {
            // A block stays on the disk when its writer is gone: only a change shows life.
            hearing.sequence = frame.sequence;
            return;
        }
        hearing.arrived(now, frame.sequence, config.interval, limit);
        if let Some(heard) = frame.heard.get(&me)
            && let Some((sequence, age)) = heard.paths.get(&path)
        {
            hearing.echo(now, *sequence, *age);
        }
        peer.lives(moment(frame.sequence), now);
        let newest = peer.frame.as_ref().is_none_or(|known| known.sequence < frame.sequence);
        let before = if newest { peer.frame.replace(frame.clone()) } else { None };
        if let Some(view) = &self.durable.view {
            let acceptor = crate::view::Acceptor::Server(frame.from.clone());
            let word = Word {
                order: (frame.lineage, frame.epoch),
                admitted: view.admits(&frame.from, frame.boot),
                votes: view.acceptors.get(&acceptor) == Some(&frame.acceptor),
                sequence: frame.sequence,
                granted: frame.heard.get(&me).map(|heard| Instant(heard.granted)),
            };
            self.acknowledge(&frame.from, &word);
        }
        if newest {
            self.remember_links(&frame, &config);
            let order = (frame.lineage, frame.epoch);
            self.watch_departed(&frame.from, |b| b == frame.boot, order, frame.held.is_empty(), frame.is_virtual);
            self.learn_fencing(&frame);
            self.answer_announcement(before.as_ref(), &frame);
            self.compare_knowledge(&frame.from, order);
        }
    }

    /// R7: our echo to the sender, and its echo to us.
    pub(crate) fn acknowledge(&mut self, from: &ServerName, word: &Word) {
        let (now, order) = (self.now, self.stable_order());
        let Some(view) = &self.durable.view else { return };
        let same = order == Some(view.order()) && order == Some(word.order);
        if !same && !planted!(AcknowledgesAnyEpoch) {
            return;
        }
        let Some(peer) = self.peers.get_mut(from) else { return };
        let member = word.admitted || planted!(AcknowledgesAnyEpoch);
        let member = member || planted!(BootNotNamed);
        if member && word.sequence > peer.granted {
            peer.granted = word.sequence;
            peer.last_heard = now;
        }
        // Only an acceptor's word counts, and only for the boot of ours that the view names.
        if word.votes
            && (view.admits(&self.boot.server, self.boot.boot) || planted!(BootNotNamed))
            && let Some(grant) = word.granted.filter(|grant| *grant <= now && *grant > peer.grant)
        {
            peer.grant = if planted!(LeaseFromReceipt) { now } else { grant };
        }
    }

    /// Remembers when the sender last heard others over a LAN.
    fn remember_links(&mut self, frame: &Frame, config: &Config) {
        for (other, heard) in &frame.heard {
            let ages = heard.paths.iter().filter(|(path, _)| config.paths.get(*path).is_some_and(|kind| kind.is_lan()));
            if let Some(age) = ages.map(|(_, (_, age))| *age).min() {
                let at = self.now - Duration::from_micros(u64::from(age));
                let link = self.links.entry(frame.from.clone()).or_default().entry(other.clone()).or_default();
                *link = (*link).max(at);
            }
        }
    }

    /// Whether `a` and `b`, neither of them this server, hear each other.
    fn linked(&self, config: &Config, a: &ServerName, b: &ServerName) -> bool {
        let one_way = |from: &ServerName, to: &ServerName| {
            let last = self.links.get(from).and_then(|heard| heard.get(to)).copied().unwrap_or_default();
            self.now.since(last.max(self.baseline)) < Peer::echo_limit(config)
        };
        one_way(a, b) && one_way(b, a)
    }

    /// How a member looks from here.
    pub(crate) fn verdict(&self, server: &ServerName) -> Verdict {
        let Some(config) = &self.config else { return Verdict::Connected };
        match self.peers.get(server) {
            Some(peer) => peer.verdict(config, self.now, self.baseline),
            None => Peer::default().verdict(config, self.now, self.baseline),
        }
    }

    /// Whether a LAN works both ways with `server` right now, without the benefit of a recent start.
    pub(crate) fn connected(&self, server: &ServerName) -> bool {
        let Some(config) = &self.config else { return false };
        self.peers.get(server).is_some_and(|peer| peer.verdict(config, self.now, Instant::ZERO) == Verdict::Connected)
    }

    /// Keeps `connected_since` and the moments at which verdicts change.
    pub(crate) fn watch_silence(&mut self) {
        let Some(config) = self.config.clone() else { return };
        let now = self.now;
        let mut turns = Vec::new();
        for (name, peer) in &mut self.peers {
            let connected = peer.verdict(&config, now, Instant::ZERO) == Verdict::Connected;
            match (connected, peer.connected_since) {
                (true, None) => peer.connected_since = Some(now),
                (false, Some(_)) => peer.connected_since = None,
                _ => {}
            }
            for (path, _) in config.paths.iter() {
                let shown = (peer.receiving(&config, now, path), peer.two_way(&config, now, path));
                if let Some(hearing) = peer.paths.get_mut(path)
                    && hearing.shown != shown
                {
                    if hearing.shown.0 && !shown.0 || hearing.fell && shown == (true, true) {
                        hearing.fell = !shown.0;
                        turns.push((name.clone(), path.clone(), shown.0));
                    }
                    hearing.shown = shown;
                    hearing.since = now;
                }
            }
        }
        for (peer, path, up) in turns {
            let (reason, what) = if up { ("PathUp", "works both ways again") } else { ("PathDown", "is silent") };
            self.note(reason, None, !up, format!("path {path} to {peer} {what}"));
        }
        let edges: Vec<Instant> = self
            .peers
            .values()
            .flat_map(|peer| {
                let silence = peer.received.max(self.baseline) + config.timeout;
                let lans = config.paths.iter().filter(|(_, kind)| kind.is_lan());
                let lans = lans.filter_map(|(path, _)| peer.paths.get(path)).flat_map(|hearing| {
                    [
                        hearing.received.max(self.baseline) + config.timeout,
                        hearing.echoed.max(self.baseline) + Peer::echo_limit(&config),
                    ]
                });
                lans.chain([silence]).collect::<Vec<_>>()
            })
            .collect();
        for edge in edges {
            self.wake(edge);
        }
    }

    /// R24: after an own stall nobody's silence counts that we slept through.
    pub(crate) fn restart_silence(&mut self) {
        self.baseline = self.now;
    }

    /// The best set of members that are all connected to each other and to this server: the largest, then the one that
    /// runs most groups, then the first by names (R1).
    pub(crate) fn best_clique(&self, members: &BTreeSet<ServerName>) -> BTreeSet<ServerName> {
        let Some(config) = self.config.clone() else { return members.clone() };
        let me = &self.boot.server;
        let others: Vec<&ServerName> =
            members.iter().filter(|name| *name != me && self.verdict(name) == Verdict::Connected).collect();
        let linked: Vec<u32> = others
            .iter()
            .map(|a| {
                others
                    .iter()
                    .enumerate()
                    .filter(|(_, b)| a == *b || self.linked(&config, a, b) || planted!(CliqueIgnored))
                    .fold(0, |set, (i, _)| set | 1 << i)
            })
            .collect();
        let everybody = u32::MAX >> (32 - others.len().max(1));
        if linked.iter().all(|linked| *linked == everybody) {
            return others.into_iter().chain([me]).cloned().collect(); // nearly always
        }
        let groups: Vec<usize> = others.iter().map(|name| self.groups_held_by(name)).collect();
        let mut best: (usize, usize, u32) = (0, 0, 0);
        // At most 15 others: every subset is looked at, small ones only while nothing larger was found.
        for set in 0u32..1 << others.len() {
            let size = set.count_ones() as usize;
            if size < best.0 {
                continue;
            }
            let clique = (0..others.len()).filter(|i| set & 1 << i != 0).all(|i| set & !linked[i] == 0);
            let held: usize = (0..others.len()).filter(|i| set & 1 << i != 0).map(|i| groups[i]).sum();
            // Lower names are lower bits, so of two sets the reversed comparison of bits prefers lower names.
            let better = (size, held) > (best.0, best.1)
                || (size, held) == (best.0, best.1) && set.reverse_bits() > best.2.reverse_bits();
            if clique && better {
                best = (size, held, set);
            }
        }
        let chosen = (0..others.len()).filter(|i| best.2 & 1 << i != 0).map(|i| others[i].clone());
        chosen.chain([me.clone()]).collect()
    }

    /// How many groups a peer says that it holds.
    pub(crate) fn groups_held_by(&self, server: &ServerName) -> usize {
        self.peers.get(server).and_then(|peer| peer.frame.as_ref()).map_or(0, |frame| frame.held.len())
    }

    /// What goes into our frames about every peer.
    pub(crate) fn heard(&self, config: &Config, acknowledging: bool) -> BTreeMap<ServerName, Heard> {
        let now = self.now;
        let micros = |age: Duration| u32::try_from(age.as_micros()).unwrap_or(u32::MAX);
        let of = |peer: &Peer| Heard {
            paths: peer
                .paths
                .iter()
                .filter(|(_, hearing)| now.since(hearing.received) < config.timeout)
                .map(|(path, hearing)| (path.clone(), (hearing.sequence, micros(now.since(hearing.received)))))
                .collect(),
            granted: if acknowledging { peer.granted } else { 0 },
        };
        self.peers
            .iter()
            .filter(|(_, peer)| peer.frame.is_some() || peer.compact.is_some())
            .map(|(name, peer)| (name.clone(), of(peer)))
            .collect()
    }

    /// The paths on which nothing of `server` arrives now.
    pub(crate) fn silent_paths(&self, server: &ServerName) -> Vec<PathName> {
        let Some(config) = &self.config else { return Vec::new() };
        let receiving =
            |path: &PathName| self.peers.get(server).is_some_and(|peer| peer.receiving(config, self.now, path));
        config.paths.keys().filter(|path| !receiving(path)).cloned().collect()
    }

    /// The LAN paths in order of preference for messages to `server`: interconnects that work first.
    pub(crate) fn exchange_path(&self, server: &ServerName) -> Option<PathName> {
        let config = self.config.as_ref()?;
        let peer = self.peers.get(server)?;
        let works = |kind: PathKind| {
            let mut paths = config.paths.iter().filter(move |(_, k)| **k == kind);
            paths.find(|(path, _)| peer.two_way(config, self.now, path)).map(|(path, _)| path.clone())
        };
        works(PathKind::Interconnect).or_else(|| works(PathKind::Public))
    }
}

impl Hearing {
    fn new(now: Instant) -> Hearing {
        Hearing {
            sequence: 0,
            received: Instant::ZERO,
            echoed: Instant::ZERO,
            latency: None,
            longest_gap: Duration::ZERO,
            counted: (0, 0),
            window: now,
            loss: (0, 0),
            shown: (false, false),
            since: now,
            fell: false,
        }
    }

    /// The peer says that this send of ours arrived, so long ago.
    pub(crate) fn echo(&mut self, now: Instant, sequence: u64, age_us: u32) {
        let echoed = Instant(sequence);
        if echoed > self.echoed && echoed <= now {
            self.echoed = echoed;
            self.latency = Some(now.since(echoed).saturating_sub(Duration::from_micros(u64::from(age_us))) / 2);
        }
    }

    /// A frame arrived: gaps and losses, over windows of a minute.
    pub(crate) fn arrived(&mut self, now: Instant, sequence: u64, interval: Duration, limit: Duration) {
        let gap = now.since(self.received);
        if self.received > Instant::ZERO && gap < limit {
            self.longest_gap = self.longest_gap.max(gap);
            // Frames between two sequences (send times), as many as intervals fit; an early extra frame counts as one.
            let sent = Duration::from_nanos(sequence.saturating_sub(self.sequence)).as_nanos();
            let step = interval.as_nanos().max(1);
            self.counted.0 += u64::try_from((sent + step / 2) / step).unwrap_or(0).max(1);
        } else {
            self.longest_gap = Duration::ZERO;
            self.counted.0 += 1;
        }
        self.counted.1 += 1;
        if now.since(self.window) >= Duration::from_secs(60) {
            self.loss = self.counted;
            self.counted = (0, 0);
            self.window = now;
        }
        self.sequence = sequence;
        self.received = now;
    }
}
