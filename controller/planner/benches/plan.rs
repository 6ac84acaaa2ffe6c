//! How long a plan takes for 16 servers and 1,000 groups that have to do with one another, and a Drill of a whole
//! super-cluster: `make bench` prints it beside its target.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use holdfast_planner::{
    Action, AfterScope, Amount, Current, Declared, Group, Input, Losses, Measured, Phase, Relations, ServerState,
    Strength, Times, forecast, plan,
};

const SERVERS: usize = 16;
const GROUPS: usize = 1000;
const RUNS: usize = 51;
/// Design: a plan in less than this.
const TARGET: Duration = Duration::from_millis(10);

fn server(index: usize) -> String {
    format!("db{:02}", index % SERVERS)
}

fn group(index: usize) -> String {
    format!("group-{index:04}")
}

/// Every group may run on four servers and requires something of them. Of eight, one must be apart from another, one had
/// rather be with another, two come after another.
fn example(groups: usize, current: impl Fn(usize) -> Current) -> Input {
    let one = |i: usize| {
        let neighbour = |distance: usize| group((i + groups - distance) % groups);
        let mut relations = Relations {
            requires: Amount { cpu_milli: 200 + (i as u64 % 7) * 50, memory: (1 + i as u64 % 5) << 30 },
            ..Relations::default()
        };
        match i % 8 {
            0 => drop(relations.separate_from.insert(neighbour(1), Strength::Required)),
            2 => drop(relations.together.insert(neighbour(16), Strength::Preferred)),
            4 => drop(relations.after.insert(neighbour(1), AfterScope::Any)),
            6 => drop(relations.after.insert(neighbour(3), AfterScope::Any)),
            _ => {}
        }
        let wanted = Group {
            declared: Declared::Online,
            holds: BTreeSet::new(),
            policy: (0..4).map(|step| server(i + step * (1 + i % 3))).collect(),
            priority: (i % 10) as u16 * 100,
            failback_to: BTreeSet::new(),
            relations,
            current: current(i),
            failed_on: BTreeMap::new(),
            request: None,
            stop_when_no_server_left: true,
            frozen: false,
        };
        (group(i), wanted)
    };
    Input {
        servers: (0..SERVERS).map(|i| (server(i), ServerState::Member)).collect(),
        capacity: (0..SERVERS).map(|i| (server(i), Amount { cpu_milli: 64_000, memory: 512 << 30 })).collect(),
        groups: (0..groups).map(one).collect(),
    }
}

fn measure(name: &str, input: &Input, does: &str) {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let begin = Instant::now();
            std::hint::black_box(plan(std::hint::black_box(input)));
            begin.elapsed()
        })
        .collect();
    times.sort();
    let (median, worst) = (times[RUNS / 2], times[RUNS - 1]);
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let verdict = if median < TARGET { "reached" } else { "missed" };
    println!(
        "plan, {name:28} {:7.2} ms {:7.2} ms  target {} ms {verdict}  {does}",
        ms(median),
        ms(worst),
        TARGET.as_millis()
    );
}

/// Issue: what the loss of a server would do, in less than this.
const FORECAST_TARGET: Duration = Duration::from_millis(50);

/// How long a prediction takes: every group with times of its own, so that their starts end one after the other.
fn predict(calm: &Input) {
    let times = |i: usize| Times {
        stop: Some(Duration::from_millis(20 + i as u64 % 13)),
        start: Some(Duration::from_millis(50 + i as u64 % 97)),
    };
    let groups = (0..GROUPS).map(|i| (group(i), times(i))).collect();
    let measured = Measured { groups, takeover: Some(Duration::from_millis(1300)) };
    let losses = Losses { servers: BTreeSet::from([server(3)]), ..Losses::default() };
    let mut all: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let begin = Instant::now();
            std::hint::black_box(forecast(std::hint::black_box(calm), &losses, &measured));
            begin.elapsed()
        })
        .collect();
    all.sort();
    let told = forecast(calm, &losses, &measured);
    let (median, worst) = (all[RUNS / 2], all[RUNS - 1]);
    let verdict = if median < FORECAST_TARGET { "reached" } else { "missed" };
    println!(
        "forecast, {:24} {:7.2} ms {:7.2} ms  target {} ms {verdict}  {} steps, {} interrupted",
        "a server is lost",
        median.as_secs_f64() * 1000.0,
        worst.as_secs_f64() * 1000.0,
        FORECAST_TARGET.as_millis(),
        told.steps.len(),
        told.interruptions.len()
    );
}

