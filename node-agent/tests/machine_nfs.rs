//! Exports of the kernel's NFS server and mounts of its client, on virtual machines: two servers that share a disk, and a
//! client that keeps a file open while the export goes from one to the other.

mod common;

use std::io::Write;
use std::time::Duration;

use common::machines::{Stranded, carry_out, carry_out_inside, config, disk, given, step};
use common::{HANDS, failed, resource, sh};
use holdfast_api::v1::Resource;
use holdfast_core::{Action, Outcome};
use holdfast_lab::{Machine, MachineConfig, wait_for, wire};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

const ADDRESS: &str = "192.0.2.10";

fn data() -> Resource {
    resource(serde_json::json!({
        "name": "data", "filesystem": {"device": "/dev/vda", "mountPoint": "/srv/share", "type": "ext4"}}))
}

fn export(fsid: &str) -> Resource {
    resource(serde_json::json!({"name": "export", "nfsExport": {"path": "/srv/share", "fsid": fsid,
        "clients": [{"network": "192.0.2.0/24", "options": "rw,sync,no_root_squash"}, {"network": "198.51.100.7"}]}}))
}

fn import() -> Resource {
    resource(serde_json::json!({"name": "in", "filesystem": {"device": format!("{ADDRESS}:/srv/share"),
        "mountPoint": "/srv/in", "type": "nfs", "options": ["vers=4.2", "noatime"]}}))
}

/// What the system of a server does at boot. The shortest lease that the kernel takes, so that nobody waits for its end.
const NFSD: &str = "echo 'nfs 2049/tcp' > /etc/services; \
    echo 'tcp tpi_cots_ord v inet tcp - -' > /etc/netconfig; mkdir -p /var/lib/nfs/v4recovery; touch /var/lib/nfs/etab /var/lib/nfs/rmtab; \
    mount -t nfsd nfsd /proc/fs/nfsd; echo 10 > /proc/fs/nfsd/nfsv4leasetime; echo 10 > /proc/fs/nfsd/nfsv4gracetime; \
    rpc.mountd -N 3 > /dev/null 2>&1; rpc.nfsd -N 3 2";

fn address(machine: &mut Machine, own: &str) {
    machine.sh(&format!("ip addr add {own}/24 dev eth0; ip link set eth0 up")).unwrap();
}

fn take(machine: &mut Machine) {
    machine.sh(&format!("ip addr add {ADDRESS}/24 dev eth0; arping -q -c 2 -U -I eth0 {ADDRESS} || true")).unwrap();
}

fn start(machine: &mut Machine) {
    assert_eq!(carry_out(machine, Action::Start, &data()), Outcome::Running);
    assert_eq!(carry_out(machine, Action::Start, &export("7")), Outcome::Running);
    take(machine);
}

/// What the agent heartbeat:exportfs is made of; the rest of what it calls is busybox's.
const AGENT: [&str; 7] = [
    "/usr/lib/ocf/resource.d/heartbeat/exportfs",
    "/usr/lib/ocf/lib/heartbeat/ocf-shellfuncs",
    "/usr/lib/ocf/lib/heartbeat/ocf-binaries",
    "/usr/lib/ocf/lib/heartbeat/ocf-directories",
    "/usr/lib/ocf/lib/heartbeat/ocf-returncodes",
    "/usr/lib/ocf/lib/heartbeat/ocf-rarun",
    "/usr/lib/ocf/lib/heartbeat/ocf-distro",
];

