//! What a prediction promises, on small sub-clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_planner::{
    AfterScope, Current, Declared, Does, Group, Input, Losses, Measured, Phase, Reason, Relations, Request, Rule,
    ServerState, Times, forecast, outage,
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn group(on: &str) -> Group {
    Group {
        declared: Declared::Online,
        holds: BTreeSet::new(),
        policy: vec!["a".into(), "b".into(), "c".into()],
        priority: 100,
        failback_to: BTreeSet::new(),
        relations: Relations::default(),
        current: Current::On { server: on.into(), phase: Phase::Online },
        failed_on: BTreeMap::new(),
        request: None,
        stop_when_no_server_left: true,
        frozen: false,
    }
}

fn input(groups: Vec<(&str, Group)>) -> Input {
    Input {
        servers: ["a", "b", "c"].map(|name| (name.to_owned(), ServerState::Member)).into(),
        capacity: BTreeMap::new(),
        groups: groups.into_iter().map(|(name, group)| (name.to_owned(), group)).collect(),
    }
}

fn measured(groups: &[(&str, u64, u64)]) -> Measured {
    let times = |stop, start| Times { stop: Some(ms(stop)), start: Some(ms(start)) };
    Measured {
        groups: groups.iter().map(|(name, stop, start)| ((*name).to_owned(), times(*stop, *start))).collect(),
        takeover: Some(ms(1300)),
    }
}

fn lose(servers: &[&str]) -> Losses {
    Losses { servers: servers.iter().map(|name| (*name).to_owned()).collect(), ..Losses::default() }
}

fn steps(forecast: &holdfast_planner::Forecast) -> Vec<String> {
    let one = |step: &holdfast_planner::Step| {
        let does = if step.does == Does::Stop { "stop" } else { "start" };
        format!("{} {does} {} on {}", step.at.as_millis(), step.group, step.server)
    };
    forecast.steps.iter().map(one).collect()
}

#[test]
fn a_lost_server_s_groups_start_elsewhere_after_the_takeover_and_what_comes_after_them_later() {
    let mut app = group("a");
    app.relations.after.insert("base".into(), AfterScope::Any);
    let all = input(vec![("app", app), ("base", group("a")), ("calm", group("b"))]);
    let told = forecast(&all, &lose(&["a"]), &measured(&[("app", 10, 100), ("base", 10, 50)]));
    assert_eq!(steps(&told), ["1300 start base on b", "1350 start app on b"]);
    assert_eq!(told.interruptions["base"].outage, Some(ms(1350)));
    assert_eq!(told.interruptions["base"].outage, outage(Some(ms(1300)), Some(ms(50))));
    assert_eq!(told.interruptions["app"].outage, Some(ms(1450)));
    assert!(!told.interruptions.contains_key("calm"), "{told:?}");
}

#[test]
fn a_move_is_away_for_its_stop_and_its_start() {
    let mut web = group("a");
    web.request = Some(Request { server: "c".into() });
    let told = forecast(&input(vec![("web", web)]), &Losses::default(), &measured(&[("web", 40, 110)]));
    assert_eq!(steps(&told), ["0 stop web on a", "40 start web on c"]);
    assert_eq!((told.interruptions["web"].to.as_deref(), told.interruptions["web"].outage), (Some("c"), Some(ms(150))));
}

#[test]
fn nothing_is_promised_of_what_was_never_measured_nor_of_what_waits_for_it() {
    let mut app = group("a");
    app.relations.after.insert("base".into(), AfterScope::Any);
    let all = input(vec![("app", app), ("base", group("a"))]);
    let told = forecast(&all, &lose(&["a"]), &measured(&[("app", 10, 100)]));
    assert_eq!(steps(&told), ["1300 start base on b", "1300 start app on b"]);
    for name in ["app", "base"] {
        let one = &told.interruptions[name];
        assert_eq!((one.to.as_deref(), one.outage), (Some("b"), None), "{name}");
    }
}

#[test]
fn what_does_not_come_back_says_why() {
    let mut only_a = group("a");
    only_a.policy = vec!["a".into()];
    let all = input(vec![("alone", only_a), ("doubt", group("a"))]);
    let mut losses = lose(&["a"]);
    losses.unproven.insert("doubt".into());
    let told = forecast(&all, &losses, &measured(&[]));
    assert_eq!(steps(&told), Vec::<String>::new());
    let (rule, candidates) = told.interruptions["alone"].stays.clone().expect("it stays away");
    assert_eq!(rule, Rule::NoServerLeft);
    let b = candidates.iter().find(|candidate| candidate.server == "b").expect("b was looked at");
    assert_eq!(b.reasons, [Reason::NotInPolicy]);
    assert_eq!(told.interruptions["doubt"].stays.as_ref().map(|stays| stays.0), Some(Rule::WaitForEvidence));
}

#[test]
fn without_a_quorum_everything_stops_and_nothing_starts() {
    let all = input(vec![("here", group("c")), ("there", group("a"))]);
    let losses = Losses { no_quorum: true, ..lose(&["a", "b"]) };
    let told = forecast(&all, &losses, &measured(&[("here", 1, 1), ("there", 1, 1)]));
    assert!(told.steps.is_empty());
    assert!(told.interruptions.len() == 2 && told.interruptions.values().all(|one| one.to.is_none()), "{told:?}");
}
