//! Virtual machines: what a test says to one and hears from it, and that none is left behind.

use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_lab::{Machine, MachineConfig, wire};

fn config(name: &str) -> MachineConfig {
    MachineConfig { name: name.into(), ..MachineConfig::default() }
}

/// Processes of QEMU whose command line has this text.
fn running(text: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let lines = entries.flatten().filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.starts_with(b"/") && String::from_utf8_lossy(line).contains(text)).count()
}

#[test]
fn machines_share_a_disk_and_a_wire_and_answer_with_exit_codes_and_both_outputs() {
    let place = std::env::temp_dir().join(format!("holdfast-machine-test-{}", std::process::id()));
    std::fs::create_dir_all(&place).expect("a directory");
    let disk = place.join("disk");
    std::fs::File::create(&disk).and_then(|file| file.set_len(1 << 20)).expect("an image");
    let (left, right) = wire(&place);
    let one = MachineConfig { disks: vec![disk.clone()], wires: vec![left], ..config("one") };
    let two = MachineConfig { disks: vec![disk], wires: vec![right], ..config("two") };
    let mut machines = Machine::boot(&[one, two]).expect("two machines");
    let (mut two, mut one) = (machines.pop().expect("two"), machines.pop().expect("one"));

    let ended = one.script("hostname; echo oops >&2; exit 3", Duration::from_secs(20)).expect("an answer");
    assert_eq!((ended.code, ended.output.as_str(), ended.errors.as_str()), (3, "one\n", "oops\n"));
    one.sh("echo over the disk | dd of=/dev/vda conv=fsync").expect("a write");
    assert_eq!(two.sh("head -c 13 /dev/vda").expect("a read"), "over the disk");
    one.sh("ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up").expect("an address");
    two.sh("ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up").expect("an address");
    two.sh("ping -c 1 -W 20 192.0.2.1").expect("an answer over the wire");

    let began = Instant::now();
    let error = two.script("sleep 100", Duration::from_secs(1)).expect_err("too long").to_string();
    assert!(error.contains("has not answered in time") && began.elapsed() < Duration::from_secs(5), "{error}");
    one.power_cut();
    assert!(one.sh("true").expect_err("it is off").to_string().contains("it is off"));
    std::fs::remove_dir_all(Path::new(&place)).expect("it goes");
}

#[test]
fn a_test_that_panics_leaves_no_machine() {
    let name = format!("host=panic-{}", std::process::id());
    let machine = name.trim_start_matches("host=").to_owned();
    let (seen, told) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let _machines = Machine::boot(&[config(&machine)]).expect("a machine");
        seen.send(running(&format!("host={machine}"))).expect("a listener");
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!(told.recv(), Ok(1), "it was there");
    assert_eq!(running(&name), 0);
}
