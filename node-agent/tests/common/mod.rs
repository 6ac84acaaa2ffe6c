//! A server for tests: run directory, control groups, deadline page, executor; with namespaces, disks and links of its own.
//! Needs root, as the agent does.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod machines;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use holdfast_agent::cgroup::{Cgroup, Hierarchy};
use holdfast_agent::clock;
use holdfast_agent::deadline::{Deadline, DeadlinePage};
use holdfast_agent::executor::{Executor, Operation, Settings};
use holdfast_agent::notes::Notes;
use holdfast_agent::resources::{Network, Sources};
use holdfast_api::v1::Resource;
use holdfast_core::message::Reason;
use holdfast_core::view::Tag;
use holdfast_core::{Action, Context, Input, Outcome};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

pub const HANDS: &str = env!("CARGO_BIN_EXE_holdfast-hands");
pub const GROUP: &str = "ledger";

/// One server.
pub struct Server {
    pub run_dir: tempfile::TempDir,
    pub cgroups: Hierarchy,
    pub page: Arc<DeadlinePage>,
    pub notes: Notes,
    pub executor: RefCell<Executor>,
    runtime: tokio::runtime::Runtime,
    sender: Sender<Input>,
    inputs: Receiver<Input>,
    kept: RefCell<VecDeque<Input>>,
    next: Cell<u64>,
    pub network: RefCell<Network>,
    pub sources: RefCell<Arc<Sources>>,
}

impl Server {
    pub fn new() -> Server {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let run_dir = tempfile::tempdir().unwrap();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let found = Hierarchy::find(None).expect("the tests need cgroup2");
        let base = found.base().parent().unwrap().join(format!("holdfast-test-{}-{number}", std::process::id()));
        let cgroups = Hierarchy::at(&base);
        cgroups.groups().create().expect("the tests need root");
        let page = Arc::new(DeadlinePage::open_or_create(run_dir.path()).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, inputs) = channel();
        let notes = Notes::default();
        let executor = executor(&runtime, run_dir.path(), &cgroups, (&page, &notes), &sender);
        let server = Server {
            run_dir,
            cgroups,
            page,
            notes,
            executor: RefCell::new(executor),
            runtime,
            sender,
            inputs,
            kept: RefCell::default(),
            next: Cell::new(1),
            network: RefCell::default(),
            sources: RefCell::default(),
        };
        server.authority(Duration::from_secs(600));
        server
    }

    /// Authority: soft stop after `soft`, kill and end shortly after.
    pub fn authority(&self, soft: Duration) -> Deadline {
        let soft = clock::now() + soft;
        let deadline =
            Deadline { soft, kill: soft + Duration::from_millis(50), end: soft + Duration::from_millis(1000) };
        self.page.publish(deadline);
        deadline
    }

    /// The agent is started again: a new executor on the same run directory.
    pub fn restart(&self) {
        let new = executor(&self.runtime, self.run_dir.path(), &self.cgroups, (&self.page, &self.notes), &self.sender);
        *self.executor.borrow_mut() = new;
    }

    /// The same after the agent was killed, and with it its helpers.
    pub fn restart_killed(&self) {
        self.cgroups.helpers().kill(Duration::from_secs(2)).unwrap();
        self.restart();
    }

    /// What people were told since this was asked last, as `REASON: MESSAGE`.
    pub fn told(&self) -> Vec<String> {
        let take = || {
            let dated = self.notes.oldest()?;
            self.notes.done(&dated);
            Some(format!("{}: {}", dated.note.reason, dated.note.message))
        };
        std::iter::from_fn(take).collect()
    }

