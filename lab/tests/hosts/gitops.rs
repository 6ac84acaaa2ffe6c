//! A sub-cluster that is kept in git: a real repository, walked by what `examples/gitops` says through add, change and
//! remove, with the health that its tools show.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use holdfast_lab::{CLIENT, Cluster, ClusterOptions, wait_for};

use crate::harness::LogsOnPanic;

const LIMIT: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "shop";
const OVERLAY: &str = "overlays/production";

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

#[track_caller]
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = said(&output);
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A repository that starts as the example, the working copy of who writes it, and that of what applies it.
struct Repository {
    directory: PathBuf,
}

impl Repository {
    fn new(directory: PathBuf) -> Repository {
        fs::create_dir(&directory).expect("a directory");
        let repository = Repository { directory };
        repository.git(".", &["init", "--quiet", "--bare", "--initial-branch=main", "origin.git"]);
        repository.git(".", &["clone", "--quiet", "origin.git", "ours"]);
        repository.git("ours", &["checkout", "--quiet", "-b", "main"]);
        let example = examples().join("gitops").join(".");
        done(Command::new("cp").arg("-r").args([example, repository.directory.join("ours")]));
        repository.push("Begin as the example");
        repository.git(".", &["clone", "--quiet", "origin.git", "applied"]);
        repository
    }

    fn git(&self, place: &str, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.current_dir(self.directory.join(place)).args(args);
        for role in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{role}_NAME"), "anna").env(format!("GIT_{role}_EMAIL"), "anna@example.com");
        }
        done(&mut git)
    }

    fn push(&self, message: &str) {
        self.git("ours", &["add", "--all"]);
        self.git("ours", &["commit", "--quiet", "-m", message]);
        self.git("ours", &["push", "--quiet", "origin", "main"]);
    }

    /// Commits what the overlay has beside the base.
    fn commit(&self, message: &str, more: &[&str], patches: &[Patch]) {
        let mut text = format!("namespace: {NAMESPACE}\nresources:\n- ../../base\n");
        text.extend(more.iter().map(|file| format!("- {file}\n")));
        text.push_str("patches:\n");
        text.extend(patches.iter().map(|(group, patch)| {
            format!("- target: {{kind: FailoverGroup, name: {group}}}\n  patch: |\n    - {patch}\n")
        }));
        fs::write(self.directory.join("ours").join(OVERLAY).join("kustomization.yaml"), text).expect("a file");
        self.push(message);
    }

    fn overlay(&self) -> PathBuf {
        self.directory.join("applied").join(OVERLAY)
    }
}

/// A change of a group by the overlay.
type Patch = (&'static str, &'static str);
const ADDRESS: Patch = ("web", "{op: replace, path: /spec/resources/3/floatingIP/address, value: 192.0.2.12/24}");
const OFFLINE: Patch = ("wiki", "{op: add, path: /spec/state, value: Offline}");

struct Trial {
    repository: Repository,
    cluster: Cluster,
}

impl Trial {
    fn kubectl(&self, args: &[&str]) -> Command {
        let mut kubectl = Command::new("kubectl");
        kubectl.args(["--kubeconfig", &self.cluster.kubeconfig().to_string_lossy(), "-n", NAMESPACE]).args(args);
        kubectl.env("HOME", &self.repository.directory).env("KUBECTL_APPLYSET", "true");
        kubectl
    }

    /// Pulls, and applies as the example's README says.
    fn apply(&self) -> Output {
        self.repository.git("applied", &["pull", "--quiet", "--ff-only"]);
        let overlay = self.repository.overlay();
        let overlay = overlay.to_string_lossy();
        let args = ["apply", "--server-side", "-k", &overlay, "--prune", "--applyset=shop"];
        self.kubectl(&args).output().expect("kubectl runs")
    }

    #[track_caller]
    fn applied(&self) {
        let output = self.apply();
        assert!(output.status.success(), "{}", said(&output));
    }

