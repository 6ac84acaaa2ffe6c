//! Reads `scenarios/*.txt`: a sub-cluster in words, and below `plan` what the planner says about it. A wrong line shows
//! as a diff of that file after running with `UPDATE_SCENARIOS=1`.
//!
//! A server line: `Member a b`, or with what they have `Member a b; cpu 4000; memory 16` (thousandths of a processor, bytes).
//!
//! A group line: `name: declared; policy a b; <where>; priority 200; hold Stopped; failed on a; request b; failback to a;
//! paused; keeps without server; cpu 500; memory 2; apart from x; together with x; after x; after x there`, where `<where>` is
//! `offline`, `<phase> on <server>`, `unknown a b` or `conflict a b`. `rather apart from x` is a preferred relation.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use holdfast_planner::{
    Action, AfterScope, Amount, Current, Decision, Declared, Group, Input, Phase, Relations, Request, ServerState,
    Strength, check, plan,
};

fn server_state(word: &str) -> ServerState {
    match word {
        "Member" => ServerState::Member,
        "Detached" => ServerState::Detached,
        "Lost" => ServerState::Lost,
        other => panic!("a server is Member, Detached or Lost, not {other:?}"),
    }
}

fn phase(word: &str) -> Phase {
    match word {
        "Starting" => Phase::Starting,
        "Online" => Phase::Online,
        "Stopping" => Phase::Stopping,
        "Failed" => Phase::Failed,
        "Stuck" => Phase::Stuck,
        other => panic!("{other:?} is no phase"),
    }
}

fn amount(number: &str) -> u64 {
    number.parse().expect("a number")
}

fn relate(relations: &mut Relations, words: &[&str], strength: Strength) {
    match words {
        ["apart", "from", other] => _ = relations.separate_from.insert(other.to_string(), strength),
        ["together", "with", other] => _ = relations.together.insert(other.to_string(), strength),
        other => panic!("{other:?} is no relation"),
    }
}

/// `Member a b; cpu 4000; memory 16`.
fn servers(line: &str, input: &mut Input) {
    let mut clauses = line.trim().split("; ");
    let (state, names) = clauses.next().and_then(|clause| clause.split_once(' ')).expect("a state and its servers");
    input.servers.extend(names.split_whitespace().map(|name| (name.to_string(), server_state(state))));
    let mut all: Option<Amount> = None;
    for clause in clauses {
        let has = all.get_or_insert(Amount { cpu_milli: u64::MAX, memory: u64::MAX });
        match clause.split_once(' ') {
            Some(("cpu", number)) => has.cpu_milli = amount(number),
            Some(("memory", number)) => has.memory = amount(number),
            other => panic!("{other:?} is nothing that a server has"),
        }
    }
    let known = all.into_iter().flat_map(|all| names.split_whitespace().map(move |name| (name.to_string(), all)));
    input.capacity.extend(known);
}

fn group(line: &str) -> (String, Group) {
    let (name, rest) = line.split_once(':').unwrap_or_else(|| panic!("no colon in {line:?}"));
    let mut clauses = rest.split(';').map(|clause| clause.split_whitespace().collect::<Vec<_>>());
    let declared = match clauses.next().as_deref() {
        Some(["Online"]) => Declared::Online,
        Some(["Offline"]) => Declared::Offline,
        other => panic!("{name}: declared Online or Offline, not {other:?}"),
    };
    let mut group = Group {
        declared,
        holds: Default::default(),
        policy: vec![],
        priority: 100,
        failback_to: Default::default(),
        relations: Relations::default(),
        current: Current::Offline,
        failed_on: Default::default(),
        request: None,
        stop_when_no_server_left: true,
        frozen: false,
    };
    let owned = |words: &[&str]| words.iter().map(|w| w.to_string()).collect::<Vec<_>>();
    for clause in clauses {
        match clause.as_slice() {
            ["policy", servers @ ..] => group.policy = owned(servers),
            ["offline"] => group.current = Current::Offline,
            ["unknown", servers @ ..] => {
                group.current = Current::Unknown { servers: owned(servers).into_iter().collect() }
            }
            ["conflict", servers @ ..] => {
                group.current = Current::Conflict { servers: owned(servers).into_iter().collect() }
            }
            ["failed", "on", server] => {
                group.failed_on.insert(server.to_string(), "failed".into());
            }
            [word, "on", server] => group.current = Current::On { server: server.to_string(), phase: phase(word) },
            ["priority", number] => group.priority = number.parse().expect("priority is a number"),
            ["hold", hold] => {
                group.holds.insert(hold.to_string());
            }
            // On a server that leaves it is held, and no more.
            ["paused"] => (_, group.frozen) = (group.holds.insert("Paused".into()), true),
            ["request", server] => group.request = Some(Request { server: server.to_string() }),
            ["failback", "to", servers @ ..] => group.failback_to = owned(servers).into_iter().collect(),
            ["cpu", number] => group.relations.requires.cpu_milli = amount(number),
            ["memory", number] => group.relations.requires.memory = amount(number),
            ["rather", relation @ ..] => relate(&mut group.relations, relation, Strength::Preferred),
            ["apart" | "together", ..] => relate(&mut group.relations, clause.as_slice(), Strength::Required),
            ["after", other] => _ = group.relations.after.insert(other.to_string(), AfterScope::Any),
            ["after", other, "there"] => _ = group.relations.after.insert(other.to_string(), AfterScope::SameServer),
            ["keeps", "without", "server"] => group.stop_when_no_server_left = false,
            other => panic!("{name}: {other:?} means nothing here"),
        }
    }
    (name.trim().to_string(), group)
}

fn words(decision: &Decision) -> String {
    let action = match &decision.action {
        Action::Keep => "keep".to_string(),
        Action::Start { server } => format!("start on {server}"),
        Action::Stop { server, then: None } => format!("stop on {server}"),
        Action::Stop { server, then: Some(then) } => format!("stop on {server}, then start on {then}"),
        Action::Wait => "wait".to_string(),
    };
    let mut text = format!("{action} ({})\n", decision.rule.name());
    for candidate in &decision.candidates {
        let reasons: Vec<_> = candidate.reasons.iter().map(|r| r.name()).collect();
        let verdict = if candidate.eligible { "eligible" } else { "excluded" };
        let _ = writeln!(text, "    {} {verdict}: {}", candidate.server, reasons.join(", "));
    }
    text
}

/// The question of a scenario, up to and with its line `plan`, and the planner's answer.
fn answer(text: &str) -> String {
    let (question, _) = text.split_once("\nplan\n").expect("a line that says `plan`");
    let mut input = Input::default();
    let mut section = "";
    for line in question.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        match (line, section) {
            ("servers" | "groups", _) => section = line,
            (line, "servers") => servers(line, &mut input),
            (line, "groups") => input.groups.extend([group(line)]),
            (line, _) => panic!("{line:?} belongs to no section; comments begin with #"),
        }
    }
    let plan = plan(&input);
    assert_eq!(check(&input, &plan), vec![], "{question}");
    let mut out = format!("{question}\nplan\n");
    for name in &plan.order {
        let _ = write!(out, "  {name}: {}", words(&plan.decisions[name]));
    }
    out
}

#[test]
fn scenarios() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(&directory).expect("scenarios").map(|e| e.expect("entry").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no scenario in {}", directory.display());
    let mut wrong = String::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("readable");
        let answer = answer(&text);
        if answer != text {
            if std::env::var_os("UPDATE_SCENARIOS").is_some() {
                fs::write(&file, &answer).expect("writable");
            }
            let _ = writeln!(wrong, "{}: the planner says\n{answer}", file.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
