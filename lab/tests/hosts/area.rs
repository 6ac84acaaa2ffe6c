//! The cluster area on a shared disk: on the data disk itself, on large sectors, and against a careless format.

use holdfast_lab::boottime_ns;

use crate::harness::{GROUP, LIMIT, Trial};

#[test]
fn with_the_lock_behind_the_file_system_of_a_disk_of_4096_byte_sectors_one_server_takes_over() {
    let trial = Trial::two_on_one_disk("area-behind", 4096);
    let victim = trial.active();
    let standby = trial.others(&victim);
    let sectors = trial.host(&victim).exec(&["blockdev", "--getss", "/dev/holdfast/data"]).expect("its sector size");
    assert_eq!(sectors.trim(), "4096");
    let before = boottime_ns();
    trial.cluster.power_cut(&victim).expect("a power cut");
    let survivor = trial.served_by(&standby, before);
    trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("the status follows");
    trial.cluster.power_on(&victim).expect("power");
    trial.all_return(trial.epoch());
    assert_eq!(trial.history(), [victim, survivor.clone()]);

    // The file system passed its check before the second mount and has every line; the lock has the taker's record.
    let area = ["holdfast", "disk", "inspect", "--device", "/dev/holdfast/data", "--offset", "50331648"];
    let shown = trial.host(&survivor).exec(&area).expect("the area is readable");
    assert!(shown.contains("newest view") && !shown.contains("DAMAGED"), "{shown}");
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn the_area_of_a_running_sub_cluster_is_not_formatted() {
    let trial = Trial::two("area-live");
    let active = trial.active();
    let host = trial.host(&active);
    let inspect = ["holdfast", "disk", "inspect", "--device", "/dev/holdfast/area"];
    let identity = |text: &str| text.split_whitespace().nth(1).unwrap_or_default().trim_end_matches(',').to_string();
    let before = identity(&host.exec(&inspect).expect("the area is readable"));
    let format = ["holdfast", "disk", "format", "--device", "/dev/holdfast/area", "--overwrite"];
    let refusal = host.exec(&format).expect_err("it is in use").to_string();
    assert!(refusal.contains("is used by") && refusal.contains(&format!("--discard-lock {before}")), "{refusal}");
    assert_eq!(identity(&host.exec(&inspect).expect("the area is readable")), before);
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}
