//! A running example with a client that asks it and a writer that leaves evidence, and how to read that evidence.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::v1::{FailoverGroupStatus, PathState, ServerState};
use holdfast_lab::{
    CONTROL, Cluster, ClusterOptions, Host, Line, Poller, StoreKind, Tenure, WITNESS, boottime_ns, check_overlap,
    merge_tenures, parse_lines, wait_for,
};
use serde_yaml::Value;

/// Longest wait for what takes about a second or two on a machine that does nothing else.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// The group of the examples.
pub(crate) const GROUP: &str = "web";
/// File of the writer on the shared file system of `two-servers`.
const SHARED_FILE: &str = "/srv/web/writes";
/// The writer's own file on every host; it survives power cuts.
const LOCAL_FILE: &str = "acknowledged";

/// A cluster under test.
pub(crate) struct Trial {
    // ORDER: dropped before the cluster, whose logs it shows.
    _logs: LogsOnPanic,
    pub(crate) cluster: Cluster,
    pub(crate) poller: Poller,
    shared: bool,
}

impl Trial {
    /// The example `two-servers`, online, with the first answer already given to the client.
    pub(crate) fn two(name: &str) -> Trial {
        Trial::start(name, "two-servers", StoreKind::Sqlite)
    }

    /// The same with a changed SubCluster.
    pub(crate) fn two_with(name: &str, change: &dyn Fn(&mut Value)) -> Trial {
        Trial::start_edited(name, "two-servers", StoreKind::Sqlite, |documents| {
            documents.iter_mut().filter(|(_, document)| document["kind"] == "SubCluster").for_each(|(_, d)| change(d));
        })
    }

    /// The same with an etcd behind the API server.
    pub(crate) fn two_with_etcd(name: &str) -> Trial {
        Trial::start(name, "two-servers", StoreKind::Etcd)
    }

    /// The example `three-servers`.
    pub(crate) fn three(name: &str) -> Trial {
        Trial::start(name, "three-servers", StoreKind::Sqlite)
    }

    /// The example `four-servers`, changed by `edit`.
    pub(crate) fn four(name: &str, edit: impl Fn(&mut [(PathBuf, Value)])) -> Trial {
        Trial::start_edited(name, "four-servers", StoreKind::Sqlite, edit)
    }

    /// The example `two-servers` on disks with sectors of this many bytes, and with the cluster area behind the file
    /// system of the data disk.
    pub(crate) fn two_on_one_disk(name: &str, sector_size: u32) -> Trial {
        let area = "{device: /dev/holdfast/data, offset: 50331648}";
        let change = |documents: &mut [(PathBuf, Value)]| {
            let sub =
                documents.iter_mut().map(|(_, document)| document).find(|document| document["kind"] == "SubCluster");
            sub.expect("a sub-cluster")["spec"]["disks"][0]["area"] = serde_yaml::from_str(area).expect("YAML");
        };
        let options = ClusterOptions { sector_size: Some(sector_size), ..ClusterOptions::default() };
        Trial::start_with(name, "two-servers", options, change)
    }

    /// `two-servers` with devices of the lab's own: disks that can fail, or watchdogs.
    pub(crate) fn two_special(name: &str, options: ClusterOptions<'_>, change: &dyn Fn(&mut Value)) -> Trial {
        Trial::start_with(name, "two-servers", options, |documents| {
            documents.iter_mut().filter(|(_, document)| document["kind"] == "SubCluster").for_each(|(_, d)| change(d));
        })
    }

    fn start(name: &str, example: &str, store: StoreKind) -> Trial {
        Trial::start_edited(name, example, store, |_| {})
    }

    fn start_edited(name: &str, example: &str, store: StoreKind, change: impl Fn(&mut [(PathBuf, Value)])) -> Trial {
        Trial::start_with(name, example, ClusterOptions { store, ..ClusterOptions::default() }, change)
    }

    pub(crate) fn start_with(
        name: &str,
        example: &str,
        options: ClusterOptions<'_>,
        change: impl Fn(&mut [(PathBuf, Value)]),
    ) -> Trial {
        let shared = example == "two-servers";
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(example);
        let edit = |documents: &mut Vec<(PathBuf, Value)>| {
            add_writer(documents, shared);
            change(documents);
        };
        let options = ClusterOptions { edit: Some(&edit), ..options };
        let cluster = Cluster::start(name, &directory, &options).expect("the cluster is built");
        let poller = cluster.poll_service().expect("a client");
        let witness = cluster.blueprint().quorum_server.as_ref().map(|_| WITNESS);
        let names = cluster.blueprint().servers.iter().map(String::as_str).chain([CONTROL]).chain(witness);
        let logs = LogsOnPanic(names.map(|name| cluster.host(name).expect("a host of the example")).collect());
        let trial = Trial { _logs: logs, cluster, poller, shared };
        trial.cluster.wait_all_online(LIMIT).expect("the group comes online");
        trial.all_active();
        trial.all_return(0);
        trial.poller.wait_for_answer(None, LIMIT).expect("the client is served");
        trial
    }

