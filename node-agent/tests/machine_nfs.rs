//! Exports of the kernel's NFS server and mounts of its client, on virtual machines: two servers that share a disk, and a
//! client that keeps a file open while the export goes from one to the other.

mod common;

use std::time::Duration;

use common::machines::{Stranded, carry_out, carry_out_inside, config, disk, step};
use common::{failed, resource, sh};
use holdfast_api::v1::Resource;
use holdfast_core::{Action, Outcome};
use holdfast_lab::{Machine, MachineConfig, wait_for, wire};

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

#[test]
fn the_guard_ends_an_export_and_unmounts_what_a_client_has_open() {
    let place = tempfile::tempdir().unwrap();
    let own = disk(place.path(), "own", 64);
    sh(&format!("mkfs.ext4 -q {}", own.display()));
    let tools = ["exportfs", "rpc.nfsd", "rpc.mountd", "fsck.ext4", "mount.nfs"];
    let a = MachineConfig { disks: vec![own], ..config("a", &["nfsd", "nfsv4"], &tools) };
    let mut a = Machine::boot(&[a]).unwrap().remove(0);
    a.sh(NFSD).unwrap();
    step(&mut a, "stranded", &[]);
}

/// A file system that is exported to a client here, which has a file open, an agent that is frozen, and a deadline.
#[test]
#[ignore = "a step: run inside a virtual machine by the test that needs it"]
fn stranded() {
    let stranded = Stranded::new();
    let own = resource(serde_json::json!({"name": "export", "nfsExport": {"path": "/srv/share", "fsid": "7",
        "clients": [{"network": "127.0.0.1", "options": "rw,no_root_squash,insecure"}]}}));
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
