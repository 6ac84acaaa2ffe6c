//! A short run of what `make sim` does for as long as one likes.

use holdfast_sim::schedule::Schedule;

/// Seeds that once broke an invariant: they stay.
const KEPT: [u64; 23] = [
    4, 5, 25, 47, 56, 72, 181, 193, 244, 286, 489, 566, 1046, 1413, 1625, 3507, 4999, 7374, 7769, 9462, 11739, 11999,
    15037,
];

#[test]
fn random_faults_break_no_invariant() {
    let seeds = KEPT.into_iter().chain(1000..1060);
    for seed in seeds {
        let run = Schedule::random(seed).run(false);
        assert_eq!(run.violation, None, "replay with `make sim SEED={seed}`");
    }
}
