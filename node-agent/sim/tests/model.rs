//! Every order of steps around the decision about views, within bounds that take seconds; `make model` goes further.

use holdfast_core::planted::Mutation;
use holdfast_sim::model::{ALL, SCENARIOS, Scenario, Trouble, explore};

fn bounded(scenario: usize, ticks: u64, faults: u8, troubles: &'static [Trouble]) -> Scenario {
    Scenario { ticks, faults, troubles, ..SCENARIOS[scenario].clone() }
}

/// Explores all of it; nothing may be violated.
#[track_caller]
fn safe(scenario: &Scenario) -> bool {
    let found = explore(scenario, None, 2, None);
    println!("{}, {} intervals, {} faults: {found}", scenario.name, scenario.ticks, scenario.faults);
    assert!(found.complete, "{}: {found}", scenario.name);
    found.takeover
}

#[test]
fn without_further_faults_every_order_of_steps_is_safe() {
    let takeovers = SCENARIOS.iter().filter(|scenario| safe(&Scenario { faults: 0, ..(*scenario).clone() })).count();
    assert!(takeovers > 1, "the bound is long enough for groups to be taken over");
}

#[test]
fn with_any_one_fault_every_order_of_steps_is_safe() {
    for (scenario, ticks) in ONE_FAULT {
        safe(&bounded(scenario, ticks, 1, ALL));
    }
}

/// A process ends while its leaning on the lock is on its way, and the next one leans, too: others must not count from
/// the first.
#[test]
#[ignore = "takes minutes"]
fn a_process_that_ends_while_it_leans_on_the_lock_is_not_counted_out_early() {
    safe(&bounded(0, 1, 1, &[Trouble::Crash]));
}

/// (scenario, intervals) that are explored with one fault of any kind.
const ONE_FAULT: [(usize, u64); 1] = [(2, 8)];

#[test]
fn planted_bugs_of_the_decision_are_found() {
    let limit = std::env::var("LIMIT").ok().and_then(|n| n.parse().ok()).unwrap_or(40_000);
    let only = std::env::var("PLANT").ok();
    let mut missed = Vec::new();
    for (mutation, scenario, ticks) in FOUND {
        if only.as_ref().is_some_and(|name| name != mutation.name()) {
            continue;
        }
        let found = explore(&bounded(scenario, ticks, 1, ALL), Some(mutation), 1, Some(limit));
        println!("{:<28} {:<5} {found}", mutation.name(), mutation.rule());
        if found.violation.is_none() {
            missed.push(mutation.name());
        }
    }
    assert!(missed.is_empty(), "not found: {}", missed.join(", "));
}

/// Bugs that the model finds: scenario and intervals in which it does.
const FOUND: [(Mutation, usize, u64); 2] =
    [(Mutation::AcknowledgesAfterAcceptance, 2, 6), (Mutation::SpeaksBeforeDurable, 2, 6)];

/// For `docs/safety.md`: what each planted bug does to the model.
#[test]
#[ignore = "takes minutes; prints the table of docs/safety.md"]
fn table_of_planted_bugs() {
    let limit = std::env::var("LIMIT").ok().and_then(|n| n.parse().ok()).unwrap_or(40_000);
    let only = std::env::var("PLANT").unwrap_or_default();
    for mutation in Mutation::ALL.iter().filter(|mutation| only.is_empty() || only.contains(mutation.name())) {
        let found = (0..SCENARIOS.len()).find_map(|scenario| {
            let found = explore(&bounded(scenario, 8, 1, ALL), Some(*mutation), 1, Some(limit));
            found.violation.map(|violation| (scenario, found.states, violation))
        });
        match found {
            Some((scenario, states, violation)) => {
                let first = violation.lines().next().unwrap_or_default();
                println!("{:<28} {:<5} scenario {scenario}, {states} steps: {first}", mutation.name(), mutation.rule());
            }
            None => println!("{:<28} {:<5} not found", mutation.name(), mutation.rule()),
        }
    }
}
