//! What the coordinator makes of the wishes that commands bring to it (`commands.rs`): which servers it avoids for their
//! sake, and the reason that it answers with when it does not grant one.
//!
//! A wish has a number. One that was declined is never granted by this coordinator, whatever changes meanwhile: so whoever
//! hears the refusal, however late, can count on nothing following. It counts only in the view that it was given in; the
//! coordinator of the next view hears of the wish only if it still stands then.

use std::collections::BTreeSet;

use holdfast_planner::{Action, Candidate};

use crate::config::{Config, GroupConfig, MonitorAction};
use crate::core::Core;
use crate::fitness::{Avoided, limits};
use crate::message::Message;
use crate::names::{GroupName, ServerName};
use crate::output::Output;
use crate::planted::planted;
use crate::status::{Asked, GroupPhase};
use crate::time::Instant;
use crate::view::View;

/// A wish that is not granted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Declined {
    number: u64,
    why: String,
    /// When the member was told last.
    said: Option<Instant>,
}

impl Core {
    fn is_declined(&self, server: &ServerName, group: Option<&GroupName>, asked: &Asked) -> bool {
        let known = self.coordinator.declined.get(&(server.clone(), group.cloned()));
        known.is_some_and(|known| known.number == asked.number) && !planted!(DeclinedIsGranted)
    }

    /// Servers that a group is to leave by a command, or (`left`) that it has left by one.
    pub(crate) fn asked_to_leave(&self, group: &GroupName, left: bool) -> Avoided {
        let reports = self.coordinator.reports.iter();
        let leave = reports.filter_map(|(server, report)| Some((server, report.server.leave.get(group)?)));
        leave
            .filter(|(server, leave)| {
                leave.left == left && (left || !self.is_declined(server, Some(group), &leave.asked))
            })
            .map(|(server, leave)| (server.clone(), leave.asked.why.clone()))
            .collect()
    }

    /// Servers that are to go down by a command.
    pub(crate) fn asked_to_go_down(&self) -> Avoided {
        let reports = self.coordinator.reports.iter();
        let down = reports.filter_map(|(server, report)| Some((server, report.server.down.as_ref()?)));
        down.filter(|(server, asked)| !self.is_declined(server, None, asked))
            .map(|(server, asked)| (server.clone(), asked.why.clone()))
            .collect()
    }

    /// Why a group was taken from a server, if that was a command; for people.
    pub(crate) fn command_about(&self, group: &GroupName, from: &ServerName) -> Option<String> {
        self.wish_about(group, from).map(|asked| asked.why.clone())
    }

    fn wish_about(&self, group: &GroupName, from: &ServerName) -> Option<&Asked> {
        let said = &self.coordinator.reports.get(from)?.server;
        let left =
            said.leave.get(group).filter(|leave| leave.left || !self.is_declined(from, Some(group), &leave.asked));
        let down = said.down.as_ref().filter(|asked| !self.is_declined(from, None, asked));
        left.map(|leave| &leave.asked).or(down)
    }

    /// That command, as `SERVER:NUMBER`.
    pub(crate) fn command_behind(&self, group: &GroupName, from: &ServerName) -> Option<String> {
        self.wish_about(group, from).map(|asked| format!("{from}:{}", asked.number))
    }

    /// A server is to go down by a command, and may not.
    pub(crate) fn decline_down(&mut self, server: &ServerName, why: &str) {
        let asked = self.coordinator.reports.get(server).and_then(|report| report.server.down.clone());
        if let Some(asked) = asked {
            self.decline(server.clone(), None, asked.number, why.to_owned());
        }
    }

    fn decline(&mut self, server: ServerName, group: Option<GroupName>, number: u64, why: String) {
        self.coordinator.declined.insert((server, group), Declined { number, why, said: None });
    }

    /// Answers the wishes for which the plan that was just made has nothing, and repeats what was not heard.
    pub(crate) fn decline_wishes(&mut self, view: &View, config: &Config) {
        let open = self.coordinator.reports.iter().flat_map(|(server, report)| {
            let leave = report.server.leave.iter().filter(|(_, leave)| !leave.left);
            leave.map(move |(group, leave)| (server.clone(), group.clone(), leave.asked.clone()))
        });
        let open: Vec<(ServerName, GroupName, Asked)> = open.collect();
        for (server, group, asked) in open {
            if !self.is_declined(&server, Some(&group), &asked)
                && let Some(why) = self.why_it_stays(view, config, &group, &server)
            {
                self.decline(server, Some(group), asked.number, why);
            }
        }
        self.say_declined(view, config);
    }

    /// Why a group does not leave a server that a command wants it to leave; none: it does, or nobody can tell yet.
    fn why_it_stays(&self, view: &View, config: &Config, name: &GroupName, here: &ServerName) -> Option<String> {
        let group = self.groups.get(name)?;
        let report = self.coordinator.reports.get(here)?.groups.get(name)?;
        if report.phase == GroupPhase::Offline || report.failure.is_some() {
            return None;
        }
        let avoids = self.coordinator.judgement.worse.get(name).is_some_and(|worse| worse.contains_key(here));
        let decision = self.coordinator.decisions.get(name)?;
        if avoids || matches!(&decision.action, Action::Stop { .. } | Action::Start { .. }) {
            return None;
        }
        let others: Vec<&ServerName> = group.policy.iter().filter(|server| *server != here).collect();
        let objections: Vec<Option<String>> =
            others.iter().map(|server| self.objection(view, config, name, server)).collect();
        // Were it not for its limit, there would be a better one.
        if objections.iter().any(Option::is_none)
            && let Some(limit) = self.moved_too_often(name, group)
        {
            return Some(limit);
        }
        let planned = |server: &ServerName| decision.candidates.iter().find(|known| known.server == server.0);
        let reasons: Vec<String> = others
            .iter()
            .zip(objections)
            .map(|(server, objection)| {
                let problem = objection.or_else(|| planned(server).and_then(in_words));
                format!("{server} {}", problem.unwrap_or_else(|| "is no better".to_owned()))
            })
            .collect();
        Some(match reasons.as_slice() {
            [] => "its placement names no other server".to_owned(),
            reasons => format!("no other server is better: {}", reasons.join("; ")),
        })
    }