    pub(crate) fn host(&self, name: &str) -> Arc<Host> {
        self.cluster.host(name).expect("a host of the example")
    }

    pub(crate) fn status(&self) -> FailoverGroupStatus {
        self.cluster.group(GROUP).expect("the group's object").status.expect("its status")
    }

    /// The server that the status names.
    pub(crate) fn active(&self) -> String {
        let online = self.cluster.wait_online(GROUP, None, LIMIT).expect("the group is online");
        online.status.and_then(|status| status.server).expect("a server")
    }

    /// All other servers.
    pub(crate) fn others(&self, active: &str) -> Vec<String> {
        self.cluster.blueprint().servers.iter().filter(|server| *server != active).cloned().collect()
    }

    /// Waits until every server is Active in the API.
    pub(crate) fn all_active(&self) {
        wait_for("every server to be Active", LIMIT, |last| {
            let servers = match self.cluster.servers() {
                Ok(servers) => servers,
                Err(error) => {
                    *last = error.to_string();
                    return Ok(None);
                }
            };
            let states: Vec<_> =
                servers.values().map(|server| server.status.as_ref().and_then(|status| status.state)).collect();
            *last = format!("{states:?}");
            let wanted = self.cluster.blueprint().servers.len();
            Ok((states.iter().filter(|state| **state == Some(ServerState::Active)).count() == wanted).then_some(()))
        })
        .expect("every server is in the view");
    }

    /// The epoch of the newest view that the API knows.
    pub(crate) fn epoch(&self) -> u64 {
        self.cluster.epoch().expect("the sub-cluster's status")
    }

    /// Waits until the API shows a view later than `epoch` with exactly these members.
    pub(crate) fn members_become(&self, servers: &[String], epoch: u64) {
        self.cluster.wait_view(servers, epoch, LIMIT).expect("the view changes");
    }

    /// Waits until every server is in a view later than `epoch`.
    pub(crate) fn all_return(&self, epoch: u64) {
        self.members_become(&self.cluster.blueprint().servers.clone(), epoch);
    }

    /// Waits until the API shows the path from `server` to `peer` in this state.
    pub(crate) fn path_becomes(&self, server: &str, peer: &str, path: &str, state: PathState) {
        wait_for(&format!("path {path} from {server} to {peer} to be {state:?}"), LIMIT, |last| {
            let servers = self.cluster.servers()?;
            let paths = servers.get(server).and_then(|found| found.status.as_ref()).map(|status| status.paths.clone());
            let found = paths.unwrap_or_default().into_iter().find(|found| found.path == path && found.peer == peer);
            *last = format!("{found:?}");
            Ok(found.is_some_and(|found| found.state == state).then_some(()))
        })
        .expect("the API shows the path's state");
    }

    /// Waits until the client is served by one of `servers` with a request begun after `since`; returns which.
    pub(crate) fn served_by(&self, servers: &[String], since: u64) -> String {
        wait_for(&format!("the client to be served by one of {servers:?}"), LIMIT, |last| {
            let answer = self.poller.last();
            *last = format!("{answer:?}");
            Ok(answer.filter(|answer| answer.begun_ns > since && servers.contains(&answer.content)).map(|a| a.content))
        })
        .expect("the service continues")
    }

    /// The client's longest time without an answer since `since`, once the service has been steady for a while.
    pub(crate) fn outage_since(&self, since: u64) -> Duration {
        self.pass(Duration::from_millis(500));
        self.poller.longest_outage(since).expect("answers before and after").length
    }

    /// Nothing moved, as the client saw it: less than a timeout without an answer. How much less is the benchmark's to
    /// say; a pause of the machine that the test runs on is no move.
    pub(crate) fn undisturbed_since(&self, since: u64) {
        let outage = self.outage_since(since);
        assert!(outage < self.cluster.blueprint().timeout, "the client saw {outage:?}");
    }

    /// It was taken over, as the client saw it: not before its time, and not after several. The figure is the
    /// benchmark's.
    pub(crate) fn taken_over_since(&self, since: u64) {
        let (outage, timeout) = (self.outage_since(since), self.cluster.blueprint().timeout);
        assert!(outage > timeout / 2, "a server must not be given up before its time: {outage:?}");
        assert!(outage < timeout * 3, "the client saw {outage:?}");
    }

