//! What the coordinator says about a group: status of the FailoverGroup object (api.md §5).
//!
//! `target`, `clearFailures` and the conditions `Accepted` and `AgentReporting` are the controller's and stay as they are.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_api::conditions::{self, State};
use holdfast_api::reasons::{brake_on, condition, ready, stalled};
use holdfast_api::v1 as api;
use holdfast_core::config::{Brakes, GroupConfig};
use holdfast_core::holding::{BRAKE, PAUSED};
use holdfast_core::message::Reason;
use holdfast_core::names::{GroupName, MonitorName, ResourceName, ServerName};
use holdfast_core::status::{
    GroupPhase, MemberState, MonitorPhase, MonitorReport, PlacedGroup, ResourceReport, Step, Transition,
};
use holdfast_core::view::View;
use holdfast_planner as planner;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::{Wall, clip, evidence, number, reported, word};
use crate::driver_loop::Snapshot;
use crate::resources::plan::data_service::declared_name;
use crate::spec_cache::group_regressed;

/// Transitions kept in status; the rest is in Events and logs.
const TRANSITIONS: usize = 10;
/// What to do about a group that failed everywhere.
const CLEAR: &str = "remove the cause, then: holdfast clear-failures";
/// Failures kept in status.
const FAILURES: usize = 16;

/// The status as it is to be, from what stands in the API and what the coordinator knows. `stored`: what is in the API,
/// where that is asked.
pub fn group_status(
    snapshot: &Snapshot,
    name: &GroupName,
    placed: &PlacedGroup,
    old: &api::FailoverGroupStatus,
    stored: Option<&api::FailoverGroup>,
    wall: Wall,
    now: Timestamp,
) -> api::FailoverGroupStatus {
    let adoption = snapshot.adoption.as_deref();
    let config = adoption.and_then(|a| a.groups.get(name)).map(AsRef::as_ref);
    let spec = adoption.and_then(|a| a.specs.get(name));
    let view = snapshot.status.view.as_ref();
    let mut new = old.clone();
    if let Some(config) = config {
        new.observed_generation = number::generation(config.generation);
        new.acceptances = number::acceptances(config.generation);
    }
    new.applied_generation = placed
        .report
        .as_ref()
        .filter(|_| placed.server.is_some())
        .and_then(|r| number::generation(r.generation))
        .or(old.applied_generation);
    new.cluster_id = view.map(|v| v.cluster.to_string());
    // The tag of the placement: what a target has to be computed from (R15); zeros before there is one.
    let (epoch, revision) = placed.assignment.as_ref().map_or((0, 0), |a| (a.tag.epoch, a.tag.revision));
    (new.epoch, new.revision) = (Some(epoch), Some(revision));
    new.lineage = Some(placed.assignment.as_ref().map_or(1, |assignment| assignment.tag.lineage));
    new.phase = Some(phase(placed.phase));
    new.server = placed.server.as_ref().map(|s| s.0.clone());
    let same = new.phase == old.phase && new.server == old.server;
    new.since = old.since.clone().filter(|_| same).or(Some(Time(now)));
    new.resources = resources(placed, config, old, now);
    new.monitors = monitors(placed, config);
    if let Some(spec) = spec {
        new.claims = holdfast_api::claims::texts(&spec.spec);
    }
    new.holds = holds(placed, adoption.map(|adoption| &adoption.config.brakes), old, now);
    new.failures = failures(placed, old, now);
    let cleared = placed.assignment.as_ref().and_then(|assignment| assignment.cleared.as_ref());
    new.failures_cleared_by = cleared.map(|cleared| clip(&cleared.clear.by)).unwrap_or_default();
    // While it is on its way down it is not restarted yet.
    let started = placed.assignment.as_ref().filter(|assignment| assignment.server.is_some());
    let restarted = started.and_then(|assignment| assignment.restarted.as_deref()).map(clip);
    let part = placed.report.as_ref().and_then(|report| report.part_restarted.as_deref()).map(clip);
    new.restarted_by = part.or(restarted).unwrap_or_else(|| old.restarted_by.clone());
    let said = placed.assignment.as_ref();
    new.held_by = said.and_then(|said| said.held_by.as_deref()).map(clip).unwrap_or_default();
    let look = said.and_then(|said| said.paused.as_ref()?.look.as_ref()).filter(|look| !look.refused.is_empty());
    new.look = look.map(|look| api::PauseLook {
        by: clip(&look.by),
        differences: look.refused.iter().map(|difference| clip(difference)).collect(),
    });
    new.decision = placed.decision.as_ref().map(decision);
    new.pending_changes = pending(placed, config);
    let takeover = || super::cluster_status::timing(adoption?, &snapshot.status)?.cluster_part.map(|part| part.get());
    new.transitions = merged(&placed.transitions, old, wall, takeover);
    set_conditions(&mut new, snapshot, placed, config, now);
    // What names data services is held with their methods put in, so it is compared by its number alone.
    let comparable = |group: &api::FailoverGroup| group.spec.resources.iter().all(|one| one.data_service.is_none());
    let older = |held: &api::FailoverGroup, stored: &api::FailoverGroup| {
        let lower = number::of_group(stored) < number::of_group(held) && stored.metadata.uid == held.metadata.uid;
        lower || comparable(stored) && group_regressed(held, stored)
    };
    if let (Some(held), Some(stored)) = (spec, stored)
        && older(held, stored)
        && conditions::get(&new.conditions, condition::STALLED).is_none()
    {
        let text = regressed(new.observed_generation, stored.metadata.generation);
        let (type_, reason) = (condition::STALLED, stalled::SPEC_REGRESSED);
        conditions::set(&mut new.conditions, type_, State::True, reason, &text, new.observed_generation, now);
    }
    new
}

