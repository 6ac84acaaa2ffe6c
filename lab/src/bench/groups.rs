//! What large groups cost: a group of twenty resources against its longest chain of dependencies, and the checks of a
//! thousand resources.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_yaml::Value;

use super::report::{self, Series};
use super::{BenchOptions, Idle, LIMIT, idle_cost};
use crate::cluster::{Cluster, ClusterOptions};
use crate::error::{Attempt, LabError, Result};
use crate::shell::wait_for;
use crate::up::Screen;

/// Resources of the group that is started and stopped, in layers, each of which needs all of the one before.
const LAYERS: usize = 4;
const LAYER: usize = 5;
/// What each of them takes.
const WORK: &str = "0.1";
/// What the group may take beyond its longest chain.
const BEYOND: Duration = Duration::from_millis(50);
/// Groups, and resources of each, that are only checked.
const GROUPS: usize = 20;
const EACH: usize = 50;
/// Starting them takes long: all on the cores of one machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Both, and prints them.
pub(super) fn measure(options: &BenchOptions, screen: &Screen) -> Result<()> {
    let edit = |documents: &mut Vec<(PathBuf, Value)>| {
        let Some(group) = documents.iter().find(|(_, document)| document["kind"] == "FailoverGroup").cloned() else {
            return;
        };
        documents.push((PathBuf::from("layers.yaml"), instead(&group.1, "layers", layers())));
        for i in 0..GROUPS {
            let (name, document) = (format!("many-{i:02}"), instead(&group.1, &format!("many-{i:02}"), sleepers()));
            documents.push((PathBuf::from(format!("{name}.yaml")), offline(document)));
        }
    };
    screen.step("building the cluster");
    let mut cluster =
        Cluster::start("groups", &options.example, &ClusterOptions { edit: Some(&edit), ..Default::default() })?;
    let namespace = cluster.blueprint().namespace.clone();
    let server =
        cluster.wait_online("layers", None, LIMIT)?.status.and_then(|status| status.server).unwrap_or_default();
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for run in 1..=options.runs {
        screen.step(&format!("stop and start of {} resources, {run} of {}", LAYERS * LAYER, options.runs));
        cluster.holdfast(&["stop", "layers", "--namespace", &namespace])?;
        stops.push(stamps(&cluster, &server, "stop")?.beyond());
        cluster.holdfast(&["start", "layers", "--namespace", &namespace])?;
        cluster.wait_online("layers", Some(&server), LIMIT)?;
        starts.push(stamps(&cluster, &server, "start")?.beyond());
    }
    let series = [("start", starts), ("stop", stops)].map(|(name, times)| Series {
        name: if name == "start" { "start of 20 resources" } else { "stop of 20 resources" },
        times,
        given: None,
        target: BEYOND,
        peers: "",
        chart: String::new(),
    });
    screen.step("watching the cluster without the other groups");
    let before = idle_cost(&cluster)?;
    screen.step(&format!("starting {} resources", GROUPS * EACH));
    cluster.change(&|documents| {
        let groups = documents.iter_mut().filter(|(_, document)| document["kind"] == "FailoverGroup");
        groups.for_each(|(_, group)| group["spec"]["state"] = "Online".into());
    })?;
    for i in 0..GROUPS {
        cluster.wait_online(&format!("many-{i:02}"), Some(&server), PATIENCE)?;
    }
    screen.step(&format!("watching the checks of {} resources", GROUPS * EACH));
    let after = idle_cost(&cluster)?;
    screen.done();
    screen.line("\nbeyond the longest chain of dependencies, from the first script's begin to the last one's end");
    report::times(&series).iter().for_each(|line| screen.line(line));
    screen.line("");
    let of = |all: Vec<Idle>| all.into_iter().find(|host| host.host == server);
    let (Some(before), Some(after)) = (of(before), of(after)) else {
        return Err(LabError::Api(format!("{server} was not measured")));
    };
    report::checks(&before, &after, GROUPS * EACH).iter().for_each(|line| screen.line(line));
    cluster.close()
}

