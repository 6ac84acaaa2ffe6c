//! What holds for every plan, over generated clusters: safe, deterministic, settled after a few steps, and with as
//! little change as possible. Whether single decisions are the wanted ones is shown by the scenarios.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_planner::{
    Action, AfterScope, Amount, Current, Declared, Group, Input, Phase, Plan, Relations, Request, ServerState,
    Strength, check, plan,
};
use proptest::prelude::*;

const SERVERS: [&str; 4] = ["a", "b", "c", "d"];

fn server() -> impl Strategy<Value = String> {
    prop::sample::select(&SERVERS[..]).prop_map(String::from)
}

fn some_servers(from: usize) -> impl Strategy<Value = Vec<String>> {
    prop::sample::subsequence(SERVERS.to_vec(), from..=SERVERS.len())
        .prop_shuffle()
        .prop_map(|names| names.into_iter().map(String::from).collect())
}

fn current() -> impl Strategy<Value = Current> {
    let phase =
        prop::sample::select(vec![Phase::Starting, Phase::Online, Phase::Stopping, Phase::Failed, Phase::Stuck]);
    prop_oneof![
        3 => Just(Current::Offline),
        5 => (server(), phase).prop_map(|(server, phase)| Current::On { server, phase }),
        1 => some_servers(1).prop_map(|s| Current::Unknown { servers: s.into_iter().collect() }),
        1 => some_servers(2).prop_map(|s| Current::Conflict { servers: s.into_iter().collect() }),
    ]
}

/// Names of up to two of the groups, with something said of each.
fn others<T: std::fmt::Debug + Clone + 'static>(of: &'static [T]) -> impl Strategy<Value = BTreeMap<String, T>> {
    prop::collection::btree_map((0..7).prop_map(|i| format!("g{i}")), prop::sample::select(of), 0..3)
}

fn relations() -> impl Strategy<Value = Relations> {
    const STRENGTHS: &[Strength] = &[Strength::Required, Strength::Preferred];
    const SCOPES: &[AfterScope] = &[AfterScope::Any, AfterScope::SameServer];
    let requires = (0..4_u64, 0..4_u64).prop_map(|(cpu_milli, memory)| Amount { cpu_milli, memory });
    let rarely = |some: BoxedStrategy<BTreeMap<String, Strength>>| prop_oneof![2 => Just(BTreeMap::new()), 1 => some];
    let after = prop_oneof![3 => Just(BTreeMap::new()), 1 => others(SCOPES)];
    (requires, rarely(others(STRENGTHS).boxed()), rarely(others(STRENGTHS).boxed()), after)
        .prop_map(|(requires, separate_from, together, after)| Relations { requires, separate_from, together, after })
}

prop_compose! {
    fn group()(
        online in prop::bool::weighted(0.8),
        held in prop::bool::weighted(0.2),
        policy in some_servers(0),
        priority in prop::sample::select(vec![0_u16, 100, 1000]),
        failback in some_servers(0),
        relations in relations(),
        current in current(),
        failed in prop::collection::btree_set(server(), 0..2),
        request in prop::option::weighted(0.3, server()),
        stop_when_no_server_left in any::<bool>(),
        frozen in prop::bool::weighted(0.1),
    ) -> Group {
        Group {
            declared: if online { Declared::Online } else { Declared::Offline },
            holds: if held { BTreeSet::from(["Stopped".to_string()]) } else { BTreeSet::new() },
            policy,
            priority,
            failback_to: failback.into_iter().collect(),
            relations,
            current,
            failed_on: failed.into_iter().map(|s| (s, "exit 1".to_string())).collect(),
            request: request.map(|server| Request { server }),
            stop_when_no_server_left,
            frozen: frozen && held,
        }
    }
}

fn input() -> impl Strategy<Value = Input> {
    let state =
        prop_oneof![4 => Just(ServerState::Member), 1 => Just(ServerState::Detached), 1 => Just(ServerState::Lost)];
    // A server may be missing altogether: removed from the spec while something still says that it holds a group.
    let servers = prop::collection::vec(prop::option::weighted(0.9, state), SERVERS.len());
    let amount = (0..9_u64, 0..9_u64).prop_map(|(cpu_milli, memory)| Amount { cpu_milli, memory });
    let capacity = prop::collection::vec(prop::option::of(amount), SERVERS.len());
    (servers, capacity, prop::collection::vec(group(), 0..6)).prop_map(|(states, capacity, groups)| Input {
        servers: SERVERS.iter().zip(states).filter_map(|(name, s)| Some((name.to_string(), s?))).collect(),
        capacity: SERVERS.iter().zip(capacity).filter_map(|(name, c)| Some((name.to_string(), c?))).collect(),
        groups: groups.into_iter().enumerate().map(|(i, g)| (format!("g{i}"), g)).collect(),
    })
}

/// Nothing that one group has to do with another.
fn unrelated(mut input: Input) -> Input {
    input.groups.values_mut().for_each(|group| group.relations = Relations::default());
    input
}

/// The sub-cluster after every step of the plan went well.
fn carry_out(mut input: Input, plan: &Plan) -> Input {
    for (name, decision) in &plan.decisions {
        let group = input.groups.get_mut(name).expect("decided about a group of the input");
        match &decision.action {
            Action::Keep | Action::Wait => {}
            Action::Start { server } => group.current = Current::On { server: server.clone(), phase: Phase::Online },
            Action::Stop { .. } => group.current = Current::Offline,
        }
    }
    input
}

