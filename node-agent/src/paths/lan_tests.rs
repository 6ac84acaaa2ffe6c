//! LAN paths over loopback.

use std::sync::mpsc;

use holdfast_core::config::PathKind;
use holdfast_core::message::{Envelope, Message};
use holdfast_core::names::{BootId, PathName};

use super::*;
use crate::inbox::Event;
use crate::paths::{Paths, Wiring};
use crate::testing::{frame, keys, wait};

fn lan(name: &str, kind: PathKind) -> LanWiring {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoints = [("a", "127.0.0.1"), ("b", "127.0.0.2")].map(|(s, a)| (s.into(), a.parse().unwrap()));
    let ids = [("a".into(), 1), ("b".into(), 2)].into();
    LanWiring { name: name.into(), kind, port, interface: None, endpoints: endpoints.into(), ids, wire: 0 }
}

fn server(me: &str, lans: &[LanWiring], byte: u8) -> (Paths, mpsc::Receiver<Event>) {
    let (inbox, events) = Inbox::new();
    let mut paths = Paths::new(keys(byte), Seen::default(), inbox);
    let (disks, serials) = (Vec::new(), Vec::new());
    paths.rewire(&[&Wiring { me: me.into(), lans: lans.to_vec(), disks, serials, quorum: None }]);
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
fn what_is_refused_names_the_server_and_the_reason_and_disturbs_no_other_path() {
    let lans = [lan("ic", PathKind::Interconnect), lan("pub", PathKind::Public)];
    let (b, at_b) = server("b", &lans, 1);
    let address = |name: &str| SocketAddr::new(lans[0].endpoints[name], lans[0].port);
    let told = |b: &Paths, part: &str| {
        wait(part, || {
            let all = b.refusals(clock::now()).remove("ic").unwrap_or_default();
            all.into_iter().find(|(_, reason)| reason.contains(part))
        })
    };
    // Another key, from a's address.
    let (a, _at_a) = server("a", &lans[..1], 2);
    a.heartbeat(&frame("a", 5)).unwrap();
    let (sender, reason) = told(&b, "another key 1");
    assert_eq!((sender, reason.contains("from 127.0.0.1")), (Some("a".into()), true), "{reason}");
    drop(a);
    // Rubbish from an address of nobody.
    let stranger = UdpSocket::bind("127.0.0.9:0").unwrap();
    stranger.send_to(b"hello", address("b")).unwrap();
    assert_eq!(told(&b, "from 127.0.0.9: 5 bytes that are no Holdfast envelope").0, None);
    // With the right key: our own name, a server that doesn't exist, another number, two machines of one name.
    let keys = keys(1).current().unwrap();
    let say = |frame: &holdfast_core::frame::Frame| {
        let sealed = keys.seal(Kind::Frame, "ic", &postcard::to_stdvec(frame).unwrap()).unwrap();
        stranger.send_to(&sealed, address("b")).unwrap();
    };
    say(&frame("b", 5));
    told(&b, "two machines run an agent of that name");
    say(&frame("c", 5));
    told(&b, "\"c\", which has no endpoint on this path");
    say(&holdfast_core::frame::Frame { id: 2, ..frame("a", 5) });
    told(&b, "a has number 2 by its own configuration, which is the number of b; here a has number 1");
    assert!(at_b.try_recv().is_err(), "none of it got in");
    for boot in [1, 2, 1] {
        say(&holdfast_core::frame::Frame { boot: BootId(boot), ..frame("a", 5) });
    }
    let (sender, reason) = told(&b, "two machines say that they are a: boots");
    assert_eq!(sender, Some("a".into()), "{reason}");
    // The other path knows nothing of it and works.
    assert_eq!(
        b.refusals(clock::now()).keys().collect::<Vec<_>>(),
        ["ic"].map(PathName::from).iter().collect::<Vec<_>>()
    );
    while at_b.try_recv().is_ok() {}
    let (a, _at_a) = server("a", &lans[1..], 1);
    a.heartbeat(&frame("a", 9)).unwrap();
    let Input::Frame { path, frame } = next(&at_b) else { panic!() };
    assert_eq!((path, frame.sequence), ("pub".into(), 9));
}

#[test]
fn ipv6_carries_heartbeats_like_ipv4() {
    let mut wiring = lan("ic", PathKind::Interconnect);
    // Loopback has one IPv6 address only: b is a socket of the test's.
    wiring.port = UdpSocket::bind("[::1]:0").unwrap().local_addr().unwrap().port();
    wiring.endpoints = [("a".into(), "::1".parse().unwrap()), ("b".into(), "::1".parse().unwrap())].into();
    let (_a, at_a) = server("a", &[wiring.clone()], 1);
    let b = UdpSocket::bind("[::1]:0").unwrap();
    let sealed = keys(1).current().unwrap().seal(Kind::Frame, "ic", &postcard::to_stdvec(&frame("b", 3)).unwrap());
    b.send_to(&sealed.unwrap(), ("::1", wiring.port)).unwrap();
    assert!(matches!(next(&at_a), Input::Frame { frame, .. } if frame.sequence == 3));
}

#[test]
fn a_missing_address_is_no_reason_to_stop() {
    let mut wiring = lan("ic", PathKind::Interconnect);
    wiring.endpoints.insert("a".into(), "203.0.113.77".parse().unwrap());
    let (a, _events) = server("a", &[wiring.clone()], 1);
    assert_eq!(a.errors(), Default::default(), "bound before the address exists");
    wiring.interface = Some("no-such-if0".to_owned());
    let (b, _events) = server("a", &[wiring], 1);
    let error = wait("an error of the missing interface", || b.errors().into_values().next());
    assert!(error.contains("203.0.113.77"), "{error}");
}
