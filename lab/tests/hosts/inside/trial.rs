//! The example `control-plane-inside` with a second group in the master, a writer in every group that leaves evidence, and
//! a repository of its manifests that is applied every second, as a GitOps tool would.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use holdfast_lab::{
    BIN_DIR, Bundle, CLIENT, Host, Line, Poller, STATE_DIR, check_overlap, documents, holdfast_binary, wait_for,
};
use serde_yaml::Value;

use crate::harness::{LIMIT, LogsOnPanic, read_lines};

/// Every group and the file system that it has.
pub(super) const GROUPS: [(&str, &str); 3] =
    [("control-plane", "/srv/control"), ("wiki", "/srv/wiki"), ("web", "/srv/web")];
/// What belongs to groups, as the kernel shows addresses.
const ADDRESSES: [&str; 3] = ["192.0.2.20/24", "192.0.2.11/24", "192.0.2.10/24"];

/// A super-cluster under test.
pub(super) struct Trial {
    // ORDER: dropped before the hosts, whose logs it shows.
    _logs: LogsOnPanic,
    pub(super) bundle: Bundle,
    /// The client of `web`, in the sub-cluster that does not run the control plane.
    pub(super) web: Poller,
    /// The client of `wiki`, in the master.
    pub(super) wiki: Poller,
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

impl Trial {
    /// All groups online, and clients served.
    pub(super) fn start(name: &str) -> Trial {
        let bundle = Bundle::start(name, &examples().join("control-plane-inside"), &edit).expect("it is built");
        let names = servers(&bundle);
        let logs = LogsOnPanic(names.iter().map(|name| bundle.host(name).expect("a server")).collect());
        let client = |address: [u8; 4]| bundle.poll(SocketAddr::from((address, 80))).expect("a client");
        let (web, wiki) = (client([192, 0, 2, 10]), client([192, 0, 2, 11]));
        let trial = Trial { _logs: logs, bundle, web, wiki };
        trial.all_online();
        trial.web.wait_for_answer(None, LIMIT).expect("the client of web is served");
        trial.wiki.wait_for_answer(None, LIMIT).expect("the client of wiki is served");
        trial
    }

    pub(super) fn host(&self, name: &str) -> Arc<Host> {
        self.bundle.host(name).expect("a server")
    }

    /// All servers, those of the master first.
    pub(super) fn servers(&self) -> Vec<String> {
        servers(&self.bundle)
    }

    pub(super) fn all_online(&self) {
        for (group, _) in GROUPS {
            self.bundle.wait_online(group, None, LIMIT * 2).expect("every group comes online");
        }
    }

    /// The server that runs a group, by what the API says.
    pub(super) fn active(&self, group: &str) -> String {
        let online = self.bundle.wait_online(group, None, LIMIT).expect("it is online");
        online.status.and_then(|status| status.server).expect("a server")
    }

    /// Waits until the view of a sub-cluster has all of its servers.
    pub(super) fn all_members(&self, sub_cluster: &str) {
        let wanted = self.bundle.servers(sub_cluster).expect("its servers");
        wait_for(&format!("all servers of {sub_cluster}"), LIMIT, |last| match self.bundle.sub_cluster(sub_cluster) {
            Ok(found) => {
                let members = found.status.and_then(|status| status.view).map(|view| view.members);
                *last = format!("{members:?}");
                Ok((members.as_ref() == Some(&wanted)).then_some(()))
            }
            Err(error) => {
                *last = error.to_string();
                Ok(None)
            }
        })
        .expect("they are in the view");
    }

