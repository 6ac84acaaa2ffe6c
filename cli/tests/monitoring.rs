//! `manifests/monitoring` with a real Prometheus: it is let in, understands what it gets, and its rules and the dashboard ask for
//! metrics that there are.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_telemetry::metrics::{Described, Kind, OF_EVERY_PROCESS};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/monitoring")
}

fn text(file: &str) -> String {
    std::fs::read_to_string(manifests().join(file)).expect(file)
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every metric that a part of Holdfast has.
fn described() -> Vec<&'static Described> {
    let lists = [holdfast_apiserver::metrics::LIST, holdfast_controller::metrics::LIST, holdfast_agent::metrics::LIST];
    lists.into_iter().flatten().chain(OF_EVERY_PROCESS).copied().collect()
}

/// Expressions of the alerts and of the dashboard.
fn expressions() -> Vec<String> {
    let alerts: Value = serde_yaml::from_str(&text("alerts.yaml")).expect("YAML");
    let dashboard: Value = serde_json::from_str(&text("dashboard.json")).expect("JSON");
    let rules = alerts["groups"].as_array().expect("groups").iter().flat_map(|group| group["rules"].as_array());
    let targets = dashboard["panels"].as_array().expect("panels").iter().flat_map(|panel| panel["targets"].as_array());
    let all = rules.flatten().chain(targets.flatten());
    all.map(|one| one["expr"].as_str().expect("an expression").to_owned()).collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let metrics = described();
    let known = |word: &str| {
        metrics.iter().any(|metric| match metric.kind {
            Kind::Histogram => {
                word.strip_prefix(metric.name).is_some_and(|end| ["_bucket", "_sum", "_count"].contains(&end))
            }
            Kind::Counter | Kind::Gauge => word == metric.name,
        })
    };
    for expression in expressions() {
        // Words in quotes are values of labels.
        let outside: String = expression.split('"').step_by(2).collect::<Vec<_>>().join(" ");
        let words = outside.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let ours =
            words.filter(|word| ["holdfast_", "apiserver_", "process_"].iter().any(|start| word.starts_with(start)));
        for word in ours {
            assert!(known(word), "{word} in {expression}");
        }
    }
}

#[test]
fn prometheus_reads_what_a_server_shows_and_its_alerts_are_about_it() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(["server", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
    let mut server = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a server"));
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let address = line.split("https://").nth(1).and_then(|rest| rest.split(',').next()).expect("an address").to_owned();
    let kubectl = |args: &[&str]| {
        let output = Command::new("kubectl").args(args).env("KUBECONFIG", data.join("admin.kubeconfig")).output();
        let output = output.expect("kubectl");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/two-servers");
    kubectl(&["apply", "-k", example]);
    kubectl(&["apply", "-f", manifests().join("access.yaml").to_str().expect("UTF-8")]);
    // Who is not let in learns nothing.
    let refused = Command::new("curl").args(["-sk", &format!("https://{address}/metrics")]).output().expect("curl");
    assert!(String::from_utf8_lossy(&refused.stdout).contains("Unauthorized"), "{refused:?}");

    let token = kubectl(&["create", "token", "prometheus", "-n", "holdfast-monitoring"]);
    std::fs::write(home.path().join("token"), token.trim()).expect("written");
    std::fs::copy(data.join("pki/ca.crt"), home.path().join("ca.crt")).expect("copied");
    std::fs::copy(manifests().join("alerts.yaml"), home.path().join("alerts.yaml")).expect("copied");
    let config = text("prometheus.yaml")
        .replace("/etc/prometheus/holdfast", home.path().to_str().expect("UTF-8"))
        .replace("127.0.0.1:6443", &address)
        .replace("\"10.0.0.1:9797\", \"10.0.0.2:9797\"", "")
        .replace("15s", "200ms");
    std::fs::write(home.path().join("prometheus.yml"), config).expect("written");
    let checked = Command::new("promtool").args(["check", "config"]).arg(home.path().join("prometheus.yml")).output();
    let checked = checked.expect("promtool");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    // A free port, for as long as nobody else takes it.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", home.path().join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", home.path().join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let log = std::fs::File::create(home.path().join("log")).expect("a file");
    let _prometheus = Running(command.stdout(Stdio::null()).stderr(log).spawn().expect("prometheus"));
    let ask = |path: &str, query: &str| -> Value {
        let url = format!("http://127.0.0.1:{port}/api/v1/{path}");
        let encoded = format!("query={query}");
        let output =
            Command::new("curl").args(["-s", "-G", &url, "--data-urlencode", &encoded]).output().expect("curl");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    };
    let deadline = Instant::now() + LIMIT;
    let wait = |what: &str, holds: &dyn Fn() -> bool| {
        while !holds() {
            let log = || std::fs::read_to_string(home.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "not seen: {what}\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let one = |query: &str| ask("query", query)["data"]["result"][0]["value"][1].as_str().map(str::to_owned);
    let accepted = r#"holdfast_condition{kind="SubCluster",namespace="ha",name="shop",condition="Accepted"}"#;
    wait("the sub-cluster is accepted", &|| one(accepted).as_deref() == Some("1"));
    wait("one controller leads", &|| one("sum(holdfast_controller_leader)").as_deref() == Some("1"));
    wait("kubectl's writes were counted", &|| {
        one(r#"apiserver_request_total{verb="create",resource="subclusters",code="201"}"#).as_deref() == Some("1")
    });
    for expression in expressions() {
        let answer = ask("query", &expression);
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
    }
    // No agent runs: the alert about that waits for its time, and nothing else does about the control plane.
    wait("an alert is about the sub-cluster", &|| {
        let alerts = ask("alerts", "");
        let alerts = alerts["data"]["alerts"].as_array().cloned().unwrap_or_default();
        alerts.iter().any(|alert| {
            alert["labels"]["alertname"] == "HoldfastSubClusterNotReady" && alert["labels"]["name"] == "shop"
        })
    });
    let rules = ask("rules", "");
    for rule in
        rules["data"]["groups"].as_array().expect("groups").iter().flat_map(|group| group["rules"].as_array()).flatten()
    {
        assert_eq!(rule["health"], "ok", "{rule}");
        if rule["name"] == "HoldfastNoController" || rule["name"] == "HoldfastStoreLost" {
            assert_eq!(rule["state"], "inactive", "{rule}");
        }
    }
}