/// What to say of a specification that is older than what the servers act by.
pub(super) fn regressed(held: Option<i64>, stored: Option<i64>) -> String {
    let (held, stored) = (held.unwrap_or_default(), stored.unwrap_or_default());
    format!(
        "the API has generation {stored} of the specification, the servers act by {}: the store was restored from an older \
         state. What runs goes on. Look what differs; then apply the manifests again, which is taken once its generation \
         is above {held}, or accept what is stored: holdfast accept-spec",
        if held == stored { "another one of that number".to_owned() } else { format!("generation {held}") }
    )
}

fn phase(phase: GroupPhase) -> api::GroupPhase {
    word(api::GroupPhase::ALL, phase.name(), api::GroupPhase::as_str).unwrap_or_default()
}

fn resources(
    placed: &PlacedGroup,
    config: Option<&GroupConfig>,
    old: &api::FailoverGroupStatus,
    now: Timestamp,
) -> Vec<api::ResourceStatus> {
    let reports = placed.report.as_ref().map(|r| &r.resources);
    let mut names: BTreeSet<_> = reports.into_iter().flat_map(|r| r.keys()).collect();
    names.extend(config.into_iter().flat_map(|c| c.resources.keys()));
    let mut declared: BTreeMap<&str, Vec<&ResourceName>> = BTreeMap::new();
    for name in names {
        declared.entry(declared_name(&name.0)).or_default().push(name);
    }
    let one = |(name, steps): (&str, Vec<&ResourceName>)| {
        let steps: Vec<&ResourceReport> = steps.iter().filter_map(|step| reports?.get(*step)).collect();
        // Without a report nothing of it runs, unless nobody can tell.
        let none = if placed.phase == GroupPhase::Unknown { GroupPhase::Unknown } else { GroupPhase::Offline };
        let found = whole(steps.iter().map(|step| step.phase), placed.phase).unwrap_or(none);
        let state = word(api::ResourceState::ALL, found.name(), api::ResourceState::as_str).unwrap_or_default();
        let before = old.resources.iter().find(|r| r.name == name && r.state == state);
        let message = steps.iter().map(|step| step.message.as_str()).find(|message| !message.is_empty());
        api::ResourceStatus {
            name: name.to_owned(),
            state,
            since: before.and_then(|r| r.since.clone()).or(Some(Time(now))),
            restarts: steps.iter().map(|step| step.restarts).sum(),
            message: message.map(clip).unwrap_or_default(),
        }
    };
    declared.into_iter().map(one).collect()
}

/// The phase of a resource by those of its steps; none without a step.
fn whole(steps: impl Iterator<Item = GroupPhase> + Clone, group: GroupPhase) -> Option<GroupPhase> {
    use GroupPhase::{Failed, Starting, Stopping, Stuck, Unknown};
    let first = steps.clone().next()?;
    if steps.clone().all(|step| step == first) {
        return Some(first);
    }
    let worst =
        [Stuck, Failed, Unknown, Stopping, Starting].into_iter().find(|phase| steps.clone().any(|s| s == *phase));
    // One is up and the other is not: on the way, in the direction of the group.
    Some(worst.unwrap_or(if group == Stopping { Stopping } else { Starting }))
}