    /// Lets time pass on purpose: to see that nothing happens in it.
    pub(crate) fn pass(&self, time: Duration) {
        let until = boottime_ns() + u64::try_from(time.as_nanos()).expect("a short time");
        wait_for("time to pass", time + LIMIT, |_| Ok((boottime_ns() > until).then_some(()))).expect("time passes");
    }

    /// Whether anything of the group lives on a host, by the kernel's word: its mount, its address, its processes.
    pub(crate) fn traces(&self, server: &str) -> Vec<String> {
        let host = self.host(server);
        if !host.is_on() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let pid = host.pid().expect("it is on");
        let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).expect("its mounts");
        found.extend(mounts.lines().filter(|line| line.contains(" /srv/web ")).map(str::to_string));
        let address = self.cluster.blueprint().service_address.expect("the example has an address").to_string();
        let addresses = host.exec(&["ip", "-o", "address"]).expect("its addresses");
        found.extend(addresses.lines().filter(|line| line.contains(&format!(" {address}/"))).map(str::to_string));
        for process in host.processes().expect("its processes") {
            let line = process.args.join(" ");
            if line.contains("nginx") || process.is_holdfast("lab-writer") {
                found.push(line);
            }
        }
        found
    }

    /// Waits until nothing of the group is left on a host.
    pub(crate) fn comes_clean(&self, server: &str) {
        wait_for(&format!("the group to be gone from {server}"), LIMIT, |last| {
            let left = self.traces(server);
            *last = format!("{left:?}");
            Ok(left.is_empty().then_some(()))
        })
        .expect("the server has stopped the group");
    }

    /// Who held the group, in order, proven by the writer's files. Panics with every broken rule.
    pub(crate) fn tenures(&self) -> Vec<Tenure> {
        // ORDER: what hosts knew to be durable is read before what is on the disk, which goes on growing.
        let acknowledged: BTreeMap<String, Vec<Line>> = self
            .cluster
            .blueprint()
            .servers
            .iter()
            .map(|server| {
                let path = self.host(server).state_dir().join(LOCAL_FILE);
                (server.clone(), read_lines(&path))
            })
            .collect();
        let outcome = if self.shared {
            let holder = self.active();
            let file = self.host(&holder).path(SHARED_FILE).expect("the holder is on");
            check_overlap(&read_lines(&file), &acknowledged)
        } else {
            merge_tenures(&acknowledged)
        };
        outcome.unwrap_or_else(|broken| panic!("the group was not on one server at a time:\n{}", broken.join("\n")))
    }

    /// The hosts of [`Trial::tenures`], each once per stretch.
    pub(crate) fn history(&self) -> Vec<String> {
        let mut hosts: Vec<String> = self.tenures().into_iter().map(|tenure| tenure.host).collect();
        hosts.dedup();
        hosts
    }
}

/// Shows the end of every log of some hosts when a test fails, as they vanish with the lab.
pub(crate) struct LogsOnPanic(pub(crate) Vec<Arc<Host>>);

impl Drop for LogsOnPanic {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for host in &self.0 {
            for entry in fs::read_dir(host.log_dir()).into_iter().flatten().flatten() {
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                // What an API server was asked for drowns the rest, and the message of the test with it.
                let lines: Vec<&str> = text.lines().filter(|line| !line.contains(" audit: ")).collect();
                let newest = &lines[lines.len().saturating_sub(40)..];
                eprintln!("== {}: {}\n{}", host.name(), entry.file_name().to_string_lossy(), newest.join("\n"));
            }
        }
    }
}

/// Reads the writer's lines; a file that a host never had is empty, a line that is being written is left out.
pub(crate) fn read_lines(path: &Path) -> Vec<Line> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    parse_lines(whole).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Adds the writer to the example's group: on the shared file system if there is one, else on the host's own disk.
fn add_writer(documents: &mut [(PathBuf, Value)], shared: bool) {
    let (file, after, own) =
        if shared { (SHARED_FILE, "[data]", "") } else { ("/var/lib/holdfast/writes", "[]", ", --own") };
    let text = format!(
        "{{name: writer, process: {{command: [{}/holdfast, lab-writer, {file}, --acknowledged, {}/{LOCAL_FILE}{own}]}}, \
         dependsOn: {after}}}",
        holdfast_lab::BIN_DIR,
        holdfast_lab::STATE_DIR
    );
    let writer: Value = serde_yaml::from_str(&text).expect("YAML");
    let group = documents.iter_mut().map(|(_, document)| document).find(|document| document["kind"] == "FailoverGroup");
    let resources = group.and_then(|group| group.get_mut("spec")?.get_mut("resources")?.as_sequence_mut());
    resources.expect("the example has a group with resources").push(writer);
}
