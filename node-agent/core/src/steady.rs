//! What most heartbeats are: the same word as before, on another path or an interval later.
//!
//! Such a one makes the lease longer and nothing else different, so only that rule looks at it; the others look at the next
//! moment at which one of them asked to, at the latest with the next own heartbeat. That is safe because no rule's
//! safety rests on when it looks: what must end at a time has its deadline, which only the lease moves. And nothing comes
//! later for it, as anything that is new, or not as it should be, is looked at by all at once.

use crate::compact::Compact;
use crate::core::Core;
use crate::frame::Frame;
use crate::names::{PathName, ServerName};
use crate::peers::Verdict;

impl Core {
    /// Takes a heartbeat. Says whether the rules are to look at what it brings.
    pub(crate) fn take_frame(&mut self, path: PathName, frame: Frame) -> bool {
        let from = frame.from.clone();
        let known = self.peers.get(&from).and_then(|peer| peer.frame.as_ref());
        let same = known.is_some_and(|known| says_the_same(known, &frame));
        self.unless_repeated(same, &from, |core| core.hear(path, frame))
    }

    /// The same for one of a serial line.
    pub(crate) fn take_compact(&mut self, path: PathName, compact: Compact) -> bool {
        let known = self.peers.iter().find_map(|(name, peer)| Some((name, peer.compact?)));
        let known = known.filter(|(_, known)| known.id == compact.id).map(|(name, known)| (name.clone(), known));
        let news = |known: Compact| Compact {
            sequence: compact.sequence,
            echo: compact.echo,
            granted: compact.granted,
            ..known
        };
        match known {
            Some((from, known)) => {
                let same = news(known) == compact;
                self.unless_repeated(same, &from, |core| core.hear_compact(path, compact))
            }
            None => {
                self.hear_compact(path, compact);
                true
            }
        }
    }

    fn unless_repeated(&mut self, same: bool, from: &ServerName, hear: impl FnOnce(&mut Core)) -> bool {
        let (steady, beat) = (same && self.is_steady(from), self.next_beat);
        #[cfg(debug_assertions)]
        let before = (steady && self.now.is_sample()).then(|| self.would_ask());
        hear(self);
        if !steady {
            return true;
        }
        self.renew_lease();
        let repeated = self.is_steady(from) && self.next_beat == beat;
        #[cfg(debug_assertions)]
        if let Some(before) = before.filter(|_| repeated) {
            assert_eq!(before, self.would_ask(), "a heartbeat of {from} brought something");
        }
        !repeated
    }

    /// The view stands, this server acts under it, nothing is under way in it, and `from` is seen as it was when the rules
    /// looked last.
    fn is_steady(&self, from: &ServerName) -> bool {
        let (Some(view), Some(config), Some(peer)) = (&self.durable.view, &self.config, self.peers.get(from)) else {
            return false;
        };
        let member = peer.frame.as_ref().is_some_and(|frame| {
            view.admits(from, frame.boot)
                && (frame.lineage, frame.epoch, frame.chain) == (view.lineage, view.epoch, view.chain)
        });
        let seen = config.paths.keys().all(|path| {
            let shown = (peer.receiving(config, self.now, path), peer.two_way(config, self.now, path));
            peer.paths.get(path).is_none_or(|hearing| hearing.shown == shown)
        });
        member
            && seen
            && self.leased()
            && !self.is_due()
            && !self.leaving
            && self.proposal.is_none()
            && self.desire.members.is_empty()
            && self.trouble.is_none()
            && self.coming.is_none()
            && self.fences.is_empty()
            && self.announced.is_empty()
            && peer.connected_since.is_some()
            && self.verdict(from) == Verdict::Connected
    }
}

/// All but the moments.
fn says_the_same(known: &Frame, frame: &Frame) -> bool {
    let echoes = |frame: &Frame| -> Vec<(ServerName, bool, Vec<PathName>)> {
        let one = |(name, heard): (&ServerName, &crate::frame::Heard)| {
            (name.clone(), heard.granted == 0, heard.paths.keys().cloned().collect())
        };
        frame.heard.iter().map(one).collect()
    };
    echoes(known) == echoes(frame)
        && *known == Frame { sequence: known.sequence, heard: known.heard.clone(), ..frame.clone() }
}
