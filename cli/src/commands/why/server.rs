//! Why a server is as it is. Pure: its object and that of its sub-cluster in, statements out.

use holdfast_api::conditions;
use holdfast_api::reasons::condition;
use holdfast_api::v1::{PathState, Server, ServerState, SubCluster};

use super::statement::{Statement, Topic};
use super::words::{held, member, refused, resolution, return_of, stale};

/// What can be said.
pub(super) fn why(server: &Server, sub: &SubCluster) -> Vec<Statement> {
    let name = server.spec.server.as_str();
    let status = server.status.clone().unwrap_or_default();
    let known = member(sub, name);
    // Of one that is gone, the others say how it is.
    let state = known.map(|member| member.state).or(status.state).unwrap_or_default();
    let own = state == ServerState::Active || status.state == Some(state);
    let mut all = Vec::new();
    all.extend(stale(&status.conditions));
    all.extend(refused(&status.conditions));
    let groups = if status.groups.is_empty() { "nothing".to_owned() } else { status.groups.join(", ") };
    all.push(Statement::new(
        Topic::Now,
        match state {
            ServerState::Active => format!("Active, runs {groups}"),
            ServerState::Lost | ServerState::Suspect | ServerState::Partitioned => {
                format!("{state}; what it said last is that it ran {groups}")
            }
            _ => state.to_string(),
        },
    ));
    let told = known.map(|member| member.message.as_str()).filter(|message| !message.is_empty());
    let ready = conditions::get(&status.conditions, condition::READY).filter(|ready| own && ready.status != "True");
    let ready = ready.map(|ready| ready.message.as_str());
    if let Some(message) = told.or(ready) {
        all.push(Statement::new(Topic::Here, message));
    } else if state == ServerState::Active {
        all.push(Statement::new(Topic::Here, "it is a member of the newest view and may run groups"));
    }
    if known.is_some_and(|member| member.unproven) {
        let text = "it was left out, and nothing proves yet that it has stopped; what it may run starts nowhere else";
        all.push(Statement::new(Topic::Here, text));
    }
    if own {
        all.extend(status.holds.iter().map(held));
        for path in status.paths.iter().filter(|path| path.state != PathState::Up) {
            let message = if path.message.is_empty() { String::new() } else { format!(": {}", path.message) };
            let text = format!("its path {} to {} is {}{message}", path.path, path.peer, path.state);
            all.push(Statement::new(Topic::Here, text));
        }
    }
    let last = sub.status.as_ref().and_then(|status| status.last_resolution.as_ref());
    if !matches!(state, ServerState::Active | ServerState::Joining) {
        all.extend(last.and_then(resolution));
        all.extend(return_of(sub, name).filter(|statement| {
            // It would send to this very answer.
            statement.command.as_deref() != Some(&format!("holdfast why server/{}.{name}", server.spec.sub_cluster))
        }));
        if matches!(state, ServerState::Lost | ServerState::Suspect | ServerState::Unknown) {
            let text = format!(
                "is it on, does its agent run (systemctl status holdfast-agent), does a path reach it? then {name} asks to be taken back by itself"
            );
            all.push(Statement::new(Topic::Change, text));
        }
    }
    all
}
