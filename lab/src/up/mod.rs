//! `holdfast lab up`: builds the cluster of an example on this machine, shows it, cuts the active server's power,
//! shows the takeover, and leaves the cluster up until Ctrl-C. What is shown is made in `screen` and `chart`.

mod chart;
mod screen;

use std::path::PathBuf;
use std::sync::Once;
use std::time::{Duration, Instant};

use holdfast_api::v1::FailoverGroup;

use crate::cluster::{Cluster, ClusterOptions};
use crate::error::{Attempt, LabError, Result};
use crate::poller::{Outage, Poller};
use crate::shell::{boottime_ns, forget_interrupt, interrupt, wait_for};
pub(crate) use screen::Screen;

/// The first start: agents meet, file systems are checked and mounted, programs start.
const FORMATION_LIMIT: Duration = Duration::from_secs(60);
/// A takeover takes about the heartbeat timeout; after this it has failed.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(60);
/// Answers that the client gets from the new server before the outage counts as over for the display.
const STEADY: Duration = Duration::from_millis(500);

/// How `holdfast lab up` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpOptions {
    /// Directory (or file) with the example's manifests.
    pub example: PathBuf,
    /// End after the takeover instead of waiting for Ctrl-C.
    pub once: bool,
}

/// Builds, shows, breaks and takes down as the module says. Ends with success only if the takeover worked.
///
/// # Errors
/// When the example can't be built, the takeover fails, or the lab can't be taken down completely;
/// [`LabError::Interrupted`] when the user ended it before the takeover.
pub fn up(options: &UpOptions) -> Result<()> {
    watch_signals()?;
    let screen = Screen::new();
    let outcome = present(options, &screen);
    forget_interrupt();
    outcome
}

fn present(options: &UpOptions, screen: &Screen) -> Result<()> {
    let progress = |text: &str| screen.step(text);
    let building = ClusterOptions { progress: Some(&progress), ..ClusterOptions::default() };
    let cluster = Cluster::start("up", &options.example, &building)?;
    let outcome = show(&cluster, options, screen);
    // The lab is taken down after an interrupt as well; its waits must not see it.
    forget_interrupt();
    screen.step("taking the lab down");
    let closed = cluster.close();
    screen.done();
    outcome.and(closed)
}

fn show(cluster: &Cluster, options: &UpOptions, screen: &Screen) -> Result<()> {
    screen.step("waiting for every group to be online");
    let start = Instant::now();
    wait_for("every group to be online", FORMATION_LIMIT, |last| {
        // The tree is for people; whether to go on is decided by the objects.
        match cluster.snapshot() {
            Ok(now) => {
                screen.tree(&tree(cluster));
                *last = screen::summary(&now);
                Ok((!now.groups.is_empty() && now.groups.iter().all(screen::is_online)).then_some(()))
            }
            Err(error) => {
                *last = error.to_string();
                Ok(None)
            }
        }
    })?;
    screen.done();
    screen.line(&format!("all groups are online after {:.1} s:", start.elapsed().as_secs_f64()));
    screen.line(&tree(cluster));

    let poller = cluster.poll_service()?;
    poller.wait_for_answer(None, TAKEOVER_LIMIT)?;
    let (group, victim) = active(cluster)?;
    let (after, outage) = take_over(cluster, &poller, &group, &victim, screen)?;
    screen.line(&chart::takeover(&after, &outage, cluster.blueprint().timeout));
    screen.line(&tree(cluster));
    if options.once {
        return Ok(());
    }

    screen.step(&format!("switching {victim} on again: it comes back as standby"));
    // The view that the victim was left out of may not have been reported yet; the one that it returns in is later.
    let without = cluster.epoch()?;
    cluster.power_on(&victim)?;
    let all = &cluster.blueprint().servers;
    let back = cluster.wait_view(all, without, FORMATION_LIMIT);
    screen.done();
    match back {
        Ok(()) => {}
        Err(LabError::Interrupted) => return Ok(()),
        // Part of the presentation, not of what it proves: the cluster stays up to look at.
        Err(error) => screen.line(&format!("note: {error}")),
    }
    screen.line(&tree(cluster));
    screen.line(&commands(cluster, &group, &victim));
    while !matches!(wait_for("Ctrl-C", Duration::from_secs(3600), |_| Ok(None::<()>)), Err(LabError::Interrupted)) {}
    Ok(())
}

