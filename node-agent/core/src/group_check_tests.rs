use std::collections::BTreeSet;

use holdfast_planner::Relations;

use super::*;
use crate::config::{CheckConfig, Recovery, ResourceConfig, Then};
use crate::message::Reason;
use crate::view::Tag;

const NAME: &str = "app";

fn config(checks: &[(u8, u64)], threshold: u32) -> Arc<GroupConfig> {
    let seconds = Duration::from_secs;
    let recovery = Recovery {
        restarts: 1,
        window: seconds(3600),
        then: Then::Failover,
        max_failovers: 3,
        failover_window: seconds(3600),
        decay: seconds(3600),
    };
    let check = |(depth, interval): &(u8, u64)| {
        (*depth, CheckConfig { interval: seconds(*interval), timeout: seconds(u64::from(*depth) + 1) })
    };
    let resource = ResourceConfig {
        after: BTreeSet::new(),
        requires: BTreeSet::new(),
        enabled: true,
        critical: true,
        start_timeout: seconds(5),
        stop_timeout: seconds(5),
        probe_timeout: seconds(5),
        checks: checks.iter().map(check).collect(),
        monitor_threshold: threshold,
        in_place: None,
        recovery,
    };
    Arc::new(GroupConfig {
        generation: 1,
        online: true,
        auto_start: true,
        policy: Vec::new(),
        priority: 0,
        failback: None,
        relations: Relations::default(),
        resources: BTreeMap::from([(NAME.into(), resource)]),
        monitors: BTreeMap::new(),
        everywhere: BTreeMap::new(),
        shared_data: false,
        restart_on_change: true,
        digest: 1,
        stop_when_no_server_left: false,
        fence_on_stop_failure: false,
        target: None,
        clear: None,
        restart: None,
        hold: None,
    })
}

/// A group of one resource, and the clock.
struct Trial {
    machine: Machine,
    now: Instant,
    op: OpId,
}

impl Trial {
    /// It runs.
    fn new(checks: &[(u8, u64)], threshold: u32) -> Trial {
        let tag = Tag { lineage: 1, epoch: 1, revision: 1 };
        let assignment = Assignment {
            tag,
            server: Some("a".into()),
            generation: 1,
            reason: Reason::Start,
            previous: None,
            next: None,
            holds: BTreeSet::new(),
            paused: None,
            held_by: None,
            part_restarted: None,
            operation: None,
            moves: Vec::new(),
            cleared: None,
            restarted: None,
        };
        // At the end of a slot, so that whole seconds are kept.
        let now = Instant(1_000_000_000);
        let mut trial =
            Trial { machine: Machine::new(now, assignment, config(checks, threshold), 0, false), now, op: 0 };
        let start = trial.request().expect("a start");
        assert_eq!(start.action, Action::Start);
        trial.answer(&start, Outcome::Running);
        trial
    }

    fn request(&mut self) -> Option<Request> {
        let mut requests = self.machine.requests(self.now, true, &mut Vec::new());
        assert!(requests.len() <= 1, "{requests:?}");
        requests.pop()
    }

    fn begin(&mut self, request: &Request) -> OpId {
        self.op += 1;
        self.machine.begun(self.now, request, self.op);
        self.op
    }

    fn answer(&mut self, request: &Request, outcome: Outcome) {
        let op = self.begin(request);
        self.machine.done(self.now, &NAME.into(), op, outcome, Duration::ZERO);
    }

    /// The checks of the next seconds, each answered at once: the second and the depth.
    fn run(&mut self, seconds: u64, answer: impl Fn(u8) -> Outcome) -> Vec<(u64, u8)> {
        let mut seen = Vec::new();
        for second in 1..=seconds {
            self.now = self.now + Duration::from_secs(1);
            while let Some(request) = self.request() {
                if request.action != Action::Monitor {
                    return seen;
                }
                assert_eq!(request.timeout, Duration::from_secs(u64::from(request.depth) + 1));
                seen.push((second, request.depth));
                self.answer(&request, answer(request.depth));
            }
        }
        seen
    }
}

#[test]
fn every_depth_is_checked_in_its_own_time_and_one_at_a_time() {
    let mut trial = Trial::new(&[(0, 2), (10, 3)], 1);
    assert_eq!(trial.run(6, |_| Outcome::Running), [(2, 0), (3, 10), (4, 0), (6, 0), (6, 10)]);
    // A deep one takes its time: no other begins, and then the one that waited.
    trial.now = trial.now + Duration::from_secs(3);
    let plain = trial.request().expect("a check");
    assert_eq!(plain.depth, 0);
    trial.answer(&plain, Outcome::Running);
    let deep = trial.request().expect("a check");
    assert_eq!(deep.depth, 10);
    let op = trial.begin(&deep);
    trial.now = trial.now + Duration::from_secs(9);
    assert_eq!(trial.request(), None);
    trial.machine.done(trial.now, &NAME.into(), op, Outcome::Running, Duration::ZERO);
    assert_eq!(trial.request().map(|request| request.depth), Some(0));
}

#[test]
fn a_plain_check_that_passes_does_not_hide_a_deep_one_that_fails() {
    let mut trial = Trial::new(&[(0, 1), (10, 4)], 2);
    let answer = |depth| if depth == 0 { Outcome::Running } else { Outcome::Failed("no answer".into()) };
    let seen = trial.run(20, answer);
    assert_eq!(seen.iter().filter(|(_, depth)| *depth == 10).count(), 2, "{seen:?}");
    assert_eq!(trial.request().map(|request| request.action), Some(Action::Stop), "it is restarted");
    let report = trial.machine.report(1);
    assert_eq!(report.resources[&ResourceName::from(NAME)].message, "check of depth 10: no answer");
    // Counting begins anew with what is started.
    let stop = trial.request().unwrap();
    trial.answer(&stop, Outcome::Stopped);
    let start = trial.request().unwrap();
    trial.answer(&start, Outcome::Running);
    let seen = trial.run(5, answer);
    assert_eq!((seen.len(), trial.machine.phase()), (6, GroupPhase::Online), "{seen:?}");
}

#[test]
fn a_depth_that_is_new_in_the_specification_is_checked_without_a_restart() {
    let mut trial = Trial::new(&[(0, 100)], 1);
    let mut newer = (*config(&[(0, 100), (20, 50)], 1)).clone();
    newer.generation = 2;
    trial.machine.refresh(&Arc::new(newer));
    assert_eq!(trial.run(60, |_| Outcome::Running), [(1, 20), (51, 20)]);
}
