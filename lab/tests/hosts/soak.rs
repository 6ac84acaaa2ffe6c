//! Load instead of faults: with every core and the disk saturated for minutes nobody may be taken for dead.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use holdfast_lab::{ClusterOptions, boottime_ns, wait_for};

use crate::harness::Trial;

/// Threads that compute, per core.
const BURNERS: usize = 2;
/// Writers, and the bytes that each makes durable at a time: large ones fill the disk's queue, small ones its log.
const WRITERS: [usize; 4] = [1 << 20, 1 << 20, 4096, 4096];
/// Bytes of a writer's file before it begins anew.
const FILE: u64 = 64 << 20;
/// Down to this timeout there must be no failover; below, the number is told.
const PROMISED: Duration = Duration::from_millis(500);

/// What one run under load showed.
struct Outcome {
    failovers: u64,
    longest_gap: Duration,
    outage: Duration,
}

#[test]
#[ignore = "takes 10 minutes per timeout; run by make soak"]
fn a_saturated_machine_is_no_reason_for_a_failover() {
    let minutes: f64 = given("SOAK_MINUTES", "10").parse().expect("SOAK_MINUTES is a number");
    let time = Duration::from_secs_f64(minutes * 60.0);
    let timeouts = given("SOAK_TIMEOUTS", "1000,500");
    let mut broken = Vec::new();
    for timeout in timeouts.split(',').map(|text| text.parse().expect("SOAK_TIMEOUTS are milliseconds")) {
        let timeout = Duration::from_millis(timeout);
        let outcome = soak(timeout, time);
        println!(
            "timeout {} ms, {} s under load: {} false failovers, longest gap between frames {} ms ({:.0} % of the timeout), \
             longest time without an answer {} ms",
            timeout.as_millis(),
            time.as_secs(),
            outcome.failovers,
            outcome.longest_gap.as_millis(),
            100.0 * outcome.longest_gap.as_secs_f64() / timeout.as_secs_f64(),
            outcome.outage.as_millis()
        );
        if outcome.failovers > 0 && timeout >= PROMISED {
            broken.push(timeout);
        }
    }
    assert!(broken.is_empty(), "false failovers at {broken:?}");
}

fn given(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Runs the example `two-servers` at this timeout under full load.
fn soak(timeout: Duration, time: Duration) -> Outcome {
    let name = format!("soak-{}", timeout.as_millis());
    let trial = Trial::start_with(&name, "two-servers", ClusterOptions::default(), |documents| {
        for (_, document) in documents.iter_mut().filter(|(_, document)| document["kind"] == "SubCluster") {
            document["spec"]["heartbeat"]["timeout"] = format!("{}ms", timeout.as_millis()).into();
            document["spec"]["brakes"]["maxMovesPerGroup"] = 1000.into();
        }
    });
    let (active, epoch, before) = (trial.active(), trial.epoch(), boottime_ns());
    let mut longest_gap = Duration::ZERO;
    under_load(trial.cluster.lab().directory(), || {
        wait_for("the time to pass", time + Duration::from_secs(120), |_| {
            // The newest of them say it, or the next ones will: under this load an answer may be missed.
            for server in trial.cluster.servers().unwrap_or_default().into_values() {
                let gaps =
                    server.status.into_iter().flat_map(|status| status.paths).filter_map(|path| path.longest_gap);
                longest_gap = gaps.map(|gap| gap.get()).fold(longest_gap, Duration::max);
            }
            trial.pass(Duration::from_secs(1));
            Ok((boottime_ns() - before > time.as_nanos() as u64).then_some(()))
        })
        .expect("time passes");
    });
    let outage = trial.outage_since(before);
    let history = trial.history();
    let moves = history.len() as u64 - 1;
    assert_eq!(history[0], active);
    let failovers = (trial.epoch() - epoch).max(moves);
    trial.cluster.close().expect("the lab goes");
    Outcome { failovers, longest_gap, outage }
}

/// Saturates cores and disk while `work` is done, and says with what.
fn under_load(directory: &Path, work: impl FnOnce()) {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..cores * BURNERS {
            scope.spawn(|| {
                let mut state = 1_u64;
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..10_000 {
                        state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                    }
                }
            });
        }
        for (number, size) in WRITERS.into_iter().enumerate() {
            let (path, stop, written) = (directory.join(format!("load-{number}")), &stop, &written);
            scope.spawn(move || {
                let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path).expect("a file");
                let (bytes, mut at) = (vec![0x5a; size], 0);
                while !stop.load(Ordering::Relaxed) {
                    file.write_all(&bytes).and_then(|()| file.sync_data()).expect("the disk takes it");
                    written.fetch_add(size as u64, Ordering::Relaxed);
                    at += size as u64;
                    if at >= FILE {
                        at = 0;
                        file.seek(SeekFrom::Start(0)).expect("the beginning");
                    }
                }
                let _ = fs::remove_file(&path);
            });
        }
        work();
        stop.store(true, Ordering::Relaxed);
    });
    println!("load: {} threads on {cores} cores, {} MiB written durably", cores * BURNERS, written.into_inner() >> 20);
}
