//! Power fencing: carries [`holdfast_core::Output::Fence`] out with the agents of the fence-agents project, and looks
//! at all devices from time to time, so that a broken one is known before it is needed.
//!
//! Every call has a thread of its own, so a device that hangs holds nothing up. What acts is in a control group below the
//! helpers', and on the kill list: a call ends with this server's authority, as everything else does (R23).

pub mod agent;
pub mod call;
pub mod metadata;
pub mod topology;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use holdfast_core::names::ServerName;
use holdfast_core::orders::Power;
use holdfast_core::{Input, OpId};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use crate::cgroup::{Cgroup, Hierarchy};
use crate::clock;
use crate::deadline::DeadlinePage;
use crate::guard::kill_list::{Entry, KillList};
use crate::inbox::{Event, Inbox};

pub use call::{Hands, Known, Seen, fence, switch_on};
pub use topology::{Device, Level, Secrets, Topology};

/// Time between two looks at every device.
const LOOK: Duration = Duration::from_secs(300);
/// The same while one of them does not work.
const LOOK_FAILING: Duration = Duration::from_secs(30);
/// Groups of the kill list that are calls; no group of the API can be called so.
const ON_LIST: &str = ".fence-";

/// What was seen of one device at the last look from this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The device.
    pub device: String,
    /// The server that it switches.
    pub server: String,
    /// How it sees that server, or what is wrong.
    pub result: Result<Seen, String>,
    /// When.
    pub at: Timestamp,
}

/// What is seen of all devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Devices are configured for other servers than this one.
    pub configured: bool,
    /// Each device for each other server, once it was looked at.
    pub checked: Vec<Checked>,
}

enum Order {
    Adopt(Box<Topology>),
    Fire(OpId, ServerName, Option<Power>),
    Cancel(OpId),
    Ended(OpId),
}

/// The handle that the driver loop has.
#[derive(Debug, Clone)]
pub struct Fencer {
    orders: Sender<Order>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Order")
    }
}

/// What a fencer works with.
#[derive(Debug, Clone)]
pub struct Place {
    /// This server.
    pub me: ServerName,
    /// Control groups.
    pub cgroups: Hierarchy,
    /// Deadline page.
    pub page: Arc<DeadlinePage>,
    /// Where answers go.
    pub inbox: Inbox,
}

impl Fencer {
    /// Starts its thread. To be called after the executor has ended what an earlier agent left behind.
    ///
    /// # Errors
    /// When there is no new thread.
    pub fn start(place: Place, run_dir: &Path) -> std::io::Result<(Fencer, watch::Receiver<View>)> {
        let kill_list = KillList::of(run_dir);
        let (orders, receiver) = channel();
        let (publish, view) = watch::channel(View::default());
        let mut worker = Worker {
            place,
            kill_list,
            orders: orders.clone(),
            topology: Arc::default(),
            calls: BTreeMap::new(),
            known: Arc::default(),
            publish: Arc::new(publish),
            look: Arc::default(),
            round: Arc::default(),
        };
        worker.forget_old_calls();
        thread::Builder::new().name("fencing".into()).stack_size(1 << 20).spawn(move || worker.run(&receiver))?;
        Ok((Fencer { orders }, view))
    }

    /// These devices are in force from now on; calls under way go on as they began.
    pub fn adopt(&self, topology: Topology) {
        let _ = self.orders.send(Order::Adopt(Box::new(topology)));
    }

    /// Switches a server off, and on again if that is configured; or what `power` says. Answers by inputs.
    pub fn fire(&self, op: OpId, server: &ServerName, power: Option<Power>) {
        let _ = self.orders.send(Order::Fire(op, server.clone(), power));
    }

    /// Ends a call; it still answers.
    pub fn cancel(&self, op: OpId) {
        let _ = self.orders.send(Order::Cancel(op));
    }
}

struct Worker {
    place: Place,
    kill_list: KillList,
    orders: Sender<Order>,
    topology: Arc<Topology>,
    calls: BTreeMap<OpId, Arc<AtomicBool>>,
    known: Arc<Known>,
    publish: Arc<watch::Sender<View>>,
    /// Ends the look that is under way.
    look: Arc<AtomicBool>,
    /// Number of the newest look; it is raised at the end of one, too.
    round: Arc<AtomicU64>,
}

impl Worker {
    /// Calls of an earlier agent died with it.
    fn forget_old_calls(&self) {
        let old = self.kill_list.entries().unwrap_or_default();
        for entry in old.iter().filter(|entry| entry.group.starts_with(ON_LIST)) {
            if let Err(e) = self.kill_list.release(&entry.group) {
                tracing::warn!("the kill list can't be shortened: {e}");
            }
        }
    }

