//! A server loses its power.

use holdfast_lab::{boottime_ns, wait_for};

use crate::harness::{GROUP, LIMIT, Trial};

#[test]
fn power_cut_of_the_standby_server_does_not_touch_the_group() {
    let trial = Trial::two("power-standby");
    let active = trial.active();
    let standby = trial.others(&active);
    let epoch = trial.epoch();
    let before = boottime_ns();
    trial.cluster.power_cut(&standby[0]).expect("a power cut");
    trial.members_become(std::slice::from_ref(&active), epoch);
    trial.undisturbed_since(before);
    assert_eq!(trial.history(), std::slice::from_ref(&active));
    // What the agent answers to Prometheus on that server is the same story.
    let other = &standby[0];
    for line in [
        format!("holdfast_path_up{{path=\"ic\",peer=\"{other}\"}} 0.0"),
        "holdfast_lease_held 1.0".to_owned(),
        "holdfast_coordinator 1.0".to_owned(),
        format!("holdfast_agent_group_phase{{group=\"{GROUP}\",phase=\"Online\"}} 1.0"),
        format!("holdfast_group_transitions_total{{group=\"{GROUP}\"}} 1.0"),
    ] {
        wait_for(&line, LIMIT, |seen| {
            *seen =
                trial.host(&active).exec(&["curl", "--silent", "--max-time", "2", "http://127.0.0.1:9797/metrics"])?;
            Ok(seen.lines().any(|shown| shown == line).then_some(()))
        })
        .expect("a metric");
    }
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn the_survivor_reads_the_disk_anew_although_somebody_there_keeps_it_open() {
    let trial = Trial::two("held-open");
    let victim = trial.active();
    let standby = trial.others(&victim);
    let device = trial.cluster.blueprint().disks.iter().find(|disk| disk.file_system.is_some()).expect("a data disk");
    // As a volume manager or a disk monitor does: reads all of the disk through the cache and stays on it.
    let script = format!("exec 3<{}; cat <&3 >/dev/null; echo read; exec sleep 1000", device.device.display());
    let mut holder = trial.host(&standby[0]).command(&["sh", "-c", &script]).expect("a command");
    let mut holder = holder.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let output = holder.stdout.take().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("it has read the disk");
    assert_eq!(line.trim(), "read");
    let before = boottime_ns();
    trial.cluster.power_cut(&victim).expect("a power cut");
    let survivor = trial.served_by(&standby, before);
    trial.cluster.wait_online(GROUP, Some(&survivor), LIMIT).expect("the status follows");
    assert_eq!(trial.history(), [victim, survivor]);
    trial.cluster.close().expect("the lab goes");
    holder.wait().expect("it ended with its host");
}
