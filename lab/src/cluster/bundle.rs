//! A whole super-cluster in a lab: several sub-clusters in one network, of which the master runs the control plane as one
//! of its groups. It is begun as an administrator begins it, see examples/control-plane-inside/README.md.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::v1::{FailoverGroup, SubCluster};
use serde_yaml::Value;

use super::inside::Inside;
use super::objects::Objects;
use super::parts::{
    add_disks_and_lines, format_areas, outside, server_config, write_agent_file, write_document, write_manifests,
};
use super::{AGENT, CLIENT, ClusterOptions, Edit, as_administrator, control};
use crate::blueprint::{Blueprint, LanPlan, documents};
use crate::error::{Attempt, LabError, Result};
use crate::forward::Forwarder;
use crate::host::{CutMoment, Host};
use crate::lab::Lab;
use crate::poller::Poller;
use crate::shell::wait_for;
use crate::spec::STATE_DIR;

/// The agents of the master form a view and start the group before the API server answers for the first time.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running super-cluster with its control plane inside. Dropping it takes everything down.
pub struct Bundle {
    // ORDER: the client and the door are closed before the lab is taken down.
    objects: Objects,
    door: Forwarder,
    inside: Inside,
    sub_clusters: Vec<Blueprint>,
    manifests: PathBuf,
    kubeconfig: PathBuf,
    lab: Lab,
}

impl Bundle {
    /// Builds the super-cluster of an example, starts its control plane by the agents of the master, applies the manifests,
    /// and starts all other agents. Returns without waiting for groups.
    ///
    /// # Errors
    /// When the manifests can't be read, or something can't be built; everything made until then is gone.
    pub fn start(name: &str, example: &Path, edit: Edit<'_>) -> Result<Bundle> {
        let mut all = documents(example)?;
        edit(&mut all);
        let inside = Inside::read(example, &all)?;
        let sub_clusters = told_apart(example, Blueprint::each(example, &all)?)?;
        let lab = Lab::new(name)?;
        let manifests = write_manifests(lab.directory(), &all)?;
        let master = of_name(&sub_clusters, &inside.sub_cluster)?;
        let secret = inside.heartbeat_secret(&master.namespace);
        let bootstrap = inside.first_specification(&all, &secret)?;
        wire(&lab, &sub_clusters)?;
        let client = add_client(&lab, master)?;
        for sub in &sub_clusters {
            let own = (sub.sub_cluster == inside.sub_cluster).then_some(bootstrap.as_str());
            add_servers(&lab, sub, inside.listen, own)?;
        }
        let kubeconfig = lab.directory().join("admin.kubeconfig");
        let door = Forwarder::open(client, inside.listen)?;
        begin(&lab, &inside, &sub_clusters, door.address(), &kubeconfig)?;
        let objects = Objects::connect(&kubeconfig, &master.namespace)?;
        let bundle = Bundle { objects, door, inside, sub_clusters, manifests, kubeconfig, lab };
        bundle.start_master_first(&all, &secret)?;
        Ok(bundle)
    }

    /// The control plane by the agents of the master; then what is declared; then the others.
    fn start_master_first(&self, all: &[(PathBuf, Value)], secret: &Value) -> Result<()> {
        let (own, others): (Vec<&Blueprint>, Vec<&Blueprint>) =
            self.sub_clusters.iter().partition(|sub| sub.sub_cluster == self.inside.sub_cluster);
        let start = |subs: &[&Blueprint]| {
            let mut servers = subs.iter().flat_map(|sub| &sub.servers);
            servers.try_for_each(|server| self.host(server)?.start_service(AGENT))
        };
        start(&own)?;
        self.wait_for_api(START_LIMIT)?;
        // ORDER: the key that the agents began with comes before the sub-cluster, for which the controller makes one if
        // there is none, and before both the namespace that they are in.
        let namespaces = all.iter().map(|(_, value)| value).filter(|value| value["kind"] == "Namespace");
        let first = self.lab.directory().join("first.yaml");
        for document in namespaces.chain([secret]) {
            write_document(&first, document)?;
            self.apply(&first)?;
        }
        self.apply(&self.manifests)?;
        start(&others)
    }

    /// Waits until the API server answers at its address.
    ///
    /// # Errors
    /// When it doesn't in time.
    pub fn wait_for_api(&self, limit: Duration) -> Result<()> {
        wait_for("the API server to answer", limit, |last| {
            let answer = self.objects.api_answers();
            *last = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
            Ok(answer.ok())
        })
    }

    /// The lab under it.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The control plane.
    #[must_use]
    pub fn inside(&self) -> &Inside {
        &self.inside
    }

