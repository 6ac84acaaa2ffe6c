//! Serial lines over pseudo-terminals: two agents' ends, and the test in the middle of the line.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::mpsc;

use holdfast_core::names::ServerName;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;

use super::*;
use crate::inbox::Event;
use crate::testing::{frame, keys, wait};

/// One end of a line: the device for an agent, and the end at which the test stands.
struct End {
    test: File,
    device: PathBuf,
    /// Keeps the line alive while the agent has it closed.
    _slave: std::os::fd::OwnedFd,
}

fn end() -> End {
    let pair = openpty(None, None).unwrap();
    let device = nix::unistd::ttyname(&pair.slave).unwrap();
    // Without this the terminal would echo what nobody reads.
    let mut raw = nix::sys::termios::tcgetattr(&pair.slave).unwrap();
    nix::sys::termios::cfmakeraw(&mut raw);
    nix::sys::termios::tcsetattr(&pair.slave, nix::sys::termios::SetArg::TCSANOW, &raw).unwrap();
    let test = File::from(pair.master);
    fcntl(&test, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    End { test, device, _slave: pair.slave }
}

/// The agent of `me` at a line to the other one of a and b.
fn start(me: &str, device: &std::path::Path, byte: u8) -> (Line, mpsc::Receiver<Event>, Keys) {
    let (inbox, events) = Inbox::new();
    let keys = keys(byte);
    let peer: (ServerName, u8) = if me == "a" { ("b".into(), 2) } else { ("a".into(), 1) };
    let wiring = SerialWiring { wire: 0, name: "com".into(), baud: 115_200, device: device.to_owned(), peer };
    (Line::start(wiring, keys.clone(), Seen::default(), inbox).unwrap(), events, keys)
}

/// Waits until the agent has opened its device: what arrived before is thrown away.
fn opened(line: &Line) {
    wait("the line to be opened", || line.error().is_none().then_some(()));
}

fn beat(line: &Line, keys: &Keys, from: &str, sequence: u64) {
    line.beat(&keys.current().unwrap(), &frame(from, sequence)).unwrap();
}

/// Everything that the agent writes until there are `wanted` bytes.
fn read(end: &mut End, wanted: usize) -> Vec<u8> {
    let mut found = Vec::new();
    wait("bytes on the line", || {
        let mut buffer = [0; 4096];
        if let Ok(length) = end.test.read(&mut buffer) {
            found.extend_from_slice(&buffer[..length]);
        }
        (found.len() >= wanted).then_some(())
    });
    found
}

fn next(events: &mpsc::Receiver<Event>) -> Compact {
    match events.recv_timeout(Duration::from_secs(20)) {
        Ok(Event::Input(Input::Compact { compact, .. })) => compact,
        other => panic!("{other:?}"),
    }
}

fn refused(line: &Line) -> (Option<ServerName>, String) {
    wait("a refusal", || line.refusals().shown(clock::now()).pop())
}

#[test]
fn a_heartbeat_takes_64_bytes_and_arrives_through_noise() {
    let (mut left, mut right) = (end(), end());
    let (a, _at_a, keys_a) = start("a", &left.device, 1);
    let (b, at_b, _) = start("b", &right.device, 1);
    opened(&b);
    beat(&a, &keys_a, "a", 7_000_999);
    let bytes = read(&mut left, 1);
    assert_eq!(bytes.len(), 64);
    // Noise, a torn frame, one with a flipped bit, a whole one.
    right.test.write_all(&[0x55; 300]).unwrap();
    right.test.write_all(&bytes[..33]).unwrap();
    let mut spoilt = bytes.clone();
    spoilt[20] ^= 4;
    right.test.write_all(&spoilt).unwrap();
    right.test.write_all(&bytes).unwrap();
    let arrived = next(&at_b);
    assert_eq!((arrived.id, arrived.sequence), (1, 7_000_000), "in whole microseconds");
    assert!(at_b.try_recv().is_err());
    assert_eq!(b.error(), None);
    // Noise alone is told, and nothing else happens.
    right.test.write_all(&[0xaa; 1000]).unwrap();
    assert!(refused(&b).1.contains("no frame"));
    assert!(at_b.try_recv().is_err());
}

#[test]
fn another_key_and_a_wrong_number_are_refused_with_their_names() {
    let (mut left, mut right) = (end(), end());
    let (b, at_b, keys_b) = start("b", &right.device, 1);
    let (a, _at_a, keys_a) = start("a", &left.device, 2);
    opened(&b);
    beat(&a, &keys_a, "a", 1000);
    right.test.write_all(&read(&mut left, 64)).unwrap();
    let (sender, reason) = refused(&b);
    assert_eq!(sender, Some("a".into()));
    assert!(reason.contains("the authentication fails: another key 1"), "{reason}");
    // What b says comes back to it.
    beat(&b, &keys_b, "b", 1000);
    let own = read(&mut right, 64);
    right.test.write_all(&own).unwrap();
    let told = wait("another refusal", || Some(refused(&b).1).filter(|reason| reason.contains("leads back")));
    assert!(told.contains("server number 2 speaks on the line, a has number 1"), "{told}");
    assert!(at_b.try_recv().is_err());
}

#[test]
fn a_device_that_is_missing_hangs_or_vanishes_is_told_and_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let device = dir.path().join("ttyS0");
    let (a, at_a, keys_a) = start("a", &device, 1);
    let told = |part: &str| wait(part, || a.error().filter(|e| e.contains(part)));
    told("No such file");
    std::fs::write(&device, "").unwrap();
    told("it is no serial device");
    std::fs::remove_file(&device).unwrap();

    let mut first = end();
    std::os::unix::fs::symlink(&first.device, &device).unwrap();
    wait("the line to be used", || a.error().is_none().then_some(()));
    beat(&a, &keys_a, "a", 1000);
    assert_eq!(read(&mut first, 64).len(), 64);
    // Nobody reads any more: the buffers fill up, and giving heartbeats still never waits.
    let mut sequence = 2000;
    wait("the line to hang", || {
        sequence += 1000;
        beat(&a, &keys_a, "a", sequence);
        a.error().filter(|e| e.contains("takes no bytes"))
    });
    read(&mut first, 64);
    wait("the line to go on", || {
        let mut buffer = [0; 4096];
        let _ = first.test.read(&mut buffer);
        a.error().is_none().then_some(())
    });

    std::fs::remove_file(&device).unwrap();
    drop(first);
    told("ttyS0");
    let mut second = end();
    std::os::unix::fs::symlink(&second.device, &device).unwrap();
    wait("the new device to be used", || a.error().is_none().then_some(()));
    let (b, _at_b, keys_b) = start("b", &second.device, 1);
    drop(b);
    // A second user of a line is told so.
    let (b, ..) = start("b", &second.device, 1);
    wait("the second user's error", || b.error().filter(|e| e.contains("another process uses it")));
    drop(b);
    let content = seal(
        &keys_b.current().unwrap(),
        &"com".into(),
        &Compact::of(&frame("b", 5000), &"a".into(), &"com".into()).encode().unwrap(),
    );
    second.test.write_all(&encode_frame(&content.unwrap())).unwrap();
    assert_eq!(next(&at_a).sequence, 5000);
    assert!(second.test.as_raw_fd() > 0);
}

