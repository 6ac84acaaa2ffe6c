//! What is not as it should be, in one line each: what stands above the tree. Pure.

use holdfast_api::conditions;
use holdfast_api::reasons::condition;
use holdfast_api::v1::{PathState, ServerState, SubClusterPhase};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::snapshot::Snapshot;
use super::tree::{Line, Tone, cell, full_name, group_tone, server_tone, state_of};

/// One line for each thing that is not as it should be, the worst first.
pub(super) fn lines(snapshot: &Snapshot) -> Vec<Line> {
    let mut found: Vec<(Tone, String, String)> = Vec::new();
    let mut note = |tone, who: String, what: String| found.push((tone, who, what));
    for text in &snapshot.unreadable {
        note(Tone::Bad, "unreadable".into(), text.clone());
    }
    for sub in &snapshot.sub_clusters {
        let name = full_name(&sub.metadata);
        let status = sub.status.clone().unwrap_or_default();
        complaints("sub-cluster", &name, &status.conditions, &mut note);
        match status.phase.unwrap_or_default() {
            SubClusterPhase::NoQuorum => {
                note(Tone::Bad, format!("sub-cluster {name}"), "no quorum: nothing is started".into())
            }
            SubClusterPhase::AwaitingForceReinstate => {
                note(
                    Tone::Bad,
                    format!("sub-cluster {name}"),
                    "every server was down; one must be declared the base".into(),
                );
            }
            _ => {}
        }
        for entry in &sub.spec.servers {
            let full = format!("{}.{}", sub.metadata.name.as_deref().unwrap_or("?"), entry.name);
            let server = snapshot.servers.iter().find(|server| {
                server.metadata.namespace == sub.metadata.namespace && server.metadata.name.as_deref() == Some(&full)
            });
            let state = state_of(sub, &entry.name, server);
            let who = format!("server {name}.{}", entry.name);
            match state {
                ServerState::Active | ServerState::Joining | ServerState::Leaving => {}
                ServerState::Unknown if status.phase.unwrap_or_default() == SubClusterPhase::Unformed => {}
                _ => note(server_tone(state), who.clone(), state.to_string()),
            }
            if state == ServerState::Active {
                for path in server.and_then(|server| server.status.as_ref()).map_or(&[][..], |status| &status.paths) {
                    let peer_there = state_of(sub, &path.peer, None) == ServerState::Active;
                    if path.state != PathState::Up && peer_there {
                        note(Tone::Warn, who.clone(), format!("path {} to {} is {}", path.path, path.peer, path.state));
                    }
                }
            }
        }
    }
    for group in &snapshot.groups {
        let name = full_name(&group.metadata);
        let status = group.status.clone().unwrap_or_default();
        complaints("group", &name, &status.conditions, &mut note);
        // Of a group that no agent has reported, nothing is known to be wrong.
        let Some(phase) = status.phase else { continue };
        if group_tone(group.spec.state, phase) == Tone::Bad {
            let ready = conditions::get(&status.conditions, condition::READY);
            let why = ready.map_or_else(String::new, |ready| format!(": {}", ready.message));
            note(Tone::Bad, format!("group {name}"), format!("{phase}{why}"));
        }
    }
    found.sort_by_key(|(tone, _, _)| *tone != Tone::Bad);
    found
        .into_iter()
        .map(|(tone, who, what)| Line { depth: 1, cells: vec![cell(who, tone), cell(what, Tone::Plain)] })
        .collect()
}

/// Conditions that ask for a human, whatever the kind.
fn complaints(kind: &str, name: &str, list: &[Condition], note: &mut impl FnMut(Tone, String, String)) {
    if let Some(accepted) = conditions::get(list, condition::ACCEPTED).filter(|accepted| accepted.status == "False") {
        note(Tone::Bad, format!("{kind} {name}"), format!("not accepted, {}: {}", accepted.reason, accepted.message));
    }
    if let Some(stalled) = conditions::get(list, condition::STALLED).filter(|stalled| stalled.status == "True") {
        note(Tone::Bad, format!("{kind} {name}"), format!("{}: {}", stalled.reason, stalled.message));
    }
    if let Some(unknown) = conditions::get(list, condition::UNKNOWN_GROUP).filter(|unknown| unknown.status == "True") {
        note(Tone::Warn, format!("{kind} {name}"), unknown.message.clone());
    }
    if let Some(differs) = conditions::get(list, condition::CONTENT_MISMATCH).filter(|differs| differs.status == "True")
    {
        note(Tone::Warn, format!("{kind} {name}"), differs.message.clone());
    }
    if let Some(unusable) =
        conditions::get(list, condition::UNUSABLE_RESOURCE).filter(|unusable| unusable.status == "True")
    {
        note(Tone::Bad, format!("{kind} {name}"), unusable.message.clone());
    }
    if let Some(lock) = conditions::get(list, condition::LOCK_REACHABLE).filter(|lock| lock.status == "False") {
        note(Tone::Warn, format!("{kind} {name}"), format!("the lock is out of reach: {}", lock.message));
    }
    if let Some(reporting) =
        conditions::get(list, condition::AGENT_REPORTING).filter(|reporting| reporting.status == "False")
    {
        note(Tone::Warn, format!("{kind} {name}"), format!("agents do not report: {}", reporting.message));
    }
}