fn actions(plan: &Plan) -> BTreeMap<&String, &Action> {
    plan.decisions.iter().map(|(name, decision)| (name, &decision.action)).collect()
}

fn settles(mut now: Input, steps: usize) -> Result<(), TestCaseError> {
    for _ in 0..steps {
        now = carry_out(now.clone(), &plan(&now));
    }
    let settled = plan(&now);
    let moving: Vec<_> =
        actions(&settled).into_iter().filter(|(_, a)| !matches!(a, Action::Keep | Action::Wait)).collect();
    prop_assert!(moving.is_empty(), "still moving: {:?}", moving);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Never outside the policy, never on a second server, never while something is unproven: `check` has the list.
    #[test]
    fn every_plan_is_safe(input in input()) {
        prop_assert_eq!(check(&input, &plan(&input)), vec![]);
    }

    /// The same answer for the same question, whatever the relations.
    #[test]
    fn the_same_question_has_the_same_answer(input in input()) {
        prop_assert_eq!(plan(&input), plan(&input.clone()));
    }

    /// And for one group whether or not it is asked about the others, as long as they have nothing to do with it.
    #[test]
    fn a_decision_depends_on_nothing_else(input in input()) {
        let input = unrelated(input);
        let whole = plan(&input);
        prop_assert_eq!(&whole, &plan(&input.clone()));
        for (name, group) in &input.groups {
            let alone = Input { groups: [(name.clone(), group.clone())].into(), ..input.clone() };
            prop_assert_eq!(&plan(&alone).decisions[name], &whole.decisions[name]);
        }
    }

    /// A stop and a start are all that a group ever needs by itself; then nothing is left to do.
    #[test]
    fn it_settles(input in input()) {
        settles(unrelated(input), 2)?;
    }

    /// With relations one step may wait for another's; still no plan goes in circles.
    #[test]
    fn it_settles_with_relations(input in input()) {
        let steps = 2 + 2 * input.groups.len();
        settles(input, steps)?;
    }

    /// What runs where it may run moves for others only if it makes room for a more important one, or must be apart from
    /// or together with another: never for mere preferences, and never because more is required than there is.
    #[test]
    fn preferences_and_shortage_move_nothing(input in input()) {
        let mut input = input;
        for group in input.groups.values_mut() {
            group.request = None;
            group.failback_to.clear();
            group.relations.separate_from.retain(|_, strength| *strength == Strength::Preferred);
            group.relations.together.retain(|_, strength| *strength == Strength::Preferred);
            group.priority = 100;
        }
        for (name, decision) in plan(&input).decisions {
            let group = &input.groups[&name];
            let Current::On { server, phase: Phase::Online } = &group.current else { continue };
            let alone = unrelated(Input { groups: [(name.clone(), group.clone())].into(), ..input.clone() });
            let stays = plan(&alone).decisions[&name].action == Action::Keep;
            if stays {
                prop_assert_eq!(&decision.action, &Action::Keep, "{} leaves {}", name, server);
            }
        }
    }

    /// What runs where it may run stays there, unless someone asked for another place.
    #[test]
    fn what_runs_well_is_left_alone(input in input()) {
        let input = unrelated(input);
        for (name, decision) in plan(&input).decisions {
            let group = &input.groups[&name];
            let Current::On { server, phase: Phase::Online } = &group.current else { continue };
            let wanted = group.declared == Declared::Online && group.holds.is_empty();
            let allowed = group.policy.contains(server)
                && !group.failed_on.contains_key(server)
                && input.servers.get(server) == Some(&ServerState::Member);
            if wanted && allowed && group.failback_to.is_empty() && group.request.is_none() {
                prop_assert_eq!(decision.action, Action::Keep);
            }
        }
    }

    /// Losing, detaching or adding a server that holds nothing moves nothing that runs on the others.
    #[test]
    fn a_change_elsewhere_moves_nothing(input in input(), other in server(), becomes in prop::option::of(Just(ServerState::Lost))) {
        let input = unrelated(input);
        let mut changed = input.clone();
        changed.groups.retain(|_, g| g.failback_to.is_empty() && g.request.is_none());
        changed.groups.retain(|_, g| matches!(&g.current, Current::On { server, .. } if *server != other));
        let before = Input { groups: changed.groups.clone(), ..input };
        changed.servers.insert(other.clone(), becomes.unwrap_or(ServerState::Member));
        let (before, after) = (plan(&before), plan(&changed));
        for (name, decision) in &before.decisions {
            if decision.action == Action::Keep && decision.rule == holdfast_planner::Rule::Stay {
                prop_assert_eq!(&after.decisions[name].action, &Action::Keep);
            }
        }
    }

    /// Larger priority first, then the name.
    #[test]
    fn the_order_is_by_priority(input in input()) {
        let order = plan(&input).order;
        let mut wanted: Vec<&String> = input.groups.keys().collect();
        wanted.sort_by_key(|name| (1000 - input.groups[*name].priority, (*name).clone()));
        prop_assert_eq!(order.iter().collect::<Vec<_>>(), wanted);
    }
}
