//! Facts that every plan satisfies, whoever made it. Tests hold them against every generated plan; whoever carries a
//! plan out may do the same before the first step. It does not say whether a plan is *good*, only whether it is safe.

use std::fmt;

use crate::decide::{exclusions, in_view};
use crate::{Action, Current, Declared, Group, Input, Phase, Plan};

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
            }
            Action::Stop { server, then } => {
                match &group.current {
                    Current::On { server: holder, phase: Phase::Starting | Phase::Online | Phase::Failed }
                        if holder == server && in_view(input, server) => {}
                    current => say(format!("stops on {server} while it is {current:?}")),
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
    let mut wrong: Vec<String> =
        exclusions(input, group, server).iter().map(|r| format!("goes to {server}, which is {}", r.name())).collect();
    if group.declared == Declared::Offline || !group.holds.is_empty() {
        wrong.push(format!("goes to {server} although it is declared Offline or held"));
    }
    wrong
}
