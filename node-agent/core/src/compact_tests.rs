//! What a serial line may and may not do to a core.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{Brakes, Config, LockKind, PathKind};
use crate::durable::Durable;
use crate::input::{Boot, Input};
use crate::names::{ChainId, ClusterId};
use crate::peers::Verdict;
use crate::view::{Departed, Evidence, Member, MemberTiming, View};

const A: BootId = BootId(0xa1);
const B: BootId = BootId(0xb1);
const SECOND: u64 = 1_000_000_000;

fn timing() -> MemberTiming {
    let lease = Duration::from_millis(500);
    let (soft_stop, kill) = (Duration::from_millis(300), Duration::from_millis(400));
    let (reset, takeover_wait) = (Duration::from_millis(200), Duration::from_secs(1));
    MemberTiming { lease, soft_stop, kill, reset, takeover_wait, watchdog: false }
}

fn config() -> Config {
    let ms = Duration::from_millis;
    Config {
        generation: 1,
        servers: [("a".into(), 1), ("b".into(), 2)].into(),
        detached: Default::default(),
        paths: [("ic".into(), PathKind::Interconnect), ("com".into(), PathKind::Serial)].into(),
        wires: BTreeMap::new(),
        lock: Some(LockKind::Disk),
        lock_at: 0,
        interval: ms(100),
        timeout: ms(1000),
        stall: ms(60_000),
        lease: ms(500),
        soft_stop: ms(300),
        kill: ms(400),
        renew: ms(100),
        io_timeout: ms(50),
        reset: ms(200),
        watchdog: false,
        drain: ms(0),
        takeover_wait: ms(1000),
        grace: ms(0),
        automatic_return: true,
        time_on_virtual_machines: true,
        fencing: Default::default(),
        stopped: false,
        brakes: Brakes { max_losses: 1, losses_within: ms(1), max_moves: 1, moves_within: ms(1) },
        sites: BTreeMap::new(),
        monitors: BTreeMap::new(),
    }
}

fn view(members: &[(&str, BootId, u128)]) -> View {
    let member =
        |boot, id: u128| Member { id: id as u8, acceptor: AcceptorId(id), boot, timing: timing(), is_virtual: false };
    View {
        cluster: ClusterId(7),
        lineage: 1,
        chain: ChainId(8),
        epoch: 3,
        members: members.iter().map(|(name, boot, id)| ((*name).into(), member(*boot, *id))).collect(),
        acceptors: [
            (Acceptor::Server("a".into()), AcceptorId(1)),
            (Acceptor::Server("b".into()), AcceptorId(2)),
            (Acceptor::Lock, AcceptorId(9)),
        ]
        .into(),
        unanimous: false,
        stopped: false,
        started: false,
        forced: false,
        detached: BTreeMap::new(),
        departed: BTreeMap::new(),
        config_generation: 1,
        settings: crate::settings::Settings::of(&config()),
    }
}

/// Server a at `t` = 100 s, in a view.
fn core(view: View) -> Core {
    let boot = Boot {
        server: "a".into(),
        boot: A,
        is_virtual: false,
        deadline: Default::default(),
        capacity: None,
        fresh_cluster: ClusterId(8),
    };
    let mut durable = Durable::fresh(AcceptorId(1), A);
    durable.view = Some(view);
    let mut core = Core::new(Instant(100 * SECOND), boot, durable);
    let (groups, running) = (BTreeMap::new(), BTreeMap::new());
    core.handle(Instant(100 * SECOND), Input::Specs { config: Arc::new(config()), groups, running });
    core
}

fn pair() -> Core {
    core(view(&[("a", A, 1), ("b", B, 2)]))
}

fn from_b(sequence: u64) -> Compact {
    Compact {
        id: 2,
        idle: true,
        is_virtual: false,
        boot_counter: 5,
        boot: B.folded(),
        acceptor: AcceptorId(2).folded(),
        sequence,
        lineage: 1,
        epoch: 3,
        echo: None,
        granted: 0,
    }
}

fn hear(core: &mut Core, ms: u64, compact: Compact) {
    let now = Instant(100 * SECOND + ms * 1_000_000);
    core.handle(now, Input::Compact { path: "com".into(), compact });
    while core.poll_output().is_some() {}
}

#[test]
fn a_server_that_only_a_serial_line_reaches_is_partitioned_and_not_suspected() {
    let mut core = pair();
    for beat in 1..=15 {
        hear(&mut core, beat * 100, from_b(beat * 100_000_000));
    }
    assert_eq!(core.verdict(&"b".into()), Verdict::Partitioned);
    let status = core.status(core.now);
    let path = &status.peers["b"].paths["com"];
    assert!(path.receiving && !path.two_way, "nothing says yet that b hears us");
    core.tick(Instant(103 * SECOND));
    assert_eq!(core.verdict(&"b".into()), Verdict::Suspected, "a cut line is silence like any other");
}