/// The group that the client asks, and the server that runs it.
fn active(cluster: &Cluster) -> Result<(String, String)> {
    let snapshot = cluster.snapshot()?;
    let served = snapshot.groups.iter().find(|group| group.spec.resources.iter().any(|r| r.floating_ip.is_some()));
    let group = served.or(snapshot.groups.first()).ok_or_else(|| LabError::Api("there is no group".into()))?;
    let server = group.status.as_ref().and_then(|status| status.server.clone());
    match (group.metadata.name.clone(), server) {
        (Some(name), Some(server)) => Ok((name, server)),
        _ => Err(LabError::Api("the group does not say on which server it runs".into())),
    }
}

/// Cuts the power of `victim` and waits until the client is served by another server and the status says so.
fn take_over(
    cluster: &Cluster,
    poller: &Poller,
    group: &str,
    victim: &str,
    screen: &Screen,
) -> Result<(FailoverGroup, Outage)> {
    screen.line(&format!("cutting the power of {victim}, which runs {group}"));
    let before = boottime_ns();
    cluster.power_cut(victim)?;
    screen.step("waiting for the takeover");
    wait_for("the client to be served again", TAKEOVER_LIMIT, |last| {
        let Some(answer) = poller.last() else { return Ok(None) };
        *last = format!("{answer:?}");
        Ok((answer.begun_ns > before && answer.content != victim).then_some(()))
    })?;
    let served = boottime_ns();
    wait_for("the client to be served steadily", TAKEOVER_LIMIT, |_| {
        let steady = u64::try_from(STEADY.as_nanos()).unwrap_or(u64::MAX);
        Ok((boottime_ns() > served + steady).then_some(()))
    })?;
    let outage = poller.longest_outage(before).ok_or_else(|| LabError::Api("the client saw no outage".into()))?;
    let after =
        cluster.wait_group(group, &format!("be online elsewhere than on {victim}"), TAKEOVER_LIMIT, |found| {
            let status = found.status.as_ref();
            let newest = status.and_then(|status| status.transitions.first());
            screen::is_online(found)
                && status.and_then(|status| status.server.as_deref()).is_some_and(|server| server != victim)
                && newest.is_some_and(|transition| transition.from == victim)
        })?;
    screen.done();
    Ok((after, outage))
}

/// The tree as `holdfast status` draws it; why not, if it can't.
fn tree(cluster: &Cluster) -> String {
    let namespace = cluster.blueprint().namespace.as_str();
    cluster.holdfast(&["status", "--namespace", namespace]).unwrap_or_else(|error| error.to_string())
}

/// What to try while the cluster is up.
fn commands(cluster: &Cluster, group: &str, other: &str) -> String {
    let namespace = &cluster.blueprint().namespace;
    let pid = cluster.host(crate::CLIENT).and_then(|host| host.pid()).unwrap_or_default();
    let address = cluster.blueprint().service_address.map(|address| address.to_string()).unwrap_or_default();
    format!(
        "The cluster is up. In another terminal, as root:\n\n  \
         export KUBECONFIG={}\n  \
         kubectl get hsc,hsub,hsrv,fog -n {namespace}\n  \
         kubectl describe fog {group} -n {namespace}\n  \
         holdfast status -n {namespace} --watch\n  \
         holdfast move {group} -n {namespace} --to {other}\n  \
         nsenter --target {pid} --net curl -s http://{address}/     # what the client sees\n\n\
         Ctrl-C takes everything down.",
        cluster.kubeconfig().display()
    )
}

/// Makes Ctrl-C, SIGTERM and SIGHUP end every wait of the lab, from the first call on.
fn watch_signals() -> Result<()> {
    static STARTED: Once = Once::new();
    let mut outcome = Ok(());
    STARTED.call_once(|| {
        outcome = std::thread::Builder::new().name("signals".into()).spawn(signals).map(drop);
    });
    outcome.attempt(|| "starting the thread that waits for Ctrl-C".into())
}

fn signals() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let outcome: std::io::Result<()> = runtime.block_on(async {
        let mut ctrl_c = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = ctrl_c.recv() => {},
                _ = terminate.recv() => {},
                _ = hangup.recv() => {},
            }
            interrupt();
        }
    });
    if let Err(error) = outcome {
        tracing::warn!(%error, "Ctrl-C can't be waited for; use `holdfast lab clean` afterwards");
    }
}