    fn field(&self, object: &str, path: &str) -> String {
        done(&mut self.kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")]))
    }

    /// Who answers a client on this address.
    fn answers(&self, address: &str) -> Option<String> {
        let url = format!("http://{address}/");
        let client = self.cluster.host(CLIENT).expect("a client");
        client.exec(&["curl", "--silent", "--max-time", "1", &url]).ok().map(|page| page.trim().to_owned())
    }

    #[track_caller]
    fn is_served(&self, address: &str, by: &str) {
        wait_for(&format!("{by} to answer on {address}"), LIMIT, |last| {
            let answer = self.answers(address);
            *last = format!("{answer:?}");
            Ok((answer.as_deref() == Some(by)).then_some(()))
        })
        .expect("the service is there");
    }

    /// How Argo CD shows an object, by the script that the example gives it.
    fn health(&self, object: &str) -> String {
        let text = fs::read_to_string(examples().join("gitops/argocd/health.yaml")).expect("the example's file");
        let map: serde_yaml::Value = serde_yaml::from_str(&text).expect("YAML");
        let customizations = map["data"]["resource.customizations"].as_str().expect("a text");
        let customizations: serde_yaml::Value = serde_yaml::from_str(customizations).expect("YAML in it");
        let script = customizations["holdfast.dev/*"]["health.lua"].as_str().expect("a script");
        let json = done(&mut self.kubectl(&["get", object, "-o", "json"]));
        let object: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let program =
            format!("obj = {}\nlocal function health()\n{script}\nend\nio.write(health().status)", lua(&object));
        done(Command::new("lua5.4").args(["-e", &program]))
    }
}

/// A value as Lua writes it.
fn lua(value: &serde_json::Value) -> String {
    use serde_json::Value;
    let text = |text: &str| {
        let escaped: String = text.bytes().map(|byte| format!("\\{byte:03}")).collect();
        format!("\"{escaped}\"")
    };
    match value {
        Value::Null => "nil".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(found) => text(found),
        Value::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| format!("[{}] = {}", text(key), lua(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

/// ApplySets came with kubectl 1.27.
mod kubectl_1_28 {
    use super::*;

    #[test]
    fn a_repository_is_walked_through_add_change_and_remove() {
        // What the hosts are made for: what the repository begins with, and what it will have.
        let rendered = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gitops");
        fs::create_dir_all(&rendered).expect("a directory");
        let production = examples().join("gitops").join(OVERLAY);
        let production = done(Command::new("kubectl").args(["kustomize", &production.to_string_lossy()]));
        fs::write(rendered.join("production.yaml"), production).expect("a file");
        let wiki = examples().join("two-way-standby/wiki.yaml");
        fs::copy(&wiki, rendered.join("wiki.yaml")).expect("a file");
        let cluster = Cluster::build("gitops", &rendered, &ClusterOptions::default()).expect("the cluster is built");
        let repository = Repository::new(cluster.lab().directory().join("git"));
        let hosts = ["alder", "birch"].map(|name| cluster.host(name).expect("a server"));
        let trial = Trial { repository, cluster };
        // ORDER: declared after the cluster, so that it shows the logs before they are gone.
        let _logs = LogsOnPanic(hosts.to_vec());

        done(&mut trial.kubectl(&["create", "namespace", NAMESPACE]));
        trial.applied();
        trial.cluster.start_agents().expect("the agents start");
        done(&mut trial.kubectl(&["wait", "fog", "--all", "--for=condition=Ready", "--timeout=60s"]));
        trial.is_served("192.0.2.10", "alder");
        for object in ["fog/web", "hsub/shop", "hsc/demo"] {
            wait_for("Argo CD to show it as healthy", LIMIT, |last| {
                *last = format!("{object} is {}", trial.health(object));
                Ok(last.ends_with("Healthy").then_some(()))
            })
            .expect("healthy");
        }

        let test = trial.repository.directory.join("applied/overlays/test");
        let test = test.to_string_lossy();
        done(&mut trial.kubectl(&["create", "namespace", "shop-test"]));
        let mut other = trial.kubectl(&["apply", "--server-side", "--dry-run=server", "-k", &test]);
        done(other.args(["-n", "shop-test"]));

        let before = trial.field("fog/web", ".metadata.generation");
        trial.applied();
        assert_eq!(trial.field("fog/web", ".metadata.generation"), before, "nothing has changed in the repository");

        let ours = trial.repository.directory.join("ours").join(OVERLAY);
        fs::copy(wiki, ours.join("wiki.yaml")).expect("a file");
        trial.repository.commit("Add the wiki", &["wiki.yaml"], &[]);
        trial.applied();
        trial.is_served("192.0.2.11", "birch");

        trial.repository.commit("Give the shop another address", &["wiki.yaml"], &[ADDRESS]);
        trial.applied();
        let waiting = "kubectl to show what waits for the next start";
        wait_for(waiting, LIMIT, |last| {
            *last = trial.field("fog/web", ".status.pendingChanges[*].path");
            Ok(last.contains("spec.resources").then_some(()))
        })
        .expect("it waits");
        assert_eq!(trial.answers("192.0.2.10").as_deref(), Some("alder"), "what runs is not disturbed");
        for verb in ["stop", "start"] {
            trial.cluster.holdfast(&[verb, "web", "-n", NAMESPACE]).expect("the operator's word");
        }
        trial.is_served("192.0.2.12", "alder");
        assert_eq!(trial.answers("192.0.2.10"), None, "the old address is gone");

        // Removed from the repository while it runs: the deletion is refused, with the way out, and it runs on.
        trial.repository.commit("Remove the wiki", &[], &[ADDRESS]);
        let refused = trial.apply();
        assert!(!refused.status.success(), "{}", said(&refused));
        for words in ["the group is not offline", "set spec.state to Offline", "on birch"] {
            assert!(said(&refused).contains(words), "no {words:?} in {}", said(&refused));
        }
        trial.is_served("192.0.2.11", "birch");

        trial.repository.commit("Stop the wiki", &["wiki.yaml"], &[ADDRESS, OFFLINE]);
        trial.applied();
        done(&mut trial.kubectl(&["wait", "fog/wiki", "--for=jsonpath={.status.phase}=Offline", "--timeout=60s"]));
        assert_eq!(trial.answers("192.0.2.11"), None);
        trial.repository.commit("Remove the wiki for good", &[], &[ADDRESS]);
        trial.applied();
        done(&mut trial.kubectl(&["wait", "fog/wiki", "--for=delete", "--timeout=60s"]));
        trial.is_served("192.0.2.12", "alder");
        assert_eq!(trial.field("fog", ".items[*].metadata.name"), "web");
    }
}
