//! Every planted bug is caught: by schedules aimed at it first, then by random ones. A simulator that misses one says
//! nothing about the rule that the bug breaks. The table of them stands in `docs/mutations.md`.
//!
//! `PLANT=Name` looks at one only; `UPDATE_DOCS=1` writes the table.

use std::fmt::Write;
use std::path::Path;

use holdfast_core::planted::Mutation;
use holdfast_sim::aimed;
use holdfast_sim::schedule::Schedule;

/// Random schedules that are tried after the aimed ones.
const RANDOM: u64 = 80;

const HEAD: &str = "# Planted bugs

The core is compiled a second time with bugs to be planted in it (`node-agent/core/src/planted.rs`), and a test asserts that
the simulator catches each: by schedules aimed at it (`node-agent/sim/src/aimed.rs`) where chance would be too rare, else
by random ones. `make sim PLANT=Name` shows one. The invariants are those of the protocol; *lease*: a server without a
valid lease runs nothing. This table is written by `make docs`.

| bug | rule | what is wrong | caught by |
|---|---|---|---|
";

/// The invariant that the bug breaks, and what showed it.
fn caught(mutation: Mutation) -> Option<(String, &'static str)> {
    Mutation::plant(Some(mutation));
    let aimed = (0..40).filter_map(|seed| aimed::at(mutation, seed)).map(|schedule| (schedule, true));
    let random = (0..RANDOM).map(|seed| (Schedule::random(seed), false));
    let how = |aimed| if aimed { "aimed" } else { "random" };
    let found = aimed.chain(random).find_map(|(schedule, aimed)| Some((schedule.run(false).violation?, how(aimed))));
    Mutation::plant(None);
    found
}

#[test]
fn every_planted_bug_is_caught() {
    let only = std::env::var("PLANT").ok();
    let mut missed = Vec::new();
    let mut table = HEAD.to_owned();
    let asked = |m: &&Mutation| only.as_ref().is_none_or(|name| name == m.name());
    for mutation in Mutation::ALL.iter().filter(asked) {
        let Some((violation, how)) = caught(*mutation) else {
            missed.push(mutation.name());
            continue;
        };
        let first = violation.lines().next().unwrap_or_default();
        println!("{:<28} {:<5} {how} {first}", mutation.name(), mutation.rule());
        let check = violation.split(':').next().unwrap_or_default();
        let (name, rule, text) = (mutation.name(), mutation.rule(), mutation.text().trim());
        writeln!(table, "| `{name}` | {rule} | {text} | {check}, {how} |").expect("a string takes everything");
    }
    assert!(missed.is_empty(), "not caught: {}", missed.join(", "));
    if only.is_some() {
        return;
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mutations.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&page, &table).expect("docs/mutations.md can be written");
    }
    let known = std::fs::read_to_string(&page).expect("docs/mutations.md is there");
    assert!(known == table, "docs/mutations.md is not what the simulator says: `make docs` writes it");
}

/// A schedule that breaks something without its bug shows nothing.
#[test]
fn what_is_aimed_at_a_bug_breaks_nothing_without_it() {
    // Two bases of one lineage are two words of a person that contradict each other: they run twice until they meet (R22).
    for mutation in Mutation::ALL.iter().filter(|mutation| **mutation != Mutation::EqualLineageAdmitted) {
        for seed in 0..2 {
            let Some(schedule) = aimed::at(*mutation, seed) else { continue };
            assert_eq!(schedule.run(false).violation, None, "{}, seed {seed}", mutation.name());
        }
    }
}
