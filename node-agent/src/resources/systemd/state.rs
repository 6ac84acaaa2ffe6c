//! What the manager's answers mean. Pure.

/// What is known of a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its name; another one than asked for if that was an alias.
    pub id: String,
    /// loaded, not-found, masked, bad-setting, error …
    pub load: String,
    /// Why it can't be loaded.
    pub load_error: String,
    /// active, reloading, inactive, failed, activating, deactivating …
    pub active: String,
    /// The same in the words of its kind: running, exited, start-pre …
    pub sub: String,
    /// enabled, disabled, static …
    pub file_state: String,
    /// A job of it is queued or runs.
    pub job: bool,
    /// Files that add to its own.
    pub drop_ins: Vec<String>,
    /// Its files have changed since they were read.
    pub outdated: bool,
    /// Units that start it by themselves: sockets, timers, paths.
    pub triggered_by: Vec<String>,
    /// Its conditions were met when they were last looked at, which is at each start.
    pub condition: bool,
    /// When it left inactive or failed last, in microseconds since 1970.
    pub began: u64,
    /// Its control group while it has one, below the mount point.
    pub control_group: String,
    /// The slice that it belongs to.
    pub slice: String,
    /// Why it failed: exit-code, signal, timeout …; success.
    pub result: String,
    /// When the manager starts it again by itself.
    pub restart: String,
    /// It counts as active when its processes have ended: what it has set up is in no process.
    pub outlives: bool,
    /// How its main process ended: `si_code` and status of waitid(2).
    pub exit: Option<(i32, i32)>,
}

/// What that means for a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// It runs; a sentence if something is remarkable.
    Runs(String),
    /// It is on its way; look again.
    Pending(String),
    /// Nothing of it is here.
    Stopped(String),
    /// It ended, but something of it may be left.
    Left(String),
}

/// Judges. `processes`: in its control group. `stop_failed`: its last stop ended in failure.
pub(super) fn judge(unit: &Facts, processes: bool, stop_failed: bool) -> Finding {
    let how = format!("{} ({})", unit.active, unit.sub);
    match unit.active.as_str() {
        "active" | "reloading" | "refreshing" => Finding::Runs(remark(unit)),
        "activating" => Finding::Pending(format!("it is still starting: {how}")),
        "deactivating" => Finding::Pending(format!("it is still stopping: {how}")),
        "inactive" | "failed" if unit.job => Finding::Pending(format!("a job of it waits in systemd's queue: {how}")),
        "inactive" | "failed" if processes => {
            Finding::Left(format!("it is {how}, but processes are left in its control group"))
        }
        // Its stop was to undo what is in no process, and failed: nobody knows what is left.
        "failed" if stop_failed && unit.outlives => Finding::Left(format!(
            "its stop failed: {}; undo by hand what it has set up, then run: systemctl reset-failed {}",
            failure(unit),
            unit.id
        )),
        // Without a stop before: of a start that failed the manager undoes what there is to undo.
        "failed" => Finding::Stopped(failure(unit)),
        "inactive" => Finding::Stopped(unloaded(unit).unwrap_or_default()),
        // A state that systemd did not have when this was written.
        _ => Finding::Pending(format!("its state is not known to this version: {how}")),
    }
}

fn remark(unit: &Facts) -> String {
    if enabled(&unit.file_state) { at_boot(&unit.id, &unit.file_state) } else { String::new() }
}

fn enabled(state: &str) -> bool {
    matches!(state, "enabled" | "enabled-runtime")
}

fn at_boot(unit: &str, state: &str) -> String {
    format!("{unit} is {state} at boot, where it would start outside of the cluster; run: systemctl disable {unit}")
}

/// Why it can't be loaded.
fn unloaded(unit: &Facts) -> Option<String> {
    let id = &unit.id;
    match unit.load.as_str() {
        "loaded" => None,
        "not-found" => Some(format!("this server has no unit {id}; install what brings it, or correct the name")),
        "masked" => Some(format!("{id} is masked on this server; run: systemctl unmask {id}")),
        state if unit.load_error.is_empty() => Some(format!("{id} can't be loaded: {state}")),
        state => Some(format!("{id} can't be loaded: {state}, {}", unit.load_error)),
    }
}