    /// Its sub-clusters.
    #[must_use]
    pub fn sub_clusters(&self) -> &[Blueprint] {
        &self.sub_clusters
    }

    /// The servers of a sub-cluster.
    ///
    /// # Errors
    /// [`LabError::Unknown`] with the names that exist.
    pub fn servers(&self, sub_cluster: &str) -> Result<Vec<String>> {
        of_name(&self.sub_clusters, sub_cluster).map(|sub| sub.servers.clone())
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

    /// A server, or [`CLIENT`].
    ///
    /// # Errors
    /// When there is no such host.
    pub fn host(&self, name: &str) -> Result<Arc<Host>> {
        self.lab.host(name)
    }

    /// Applies a manifest file or directory as a user does, with `holdfast apply`.
    ///
    /// # Errors
    /// With the API server's words when it refuses, or when it does not answer.
    pub fn apply(&self, path: &Path) -> Result<String> {
        self.holdfast(&["apply", "-f", &path.to_string_lossy()])
    }

    /// Runs `holdfast` on the machine as the administrator and returns what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn holdfast(&self, args: &[&str]) -> Result<String> {
        as_administrator(&self.kubeconfig, args)
    }

    /// A group.
    ///
    /// # Errors
    /// When the API does not answer or has none of that name.
    pub fn group(&self, name: &str) -> Result<FailoverGroup> {
        self.objects.group(name)
    }

    /// A sub-cluster.
    ///
    /// # Errors
    /// When the API does not answer or has none of that name.
    pub fn sub_cluster(&self, name: &str) -> Result<SubCluster> {
        self.objects.sub_cluster(name)
    }

    /// Waits until a group is Online (on `server`, if one is named) and returns it.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with what its status said last.
    pub fn wait_online(&self, group: &str, server: Option<&str>, limit: Duration) -> Result<FailoverGroup> {
        self.objects.wait_online(group, server, limit)
    }

    /// Waits until a group's object fulfils a condition and returns it.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with what its status said last.
    pub fn wait_group(
        &self,
        group: &str,
        what: &str,
        limit: Duration,
        fulfilled: impl Fn(&FailoverGroup) -> bool,
    ) -> Result<FailoverGroup> {
        self.objects.wait_group(group, what, limit, fulfilled)
    }

    /// Begins to ask a web server from the client.
    ///
    /// # Errors
    /// When the client is off.
    pub fn poll(&self, address: SocketAddr) -> Result<Poller> {
        Poller::start(&*self.host(CLIENT)?, address)
    }

    /// Cuts a server's power.
    ///
    /// # Errors
    /// When it is off.
    pub fn power_cut(&self, server: &str) -> Result<CutMoment> {
        self.lab.power_cut(server)
    }

    /// Switches a server on; its agent starts with it.
    ///
    /// # Errors
    /// When it is on.
    pub fn power_on(&self, server: &str) -> Result<()> {
        self.lab.power_on(server)?;
        self.host(server)?.start_service(AGENT)
    }

    /// Takes everything down.
    ///
    /// # Errors
    /// When something does not go.
    pub fn close(self) -> Result<()> {
        let Bundle { objects, door, lab, .. } = self;
        drop(objects);
        drop(door);
        lab.close()
    }
}

fn of_name<'a>(sub_clusters: &'a [Blueprint], name: &str) -> Result<&'a Blueprint> {
    sub_clusters.iter().find(|sub| sub.sub_cluster == name).ok_or_else(|| LabError::Unknown {
        kind: "sub-cluster",
        name: name.into(),
        known: sub_clusters.iter().map(|sub| sub.sub_cluster.as_str()).collect::<Vec<_>>().join(", "),
    })
}

/// Gives disks and networks names that are unique in the lab. What two sub-clusters call differently or alike is one network
/// if their addresses on it are of one subnet.
fn told_apart(source: &Path, mut sub_clusters: Vec<Blueprint>) -> Result<Vec<Blueprint>> {
    let refuse =
        |field: &str, problem: String| LabError::Manifest { file: source.to_path_buf(), field: field.into(), problem };
    let (mut networks, mut servers): (Vec<LanPlan>, BTreeSet<String>) = Default::default();
    for sub in &mut sub_clusters {
        if sub.quorum_server.is_some() {
            let problem = "the lab builds none for a whole super-cluster; take LockDisk or Majority";
            return Err(refuse("spec.quorum.quorumServer", problem.into()));
        }
        if let Some(twice) = sub.servers.iter().find(|server| !servers.insert((*server).clone())) {
            return Err(refuse(
                "spec.servers",
                format!("{twice} is there twice; hosts of a lab need names of their own"),
            ));
        }
        for lan in &mut sub.lans {
            lan.network = match networks.iter().find(|known| is_one(known, lan)) {
                Some(known) => known.network.clone(),
                None => format!("{}-{}", sub.sub_cluster, lan.name),
            };
            networks.push(lan.clone());
        }
        let own = |name: &mut String| *name = format!("{}-{name}", sub.sub_cluster);
        sub.disks.iter_mut().for_each(|disk| own(&mut disk.name));
        sub.serials.iter_mut().for_each(|line| own(&mut line.name));
    }
    Ok(sub_clusters)
}