fn monitors(placed: &PlacedGroup, config: Option<&GroupConfig>) -> Vec<api::MonitorStatus> {
    let reports = placed.report.as_ref().map(|report| &report.monitors);
    let here = config.into_iter().flat_map(|config| config.monitors.keys());
    let here = here.map(|name| monitor(name, reports.and_then(|reports| reports.get(name))));
    here.chain(placed.everywhere.iter().map(|(name, report)| monitor(name, Some(report)))).collect()
}

/// What a monitor says.
pub(super) fn monitor(name: &MonitorName, report: Option<&MonitorReport>) -> api::MonitorStatus {
    let phase = report.map_or(MonitorPhase::Inactive, |report| report.phase);
    api::MonitorStatus {
        name: name.0.clone(),
        state: word(api::MonitorState::ALL, phase.name(), api::MonitorState::as_str).unwrap_or_default(),
        failures: report.map_or(0, |report| report.failures),
        message: report.map(|report| clip(&report.message)).unwrap_or_default(),
    }
}

fn holds(
    placed: &PlacedGroup,
    brakes: Option<&Brakes>,
    old: &api::FailoverGroupStatus,
    now: Timestamp,
) -> Vec<api::Hold> {
    let one = |type_: &String| {
        let before = old.holds.iter().find(|h| h.type_ == *type_);
        let paused = placed.assignment.as_ref().and_then(|said| said.paused.as_ref()).filter(|_| type_ == PAUSED);
        let by = paused.map_or_else(|| "holdfast".to_owned(), |paused| clip(&paused.by));
        let until = paused.and_then(|paused| Timestamp::from_second(paused.until?).ok()).map(Time);
        before.filter(|before| before.by == by).cloned().unwrap_or_else(|| api::Hold {
            name: type_.to_lowercase(),
            type_: type_.clone(),
            by,
            since: before.and_then(|before| before.since.clone()).or(Some(Time(now))),
            until,
            message: match type_.as_str() {
                "ManualStart" => "startup is Manual; start it with an Operation of type Start".to_owned(),
                "Stopped" => "stopped by an Operation; start it with an Operation of type Start".to_owned(),
                BRAKE => match braked(placed, brakes) {
                    Some((_, text)) => text,
                    None => String::new(),
                },
                "FailureLimit" => {
                    "it failed too often; remove the cause, then: holdfast clear-failures, or start it".to_owned()
                }
                PAUSED => {
                    "nobody acts on it, whatever happens to it; end it with an Operation of type Resume".to_owned()
                }
                _ => String::new(),
            },
        })
    };
    placed.holds.iter().map(one).collect()
}

fn failures(placed: &PlacedGroup, old: &api::FailoverGroupStatus, now: Timestamp) -> Vec<api::Failure> {
    let one = |(server, failure): (&ServerName, &holdfast_core::status::Failure)| {
        let part = declared_name(&failure.part.to_string()).to_owned();
        let same = |f: &&api::Failure| f.server == server.0 && f.resource == part && f.count == failure.count;
        let last_time = old.failures.iter().find(same).and_then(|f| f.last_time.clone()).or(Some(Time(now)));
        api::Failure {
            server: server.0.clone(),
            count: failure.count,
            last_time,
            message: clip(&failure.message),
            resource: part,
        }
    };
    placed.failures.iter().take(FAILURES).map(one).collect()
}

fn decision(decision: &planner::Decision) -> api::Decision {
    let candidate = |c: &planner::Candidate| api::Candidate {
        server: c.server.clone(),
        verdict: if c.eligible { api::CandidateVerdict::Eligible } else { api::CandidateVerdict::Excluded },
        reasons: c
            .reasons
            .iter()
            .filter_map(|r| word(api::ExclusionReason::ALL, &format!("{r:?}"), api::ExclusionReason::as_str))
            .collect(),
    };
    api::Decision {
        server: decision.server.clone().unwrap_or_default(),
        rule: format!("{:?}", decision.rule),
        candidates: decision.candidates.iter().map(candidate).collect(),
    }
}

/// What runs differs from what is accepted in something that needs a restart.
fn pending(placed: &PlacedGroup, config: Option<&GroupConfig>) -> Vec<api::PendingChange> {
    let running = placed.report.as_ref().filter(|_| placed.server.is_some() && placed.phase == GroupPhase::Online);
    match (running, config) {
        (Some(report), Some(config)) if report.digest != config.digest => {
            vec![api::PendingChange { path: "spec.resources".to_owned(), effect: api::ChangeEffect::RestartGroup }]
        }
        _ => Vec::new(),
    }
}

