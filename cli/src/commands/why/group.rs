//! Why a group is where it is. Pure: its object and that of its sub-cluster in, statements out.

use holdfast_api::conditions;
use holdfast_api::reasons::condition;
use holdfast_api::v1::{
    Candidate, CandidateVerdict, ExclusionReason, FailbackMode, FailoverGroup, FailoverGroupStatus, GroupPhase,
    GroupRelation, GroupState, SubCluster, Transition, TransitionType,
};

use super::statement::{Statement, Topic};
use super::words::{at, evidence, held, member, refused, release_of_group, resolution, return_of, stale};

/// What can be said.
pub(super) fn why(group: &FailoverGroup, sub: &SubCluster) -> Vec<Statement> {
    let Some(status) = group.status.clone() else {
        let text = "no agent has reported it yet; is the sub-cluster formed?";
        return vec![Statement::new(Topic::Now, text).command("holdfast status")];
    };
    let mut all = Vec::new();
    all.extend(stale(&status.conditions));
    all.extend(refused(&status.conditions));
    all.push(Statement::new(Topic::Now, now(&status)));
    here(group, sub, &status, &mut all);
    let name = group.metadata.name.as_deref().unwrap_or_default();
    for one in &status.holds {
        all.push(held(one));
        all.extend(release_of_group(one, name));
    }
    elsewhere(group, sub, &status, &mut all);
    last(sub, &status, &mut all);
    change(group, sub, &status, &mut all);
    all
}

fn now(status: &FailoverGroupStatus) -> String {
    let phase = status.phase.unwrap_or_default();
    let place = status.server.as_ref().map_or_else(String::new, |server| format!(" on {server}"));
    let since = status.since.as_ref().map_or_else(String::new, |since| format!(" since {:.0}", since.0));
    let ready = conditions::get(&status.conditions, condition::READY).filter(|ready| ready.status != "True");
    let message = ready.map_or_else(String::new, |ready| format!(": {}", ready.message));
    format!("{phase}{place}{since}{message}")
}

/// Why it runs there, or nowhere.
fn here(group: &FailoverGroup, sub: &SubCluster, status: &FailoverGroupStatus, all: &mut Vec<Statement>) {
    let say = |text: String| Statement::new(Topic::Here, text);
    let Some(decision) = &status.decision else {
        return all.push(say("no coordinator has decided about it yet".to_owned()));
    };
    let to = decision.server.as_str();
    let placement = &group.spec.placement;
    let text = match decision.rule.as_str() {
        "DeclaredOffline" if group.spec.state == GroupState::Offline => "spec.state says Offline".to_owned(),
        "DeclaredOffline" => {
            "it is to stop: its sub-cluster is declared Stopped, or its object is being deleted".to_owned()
        }
        // The holds are told one by one.
        "Held" => return,
        "Stay" => format!("it runs on {to} and may; what runs well is not moved by itself"),
        "Preference" => format!("{to} is the most preferred server that may run it"),
        "Requested" => format!("an Operation named {to}"),
        "Failback" => format!("it goes back to {to}, which is more preferred, as placement.failback says"),
        "Recovery" => format!("it failed where it was; {to} is the next server that may run it"),
        "Relation" => {
            format!("another group is the reason for {to}: it makes room, or must be with it or apart from it")
        }
        "NoServerLeft" => "no server may run it now; each one's reasons follow".to_owned(),
        "WaitForGroup" if status.phase == Some(GroupPhase::Online) => {
            "it is to stop, and waits until the groups that come after it have stopped".to_owned()
        }
        "WaitForGroup" => {
            let after: Vec<&str> = placement.after.iter().map(|one| one.group.as_str()).collect();
            format!("it starts when what it comes after is online: {}", after.join(", "))
        }
        "WaitForRoom" => format!("it waits for less important groups to leave {to}"),
        "WaitForEvidence" => {
            "a lost server may still run it; it starts nowhere before that is known not to be so".to_owned()
        }
        "InProgress" => "a step is under way".to_owned(),
        "StopUnproven" => {
            "its stop failed, so it counts as running and starts nowhere else: two servers would write the same data"
                .to_owned()
        }
        "Conflict" => "two servers say that they run it; nothing is done before somebody has looked at both".to_owned(),
        other => format!("rule {other}"),
    };
    all.push(say(text));
    // It runs on, and somebody expected it to go back.
    let policy = group.spec.placement_servers(&sub.spec);
    let here = status.server.as_deref().filter(|_| status.phase == Some(GroupPhase::Online));
    let first = policy.first().map(String::as_str).filter(|first| here.is_some_and(|here| here != *first));
    let able = |server: &str| {
        decision.candidates.iter().any(|c| c.server == server && c.verdict == CandidateVerdict::Eligible)
    };
    if let Some(first) = first.filter(|first| able(first)) {
        let failback = &placement.failback;
        all.push(say(match failback.mode {
            FailbackMode::Manual => {
                format!("it does not go back to {first} by itself: placement.failback.mode is Manual")
            }
            FailbackMode::Automatic => {
                format!("it goes back to {first} once that has been there for {}", failback.delay)
            }
            FailbackMode::Window => format!("it goes back to {first} in the window of placement.failback"),
        }));
    }
}