/// Issue: a Drill of every single server of 128 sub-clusters with 20,000 groups in less than this.
const DRILL_TARGET: Duration = Duration::from_secs(5);
const SUB_CLUSTERS: usize = 128;
const ALL_GROUPS: usize = 20_000;

/// What a Drill without scenarios thinks through: each server lost in turn, in every sub-cluster. Once, it is long enough.
fn drill() {
    let many = |sub: usize| ALL_GROUPS / SUB_CLUSTERS + usize::from(sub < ALL_GROUPS % SUB_CLUSTERS);
    let all: Vec<Input> = (0..SUB_CLUSTERS).map(|sub| settled(example(many(sub), |_| Current::Offline))).collect();
    let took = Times { stop: Some(Duration::from_millis(20)), start: Some(Duration::from_millis(50)) };
    let (mut interrupted, begin) = (0, Instant::now());
    for input in &all {
        let groups = input.groups.keys().map(|name| (name.clone(), took)).collect();
        let measured = Measured { groups, takeover: Some(Duration::from_millis(1300)) };
        for lost in input.servers.keys() {
            let losses = Losses { servers: BTreeSet::from([lost.clone()]), ..Losses::default() };
            interrupted += std::hint::black_box(forecast(input, &losses, &measured)).interruptions.len();
        }
    }
    let took = begin.elapsed();
    println!(
        "drill, {:27} {:7.0} ms {:>10}  target {} ms {}  {} losses, {interrupted} interrupted, {} groups",
        format!("{SUB_CLUSTERS} sub-clusters"),
        took.as_secs_f64() * 1000.0,
        "",
        DRILL_TARGET.as_millis(),
        if took < DRILL_TARGET { "reached" } else { "missed" },
        SUB_CLUSTERS * SERVERS,
        all.iter().map(|input| input.groups.len()).sum::<usize>(),
    );
}

/// What the plan does, so that nobody measures a plan that does nothing.
fn counted(input: &Input) -> String {
    let plan = plan(input);
    let count = |is: fn(&Action) -> bool| plan.decisions.values().filter(|decision| is(&decision.action)).count();
    let starts = count(|action| matches!(action, Action::Start { .. }));
    let stops = count(|action| matches!(action, Action::Stop { .. }));
    format!("{starts} starts, {stops} stops, {} others", plan.decisions.len() - starts - stops)
}

/// Where everything is once all steps of the plans were carried out.
fn settled(mut input: Input) -> Input {
    for _ in 0..20 {
        let plan = plan(&input);
        for (name, decision) in &plan.decisions {
            let Some(group) = input.groups.get_mut(name) else { continue };
            match &decision.action {
                Action::Start { server } => {
                    group.current = Current::On { server: server.clone(), phase: Phase::Online };
                }
                Action::Stop { .. } => group.current = Current::Offline,
                Action::Keep | Action::Wait => {}
            }
        }
    }
    input
}

fn main() {
    println!("{:34} {:>10} {:>10}", format!("{SERVERS} servers, {GROUPS} groups"), "median", "worst");
    let cold = example(GROUPS, |_| Current::Offline);
    measure("nothing runs yet", &cold, &counted(&cold));
    let calm = settled(cold);
    measure("all is well", &calm, &counted(&calm));
    let mut lost = calm.clone();
    lost.servers.insert(server(3), ServerState::Lost);
    for group in lost.groups.values_mut() {
        if matches!(&group.current, Current::On { server: holder, .. } if *holder == server(3)) {
            group.current = Current::Offline;
        }
    }
    measure("a server was lost", &lost, &counted(&lost));
    predict(&calm);
    let mut leaving = calm;
    leaving.servers.insert(server(3), ServerState::Detached);
    measure("a server is taken out", &leaving, &counted(&leaving));
    drill();
}
