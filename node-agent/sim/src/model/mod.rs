//! The decision about views as a model: the real core of every server, and every order of the steps of what is around
//! it, within a bound.
//!
//! A state is the whole of a small sub-cluster: cores, ledgers with the writes on their way, messages in flight, the
//! lock with the operations under way, clocks, guards, what runs. From each state every possible next step is tried:
//! a message arrives, a ledger write becomes durable, a lock record lands, the lock is read, a heartbeat interval
//! passes; and, as often as the bound allows, something goes wrong ([`Trouble`]). `stateright` keeps the
//! states that it has seen and stops when there are no new ones.
//!
//! What is coarser than the truth, and never explored: time passes in whole heartbeat intervals, the same on all
//! servers (rates of clocks are the random simulator's); heartbeats, reports, tables and helpers take no time, and
//! writes of the ledger that do not touch the decision are durable at once. States are told apart by a hash of 64
//! bits, and moments are kept as they are: two states are one only if everything in them is equal.

mod check;
mod disk;
mod host;
mod scenario;
mod shared;
mod state;
mod step;

pub use scenario::{ALL, SCENARIOS, Scenario, Trouble, explorations};
pub use state::State;
pub use step::Step;

use std::time::{Duration, Instant};

use holdfast_core::planted::Mutation;
use stateright::{Checker, HasDiscoveries, Model, Property};

/// The invariants that are looked at in every state.
const INVARIANTS: [&str; 6] = ["I-a", "I-b", "I-d", "I-e", "I-f", "I-g"];

/// A scenario, with or without a planted bug.
#[derive(Debug, Clone)]
struct Decision {
    scenario: Scenario,
    mutation: Option<Mutation>,
}

impl Model for Decision {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.scenario.start()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        state.steps(&self.scenario, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        // The checker has threads of its own, and bugs are planted per thread.
        Mutation::plant(self.mutation);
        Some(state.after(&step, &self.scenario))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn holds<const I: usize>(_: &Decision, state: &State) -> bool {
            state.violation.as_ref().is_none_or(|(check, _)| *check != INVARIANTS[I])
        }
        vec![
            Property::always(INVARIANTS[0], holds::<0>),
            Property::always(INVARIANTS[1], holds::<1>),
            Property::always(INVARIANTS[2], holds::<2>),
            Property::always(INVARIANTS[3], holds::<3>),
            Property::always(INVARIANTS[4], holds::<4>),
            Property::always(INVARIANTS[5], holds::<5>),
            // Not vacuous: the scenario gets as far as a takeover.
            Property::sometimes("a group is taken over", |_, state: &State| state.taken_over()),
        ]
    }
}

/// What an exploration found.
#[derive(Debug, Clone)]
pub struct Explored {
    /// Steps tried.
    pub states: usize,
    /// Different states.
    pub unique: usize,
    /// Steps of the longest path.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Every state within the bound was looked at.
    pub complete: bool,
    /// A broken invariant with the steps that lead to it.
    pub violation: Option<String>,
    /// Some state shows a group taken over.
    pub takeover: bool,
}

impl std::fmt::Display for Explored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Explored { states, unique, depth, .. } = self;
        write!(f, "{unique} states, {states} steps, depth {depth}, {:.1} s", self.took.as_secs_f64())?;
        match &self.violation {
            Some(violation) => write!(f, ", VIOLATION {violation}"),
            None if self.complete => write!(f, ", complete, no violation"),
            None => write!(f, ", not complete, no violation"),
        }
    }
}

/// Explores a scenario, with `mutation` planted: all of it, or until a violation is found, or `limit` steps were tried.
/// With a limit short paths come first, and what waits takes memory; without one deep ones do.
pub fn explore(scenario: &Scenario, mutation: Option<Mutation>, threads: usize, limit: Option<usize>) -> Explored {
    let began = Instant::now();
    let model = Decision { scenario: scenario.clone(), mutation };
    let builder = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    match limit {
        Some(limit) => told(builder.target_state_count(limit).spawn_bfs().join(), began, Some(limit)),
        None => told(builder.spawn_dfs().join(), began, None),
    }
}

fn told(checker: impl Checker<Decision>, began: Instant, limit: Option<usize>) -> Explored {
    let mut found = checker.discoveries();
    let takeover = found.remove("a group is taken over").is_some();
    let violation = found.into_values().next().map(|path| {
        let last = path.last_state().violation.clone();
        let (check, text) = last.unwrap_or(("?", String::new()));
        let steps: Vec<String> = path.into_actions().iter().map(|step| format!("  {step:?}")).collect();
        format!("{check}: {text}, after these {} steps:\n{}", steps.len(), steps.join("\n"))
    });
    let states = checker.state_count();
    Explored {
        states,
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
        complete: violation.is_none() && limit.is_none_or(|limit| states < limit),
        violation,
        takeover,
    }
}