/// The same kernel's export by the real agent, unchanged: the client mounts it, and its end is seen.
fn exported_by_an_agent(server: &mut Machine, client: &mut Machine) {
    let spec = resource(serde_json::json!({"name": "agent", "ocf": {"type": "exportfs", "parameters":
        {"directory": "/agents", "clientspec": "192.0.2.0/24", "fsid": "9", "options": "rw,no_root_squash"}}}));
    server
        .sh("echo root:x:0:0::/root:/bin/sh > /etc/passwd; touch /etc/exports; mkdir /agents && mount -t tmpfs none /agents && echo here > /agents/file")
        .unwrap();
    assert_eq!(carry_out(server, Action::Probe, &spec), Outcome::Stopped);
    assert_eq!(carry_out(server, Action::Start, &spec), Outcome::Running);
    let read = "mkdir -p /mnt/agents && mount.nfs 192.0.2.1:/agents /mnt/agents -o vers=4.2 && cat /mnt/agents/file";
    assert_eq!(client.sh(read).unwrap().trim(), "here");
    client.sh("umount /mnt/agents").unwrap();
    server.sh("exportfs -u 192.0.2.0/24:/agents").unwrap();
    assert_eq!(carry_out(server, Action::Monitor, &spec), Outcome::Stopped);
    server.sh("exportfs -i -o rw,fsid=9 192.0.2.0/24:/agents").unwrap();
    assert_eq!(carry_out(server, Action::Stop, &spec), Outcome::Stopped);
    assert_eq!(server.sh("exportfs -s | grep -c /agents || true").unwrap().trim(), "0");
}

#[test]
fn an_export_moves_with_its_file_system_under_a_client_that_has_a_file_open() {
    let place = tempfile::tempdir().unwrap();
    let shared = disk(place.path(), "shared", 64);
    sh(&format!("mkfs.ext4 -q {}", shared.display()));
    let ((a_end, to_a), (b_end, to_b)) = (wire(place.path()), wire(place.path()));
    let tools = ["exportfs", "rpc.nfsd", "rpc.mountd", "fsck.ext4"];
    let tools: Vec<&str> = tools.into_iter().chain(AGENT).collect();
    let server = |name: &str, end| MachineConfig {
        disks: vec![shared.clone()],
        wires: vec![end],
        ..config(name, &["nfsd"], &tools)
    };
    let client = MachineConfig { wires: vec![to_a, to_b], ..config("client", &["nfs", "nfsv4"], &["mount.nfs"]) };
    let mut machines = Machine::boot(&[server("a", a_end), server("b", b_end), client]).unwrap();
    let (mut client, mut b, mut a) = (machines.pop().unwrap(), machines.pop().unwrap(), machines.pop().unwrap());
    address(&mut a, "192.0.2.1");
    address(&mut b, "192.0.2.2");
    address(&mut client, "192.0.2.3");

    // Nothing serves.
    assert_eq!(carry_out(&mut a, Action::Start, &data()), Outcome::Running);
    assert_eq!(carry_out(&mut a, Action::Probe, &export("7")), Outcome::Stopped);
    let message = failed(carry_out(&mut a, Action::Start, &export("7")));
    assert!(message.contains("the NFS server does not run") && message.contains("enable --now"), "{message}");
    a.sh(NFSD).unwrap();
    b.sh(NFSD).unwrap();
    a.sh("mkdir /other && exportfs -i -o fsid=8 192.0.2.0/24:/other").unwrap();
    let message = failed(carry_out(&mut a, Action::Start, &export("8")));
    assert!(message.contains("nfsExport.fsid: 8 is that of /other already"), "{message}");

    start(&mut a);
    assert_eq!(carry_out(&mut a, Action::Start, &export("7")), Outcome::Running, "again");
    a.sh("exportfs -u 198.51.100.7:/srv/share").unwrap();
    let message = failed(carry_out(&mut a, Action::Monitor, &export("7")));
    assert!(message.contains("not exported to 198.51.100.7"), "{message}");
    assert_eq!(carry_out(&mut a, Action::Start, &export("7")), Outcome::Running, "half started");

    assert_eq!(carry_out(&mut client, Action::Start, &import()), Outcome::Running);
    assert_eq!(carry_out(&mut client, Action::Monitor, &import()), Outcome::Running);
    client
        .sh("(exec 3>/srv/in/log; while echo x >&3; do sleep 0.2; done) > /dev/null 2>&1 & echo $! > /run/writer")
        .unwrap();
    let length =
        |machine: &mut Machine| machine.sh("stat -c %s /srv/share/log").map(|text| text.parse::<u64>().unwrap());
    let grows = |machine: &mut Machine, from: u64| {
        wait_for("the client to write", Duration::from_secs(60), |last| {
            let now = length(machine).unwrap_or(0);
            *last = format!("{now} bytes");
            Ok((now > from).then_some(now))
        })
        .unwrap()
    };
    let written = grows(&mut a, 4);

    a.sh(&format!("ip addr del {ADDRESS}/24 dev eth0")).unwrap();
    assert_eq!(carry_out(&mut a, Action::Stop, &export("7")), Outcome::Stopped);
    assert_eq!(a.sh("exportfs -s | grep -c /srv/share || true").unwrap(), "0");
    // Though the client has a file open on it.
    assert_eq!(carry_out(&mut a, Action::Stop, &data()), Outcome::Stopped);
    assert_eq!(carry_out(&mut a, Action::Stop, &export("7")), Outcome::Stopped, "again");
    exported_by_an_agent(&mut a, &mut client);
    start(&mut b);
    grows(&mut b, written);
    client.sh("kill -0 $(cat /run/writer)").unwrap();
    assert_eq!(carry_out(&mut client, Action::Monitor, &import()), Outcome::Running);

    // A server that is gone does not keep the client's stop from ending.
    b.power_cut();
    client.sh("kill -9 $(cat /run/writer)").unwrap();
    assert_eq!(carry_out(&mut client, Action::Stop, &import()), Outcome::Stopped);
    assert_eq!(client.sh("grep -c /srv/in /proc/mounts || true").unwrap(), "0");
}

