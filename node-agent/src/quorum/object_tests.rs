//! What a swap does to the state, and what is refused to be read.

use holdfast_core::names::{BootId, ServerName};
use holdfast_core::view::{Acceptor, Departed, Member, MemberTiming};
use std::time::Duration;

use super::*;
use crate::disk::layout::tests::record as plain;

const LOCK: AcceptorId = AcceptorId(0x6f0c_1d9e);

fn record(epoch: Epoch, sequence: u64, round: u32) -> LockRecord {
    let mut record = LockRecord { lock: LOCK, epoch, ballot: Ballot { round, proposer: 1 }, ..plain(1, sequence) };
    record.view.epoch = epoch;
    record
}

fn blank() -> Object {
    Object::read(BLANK, LOCK).unwrap()
}

#[test]
fn a_swap_puts_the_own_record_in_and_shows_everybody_elses() {
    let mut object = blank();
    object.swap(1, None).unwrap();
    assert!(object.look(Instant(5)).records.is_empty());
    let mut accepted = record(5, 1, 3);
    accepted.accepted = Some((Ballot { round: 3, proposer: 1 }, record(6, 0, 0).view));
    object.swap(1, Some(&accepted)).unwrap();
    object.swap(2, Some(&record(5, 7, 4))).unwrap();
    let read = Object::read(&object.text().unwrap(), LOCK).unwrap();
    assert_eq!(read, object);
    let look = read.look(Instant(9));
    assert_eq!((look.lock, look.counter, look.completed), (LOCK, Some(3), Instant(9)));
    assert_eq!((look.records[&1].clone(), look.records[&2].sequence), (accepted, 7));
}

#[test]
fn the_newest_view_stays_and_what_was_accepted_before_it_goes() {
    let mut object = blank();
    let mut old = record(5, 1, 3);
    old.accepted = Some((Ballot { round: 3, proposer: 1 }, record(6, 0, 0).view));
    object.swap(1, Some(&old)).unwrap();
    object.swap(2, Some(&record(6, 1, 0))).unwrap();
    // Slot 1 still acts in epoch 5; it learns the newer view and puts nothing back.
    object.swap(1, Some(&LockRecord { sequence: 2, ..old })).unwrap();
    let look = object.look(Instant(1));
    assert_eq!(look.records[&1].view.epoch, 6);
    assert_eq!((look.records[&1].epoch, look.records[&1].accepted.clone()), (5, None));
}

#[test]
fn what_is_foreign_copied_or_damaged_is_left_alone() {
    let mut object = blank();
    object.swap(1, Some(&record(5, 1, 0))).unwrap();
    let before = object.clone();
    let other = LockRecord { lock: AcceptorId(9), ..record(5, 2, 0) };
    assert!(matches!(object.swap(1, Some(&other)), Err(BadObject::Replaced { .. })));
    let mut foreign = record(5, 2, 0);
    foreign.cluster = ClusterId(8);
    assert!(matches!(object.swap(1, Some(&foreign)), Err(BadObject::Foreign(ClusterId(7)))));
    assert_eq!(object, before);
    let text = object.text().unwrap();
    let copied = Object::read(&text, AcceptorId(1)).unwrap_err();
    assert!(matches!(copied, BadObject::Copied(LOCK)) && copied.to_string().contains("--replace"));
    let mut changed = text.clone();
    changed
        .replace_range(text.len() - 2..text.len() - 1, if text.as_bytes()[text.len() - 2] == b'A' { "B" } else { "A" });
    for wrong in ["", "2:x", "1", "1:zz:zz", "1:00000000:AAAA", &changed] {
        assert!(Object::read(wrong, LOCK).is_err(), "{wrong}");
    }
}

/// The largest sub-cluster with the longest names, in the middle of a decision that every server has accepted another
/// value of.
#[test]
fn the_largest_state_fits_into_an_annotation() {
    let name = |n: u8| ServerName(format!("{n:02}{}", "x".repeat(61)));
    let timing = MemberTiming {
        soft_stop: Duration::from_millis(300),
        kill: Duration::from_millis(400),
        lease: Duration::from_nanos(u64::MAX),
        reset: Duration::from_nanos(u64::MAX),
        takeover_wait: Duration::from_nanos(u64::MAX),
        watchdog: true,
    };
    let mut largest = record(u64::MAX - 20, u64::MAX, u32::MAX);
    for n in 1..=16 {
        let (id, boot) = (AcceptorId(u128::MAX - u128::from(n)), BootId(u128::MAX - u128::from(n)));
        largest.view.members.insert(name(n), Member { id: n, acceptor: id, boot, timing, is_virtual: true });
        largest.view.acceptors.insert(Acceptor::Server(name(n)), id);
        let departed = Departed { is_virtual: true, takeover_wait: timing.lease, evidence: None, power: None };
        largest.view.departed.insert((name(n), BootId(u128::from(n))), departed);
    }
    largest.view.acceptors.insert(Acceptor::Lock, LOCK);
    largest.view.settings = crate::testing::largest_settings(16, 63);
    let mut object = blank();
    for n in 1..=16 {
        let mut own = largest.clone();
        let value = View { epoch: own.epoch + 1, config_generation: u64::MAX - u64::from(n), ..own.view.clone() };
        own.accepted = Some((Ballot { round: u32::MAX, proposer: n }, value));
        object.swap(n, Some(&own)).unwrap();
    }
    let text = object.text().unwrap();
    assert_eq!(Object::read(&text, LOCK).unwrap(), object);
    assert!(text.len() > 50_000, "{} bytes", text.len());
}

proptest::proptest! {
    #[test]
    fn reading_never_panics(text in "[0-9]?:?[0-9a-f]{0,8}:?[A-Za-z0-9+/]{0,80}") {
        let _ = Object::read(&text, LOCK);
    }
}
