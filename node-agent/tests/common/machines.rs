//! Servers that are virtual machines. A test outside tells them what to do in order; what has to run inside is an ignored test
//! of the same program, a *step*, that the machine runs by its name.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use holdfast_agent::clock;
use holdfast_agent::deadline::{Deadline, Role};
use holdfast_agent::guard::{GuardSettings, ensure_guard};
use holdfast_agent::watchdog::WatchdogSettings;
use holdfast_api::v1::{Resource, WatchdogMode};
use holdfast_core::{Action, Outcome};
use holdfast_lab::{Machine, MachineConfig};

use super::{HANDS, Server, eventually};

/// What a step may take: longer than the operation in it, so that the step can say what the operation did.
const STEP: Duration = Duration::from_secs(180);

/// A machine that can run the steps of this test program.
pub fn config(name: &str, modules: &[&str], programs: &[&str]) -> MachineConfig {
    let own = std::env::current_exe().unwrap().display().to_string();
    let programs = programs.iter().copied().chain([HANDS, own.as_str()]);
    MachineConfig {
        name: name.to_owned(),
        modules: modules.iter().map(|&name| name.to_owned()).collect(),
        programs: programs.map(str::to_owned).collect(),
        disks: Vec::new(),
        wires: Vec::new(),
    }
}

/// An empty image of a disk.
pub fn disk(directory: &Path, name: &str, mebibytes: u64) -> PathBuf {
    let path = directory.join(name);
    std::fs::File::create(&path).unwrap().set_len(mebibytes * 1024 * 1024).unwrap();
    path
}

/// Runs a step, with variables; it has to succeed. Gives what it printed.
pub fn step(machine: &mut Machine, name: &str, variables: &[(&str, &str)]) -> String {
    let own = std::env::current_exe().unwrap();
    let set: Vec<String> = variables.iter().map(|(name, value)| format!("export {name}='{value}'")).collect();
    let script = format!("{}\n{} --exact {name} --ignored --nocapture", set.join("\n"), own.display());
    let ended = machine.script(&script, STEP).unwrap();
    assert!(
        ended.code == 0 && ended.output.contains("1 passed"),
        "step {name} on {}: exit {}\n{}\n{}",
        machine.name(),
        ended.code,
        ended.output,
        ended.errors
    );
    ended.output
}

/// A variable that the test outside has set.
pub fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by the test outside"))
}

/// Carries an operation out on a machine, with the real executor, and gives its outcome. The test program has to have a step
/// `operate` that calls [`carry_out_inside`].
pub fn carry_out(machine: &mut Machine, action: Action, spec: &Resource) -> Outcome {
    let (action, spec) = (format!("{action:?}"), serde_json::to_string(spec).unwrap());
    let printed = step(machine, "operate", &[("ACTION", &action), ("SPEC", &spec)]);
    println!("{} {action}: {}", machine.name(), printed.lines().find(|l| l.contains(OUTCOME)).unwrap_or_default());
    let line = printed.lines().find_map(|line| line.split_once(OUTCOME)).expect("an outcome").1;
    let (state, message) = line.split_once(' ').unwrap();
    match state {
        "Running" => Outcome::Running,
        "Stopped" => Outcome::Stopped,
        "Failed" => Outcome::Failed(message.to_owned()),
        _ => Outcome::Unknown(message.to_owned()),
    }
}

const OUTCOME: &str = "outcome: ";

/// The inside of [`carry_out`].
pub fn carry_out_inside() {
    let action = match given("ACTION").as_str() {
        "Probe" => Action::Probe,
        "Start" => Action::Start,
        "Stop" => Action::Stop,
        _ => Action::Monitor,
    };
    let spec: Resource = serde_json::from_str(&given("SPEC")).unwrap();
    let (state, message) = match Server::new().run_within(action, &spec, spec.start_timeout()) {
        Outcome::Running => ("Running", String::new()),
        Outcome::Stopped => ("Stopped", String::new()),
        Outcome::Failed(message) => ("Failed", message),
        Outcome::Unknown(message) => ("Unknown", message),
    };
    println!("{OUTCOME}{state} {}", message.replace('\n', " "));
}

/// A server with a guard, and an agent that does nothing, for a step.
pub struct Stranded {
    pub server: Server,
    agent: Child,
}

impl Stranded {
    pub fn new() -> Stranded {
        let server = Server::new();
        let watchdog = WatchdogSettings {
            mode: WatchdogMode::Disabled,
            device: "/dev/watchdog".into(),
            timeout: Duration::from_secs(2),
        };
        let settings = GuardSettings { cgroup: server.cgroups.base().to_owned(), watchdog };
        ensure_guard(Path::new(HANDS), server.run_dir.path(), &settings).unwrap();
        let (base, run_dir) =
            (server.cgroups.base().display().to_string(), server.run_dir.path().display().to_string());
        let agent = Command::new(HANDS).args(["agent", &run_dir, &base]).spawn().unwrap();
        eventually("the agent has shown up", Duration::from_secs(20), || {
            server.page.party(Role::Agent).is_some_and(|party| party.pid as u32 == agent.id())
        });
        Stranded { server, agent }
    }

    /// Authority ends; returns when the guard has verified that all is stopped.
    pub fn end(mut self) {
        let kill = clock::now() + Duration::from_millis(300);
        self.server.page.publish(Deadline { soft: kill, kill, end: kill + Duration::from_secs(10) });
        let log = self.server.run_dir.path().join("guard.log");
        eventually("the guard says that all is stopped", Duration::from_secs(30), || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("verified stopped after"))
        });
        println!("{}", std::fs::read_to_string(log).unwrap());
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}
