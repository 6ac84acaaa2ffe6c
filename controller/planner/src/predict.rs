//! What becomes of everything after something is lost or changed: the planner's own steps, carried out in virtual time with
//! the durations that were measured.
//!
//! Why it says what will happen: every step comes from [`plan`], the function that acts, asked again whenever a step ends
//! that somebody may have waited for. What it can't know is how long steps take; they take as long as they took before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::{Action, Candidate, Current, Decision, Group, Input, Phase, Rule, ServerState, plan};

/// How long a group's stop and start took; none: never seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// From the order to stop until it is proven to run nowhere.
    pub stop: Option<Duration>,
    /// From the order to start until it is Online.
    pub start: Option<Duration>,
}

/// What was measured of a sub-cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    /// By group.
    pub groups: BTreeMap<String, Times>,
    /// From the loss of a server until its groups may start elsewhere; none: not known.
    pub takeover: Option<Duration>,
}

/// What is lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    /// Servers, all at the same moment.
    pub servers: BTreeSet<String>,
    /// Groups that run on lost servers and about which there will be no evidence without an operator.
    pub unproven: BTreeSet<String>,
    /// Those that are left are no quorum: everything stops, and nothing starts.
    pub no_quorum: bool,
}

/// Why a group is interrupted and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interruption {
    /// Where it ran.
    pub from: String,
    /// Where it runs in the end; none: nowhere.
    pub to: Option<String>,
    /// For how long it is away; none: it does not come back, or a step of it was never measured.
    pub outage: Option<Duration>,
    /// If it does not come back: which rule says so, and what speaks against each server.
    pub stays: Option<(Rule, Vec<Candidate>)>,
}

impl Interruption {
    /// It stays away because that was declared or ordered, not because nothing can run it.
    pub fn is_declared(&self) -> bool {
        matches!(&self.stays, Some((Rule::DeclaredOffline | Rule::Held, _)))
    }
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// It stops there.
    Stop,
    /// It starts there.
    Start,
}

/// One step, in the order in which they begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When it begins, counted from the change.
    pub at: Duration,
    /// What it does.
    pub does: Does,
    /// To which group.
    pub group: String,
    /// On which server.
    pub server: String,
}

/// What happens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    /// The steps.
    pub steps: Vec<Step>,
    /// The groups that ran and are interrupted.
    pub interruptions: BTreeMap<String, Interruption>,
    /// The groups that ran nowhere, are to run, and will not: which rule says so, and what speaks against each server.
    pub waiting: BTreeMap<String, (Rule, Vec<Candidate>)>,
}

/// How long a group is away that is taken over or moved: the part before its start, and its start. None if a part was never
/// measured. [`forecast`] says the same of a group that waits for no other.
pub fn outage(before: Option<Duration>, start: Option<Duration>) -> Option<Duration> {
    Some(before? + start?)
}

/// What happens to `input` by itself, when `losses` happen to it first.
pub fn forecast(input: &Input, losses: &Losses, measured: &Measured) -> Forecast {
    predict(input, losses, &BTreeSet::new(), measured)
}

/// What happens to `input` by itself, when the groups `restarts` are to stop and start again where they are Online. One that
/// the planner stops anyway starts as it is to be then; one that is frozen is left alone.
pub fn forecast_restarts(input: &Input, restarts: &BTreeSet<String>, measured: &Measured) -> Forecast {
    predict(input, &Losses::default(), restarts, measured)
}

fn predict(input: &Input, losses: &Losses, restarts: &BTreeSet<String>, measured: &Measured) -> Forecast {
    let mut world = World {
        input: input.clone(),
        restarts: restarts.clone(),
        measured,
        now: Duration::ZERO,
        due: BTreeMap::new(),
        away: BTreeMap::new(),
        rough: BTreeSet::new(),
        forecast: Forecast::default(),
    };
    world.lose(losses);
    let decisions = if losses.no_quorum { BTreeMap::new() } else { world.run(losses.servers.is_empty()) };
    world.finish(&decisions)
}