/// The status with these transitions in it and nothing else changed: what a server that is coordinator no longer still
/// has to tell.
pub fn with_transitions(
    old: &api::FailoverGroupStatus,
    transitions: &[Transition],
    wall: Wall,
) -> api::FailoverGroupStatus {
    // A coordinator of before does not know what the timing was then: it promises nothing of a loss.
    api::FailoverGroupStatus { transitions: merged(transitions, old, wall, || None), ..old.clone() }
}

/// Those of earlier coordinators stay; one that is known is the same even if its number here was another.
fn merged(
    transitions: &[Transition],
    old: &api::FailoverGroupStatus,
    wall: Wall,
    takeover: impl Fn() -> Option<std::time::Duration>,
) -> Vec<api::Transition> {
    let mut all = old.transitions.clone();
    for transition in transitions.iter().rev() {
        let mut new = one_transition(transition, wall);
        let same = |t: &api::Transition| t.epoch == new.epoch && t.type_ == new.type_ && near(&t.time, &new.time);
        if let Some(known) = all.iter_mut().find(|t| same(t)) {
            (new.id, new.time, new.predicted) = (known.id, known.time.clone(), known.predicted.clone());
            *known = new;
        } else {
            new.id = all.iter().map(|t| t.id).max().unwrap_or(0) + 1;
            new.predicted = predicted(&new, &old.transitions, &takeover).map(reported);
            all.push(new);
        }
    }
    // What was told late stands where it belongs.
    all.sort_by_key(|t| std::cmp::Reverse((t.time.as_ref().map(|time| time.0), t.id)));
    all.truncate(TRANSITIONS);
    all
}

/// The outage that was to be expected when it began, from what was measured before: by the function that plans use, too.
fn predicted(
    new: &api::Transition,
    earlier: &[api::Transition],
    takeover: impl Fn() -> Option<std::time::Duration>,
) -> Option<std::time::Duration> {
    use api::TransitionType as T;
    if new.from.is_empty() || new.to.is_empty() {
        return None;
    }
    let times = holdfast_api::measured::times(earlier);
    match new.type_ {
        T::Failover if new.cause == "ServerLost" => planner::outage(takeover(), times.start),
        T::Failover | T::Move | T::Failback => planner::outage(times.stop, times.start),
        T::Start | T::Stop | T::Restart | T::Recovery => None,
    }
}

/// The wall time of one moment differs a little between reports when the wall clock is corrected.
fn near(a: &Option<Time>, b: &Option<Time>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a.0.as_second() - b.0.as_second()).abs() <= 1,
        _ => false,
    }
}

fn one_transition(transition: &Transition, wall: Wall) -> api::Transition {
    let type_ = match transition.reason {
        Reason::Start => api::TransitionType::Start,
        Reason::Failover => api::TransitionType::Failover,
        Reason::Failback => api::TransitionType::Failback,
        Reason::Move => api::TransitionType::Move,
        Reason::Recovery if transition.from != transition.to && transition.to.is_some() => {
            api::TransitionType::Failover
        }
        Reason::Recovery => api::TransitionType::Recovery,
        Reason::Stop => api::TransitionType::Stop,
    };
    let name = |server: &Option<ServerName>| server.as_ref().map(|s| s.0.clone()).unwrap_or_default();
    let step = |s: &Step| api::ChartStep { step: s.step.clone(), at: reported(s.at), took: reported(s.took) };
    api::Transition {
        id: transition.id,
        type_,
        from: name(&transition.from),
        to: name(&transition.to),
        cause: transition.cause.to_owned(),
        evidence: transition.evidence.and_then(evidence),
        epoch: transition.tag.epoch,
        time: Some(wall.time(transition.began)),
        predicted: None,
        actual: transition.took.map(reported),
        message: clip(&transition.message),
        chart: transition.chart.iter().map(step).collect(),
    }
}

/// Members of the view beside the one that runs it, which the policy allows and where it has not failed.
fn standbys<'a>(snapshot: &Snapshot, view: &'a View, placed: &PlacedGroup, config: &GroupConfig) -> Vec<&'a str> {
    let active =
        |name: &ServerName| snapshot.status.peers.get(name).is_none_or(|peer| peer.state == MemberState::Active);
    view.members
        .keys()
        .filter(|name| config.policy.contains(name) && placed.server.as_ref() != Some(name))
        .filter(|name| !placed.failures.contains_key(*name) && active(name))
        .map(|name| name.0.as_str())
        .collect()
}

