//! Fence agents as they are run: those of Debian's fence-agents, and scripts after the same contract that misbehave.
//! What is asserted is what the agents themselves wrote down.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_agent::cgroup::{Cgroup, Hierarchy};
use holdfast_agent::fencing::{Device, Hands, Known, Level, Seen, fence};

/// Metadata that a power switch has, in the form of fence-agents.
const METADATA: &str = r#"<?xml version="1.0" ?><resource-agent name="switch" shortdesc="X"><parameters>
<parameter name="action" required="1"><content type="string" default="reboot"/></parameter>
<parameter name="password" required="0"><content type="string"/></parameter>
<parameter name="plug" required="1"><content type="string"/></parameter></parameters>
<actions><action name="on"/><action name="off"/><action name="reboot"/><action name="status"/><action name="monitor"/></actions>
</resource-agent>"#;

struct Bench {
    dir: tempfile::TempDir,
    cgroup: Cgroup,
    cancel: AtomicBool,
    known: Known,
}

impl Bench {
    fn new(name: &str) -> Bench {
        let found = Hierarchy::find(None).expect("the tests need cgroup2");
        let base = found.base().parent().unwrap().join(format!("holdfast-fence-{}-{name}", std::process::id()));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("metadata"), METADATA).unwrap();
        Bench { dir, cgroup: Cgroup::at(&base), cancel: AtomicBool::new(false), known: Known::default() }
    }

    fn hands(&self) -> Hands<'_> {
        Hands { cgroup: Some(&self.cgroup), cancel: &self.cancel, known: &self.known }
    }

    /// A power switch whose plugs are files, with `extra` done for each action but metadata.
    fn switch(&self, name: &str, extra: &str) -> Device {
        let dir = self.dir.path().display();
        let script = format!(
            r#"#!/bin/sh
while read -r line; do case "$line" in action=*) action=${{line#action=}};; plug=*) plug=${{line#plug=}};;
password=*) password=${{line#password=}};; esac; done
[ "$action" = metadata ] && exec cat {dir}/metadata
echo "{name} $action $plug" >>{dir}/log
{extra}
case "$action" in
off) echo off >{dir}/{name}.$plug;;
on) rm -f {dir}/{name}.$plug;;
status) [ -e {dir}/{name}.$plug ] && exit 2;;
esac
exit 0
"#
        );
        let path = self.dir.path().join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        device(name, path.to_str().unwrap())
    }

    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.cgroup.kill(Duration::from_secs(1));
        self.cgroup.remove();
    }
}

fn device(name: &str, agent: &str) -> Device {
    Device {
        name: name.to_owned(),
        agent: agent.to_owned(),
        plug: "7".to_owned(),
        server: "db2".to_owned(),
        reboot: false,
        timeout: Duration::from_secs(10),
        retries: 0,
        parameters: BTreeMap::new(),
        secrets: Vec::new(),
        missing: None,
    }
}

fn level(level: u8, devices: &[Device]) -> Level {
    Level { level, devices: devices.to_vec() }
}

/// Runs a call; gives what was said at the moment of "verified off", and its end.
fn call(bench: &Bench, levels: &[Level]) -> (Option<String>, Result<(), String>) {
    let mut off = None;
    let result = fence(levels, None, bench.hands(), |message| off = Some(message));
    (off, result)
}

fn installed(agent: &str) -> bool {
    Path::new("/usr/sbin").join(agent).exists()
}

#[test]
fn debians_dummy_agent_switches_off_and_on_again() {
    assert!(installed("fence_dummy"), "install Debian's fence-agents: scripts/setup.sh does");
    let bench = Bench::new("dummy");
    let file: PathBuf = bench.dir.path().join("state");
    fs::write(&file, "on").unwrap();
    let mut dummy = device("dummy", "fence_dummy");
    dummy.parameters = BTreeMap::from([("status_file".to_owned(), file.display().to_string())]);
    assert_eq!(bench.hands().test(&dummy), Ok(Seen::On));
    let (off, result) = call(&bench, &[level(1, &[dummy.clone()])]);
    assert_eq!((off.as_deref(), result), (Some("level 1: dummy"), Ok(())));
    assert_eq!(fs::read_to_string(&file).unwrap(), "off");
    assert_eq!(bench.hands().test(&dummy), Ok(Seen::Off));
    dummy.reboot = true;
    let mut at_off = String::new();
    let done = fence(&[level(1, &[dummy])], None, bench.hands(), |_| at_off = fs::read_to_string(&file).unwrap());
    assert_eq!((done, at_off.as_str(), fs::read_to_string(&file).unwrap().as_str()), (Ok(()), "off", "on"));
}

