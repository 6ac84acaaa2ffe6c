//! Monitors as the core sees them: when they are due and what follows, not what they check.

use std::collections::BTreeMap;

use holdfast_api::v1 as api;
use holdfast_core::config::{MonitorAction, MonitorConfig, Recovery, Then};
use holdfast_core::names::{MonitorName, ResourceName};

/// Those of a group with this scope.
pub(super) fn of_group(
    spec: &api::FailoverGroupSpec,
    scope: api::MonitorScope,
) -> BTreeMap<MonitorName, MonitorConfig> {
    let group = &spec.recovery;
    let failure = |then| Recovery {
        restarts: 0,
        window: group.window.get(),
        then,
        max_failovers: u32::from(group.max_failovers),
        failover_window: group.failover_window.get(),
        decay: group.failure_decay.get(),
    };
    let action = |monitor: &api::Monitor| match monitor.action {
        api::MonitorAction::Restart => {
            MonitorAction::Restart(ResourceName::from(monitor.resource.as_deref().unwrap_or_default()))
        }
        api::MonitorAction::Failover => MonitorAction::Fail(failure(Then::Failover)),
        api::MonitorAction::FailoverAll => MonitorAction::FailAll(Some(failure(Then::Failover))),
        api::MonitorAction::ServerDown => MonitorAction::ServerDown(Some(failure(Then::ServerDown))),
        api::MonitorAction::Stop => MonitorAction::Fail(failure(Then::Stop)),
        api::MonitorAction::Report => MonitorAction::Report,
    };
    let of_scope = spec.monitors.iter().filter(|monitor| monitor.scope == scope);
    of_scope.map(|monitor| one(monitor, action(monitor))).collect()
}

/// Those of servers.
pub(super) fn of_servers(spec: &api::SubClusterSpec) -> BTreeMap<MonitorName, MonitorConfig> {
    let action = |monitor: &api::Monitor| match monitor.action {
        api::MonitorAction::FailoverAll => MonitorAction::FailAll(None),
        api::MonitorAction::ServerDown => MonitorAction::ServerDown(None),
        // The schema allows servers no other.
        _ => MonitorAction::Report,
    };
    spec.monitors.iter().map(|monitor| one(monitor, action(monitor))).collect()
}

fn one(monitor: &api::Monitor, action: MonitorAction) -> (MonitorName, MonitorConfig) {
    let config = MonitorConfig {
        interval: monitor.interval.get(),
        timeout: monitor.timeout.get(),
        threshold: u32::from(monitor.threshold),
        success_threshold: u32::from(monitor.success_threshold),
        initial_delay: monitor.initial_delay.get(),
        action,
        unless_all_fail: monitor.unless_all_fail,
    };
    (MonitorName(monitor.name.clone()), config)
}