    fn run(&mut self, orders: &Receiver<Order>) {
        let mut next_look: Option<Instant> = None;
        loop {
            let wait = next_look.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()));
            match orders.recv_timeout(wait) {
                Ok(Order::Adopt(topology)) => {
                    if *self.topology != *topology {
                        self.topology = Arc::from(topology);
                        next_look = Some(self.begin_look());
                    }
                }
                Ok(Order::Fire(op, server, power)) => self.fire(op, server, power),
                Ok(Order::Cancel(op)) => {
                    if let Some(call) = self.calls.get(&op) {
                        call.store(true, Ordering::Relaxed);
                    }
                }
                Ok(Order::Ended(op)) => drop(self.calls.remove(&op)),
                Err(RecvTimeoutError::Timeout) => {
                    if next_look.is_some_and(|at| at <= Instant::now()) {
                        next_look = Some(self.begin_look());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn fire(&mut self, op: OpId, server: ServerName, power: Option<Power>) {
        let cancel = Arc::<AtomicBool>::default();
        self.calls.insert(op, cancel.clone());
        let (place, kill_list, orders) = (self.place.clone(), self.kill_list.clone(), self.orders.clone());
        let (topology, known) = (self.topology.clone(), self.known.clone());
        let work = move || {
            let levels = topology.get(&server.0).map(Vec::as_slice).unwrap_or_default();
            let result = carry_out(&place, &kill_list, &known, (op, &server, levels, power), &cancel);
            if let Err(problem) = &result {
                tracing::error!(%server, "fencing: {problem}");
            }
            place.inbox.deliver(Event::Input(Input::FenceEnded { op, result }));
            let _ = orders.send(Order::Ended(op));
        };
        if let Err(e) = thread::Builder::new().name("fence".into()).stack_size(1 << 20).spawn(work) {
            let result = Err(format!("there is no thread for it: {e}"));
            self.place.inbox.deliver(Event::Input(Input::FenceEnded { op, result }));
        }
    }

    /// Looks at every device of the others; gives when to look again if nothing changes.
    fn begin_look(&mut self) -> Instant {
        self.look.store(true, Ordering::Relaxed);
        self.look = Arc::default();
        let devices: Vec<Device> = self
            .topology
            .iter()
            .filter(|(server, _)| **server != self.place.me.0)
            .flat_map(|(_, levels)| levels.iter().flat_map(|level| level.devices.clone()))
            .collect();
        let failing = {
            let view = self.publish.borrow();
            view.checked.iter().any(|checked| checked.result.is_err())
        };
        let pause = if failing || devices.is_empty() { LOOK_FAILING } else { LOOK };
        let (cancel, known, publish) = (self.look.clone(), self.known.clone(), self.publish.clone());
        let number = self.round.fetch_add(1, Ordering::Relaxed) + 1;
        let round = self.round.clone();
        let cgroup = self.place.cgroups.helpers().child(&format!("fence-look-{number}"));
        let work = move || {
            known.forget();
            let mut view = View { configured: !devices.is_empty(), checked: Vec::new() };
            for device in &devices {
                let hands = Hands { cgroup: Some(&cgroup), cancel: &cancel, known: &known };
                let result = hands.test(device);
                if cancel.load(Ordering::Relaxed) || round.load(Ordering::Relaxed) != number {
                    return;
                }
                if let Err(problem) = &result {
                    tracing::warn!(?device, "a fence device does not work: {problem}");
                }
                let (device, server) = (device.name.clone(), device.server.clone());
                if view.checked.iter().all(|c| (&c.device, &c.server) != (&device, &server)) {
                    view.checked.push(Checked { device, server, result, at: Timestamp::now() });
                }
            }
            publish.send_replace(view);
        };
        if let Err(e) = thread::Builder::new().name("fence-look".into()).stack_size(1 << 20).spawn(work) {
            tracing::warn!("the fence devices can't be looked at: {e}");
        }
        Instant::now() + pause
    }
}

/// One call, on its own thread.
fn carry_out(
    place: &Place,
    kill_list: &KillList,
    known: &Known,
    (op, server, levels, power): (OpId, &ServerName, &[Level], Option<Power>),
    cancel: &AtomicBool,
) -> Result<(), String> {
    let cgroup: Cgroup = place.cgroups.helpers().child(&format!("fence-{op}"));
    let group = format!("{ON_LIST}{op}");
    let entry = Entry::processes(&group, &server.0, cgroup.path());
    kill_list.hold(&entry).map_err(|e| format!("not begun, because the kill list can't be written: {e}"))?;
    // Looked at when the guard already knows: from here on it ends the call if authority ends.
    let result = if place.page.may_start(clock::now()) {
        let hands = Hands { cgroup: Some(&cgroup), cancel, known };
        if power == Some(Power::On) {
            tracing::warn!(%server, "switching it on");
            switch_on(levels, hands)
        } else {
            tracing::warn!(%server, "switching it off");
            fence(levels, power, hands, |message| {
                tracing::info!(%server, "verified off: {message}");
                place.inbox.deliver(Event::Input(Input::FencedOff { op, message }));
            })
        }
    } else {
        Err("not begun: this server's authority has ended".to_owned())
    };
    if let Err(e) = kill_list.release(&group) {
        tracing::warn!("the kill list can't be shortened; the guard may look for a call that has ended: {e}");
    }
    result
}

/// Takes a lock whose holder can't have left anything half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
