//! Resource agents of another maker, unchanged, in a group: moved, and taken over after a power cut, and
//! from a frozen Holdfast; and what is refused.

use holdfast_api::v1::GroupPhase;
use holdfast_lab::{AGENT, CLIENT, boottime_ns, wait_for};
use serde_yaml::Value;

use crate::harness::{GROUP, LIMIT, Trial};

/// An address that IPaddr2 holds; the web server of the group answers on it, too.
const ADDRESS: &str = "192.0.2.20";
/// Dummy's sign that it is started, where the package puts it.
const STATE: &str = "/run/resource-agents/Dummy-web.note.state";

fn with_agents(documents: &mut [(std::path::PathBuf, Value)]) {
    let more = format!(
        "[{{name: front, dependsOn: [nginx], stage: Address, ocf: {{type: IPaddr2, \
         parameters: {{ip: {ADDRESS}, cidr_netmask: '24', nic: pub}}}}}}, {{name: note, ocf: {{type: Dummy}}}}]"
    );
    let more: Vec<Value> = serde_yaml::from_str(&more).expect("YAML");
    let group = documents.iter_mut().map(|(_, document)| document).find(|document| document["kind"] == "FailoverGroup");
    let resources = group.and_then(|group| group["spec"]["resources"].as_sequence_mut());
    resources.expect("the example's group").extend(more);
}

/// Has the shared disk's file system mounted by an agent.
fn mounted_by_an_agent(documents: &mut [(std::path::PathBuf, Value)]) {
    let data = "{name: data, ocf: {type: Filesystem, depths: [{depth: 20, interval: 1s}], \
        parameters: {device: /dev/holdfast/data, directory: /srv/web, fstype: ext4}}}";
    for (_, document) in documents.iter_mut().filter(|(_, document)| document["kind"] == "FailoverGroup") {
        let resources = document["spec"]["resources"].as_sequence_mut();
        for resource in resources.into_iter().flatten().filter(|resource| resource["name"] == "data") {
            *resource = serde_yaml::from_str(data).expect("YAML");
        }
    }
}

/// Waits until the client is answered on the agent's address by this server.
fn answered_by(trial: &Trial, server: &str) {
    wait_for(&format!("{server} to answer on {ADDRESS}"), LIMIT, |last| {
        let url = format!("http://{ADDRESS}/");
        let page = trial.host(CLIENT).exec(&["curl", "--silent", "--max-time", "1", &url]);
        *last = format!("{page:?}");
        Ok(page.is_ok_and(|page| page.trim() == server).then_some(()))
    })
    .expect("the address is there");
}

/// What the agents have left on a host, by the kernel's and the file system's word.
fn left(trial: &Trial, server: &str) -> Vec<String> {
    let host = trial.host(server);
    let addresses = host.exec(&["ip", "-o", "address"]).expect("its addresses");
    let mut found: Vec<String> =
        addresses.lines().filter(|line| line.contains(&format!(" {ADDRESS}/"))).map(str::to_owned).collect();
    found.extend(host.path(STATE).expect("it is on").exists().then(|| STATE.to_owned()));
    found
}

/// Whether a host has the shared disk's file system, by its kernel's word.
fn is_mounted(trial: &Trial, server: &str) -> bool {
    let pid = trial.host(server).pid().expect("it is on");
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mounts")).expect("its mounts");
    mounts.lines().any(|line| line.starts_with("/dev/") && line.contains(" /srv/web ext4 "))
}

#[test]
fn agents_of_another_maker_are_moved_and_taken_over_with_their_group() {
    // The lab formats the disk that the example names.
    let declare = |documents: &mut Vec<_>| mounted_by_an_agent(documents);
    let options = holdfast_lab::ClusterOptions { declare: Some(&declare), ..Default::default() };
    let trial = Trial::start_with("ocf", "two-servers", options, with_agents);
    let first = trial.active();
    let second = trial.others(&first).remove(0);
    answered_by(&trial, &first);
    assert_eq!((left(&trial, &first).len(), left(&trial, &second).len()), (2, 0));
    assert!(is_mounted(&trial, &first) && !is_mounted(&trial, &second));

    trial.cluster.holdfast(&["move", GROUP, "--to", &second, "--namespace", "ha"]).expect("it is moved");
    answered_by(&trial, &second);
    assert_eq!((left(&trial, &first).len(), left(&trial, &second).len()), (0, 2), "{:?}", left(&trial, &first));
    assert!(!is_mounted(&trial, &first) && is_mounted(&trial, &second));

    let (epoch, before) = (trial.epoch(), boottime_ns());
    trial.cluster.power_cut(&second).expect("a power cut");
    trial.served_by(std::slice::from_ref(&first), before);
    answered_by(&trial, &first);
    assert_eq!(left(&trial, &first).len(), 2);
    assert!(is_mounted(&trial, &first));
    trial.cluster.wait_online(GROUP, Some(&first), LIMIT).expect("the status follows");
    trial.cluster.power_on(&second).expect("power");
    trial.all_return(epoch + 1);
    assert_eq!(left(&trial, &second), Vec::<String>::new());
    assert_eq!(trial.history(), [first.clone(), second, first]);
    trial.cluster.close().expect("the lab goes");
}

