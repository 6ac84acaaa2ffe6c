//! Every planted bug is caught: by schedules aimed at it first, then by random ones. A simulator that misses one says
//! nothing about the rule that the bug breaks.

use holdfast_core::planted::Mutation;
use holdfast_sim::aimed;
use holdfast_sim::schedule::Schedule;

/// The first schedule that catches a bug: its number and what it violates.
fn caught(mutation: Mutation, schedules: u64) -> Option<(u64, String)> {
    Mutation::plant(Some(mutation));
    let all = (0..40).filter_map(|seed| aimed::at(mutation, seed)).chain((0..schedules).map(Schedule::random));
    let found = (1..).zip(all).find_map(|(number, schedule)| Some((number, schedule.run(false).violation?)));
    Mutation::plant(None);
    found
}

#[test]
fn every_planted_bug_is_caught() {
    let only = std::env::var("PLANT").ok();
    let schedules = std::env::var("SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let mut missed = Vec::new();
    for mutation in Mutation::ALL.iter().filter(|m| only.as_ref().is_none_or(|name| name == m.name())) {
        match caught(*mutation, schedules) {
            Some((after, violation)) => {
                println!("{:<28} {:<5} {after:>4}  {violation}", mutation.name(), mutation.rule())
            }
            None => {
                println!("{:<28} {:<5}    -  not caught", mutation.name(), mutation.rule());
                missed.push(mutation.name());
            }
        }
    }
    assert!(missed.is_empty(), "not caught: {}", missed.join(", "));
}
