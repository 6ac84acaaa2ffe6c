//! Lines of the fault table that need a kernel of their own: two servers that are virtual machines, with a wire between
//! them and disks that both have. No control plane: what they know is in their bootstrap manifest.

use std::path::{Path, PathBuf};
use std::time::Duration;

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
    filesystem: {disk: shared, device: /dev/holdfast/data, mountPoint: /srv/web, type: ext4, options: [OPTIONS]}
    monitor: {interval: INTERVAL}
  - name: history
    script: {start: {inline: 'uname -n >> /srv/web/history; sync'}, stop: {inline: 'exit 0'}}
    dependsOn: [data]
---
apiVersion: v1
kind: Secret
metadata: {name: shop-heartbeat, namespace: ha}
stringData: {'1': a-key-for-this-test-only}
";

/// What the data is on.
struct Storage {
    /// Images behind the disks from /dev/vdb on, by number; the same number twice is one disk over two paths.
    disks: &'static [usize],
    modules: &'static [&'static str],
    /// Shell: makes /dev/holdfast/data of them, on both servers.
    make: &'static str,
    /// Mount options.
    options: &'static str,
    /// Between two checks of the file system.
    interval: &'static str,
}

const PLAIN: Storage =
    Storage { disks: &[0], modules: &[], make: "ln -s ../vdb /dev/holdfast/data", options: "noatime", interval: "1s" };

const MULTIPATH: Storage = Storage {
    disks: &[0, 0],
    modules: &["dm_mod", "dm_multipath", "dm_round_robin"],
    make: "export DM_DISABLE_UDEV=1
        size=$(cat /sys/block/vdb/size)
        dmsetup create data --table \"0 $size multipath 0 0 1 1 round-robin 0 2 1 /dev/vdb 1 /dev/vdc 1\"
        ln -s /dev/mapper/data /dev/holdfast/data",
    ..PLAIN
};

/// Two machines on which agents run.
struct Trial {
    machines: Vec<Machine>,
    directory: PathBuf,
    /// Where the group runs at first, by number.
    active: usize,
    standby: usize,
}

/// An empty image of a disk.
fn image(directory: &Path, name: &str, mebibytes: u64) -> PathBuf {
    let path = directory.join(name);
    std::fs::File::create(&path).and_then(|file| file.set_len(mebibytes << 20)).expect("an image");
    path
}

fn boot(directory: &Path, storage: &Storage, binary: &str) -> Vec<Machine> {
    let images = [0, 1].map(|number| image(directory, &format!("data{number}"), 64));
    let data = storage.disks.iter().map(|&number| images[number].clone());
    let disks: Vec<PathBuf> = [image(directory, "area", 8)].into_iter().chain(data).collect();
    let (left, right) = wire(directory);
    let config = |(name, end): (&str, _)| MachineConfig {
        name: name.into(),
        modules: storage.modules.iter().map(|&name| name.to_owned()).collect(),
        programs: [binary, "mkfs.ext4", "fsck.ext4", "dmsetup"].map(str::to_owned).to_vec(),
        disks: disks.clone(),
        wires: vec![end],
    };
    let configs: Vec<MachineConfig> = SERVERS.into_iter().zip([left, right]).map(config).collect();
    Machine::boot(&configs).expect("two machines")
}

