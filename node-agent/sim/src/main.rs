//! `make sim`: random schedules until the time is over; a failing one is shrunk and told.
//!
//!   holdfast-sim [--seconds N] [--servers N] [--seed N] [--plant MUTATION] [--aim MUTATION]
//!
//!   holdfast-sim --model all|N [--ticks N] [--plant MUTATION]
//!
//! `make model`: every order of steps around the decision about views, within the bounds that were found to end in
//! minutes, or with up to N faults everywhere.
//! `--servers` takes only sub-clusters of that size (2 to 16), to compare figures.
//! `--plant` makes a bug in the core; `--aim` tells the schedule that is aimed at one, with the bug or without it.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_core::planted::Mutation;
use holdfast_sim::aimed;
use holdfast_sim::model::{SCENARIOS, Scenario, explorations, explore};
use holdfast_sim::schedule::Schedule;

#[derive(Default)]
struct Total {
    schedules: u64,
    seconds: f64,
    failures: Vec<(u64, String)>,
}

fn main() -> ExitCode {
    let mut seconds = 60;
    let mut seed = None;
    let mut servers = None;
    let mut mutation = None;
    let mut aim = None;
    let (mut model, mut ticks) = (None, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().unwrap_or_default();
        let number = value.parse::<u64>().ok();
        match (arg.as_str(), number) {
            ("--seconds", Some(n)) => seconds = n,
            ("--seed", Some(n)) => seed = Some(n),
            ("--servers", Some(n)) if (2..=16).contains(&n) => servers = Some(n as usize),
            ("--model", Some(n)) if n <= 9 => model = Some(Some(n as u8)),
            ("--model", None) if value == "all" => model = Some(None),
            ("--ticks", Some(n)) => ticks = Some(n),
            ("--plant", _) if Mutation::named(&value).is_some() => mutation = Mutation::named(&value),
            ("--aim", _) if Mutation::named(&value).is_some() => aim = Mutation::named(&value),
            _ => {
                let names: Vec<&str> = Mutation::ALL.iter().map(|mutation| mutation.name()).collect();
                eprintln!(
                    "{arg} {value}: allowed are --seconds N, --servers 2 to 16, --seed N, --model all or 0 to 9, --ticks N, --plant and --aim with one of {}",
                    names.join(", ")
                );
                return ExitCode::from(2);
            }
        }
    }
    if let Some(faults) = model {
        return explore_all(faults, ticks, mutation);
    }
    Mutation::plant(mutation);
    if let Some(aim) = aim {
        let Some(schedule) = aimed::at(aim, seed.unwrap_or(0)) else {
            eprintln!("{}: chance brings it out; there is no schedule aimed at it", aim.name());
            return ExitCode::from(2);
        };
        let run = schedule.run(true);
        println!("{}\n{}", run.story, run.violation.as_deref().unwrap_or("no violation"));
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = seed {
        let run = tell(seed);
        println!("1 schedules, {:.0} simulated seconds, {} violations", run.0, u8::from(run.1));
        return if run.1 { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let (next, total) = (AtomicU64::new(0), Mutex::new(Total::default()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                Mutation::plant(mutation);
                while Instant::now() < end {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let schedule = Schedule::random(seed);
                    if servers.is_some_and(|servers| schedule.shape.servers != servers) {
                        continue;
                    }
                    let run = schedule.run(false);
                    let Ok(mut total) = total.lock() else { return };
                    total.schedules += 1;
                    total.seconds += run.seconds;
                    if let Some(violation) = run.violation {
                        println!("seed {seed}: {violation}");
                        total.failures.push((seed, violation));
                    }
                    if total.failures.len() >= 10 {
                        return;
                    }
                }
            });
        }
    });
    let Ok(total) = total.into_inner() else { return ExitCode::FAILURE };
    if let Some((seed, _)) = total.failures.first() {
        tell(*seed);
    }
    let rate = total.seconds / (seconds.max(1) * cores as u64) as f64;
    println!("{rate:.0} simulated seconds per second and core");
    println!(
        "{} schedules, {:.0} simulated seconds, {} violations",
        total.schedules,
        total.seconds,
        total.failures.len()
    );
    if total.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Explores the model within its bounds, or every scenario with so many faults, and prints the bounds and what it took.
fn explore_all(faults: Option<u8>, ticks: Option<u64>, mutation: Option<Mutation>) -> ExitCode {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let all = match faults {
        None => explorations(),
        Some(faults) => SCENARIOS.into_iter().map(|scenario| Scenario { faults, ..scenario }).collect(),
    };
    let (mut failed, mut states) = (false, 0);
    let began = Instant::now();
    for scenario in all {
        let scenario = Scenario { ticks: ticks.unwrap_or(scenario.ticks), ..scenario };
        let found = explore(&scenario, mutation, threads, None);
        println!("{scenario}: {found}");
        failed |= found.violation.is_some();
        states += found.unique;
    }
    println!("{states} states in {:.0} s", began.elapsed().as_secs_f64());
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs one seed; if it fails, shrinks it and prints what is left with its story.
fn tell(seed: u64) -> (f64, bool) {
    let schedule = Schedule::random(seed);
    let run = schedule.run(false);
    let Some(violation) = run.violation else { return (run.seconds, false) };
    let small = schedule.shrink(&violation);
    let told = small.run(true);
    println!("seed {seed}: {violation}\n{:?}, shrunk from {} to these steps:", small.shape, schedule.steps.len());
    for (pause, fault) in &small.steps {
        println!("  {pause:>6} ms later: {fault:?}");
    }
    println!("{}\nreplay: make sim SEED={seed}", told.story);
    (run.seconds, true)
}