#[test]
fn repetitions_and_frames_of_an_earlier_boot_are_no_signs_of_life() {
    let mut core = pair();
    hear(&mut core, 10, from_b(1_000_000));
    let received = core.peers["b"].received;
    for replayed in [from_b(1_000_000), from_b(900_000), Compact { boot_counter: 4, boot: 77, ..from_b(9_000_000) }] {
        hear(&mut core, 20, replayed);
        assert_eq!(core.peers["b"].received, received, "{replayed:?}");
    }
    // Neither is the same heartbeat on another path a second one.
    hear(&mut core, 30, from_b(2_000_000));
    assert!(core.peers["b"].received > received);
    // A later boot beside the one that speaks is a second machine of that name. Once the first is silent it is the server
    // after a reboot: what was known of the boot before is void.
    let later = Compact { boot_counter: 6, boot: 78, ..from_b(5_000) };
    hear(&mut core, 40, later);
    assert_eq!(core.peers["b"].newest, 2_000);
    hear(&mut core, 2_000, later);
    assert_eq!(core.peers["b"].newest, 5);
}

#[test]
fn only_the_acceptor_of_our_view_grants_and_only_in_our_epoch() {
    let grant = Compact { granted: 100 * SECOND, echo: Some((100 * SECOND, 40)), ..from_b(1_000_000) };
    for (spoilt, why) in [
        (Compact { epoch: 2, ..grant }, "another epoch"),
        (Compact { lineage: 2, ..grant }, "another lineage"),
        (Compact { acceptor: 77, ..grant }, "a server that lost its state"),
        (Compact { granted: 200 * SECOND, ..grant }, "a send that never was"),
        (Compact { id: 1, ..grant }, "our own number"),
        (Compact { id: 3, ..grant }, "a number that nobody has"),
    ] {
        let mut core = pair();
        hear(&mut core, 10, spoilt);
        assert_eq!(core.peers["b"].grant, Instant::ZERO, "{why}");
    }
    let mut core = pair();
    hear(&mut core, 10, grant);
    assert_eq!(core.peers["b"].grant, Instant(100 * SECOND));
    assert_eq!(core.peers["b"].granted, 1_000_000, "b's frame is acknowledged in turn");
    let latency = core.peers["b"].paths["com"].latency.unwrap();
    assert_eq!(latency, Duration::from_micros(9_960) / 2);
    // A frame of another boot than the view's is not acknowledged.
    let mut core = pair();
    hear(&mut core, 10, Compact { boot: 78, ..grant });
    assert_eq!(core.peers["b"].granted, 0);
}

#[test]
fn a_new_boot_is_evidence_and_idleness_only_of_a_server_known_to_be_ours() {
    let departed = || {
        let mut view = view(&[("a", A, 1)]);
        let gone = Departed { is_virtual: false, takeover_wait: Duration::from_secs(60), evidence: None, power: None };
        view.departed.insert(("b".into(), B), gone);
        core(view)
    };
    let key = ("b".into(), B);
    let mut core = departed();
    hear(&mut core, 10, from_b(1_000_000));
    assert_eq!(core.evidence(&key), None, "its sub-cluster is not known");
    hear(&mut core, 20, Compact { is_virtual: true, boot_counter: 6, boot: 78, ..from_b(5_000) });
    assert_eq!(core.evidence(&key), None, "a paused virtual machine may still run elsewhere");
    let mut core = departed();
    hear(&mut core, 20, Compact { boot_counter: 6, boot: 78, ..from_b(5_000) });
    assert_eq!(core.evidence(&key), Some(Evidence::Rebooted));
}

fn any_compact() -> impl Strategy<Value = Compact> {
    let time = 0u64..1 << 48;
    let head = (1u8..=16, any::<bool>(), any::<bool>(), any::<u32>(), any::<u64>(), any::<u64>());
    let order = (time.clone(), any::<u16>(), 0u64..1 << 40);
    let echoes = (proptest::option::of((time.clone(), 0u32..1 << 24)), time);
    (head, order, echoes).prop_map(|(head, order, echoes)| {
        let (id, idle, is_virtual, boot_counter, boot, acceptor) = head;
        Compact {
            id,
            idle,
            is_virtual,
            boot_counter: boot_counter.into(),
            boot,
            acceptor,
            sequence: order.0 * 1000,
            lineage: order.1.into(),
            epoch: order.2,
            echo: echoes.0.map(|(echo, age)| (echo * 1000, age)),
            granted: echoes.1 * 1000,
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(compact in any_compact()) {
        prop_assert_eq!(Compact::decode(&compact.encode().unwrap()), Ok(compact));
    }

    #[test]
    fn bytes_mean_one_thing_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(compact) = Compact::decode(&bytes) {
            prop_assert_eq!(compact.encode().unwrap().to_vec(), bytes);
        }
    }
}

#[test]
fn what_has_no_room_is_said() {
    let error = Compact { epoch: 1 << 40, ..from_b(0) }.encode().unwrap_err().to_string();
    assert_eq!(error, "the epoch is 1099511627776; a compact frame has room for at most 1099511627775");
}
