//! Every way from any settings to any others is short, and careful at every step.

use proptest::prelude::*;

use super::*;

fn ms(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn timing() -> impl Strategy<Value = (MemberTiming, Duration)> {
    (ms(100..5000), ms(0..5000), ms(0..2000), ms(0..3000), any::<bool>()).prop_map(
        |(lease, reset, drain, more, watchdog)| {
            let (soft_stop, kill) = (lease / 2, lease * 3 / 4);
            let takeover_wait = least_wait(lease, reset, drain) + more;
            (MemberTiming { lease, soft_stop, kill, reset, takeover_wait, watchdog }, drain)
        },
    )
}

fn plan() -> impl Strategy<Value = Plan> {
    let names = proptest::collection::btree_map(0_u8..6, 1_u8..9, 2..5);
    let paths = proptest::collection::btree_map(0_u8..5, (any::<bool>(), 0_u32..3), 1..4);
    let lock = proptest::option::of(0_u64..3);
    (names, paths, lock, timing(), ms(10..900), ms(100..9000)).prop_map(
        |(names, paths, lock, timing, interval, timeout)| {
            let mut servers: BTreeMap<ServerName, u8> = BTreeMap::new();
            for (name, id) in names {
                if !servers.values().any(|taken| *taken == id) {
                    servers.insert(ServerName(name.to_string()), id);
                }
            }
            let path = |(name, (disk, wire)): (u8, (bool, u32))| {
                let kind = if disk { PathKind::Disk } else { PathKind::Public };
                (PathName(name.to_string()), PathSetting { kind, wires: [wire].into() })
            };
            let (timing, drain) = timing;
            let settings = Settings {
                servers,
                paths: paths.into_iter().map(path).collect(),
                lock: lock.map(|place| LockPlace { kind: LockKind::Disk, place }),
                interval,
                timeout,
                stall: timeout / 5,
                renew: timeout / 20,
                io_timeout: timeout / 20,
                drain,
            };
            Plan { settings, timings: ["a", "b"].map(|name| (name.into(), timing)).into() }
        },
    )
}

proptest! {
    /// At most two steps. While members may act by either of two plans, nobody is waited for less than either needs.
    #[test]
    fn the_way_is_short_and_careful(from in plan(), wanted in plan()) {
        let mut here = from.clone();
        let mut steps = 0;
        while let Some(next) = step(&here, &wanted) {
            steps += 1;
            prop_assert!(steps <= 2);
            let (next, last) = match next {
                Step::Prepare(plan) => (plan, false),
                Step::Finish(plan) => (plan, true),
            };
            for (name, timing) in &next.timings {
                let (old, drain) = (&here.timings[name], next.settings.drain.max(here.settings.drain));
                // R21: a lease that grows, grows only where the wait has grown before.
                let needed = least_wait(timing.lease, timing.reset, next.settings.drain);
                prop_assert!(timing.lease <= old.lease || last && old.takeover_wait >= needed);
                // Who has not heard of the last step yet keeps to the promises before it, and the wait for it falls now.
                prop_assert!(!last || timing.takeover_wait >= least_wait(old.lease, old.reset, next.settings.drain));
                if !last {
                    prop_assert!(timing.takeover_wait >= old.takeover_wait);
                    prop_assert!(timing.takeover_wait >= least_wait(timing.lease, timing.reset, drain));
                }
            }
            if !last {
                prop_assert!(here.settings.paths.keys().all(|path| next.settings.paths.contains_key(path)));
                prop_assert!(wanted.settings.paths.keys().all(|path| next.settings.paths.contains_key(path)));
                prop_assert!(here.settings.servers.iter().all(|(name, id)| next.settings.servers.get(name) == Some(id)));
                prop_assert_eq!(next.settings.lock, here.settings.lock);
            }
            let ids: BTreeSet<u8> = next.settings.servers.values().copied().collect();
            prop_assert_eq!(ids.len(), next.settings.servers.len());
            here = next;
        }
        prop_assert_eq!(here, wanted);
    }

    /// Changes on top of one another, before any is finished: who began under the first is still waited for long enough.
    #[test]
    fn changes_on_top_of_changes_only_become_more_careful(from in plan(), wanted in proptest::collection::vec(plan(), 1..6)) {
        let mut here = from.clone();
        for next in &wanted {
            if let Some(Step::Prepare(plan)) = step(&here, next) {
                here = plan;
            }
        }
        for (name, timing) in &here.timings {
            prop_assert!(timing.takeover_wait >= from.timings[name].takeover_wait);
            prop_assert!(timing.lease <= from.timings[name].lease);
        }
        prop_assert!(from.settings.paths.keys().all(|path| here.settings.paths.contains_key(path)));
    }
}

#[test]
fn a_slot_is_given_to_another_server_only_when_its_owner_is_gone() {
    let timing = MemberTiming {
        lease: Duration::from_millis(700),
        soft_stop: Duration::from_millis(500),
        kill: Duration::from_millis(600),
        reset: Duration::from_millis(200),
        takeover_wait: Duration::from_millis(955),
        watchdog: false,
    };
    let plan = |servers: &[(&str, u8)]| Plan {
        settings: Settings {
            servers: servers.iter().map(|(name, id)| ((*name).into(), *id)).collect(),
            paths: BTreeMap::new(),
            lock: None,
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(1),
            stall: Duration::from_millis(200),
            renew: Duration::from_millis(50),
            io_timeout: Duration::from_millis(50),
            drain: Duration::ZERO,
        },
        timings: [("a".into(), timing)].into(),
    };
    let (old, new) = (plan(&[("a", 1), ("b", 2), ("c", 3)]), plan(&[("a", 1), ("b", 2), ("d", 3)]));
    assert_eq!(step(&old, &new), Some(Step::Finish(new)), "no view has both c and d in slot 3");
}

#[test]
fn a_path_keeps_its_kind_as_long_as_it_has_its_name() {
    let settings = |kind| Settings {
        paths: [("x".into(), PathSetting { kind, wires: [1].into() })].into(),
        ..Settings::default()
    };
    let lan = settings(PathKind::Interconnect);
    assert_eq!(lan.changes_kind(&settings(PathKind::Public)), None, "both are LANs");
    for other in [PathKind::Disk, PathKind::Serial] {
        assert_eq!(lan.changes_kind(&settings(other)), Some(&"x".into()));
        assert_eq!(settings(other).changes_kind(&lan), Some(&"x".into()));
    }
    assert_eq!(lan.changes_kind(&Settings::default()), None, "removed is not changed");
}
