//! Every parser of bytes that come from a network, a line, a disk or another program, under bytes that nobody would write.
//!
//! Each test mutates valid inputs and the files of `fuzz/corpus/NAME` for `FUZZ_SECONDS` (default 0.5; `make fuzz` takes a
//! minute) and checks that the parser never panics, never takes what was altered, and reads back what it wrote. The
//! numbers are seeded by `FUZZ_SEED` (default 1), so a failure comes again; its input is printed, to be kept in the
//! corpus.

mod joining;
mod mutate;
mod stored;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use mutate::Random;
use targets::Target;

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}; it has to be a number")),
        Err(_) => default,
    }
}

/// The files of a target's corpus, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let Ok(entries) = std::fs::read_dir(&directory) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a file of the corpus")).collect()
}

fn run(name: &str, target: &impl Target) {
    let (seconds, seed) = (setting("FUZZ_SECONDS", 0.5_f64), setting("FUZZ_SEED", 1_u64));
    let valid = target.valid();
    for input in &valid {
        assert!(target.takes(input), "{name}: a valid input is refused");
    }
    let check = |input: &[u8]| {
        let outcome = catch_unwind(AssertUnwindSafe(|| target.check(input)));
        if outcome.is_err() {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            panic!("{name}: keep this input as a file in fuzz/corpus/{name}, as bytes (xxd -r -p):\n{hex}");
        }
    };
    let seeds = [valid, corpus(name)].concat();
    seeds.iter().for_each(|input| check(input));
    let mut random = Random::new(seed);
    let (end, mut inputs) = (Instant::now() + Duration::from_secs_f64(seconds), 0_u64);
    while Instant::now() < end {
        let mut input = random.input(&seeds);
        check(&input);
        // Behind a check sum is more to be read wrongly.
        if target.seal(&mut input) {
            check(&input);
        }
        inputs += 1;
    }
    println!("{name}: {inputs} inputs");
    assert!(inputs > 0);
}

macro_rules! fuzz {
    ($($name:ident: $target:expr;)+) => {
        $(#[test]
        fn $name() {
            run(&stringify!($name).replace('_', "-"), &$target);
        })+
    };
}

fuzz! {
    envelope: targets::Envelopes::new();
    frame: targets::Plain::frames();
    message: targets::Plain::messages();
    compact_frame: targets::CompactFrames::new();
    serial_line: targets::SerialLine::new();
    disk_header: targets::DiskHeader;
    disk_beat: targets::DiskBeat;
    disk_lock: targets::DiskLock;
    disk_ring: targets::DiskRing::new();
    heard: targets::Heard;
    ledger: stored::LedgerSlot;
    lock_object: stored::LockObject;
    kill_list: stored::KillLines;
    agent_metadata: stored::AgentMetadata;
    mount_table: stored::MountTable;
    local_command: stored::Commands;
    join_token: joining::JoinTokens;
    agent_credentials: joining::AgentCredentials::new();
}
