//! A whole sub-cluster in a lab: its servers with agents, a control plane, a client; built from the manifests of
//! an example. Reading its objects is in `objects`, the control plane's host in `control`, what it has in common with a
//! whole super-cluster (`bundle`) in `parts`.

mod bundle;
mod control;
mod inside;
mod objects;
mod parts;
mod witness;

pub use bundle::Bundle;
pub use inside::Inside;
pub use objects::Snapshot;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_yaml::Value;

use crate::binary::holdfast_binary;
use crate::blueprint::{Blueprint, documents};
use crate::error::{LabError, Result};
use crate::forward::Forwarder;
use crate::host::{CutMoment, Host};
use crate::lab::Lab;
use crate::poller::Poller;
use crate::shell::run;
use crate::spec::ServiceSpec;
use parts::{
    format_areas, outside, server_config, start_companions, write_agent_file, write_document, write_manifests,
};

/// Name of the host with the control plane.
pub const CONTROL: &str = "control";
/// Name of the host with the client.
pub const CLIENT: &str = "client";
/// Name of the host with the quorum server, if the sub-cluster has one.
pub const WITNESS: &str = "witness";
/// Name of the service that is the node agent.
pub const AGENT: &str = "agent";
/// File in a host's state directory that is there when its agent has told it to shut down.
pub const POWERED_OFF: &str = "powered-off";

/// Where the control plane keeps its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreKind {
    /// The embedded file.
    #[default]
    Sqlite,
    /// An etcd of its own on the control host.
    Etcd,
}

/// Changes documents, each with the file that it came from.
pub type Edit<'a> = &'a dyn Fn(&mut Vec<(PathBuf, Value)>);

/// How a cluster is built.
#[derive(Default)]
pub struct ClusterOptions<'a> {
    /// Where the control plane keeps its objects.
    pub store: StoreKind,
    /// Changes the example's documents before they are used.
    pub edit: Option<Edit<'a>>,
    /// Changes them once more, to what is declared at first. Hosts, networks and disks are those of before, so that there
    /// can be more than is declared; see [`Cluster::change`].
    pub declare: Option<Edit<'a>>,
    /// Bytes of a sector of the shared disks: 512, or 4096.
    pub sector_size: Option<u32>,
    /// Whether the lab stands between the servers and their disks, so that these can fail ([`Lab::set_disk`]).
    pub faulty_disks: bool,
    /// Whether every server has a watchdog, `/dev/watchdog`, that resets it from outside.
    pub watchdogs: bool,
    /// What every server starts before its agent, in order.
    pub companions: &'a [Companion],
    /// Is told what is being done, one line per step.
    pub progress: Option<&'a dyn Fn(&str)>,
}

/// A program of a server's system that its agent needs: a service manager, a routing daemon.
#[derive(Debug, Clone)]
pub struct Companion {
    /// The program.
    pub service: ServiceSpec,
    /// A file of the host that exists once it can be used.
    pub ready: PathBuf,
}

/// A running sub-cluster. Dropping it takes everything down.
pub struct Cluster {
    // ORDER: the client and the door are closed before the lab is taken down.
    objects: objects::Objects,
    _door: Forwarder,
    blueprint: Blueprint,
    manifests: PathBuf,
    kubeconfig: PathBuf,
    witness: Option<SocketAddr>,
    companions: Vec<Companion>,
    lab: Lab,
}

impl Cluster {
    /// Builds the cluster of an example: hosts, control plane; applies the manifests and starts the agents. Returns without
    /// waiting for groups, see [`Cluster::wait_all_online`].
    ///
    /// # Errors
    /// When the manifests can't be read, or something can't be built; everything made until then is gone.
    pub fn start(name: &str, example: &Path, options: &ClusterOptions<'_>) -> Result<Cluster> {
        let cluster = Cluster::build(name, example, options)?;
        cluster.tell(options, "applying the manifests");
        cluster.apply(&cluster.manifests)?;
        cluster.tell(options, "starting the agents");
        cluster.start_agents()?;
        Ok(cluster)
    }