#[test]
fn keys_with_alike_numbers_are_told_apart_and_every_altered_byte_is_noticed() {
    let ring = |data: &[(&str, u8)]| {
        let data = data.iter().map(|(name, byte)| ((*name).to_owned(), vec![*byte; 32])).collect();
        Keyring::new("ha", "db", &data, 1).unwrap()
    };
    // Only six bits of the number are on the line.
    let (both, old) = (ring(&[("1", 1), ("65", 2)]), ring(&[("1", 1)]));
    let compact = Compact::of(&frame("a", 5000), &"b".into(), &"com".into()).encode().unwrap();
    both.seal_with(65);
    let sealed = seal(&both, &"com".into(), &compact).unwrap();
    assert_eq!(open(&both, &"com".into(), &sealed), Ok(&compact[..]));
    assert_eq!(open(&old, &"com".into(), &sealed), Err(SealError::Authentication(1)));
    assert!(open(&both, &"other".into(), &sealed).is_err(), "another path");
    assert_eq!(
        open(&ring(&[("2", 2)]), &"com".into(), &sealed).unwrap_err().to_string(),
        "sealed with key 1, this server has 2"
    );
    for at in 0..CONTENT {
        for bit in 0..8 {
            let mut altered = sealed;
            altered[at] ^= 1 << bit;
            assert!(open(&both, &"com".into(), &altered).is_err(), "byte {at} bit {bit}");
        }
    }
}