/// What the system of a server does at boot where exports have state directories: the records of clients are kept by ours.
const KEEPING: &str = "echo 'nfs 2049/tcp' > /etc/services; echo 'tcp tpi_cots_ord v inet tcp - -' > /etc/netconfig; \
    printf '[nfsd]\\nvers3=n\\nthreads=2\\n' > /etc/nfs.conf; \
    mkdir -p /var/lib/nfs /run/rpc_pipefs; touch /var/lib/nfs/etab /var/lib/nfs/rmtab; \
    mount -t rpc_pipefs sunrpc /run/rpc_pipefs; mount -t nfsd nfsd /proc/fs/nfsd; \
    echo 10 > /proc/fs/nfsd/nfsv4leasetime; echo 30 > /proc/fs/nfsd/nfsv4gracetime; rpc.mountd > /dev/null 2>&1";

/// As systemd starts the NFS server with our drop-in.
fn boot_nfsd(machine: &mut Machine) {
    let file = include_str!("../../manifests/systemd/nfs-server.service.d/holdfast.conf");
    let command = file.lines().filter_map(|line| line.strip_prefix("ExecStart=")).next_back().unwrap();
    machine.sh(&command.replace("/usr/bin/", "").replace("/usr/sbin/", "")).unwrap();
}

/// The process that keeps records; it waits for the kernel's pipe by itself.
fn keep_records(machine: &mut Machine) {
    machine.sh(&format!("{HANDS} nfs-clients > /run/records.log 2>&1 & echo $! > /run/records")).unwrap();
}

fn kept_export() -> Resource {
    let mut spec = export("7");
    spec.nfs_export.as_mut().unwrap().state_directory = Some("/srv/share/.nfs".into());
    spec
}

fn start_kept(machine: &mut Machine) {
    assert_eq!(carry_out(machine, Action::Start, &data()), Outcome::Running);
    assert_eq!(carry_out(machine, Action::Start, &kept_export()), Outcome::Running, "{}", records_log(machine));
    assert_eq!(carry_out(machine, Action::Monitor, &kept_export()), Outcome::Running);
    take(machine);
}

fn records_log(machine: &mut Machine) -> String {
    machine.sh("cat /run/records.log; dmesg | tail -n 30").unwrap()
}