/// Why none of the others.
fn elsewhere(group: &FailoverGroup, sub: &SubCluster, status: &FailoverGroupStatus, all: &mut Vec<Statement>) {
    let Some(decision) = &status.decision else { return };
    let wanted = group.spec.state == GroupState::Online && status.holds.is_empty();
    for candidate in decision.candidates.iter().filter(|c| Some(&c.server) != status.server.as_ref()) {
        let server = &candidate.server;
        let mut reasons: Vec<String> =
            candidate.reasons.iter().map(|reason| sentence(*reason, candidate, group, sub, status)).collect();
        if reasons.is_empty() {
            reasons.push("it could run it".to_owned());
        }
        all.push(Statement::new(Topic::NotElsewhere, reasons.join("; ")).about(server));
        let out = |reason: &ExclusionReason| matches!(reason, ExclusionReason::Detached | ExclusionReason::Lost);
        if candidate.reasons.iter().any(out) {
            all.extend(return_of(sub, server));
        }
        if wanted && candidate.reasons.contains(&ExclusionReason::Failed) {
            let text = format!("remove what made it fail on {server}, then have that forgotten");
            let name = group.metadata.name.as_deref().unwrap_or_default();
            all.push(
                Statement::new(Topic::Change, text).about(server).command(format!("holdfast clear-failures {name}")),
            );
        }
    }
}

fn named(relations: &[GroupRelation]) -> String {
    let names: Vec<&str> = relations.iter().map(|one| one.group.as_str()).collect();
    if names.is_empty() { "another group names this one".to_owned() } else { names.join(", ") }
}

fn sentence(
    reason: ExclusionReason,
    candidate: &Candidate,
    group: &FailoverGroup,
    sub: &SubCluster,
    status: &FailoverGroupStatus,
) -> String {
    let server = candidate.server.as_str();
    let told = member(sub, server).map(|member| member.message.as_str()).filter(|message| !message.is_empty());
    let told = told.map_or_else(String::new, |message| format!(": {message}"));
    let placement = &group.spec.placement;
    match reason {
        ExclusionReason::Detached => format!("it is out of service{told}"),
        ExclusionReason::Lost => format!("it is no member of the sub-cluster now{told}"),
        ExclusionReason::NotInPolicy => "placement.servers does not name it".to_owned(),
        ExclusionReason::Failed => {
            let failures = status.failures.iter().filter(|failure| failure.server == server);
            let each: Vec<String> = failures
                .map(|one| {
                    format!("{} {} times, last{}: {}", one.resource, one.count, at(one.last_time.as_ref()), one.message)
                })
                .collect();
            if each.is_empty() {
                "it failed there".to_owned()
            } else {
                format!("it failed there ({})", each.join("; "))
            }
        }
        ExclusionReason::NoCapacity => {
            "other groups leave too little of its processors or memory for placement.requires".to_owned()
        }
        ExclusionReason::SeparateFrom => {
            format!("a group that it must be apart from is there ({})", named(&placement.separate_from))
        }
        ExclusionReason::Together => {
            format!(
                "a group that it must be together with is elsewhere, or may not run there ({})",
                named(&placement.together)
            )
        }
        ExclusionReason::DiskUnreachable => "it does not reach a disk of the group".to_owned(),
        ExclusionReason::NoEvidence => "a lost server may still run it".to_owned(),
        ExclusionReason::LowerPreference => {
            match status.server.as_deref().or(status.decision.as_ref().map(|d| d.server.as_str())) {
                Some(chosen) if !chosen.is_empty() => format!("it could run it, but {chosen} comes first"),
                _ => "it could run it, but another one comes first".to_owned(),
            }
        }
    }
}