    fn moved_too_often(&self, name: &GroupName, group: &GroupConfig) -> Option<String> {
        let limits = limits(group)?;
        let recent = self.coordinator.history.get(name)?.recoveries(self.now, limits.failover_window);
        let (most, window) = (limits.max_failovers, limits.failover_window.as_secs());
        (recent >= most as usize).then(|| {
            format!("it was moved {recent} times in the last {window} s, and recovery.maxFailovers allows {most} in failoverWindow")
        })
    }

    /// Why a member can't take a group at all, as far as every server can tell.
    pub(crate) fn absent(&self, view: &View, server: &ServerName) -> Option<&'static str> {
        let heard = *server == self.boot.server || self.connected(server);
        if view.detached.contains_key(server) {
            Some("is detached")
        } else if !view.members.contains_key(server) {
            Some("is no member now")
        } else if !heard {
            Some("is not heard")
        } else if self.leaves(server) {
            Some("leaves")
        } else {
            None
        }
    }

    /// Why a server is no better one for a group, after what servers report; the planner may have other reasons.
    fn objection(&self, view: &View, config: &Config, name: &GroupName, server: &ServerName) -> Option<String> {
        let absent = self.absent(view, server).map(str::to_owned);
        let removed = || (!config.servers.contains_key(server)).then(|| "is not declared any more".to_owned());
        let failed = || Some(format!("has failed it: {}", self.failures_of(name).get(server)?.message));
        let avoided = || {
            let why = self.coordinator.judgement.avoided.get(name)?.get(server)?;
            Some(format!("is to be avoided: {why}"))
        };
        let unfit = || {
            let why = self.accused(false, MonitorAction::is_about_servers).remove(server)?;
            Some(format!("is unfit: {why}"))
        };
        let asked = || self.asked_to_leave(name, false).remove(server).map(|why| format!("is to be left, too: {why}"));
        let shaky = || self.shaky().contains(server).then(|| "has a monitor that failed just now".to_owned());
        absent.or_else(removed).or_else(failed).or_else(avoided).or_else(unfit).or_else(asked).or_else(shaky)
    }

    /// Tells members what they do not get, until they do not ask for it any more.
    fn say_declined(&mut self, view: &View, config: &Config) {
        let stands = |(server, group): &(ServerName, Option<GroupName>), declined: &Declined| {
            let said = self.coordinator.reports.get(server).map(|report| &report.server);
            let asked = said.and_then(|said| match group {
                Some(group) => said.leave.get(group).filter(|leave| !leave.left).map(|leave| &leave.asked),
                None => said.down.as_ref(),
            });
            asked.is_some_and(|asked| asked.number == declined.number)
        };
        let gone: BTreeSet<(ServerName, Option<GroupName>)> = self
            .coordinator
            .declined
            .iter()
            .filter(|(subject, declined)| !stands(subject, declined))
            .map(|(subject, _)| subject.clone())
            .collect();
        self.coordinator.declined.retain(|subject, _| !gone.contains(subject));
        let (now, order) = (self.now, view.order());
        let mut due = Vec::new();
        for ((server, group), declined) in &mut self.coordinator.declined {
            if declined.said.is_none_or(|said| now >= said + config.interval) {
                declined.said = Some(now);
                due.push((server.clone(), group.clone(), declined.number, declined.why.clone()));
            }
        }
        if !self.coordinator.declined.is_empty() {
            self.wake(now + config.interval);
        }
        for (to, group, number, why) in due {
            if to == self.boot.server {
                self.on_declined(order, group, number, &why);
            } else {
                let message = Message::Declined { order, group, number, why };
                self.emit(Output::Send { to, message: Box::new(message) });
            }
        }
    }
}

/// The planner's reasons against a server, after its name. That it comes later in the order of preference is none.
fn in_words(candidate: &Candidate) -> Option<String> {
    use holdfast_planner::Reason::{
        Detached, Failed, LowerPreference, NoCapacity, NoEvidence, NotInPolicy, SeparateFrom, Together,
    };
    let word = |reason: &holdfast_planner::Reason| match reason {
        Detached => Some("is detached"),
        holdfast_planner::Reason::Lost => Some("is lost"),
        NotInPolicy => Some("is not in its placement"),
        Failed => Some("has failed it"),
        NoCapacity => Some("has no room for it"),
        SeparateFrom => Some("runs a group from which it is to be separate"),
        Together => Some("may not run what it is to be together with"),
        NoEvidence => Some("waits for evidence about a lost server"),
        LowerPreference => None,
    };
    let words: Vec<&str> = candidate.reasons.iter().filter_map(word).collect();
    (!words.is_empty()).then(|| words.join(" and "))
}
