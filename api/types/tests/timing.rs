//! The timing arithmetic: derived values are always consistent, the takeover wait is never below its bound, and what a user
//! breaks is shown with both sides.

use std::time::Duration;

use holdfast_api::{
    timing::{Timing, recommended_timeout},
    v1::SubClusterSpec,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn spec(heartbeat: Value, drain: &str) -> SubClusterSpec {
    let mut heartbeat = heartbeat;
    heartbeat["paths"] = json!([{"name": "area", "disk": {"disk": "san"}}]);
    serde_json::from_value(json!({
        "servers": [{"name": "a", "id": 1}, {"name": "b", "id": 2}],
        "quorum": {"type": "LockDisk", "lockDisk": {"disk": "san"}},
        "heartbeat": heartbeat,
        "evidence": {"drain": drain},
    }))
    .expect("the specification is well formed")
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The rule in floating-point numbers, written down once more and independently: C ≥ (1+ρ)/(1−ρ)(E+W') + (1+ρ)D.
fn bound(t: &Timing) -> f64 {
    1.001 / 0.999 * (t.lease.as_secs_f64() + t.reset.as_secs_f64()) + 1.001 * t.drain.as_secs_f64()
}

proptest! {
    #[test]
    fn timeout_alone_is_always_consistent(
        timeout in 100_u64..=300_000,
        drain in 0_u64..=5_000,
        watchdog in prop::option::of(1_u64..=60),
    ) {
        let spec = spec(json!({"timeout": format!("{timeout}ms")}), &format!("{drain}ms"));
        let t = Timing::of(&spec, watchdog.map(Duration::from_secs)).expect("derived values satisfy every inequality");
        let (h, j) = (t.interval, t.stall);
        prop_assert!(t.timeout >= 3 * h + j);
        prop_assert!(h <= Duration::from_secs(1));
        prop_assert!(t.lease >= 4 * h && t.lease.as_secs_f64() >= 1.299_999 * t.soft_stop.as_secs_f64());
        prop_assert!(t.soft_stop >= 3 * h + 2 * (t.renew + t.io_timeout));
        prop_assert!(t.soft_stop < t.kill && t.kill < t.lease);
        prop_assert!(t.lock.as_secs_f64() <= 0.2 * t.timeout.as_secs_f64() + 1e-9);
        prop_assert_eq!(t.reset, watchdog.map_or(j, |w| Duration::from_secs(2 * w)));
        if let (Some(pet), Some(watchdog)) = (t.pet, t.watchdog) {
            prop_assert!(3 * pet <= watchdog);
        }
        // Never below the bound, and not more than the rounding above it.
        let wait = t.takeover_wait.as_secs_f64();
        prop_assert!(wait >= bound(&t) - 1e-9 && wait <= bound(&t) + 0.001 + 1e-9);
        prop_assert_eq!(t.cluster_part, t.timeout.max(t.takeover_wait));
        // The longest lease that fits is used: either C stays within T, or the lease is at its least.
        let least = (t.soft_stop * 13 / 10).max(4 * h);
        prop_assert!(t.takeover_wait <= t.timeout || t.lease == least);
    }

    #[test]
    fn given_values_are_taken_or_refused_with_numbers(
        timeout in 100_u64..=10_000,
        interval in 10_u64..=2_000,
        stall in 1_u64..=3_000,
        lease in 1_u64..=20_000,
    ) {
        let heartbeat = json!({
            "timeout": format!("{timeout}ms"), "interval": format!("{interval}ms"),
            "advanced": {"stall": format!("{stall}ms"), "lease": format!("{lease}ms")},
        });
        let soft_stop = 3.0 * interval as f64 + 4.0 * timeout as f64 / 20.0;
        let consistent = timeout >= 3 * interval + stall && lease >= 4 * interval && lease as f64 >= 1.3 * soft_stop - 1e-6;
        match Timing::of(&spec(heartbeat, "0ms"), None) {
            Ok(t) => {
                prop_assert!(consistent);
                prop_assert!(t.takeover_wait.as_secs_f64() >= bound(&t) - 1e-9);
            }
            Err(errors) => {
                prop_assert!(!consistent);
                for error in errors {
                    prop_assert!(error.field.starts_with("spec.heartbeat."), "{error}");
                    prop_assert!(error.message.contains(" is less than "), "{error}");
                }
            }
        }
    }
}

#[test]
fn one_second_without_watchdog_costs_one_second() {
    let t = Timing::of(&spec(json!({"timeout": "1s"}), "50ms"), None).expect("consistent");
    assert_eq!((t.interval, t.stall, t.soft_stop), (ms(100), ms(200), ms(500)));
    assert_eq!((t.lease, t.kill), (ms(748), ms(624)));
    assert_eq!((t.takeover_wait, t.cluster_part), (ms(1000), ms(1000)));
    assert_eq!(t.cluster_part_with(ms(7)), ms(1007));
}

#[test]
fn worked_sets_of_the_protocol() {
    // Fast: E 1800, W 2000, D 500, W' = 2W: C ≥ 6312 ms.
    let fast = json!({"timeout": "3s", "interval": "200ms", "advanced": {"stall": "300ms", "lease": "1800ms"}});
    let t = Timing::of(&spec(fast, "500ms"), Some(Duration::from_secs(2))).expect("consistent");
    assert_eq!(t.takeover_wait, ms(6313), "6312.1 rounded up");
    // Conservative: E 16000, W 10000, D 2000: C ≥ 38072 ms, within T + the rounding.
    let slow = json!({"timeout": "30s", "interval": "1s", "advanced": {"lease": "16s"}});
    let t = Timing::of(&spec(slow, "2s"), Some(Duration::from_secs(10))).expect("consistent");
    assert_eq!(t.takeover_wait, ms(38075));
}

#[test]
fn messages_have_both_sides_and_the_way_out() {
    let messages = |heartbeat: Value, watchdog| -> Vec<String> {
        let errors = Timing::of(&spec(heartbeat, "50ms"), watchdog).expect_err("the specification breaks a rule");
        errors.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        messages(json!({"timeout": "1s", "interval": "300ms"}), None),
        [
            "spec.heartbeat.interval: Invalid value: \"300ms\": timeout ≥ 3·interval + stall does not hold (I1): 1s is less than 1100ms; raise timeout to 1100ms or leave interval and stall out"
        ]
    );
    assert_eq!(
        messages(json!({"timeout": "1s", "advanced": {"lease": "600ms"}}), None),
        [
            "spec.heartbeat.advanced.lease: Invalid value: \"600ms\": lease ≥ 1.3·soft stop, so that stopping and killing fit in between does not hold (I5, R11): 600ms is less than 650ms; raise lease to 650ms or leave it out"
        ]
    );
    let wait = messages(json!({"timeout": "1s", "advanced": {"takeoverWait": "900ms"}}), None);
    assert_eq!(wait.len(), 1);
    assert!(wait[0].starts_with("spec.heartbeat.advanced.takeoverWait: Invalid value: \"900ms\""), "{}", wait[0]);
    assert!(wait[0].contains("900ms is less than 1s") && wait[0].contains("0ms to have it computed"), "{}", wait[0]);
    // A longer wait is a floor.
    let longer = spec(json!({"timeout": "1s", "advanced": {"takeoverWait": "4s"}}), "50ms");
    assert_eq!(Timing::of(&longer, None).expect("consistent").takeover_wait, ms(4000));
}

#[test]
fn the_table_shows_every_value_and_inequality() {
    let spec = spec(json!({"timeout": "1s"}), "50ms");
    let table = Timing::of(&spec, None).expect("consistent").table(&spec);
    for line in [
        "E       lease                748ms  so that C ≤ T, at least 1.3·E_soft and 4·H",
        "C       takeover wait           1s  (1+ρ)/(1−ρ)·(E + W') + (1+ρ)·D, ρ = 0.001",
        "ok  1s ≥ 500ms  timeout ≥ 3·interval + stall (I1)",
    ] {
        assert!(table.lines().any(|l| l == line), "missing {line:?} in\n{table}");
    }
    assert!(!table.contains("NO "), "{table}");
}

#[test]
fn recommendation_covers_the_longest_gap() {
    assert_eq!(recommended_timeout(ms(310)), ms(1600));
    assert_eq!(recommended_timeout(ms(3)), ms(100));
    assert_eq!(recommended_timeout(Duration::from_secs(600)), Duration::from_secs(300));
}

#[test]
fn a_quorum_server_gets_a_tenth_of_the_timeout_and_the_lease_covers_two_retries_of_it() {
    let with = |timeout: Option<&str>| {
        let mut server = json!({"urls": ["https://w"], "lease": {"namespace": "ha", "name": "pg"}});
        if let Some(timeout) = timeout {
            server["timeout"] = json!(timeout);
        }
        let quorum = json!({"type": "QuorumServer", "quorumServer": server});
        SubClusterSpec {
            quorum: serde_json::from_value(quorum).expect("a quorum"),
            ..spec(json!({"timeout": "3s"}), "50ms")
        }
    };
    let timing = Timing::of(&with(None), None).expect("it holds");
    assert_eq!(timing.io_timeout, timing.timeout / 10);
    assert!(timing.soft_stop >= 3 * timing.interval + 2 * (timing.renew + timing.io_timeout));
    assert!(timing.takeover_wait >= timing.lease + timing.reset);
    let given = Timing::of(&with(Some("50ms")), None).expect("it holds");
    assert_eq!(given.io_timeout, Duration::from_millis(50));
    assert!(given.soft_stop < timing.soft_stop);
    let errors = Timing::of(&with(Some("1s")), None).expect_err("longer than a tenth");
    let fields: Vec<&str> = errors.iter().map(|e| e.field.as_str()).collect();
    assert_eq!(fields, ["spec.quorum.quorumServer.timeout"], "{errors:?}");
    assert!(errors[0].message.contains("give at most 300ms"), "{}", errors[0].message);
}