/// On a client: locks a file and goes on writing to it.
fn hold(client: &mut Machine, file: &str) {
    let own = std::env::current_exe().unwrap();
    let run = format!("{} --exact hold_a_lock --ignored --nocapture > {} 2>&1 &", own.display(), log(file));
    client.sh(&format!("export FILE={file}; {run}")).unwrap();
}

/// Where the client's program says something; the file has the same name on client and server.
fn log(file: &str) -> String {
    format!("/run/{}.log", file.rsplit('/').next().unwrap())
}

/// The client's program goes on writing under its lock, and the server that serves now has the lock. Gives how much it has
/// written.
fn goes_on(client: &mut Machine, server: &mut Machine, file: &str, from: u64) -> u64 {
    let written = wait_for("the client to write under its lock", Duration::from_secs(90), |last| {
        *last = client.sh(&format!("cat {}", log(file)))?;
        assert!(!last.contains("lost"), "{file}: {last}");
        let length = server.sh(&format!("stat -c %s {file} || echo 0"))?.parse::<u64>().unwrap_or(0);
        Ok((length > from).then_some(length))
    })
    .unwrap_or_else(|error| {
        let client = client
            .sh("dmesg | tail -n 20; netstat -tn; for id in $(pgrep hold_a_lock); do cat /proc/$id/stack; done; true");
        panic!("{file}: {error}\nserver: {}\nclient: {client:?}", records_log(server))
    });
    step(server, "is_locked", &[("FILE", file)]);
    written
}

/// Two servers that share a disk, the second with a directory of its own, /own; a client of both, and one of the second.
struct Keeping {
    a: Machine,
    b: Machine,
    client: Machine,
    other: Machine,
    _place: tempfile::TempDir,
}

fn keeping() -> Keeping {
    let place = tempfile::tempdir().unwrap();
    let shared = disk(place.path(), "shared", 64);
    sh(&format!("mkfs.ext4 -q {}", shared.display()));
    let ((a_end, to_a), (b_end, to_b)) = (wire(place.path()), wire(place.path()));
    let (b_side, other_end) = wire(place.path());
    let server = |name: &str, wires| MachineConfig {
        disks: vec![shared.clone()],
        wires,
        ..config(name, &["nfsd"], &["exportfs", "rpc.nfsd", "rpc.mountd", "fsck.ext4"])
    };
    let client = |name: &str, wires| MachineConfig { wires, ..config(name, &["nfs", "nfsv4"], &["mount.nfs"]) };
    let machines = Machine::boot(&[
        server("a", vec![a_end]),
        server("b", vec![b_end, b_side]),
        client("client", vec![to_a, to_b]),
        client("other", vec![other_end]),
    ]);
    let [mut a, mut b, mut client, mut other] = <[Machine; 4]>::try_from(machines.unwrap()).unwrap();
    for (machine, own) in [(&mut a, 1), (&mut b, 2), (&mut client, 3), (&mut other, 4)] {
        address(machine, &format!("192.0.2.{own}"));
    }
    for machine in [&mut a, &mut b] {
        machine.sh(KEEPING).unwrap();
    }
    b.sh("mkdir /own && mount -t tmpfs none /own").unwrap();
    Keeping { a, b, client, other, _place: place }
}

/// How often the kernel's NFS server has begun with our records.
fn beginnings(machine: &mut Machine) -> String {
    machine.sh("dmesg | grep -c 'Using nfsdcld client tracking'").unwrap()
}

