//! Values that several tests need.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::config::{LockKind, PathKind};
use holdfast_core::frame::{Frame, Intent};
use holdfast_core::names::{AcceptorId, BootId, ChainId, PathName, ServerName};
use holdfast_core::settings::{LockPlace, PathSetting, Settings};
use holdfast_core::view::MemberTiming;

use crate::clock;
use crate::paths::keys::Keys;
use crate::paths::seal::Keyring;

/// A heartbeat of `from` with this sequence.
pub(crate) fn frame(from: &str, sequence: u64) -> Frame {
    Frame {
        cluster: None,
        from: from.into(),
        id: from.bytes().next().map_or(0, |letter| letter - b'a' + 1),
        acceptor: AcceptorId(1),
        boot_counter: 1,
        boot: BootId(9),
        sequence,
        lineage: 0,
        epoch: 0,
        chain: ChainId(0),
        heard: BTreeMap::new(),
        leased: false,
        lock_reachable: false,
        lock: None,
        lock_to_come: None,
        intent: Intent::Join,
        timing: MemberTiming {
            lease: Duration::from_millis(500),
            soft_stop: Duration::from_millis(300),
            kill: Duration::from_millis(400),
            reset: Duration::from_millis(200),
            takeover_wait: Duration::from_secs(1),
            watchdog: false,
        },
        is_virtual: true,
        config_generation: 1,
        held: BTreeMap::new(),
        specs: [("web".into(), 3)].into(),
        table: None,
        barred: false,
        stop_failed: false,
        fences: BTreeMap::new(),
        orders: BTreeSet::new(),
        candidate: BTreeSet::new(),
        down: None,
        refused: Default::default(),
        reports: BTreeMap::new(),
    }
}

/// Settings in the middle of a change of every path, with the longest server names and path names so long.
pub(crate) fn largest_settings(servers: u8, path_name: usize) -> Settings {
    let long = |n: u8| format!("{n:02}{}", "x".repeat(61));
    let wires = || [u32::MAX, u32::MAX - 1, u32::MAX - 2].into();
    let (time, kind) = (Duration::from_nanos(u64::MAX), PathKind::Public);
    Settings {
        servers: (1..=servers).map(|n| (ServerName(long(n)), n)).collect(),
        paths: (1..=16)
            .map(|n| (PathName(long(n)[..path_name].to_owned()), PathSetting { kind, wires: wires() }))
            .collect(),
        lock: Some(LockPlace { kind: LockKind::QuorumServer, place: u64::MAX }),
        interval: time,
        timeout: time,
        stall: time,
        renew: time,
        io_timeout: time,
        drain: time,
    }
}

/// Keys of the sub-cluster `ha/db` whose bytes are all `byte`.
pub(crate) fn keys(byte: u8) -> Keys {
    let data = BTreeMap::from([("1".to_owned(), vec![byte; 32])]);
    let ring = Keyring::new("ha", "db", &data, rand::random()).expect("32 bytes are a key");
    let keys = Keys::default();
    keys.replace(ring, clock::now());
    keys
}

/// Waits until `check` gives a value; panics after 20 s.
pub(crate) fn wait<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(std::time::Instant::now() < end, "{what} did not happen within 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}