/// What ends at some moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// There is evidence that a lost server does not run this group any more.
    Freed(String),
    Stopped(String),
    Started(String),
}

struct World<'a> {
    input: Input,
    /// Groups that are still to be restarted in place.
    restarts: BTreeSet<String>,
    measured: &'a Measured,
    now: Duration,
    due: BTreeMap<Duration, BTreeSet<End>>,
    /// Groups that ran: where, since when they are away, and when they were back.
    away: BTreeMap<String, (String, Duration, Option<Duration>)>,
    /// Groups whose times have a part that was never measured.
    rough: BTreeSet<String>,
    forecast: Forecast,
}

impl World<'_> {
    fn lose(&mut self, losses: &Losses) {
        for server in &losses.servers {
            self.input.servers.insert(server.clone(), ServerState::Lost);
        }
        let (mut due, mut away, mut rough) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        let mut under_way = Vec::new();
        for (name, group) in &mut self.input.groups {
            let Current::On { server, phase } = &group.current else { continue };
            if !losses.no_quorum && !losses.servers.contains(server) {
                match phase {
                    Phase::Starting => under_way.push(End::Started(name.clone())),
                    Phase::Stopping => under_way.push(End::Stopped(name.clone())),
                    Phase::Online | Phase::Failed | Phase::Stuck => {}
                }
                continue;
            }
            away.insert(name.clone(), (server.clone(), Duration::ZERO, None));
            if self.measured.takeover.is_none() {
                rough.insert(name.clone());
            }
            if !losses.unproven.contains(name) && !losses.no_quorum {
                due.insert(End::Freed(name.clone()));
            }
            group.current = Current::Unknown { servers: BTreeSet::from([server.clone()]) };
        }
        (self.away, self.rough) = (away, rough);
        if !due.is_empty() {
            self.due.insert(self.measured.takeover.unwrap_or_default(), due);
        }
        for end in under_way {
            self.later(end);
        }
    }

    /// The steps until nothing more happens. `at_once`: the coordinator need not find out first that somebody is gone.
    fn run(&mut self, at_once: bool) -> BTreeMap<String, Decision> {
        let mut decisions = BTreeMap::new();
        let mut awaited = BTreeSet::new();
        let mut ask = at_once || self.due.is_empty();
        // Every group stops and starts a few times at most; what goes on for longer would go on for ever.
        for _ in 0..self.input.groups.len() * 4 + 16 {
            if ask {
                let plan = plan(&self.input);
                for name in &plan.order {
                    if let Some(decision) = plan.decisions.get(name) {
                        self.begin(name, &decision.action);
                    }
                }
                awaited = self.awaited(&plan.decisions);
                decisions = plan.decisions;
            }
            let Some((at, ends)) = self.due.pop_first() else { break };
            self.now = at;
            ask = false;
            for end in ends {
                ask |= match &end {
                    End::Freed(_) | End::Stopped(_) => true,
                    End::Started(name) => awaited.contains(name),
                };
                self.end(&end);
            }
        }
        decisions
    }

    /// Groups that others wait for.
    fn awaited(&self, decisions: &BTreeMap<String, Decision>) -> BTreeSet<String> {
        let waiting = decisions.iter().filter(|(_, decision)| decision.rule == Rule::WaitForGroup);
        let groups = waiting.filter_map(|(name, _)| self.input.groups.get(name));
        groups.flat_map(|group| group.relations.after.keys().cloned()).collect()
    }

    fn begin(&mut self, name: &str, action: &Action) {
        let (does, server, phase, end) = match action {
            Action::Start { server } => (Does::Start, server, Phase::Starting, End::Started(name.to_owned())),
            Action::Stop { server, .. } => (Does::Stop, server, Phase::Stopping, End::Stopped(name.to_owned())),
            Action::Keep => return self.restart(name),
            Action::Wait => return,
        };
        self.restarts.remove(name);
        let Some(group) = self.input.groups.get_mut(name) else { return };
        if does == Does::Stop && matches!(group.current, Current::On { phase: Phase::Online, .. }) {
            self.away.entry(name.to_owned()).or_insert_with(|| (server.clone(), self.now, None));
        }
        // What comes after something of which nobody knows when it is there, comes nobody knows when.
        if does == Does::Start && group.relations.after.keys().any(|other| self.rough.contains(other)) {
            self.rough.insert(name.to_owned());
        }
        group.current = Current::On { server: server.clone(), phase };
        let step = Step { at: self.now, does, group: name.to_owned(), server: server.clone() };
        self.forecast.steps.push(step);
        self.later(end);
    }

    /// In place, as the coordinator does it: nobody else may take the group meanwhile, and nobody waits for its stop.
    fn restart(&mut self, name: &str) {
        let Some(group) = self.input.groups.get_mut(name).filter(|group| !group.frozen) else { return };
        let Current::On { server, phase: phase @ Phase::Online } = &mut group.current else { return };
        if !self.restarts.remove(name) {
            return;
        }
        *phase = Phase::Starting;
        let server = server.clone();
        let times = self.measured.groups.get(name).copied().unwrap_or_default();
        if times.stop.is_none() || times.start.is_none() {
            self.rough.insert(name.to_owned());
        }
        let stopped = self.now + times.stop.unwrap_or_default();
        self.away.entry(name.to_owned()).or_insert_with(|| (server.clone(), self.now, None));
        for (at, does) in [(self.now, Does::Stop), (stopped, Does::Start)] {
            self.forecast.steps.push(Step { at, does, group: name.to_owned(), server: server.clone() });
        }
        let online = stopped + times.start.unwrap_or_default();
        self.due.entry(online).or_default().insert(End::Started(name.to_owned()));
    }

    fn later(&mut self, end: End) {
        let times = |name: &String| self.measured.groups.get(name).copied().unwrap_or_default();
        let (name, took) = match &end {
            End::Freed(name) => (name, Some(Duration::ZERO)),
            End::Stopped(name) => (name, times(name).stop),
            End::Started(name) => (name, times(name).start),
        };
        if took.is_none() {
            self.rough.insert(name.clone());
        }
        self.due.entry(self.now + took.unwrap_or_default()).or_default().insert(end);
    }

    fn end(&mut self, end: &End) {
        let (End::Freed(name) | End::Stopped(name) | End::Started(name)) = end;
        let Some(group) = self.input.groups.get_mut(name) else { return };
        match (end, &mut group.current) {
            (End::Started(_), Current::On { phase, .. }) => {
                *phase = Phase::Online;
                if let Some((.., back)) = self.away.get_mut(name) {
                    *back = Some(self.now);
                }
            }
            (End::Freed(_) | End::Stopped(_), current) => *current = Current::Offline,
            (End::Started(_), _) => {}
        }
    }

    fn finish(mut self, decisions: &BTreeMap<String, Decision>) -> Forecast {
        // A restart's start was known before what begins until then.
        self.forecast.steps.sort_by_key(|step| step.at);
        for (name, decision) in decisions {
            let group = self.input.groups.get(name);
            if group.is_some_and(|group| group.is_wanted() && group.current == Current::Offline)
                && !self.away.contains_key(name)
            {
                self.forecast.waiting.insert(name.clone(), (decision.rule, decision.candidates.clone()));
            }
        }
        for (name, (from, since, back)) in self.away {
            let runs = |group: &Group| match &group.current {
                Current::On { server, phase: Phase::Online } => Some(server.clone()),
                _ => None,
            };
            let to = self.input.groups.get(&name).and_then(runs);
            let stays = to.is_none().then(|| {
                decisions.get(&name).map_or((Rule::WaitForEvidence, Vec::new()), |d| (d.rule, d.candidates.clone()))
            });
            let outage = back.filter(|_| to.is_some() && !self.rough.contains(&name)).map(|back| back - since);
            self.forecast.interruptions.insert(name, Interruption { from, to, outage, stays });
        }
        self.forecast
    }
}
