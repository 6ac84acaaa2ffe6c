//! Fence: the fence devices of a server switch it off, off and on, or on. A step of `on_server.rs`: the agents are asked
//! in the same way.
//!
//! The Operation means the boot that the server reported last, and has it in the name of its step: another boot is not hit,
//! however often the agents are asked.

use holdfast_api::v1::{
    FenceAction, FenceRequest, FencingMode, FencingState, FencingStatus, Operation, OperationType, Server, ServerState,
    SubCluster,
};
use kube::ResourceExt;

use super::carry_out::{Next, reason};
use super::on_server::{is_member, member};

const BOOT: &str = ", boot ";
const FAILED: &str = "holdfast fence list shows how its devices are seen";

/// What the devices are to do; none: it is no Fence.
pub(super) fn action(operation: &Operation) -> Option<FenceAction> {
    let fence = operation.spec.type_ == OperationType::Fence;
    fence.then(|| operation.spec.fence.as_ref().map(|fence| fence.action).unwrap_or_default())
}

/// What the agents are asked for.
pub(super) fn request(operation: &Operation) -> Option<FenceRequest> {
    let action = action(operation)?;
    let steps = operation.status.iter().flat_map(|status| &status.steps);
    let boot = steps.filter_map(|step| step.name.split_once(BOOT)).map(|(_, boot)| boot.to_owned()).next()?;
    Some(FenceRequest { boot, action })
}

/// It says so itself, and the others hear it. What it reported last may be from before it was switched off.
fn has_power(sub: &SubCluster, server: &Server, reports: bool) -> bool {
    let boot = server.status.as_ref().and_then(|status| status.boot.as_ref()).map(|boot| boot.id.as_str());
    reports
        && member(sub, &server.spec.server).is_some_and(|member| {
            let off = |seen: &FencingStatus| seen.state == FencingState::Off && Some(seen.boot.as_str()) == boot;
            !matches!(member.state, ServerState::Lost | ServerState::Unknown)
                && !member.fencing.as_ref().is_some_and(off)
        })
}

/// It has not begun yet; that it may now was looked at.
pub(super) fn begin(operation: &Operation, sub: &SubCluster, server: &Server, reports: bool, next: &mut Next<'_>) {
    let (name, cluster) = (&server.spec.server, sub.name_any());
    let Some(action) = action(operation) else { return };
    let fencing = sub.spec.fencing.as_ref().filter(|fencing| fencing.mode != FencingMode::Disabled);
    if !fencing.is_some_and(|fencing| fencing.levels.iter().any(|level| level.server == *name)) {
        let message = format!(
            "sub-cluster {cluster} uses no fence device on {name}: spec.fencing of it is missing, has mode: Disabled, or \
             no level for {name}"
        );
        return next.fail(reason::NOT_ELIGIBLE, &message);
    }
    let status = server.status.as_ref();
    let Some(boot) = status.and_then(|status| status.boot.as_ref()).filter(|boot| !boot.id.is_empty()) else {
        let message = format!("{name} has never reported, so there is no boot of it that could be meant");
        return next.fail(reason::REFUSED, &message);
    };
    let view = sub.status.as_ref().and_then(|status| status.view.as_ref());
    if !view.is_some_and(|view| view.members.iter().any(|other| other != name)) {
        let message = format!("no other server of {cluster} is in service, so nobody uses the fence devices of {name}");
        return next.fail(reason::REFUSED, &message);
    }
    if action == FenceAction::PowerOn {
        return match has_power(sub, server, reports) {
            true => next.succeed(&format!("{name} has power: its agent reports")),
            false => next.run(vec![format!("switch {name} on{BOOT}{}", boot.id)]),
        };
    }
    let mut steps = Vec::new();
    if is_member(sub, name) {
        steps.push(format!("{name} is left out of the view"));
    }
    steps.push(format!(
        "switch {name} off{}{BOOT}{}",
        if action == FenceAction::Reboot { " and on" } else { "" },
        boot.id
    ));
    next.run(steps);
}

/// It runs; what it waits for, none: it has ended.
pub(super) fn go_on(
    operation: &Operation,
    sub: &SubCluster,
    server: &Server,
    reports: bool,
    next: &mut Next<'_>,
) -> Option<String> {
    let (name, asked) = (&server.spec.server, request(operation)?);
    let last = next.steps() - 1;
    let boot = server.status.as_ref().and_then(|status| status.boot.as_ref()).map(|boot| boot.id.as_str());
    let another = reports && boot.is_some_and(|boot| boot != asked.boot);
    let seen = member(sub, name).and_then(|member| member.fencing.as_ref()).filter(|seen| seen.boot == asked.boot);
    if !another && last > 0 && is_member(sub, name) {
        return Some("the others agree on a view without it".to_owned());
    }
    if last > 0 {
        next.step_done(0);
    }
    let off = seen.filter(|seen| seen.state == FencingState::Off);
    let done = match (asked.action, off) {
        (FenceAction::PowerOn, _) => {
            let on = has_power(sub, server, reports) || seen.is_some_and(|seen| seen.state == FencingState::On);
            on.then(|| format!("{name} has power; its agent decides when it comes back into service"))
        }
        (FenceAction::Reboot, Some(seen)) if seen.failed && !another => {
            let message = format!("{name} is off, but was not switched on again: {}; {FAILED}", seen.message);
            next.fail(reason::COMMAND_FAILED, &message);
            return None;
        }
        (FenceAction::PowerOff, Some(seen)) => Some(format!("{name} is verified off: {}", seen.message)),
        (_, Some(seen)) => Some(format!("{name} was verified off, and switched on again: {}", seen.message)),
        (_, None) => another.then(|| format!("{name} runs in another boot: what ran in that one has ended")),
    };
    if let Some(message) = done {
        next.step_done(last);
        next.succeed(&message);
        return None;
    }
    Some(match seen {
        Some(seen) if seen.state == FencingState::Failed => format!("{}; it is tried again; {FAILED}", seen.message),
        Some(_) => "the devices are at work".to_owned(),
        None => "the coordinator has not begun".to_owned(),
    })
}
