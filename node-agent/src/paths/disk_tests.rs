//! The disk's thread against a file.

use std::sync::mpsc;

use holdfast_core::config::LockKind;
use holdfast_core::lock::LockRecord;
use holdfast_core::settings::LockPlace;

use super::*;
use crate::disk::format::{Force, format};
use crate::disk::layout::tests::record;
use crate::testing::{frame, keys, wait};

fn start(me: &str, device: &std::path::Path) -> (SharedDisk, mpsc::Receiver<Event>, Keys) {
    let wiring = DiskWiring {
        disk: "san1".into(),
        device: device.to_owned(),
        offset: 0,
        path: Some("area".into()),
        wire: 0,
        lock: Some(LockPlace { kind: LockKind::Disk, place: 1 }),
        slots: [("a".into(), 1), ("b".into(), 2)].into(),
    };
    let (inbox, events) = Inbox::new();
    let keys = keys(1);
    (SharedDisk::start(&me.into(), wiring, keys.clone(), Seen::default(), inbox).unwrap(), events, keys)
}

fn sealed(keys: &Keys, from: &str, sequence: u64) -> Vec<u8> {
    let content = postcard::to_stdvec(&frame(from, sequence)).unwrap();
    keys.current().unwrap().seal(Kind::Frame, "area", &content).unwrap()
}

fn input(events: &mpsc::Receiver<Event>) -> Input {
    match events.recv_timeout(Duration::from_secs(20)) {
        Ok(Event::Input(input)) => input,
        other => panic!("{other:?}"),
    }
}

fn disk() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(2 << 20).unwrap();
    file
}

#[test]
fn heartbeats_pass_over_the_disk_once_each_and_only_from_the_right_slot() {
    let file = disk();
    format(file.path(), 0, Force::No).unwrap();
    let (a, at_a, keys_a) = start("a", file.path());
    let (b, at_b, keys_b) = start("b", file.path());
    a.beat(sealed(&keys_a, "a", 7), None);
    wait("the write of a's heartbeat", || Area::open(file.path(), 0, Access::Read).unwrap().read_beat(1).unwrap());
    b.beat(sealed(&keys_b, "b", 8), None);
    assert!(matches!(input(&at_b), Input::Frame { frame, .. } if frame.sequence == 7));
    b.beat(sealed(&keys_b, "b", 9), None);
    assert!(at_b.recv_timeout(Duration::from_millis(100)).is_err(), "the same heartbeat is not handed on again");
    // Somebody who has the key and writes into a's slot as b.
    let stands = || Area::open(file.path(), 0, Access::Read).unwrap().read_beat(1).unwrap().map(|beat| beat.counter);
    let before = stands();
    a.beat(sealed(&keys_a, "b", 99), None);
    wait("another heartbeat in the slot", || stands().filter(|counter| Some(*counter) != before));
    b.beat(sealed(&keys_b, "b", 10), None);
    assert!(at_b.recv_timeout(Duration::from_millis(100)).is_err());
    drop(at_a);
}

#[test]
fn a_slot_that_two_machines_write_is_told_by_both_sides() {
    let file = disk();
    format(file.path(), 0, Force::No).unwrap();
    let (a, _at_a, keys_a) = start("a", file.path());
    let (also_a, _events, _) = start("a", file.path());
    let (sender, _) = wait("the other machine to be noticed", || {
        a.beat(sealed(&keys_a, "a", 1), None);
        also_a.beat(sealed(&keys_a, "a", 2), None);
        a.refusals().shown(clock::now()).into_iter().find(|(_, r)| r.contains("writes into slot 1 of the area"))
    });
    assert_eq!(sender, Some("a".into()));
    // b reads what somebody wrote into a's slot.
    let (b, _at_b, keys_b) = start("b", file.path());
    let mut sequence = 3;
    let (sender, reason) = wait("a refusal", || {
        sequence += 1;
        a.beat(sealed(&keys_a, "b", sequence), None);
        b.beat(sealed(&keys_b, "b", 4), None);
        b.refusals().shown(clock::now()).pop()
    });
    assert_eq!(
        (sender, reason.as_str()),
        (Some("a".into()), "a heartbeat of b stands in the slot of a: both use one number")
    );
    drop(also_a);
}

#[test]
fn lock_operations_are_answered_in_order_with_what_stands_on_the_disk() {
    let file = disk();
    let header = format(file.path(), 0, Force::No).unwrap();
    let (a, at_a, _) = start("a", file.path());
    let (b, at_b, _) = start("b", file.path());
    let of = |sequence| Box::new(LockRecord { lock: header.lock, ..record(3, sequence) });
    for sequence in 1..=3 {
        a.lock(sequence, LockOp::WriteThenLook(of(sequence))).unwrap();
    }
    for sequence in 1..=3 {
        let Input::Lock { token, result } = input(&at_a) else { panic!() };
        assert_eq!((token, result.unwrap().records[&1].sequence), (sequence, sequence));
    }
    b.lock(40, LockOp::Look).unwrap();
    let Input::Lock { token: 40, result: Ok(look) } = input(&at_b) else { panic!() };
    assert_eq!((look.lock, look.records.len(), look.records[&1].sequence), (header.lock, 1, 3));
    assert!(look.completed <= clock::now());
    assert_eq!(b.health().clusters, [record(1, 1).cluster].into());
}

#[test]
fn a_missing_or_unformatted_disk_is_an_answer_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let device = dir.path().join("disk");
    let (a, at_a, _) = start("a", &device);
    a.lock(1, LockOp::Look).unwrap();
    assert!(matches!(input(&at_a), Input::Lock { token: 1, result: Err(e) } if e.contains("No such file")));
    std::fs::write(&device, vec![0; 2 << 20]).unwrap();
    a.lock(2, LockOp::Look).unwrap();
    assert!(matches!(input(&at_a), Input::Lock { token: 2, result: Err(e) } if e.contains("holdfast disk format")));
    assert!(a.health().error.is_some());
    format(&device, 0, Force::No).unwrap();
    a.lock(3, LockOp::Look).unwrap();
    assert!(matches!(input(&at_a), Input::Lock { token: 3, result: Ok(_) }));
    assert_eq!(a.health().error, None);
}

#[test]
fn nothing_is_written_into_an_area_that_another_sub_cluster_uses() {
    let file = disk();
    let header = format(file.path(), 0, Force::No).unwrap();
    let (b, at_b, _) = start("b", file.path());
    let theirs = LockRecord { lock: header.lock, ..record(3, 1) };
    b.lock(1, LockOp::WriteThenLook(Box::new(theirs.clone()))).unwrap();
    assert!(matches!(input(&at_b), Input::Lock { token: 1, result: Ok(_) }));
    let (a, at_a, keys_a) = start("a", file.path());
    for cluster in [None, Some(holdfast_core::names::ClusterId(77))] {
        a.beat(sealed(&keys_a, "a", 1), cluster);
        // Answered after the heartbeat before it.
        a.lock(2, LockOp::Look).unwrap();
        assert!(matches!(input(&at_a), Input::Lock { token: 2, result: Ok(_) }));
    }
    let stands = || Area::open(file.path(), 0, Access::Read).unwrap().read_beat(1).unwrap();
    assert_eq!(stands(), None);
    a.beat(sealed(&keys_a, "a", 2), Some(theirs.cluster));
    wait("the heartbeat of one of theirs", stands);
}
