//! One call: a server is switched off level by level, verified, and switched on again if that is wanted.
//!
//! A level counts when every device of it has said that it switched the server off *and*, asked afterwards, that the
//! server is off. Both power supplies are off before either is switched on again.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_core::orders::Power;

use super::agent::{self, Action, Ran, Run};
use super::metadata::Metadata;
use super::topology::{Device, Level};
use crate::cgroup::Cgroup;

/// Exit code of `status`: the plug is off.
const IS_OFF: i32 = 2;
/// Longest time for what only describes the agent.
const DESCRIBE: Duration = Duration::from_secs(20);
/// A server without one.
const NO_LEVEL: &str = "there is no level for this server; add one to spec.fencing.levels";
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Where and how agents are run.
#[derive(Debug, Clone, Copy)]
pub struct Hands<'a> {
    /// Control group; none: as a child of whoever calls.
    pub cgroup: Option<&'a Cgroup>,
    /// Set: end it.
    pub cancel: &'a AtomicBool,
    /// What agents have said about themselves.
    pub known: &'a Known,
}

/// What agents have said about themselves: asking takes long enough to be worth remembering.
#[derive(Debug, Default)]
pub struct Known(Mutex<BTreeMap<String, Metadata>>);

impl Known {
    /// Ask again: packages are upgraded.
    pub fn forget(&self) {
        super::lock(&self.0).clear();
    }
}

impl Hands<'_> {
    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    fn ask(
        &self,
        device: &Device,
        action: Action,
        parameters: &BTreeMap<String, String>,
        limit: Duration,
    ) -> Result<Ran, String> {
        agent::run(&Run {
            agent: &device.agent,
            action,
            parameters,
            secrets: &device.secrets,
            timeout: limit,
            cgroup: self.cgroup,
            cancel: self.cancel,
        })
    }

    /// What the agent says about itself.
    ///
    /// # Errors
    /// Why it can't be told.
    fn describe(&self, device: &Device) -> Result<Metadata, String> {
        if let Some(known) = super::lock(&self.known.0).get(&device.agent) {
            return Ok(known.clone());
        }
        let ran = self.ask(device, Action::Metadata, &BTreeMap::new(), DESCRIBE)?;
        if ran.code != Some(0) {
            return Err(format!("{} does not describe itself: {}", device.agent, ran.said));
        }
        let metadata = Metadata::parse(&ran.output).map_err(|e| format!("{}: {e}", device.agent))?;
        super::lock(&self.known.0).insert(device.agent.clone(), metadata.clone());
        Ok(metadata)
    }

    /// Everything that an agent is told but the action.
    fn parameters(&self, device: &Device, metadata: &Metadata) -> BTreeMap<String, String> {
        let mut all = device.parameters.clone();
        all.extend(metadata.target(&device.parameters, &device.plug, &device.server));
        all
    }

    /// Looks at a device without switching anything: its parameters, that it answers, and how it sees the server.
    ///
    /// # Errors
    /// Everything that is wrong, in one text.
    pub fn test(&self, device: &Device) -> Result<Seen, String> {
        if let Some(missing) = &device.missing {
            return Err(missing.clone());
        }
        let metadata = self.describe(device)?;
        let mut wrong: Vec<String> = metadata.no_proof().into_iter().collect();
        wrong.extend(metadata.check(&device.parameters));
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        let parameters = self.parameters(device, &metadata);
        if metadata.actions.contains("monitor") {
            let ran = self.ask(device, Action::Monitor, &parameters, device.timeout)?;
            // Some agents answer a monitor as a status.
            if !matches!(ran.code, Some(0 | IS_OFF)) {
                return Err(format!("monitor: {}", ran.said));
            }
        }
        let ran = self.ask(device, Action::Status, &parameters, device.timeout)?;
        match ran.code {
            Some(0) => Ok(Seen::On),
            Some(IS_OFF) => Ok(Seen::Off),
            _ => Err(format!("status of {}: {}", device.plug, ran.said)),
        }
    }

    fn switch_off(&self, device: &Device) -> Result<(), String> {
        if let Some(missing) = &device.missing {
            return Err(missing.clone());
        }
        let metadata = self.describe(device)?;
        if let Some(problem) = metadata.no_proof() {
            return Err(problem);
        }
        let parameters = self.parameters(device, &metadata);
        let mut last = String::new();
        for attempt in 0..=device.retries {
            if attempt > 0 {
                self.pause(PAUSE);
            }
            if self.cancelled() {
                return Err("it was called back".to_owned());
            }
            let off = self.ask(device, Action::Off, &parameters, device.timeout);
            last = match off {
                Ok(ran) if ran.code == Some(0) => match self.is_off(device, &parameters) {
                    Ok(()) => return Ok(()),
                    Err(problem) => problem,
                },
                Ok(ran) => format!("off: {}", ran.said),
                Err(problem) => format!("off: {problem}"),
            };
            tracing::warn!(?device, attempt = attempt + 1, "fencing failed: {last}");
        }
        Err(match device.retries {
            0 => last,
            more => format!("{last} (attempt {})", u32::from(more) + 1),
        })
    }

    fn is_off(&self, device: &Device, parameters: &BTreeMap<String, String>) -> Result<(), String> {
        match self.ask(device, Action::Status, parameters, device.timeout) {
            Ok(ran) if ran.code == Some(IS_OFF) => Ok(()),
            Ok(ran) if ran.code == Some(0) => {
                Err("it said that it had switched off, and then that it is on".to_owned())
            }
            Ok(ran) => Err(format!("status after off: {}", ran.said)),
            Err(problem) => Err(format!("status after off: {problem}")),
        }
    }

    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.cancelled() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn switch_on(&self, device: &Device) -> Result<(), String> {
        let metadata = self.describe(device)?;
        match self.ask(device, Action::On, &self.parameters(device, &metadata), device.timeout)? {
            ran if ran.code == Some(0) => Ok(()),
            ran => Err(format!("{}: on: {}", device.name, ran.said)),
        }
    }
}