fn is_one(known: &LanPlan, other: &LanPlan) -> bool {
    let prefix = known.prefix.min(other.prefix);
    let pair = known.addresses.values().next().copied().zip(other.addresses.values().next().copied());
    pair.is_some_and(|(one, other): (IpAddr, IpAddr)| crate::blueprint::same_network(one, other, prefix))
}

fn wire(lab: &Lab, sub_clusters: &[Blueprint]) -> Result<()> {
    let networks: BTreeSet<&str> =
        sub_clusters.iter().flat_map(|sub| &sub.lans).map(|lan| lan.network.as_str()).collect();
    networks.into_iter().try_for_each(|network| lab.add_network(network))?;
    sub_clusters.iter().try_for_each(|sub| add_disks_and_lines(lab, sub, None))
}

fn add_client(lab: &Lab, master: &Blueprint) -> Result<Arc<Host>> {
    let public = master.public_lan()?;
    let client = lab.add_host(CLIENT, &outside(public, master.spare_address(public, 2)?, Vec::new()))?;
    lab.power_on(CLIENT)?;
    Ok(client)
}

/// The servers of a sub-cluster, on, without credentials and without agents.
fn add_servers(lab: &Lab, sub: &Blueprint, api: SocketAddr, bootstrap: Option<&str>) -> Result<()> {
    let file = format!("{STATE_DIR}/bootstrap.yaml");
    for server in &sub.servers {
        let host = lab.add_host(server, &server_config(sub, server, &ClusterOptions::default()))?;
        write_agent_file(&host, sub, server, api, bootstrap.map(|_| file.as_str()))?;
        if let Some(text) = bootstrap {
            let path = host.state_dir().join("bootstrap.yaml");
            fs::write(&path, text).attempt(|| format!("writing {}", path.display()))?;
        }
        lab.power_on(server)?;
    }
    match sub.servers.first() {
        Some(first) => format_areas(&*lab.host(first)?, sub),
        None => Ok(()),
    }
}

/// Makes the control plane's data by hand, and gives everybody their credentials.
fn begin(lab: &Lab, inside: &Inside, subs: &[Blueprint], door: SocketAddr, kubeconfig: &Path) -> Result<()> {
    let first = of_name(subs, &inside.sub_cluster)?.servers.first();
    let maker = lab.host(first.map(String::as_str).unwrap_or_default())?;
    inside.begin(&maker, subs)?;
    for server in subs.iter().flat_map(|sub| &sub.servers) {
        let issued = maker.state_dir().join(format!("{server}.kubeconfig"));
        let target = lab.host(server)?.state_dir().join("agent.kubeconfig");
        fs::rename(&issued, &target).attempt(|| format!("moving {} to {}", issued.display(), target.display()))?;
    }
    let admin = maker.state_dir().join("admin.kubeconfig");
    control::copy_kubeconfig(&admin, inside.listen, door, kubeconfig)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_clusters_share_a_network_by_its_subnet_and_nothing_by_its_name() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/control-plane-inside");
        let all = documents(&path).expect("the example is readable");
        let subs = told_apart(&path, Blueprint::each(&path, &all).expect("plans")).expect("they can be told apart");
        let names: Vec<&str> = subs.iter().map(|sub| sub.sub_cluster.as_str()).collect();
        assert_eq!(names, ["master", "shop"]);
        let networks =
            |sub: &Blueprint| sub.lans.iter().map(|lan| lan.network.clone()).collect::<Vec<String>>().join(" ");
        assert_eq!(networks(&subs[0]), "master-ic master-pub");
        assert_eq!(networks(&subs[1]), "shop-ic master-pub");
        assert_eq!(subs[1].groups, ["web"]);
        assert!(subs[0].disks.iter().all(|disk| disk.name.starts_with("master-holdfast-control")));
        let twice = Blueprint::each(&path, &[all.clone(), all].concat()).expect("plans");
        assert!(told_apart(&path, twice).expect_err("ash twice").to_string().contains("ash is there twice"));
    }
}
