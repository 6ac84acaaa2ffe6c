//! Condition `LockReachable`: whether the lock that breaks a tie would answer, from what the agents report. Nothing is
//! stopped by its loss alone, so it is said before it is needed (domain.md section 8).

use holdfast_api::conditions::{self, State};
use holdfast_api::reasons::condition;
use holdfast_api::v1::{DiskState, QuorumServerState, QuorumType, Server, SubClusterSpec};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::list;

/// Sets the condition, or takes it away where the sub-cluster has no lock.
pub(super) fn set<'a>(
    conditions: &mut Vec<Condition>,
    spec: &SubClusterSpec,
    servers: impl IntoIterator<Item = &'a Server>,
    generation: Option<i64>,
    now: Timestamp,
) {
    if spec.quorum.type_ == QuorumType::Majority {
        conditions::clear(conditions, condition::LOCK_REACHABLE);
        return;
    }
    let mut problems = Vec::new();
    let mut unknown = Vec::new();
    for server in servers {
        let name = &server.spec.server;
        match problem(spec, server) {
            None => unknown.push(name.clone()),
            Some(Err(why)) => problems.push(format!("{name}: {why}")),
            Some(Ok(())) => {}
        }
    }
    problems.sort();
    unknown.sort();
    let type_ = condition::LOCK_REACHABLE;
    let (state, reason, message) = if !problems.is_empty() {
        (State::False, "Unreachable", problems.join("; "))
    } else if !unknown.is_empty() {
        (State::Unknown, "Unreported", format!("no report of {}", list(&unknown)))
    } else {
        (State::True, spec.quorum.type_.as_str(), String::new())
    };
    conditions::set(conditions, type_, state, reason, &message, generation, now);
}

/// What is wrong with the lock as one server sees it; none: it has not said.
fn problem(spec: &SubClusterSpec, server: &Server) -> Option<Result<(), String>> {
    let status = server.status.as_ref()?;
    if let Some(lock) = &spec.quorum.lock_disk {
        let disk = status.disks.iter().find(|disk| disk.name == lock.disk)?;
        let good = disk.state == DiskState::Reachable;
        return Some(if good { Ok(()) } else { Err(format!("{} {}", disk.state, disk.message)) });
    }
    let found = status.quorum_server.as_ref()?;
    let good = found.state == QuorumServerState::Reachable;
    Some(if good { Ok(()) } else { Err(format!("{} {}", found.state, found.message)) })
}

#[cfg(test)]
mod tests {
    use holdfast_api::v1::{QuorumServerStatus, ServerSpec, ServerStatus};
    use serde_json::json;

    use super::*;

    fn server(name: &str, state: Option<QuorumServerState>) -> Server {
        let mut server = Server::new(name, ServerSpec { server: name.into(), ..ServerSpec::default() });
        let seen = |state| QuorumServerStatus { state, message: "no answer".into(), ..Default::default() };
        server.status = Some(ServerStatus { quorum_server: state.map(seen), ..ServerStatus::default() });
        server
    }

    fn condition(quorum: serde_json::Value, servers: &[Server]) -> Option<(String, String, String)> {
        let spec: SubClusterSpec = serde_json::from_value(json!({
            "servers": [{"name": "a", "id": 1}, {"name": "b", "id": 2}], "quorum": quorum,
            "heartbeat": {"paths": []},
        }))
        .expect("well formed");
        let mut conditions = Vec::new();
        set(&mut conditions, &spec, servers, None, Timestamp::UNIX_EPOCH);
        conditions.pop().map(|c| (c.status, c.reason, c.message))
    }

    #[test]
    fn one_server_that_does_not_reach_the_quorum_server_is_told_before_it_is_needed() {
        use QuorumServerState::{Error, Reachable};
        let quorum = json!({"type": "QuorumServer", "quorumServer":
            {"urls": ["https://w"], "lease": {"namespace": "ha", "name": "x"}}});
        let with = |a, b| condition(quorum.clone(), &[server("b", b), server("a", a)]).expect("a condition");
        assert_eq!(with(Some(Reachable), Some(Reachable)), ("True".into(), "QuorumServer".into(), String::new()));
        let (status, _, message) = with(Some(Reachable), Some(Error));
        assert_eq!((status.as_str(), message.as_str()), ("False", "b: Error no answer"));
        assert_eq!(with(Some(Reachable), None), ("Unknown".into(), "Unreported".into(), "no report of b".into()));
        assert_eq!(condition(json!({"type": "Majority"}), &[server("a", None)]), None);
    }
}
