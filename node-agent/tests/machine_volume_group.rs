//! Volume groups with the real LVM and the real device-mapper, on virtual machines that share a disk.

mod common;

use std::path::Path;

use common::machines::{Stranded, carry_out, carry_out_inside, config, disk, given, step};
use common::{failed, resource, sh};
use holdfast_api::v1::Resource;
use holdfast_core::{Action, Outcome};
use holdfast_lab::{Machine, MachineConfig};

fn volume_group(uuid: &str, more: &serde_json::Value) -> Resource {
    let mut group = serde_json::json!({"uuid": uuid, "name": "tank"});
    group.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    resource(serde_json::json!({"name": "lvm", "volumeGroup": group}))
}

fn server(name: &str, disks: &[&Path]) -> MachineConfig {
    let disks = disks.iter().map(|disk| disk.to_path_buf()).collect();
    MachineConfig { disks, ..config(name, &["dm_mod", "dm_snapshot"], &["lvm", "dmsetup", "mkfs.ext4", "fsck.ext4"]) }
}

fn boot(configs: &[MachineConfig]) -> Vec<Machine> {
    let mut machines = Machine::boot(configs).unwrap();
    for machine in &mut machines {
        let name = machine.name().to_owned();
        machine
            .sh(&format!(
                "mkdir -p /etc/lvm
                 # No udev here.
                 echo 'activation {{ udev_sync = 0 udev_rules = 0 }}' > /etc/lvm/lvm.conf
                 echo 'global {{ system_id_source = \"lvmlocal\" }} local {{ system_id = \"{name}\" }}' > /etc/lvm/lvmlocal.conf
                 for tool in vgs lvs pvs vgcreate pvcreate lvcreate vgchange lvchange; do ln -s lvm /bin/$tool; done"
            ))
            .unwrap();
    }
    machines
}

/// Makes the volume group `tank` with the volume `data`; gives its UUID.
fn make(machine: &mut Machine, devices: &str) -> String {
    machine.sh(&format!("vgcreate -qq tank {devices}; lvcreate -qq -Wn -L 16M -n data tank")).unwrap();
    let uuid = machine.sh("vgs --noheadings -o vg_uuid tank").unwrap();
    machine.sh("vgchange -an tank").unwrap();
    uuid
}

/// Volumes that the kernel has.
fn active(machine: &mut Machine) -> String {
    machine.sh("cat /sys/block/dm-*/dm/name 2>/dev/null | sort | tr '\\n' ' '").unwrap()
}

const WRITE: &str = "mount /dev/tank/data /mnt && echo kept > /mnt/file && umount /mnt";
const READ: &str = "mount /dev/tank/data /mnt && cat /mnt/file && umount /mnt";

#[test]
fn a_volume_group_goes_from_server_to_server_with_what_was_written_and_only_by_holdfast() {
    let place = tempfile::tempdir().unwrap();
    let (shared, local) = (disk(place.path(), "shared", 64), disk(place.path(), "local", 8));
    // The shared disk is the second one of a and the first one of b.
    let configs = [server("a", &[&local, &shared]), server("b", &[&shared, &local])];
    let mut machines = boot(&configs);
    let (mut b, mut a) = (machines.pop().unwrap(), machines.pop().unwrap());

    let nowhere = volume_group("abcdef-ghij-klmn-opqr-stuv-wxyz-012345", &serde_json::json!({}));
    assert_eq!(carry_out(&mut a, Action::Probe, &nowhere), Outcome::Stopped);
    let message = failed(carry_out(&mut a, Action::Start, &nowhere));
    assert!(message.contains("no disk of this server has volume group tank (abcdef-ghij-"), "{message}");

    let spec = volume_group(&make(&mut a, "/dev/vdb"), &serde_json::json!({}));
    let message = failed(carry_out(&mut b, Action::Start, &spec));
    assert!(message.contains("system id \"a\", which did not get it from Holdfast"), "{message}");

    assert_eq!(carry_out(&mut a, Action::Probe, &spec), Outcome::Stopped);
    assert_eq!(carry_out(&mut a, Action::Start, &spec), Outcome::Running);
    assert_eq!(carry_out(&mut a, Action::Start, &spec), Outcome::Running, "again");
    assert_eq!(active(&mut a), "tank-data");
    a.sh("mkfs.ext4 -q /dev/tank/data").unwrap();
    a.sh(WRITE).unwrap();
    // LVM itself respects the owner.
    assert!(b.sh("vgchange -ay tank").is_err());
    assert_eq!(active(&mut b), "");

    a.sh("mount /dev/tank/data /mnt").unwrap();
    let message = failed(carry_out(&mut a, Action::Stop, &spec));
    assert!(message.contains("tank-data, in use by /mnt"), "{message}");
    a.sh("umount /mnt; lvcreate -qq -Wn -L 4M -n logs tank; lvchange -an tank/logs").unwrap();
    let message = failed(carry_out(&mut a, Action::Monitor, &spec));
    assert!(message.contains("these volumes are not active: logs"), "{message}");
    assert_eq!(carry_out(&mut a, Action::Start, &spec), Outcome::Running, "half started");
    assert_eq!(active(&mut a), "tank-data tank-logs");

    a.power_cut();
    assert_eq!(carry_out(&mut b, Action::Probe, &spec), Outcome::Stopped);
    assert_eq!(carry_out(&mut b, Action::Start, &spec), Outcome::Running);
    assert_eq!(b.sh(READ).unwrap(), "kept");
    let fields = "vgs --noheadings --separator / -o vg_systemid,vg_tags,vg_autoactivation tank";
    assert_eq!(b.sh(fields).unwrap(), "b/holdfast-b/");

    // The one that was cut off comes back: nothing there touches what is another server's now, at boot or later.
    let mut a = boot(&[server("a", &[&shared, &local])]).remove(0);
    a.sh("vgchange -aay || true").unwrap();
    assert_eq!((active(&mut a), active(&mut b)), (String::new(), "tank-data tank-logs".into()));
    assert_eq!(carry_out(&mut a, Action::Probe, &spec), Outcome::Stopped);
    assert_eq!(carry_out(&mut b, Action::Stop, &spec), Outcome::Stopped);
    assert_eq!(carry_out(&mut b, Action::Stop, &spec), Outcome::Stopped, "again");
    assert_eq!(active(&mut b), "");
    // Even its owner does not activate it by itself.
    b.sh("vgchange -aay || true").unwrap();
    assert_eq!(active(&mut b), "");
    assert_eq!(carry_out(&mut a, Action::Start, &spec), Outcome::Running);
    assert_eq!(a.sh(READ).unwrap(), "kept");

    // Somebody takes it by force while it is in use here: noticed, and nothing of it is left after the stop.
    b.sh("vgchange -y --config 'local/extra_system_ids=[\"a\"]' --systemid b tank").unwrap();
    let message = failed(carry_out(&mut a, Action::Monitor, &spec));
    assert!(message.contains("are active here, but") && message.contains("belongs to b now"), "{message}");
    assert_eq!(carry_out(&mut a, Action::Stop, &spec), Outcome::Stopped);
    assert_eq!(active(&mut a), "");
}