    /// Waits for what an operation that was submitted leads to, while the executor works.
    pub fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let limit = Duration::from_secs(20);
        eventually(what, limit, || self.find(Duration::from_millis(5), &|_| false).is_none() && condition());
    }

    pub fn operation(&self, action: Action, spec: &Resource, timeout: Duration) -> Operation {
        let op = self.next.get();
        self.next.set(op + 1);
        Operation {
            op,
            group: GROUP.into(),
            resource: spec.name.as_str().into(),
            generation: 1,
            spec: Some(spec.clone()),
            action,
            depth: 0,
            context: Context {
                reason: Reason::Failover,
                previous: Some("db2".into()),
                tag: Tag { lineage: 1, epoch: 17, revision: 3 },
            },
            timeout,
            network: self.network.borrow().clone(),
            sources: self.sources.borrow().clone(),
            lacking: None,
        }
    }

    /// Carries an operation out and waits for its answer.
    pub fn run(&self, action: Action, spec: &Resource) -> Outcome {
        self.run_within(action, spec, Duration::from_secs(20))
    }

    pub fn run_within(&self, action: Action, spec: &Resource, timeout: Duration) -> Outcome {
        let operation = self.operation(action, spec, timeout);
        let wanted = operation.op;
        self.executor.borrow().submit(operation);
        let answer = self.wait(
            timeout + Duration::from_secs(10),
            |input| matches!(input, Input::ResourceDone { op, .. } if *op == wanted),
        );
        match answer {
            Input::ResourceDone { outcome, .. } => outcome,
            other => panic!("{other:?}"),
        }
    }

    /// The next input that is `wanted`, within `limit`; others are kept.
    pub fn wait(&self, limit: Duration, wanted: impl Fn(&Input) -> bool) -> Input {
        self.find(limit, &wanted)
            .unwrap_or_else(|| panic!("no such input within {limit:?}; kept: {:?}", self.kept.borrow()))
    }

    pub fn find(&self, limit: Duration, wanted: &impl Fn(&Input) -> bool) -> Option<Input> {
        let until = Instant::now() + limit;
        loop {
            while let Ok(input) = self.inputs.try_recv() {
                self.kept.borrow_mut().push_back(input);
            }
            let at = self.kept.borrow().iter().position(wanted);
            if let Some(at) = at {
                return self.kept.borrow_mut().remove(at);
            }
            if Instant::now() >= until {
                return None;
            }
            self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        }
    }

    /// The message of the next report that the resource has failed by itself.
    pub fn failure(&self, limit: Duration) -> String {
        match self.wait(limit, |input| matches!(input, Input::ResourceFailed { .. })) {
            Input::ResourceFailed { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }

    pub fn cgroup(&self, spec: &Resource) -> Cgroup {
        self.cgroups.resource(GROUP, &spec.name)
    }

    pub fn state(&self, spec: &Resource) -> PathBuf {
        self.run_dir.path().join("resources").join(GROUP).join(&spec.name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let whole = Cgroup::at(self.cgroups.base());
        if let Err(error) = whole.kill(Duration::from_secs(5)) {
            eprintln!("left behind: {error}");
        }
        whole.remove();
    }
}

fn executor(
    runtime: &tokio::runtime::Runtime,
    run_dir: &Path,
    cgroups: &Hierarchy,
    (page, notes): (&Arc<DeadlinePage>, &Notes),
    sender: &Sender<Input>,
) -> Executor {
    let settings = Settings {
        server: "db1".into(),
        run_dir: run_dir.to_owned(),
        cgroups: cgroups.clone(),
        program: HANDS.into(),
        page: Arc::clone(page),
        runtime: runtime.handle().clone(),
        notes: notes.clone(),
    };
    let sender = std::sync::Mutex::new(sender.clone());
    Executor::new(settings, move |input| {
        let _ = sender.lock().unwrap().send(input);
    })
    .unwrap()
}

/// Mounts of this thread are its own from now on.
pub fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("the tests need root");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
}

/// The network of this thread is its own, and empty, from now on.
pub fn own_network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("the tests need root");
    sh("ip link set lo up");
}

/// Runs a shell command that has to succeed; gives its output.
pub fn sh(command: &str) -> String {
    let output = Command::new("/bin/sh").args(["-c", command]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, limit: Duration, condition: impl Fn() -> bool) {
    let until = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < until, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn resource(json: serde_json::Value) -> Resource {
    serde_json::from_value(json).unwrap()
}

pub fn failed(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed(message) => message,
        other => panic!("expected a failure, found {other:?}"),
    }
}

/// A disk: an image file on a loop device.
pub struct Disk {
    pub device: String,
    _directory: tempfile::TempDir,
}

impl Disk {
    pub fn new(megabytes: u32, make: &str) -> Disk {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image").display().to_string();
        sh(&format!("truncate -s {megabytes}M {image}"));
        let device = sh(&format!("losetup --find --show {image}"));
        sh(&format!("{make} {device}"));
        Disk { device, _directory: directory }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}