    /// Whatever of any group is on a server, by the kernel's word: mounts, addresses, processes.
    fn traces(&self, server: &str) -> Vec<String> {
        let host = self.host(server);
        let pid = host.pid().expect("it is on");
        let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).expect("its mounts");
        let mut found: Vec<String> = mounts.lines().filter(|line| line.contains(" /srv/")).map(str::to_owned).collect();
        let addresses = host.exec(&["ip", "-o", "address"]).expect("its addresses");
        let ours = |line: &&str| ADDRESSES.iter().any(|address| line.contains(&format!(" {address} ")));
        found.extend(addresses.lines().filter(ours).map(str::to_owned));
        let processes = host.processes().expect("its processes");
        let of_a_group = processes.into_iter().filter(|process| {
            process.is_holdfast("server") || process.is_holdfast("lab-writer") || process.args[0].contains("nginx")
        });
        found.extend(of_a_group.map(|process| process.args.join(" ")));
        found
    }

    /// Waits until nothing of any group is left on a server.
    pub(super) fn comes_clean(&self, server: &str) {
        wait_for(&format!("every group to be gone from {server}"), LIMIT, |last| {
            let left = self.traces(server);
            *last = format!("{left:?}");
            Ok(left.is_empty().then_some(()))
        })
        .expect("it has stopped everything");
    }

    /// The lines of a group's writer, in order, as they are on the group's disk: proof that it was never on two servers.
    /// Panics with every broken rule.
    pub(super) fn lines(&self, group: &str) -> Vec<Line> {
        let mount = GROUPS.iter().find(|(name, _)| *name == group).expect("a group").1;
        // ORDER: what hosts knew to be durable is read before what is on the disk, which goes on growing.
        let local = |server: &String| read_lines(&self.acknowledged(server, group));
        let acknowledged: BTreeMap<_, _> =
            self.servers().iter().map(|server| (server.clone(), local(server))).collect();
        let holder = self.active(group);
        let lines = read_lines(&self.host(&holder).path(&format!("{mount}/writes")).expect("the holder is on"));
        match check_overlap(&lines, &acknowledged) {
            Ok(_) => lines,
            Err(broken) => panic!("{group} was not on one server at a time:\n{}", broken.join("\n")),
        }
    }

    /// Where a group was started since then, in order, and in which epoch.
    pub(super) fn starts_since(&self, group: &str, since: u64) -> Vec<(String, u64)> {
        let lines = self.lines(group).into_iter().filter(|line| line.boottime_ns > since);
        let mut starts: Vec<(String, u64)> = lines.map(|line| (line.host, line.epoch)).collect();
        starts.dedup();
        starts
    }

    /// The writer's file on a server itself; it survives power cuts.
    pub(super) fn acknowledged(&self, server: &str, group: &str) -> PathBuf {
        self.host(server).state_dir().join(format!("acknowledged-{group}"))
    }

    /// Nothing happened to the clients of `web` since then: less than a timeout without an answer.
    pub(super) fn web_undisturbed_since(&self, since: u64) {
        self.web.wait_for_answer(None, LIMIT).expect("it is served");
        let outage = self.web.longest_outage(since).expect("answers before and after").length;
        assert!(outage < Duration::from_secs(1), "the client saw {outage:?}");
    }

    /// A client in the network asks the API server at its address.
    pub(super) fn api_answers(&self) {
        let url = format!("https://{}/readyz", self.bundle.inside().listen);
        wait_for("the API server to be ready at its address", LIMIT, |last| {
            let client = self.bundle.host(CLIENT)?;
            let answer = client.exec(&["curl", "--silent", "--insecure", "--fail", "--max-time", "2", &url]);
            *last = format!("{answer:?}");
            Ok(answer.ok())
        })
        .expect("it answers");
    }
}

fn servers(bundle: &Bundle) -> Vec<String> {
    bundle.sub_clusters().iter().flat_map(|sub| sub.servers.clone()).collect()
}