fn set_conditions(
    new: &mut api::FailoverGroupStatus,
    snapshot: &Snapshot,
    placed: &PlacedGroup,
    config: Option<&GroupConfig>,
    now: Timestamp,
) {
    let generation = new.observed_generation;
    let brakes = snapshot.adoption.as_ref().map(|adoption| &adoption.config.brakes);
    let stopped = snapshot.adoption.as_ref().is_some_and(|a| a.config.stopped);
    let declared = config.is_some_and(|c| c.online) && !stopped;
    let paused = placed.holds.contains(PAUSED);
    let place = new.server.clone().unwrap_or_default();
    let report = placed.report.as_ref().map(|r| r.message.as_str()).unwrap_or_default();
    let failed = placed.failures.iter().map(|(s, f)| format!("{} on {s}: {}", f.part, f.message)).collect::<Vec<_>>();
    let rule = placed.decision.as_ref().map(|d| d.rule);
    let no_server = matches!(rule, Some(planner::Rule::NoServerLeft));
    let told = |text: String| if report.is_empty() { text } else { format!("{text}: {report}") };
    let (state, reason, message) = match placed.phase {
        GroupPhase::Stuck => (State::False, ready::RESOURCE_FAILED, told(format!("its stop on {place} is not proven"))),
        GroupPhase::Unknown => (State::False, ready::SERVER_LOST, awaited(snapshot)),
        GroupPhase::Online if declared && placed.holds.is_empty() => {
            (State::True, ready::CONVERGED, format!("online on {place}"))
        }
        GroupPhase::Online if paused => {
            (State::True, ready::CONVERGED, format!("online on {place}, paused: nobody acts on it"))
        }
        GroupPhase::Failed if paused && failed.is_empty() => {
            let lost = placed.report.iter().flat_map(|report| &report.resources);
            let lost = lost.filter(|(_, resource)| resource.phase == GroupPhase::Failed);
            let lost: Vec<_> = lost.map(|(name, resource)| format!("{name}: {}", resource.message)).collect();
            (State::False, ready::RESOURCE_FAILED, format!("paused on {place}, and left as it is: {}", lost.join("; ")))
        }
        GroupPhase::Starting => (State::False, ready::STARTING, told(format!("starting on {place}"))),
        GroupPhase::Stopping => (State::False, ready::STOPPING, told(format!("stopping on {place}"))),
        GroupPhase::Online if rule == Some(planner::Rule::WaitForGroup) => {
            let text = format!("online on {place}; it stops when the groups that come after it have stopped");
            (State::False, ready::STOPPING, text)
        }
        GroupPhase::Online => (State::False, ready::STOPPING, format!("online on {place}, declared to be stopped")),
        GroupPhase::Failed => (State::False, ready::RESOURCE_FAILED, told(failed.join("; "))),
        GroupPhase::Offline if declared && !placed.holds.is_empty() => {
            let holds = placed.holds.iter().cloned().collect::<Vec<_>>().join(", ");
            (State::False, ready::HELD, format!("held: {holds}"))
        }
        GroupPhase::Offline if declared && no_server => {
            // Where it failed comes first: a condition's message is bounded, the advice is short.
            let text = if failed.is_empty() { left_out(placed) } else { format!("{CLEAR}. {}", failed.join("; ")) };
            (State::False, ready::NO_SERVER_LEFT, text)
        }
        GroupPhase::Offline if declared && rule == Some(planner::Rule::WaitForGroup) => {
            let after = config.map(|c| c.relations.after.keys().cloned().collect::<Vec<_>>().join(", "));
            let text = format!("it starts when what it comes after is online: {}", after.unwrap_or_default());
            (State::False, ready::STARTING, text)
        }
        GroupPhase::Offline if declared && rule == Some(planner::Rule::WaitForRoom) => {
            let server = placed.decision.as_ref().and_then(|d| d.server.clone()).unwrap_or_default();
            (State::False, ready::STARTING, format!("less important groups leave {server} for it"))
        }
        GroupPhase::Offline if declared => (State::False, ready::STARTING, "about to be started".to_owned()),
        GroupPhase::Offline => (State::True, ready::CONVERGED, "offline as declared".to_owned()),
    };
    let standby = config.zip(snapshot.status.view.as_ref()).map(|(c, view)| standbys(snapshot, view, placed, c));
    let list = &mut new.conditions;
    let mut set = |type_: &str, state: State, reason: &str, message: &str| {
        conditions::set(list, type_, state, reason, message, generation, now);
    };
    set(condition::READY, state, reason, &message);
    set(condition::ONLINE, State::from(placed.phase == GroupPhase::Online), placed.phase.name(), &message);
    if let Some(standby) = standby {
        let (state, reason, text) = if standby.is_empty() {
            (State::False, "NoStandby", "no other server could run it now".to_owned())
        } else {
            (State::True, "Standby", standby.join(", "))
        };
        set(condition::STANDBY_AVAILABLE, state, reason, &text);
    }
    let busy = matches!(placed.phase, GroupPhase::Starting | GroupPhase::Stopping);
    let optional = [
        (condition::RECONCILING, busy.then(|| (placed.phase.name().to_owned(), message.clone()))),
        (condition::HELD, placed.holds.iter().next().map(|first| (first.clone(), format!("held: {first}")))),
        (condition::STALLED, stalled_by(placed, &message)),
        (
            condition::BRAKE_ON,
            braked(placed, brakes).filter(|_| placed.holds.contains(BRAKE)).map(|(why, text)| (why.to_owned(), text)),
        ),
        (
            condition::CONFIG_PENDING,
            (!new.pending_changes.is_empty()).then(|| {
                let text = "a change of the specification is taken at the next start".to_owned();
                ("RestartNeeded".to_owned(), text)
            }),
        ),
    ];
    for (type_, value) in optional {
        match value {
            Some((reason, text)) => {
                conditions::set(&mut new.conditions, type_, State::True, &reason, &text, generation, now);
            }
            None => {
                conditions::clear(&mut new.conditions, type_);
            }
        }
    }
}