#[test]
fn tags_say_who_owns_it_and_missing_disks_are_used_only_when_allowed() {
    let place = tempfile::tempdir().unwrap();
    let (one, two) = (disk(place.path(), "one", 64), disk(place.path(), "two", 64));
    let mut a = boot(&[server("a", &[&one, &two])]).remove(0);
    // No system id.
    a.sh("rm /etc/lvm/lvmlocal.conf").unwrap();
    let uuid = make(&mut a, "/dev/vda /dev/vdb");
    let by_id = volume_group(&uuid, &serde_json::json!({}));
    let message = failed(carry_out(&mut a, Action::Start, &by_id));
    assert!(message.contains("this server has no LVM system id"), "{message}");
    let by_tag = volume_group(&uuid, &serde_json::json!({"exclusive": "Tag"}));
    a.sh("vgchange -qq --addtag holdfast-db2 tank").unwrap();
    assert_eq!(carry_out(&mut a, Action::Start, &by_tag), Outcome::Running);
    assert_eq!(a.sh("vgs --noheadings -o vg_tags tank").unwrap(), "holdfast-db1");
    assert_eq!(carry_out(&mut a, Action::Stop, &by_tag), Outcome::Stopped);

    drop(a);
    let mut a = boot(&[server("a", &[&one])]).remove(0);
    a.sh("rm /etc/lvm/lvmlocal.conf").unwrap();
    let message = failed(carry_out(&mut a, Action::Start, &by_tag));
    assert!(message.contains("1 of its disks can't be found") && message.contains("allowPartial"), "{message}");
    let partial = volume_group(&uuid, &serde_json::json!({"exclusive": "Tag", "allowPartial": true}));
    assert_eq!(carry_out(&mut a, Action::Start, &partial), Outcome::Running);
    assert_eq!(active(&mut a), "tank-data");
}

#[test]
fn the_guard_takes_volumes_away_after_their_file_systems() {
    let place = tempfile::tempdir().unwrap();
    let shared = disk(place.path(), "shared", 64);
    let mut a = boot(&[server("a", &[&shared])]).remove(0);
    let uuid = make(&mut a, "/dev/vda");
    step(&mut a, "stranded", &[("VG", &uuid)]);
    assert_eq!(active(&mut a), "");
    assert_eq!(a.sh("grep -c tank /proc/mounts || true").unwrap(), "0");
}

#[test]
#[ignore = "a step: run inside a virtual machine by the tests that need it"]
fn operate() {
    carry_out_inside();
}

/// A file system on a volume, an agent that is frozen, and a deadline.
#[test]
#[ignore = "a step: run inside a virtual machine by the test that needs it"]
fn stranded() {
    let stranded = Stranded::new();
    let server = &stranded.server;
    let volumes = volume_group(&given("VG"), &serde_json::json!({}));
    assert_eq!(server.run_within(Action::Start, &volumes, volumes.start_timeout()), Outcome::Running);
    sh("mkfs.ext4 -q /dev/tank/data");
    let data = resource(serde_json::json!({
        "name": "data", "filesystem": {"device": "/dev/tank/data", "mountPoint": "/srv/data", "type": "ext4"}}));
    assert_eq!(server.run(Action::Start, &data), Outcome::Running);
    sh("echo x > /srv/data/file");

    stranded.end();
    assert!(!std::fs::read_to_string("/proc/mounts").unwrap().contains("/srv/data"));
}