/// A second group in the master, at home on its second server, and a writer in every group.
fn edit(documents: &mut Vec<(PathBuf, Value)>) {
    let mut more = holdfast_lab::documents(&examples().join("two-way-standby/wiki.yaml")).expect("the wiki");
    let (_, wiki) = more.first_mut().expect("one group");
    wiki["spec"]["subCluster"] = "master".into();
    wiki["spec"]["placement"] = serde_yaml::from_str("{servers: [beech, ash]}").expect("YAML");
    documents.append(&mut more);
    for (_, document) in documents.iter_mut() {
        let name = document["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if document["kind"] == "SubCluster" && name == "master" {
            let disk = serde_yaml::from_str("{name: second, device: /dev/holdfast/data2}").expect("YAML");
            document["spec"]["disks"].as_sequence_mut().expect("disks").push(disk);
        }
        if let Some((_, mount)) = GROUPS.iter().find(|(group, _)| document["kind"] == "FailoverGroup" && *group == name)
        {
            let resources = document["spec"]["resources"].as_sequence_mut().expect("resources");
            resources.push(writer(&name, mount));
        }
    }
}

fn writer(group: &str, mount: &str) -> Value {
    let text = format!(
        "{{name: writer, process: {{command: [{BIN_DIR}/holdfast, lab-writer, {mount}/writes, --acknowledged, \
         {STATE_DIR}/acknowledged-{group}]}}, dependsOn: [data]}}"
    );
    serde_yaml::from_str(&text).expect("YAML")
}

/// What applies the repository again and again.
pub(super) struct GitOps {
    stop: Sender<()>,
    /// How often somebody answered.
    applied: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Round>>,
}

/// One application of the repository.
#[derive(Debug)]
struct Round {
    /// Exit status: 0 applied, 1 refused, 2 nobody answered.
    status: Option<i32>,
    said: String,
}

impl GitOps {
    /// Applies the manifests now and a second after each time, whether or not anybody answers.
    pub(super) fn begin(bundle: &Bundle) -> GitOps {
        let (stop, stopped) = channel();
        let program = holdfast_binary().expect("the program");
        let (manifests, kubeconfig) = (bundle.manifests().to_path_buf(), bundle.kubeconfig().to_path_buf());
        let applied = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&applied);
        let apply = move || {
            let mut command = Command::new(&program);
            command.args(["apply", "-f"]).arg(&manifests).arg("--kubeconfig").arg(&kubeconfig);
            let output = command.output().expect("the program runs");
            let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            counter.fetch_add(usize::from(output.status.success()), Ordering::Relaxed);
            Round { status: output.status.code(), said }
        };
        let thread = thread::spawn(move || {
            let mut rounds = vec![apply()];
            while stopped.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                rounds.push(apply());
            }
            rounds
        });
        GitOps { stop, applied, thread }
    }

    /// Waits until it was applied so many times more.
    pub(super) fn goes_on(&self, times: usize) {
        let before = self.applied.load(Ordering::Relaxed);
        wait_for("the repository to be applied again", LIMIT, |last| {
            let now = self.applied.load(Ordering::Relaxed);
            *last = format!("{} times", now - before);
            Ok((now >= before + times).then_some(()))
        })
        .expect("it is");
    }

    /// Ends it. Nothing was ever refused, and nothing was changed.
    pub(super) fn end(self) {
        self.stop.send(()).expect("it waits for this");
        for round in self.thread.join().expect("it ends") {
            let idle = round.said.lines().all(|line| line.ends_with(" unchanged"));
            assert!(round.status == Some(2) || round.status == Some(0) && idle, "{round:?}");
        }
    }
}

/// The generation of every object that the repository declares.
pub(super) fn generations(bundle: &Bundle) -> BTreeMap<String, i64> {
    let all = documents(bundle.manifests()).expect("the manifests");
    let ours = all.iter().map(|(_, one)| one).filter(|one| one["kind"] != "Namespace");
    ours.map(|one| {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
        let name = format!("{}/{}", word(&one["kind"]), word(&one["metadata"]["name"]));
        let text = bundle.holdfast(&["get", &name, "-n", "ha", "-o", "json"]).expect("it is there");
        let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        (name, object["metadata"]["generation"].as_i64().expect("a generation"))
    })
    .collect()
}
