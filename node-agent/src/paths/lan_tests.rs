//! LAN paths over loopback.

use std::sync::mpsc;

use holdfast_core::config::PathKind;
use holdfast_core::message::{Envelope, Message};
use holdfast_core::names::BootId;

use super::*;
use crate::inbox::Event;
use crate::paths::Paths;
use crate::paths::{DiskWiring, Wiring};
use crate::testing::{frame, keys, wait};

fn lan(name: &str, kind: PathKind) -> LanWiring {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoints = [("a", "127.0.0.1"), ("b", "127.0.0.2")].map(|(s, a)| (s.into(), a.parse().unwrap()));
    LanWiring { name: name.into(), kind, port, interface: None, endpoints: endpoints.into() }
}

fn server(me: &str, lans: &[LanWiring], byte: u8) -> (Paths, mpsc::Receiver<Event>) {
    let (inbox, events) = Inbox::new();
    let mut paths = Paths::new(keys(byte), inbox);
    paths.rewire(&Wiring { me: me.into(), lans: lans.to_vec(), disks: Vec::<DiskWiring>::new(), quorum: None });
    (paths, events)
}

fn next(events: &mpsc::Receiver<Event>) -> Input {
    match events.recv_timeout(Duration::from_secs(20)) {
        Ok(Event::Input(input)) => input,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_heartbeat_arrives_on_every_lan_and_a_message_on_the_best_one() {
    let lans = [lan("ic", PathKind::Interconnect), lan("pub", PathKind::Public)];
    let ((a, at_a), (b, at_b)) = (server("a", &lans, 1), server("b", &lans, 1));
    a.heartbeat(&frame("a", 5)).unwrap();
    let mut arrived = std::collections::BTreeMap::new();
    for _ in 0..2 {
        let Input::Frame { path, frame } = next(&at_b) else { panic!() };
        arrived.insert(path, frame.sequence);
    }
    assert_eq!(arrived, [("ic".into(), 5), ("pub".into(), 5)].into());

    let message = Envelope {
        from: "b".into(),
        boot: BootId(1),
        message: Message::Refused { order: (1, 2), promised: Default::default() },
    };
    let fresh = Duration::from_secs(60);
    let two_way = ["ic".into(), "pub".into()].into();
    b.send(&"a".into(), &message, &two_way, clock::now(), fresh).unwrap();
    assert!(matches!(next(&at_a), Input::Message(m) if *m == message));
    assert!(at_a.recv_timeout(Duration::from_millis(100)).is_err(), "one copy over the interconnect");
    // In doubt over all of them.
    b.send(&"a".into(), &message, &std::collections::BTreeSet::new(), clock::now(), fresh).unwrap();
    assert!(matches!(next(&at_a), Input::Message(_)));
    assert!(matches!(next(&at_a), Input::Message(_)));
}

#[test]
fn large_messages_arrive_and_larger_ones_fail_loudly() {
    let lans = [lan("ic", PathKind::Interconnect)];
    let ((a, _at_a), (_b, at_b)) = (server("a", &lans, 1), server("b", &lans, 1));
    let big = |n: usize| {
        let mut frame = frame("a", 1);
        frame.held = (0..n).map(|i| (format!("group-{i:020}").as_str().into(), Default::default())).collect();
        frame
    };
    a.heartbeat(&big(1500)).unwrap();
    assert!(matches!(next(&at_b), Input::Frame { frame, .. } if frame.held.len() == 1500));
    let error = a.heartbeat(&big(4000)).unwrap_err().to_string();
    assert!(error.contains("61440"), "{error}");
}

#[test]
fn what_is_sealed_with_another_key_never_gets_in() {
    let lans = [lan("ic", PathKind::Interconnect)];
    let ((a, _at_a), (_b, at_b)) = (server("a", &lans, 1), server("b", &lans, 2));
    a.heartbeat(&frame("a", 5)).unwrap();
    assert!(at_b.recv_timeout(Duration::from_millis(300)).is_err());
}

#[test]
fn a_missing_address_is_no_reason_to_stop() {
    let mut wiring = lan("ic", PathKind::Interconnect);
    wiring.endpoints.insert("a".into(), "203.0.113.77".parse().unwrap());
    let (a, _events) = server("a", &[wiring.clone()], 1);
    assert_eq!(a.lan_errors(), Default::default(), "bound before the address exists");
    wiring.interface = Some("no-such-if0".to_owned());
    let (b, _events) = server("a", &[wiring], 1);
    let error = wait("an error of the missing interface", || b.lan_errors().into_values().next());
    assert!(error.contains("203.0.113.77"), "{error}");
}