/// A client has a file open and locked while the export goes to the other server on purpose, and comes back because that
/// one loses its power. That server has an export of its own with a client of its own, which keeps its lock, too.
#[test]
fn a_lock_of_a_client_goes_with_the_state_directory() {
    let Keeping { mut a, mut b, mut client, mut other, _place } = keeping();
    // Without anybody who keeps records, it is said what to do.
    boot_nfsd(&mut a);
    assert_eq!(carry_out(&mut a, Action::Start, &data()), Outcome::Running);
    let message = failed(carry_out(&mut a, Action::Start, &kept_export()));
    assert!(message.contains("`holdfast nfs-clients` does not run on this server; put manifests/"), "{message}");
    a.sh("rpc.nfsd 0").unwrap();
    for machine in [&mut a, &mut b] {
        keep_records(machine);
        boot_nfsd(machine);
    }
    start_kept(&mut a);
    assert_eq!(carry_out(&mut a, Action::Start, &kept_export()), Outcome::Running, "again");
    assert_eq!(beginnings(&mut a), "2", "by the system, by the start, and not again");
    assert_eq!(a.sh("cat /proc/fs/nfsd/threads; hostname").unwrap(), "2\na");

    b.sh("exportfs -i -o rw,no_root_squash,fsid=8 192.0.2.4:/own").unwrap();
    other.sh("mkdir /mnt/own && mount.nfs 192.0.2.2:/own /mnt/own -o vers=4.2").unwrap();
    hold(&mut other, "/mnt/own/beside");
    let mut beside = goes_on(&mut other, &mut b, "/own/beside", 0);

    assert_eq!(carry_out(&mut client, Action::Start, &import()), Outcome::Running);
    hold(&mut client, "/srv/in/locked");
    let written = goes_on(&mut client, &mut a, LOCKED, 0);
    assert_eq!(a.sh("ls /srv/share/.nfs/current | wc -l").unwrap(), "1");

    a.sh(&format!("ip addr del {ADDRESS}/24 dev eth0")).unwrap();
    assert_eq!(carry_out(&mut a, Action::Stop, &kept_export()), Outcome::Stopped);
    assert_eq!(carry_out(&mut a, Action::Stop, &data()), Outcome::Stopped);
    start_kept(&mut b);
    let written = goes_on(&mut client, &mut b, LOCKED, written);
    beside = goes_on(&mut other, &mut b, "/own/beside", beside);

    // What keeps records may be replaced meanwhile.
    b.sh("kill $(cat /run/records)").unwrap();
    keep_records(&mut b);
    assert_eq!(carry_out(&mut b, Action::Monitor, &kept_export()), Outcome::Running);
    goes_on(&mut other, &mut b, "/own/beside", beside);
    b.power_cut();
    start_kept(&mut a);
    goes_on(&mut client, &mut a, LOCKED, written);

    // That is what the state directory is for.
    assert_eq!(carry_out(&mut a, Action::Stop, &kept_export()), Outcome::Stopped);
    assert_eq!(carry_out(&mut a, Action::Start, &export("7")), Outcome::Running);
    wait_for("the lock to be lost", Duration::from_secs(60), |last| {
        *last = client.sh(&format!("cat {}", log(LOCKED)))?;
        Ok(last.contains("lost: ").then_some(()))
    })
    .unwrap();
}

/// A machine with locks on exports of two servers keeps both when these exports meet, if it is two clients for a server.
#[test]
fn locks_of_one_machine_on_two_exports_that_meet_are_kept_with_nfs_4_0() {
    let Keeping { mut a, mut b, mut client, other: _other, _place } = keeping();
    for machine in [&mut a, &mut b] {
        // These clients don't say when they have reclaimed all.
        machine.sh("echo 10 > /proc/fs/nfsd/nfsv4gracetime").unwrap();
        keep_records(machine);
        boot_nfsd(machine);
    }
    b.sh("exportfs -i -o rw,no_root_squash,fsid=8 192.0.2.3:/own").unwrap();
    start_kept(&mut a);
    client.sh("mkdir -p /mnt/own /srv/in").unwrap();
    for (from, to) in [("192.0.2.2:/own", "/mnt/own"), ("192.0.2.10:/srv/share", "/srv/in")] {
        client.sh(&format!("mount.nfs {from} {to} -o vers=4.0")).unwrap();
    }
    hold(&mut client, "/mnt/own/beside");
    hold(&mut client, "/srv/in/locked");
    goes_on(&mut client, &mut b, "/own/beside", 0);
    let written = goes_on(&mut client, &mut a, LOCKED, 0);

    a.sh(&format!("ip addr del {ADDRESS}/24 dev eth0")).unwrap();
    assert_eq!(carry_out(&mut a, Action::Stop, &kept_export()), Outcome::Stopped);
    assert_eq!(carry_out(&mut a, Action::Stop, &data()), Outcome::Stopped);
    let beside = b.sh("stat -c %s /own/beside").unwrap().parse().unwrap();
    start_kept(&mut b);
    goes_on(&mut client, &mut b, LOCKED, written);
    goes_on(&mut client, &mut b, "/own/beside", beside);
}