impl Trial {
    fn start(name: &str, storage: &Storage) -> Trial {
        let directory = std::env::temp_dir().join(format!("holdfast-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let binary = holdfast_binary().expect("the program").display().to_string();
        let mut machines = boot(&directory, storage, &binary);
        for (number, machine) in (1..).zip(&mut machines) {
            let script = format!(
                "set -e; ip addr add 10.0.0.{number}/24 dev eth0; ip link set eth0 up
                 mkdir -p /dev/holdfast; ln -s ../vda /dev/holdfast/area
                 {}",
                storage.make
            );
            machine.sh(&script).expect("a network and disks");
        }
        let format = "mkfs.ext4 -q /dev/holdfast/data; sync";
        let area = format!("{binary} disk format --device /dev/holdfast/area --offset 0");
        machines[0].sh(&format!("{format}; {area}")).expect("a file system and an area");
        let manifest = MANIFEST.replace("OPTIONS", storage.options).replace("INTERVAL", storage.interval);
        for machine in &mut machines {
            let agent = serde_json::json!({
                "namespace": "ha", "subCluster": "shop", "server": machine.name(), "credentials": "/etc/none",
                "bootstrapManifest": "/etc/bootstrap.yaml", "dataDir": "/var/lib/holdfast",
                "runDir": "/run/holdfast", "cgroup": "/sys/fs/cgroup/holdfast"});
            let script = format!(
                "echo root:x:0:0:root:/root:/bin/sh > /etc/passwd; echo root:x:0: > /etc/group
                 cat > /etc/bootstrap.yaml <<'END'\n{manifest}\nEND
                 cat > /etc/agent.yaml <<'END'\n{agent}\nEND
                 {binary} agent --config /etc/agent.yaml > /run/agent.log 2>&1 &"
            );
            machine.sh(&script).expect("an agent");
        }
        let mut trial = Trial { machines, directory, active: 0, standby: 1 };
        // One alone would wait for the other for five minutes (startup.gracePeriod): both are in the view.
        trial.active = trial.runs_on(&[0, 1]);
        trial.standby = 1 - trial.active;
        assert_eq!(trial.history(trial.standby), [""; 0], "the other one has nothing mounted");
        trial
    }

    /// The servers on which the group was started, as one that has its file system sees it.
    fn history(&mut self, server: usize) -> Vec<String> {
        let script = "if grep -q ' /srv/web ' /proc/mounts; then cat /srv/web/history 2> /dev/null || true; fi";
        let text = self.machines[server].sh(script).expect("an answer");
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until the group runs on one of these servers.
    fn runs_on(&mut self, wanted: &[usize]) -> usize {
        wait_for(&format!("the group to run on one of {wanted:?}"), LIMIT, |last| {
            let found =
                wanted.iter().find(|&&server| self.history(server).last().is_some_and(|l| *l == SERVERS[server]));
            *last = wanted.iter().map(|&server| self.log(server)).collect();
            Ok(found.copied())
        })
        .expect("it runs")
    }

    /// What its agent has said.
    fn log(&mut self, server: usize) -> String {
        self.machines[server].sh("cat /run/agent.log").expect("a log")
    }

    /// Takes a disk, or one path to it, from a server that may be using it.
    fn pull(&mut self, server: usize, disk: &str) {
        let script = format!("echo 1 > $(readlink -f /sys/block/{disk}/device)/../remove");
        self.machines[server].sh(&script).expect("it is out");
    }

    /// Waits until the active server's own check has written on the file system at least three times from now on.
    fn is_checked(&mut self) {
        let changed =
            |trial: &mut Trial| trial.machines[trial.active].sh("stat -c %Y /srv/web").expect("it is mounted");
        let mut seen = std::collections::BTreeSet::from([changed(self)]);
        wait_for("three checks", LIMIT, |last| {
            seen.insert(changed(self));
            *last = format!("{seen:?}");
            Ok((seen.len() > 3).then_some(()))
        })
        .expect("it is checked");
    }

    /// Waits until a server has panicked.
    fn has_panicked(&mut self, server: usize) {
        wait_for("a panic", LIMIT, |last| {
            *last = self.machines[server].sh("true").err().map(|error| error.to_string()).unwrap_or_default();
            Ok(last.contains("Kernel panic").then_some(()))
        })
        .expect("its console says so");
    }

    /// The other server takes the group over, once.
    fn fails_over(&mut self) {
        self.runs_on(&[self.standby]);
        assert_eq!(self.history(self.standby), [SERVERS[self.active], SERVERS[self.standby]]);
    }

    fn close(self) {
        drop(self.machines);
        std::fs::remove_dir_all(&self.directory).expect("it goes");
    }
}

#[test]
fn server_os_panic_fails_over_to_the_standby() {
    let mut trial = Trial::start("panic", &PLAIN);
    let ended =
        trial.machines[trial.active].script("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger", LIMIT);
    ended.expect_err("nobody answers any more");
    trial.has_panicked(trial.active);
    trial.fails_over();
    trial.close();
}

#[test]
fn server_os_panic_from_hba_fails_over_to_the_standby() {
    // The adapter goes under a file system whose kernel is told to panic then, long before a check sees it.
    let mut trial = Trial::start("hba-panic", &Storage { options: "errors=panic", interval: "1h", ..PLAIN });
    trial.pull(trial.active, "vdb");
    let writes = "while :; do echo more >> /srv/web/history.more; sync; done 2> /dev/null";
    let _ = trial.machines[trial.active].script(writes, LIMIT);
    trial.has_panicked(trial.active);
    trial.fails_over();
    trial.close();
}

#[test]
fn shared_disk_controller_cable_or_terminator_the_other_path_serves() {
    let mut trial = Trial::start("multipath", &MULTIPATH);
    let active = trial.active;
    trial.pull(active, "vdb");
    wait_for("the path to be given up", LIMIT, |last| {
        *last = trial.machines[active].sh("dmsetup status data")?;
        Ok(last.contains(" F ").then_some(()))
    })
    .expect("something was sent over it");
    trial.is_checked();
    assert_eq!(trial.history(active), [SERVERS[active]], "it was started once");
    trial.machines[active].sh("echo kept > /srv/web/file; sync").expect("the other path serves");
    // What was written over it is there for the other server.
    trial.machines[active].power_cut();
    trial.fails_over();
    assert_eq!(trial.machines[trial.standby].sh("cat /srv/web/file").expect("a file"), "kept");
    trial.close();
}
