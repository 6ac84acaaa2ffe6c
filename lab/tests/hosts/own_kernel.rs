//! Lines of the fault table that need a kernel of their own: two servers that are virtual machines, with a wire between
//! them and a disk that both have. No control plane: what they know is in their bootstrap manifest.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_lab::{Machine, MachineConfig, holdfast_binary, wait_for, wire};

/// Both share the processors of the machine at hand, in software: everything takes ten times as long as on hosts.
const LIMIT: Duration = Duration::from_secs(120);
const SERVERS: [&str; 2] = ["alder", "birch"];
/// The sub-cluster, its key, and a group that writes down on the shared disk where it was started.
const MANIFEST: &str = "
apiVersion: holdfast.dev/v1
kind: SubCluster
metadata: {name: shop, namespace: ha}
spec:
  servers: [{name: alder, id: 1}, {name: birch, id: 2}]
  disks:
  - {name: shared, device: /dev/holdfast/data, area: {device: /dev/holdfast/area}}
  heartbeat:
    timeout: 5s
    paths:
    - name: ic
      lan: {role: Interconnect, endpoints: [{server: alder, address: 10.0.0.1}, {server: birch, address: 10.0.0.2}]}
    - {name: area, disk: {disk: shared}}
  quorum: {type: LockDisk, lockDisk: {disk: shared}}
  # As in examples/two-servers: these machines are never paused.
  evidence: {timeOnVirtualMachines: Allow, drain: 0ms}
---
apiVersion: holdfast.dev/v1
kind: FailoverGroup
metadata: {name: web, namespace: ha}
spec:
  subCluster: shop
  resources:
  - name: data
    filesystem: {disk: shared, device: /dev/holdfast/data, mountPoint: /srv/web, type: ext4}
  - name: history
    script: {start: {inline: 'uname -n >> /srv/web/history; sync'}, stop: {inline: 'exit 0'}}
    dependsOn: [data]
---
apiVersion: v1
kind: Secret
metadata: {name: shop-heartbeat, namespace: ha}
stringData: {'1': a-key-for-this-test-only}
";

/// An empty image of a disk.
fn disk(directory: &Path, name: &str, mebibytes: u64) -> PathBuf {
    let path = directory.join(name);
    std::fs::File::create(&path).and_then(|file| file.set_len(mebibytes << 20)).expect("an image");
    path
}

/// Two machines on which an agent runs.
fn servers(directory: &Path) -> Vec<Machine> {
    let binary = holdfast_binary().expect("the program").display().to_string();
    let disks = vec![disk(directory, "data", 64), disk(directory, "area", 8)];
    let (left, right) = wire(directory);
    let programs = [binary.as_str(), "mkfs.ext4", "fsck.ext4"].map(str::to_owned).to_vec();
    let config = |(name, end): (&str, _)| MachineConfig {
        name: name.into(),
        programs: programs.clone(),
        disks: disks.clone(),
        wires: vec![end],
        ..MachineConfig::default()
    };
    let configs: Vec<MachineConfig> = SERVERS.into_iter().zip([left, right]).map(config).collect();
    let mut machines = Machine::boot(&configs).expect("two machines");
    let links = "mkdir -p /dev/holdfast; ln -s ../vda /dev/holdfast/data; ln -s ../vdb /dev/holdfast/area";
    for (number, machine) in machines.iter_mut().enumerate() {
        machine
            .sh(&format!("ip addr add 10.0.0.{}/24 dev eth0; ip link set eth0 up; {links}", number + 1))
            .expect("up");
    }
    let format =
        format!("mkfs.ext4 -q /dev/holdfast/data; {binary} disk format --device /dev/holdfast/area --offset 0");
    machines[0].sh(&format).expect("a file system and an area");
    for machine in &mut machines {
        let agent = serde_json::json!({
            "namespace": "ha", "subCluster": "shop", "server": machine.name(), "credentials": "/etc/none",
            "bootstrapManifest": "/etc/bootstrap.yaml", "dataDir": "/var/lib/holdfast", "runDir": "/run/holdfast",
            "cgroup": "/sys/fs/cgroup/holdfast"});
        let script = format!(
            "echo root:x:0:0:root:/root:/bin/sh > /etc/passwd; echo root:x:0: > /etc/group
             cat > /etc/bootstrap.yaml <<'END'\n{MANIFEST}\nEND
             cat > /etc/agent.yaml <<'END'\n{agent}\nEND
             {binary} agent --config /etc/agent.yaml > /run/agent.log 2>&1 &"
        );
        machine.sh(&script).expect("an agent");
    }
    machines
}

/// Waits until the group runs on a machine: its place among them.
fn runs_on_one_of(machines: &mut [Machine], wanted: &[usize]) -> usize {
    wait_for(&format!("the group to run on one of {wanted:?}"), LIMIT, |last| {
        last.clear();
        for &place in wanted {
            let machine = &mut machines[place];
            let name = machine.name().to_owned();
            if history(machine).last() == Some(&name) {
                return Ok(Some(place));
            }
            last.push_str(&format!("\n{name}: {}", machine.sh("tail -n 30 /run/agent.log")?));
        }
        Ok(None)
    })
    .expect("it runs")
}

/// Where the group was started, as a machine that has its file system sees it.
fn history(machine: &mut Machine) -> Vec<String> {
    let text = machine.sh("grep -q ' /srv/web ' /proc/mounts && cat /srv/web/history || true").expect("an answer");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn server_os_panic_fails_over_to_the_standby() {
    let place = std::env::temp_dir().join(format!("holdfast-panic-{}", std::process::id()));
    std::fs::create_dir_all(&place).expect("a directory");
    let mut machines = servers(&place);
    // One alone would wait for the other for five minutes (startup.gracePeriod): both are in the view.
    let active = runs_on_one_of(&mut machines, &[0, 1]);
    let standby = 1 - active;
    assert_eq!(history(&mut machines[standby]), Vec::<String>::new(), "the other one has nothing mounted");
    let began = Instant::now();
    let ended = machines[active].script("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger", LIMIT);
    let console = ended.expect_err("nobody answers any more").to_string();
    assert!(console.contains("Kernel panic"), "{console}");
    runs_on_one_of(&mut machines, &[standby]);
    println!("taken over {:?} after the panic", began.elapsed());
    assert_eq!(
        history(&mut machines[standby]),
        [SERVERS[active], SERVERS[standby]],
        "once on each, one after the other"
    );
    drop(machines);
    std::fs::remove_dir_all(&place).expect("it goes");
}
