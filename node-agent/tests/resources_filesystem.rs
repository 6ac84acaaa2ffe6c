//! File systems on real loop devices, in a mount namespace of the test's own.

mod common;

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::{Disk, Server, failed, own_mounts, resource, sh};
use holdfast_api::v1::Resource;
use holdfast_core::{Action, Outcome};

fn filesystem(device: &str, point: &Path, kind: &str, holders: &str) -> Resource {
    resource(serde_json::json!({
        "name": "data",
        "filesystem": {"device": device, "mountPoint": point, "type": kind, "options": ["noatime"], "holders": holders},
    }))
}

fn mounted(point: &Path) -> bool {
    std::fs::read_to_string("/proc/thread-self/mounts").unwrap().contains(&format!(" {} ", point.display()))
}

/// A process outside of the group that has its working directory there.
struct Holder(Child);

impl Holder {
    fn in_directory(point: &Path) -> Holder {
        Holder(Command::new("sleep").arg("300").current_dir(point).spawn().unwrap())
    }

    fn ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_type_is_mounted_tested_and_unmounted() {
    own_mounts();
    let server = Server::new();
    let place = tempfile::tempdir().unwrap();
    for (kind, make, megabytes) in
        [("ext4", "mkfs.ext4 -q", 32), ("xfs", "mkfs.xfs -q", 320), ("btrfs", "mkfs.btrfs -q", 128)]
    {
        let disk = Disk::new(megabytes, make);
        let point = place.path().join(kind);
        let spec = filesystem(&disk.device, &point, kind, "GroupOnly");
        assert_eq!(server.run(Action::Probe, &spec), Outcome::Stopped, "{kind}");
        let began = Instant::now();
        assert_eq!(server.run(Action::Start, &spec), Outcome::Running, "{kind}");
        println!("{kind}: start {:?}", began.elapsed());
        assert!(mounted(&point));
        std::fs::write(point.join("file"), kind).unwrap();
        assert_eq!(server.run(Action::Start, &spec), Outcome::Running, "{kind}: again");
        assert_eq!(server.run(Action::Monitor, &spec), Outcome::Running, "{kind}");
        let began = Instant::now();
        assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped, "{kind}");
        println!("{kind}: stop {:?}", began.elapsed());
        assert!(!mounted(&point));
        assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped, "{kind}: again");
        server.executor.borrow().released(&common::GROUP.into());
    }
}

#[test]
fn a_bind_mount_ends_without_touching_what_it_shows() {
    own_mounts();
    let server = Server::new();
    let place = tempfile::tempdir().unwrap();
    let shown = place.path().join("shown");
    std::fs::create_dir(&shown).unwrap();
    let point = place.path().join("bound");
    // Uses the file system that the bind mount is on, but not the bind mount.
    let mut bystander = Holder::in_directory(&shown);
    let spec = filesystem(&shown.display().to_string(), &point, "bind", "Any");
    assert_eq!(server.run(Action::Start, &spec), Outcome::Running);
    let mut user = Holder::in_directory(&point);
    std::fs::write(point.join("file"), "x").unwrap();
    assert!(shown.join("file").exists());
    assert_eq!(server.run(Action::Stop, &spec), Outcome::Stopped);
    assert!(!mounted(&point));
    assert!(user.ended(), "a holder of the bind mount was not ended");
    assert!(!bystander.ended(), "a process that only shares the device was ended");
}

#[test]
fn a_busy_file_system_names_its_holder_and_policy_decides_who_is_ended() {
    own_mounts();
    let server = Server::new();
    let place = tempfile::tempdir().unwrap();
    let point = place.path().join("data");
    let disk = Disk::new(32, "mkfs.ext4 -q");
    let careful = filesystem(&disk.device, &point, "ext4", "GroupOnly");
    assert_eq!(server.run(Action::Start, &careful), Outcome::Running);
    let mut foreign = Holder::in_directory(&point);
    let message = failed(server.run_within(Action::Stop, &careful, Duration::from_secs(5)));
    let pid = foreign.0.id();
    assert!(message.contains(&format!("{pid} (sleep")) && message.contains("working directory"), "{message}");
    assert!(message.contains("not the group's"), "{message}");
    assert!(mounted(&point) && !foreign.ended());
    server.executor.borrow().released(&common::GROUP.into());

    let thorough = filesystem(&disk.device, &point, "ext4", "Any");
    assert_eq!(server.run(Action::Start, &thorough), Outcome::Running);
    assert_eq!(server.run(Action::Stop, &thorough), Outcome::Stopped);
    assert!(!mounted(&point) && foreign.ended());
}

#[test]
fn a_process_of_the_group_is_ended_by_the_stop_of_its_file_system() {
    own_mounts();
    let server = Server::new();
    let place = tempfile::tempdir().unwrap();
    let point = place.path().join("data");
    let disk = Disk::new(32, "mkfs.ext4 -q");
    let data = filesystem(&disk.device, &point, "ext4", "GroupOnly");
    assert_eq!(server.run(Action::Start, &data), Outcome::Running);
    let script = format!("exec 3>{}/open; trap '' TERM; while :; do sleep 1; done", point.display());
    let app = resource(serde_json::json!({"name": "app", "process": {"command": ["/bin/sh", "-c", script]}}));
    assert_eq!(server.run(Action::Start, &app), Outcome::Running);
    assert_eq!(server.run(Action::Stop, &data), Outcome::Stopped);
    assert!(!mounted(&point));
}