/// Why the cluster doesn't start it on this server. `triggers`: units that start it, with the states of their files.
pub(super) fn refusal(asked: &str, unit: &Facts, triggers: &[(String, String)]) -> Option<String> {
    if let Some(problem) = unloaded(unit) {
        return Some(problem);
    }
    if unit.id != asked {
        return Some(format!("{asked} is another name of {0}; write {0}", unit.id));
    }
    if enabled(&unit.file_state) {
        return Some(at_boot(asked, &unit.file_state));
    }
    let (trigger, state) = triggers.iter().find(|(_, state)| enabled(state))?;
    Some(format!(
        "{trigger} starts {asked} by itself and is {state} at boot, that would be outside of the cluster; run: systemctl \
         disable --now {trigger}"
    ))
}

/// Why the manager gave up.
pub(super) fn failure(unit: &Facts) -> String {
    let main = match unit.exit {
        // CLD_EXITED, CLD_KILLED, CLD_DUMPED of waitid(2).
        Some((1, status)) => format!(", exit {status} of its main process"),
        Some((2 | 3, signal)) => format!(", its main process was ended by signal {signal}"),
        _ => String::new(),
    };
    format!("it failed with result {}{main}", unit.result)
}

/// Why a start did not lead to a running unit. `job`: the manager's word for the job's end, if it was heard.
pub(super) fn start_failed(job: Option<&str>, unit: &Facts) -> String {
    let why = match job {
        Some("dependency") => "a unit that it requires could not be started".to_owned(),
        Some("assert") => "an Assert… of its unit file is not met".to_owned(),
        Some("canceled") => "somebody else has cancelled or replaced its start".to_owned(),
        Some("done" | "skipped") if !unit.condition && unit.active == "inactive" => {
            "a Condition… of its unit file is not met".to_owned()
        }
        Some("done") if unit.active == "inactive" => "it ended at once, without an error".to_owned(),
        Some("timeout") => format!("it was not ready in time (TimeoutStartSec); {}", failure(unit)),
        _ if unit.active == "failed" => failure(unit),
        Some(word) => format!("the job ended with {word:?}; it is {} ({})", unit.active, unit.sub),
        None => format!("it is {} ({})", unit.active, unit.sub),
    };
    format!("{} was not started: {why}", unit.id)
}

