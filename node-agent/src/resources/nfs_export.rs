//! `nfsExport`: a directory that this server's kernel exports by NFS while the group is here. The NFS server itself (`nfsd`,
//! `rpc.mountd`) runs on every server all the time, under the system's own supervision; a start adds clients to its table of
//! exports, a stop takes them out and makes the kernel forget what they have open, so that the file system can be unmounted.
//!
//! The `fsid` makes a client's file handles mean the same files on every server; a state directory makes its locks last.

mod kernel;
mod state;
mod table;

use std::path::Path;

use holdfast_core::Action;

use super::plan::NfsExportPlan;
use super::{State, Verdict, tool};
use table::Export;

const INSTALL: &str = "install the package nfs-kernel-server";
const RUN: &str = "start the NFS server and let it start at boot (`systemctl enable --now nfs-server`)";

/// Carries an operation out.
pub fn run(plan: &NfsExportPlan, action: Action) -> Verdict {
    match action {
        Action::Probe | Action::Monitor => look(plan),
        Action::Start => start(plan).unwrap_or_else(Verdict::failed),
        Action::Stop => stop(plan).unwrap_or_else(Verdict::failed),
    }
}

fn exportfs(args: &[&str]) -> Result<String, String> {
    tool::run("exportfs", args, INSTALL)?.succeeded()
}

fn exports() -> Result<Vec<Export>, String> {
    table::parse(&exportfs(&["-s"])?)
}

/// What a person does about exports that are others than ours were.
const CHANGED: &str =
    "somebody changed the exports: `exportfs -v` shows them, a restart of the resource makes them anew";

fn look(plan: &NfsExportPlan) -> Verdict {
    match exports() {
        Ok(exports) => match state(plan, &exports, kernel::threads()) {
            Verdict { state: State::Running, .. } => state::look(plan),
            other => other,
        },
        // Without the tool nobody has exported anything.
        Err(problem) if kernel::threads() == 0 => Verdict::stopped().with(problem),
        Err(problem) => Verdict::unknown(problem),
    }
}

/// What the table means. `threads`: of the kernel's NFS server.
fn state(plan: &NfsExportPlan, exports: &[Export], threads: u32) -> Verdict {
    let of_path = |export: &&Export| export.path == plan.path;
    let is = |network: &str| exports.iter().filter(of_path).find(|export| export.client == network);
    let missing: Vec<&str> = plan.clients.iter().map(|c| c.network.as_str()).filter(|n| is(n).is_none()).collect();
    if missing.len() == plan.clients.len() {
        return Verdict::stopped();
    }
    let path = plan.path.display();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Verdict::failed(format!("{path} is not exported to {missing}; {CHANGED}"));
    }
    let other = plan.clients.iter().filter_map(|c| is(&c.network)).find(|e| e.fsid.as_deref() != Some(&plan.fsid));
    if let Some(other) = other {
        let fsid = other.fsid.as_deref().unwrap_or("none");
        let (client, own) = (&other.client, &plan.fsid);
        return Verdict::failed(format!("{path} is exported to {client} with fsid {fsid}, not {own}; {CHANGED}"));
    }
    if threads == 0 {
        return Verdict::failed(format!("{path} is in the table of exports, but the NFS server does not run; {RUN}"));
    }
    Verdict::running()
}

fn start(plan: &NfsExportPlan) -> Result<Verdict, String> {
    if kernel::threads() == 0 {
        return Err(format!("nfsExport: the NFS server does not run on this server; {RUN}"));
    }
    if !plan.path.is_dir() {
        let path = plan.path.display();
        return Err(format!("nfsExport.path: {path} is no directory on this server; is its file system in the group?"));
    }
    if let Some(other) = exports()?.iter().find(|e| e.fsid.as_deref() == Some(&plan.fsid) && e.path != plan.path) {
        return Err(format!(
            "nfsExport.fsid: {} is that of {} already, which is exported here, too; each export needs its own",
            plan.fsid,
            other.path.display()
        ));
    }
    // Before anybody can come: from the first open file on clients are recorded, and who reclaims finds a grace period.
    state::keep(plan)?;
    for client in &plan.clients {
        // -i: what stands in /etc/exports about it does not count.
        exportfs(&["-i", "-o", &options(plan, &client.options), &name(&client.network, &plan.path)])?;
    }
    match look(plan) {
        Verdict { state: State::Running, .. } => Ok(Verdict::running()),
        Verdict { message, .. } => Err(format!("exportfs succeeded, but the export is not there: {message}")),
    }
}

fn options(plan: &NfsExportPlan, given: &str) -> String {
    let own = format!("fsid={}", plan.fsid);
    if given.is_empty() { own } else { format!("{given},{own}") }
}