#[test]
fn the_guard_calls_the_agents_stop_where_holdfast_itself_is_frozen() {
    let trial = Trial::start_with("ocf-frozen", "two-servers", holdfast_lab::ClusterOptions::default(), with_agents);
    let first = trial.active();
    let second = trial.others(&first).remove(0);
    answered_by(&trial, &first);
    trial.host(&first).leave_service(AGENT).expect("its supervisor looks away");
    let before = boottime_ns();
    trial.host(&first).freeze_agent().expect("an agent to freeze");
    trial.served_by(std::slice::from_ref(&second), before);
    answered_by(&trial, &second);
    // Its address went at once. The rest is the agent's own to stop, which without a watchdog has no deadline.
    assert!(left(&trial, &first).iter().all(|found| found == STATE), "{:?}", left(&trial, &first));
    wait_for("the guard to have called the agents", LIMIT, |last| {
        *last = format!("{:?}", left(&trial, &first));
        Ok(left(&trial, &first).is_empty().then_some(()))
    })
    .expect("nothing of the agents is left");
    assert_eq!(left(&trial, &second).len(), 2);
    trial.cluster.wait_online(GROUP, Some(&second), LIMIT).expect("the status follows");
    assert_eq!(trial.history(), [first, second]);
    trial.cluster.close().expect("the lab goes");
}

/// A second group, of one agent with a misspelt parameter.
const WRONG: &str = "{apiVersion: holdfast.dev/v1, kind: FailoverGroup, metadata: {name: wrong, namespace: ha}, \
    spec: {subCluster: shop, resources: [{name: note, ocf: {type: Dummy, parameters: {stat: /tmp/x}}}]}}";

#[test]
fn a_resource_that_its_agent_would_not_understand_is_refused_by_name_and_disturbs_nobody() {
    let trial = Trial::two("ocf-wrong");
    let (active, before) = (trial.active(), boottime_ns());
    let file = trial.host(&active).state_dir().join("wrong.yaml");
    std::fs::write(&file, WRONG).expect("a manifest");
    trial.cluster.holdfast(&["apply", "-f", &file.to_string_lossy()]).expect("it is taken");
    let status = wait_for("both servers to refuse it", LIMIT, |last| {
        let status = trial.cluster.group("wrong")?.status.unwrap_or_default();
        *last = format!("{status:?}");
        Ok((status.failures.len() == 2 && status.phase == Some(GroupPhase::Failed)).then_some(status))
    })
    .expect("the status says so");
    for failure in &status.failures {
        let text = "ocf.parameters.stat: heartbeat:Dummy has none of that name; it takes";
        assert!(failure.resource == "note" && failure.message.contains(text), "{failure:?}");
    }
    trial.undisturbed_since(before);
    trial.all_active();
    assert_eq!(trial.history(), [active]);
    trial.cluster.close().expect("the lab goes");
}

/// A group that nothing starts, of an agent that no server has and one that knows no such parameter.
const UNUSABLE: &str = "{apiVersion: holdfast.dev/v1, kind: FailoverGroup, metadata: {name: later, namespace: ha}, \
    spec: {subCluster: shop, state: Offline, resources: [{name: first, ocf: {type: FIRST}}, \
    {name: note, ocf: {type: Dummy, parameters: {PARAMETER: /tmp/x}}}]}}";

#[test]
fn an_agent_that_is_not_installed_and_a_parameter_that_it_does_not_take_are_told_right_after_apply() {
    let trial = Trial::two("ocf-unusable");
    let file = trial.host(&trial.active()).state_dir().join("later.yaml");
    let apply = |first: &str, parameter: &str| {
        let text = UNUSABLE.replace("FIRST", first).replace("PARAMETER", parameter);
        std::fs::write(&file, text).expect("a manifest");
        trial.cluster.holdfast(&["apply", "-f", &file.to_string_lossy()]).expect("it is taken");
    };
    let told = || -> String {
        let status = trial.cluster.group("later").ok().and_then(|group| group.status).unwrap_or_default();
        let told = status.conditions.into_iter().find(|condition| condition.type_ == "UnusableResource");
        told.map(|condition| condition.message).unwrap_or_default()
    };
    apply("Frobnicator", "stat");
    let both = trial.cluster.blueprint().servers.join(" and ");
    let expected = [
        format!(
            "first can't be carried out on {both}: ocf.type: there is no agent heartbeat:Frobnicator on this server"
        ),
        format!(
            "note can't be carried out on {both}: ocf.parameters.stat: heartbeat:Dummy has none of that name; it takes"
        ),
    ];
    let status = wait_for("the group to say so", LIMIT, |last| {
        *last = format!("{} {}", told(), trial.cluster.holdfast(&["status", "--namespace", "ha"])?);
        let said = |text: &str| expected.iter().all(|words| text.contains(words));
        let status = trial.cluster.group("later")?.status.unwrap_or_default();
        Ok((said(&told()) && expected.iter().all(|words| last.matches(words).count() == 2)).then_some(status))
    })
    .expect("the condition and `holdfast status`");
    assert!(status.failures.is_empty() && status.transitions.is_empty(), "nothing was started: {status:?}");

    apply("Stateful", "state");
    wait_for("nothing to be wrong any more", LIMIT, |last| {
        *last = told();
        Ok(last.is_empty().then_some(()))
    })
    .expect("it is known at once");
    trial.cluster.close().expect("the lab goes");
}