#[test]
fn a_mount_that_lives_on_in_another_namespace_is_not_stopped() {
    own_mounts();
    let server = Server::new();
    let place = tempfile::tempdir().unwrap();
    let point = place.path().join("data");
    let disk = Disk::new(32, "mkfs.ext4 -q");
    let data = filesystem(&disk.device, &point, "ext4", "Any");
    assert_eq!(server.run(Action::Start, &data), Outcome::Running);
    let other = Holder(Command::new("unshare").args(["--mount", "sleep", "300"]).spawn().unwrap());
    let own = std::fs::read_link("/proc/thread-self/ns/mnt").unwrap();
    let theirs = format!("/proc/{}/ns/mnt", other.0.id());
    common::eventually("the other namespace exists", Duration::from_secs(5), || {
        std::fs::read_link(&theirs).is_ok_and(|ns| ns != own)
    });
    let message = failed(server.run(Action::Stop, &data));
    assert!(message.contains("another mount namespace") && message.contains(&other.0.id().to_string()), "{message}");
    drop(other);
    assert_eq!(server.run(Action::Stop, &data), Outcome::Stopped);
}

#[test]
fn what_can_not_be_mounted_says_why() {
    own_mounts();
    let server = Server::new();
    let place = tempfile::tempdir().unwrap();
    let point = place.path().join("data");
    let absent = filesystem("/dev/disk/by-id/none", &point, "ext4", "Any");
    assert!(failed(server.run(Action::Start, &absent)).contains("/dev/disk/by-id/none"));
    let file = place.path().join("image");
    std::fs::write(&file, "x").unwrap();
    let no_device = filesystem(&file.display().to_string(), &point, "ext4", "Any");
    assert!(failed(server.run(Action::Start, &no_device)).contains("not a block device"));
    let disk = Disk::new(32, "mkfs.ext4 -q");
    let mut options = filesystem(&disk.device, &point, "ext4", "Any");
    options.filesystem.as_mut().unwrap().options = vec!["nonsense=1".to_owned()];
    assert!(failed(server.run(Action::Start, &options)).contains("options"));
    // An error that fsck must not repair by itself: the start of the inode table is overwritten.
    sh(&format!(
        "debugfs -w -R 'clri <2>' {} 2>/dev/null; debugfs -w -R 'set_super_value state 2' {0} 2>/dev/null",
        disk.device
    ));
    let broken = filesystem(&disk.device, &point, "ext4", "Any");
    let message = failed(server.run(Action::Start, &broken));
    assert!(message.contains("repair the file system by hand"), "{message}");
    assert!(!mounted(&point));
}

/// Names in a directory, without looking at what they name.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_file_system_is_checked_before_it_is_mounted_as_the_policy_says() {
    own_mounts();
    let server = Server::new();
    let place = tempfile::tempdir().unwrap();
    let point = place.path().join("data");
    let with = |disk: &Disk, kind: &str, policy: &str| {
        let spec = resource(serde_json::json!({"name": "data", "filesystem":
            {"device": disk.device, "mountPoint": point, "type": kind, "fsck": policy}}));
        assert_eq!(server.run(Action::Start, &spec), Outcome::Running, "{kind} {policy}");
        spec
    };
    let stop = |spec: &Resource| assert_eq!(server.run(Action::Stop, spec), Outcome::Stopped);

    // Damage that the file system does not know of: it was unmounted cleanly, so a quick check sees nothing.
    let disk = Disk::new(32, "mkfs.ext4 -q");
    let spec = with(&disk, "ext4", "Never");
    std::fs::write(point.join("file"), "x").unwrap();
    stop(&spec);
    sh(&format!("debugfs -w -R 'clri file' {} 2>/dev/null", disk.device));
    for (policy, there) in [("Never", true), ("Auto", true), ("Always", false)] {
        let spec = with(&disk, "ext4", policy);
        assert_eq!(names(&point).contains(&"file".to_owned()), there, "{policy}");
        stop(&spec);
    }

    let disk = Disk::new(320, "mkfs.xfs -q");
    let free = || {
        let text = sh(&format!("xfs_db -r -c 'sb 0' -c 'p fdblocks' {}", disk.device));
        text.trim().rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let right = free();
    sh(&format!("xfs_db -x -c 'sb 0' -c 'write fdblocks {}' {} >/dev/null", right / 2, disk.device));
    for (policy, corrected) in [("Never", false), ("Auto", false), ("Always", true)] {
        stop(&with(&disk, "xfs", policy));
        assert_eq!(free() > right * 9 / 10, corrected, "{policy}: {} free of {right}", free());
    }

    // It is only looked at; what is found is for people.
    let disk = Disk::new(128, "mkfs.btrfs -q");
    for policy in ["Never", "Auto", "Always"] {
        stop(&with(&disk, "btrfs", policy));
    }
}

#[test]
fn a_full_file_system_is_no_failure_and_one_that_became_read_only_is() {
    own_mounts();
    let server = Server::new();
    let place = tempfile::tempdir().unwrap();
    let point = place.path().join("data");
    let disk = Disk::new(32, "mkfs.ext4 -q -m 0");
    let data = filesystem(&disk.device, &point, "ext4", "Any");
    assert_eq!(server.run(Action::Start, &data), Outcome::Running);
    let _ = Command::new("dd").args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}/fill", point.display())).output();
    assert_eq!(server.run(Action::Monitor, &data), Outcome::Running);
    sh(&format!("mount -o remount,ro {}", point.display()));
    assert!(failed(server.run(Action::Monitor, &data)).contains("read-only"));
    assert_eq!(server.run(Action::Stop, &data), Outcome::Stopped);
}