/// Where the manager will put a unit's processes, below the mount point. `base`: the manager's own control group.
pub(super) fn control_group(base: &str, slice: &str, unit: &str) -> String {
    let mut path = base.trim_end_matches('/').to_owned();
    // A dash in the name of a slice says what it lies in: a-b.slice is in a.slice.
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    if name != "-" && !name.is_empty() {
        for (at, _) in name.match_indices('-').chain([(name.len(), "")]) {
            path.push_str(&format!("/{}.slice", &name[..at]));
        }
    }
    // A name that could be taken for one of the kernel's files gets an underscore in front.
    let first = unit.split('.').next().unwrap_or(unit);
    let files = ["cgroup", "cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids"];
    let escaped = unit.starts_with(['_', '.']) || files.contains(&first);
    format!("{path}/{}{unit}", if escaped { "_" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(active: &str, sub: &str) -> Facts {
        let (id, load, file) = ("web.service", "loaded", "disabled");
        Facts {
            id: id.into(),
            load: load.into(),
            file_state: file.into(),
            active: active.into(),
            sub: sub.into(),
            result: "success".into(),
            condition: true,
            ..Facts::default()
        }
    }

    #[test]
    fn every_state_has_its_meaning() {
        let kind = |unit: &Facts, processes, stop_failed| match judge(unit, processes, stop_failed) {
            Finding::Runs(_) => "runs",
            Finding::Pending(_) => "pending",
            Finding::Stopped(_) => "stopped",
            Finding::Left(_) => "left",
        };
        for (active, sub, expected) in [
            ("active", "running", "runs"),
            ("active", "exited", "runs"),
            ("reloading", "reload", "runs"),
            ("activating", "start-pre", "pending"),
            ("deactivating", "stop-sigterm", "pending"),
            ("inactive", "dead", "stopped"),
            ("failed", "failed", "stopped"),
            ("resting", "", "pending"),
        ] {
            assert_eq!(kind(&unit(active, sub), false, false), expected, "{active}");
        }
        for active in ["inactive", "failed"] {
            assert_eq!(kind(&unit(active, ""), true, false), "left", "processes that nobody manages");
            let queued = Facts { job: true, ..unit(active, "") };
            assert_eq!(kind(&queued, false, false), "pending", "it may start any moment");
        }
        // A one-shot unit that set something up and failed to undo it.
        let outlives = Facts { outlives: true, result: "exit-code".into(), ..unit("failed", "failed") };
        assert_eq!(kind(&outlives, false, true), "left");
        assert_eq!(kind(&outlives, false, false), "stopped", "its start failed, and it was not stopped");
        assert_eq!(
            kind(&Facts { outlives: true, ..unit("inactive", "dead") }, false, true),
            "stopped",
            "reset by hand"
        );
        assert_eq!(
            kind(&Facts { outlives: false, ..outlives }, false, true),
            "stopped",
            "it was its processes, no more"
        );
    }

    #[test]
    fn a_unit_that_would_start_outside_of_the_cluster_is_refused_with_the_command_that_helps() {
        let fine = unit("inactive", "dead");
        assert_eq!(refusal("web.service", &fine, &[("web.socket".into(), "disabled".into())]), None);
        let refused = |unit: &Facts, triggers: &[(String, String)]| refusal("web.service", unit, triggers).unwrap();
        let enabled = Facts { file_state: "enabled".into(), ..fine.clone() };
        assert!(refused(&enabled, &[]).contains("run: systemctl disable web.service"));
        let trigger = refused(&fine, &[("web.socket".into(), "enabled".into())]);
        assert!(trigger.contains("web.socket starts web.service") && trigger.contains("disable --now web.socket"));
        let missing = Facts { load: "not-found".into(), ..fine.clone() };
        assert!(refused(&missing, &[]).contains("no unit web.service"));
        let masked = Facts { load: "masked".into(), file_state: "masked".into(), ..fine.clone() };
        assert!(refused(&masked, &[]).contains("run: systemctl unmask web.service"));
        let alias = Facts { id: "apache2.service".into(), ..fine };
        assert!(refused(&alias, &[]).contains("write apache2.service"));
    }

    #[test]
    fn a_failed_start_names_the_reason() {
        let failed = Facts { result: "exit-code".into(), exit: Some((1, 98)), ..unit("failed", "failed") };
        assert_eq!(
            start_failed(Some("failed"), &failed),
            "web.service was not started: it failed with result exit-code, exit 98 of its main process"
        );
        assert!(start_failed(Some("dependency"), &unit("inactive", "dead")).contains("requires"));
        let condition = Facts { condition: false, ..unit("inactive", "dead") };
        assert!(start_failed(Some("done"), &condition).contains("Condition… of its unit file"));
    }

    #[test]
    fn the_control_group_is_known_before_it_exists() {
        assert_eq!(control_group("", "system.slice", "web.service"), "/system.slice/web.service");
        assert_eq!(control_group("/", "-.slice", "web.service"), "/web.service");
        let nested = control_group("/lab", "system-getty.slice", "getty@tty1.service");
        assert_eq!(nested, "/lab/system.slice/system-getty.slice/getty@tty1.service");
        assert_eq!(control_group("", "system.slice", "_a.service"), "/system.slice/__a.service");
        assert_eq!(control_group("", "system.slice", "memory.service"), "/system.slice/_memory.service");
    }
}