/// The newest transition, and, if that one changed no server, the newest that did.
fn last(sub: &SubCluster, status: &FailoverGroupStatus, all: &mut Vec<Statement>) {
    let moved = |t: &&Transition| !t.from.is_empty() && !t.to.is_empty() && t.from != t.to;
    let newest = status.transitions.first();
    let mover = status.transitions.iter().find(moved).filter(|mover| newest != Some(*mover));
    for transition in newest.into_iter().chain(mover) {
        all.push(story(transition));
    }
    let known = sub.status.as_ref().and_then(|status| status.last_resolution.as_ref());
    let lost = newest
        .into_iter()
        .chain(mover)
        .any(|t| t.cause == "ServerLost" && known.is_some_and(|k| k.epoch == Some(t.epoch)));
    if lost {
        all.extend(known.and_then(resolution));
    }
}

fn story(t: &Transition) -> Statement {
    let way = match (t.from.as_str(), t.to.as_str()) {
        ("", "") => String::new(),
        ("", to) => format!(" on {to}"),
        (from, "") => format!(" on {from}"),
        (from, to) if from == to => format!(" on {to}"),
        (from, to) => format!(" from {from} to {to}"),
    };
    let cause = match t.cause.as_str() {
        "ServerLost" => format!("because {} was lost", t.from),
        "ServerLeft" => format!("because {} was leaving", t.from),
        "ResourceFailed" => "because a resource or monitor failed".to_owned(),
        "Operation" => "because an operator asked for it".to_owned(),
        "Failback" => "because placement.failback brings it back".to_owned(),
        "Declared" if t.type_ == TransitionType::Stop => "because it is declared or held so".to_owned(),
        "Declared" => "because it is declared so".to_owned(),
        "" => String::new(),
        other => format!("because of {other}"),
    };
    let mut text = format!("{}{way}{} {cause}", t.type_, at(t.time.as_ref())).trim_end().to_owned();
    if !t.message.is_empty() {
        text.push_str(&format!(" ({})", t.message));
    }
    if let Some(kind) = t.evidence {
        text.push_str(&format!("; it could start because {}", evidence(kind, &t.from)));
    }
    match (&t.actual, &t.predicted) {
        (Some(actual), Some(predicted)) => {
            text.push_str(&format!("; it was away for {actual}, {predicted} were expected"))
        }
        (Some(actual), None) => text.push_str(&format!("; it was away for {actual}")),
        (None, _) => text.push_str("; it has not ended"),
    }
    Statement { chart: t.chart.clone(), ..Statement::new(Topic::Last, text) }
}

/// What else an operator can do about it.
fn change(group: &FailoverGroup, sub: &SubCluster, status: &FailoverGroupStatus, all: &mut Vec<Statement>) {
    let name = group.metadata.name.as_deref().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    if group.spec.state == GroupState::Offline {
        all.push(Statement::new(Topic::Change, "set spec.state to Online, where its manifest is, and apply it"));
    }
    if phase == GroupPhase::Stuck {
        let text = "end what its status says still runs, then have the stop tried again";
        all.push(Statement::new(Topic::Change, text).command(format!("holdfast clear-failures {name}")));
    }
    if phase == GroupPhase::Unknown {
        // Candidates tell of those that are out; this one stands in none of them.
        all.extend(status.server.iter().filter_map(|server| return_of(sub, server)));
        let members = sub.status.iter().flat_map(|status| &status.members).filter(|member| member.unproven);
        all.extend(members.filter_map(|member| return_of(sub, &member.name)));
        all.dedup();
    }
    let able = status.decision.iter().flat_map(|decision| &decision.candidates);
    let able = able.filter(|c| c.verdict == CandidateVerdict::Eligible && Some(&c.server) != status.server.as_ref());
    if phase == GroupPhase::Online {
        for candidate in able {
            let server = &candidate.server;
            let text = format!("have it on {server}");
            all.push(
                Statement::new(Topic::Change, text)
                    .about(server)
                    .command(format!("holdfast move {name} --to {server}")),
            );
        }
    }
    for pending in &status.pending_changes {
        let text = format!("{} differs from what runs; it is taken at the next start, also by a move", pending.path);
        all.push(Statement::new(Topic::Change, text));
    }
}