    /// Starts the agent of every server that is on.
    ///
    /// # Errors
    /// When a host does not answer.
    pub fn start_agents(&self) -> Result<()> {
        for server in &self.blueprint.servers {
            let host = self.host(server)?;
            if host.is_on() {
                host.start_service(AGENT)?;
            }
        }
        Ok(())
    }

    /// As [`Cluster::start`], without applying the manifests and without starting the agents.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn build(name: &str, example: &Path, options: &ClusterOptions<'_>) -> Result<Cluster> {
        let say = |text: &str| options.progress.iter().for_each(|progress| progress(text));
        let mut all = documents(example)?;
        if let Some(edit) = options.edit {
            edit(&mut all);
        }
        let built = Blueprint::from_documents(example, &all)?;
        if let Some(declare) = options.declare {
            declare(&mut all);
        }
        let blueprint = Blueprint::from_documents(example, &all)?;
        say("making networks and shared disks");
        let lab = Lab::new(name)?;
        let manifests = write_manifests(lab.directory(), &all)?;
        for lan in &built.lans {
            lab.add_network(&lan.network)?;
        }
        parts::add_disks_and_lines(&lab, &built, options.sector_size)?;
        let public = built.public_lan()?;
        let api = SocketAddr::new(built.spare_address(public, 1)?, control::PORT);
        say("starting the control plane");
        let control = lab.add_host(CONTROL, &outside(public, api.ip(), control::services(api, options.store)))?;
        lab.power_on(CONTROL)?;
        lab.add_host(CLIENT, &outside(public, built.spare_address(public, 2)?, Vec::new()))?;
        lab.power_on(CLIENT)?;
        control::start(&control, api, options.store)?;
        let door = Forwarder::open(Arc::clone(&control), api)?;
        let kubeconfig = lab.directory().join("admin.kubeconfig");
        let issued = control.state_dir().join("server/admin.kubeconfig");
        control::copy_kubeconfig(&issued, api, door.address(), &kubeconfig)?;
        if let Some(plan) = &built.quorum_server {
            say("starting the quorum server");
            witness::build(&lab, &built, plan, &manifests)?;
        }
        for server in &built.servers {
            say(&format!("starting host {server}"));
            let host = lab.add_host(server, &server_config(&built, server, options))?;
            control::issue_credentials(&control, &built, server, api, &host.state_dir().join("agent.kubeconfig"))?;
            write_agent_file(&host, &built, server, api, None)?;
            lab.power_on(server)?;
            start_companions(&host, options.companions)?;
        }
        if let Some(first) = built.servers.first() {
            say("writing an empty cluster area");
            format_areas(&*lab.host(first)?, &built)?;
        }
        let objects = objects::Objects::connect(&kubeconfig, &blueprint.namespace)?;
        let witness = built.quorum_server.as_ref().map(|plan| plan.address);
        let companions = options.companions.to_vec();
        Ok(Cluster { objects, _door: door, blueprint, manifests, kubeconfig, witness, companions, lab })
    }

    fn tell(&self, options: &ClusterOptions<'_>, text: &str) {
        options.progress.iter().for_each(|progress| progress(text));
    }

    /// The lab under it.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// What was declared last.
    #[must_use]
    pub fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// The administrator's kubeconfig, usable on the machine.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The manifests as they are applied.
    #[must_use]
    pub fn manifests(&self) -> &Path {
        &self.manifests
    }

    /// A host of it: a server, [`CONTROL`] or [`CLIENT`].
    ///
    /// # Errors
    /// When it has no such host.
    pub fn host(&self, name: &str) -> Result<Arc<Host>> {
        self.lab.host(name)
    }

    /// Applies a manifest file or directory as a user does, with `holdfast apply`.
    ///
    /// # Errors
    /// With the API server's words when it refuses.
    pub fn apply(&self, path: &Path) -> Result<()> {
        let file = path.to_string_lossy();
        self.holdfast(&["apply", "-f", &file]).map(drop)
    }

    /// Changes the manifests and applies them. It needs nothing that was not built.
    ///
    /// # Errors
    /// As [`Cluster::apply`]; the files have changed all the same.
    pub fn change(&mut self, edit: Edit<'_>) -> Result<()> {
        let mut all = documents(&self.manifests)?;
        edit(&mut all);
        self.blueprint = Blueprint::from_documents(&self.blueprint.source, &all)?;
        for (path, document) in &all {
            write_document(path, document)?;
        }
        self.apply(&self.manifests)
    }

    /// Runs `holdfast` on the machine as the cluster's administrator and returns what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn holdfast(&self, args: &[&str]) -> Result<String> {
        as_administrator(&self.kubeconfig, args)
    }

    /// Begins to ask the example's service address from the client.
    ///
    /// # Errors
    /// When no group has a floating address.
    pub fn poll_service(&self) -> Result<Poller> {
        let address = self.blueprint.service_address.ok_or_else(|| LabError::Manifest {
            file: self.blueprint.source.clone(),
            field: "spec.resources[].floatingIP".into(),
            problem: "no group has a floating IPv4 address, so there is nothing for a client to ask".into(),
        })?;
        Poller::start(&*self.host(CLIENT)?, SocketAddr::new(address, 80))
    }

    /// Cuts a server's power.
    ///
    /// # Errors
    /// When it is off.
    pub fn power_cut(&self, server: &str) -> Result<CutMoment> {
        self.lab.power_cut(server)
    }

    /// Switches a server on; its agent starts with it, as a system's service manager would start it.
    ///
    /// # Errors
    /// When it is on.
    pub fn power_on(&self, server: &str) -> Result<()> {
        self.lab.power_on(server)?;
        let host = self.host(server)?;
        start_companions(&host, &self.companions)?;
        host.start_service(AGENT)
    }

    /// Switches the quorum server's host on again, after a power cut of [`WITNESS`].
    ///
    /// # Errors
    /// When it is on, or does not answer in time.
    pub fn power_on_witness(&self) -> Result<()> {
        self.lab.power_on(WITNESS)?;
        self.witness.map_or(Ok(()), |address| witness::start(&self.host(WITNESS)?, address))
    }

    /// Ends API server, controller and store by SIGTERM, and leaves them down.
    ///
    /// # Errors
    /// When they don't end within 10 s.
    pub fn stop_control_plane(&self, store: StoreKind) -> Result<()> {
        control::stop(&*self.host(CONTROL)?, store, Duration::from_secs(10))
    }

    /// Starts what [`Cluster::stop_control_plane`] ended, and waits until it answers.
    ///
    /// # Errors
    /// When it doesn't answer in time.
    pub fn start_control_plane(&self, store: StoreKind) -> Result<()> {
        let address = self.blueprint.spare_address(self.blueprint.public_lan()?, 1)?;
        control::start(&self.host(CONTROL)?, SocketAddr::new(address, control::PORT), store)
    }

    /// Takes everything down.
    ///
    /// # Errors
    /// When something does not go.
    pub fn close(self) -> Result<()> {
        let Cluster { objects, _door, lab, .. } = self;
        drop(objects);
        drop(_door);
        lab.close()
    }
}

/// Runs `holdfast` with an administrator's credentials.
fn as_administrator(kubeconfig: &Path, args: &[&str]) -> Result<String> {
    let binary = holdfast_binary()?;
    let kubeconfig = kubeconfig.to_string_lossy();
    let mut all = args.to_vec();
    // What is behind `--` is not the program's own.
    let own = all.iter().position(|arg| *arg == "--").unwrap_or(all.len());
    all.splice(own..own, ["--kubeconfig", &kubeconfig]);
    run(&binary.to_string_lossy(), &all)
}