#[test]
fn parameters_are_checked_against_what_debians_agents_say() {
    let bench = Bench::new("real");
    let test = |agent: &str, parameters: &[(&str, &str)]| {
        assert!(installed(agent), "install Debian's fence-agents: scripts/setup.sh does");
        let mut device = device("d", agent);
        device.parameters = parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        device.timeout = Duration::from_secs(20);
        bench.hands().test(&device).expect_err("no such device answers here")
    };
    let wrong = test("fence_ipmilan", &[("user", "admin"), ("method", "of")]);
    assert!(wrong.contains("parameter user: fence_ipmilan has none of that name; it takes"), "{wrong}");
    assert!(
        wrong.contains("username") && wrong.contains("parameter method: fence_ipmilan takes onoff, cycle"),
        "{wrong}"
    );
    let missing = test("fence_virsh", &[("ip", "127.0.0.1")]);
    assert!(missing.contains("parameter username: fence_virsh needs it"), "{missing}");
    // The device is asked only when its parameters are right.
    let silent =
        test("fence_ipmilan", &[("username", "admin"), ("password", "x"), ("ip", "127.0.0.1"), ("lanplus", "1")]);
    assert!(silent.starts_with("monitor: ") || silent.starts_with("status of "), "{silent}");
    let fabric = test("fence_scsi", &[]);
    assert!(fabric.contains("leaves it on; use an agent that switches power"), "{fabric}");
    let absent = bench.hands().test(&device("d", "fence_nothing")).unwrap_err();
    assert!(absent.contains("there is no fence agent fence_nothing on this server; install the package"), "{absent}");
}

#[test]
fn levels_are_tried_in_order_and_all_devices_of_one_must_succeed() {
    let bench = Bench::new("levels");
    let good = bench.switch("good", "");
    let broken = bench.switch("broken", "echo 'Failed: unable to connect' >&2; exit 1");
    let spare = bench.switch("spare", "");
    let (off, result) = call(&bench, &[level(1, &[good.clone(), broken.clone()]), level(2, &[spare])]);
    assert_eq!((off.as_deref(), result), (Some("level 2: spare"), Ok(())));
    let (off, result) = call(&bench, &[level(1, &[broken]), level(3, &[])]);
    let said = "level 1: broken: off: exit 1: Failed: unable to connect; level 3: it has no device";
    assert_eq!((off, result), (None, Err(said.to_owned())));
}

#[test]
fn both_power_supplies_are_off_before_one_is_switched_on() {
    let bench = Bench::new("twins");
    let (mut left, mut right) = (bench.switch("left", ""), bench.switch("right", ""));
    (left.reboot, right.reboot) = (true, true);
    let (off, result) = call(&bench, &[level(1, &[left, right])]);
    assert_eq!((off.is_some(), result), (true, Ok(())));
    let all = ["left off 7", "left status 7", "right off 7", "right status 7", "left on 7", "right on 7"];
    assert_eq!(bench.log(), all);
}

#[test]
fn what_says_off_and_is_on_is_no_success_and_is_tried_again() {
    let bench = Bench::new("liar");
    let mut liar = bench.switch("liar", "[ $action = off ] && exit 0");
    liar.retries = 1;
    let (off, result) = call(&bench, &[level(1, &[liar])]);
    assert_eq!(off, None);
    assert!(result.unwrap_err().contains("and then that it is on (attempt 2)"));
    assert_eq!(bench.log(), ["liar off 7", "liar status 7", "liar off 7", "liar status 7"]);
}

#[test]
fn an_agent_that_hangs_is_killed_with_all_that_it_started() {
    let bench = Bench::new("hang");
    let mut hang = bench.switch("hang", "sleep 1000 & sleep 1000");
    hang.timeout = Duration::from_millis(300);
    let began = Instant::now();
    let (off, result) = call(&bench, &[level(1, &[hang.clone()])]);
    assert_eq!(off, None);
    assert!(result.unwrap_err().contains("no answer within 300ms"));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(bench.cgroup.pids(), Vec::<i32>::new());
    // Called back while it hangs.
    hang.timeout = Duration::from_secs(100);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| call(&bench, &[level(1, &[hang.clone()]), level(2, &[hang.clone()])]));
        let until = Instant::now() + Duration::from_secs(20);
        while bench.log().len() < 2 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        bench.cancel.store(true, Ordering::Relaxed);
        let (off, result) = call.join().unwrap();
        assert!(off.is_none() && result.unwrap_err().contains("called back"));
    });
    assert_eq!((bench.cgroup.pids(), bench.log().len()), (Vec::new(), 2));
}

#[test]
fn secrets_are_neither_on_the_command_line_nor_told() {
    let bench = Bench::new("secret");
    let dir = bench.dir.path().display().to_string();
    let extra = format!(
        "tr '\\0' ' ' </proc/$$/cmdline >{dir}/seen; env >>{dir}/seen; echo \"bad password $password\" >&2; exit 1"
    );
    let mut device = bench.switch("talker", &extra);
    device.parameters.insert("password".to_owned(), "hunter22".to_owned());
    device.secrets = vec!["hunter22".to_owned()];
    let (_, result) = call(&bench, &[level(1, &[device.clone()])]);
    let seen = fs::read_to_string(bench.dir.path().join("seen")).unwrap();
    assert!(!seen.is_empty() && !seen.contains("hunter22"), "{seen}");
    assert_eq!(result.unwrap_err(), "level 1: talker: off: exit 1: bad password ***");
    assert!(!format!("{device:?}").contains("hunter22"));
}