/// What the client has locked, as the server sees it.
const LOCKED: &str = "/srv/share/locked";

/// Locks FILE and appends to it for ever; ends with a word when the lock is lost.
#[test]
#[ignore = "a step: run inside a virtual machine by the test that needs it"]
fn hold_a_lock() {
    let mut file = std::fs::File::create(given("FILE")).unwrap();
    fcntl(&file, FcntlArg::F_SETLK(&whole(libc::F_WRLCK))).unwrap();
    loop {
        if let Err(error) = file.write_all(b"x").and_then(|()| file.sync_all()) {
            println!("lost: {error}");
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// FILE is locked, which is asked and not tried: to take the lock would be in the way of a client that reclaims it.
#[test]
#[ignore = "a step: run inside a virtual machine by the test that needs it"]
fn is_locked() {
    let path = given("FILE");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    wait_for(&format!("the lock of {path}"), Duration::from_secs(60), |last| {
        let mut lock = whole(libc::F_WRLCK);
        fcntl(&file, FcntlArg::F_GETLK(&mut lock)).unwrap();
        *last = format!("{lock:?}");
        Ok((i32::from(lock.l_type) == libc::F_WRLCK).then_some(()))
    })
    .unwrap();
}

fn whole(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

#[test]
fn the_guard_ends_an_export_and_unmounts_what_a_client_has_open() {
    let place = tempfile::tempdir().unwrap();
    let own = disk(place.path(), "own", 64);
    sh(&format!("mkfs.ext4 -q {}", own.display()));
    let tools = ["exportfs", "rpc.nfsd", "rpc.mountd", "fsck.ext4", "mount.nfs"];
    let a = MachineConfig { disks: vec![own], ..config("a", &["nfsd", "nfsv4"], &tools) };
    let mut a = Machine::boot(&[a]).unwrap().remove(0);
    a.sh(KEEPING).unwrap();
    keep_records(&mut a);
    boot_nfsd(&mut a);
    step(&mut a, "stranded", &[]);
    assert_eq!(a.sh("ls /run/holdfast-nfs/directories | wc -l").unwrap(), "0", "nothing is recorded there any more");
    a.sh("mount /dev/vda /srv/share && grep . /srv/share/.nfs/current/*").unwrap();
}

/// A file system that is exported to a client here, which has a file open, an agent that is frozen, and a deadline.
#[test]
#[ignore = "a step: run inside a virtual machine by the test that needs it"]
fn stranded() {
    let stranded = Stranded::new();
    let own = resource(serde_json::json!({"name": "export", "nfsExport": {"path": "/srv/share", "fsid": "7",
        "clients": [{"network": "127.0.0.1", "options": "rw,no_root_squash,insecure"}], "stateDirectory": "/srv/share/.nfs"}}));
    for spec in [data(), own] {
        let limit = spec.start_timeout();
        assert_eq!(stranded.server.run_within(Action::Start, &spec, limit), Outcome::Running, "{}", spec.name);
    }
    sh("mount.nfs 127.0.0.1:/srv/share /mnt -o vers=4.2");
    let open = std::fs::File::create("/mnt/file").unwrap();
    stranded.end();
    assert!(!std::fs::read_to_string("/proc/mounts").unwrap().contains("/dev/vda"));
    assert_eq!(sh("exportfs -s"), "");
    std::mem::forget(open);
}

#[test]
#[ignore = "a step: run inside a virtual machine by the test that needs it"]
fn operate() {
    carry_out_inside();
}
