//! Every order of steps around the decision about views, within bounds that take seconds; `make model` goes further.

use holdfast_core::planted::Mutation;
use holdfast_sim::model::{ALL, SCENARIOS, Scenario, Trouble, explorations, explore};

/// Explores all of it; nothing may be violated.
#[track_caller]
fn safe(scenario: &Scenario) -> bool {
    let found = explore(scenario, None, 2, None);
    println!("{scenario}: {found}");
    assert!(found.complete, "{scenario}: {found}");
    found.takeover
}

#[test]
fn without_further_faults_every_order_of_steps_is_safe() {
    let takeovers = explorations().iter().filter(|scenario| scenario.faults == 0).filter(|all| safe(all)).count();
    assert!(takeovers > 1, "the bound is long enough for groups to be taken over");
}

#[test]
fn of_three_servers_one_is_cut_off_and_any_one_fault_is_safe() {
    assert!(safe(&SCENARIOS[2]));
}

#[test]
fn of_two_servers_with_a_lock_disk_a_process_ends_at_any_step_or_a_message_is_lost() {
    assert!(safe(&Scenario { troubles: &[Trouble::Crash, Trouble::Loss], ticks: 7, ..SCENARIOS[0].clone() }));
}

/// Bugs that the model finds with one fault: the scenario in which it does, and what is enough.
type Found = (Mutation, usize, &'static [Trouble]);
const FOUND: [Found; 6] = [
    (Mutation::NoReadAfterWrite, 0, &[Trouble::Loss]),
    (Mutation::BallotsIgnored, 0, &[Trouble::Loss]),
    (Mutation::LeanNeverRefused, 0, &[Trouble::Loss]),
    (Mutation::NoLockAnchor, 0, &[Trouble::Loss]),
    (Mutation::AcceptedValueIgnored, 0, &[Trouble::Loss]),
    (Mutation::AcknowledgesAfterAcceptance, 0, &[Trouble::Loss]),
];

#[test]
fn planted_bugs_of_the_decision_are_found() {
    for (mutation, scenario, troubles) in FOUND {
        let scenario = Scenario { troubles, ..SCENARIOS[scenario].clone() };
        let found = explore(&scenario, Some(mutation), 2, None);
        println!("{:<28} {:<5} {found}", mutation.name(), mutation.rule());
        assert!(found.violation.is_some(), "{} in {scenario}: {found}", mutation.name());
    }
}

/// For `docs/safety.md`: in which scenario each planted bug is found with one fault of any kind.
#[test]
#[ignore = "takes minutes; prints the table of docs/safety.md"]
fn table_of_planted_bugs() {
    let only = std::env::var("PLANT").unwrap_or_default();
    for mutation in Mutation::ALL.iter().filter(|mutation| only.is_empty() || only.contains(mutation.name())) {
        let found =
            ALL.iter().map(std::slice::from_ref).flat_map(|troubles| [0, 2, 3, 4].map(|at| (troubles, at))).find_map(
                |(troubles, at)| {
                    let scenario = Scenario { troubles, ..SCENARIOS[at].clone() };
                    let found = explore(&scenario, Some(*mutation), 2, None);
                    found.violation.map(|violation| (at, troubles, found.states, violation))
                },
            );
        match found {
            Some((scenario, troubles, states, violation)) => {
                let first = violation.lines().next().unwrap_or_default();
                println!(
                    "{:<28} {:<5} scenario {scenario}, {troubles:?}, {states} steps: {first}",
                    mutation.name(),
                    mutation.rule()
                );
            }
            None => println!("{:<28} {:<5} not found", mutation.name(), mutation.rule()),
        }
    }
}
