//! The agent as a program: puts everything together, starts it, ends it.
//!
//! Threads: the driver loop (owns the core, real-time), one per LAN and disk (real-time), ledger, executor, guard
//! keeper, and this one with the API and the local socket. Only the loop decides, and it waits for none of the others.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use holdfast_core::durable::Durable;
use holdfast_core::names::{AcceptorId, ClusterId};
use holdfast_core::{Boot, Core, Input};
use holdfast_telemetry::{endpoint, logs};
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::api_sync::{self, Follower, History, Sources};
use crate::boot::{self, Host};
use crate::cgroup::Hierarchy;
use crate::config::AgentConfig;
use crate::convert::server_status::Facts;
use crate::deadline::{Deadline, DeadlinePage, Role};
use crate::driver_loop::{Driver, Ended};
use crate::effects::Machine;
use crate::executor::{Executor, Settings};
use crate::fencing::{Fencer, Place};
use crate::given::Given;
use crate::guard::dismiss_guard;
use crate::guard_keeper::{GuardKeeper, watchdog_settings};
use crate::inbox::{Event, Inbox};
use crate::ledger::{Ledger, LedgerFile};
use crate::notes::{self, Notes};
use crate::paths::seen::{self, Seen};
use crate::paths::{Paths, keys::Keys};
use crate::spec_cache::SpecCache;
use crate::{bootstrap, clock, local_socket, metrics, realtime};

/// How long the last report may take.
const LAST_REPORT: Duration = Duration::from_secs(3);

type Failed = Box<dyn std::error::Error>;

/// How an agent ended that did not leave cleanly.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It did not start.
    #[error("the agent can't start: {0}")]
    Start(String),
    /// It could not go on.
    #[error("the agent ended: {0}; the guard stops what no lease covers any more")]
    Ended(String),
}

/// Runs the agent of `config_path` until it has left cleanly. The program that calls this also has to serve the hidden
/// commands `helper` and `guard RUN_DIR`, because the agent starts itself with them, and to have set logging up.
///
/// # Errors
/// [`AgentError`]; a supervisor should start the agent again at once.
pub fn agent_main(config_path: &Path) -> Result<(), AgentError> {
    realtime::one_arena();
    match start(config_path) {
        Ok(Ended::Left) => {
            tracing::info!("left cleanly");
            Ok(())
        }
        Ok(reason) => Err(AgentError::Ended(reason.to_string())),
        Err(e) => Err(AgentError::Start(e.to_string())),
    }
}

fn start(config_path: &Path) -> Result<Ended, Failed> {
    let config = AgentConfig::load(config_path)?;
    logs::belongs_to(&config.namespace, &config.sub_cluster);
    for dir in [&config.data_dir, &config.run_dir] {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|e| format!("the directory {} can't be made: {e}", dir.display()))?;
    }
    let _only_one = only_one(&config.run_dir)?;
    let host = Host::default();
    let boot_id = host.boot_id()?;
    let cgroups = Hierarchy::find(config.cgroup.as_deref())?;
    cgroups.enter_agent()?;
    die_as_a_whole();
    if let Err(e) = realtime::lock_memory() {
        tracing::warn!("memory can't be locked ({e}): heavy paging may delay heartbeats; allow CAP_IPC_LOCK");
    }

    // What this server promised and was told.
    let (mut cache, loaded) = (SpecCache::open(&config.data_dir)?, LedgerFile::open(&config.data_dir)?);
    if cache.specs().sub_cluster.is_none()
        && let Some(manifest) = &config.bootstrap_manifest
    {
        bootstrap::load(manifest, &config, &mut cache)?;
    }
    let (ledger_file, durable) = match loaded {
        Some(loaded) => loaded,
        None => {
            let durable = Durable::fresh(AcceptorId(boot::random_id()?), boot_id);
            (LedgerFile::create(&config.data_dir, &durable)?, durable)
        }
    };

    notes::groups_stand(&durable.table);

    // Whoever ends everything when this process can't.
    let page = Arc::new(DeadlinePage::open_or_create(&config.run_dir)?);
    let Deadline { soft, kill, end } = page.deadline();
    page.claim(Role::Agent);
    let program = std::env::current_exe()?;
    let settings = watchdog_settings(cache.specs().sub_cluster.as_deref());
    let base = cgroups.base().to_owned();
    let keeper = GuardKeeper::start(program.clone(), config.run_dir.clone(), base, page.clone(), settings)?;

    let (inbox, events) = Inbox::new();
    let notes = Notes::default();
    let (fence_cgroups, exec_cgroups) = (cgroups.clone(), cgroups.clone());
    let executor = Executor::new(
        Settings {
            server: config.server_name(),
            run_dir: config.run_dir.clone(),
            cgroups,
            program,
            page: page.clone(),
            runtime: executor_runtime()?,
            notes: notes.clone(),
        },
        {
            let inbox = inbox.clone();
            // Without the loop the process is about to end anyway.
            move |input| {
                inbox.deliver(Event::Input(input));
            }
        },
    )?;
    let running = executor.recover();
    let place = Place { me: config.server_name(), cgroups: fence_cgroups, page: page.clone(), inbox: inbox.clone() };
    let fencer = Fencer::start(place, &config.run_dir)?;

    let boot = Boot {
        server: config.server_name(),
        boot: boot_id,
        is_virtual: host.is_virtual(),
        capacity: host.capacity(),
        fresh_cluster: ClusterId(boot::random_id()?),
        deadline: (soft, kill, end),
    };
    let facts = Arc::new(facts(&host, &boot, &durable));
    let keys = Keys::default();
    let heard = Seen::open(&config.data_dir)
        .map_err(|e| format!("{} can't be used: {e}", config.data_dir.join(seen::FILE).display()))?;
    let (publish, snapshots) = watch::channel(None);
    let (seen, guard) = watch::channel(keeper.view());
    let (timeout, watchdog) = watch::channel(keeper.timeout());
    keeper.watch(inbox.clone(), seen, timeout)?;
    let ledger = start_ledger(ledger_file, &inbox)?;
    let mut follower =
        Follower::new(config.clone(), cache, keys.clone(), inbox.clone(), running.clone(), watchdog, keeper);
    follower.adopt_keys();
    follower.adopt();

    let driver = Driver::new(
        Core::new(clock::now(), boot.clone(), durable),
        boot,
        events,
        ledger,
        Paths::new(keys, heard, inbox.clone()),
        Machine::new(executor, fencer, page.clone(), &running, config.power_off.clone()),
        notes.clone(),
        publish,
    );
    let (ended, end) = tokio::sync::oneshot::channel();
    thread::Builder::new().name("core".into()).stack_size(1 << 20).spawn(move || {
        if let Err(e) = realtime::raise_this_thread() {
            tracing::warn!("real-time priority is refused ({e}): load may delay heartbeats; allow CAP_SYS_NICE");
        }
        let _ = ended.send(driver.run());
    })?;
    tracing::info!(
        server = config.server, sub_cluster = config.sub_cluster, namespace = config.namespace,
        boot = %facts.boot, "the agent runs"
    );
    let sources = Sources {
        snapshots,
        guard,
        facts,
        notes,
        history: History::default(),
        given: Given::open(&config.data_dir),
        ending: Arc::new(Notify::new()),
    };
    let ended = serve(config, follower, sources, exec_cgroups, inbox, end)?;
    if matches!(ended, Ended::Left) {
        dismiss_guard(&page);
    }
    Ok(ended)
}

