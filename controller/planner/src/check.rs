//! Facts that every plan satisfies, whoever made it. Tests hold them against every generated plan; whoever carries a
//! plan out may do the same before the first step. It does not say whether a plan is *good*, only whether it is safe.

use std::fmt;

use crate::decide::{exclusions_alone, in_view};
use crate::{Action, AfterScope, Amount, Current, Decision, Declared, Group, Input, Phase, Plan, Strength};

/// A fact that a plan breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The group.
    pub group: String,
    /// What is wrong, in one sentence.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.group, self.message)
    }
}

/// Everything that is wrong with `plan`; empty if it may be carried out.
pub fn check(input: &Input, plan: &Plan) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, decision) in &plan.decisions {
        let mut say = |message: String| violations.push(Violation { group: name.clone(), message });
        let Some(group) = input.groups.get(name) else {
            say("is decided about and not in the input".into());
            continue;
        };
        match &decision.action {
            Action::Keep | Action::Wait => {}
            Action::Start { server } => {
                if group.current != Current::Offline {
                    say(format!("starts on {server} while it is {:?}", group.current));
                }
                target(input, group, server).into_iter().for_each(&mut say);
                beside_others(input, plan, name, group, server).into_iter().for_each(&mut say);
            }
            Action::Stop { server, then } => {
                match &group.current {
                    Current::On { server: holder, phase: Phase::Starting | Phase::Online | Phase::Failed }
                        if holder == server && in_view(input, server) => {}
                    current => say(format!("stops on {server} while it is {current:?}")),
                }
                if group.frozen {
                    say(format!("stops on {server} while it is paused"));
                }
                then.iter().flat_map(|server| target(input, group, server)).for_each(&mut say);
            }
        }
    }
    for name in input.groups.keys() {
        let listed = plan.order.iter().filter(|ordered| *ordered == name).count();
        if !plan.decisions.contains_key(name) || listed != 1 {
            let message = format!("must be decided about and ordered once, is ordered {listed} times");
            violations.push(Violation { group: name.clone(), message });
        }
    }
    violations
}

/// What speaks against running `group` on `server` in the end.
fn target(input: &Input, group: &Group, server: &str) -> Vec<String> {
    let mut wrong: Vec<String> = exclusions_alone(input, group, server)
        .iter()
        .map(|r| format!("goes to {server}, which is {}", r.name()))
        .collect();
    if group.declared == Declared::Offline || !group.holds.is_empty() {
        wrong.push(format!("goes to {server} although it is declared Offline or held"));
    }
    wrong
}

/// What other groups say against starting `group` on `server` now.
fn beside_others(input: &Input, plan: &Plan, name: &str, group: &Group, server: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let starts_there = |decision: &Decision| matches!(&decision.action, Action::Start { server: to } if to == server);
    let is_there = |other: &str, known: &Group| match &known.current {
        Current::On { server: on, .. } => on == server,
        Current::Conflict { servers } => servers.contains(server),
        Current::Offline | Current::Unknown { .. } => plan.decisions.get(other).is_some_and(starts_there),
    };
    let others = input.groups.iter().filter(|(other, _)| other.as_str() != name);
    let beside: Vec<(&String, &Group)> = others.filter(|(other, known)| is_there(other, known)).collect();
    for (other, known) in &beside {
        let apart = [group.relations.separate_from.get(*other), known.relations.separate_from.get(name)];
        if apart.contains(&Some(&Strength::Required)) {
            wrong.push(format!("starts on {server}, where {other} is, from which it must be separate"));
        }
    }
    let wanted = group.relations.requires;
    let used = beside.iter().fold(wanted, |used, (_, known)| used.plus(known.relations.requires));
    if wanted != Amount::default() && input.capacity.get(server).is_some_and(|all| !used.fits(*all)) {
        wrong.push(format!("starts on {server}, which has too little left for it"));
    }
    for (other, scope) in &group.relations.after {
        let online = |current: &Current| match current {
            Current::On { server: on, phase: Phase::Online } => *scope == AfterScope::Any || on == server,
            _ => false,
        };
        if !input.groups.get(other).is_some_and(|known| online(&known.current)) {
            wrong.push(format!("starts before {other} is Online where it has to be"));
        }
    }
    wrong
}
