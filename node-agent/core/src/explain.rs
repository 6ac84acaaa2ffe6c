//! The core's own account of itself: [`Core::status`].

use crate::core::Core;
use crate::frame::Intent;
use crate::names::ServerName;
use crate::peers::Verdict;
use crate::status::{ClusterPhase, CoordinatorStatus, MemberState, PathStatus, PeerStatus, Status};
use crate::time::Instant;

impl Core {
    /// What this server knows now.
    pub fn status(&self, now: Instant) -> Status {
        let phase = self.cluster_phase();
        Status {
            member: self.member_state(),
            sentence: self.sentence(phase),
            view: self.durable.view.clone(),
            phase,
            leased: self.leased(),
            lease_anchor: self.lease.anchor,
            smallest_margin: self.lease.smallest_margin,
            peers: self.peers.keys().map(|name| (name.clone(), self.peer_status(now, name))).collect(),
            lock: self.config.as_ref().and_then(|config| config.lock).map(|kind| match &self.lock.problem {
                Some(problem) => Err(problem.clone()),
                None if self.lock.id.is_none() => Err(format!("the {} was not read yet", kind.noun())),
                None => Ok(()),
            }),
            config_pending: self.config_pending(),
            groups: self.own_reports(),
            monitors: self.server_report().monitors,
            coordinator: (self.coordinates() && self.everybody_reported())
                .then(|| CoordinatorStatus { groups: self.placed_groups(), brake: self.loss_brake() }),
            history: self.former_history(),
            last_resolution: self.resolution.clone(),
            highest: self.durable.highest,
            absences: self.absences(),
            shut_downs: self.shut_downs(),
            force_refused: self.force_refused(),
            fences: self.fence_status(),
        }
    }

    /// The durable state, as it will be once all writes are done.
    pub fn durable(&self) -> &crate::durable::Durable {
        &self.durable
    }

    fn member_state(&self) -> MemberState {
        match &self.durable.view {
            _ if self.leaving => MemberState::Leaving,
            Some(view) if view.admits(&self.boot.server, self.boot.boot) => {
                if view.detached.contains_key(&self.boot.server) { MemberState::Leaving } else { MemberState::Active }
            }
            Some(view) if self.durable.barred || view.detached.contains_key(&self.boot.server) => MemberState::Detached,
            _ => MemberState::Joining,
        }
    }

    fn cluster_phase(&self) -> ClusterPhase {
        let (Some(view), Some(config)) = (&self.durable.view, &self.config) else { return ClusterPhase::Unformed };
        if !self.leaving && self.awaits_force(config, view) {
            return ClusterPhase::AwaitingForceReinstate;
        }
        if view.stopped && !self.leaving {
            return ClusterPhase::Forming;
        }
        if view.stopped {
            return ClusterPhase::Stopped;
        }
        if self.acting() {
            return if self.leased() { ClusterPhase::Running } else { ClusterPhase::NoQuorum };
        }
        if self.somebody_acts(view) {
            return ClusterPhase::Running;
        }
        if !view.members.contains_key(&self.boot.server) {
            return ClusterPhase::NoQuorum;
        }
        ClusterPhase::Forming
    }

    fn sentence(&self, phase: ClusterPhase) -> String {
        let Some(config) = &self.config else { return "waiting for the specification of the sub-cluster".into() };
        let absent: Vec<&str> = config
            .servers
            .keys()
            .filter(|n| **n != self.boot.server && !self.connected(n))
            .map(|n| n.0.as_str())
            .collect();
        let missing =
            if absent.is_empty() { String::new() } else { format!("; no LAN connects {}", absent.join(", ")) };
        let lock = match self.lock.trouble(self.now) {
            Some(problem) => format!("; lock: {problem}"),
            None => String::new(),
        };
        match (&self.durable.view, phase) {
            (None, _) => format!("not formed yet: every server has to be present once{missing}{lock}"),
            (Some(view), ClusterPhase::AwaitingForceReinstate) => self.awaiting_in_words(view) + &missing + &lock,
            (Some(view), _) if self.acting() => {
                let held = self.machines.len();
                let lease = if self.leased() { "holds a lease" } else { "has no lease" };
                format!("member of view {}, {lease}, holds {held} groups{missing}{lock}", view.epoch)
            }
            (Some(view), _) if self.somebody_acts(view) => {
                let why = view.members.keys().next().map(|_| self.why_not_admitted(config, view)).unwrap_or_default();
                format!("not a member of view {}: {why}{missing}{lock}", view.epoch)
            }
            (Some(view), _) => {
                format!("waiting for the servers of view {} or the grace time{missing}{lock}", view.epoch)
            }
        }
    }