/// How a device sees a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It has power.
    On,
    /// It has none.
    Off,
}

/// Switches a server on: the first level whose devices all do it, and say afterwards that it has power.
///
/// # Errors
/// Every level and what its devices said.
pub fn switch_on(levels: &[Level], hands: Hands<'_>) -> Result<(), String> {
    let mut failures = Vec::new();
    for level in levels.iter().filter(|level| !level.devices.is_empty()) {
        let on = |device: &Device| {
            hands.switch_on(device)?;
            match hands.test(device)? {
                Seen::On => Ok(()),
                Seen::Off => Err(format!("{}: it said that it had switched on, and then that it is off", device.name)),
            }
        };
        match level.devices.iter().find_map(|device| on(device).err()) {
            None => return Ok(()),
            Some(problem) => failures.push(format!("level {}: {problem}", level.level)),
        }
        if hands.cancelled() {
            break;
        }
    }
    if failures.is_empty() {
        failures.push(NO_LEVEL.to_owned());
    }
    Err(failures.join("; "))
}

/// Switches a server off; calls `off` with which level did it, before anything is switched on again. That follows
/// where `power` says so; if it says nothing, where the devices are configured for it.
///
/// # Errors
/// Every level and what its devices said; or what went wrong after `off` was called.
pub fn fence(levels: &[Level], power: Option<Power>, hands: Hands<'_>, off: impl FnOnce(String)) -> Result<(), String> {
    let mut failures = Vec::new();
    for level in levels {
        let failed = level.devices.iter().find_map(|device| {
            let problem = hands.switch_off(device).err()?;
            Some(format!("level {}: {}: {problem}", level.level, device.name))
        });
        match failed {
            None if !level.devices.is_empty() => {
                let names: Vec<&str> = level.devices.iter().map(|device| device.name.as_str()).collect();
                off(format!("level {}: {}", level.level, names.join(", ")));
                let wanted = |device: &&Device| power.map_or(device.reboot, |power| power == Power::Reboot);
                let again = level.devices.iter().filter(wanted);
                let problems: Vec<String> = again.filter_map(|device| hands.switch_on(device).err()).collect();
                return if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) };
            }
            None => failures.push(format!("level {}: it has no device", level.level)),
            Some(failed) => failures.push(failed),
        }
        if hands.cancelled() {
            break;
        }
    }
    if failures.is_empty() {
        failures.push(NO_LEVEL.to_owned());
    }
    Err(failures.join("; "))
}