/// Why no server may run it.
fn left_out(placed: &PlacedGroup) -> String {
    let reasons = |c: &planner::Candidate| c.reasons.iter().map(|reason| reason.name()).collect::<Vec<_>>().join(", ");
    let candidates = placed.decision.iter().flat_map(|decision| &decision.candidates);
    let each: Vec<String> = candidates.map(|c| format!("{}: {}", c.server, reasons(c))).collect();
    format!("no server may run it now ({})", each.join("; "))
}

/// Whose end has to be proven before an Unknown group may start, and by whom if nothing else can.
fn awaited(snapshot: &Snapshot) -> String {
    let unproven = snapshot.status.absences.iter().filter(|(_, absence)| absence.unproven);
    let names: Vec<&str> = unproven.map(|(name, _)| name.0.as_str()).collect();
    let who = if names.is_empty() { "a lost server".to_owned() } else { names.join(", ") };
    format!("{who} may still run it; waiting for evidence that it does not, or for holdfast confirm-stopped")
}

/// Which brake would hold it, and what ends that.
fn braked(placed: &PlacedGroup, brakes: Option<&Brakes>) -> Option<(&'static str, String)> {
    let brakes = brakes?;
    let moves = placed.assignment.as_ref().map_or(0, |said| said.moves.len());
    Some(if moves >= brakes.max_moves {
        let text = format!(
            "it was moved {moves} times by itself within {} s (brakes.maxMovesPerGroup) and is not moved once more; remove the \
             cause, then: holdfast clear-failures, or start it",
            brakes.moves_within.as_secs()
        );
        (brake_on::TOO_MANY_MOVES, text)
    } else {
        let text = format!(
            "more servers were lost within {} s than brakes.maxLosses ({}); it is taken over when that time is over, or when \
             it is started (holdfast start)",
            brakes.losses_within.as_secs(),
            brakes.max_losses
        );
        (brake_on::TOO_MANY_LOSSES, text)
    })
}

fn stalled_by(placed: &PlacedGroup, message: &str) -> Option<(String, String)> {
    if placed.phase == GroupPhase::Stuck {
        return Some((stalled::STOP_UNPROVEN.to_owned(), message.to_owned()));
    }
    let limit = placed.holds.contains(stalled::FAILURE_LIMIT);
    let each: Vec<String> = placed
        .failures
        .iter()
        .map(|(server, failure)| format!("{} on {server}: {}", failure.part, failure.message))
        .collect();
    let text = format!("it failed too often on every server; {CLEAR}. {}", each.join("; "));
    limit.then(|| (stalled::FAILURE_LIMIT.to_owned(), clip(text.trim_end_matches(['.', ' ']))))
}

#[cfg(test)]
#[path = "group_status_tests.rs"]
mod tests;