/// The part with the API, the local socket and signals; until the driver loop has ended.
fn serve(
    config: AgentConfig,
    follower: Follower,
    sources: Sources,
    cgroups: Hierarchy,
    inbox: Inbox,
    end: tokio::sync::oneshot::Receiver<Ended>,
) -> Result<Ended, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
    runtime.block_on(async move {
        let listener = local_socket::bind(&config.run_dir)
            .map_err(|e| format!("{} can't be made: {e}", local_socket::path(&config.run_dir).display()))?;
        let (snapshots, guard, facts) = (sources.snapshots.clone(), sources.guard.clone(), sources.facts.clone());
        tokio::spawn(local_socket::serve(
            listener,
            local_socket::Sources { snapshots, guard, facts, inbox: inbox.clone(), given: sources.given.clone() },
        ));
        if let Some(address) = config.metrics {
            let metrics = metrics::of(&config, sources.snapshots.clone(), sources.guard.clone(), sources.facts.clone());
            tokio::spawn(endpoint::serve_at(address, metrics));
        }
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let ending = sources.ending.clone();
        let api = tokio::spawn(api_sync::run(config, follower, sources, cgroups));
        let mut end = end;
        let ended = loop {
            tokio::select! {
                ended = &mut end => break ended,
                _ = term.recv() => leave(&inbox),
                _ = interrupt.recv() => leave(&inbox),
            }
        };
        ending.notify_one();
        if tokio::time::timeout(LAST_REPORT, api).await.is_err() {
            tracing::warn!("the last report did not reach the API");
        }
        ended.map_err(|_| "the driver loop is gone".into())
    })
}

fn leave(inbox: &Inbox) {
    tracing::info!("asked to end: stopping or handing over the groups, then leaving");
    inbox.deliver(Event::Input(Input::Leave));
}

/// Two agents of one server would be two voters with one vote.
fn only_one(run_dir: &Path) -> Result<Flock<File>, Failed> {
    let path: PathBuf = run_dir.join("agent.lock");
    let fail = |e: &dyn std::fmt::Display| format!("{} can't be locked: {e}", path.display());
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_CLOEXEC)
        .open(&path)
        .map_err(|e| fail(&e))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| {
        let text = if e == nix::errno::Errno::EWOULDBLOCK {
            format!("another agent already runs with the run directory {}; stop it first", run_dir.display())
        } else {
            fail(&e)
        };
        text.into()
    })
}

/// A panic of any thread ends the process: half an agent must not look like a whole one. The guard does the rest.
fn die_as_a_whole() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        tracing::error!("a thread of the agent panicked: {info}");
        std::process::exit(101);
    }));
}

/// Operations run on a thread of their own, away from the API.
fn executor_runtime() -> Result<tokio::runtime::Handle, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("executor".into())
        .stack_size(1 << 20)
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

fn start_ledger(file: LedgerFile, inbox: &Inbox) -> Result<Ledger, Failed> {
    let (durable, failed) = (inbox.clone(), inbox.clone());
    let ledger = Ledger::start(
        file,
        move |token| {
            durable.deliver(Event::Input(Input::Durable { token }));
        },
        move |e| {
            failed.deliver(Event::Fatal(e.to_string()));
        },
    )?;
    Ok(ledger)
}

fn facts(host: &Host, boot: &Boot, durable: &Durable) -> Facts {
    let member = durable.view.as_ref().is_some_and(|view| view.members.contains_key(&boot.server));
    Facts {
        server: boot.server.clone(),
        boot: boot.boot.to_string(),
        unclean: durable.barred || durable.boot != boot.boot && member && !durable.clean,
        is_virtual: boot.is_virtual,
        os: host.os(),
        kernel: host.kernel(),
        capacity: boot.capacity,
    }
}