/// When the scripts of a start or stop worked, in microseconds.
struct Stamps(Vec<(u64, u64)>);

impl Stamps {
    /// From the first begin to the last end, without the longest chain: the sum over the layers of what their slowest
    /// resource took.
    fn beyond(&self) -> Duration {
        let begin = self.0.iter().map(|stamp| stamp.0).min().unwrap_or_default();
        let end = self.0.iter().map(|stamp| stamp.1).max().unwrap_or_default();
        let slowest = |layer: &[(u64, u64)]| layer.iter().map(|(begin, end)| end - begin).max().unwrap_or_default();
        let chain: u64 = self.0.chunks(LAYER).map(slowest).sum();
        Duration::from_micros((end - begin).saturating_sub(chain))
    }
}

/// Waits until all scripts have ended, and takes their stamps away.
fn stamps(cluster: &Cluster, server: &str, what: &str) -> Result<Stamps> {
    let files: Vec<PathBuf> = (0..LAYERS * LAYER).map(|i| PathBuf::from(stamp(&name(i), what))).collect();
    let host = cluster.host(server)?;
    let stamps = wait_for("all scripts to end", LIMIT, |_| {
        let read = |file: &PathBuf| times(&fs::read_to_string(host.path(&file.to_string_lossy()).ok()?).ok()?);
        Ok(files.iter().map(read).collect::<Option<Vec<(u64, u64)>>>())
    })?;
    for file in &files {
        let path = host.path(&file.to_string_lossy())?;
        fs::remove_file(&path).attempt(|| format!("removing {}", path.display()))?;
    }
    Ok(Stamps(stamps))
}

/// Begin and end as a script wrote them: seconds with six decimals. None before the line is whole.
fn times(text: &str) -> Option<(u64, u64)> {
    let micros = |number: &str| number.replace(['.', ','], "").parse().ok();
    let (begin, end) = text.strip_suffix('\n')?.split_once(' ')?;
    Some((micros(begin)?, micros(end)?))
}

fn name(index: usize) -> String {
    format!("step-{}-{}", index / LAYER, index % LAYER)
}

fn stamp(resource: &str, what: &str) -> String {
    format!("/run/bench.{resource}.{what}")
}

/// Twenty scripts in layers, which say when they worked.
fn layers() -> Vec<Value> {
    let script = |resource: &str, what: &str| {
        // The shell's own clock, and as few programs as can be: on a small machine what five scripts do to tell the time is
        // as much as what the agent does.
        let file = stamp(resource, what);
        format!(
            "#!/bin/bash\nbegin=$EPOCHREALTIME; sleep {WORK}; printf '%s %s\\n' \"$begin\" \"$EPOCHREALTIME\" >{file}\n"
        )
    };
    let one = |i: usize| {
        let resource = name(i);
        let layer = i / LAYER;
        let needs: Vec<String> =
            if layer == 0 { Vec::new() } else { (0..LAYER).map(|j| name((layer - 1) * LAYER + j)).collect() };
        value(&serde_json::json!({
            "name": resource,
            "script": {"start": {"inline": script(&resource, "start")}, "stop": {"inline": script(&resource, "stop")}},
            "dependsOn": needs,
        }))
    };
    (0..LAYERS * LAYER).map(one).collect()
}

/// Programs that do nothing.
fn sleepers() -> Vec<Value> {
    let one = |i: usize| {
        value(&serde_json::json!({"name": format!("p{i:02}"), "process": {"command": ["/bin/sleep", "infinity"]}}))
    };
    (0..EACH).map(one).collect()
}

fn value(json: &serde_json::Value) -> Value {
    serde_yaml::to_value(json).unwrap_or_default()
}

/// A group like another one, with other resources.
fn instead(group: &Value, name: &str, resources: Vec<Value>) -> Value {
    let mut group = group.clone();
    group["metadata"]["name"] = name.into();
    group["spec"]["resources"] = Value::Sequence(resources);
    group
}

fn offline(mut group: Value) -> Value {
    group["spec"]["state"] = "Offline".into();
    group
}