/// As exportfs wants it: `client:/path`, an IPv6 address in brackets.
fn name(network: &str, path: &Path) -> String {
    let path = path.display();
    match network.split_once('/') {
        Some((address, prefix)) if address.contains(':') => format!("[{address}]/{prefix}:{path}"),
        _ if network.contains(':') => format!("[{network}]:{path}"),
        _ => format!("{network}:{path}"),
    }
}

fn stop(plan: &NfsExportPlan) -> Result<Verdict, String> {
    let threads = kernel::threads();
    match exports() {
        Ok(exports) => withdraw(plan, &exports)?,
        Err(problem) if threads == 0 => {
            state::leave(plan)?;
            return Ok(Verdict::stopped().with(problem));
        }
        Err(problem) => return Err(problem),
    }
    // When nobody gets anything new, and before clients are dismissed: that has to stay unknown to their records.
    state::leave(plan)?;
    if threads == 0 {
        return Ok(Verdict::stopped());
    }
    // Another directory of the same file system that is still exported keeps what its clients have.
    let device = kernel::device(&plan.path);
    if device.is_none() || exports()?.iter().any(|e| kernel::device(&e.path) == device) {
        return Ok(Verdict::stopped());
    }
    kernel::release(&plan.path, device).map(|clients| match clients {
        0 => Verdict::stopped(),
        1 => Verdict::stopped().with("1 client had files open"),
        many => Verdict::stopped().with(format!("{many} clients had files open")),
    })
}

/// Takes our clients out of the table of exports.
fn withdraw(plan: &NfsExportPlan, before: &[Export]) -> Result<(), String> {
    let is_ours = |e: &Export| e.path == plan.path && plan.clients.iter().any(|c| c.network == e.client);
    for export in before.iter().filter(|e| is_ours(e)) {
        exportfs(&["-u", &name(&export.client, &plan.path)])?;
    }
    // The kernel asks anew from here on, and closes what it keeps open for NFS 3.
    exportfs(&["-f"])?;
    let after = exports()?;
    if let Some(left) = after.iter().find(|e| is_ours(e)) {
        let name = name(&left.client, &plan.path);
        return Err(format!("{name} is still exported; does another program export it? `exportfs -u {name}` ends it"));
    }
    Ok(())
}

/// For the guard: as a stop. Says whether nothing is left.
pub fn emergency_stop(plan: &NfsExportPlan) -> bool {
    stop(plan).is_ok_and(|verdict| verdict.state == State::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::plan::NfsClientPlan;

    fn plan() -> NfsExportPlan {
        let client = |network: &str, options: &str| NfsClientPlan { network: network.into(), options: options.into() };
        NfsExportPlan {
            path: "/srv/share".into(),
            clients: vec![client("192.0.2.0/24", "rw,sync"), client("2001:db8::/64", "")],
            fsid: "7".into(),
            state_directory: None,
        }
    }

    fn export(client: &str, fsid: &str) -> Export {
        Export { path: "/srv/share".into(), client: client.into(), fsid: Some(fsid.into()) }
    }

    #[test]
    fn all_clients_of_the_right_fsid_and_a_server_that_runs_make_an_export() {
        let (one, two) = (export("192.0.2.0/24", "7"), export("2001:db8::/64", "7"));
        let of = |exports: &[Export], threads| state(&plan(), exports, threads);
        assert_eq!(of(&[one.clone(), two.clone()], 8), Verdict::running());
        assert_eq!(of(&[], 8), Verdict::stopped());
        assert_eq!(of(&[export("198.51.100.1", "7")], 8), Verdict::stopped());
        let half = of(std::slice::from_ref(&one), 8);
        assert!(half.state == State::Failed && half.message.contains("not exported to 2001:db8::/64; "), "{half:?}");
        let wrong = of(&[one.clone(), export("2001:db8::/64", "8")], 8);
        assert!(wrong.state == State::Failed && wrong.message.contains("with fsid 8, not 7"), "{wrong:?}");
        assert_eq!(of(&[one, two], 0).state, State::Failed);
    }

    #[test]
    fn names_and_options_are_as_exportfs_wants_them() {
        let path = Path::new("/srv/share");
        assert_eq!(name("192.0.2.0/24", path), "192.0.2.0/24:/srv/share");
        assert_eq!(name("2001:db8::/64", path), "[2001:db8::]/64:/srv/share");
        assert_eq!(name("2001:db8::1", path), "[2001:db8::1]:/srv/share");
        assert_eq!(options(&plan(), "rw,sync"), "rw,sync,fsid=7");
        assert_eq!(options(&plan(), ""), "fsid=7");
    }
}