    /// What this server, which is no member, waits for.
    pub(crate) fn why_not_admitted(&self, config: &crate::config::Config, view: &crate::view::View) -> String {
        let me = &self.boot.server;
        if self.outdone() {
            return format!(
                "another machine is {me}, by its name and number, and goes on: this one is a copy, switch it off"
            );
        }
        if let Some(detachment) = view.detached.get(me) {
            return match &detachment.ordered {
                _ if detachment.declared => "the specification says state: Detached".into(),
                Some(by) if detachment.forced => {
                    format!("a force-reinstate of another server (by {by}) left it out; it has to be reinstated")
                }
                Some(by) => format!("detached by {by}; it has to be reinstated"),
                None => "detached".into(),
            };
        }
        if self.durable.barred && !config.automatic_return {
            return "it came back after a failure and has to be reinstated (or set returnPolicy: Automatic)".into();
        }
        let old =
            view.departed.keys().any(|key| key.0 == *me && key.1 != self.boot.boot && self.evidence(key).is_none());
        if old && self.boot.is_virtual && !config.time_on_virtual_machines {
            return self.unproven_in_words(config, view, me);
        }
        "waiting to be admitted".into()
    }

    fn peer_status(&self, now: Instant, name: &ServerName) -> PeerStatus {
        let Some(peer) = self.peers.get(name) else {
            return PeerStatus { state: MemberState::Unknown, paths: Default::default() };
        };
        let member = self.durable.view.as_ref().is_some_and(|view| view.members.contains_key(name));
        let detached = self.durable.view.as_ref().is_some_and(|view| view.detached.contains_key(name));
        let left_out =
            self.durable.view.as_ref().is_some_and(|view| view.departed.keys().any(|(server, _)| server == name));
        let state = match (&peer.frame, self.verdict(name)) {
            (None, _) if left_out => MemberState::Lost,
            (None, _) => MemberState::Unknown,
            (Some(_), Verdict::Suspected) => {
                if member {
                    MemberState::Suspect
                } else {
                    MemberState::Lost
                }
            }
            (Some(_), Verdict::Partitioned) => MemberState::Partitioned,
            (Some(frame), Verdict::Connected) if matches!(frame.intent, Intent::Leave | Intent::Close) => {
                MemberState::Leaving
            }
            (Some(_), Verdict::Connected) if member => {
                if detached {
                    MemberState::Leaving
                } else {
                    MemberState::Active
                }
            }
            (Some(frame), Verdict::Connected) => {
                if frame.barred || detached {
                    MemberState::Detached
                } else {
                    MemberState::Joining
                }
            }
        };
        let exchange = self.exchange_path(name);
        let paths = self.config.iter().flat_map(|config| config.paths.keys().map(move |path| (config, path)));
        let paths = paths.map(|(config, path)| {
            let hearing = peer.paths.get(path);
            let status = PathStatus {
                receiving: peer.receiving(config, now, path),
                two_way: peer.two_way(config, now, path),
                since: hearing.map_or(self.started, |hearing| hearing.since),
                latency: hearing.and_then(|hearing| hearing.latency),
                longest_gap: hearing.map(|hearing| hearing.longest_gap).unwrap_or_default(),
                loss: hearing.map_or((0, 0), |hearing| if hearing.loss.0 > 0 { hearing.loss } else { hearing.counted }),
                carries_exchange: exchange.as_ref() == Some(path),
            };
            (path.clone(), status)
        });
        PeerStatus { state, paths: paths.collect() }
    }
}
