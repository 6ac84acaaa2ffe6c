use std::process::Command;

use super::*;

const AGENT: &str = r#"<?xml version="1.0"?><!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="X" version="1.0"><shortdesc lang="en">An agent</shortdesc><parameters>
<parameter name="ip" unique="1" required="1"><shortdesc lang="en">Its address</shortdesc><content type="string" default=""/></parameter>
<parameter name="pid" required="1"><content type="string" default="/run/x.pid"/></parameter>
<parameter name="nic"><content type="string"/></parameter></parameters>
<actions><action name="start" timeout="90s"/><action name="stop" timeout="100"/>
<action name="monitor" depth="0" timeout="30s" interval="15s"/><action name="monitor" depth="10" timeout="31" interval="60"/>
<action name="monitor" depth="20" timeout="32" interval="70"/><action name="meta-data" timeout="5s"/></actions></resource-agent>"#;

fn name() -> Name {
    Name::parse("test:X").unwrap()
}

fn refused(metadata: &Metadata, given: &[(&str, &str)]) -> Vec<String> {
    refusals(&name(), metadata, &given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
}

#[test]
fn wrong_and_missing_parameters_and_agents_that_need_roles_are_named_with_what_is_allowed() {
    let mut agent = Metadata::parse(AGENT).unwrap();
    assert_eq!(refused(&agent, &[("ip", "192.0.2.1")]), Vec::<String>::new(), "pid has a default");
    assert_eq!(
        refused(&agent, &[("IP", "192.0.2.1")]),
        [
            "ocf.parameters.IP: test:X has none of that name; it takes ip, nic, pid",
            "ocf.parameters.ip: test:X needs it (Its address); give it"
        ]
    );
    agent.actions.insert("promote".to_owned());
    assert_eq!(refused(&agent, &[("ip", "192.0.2.1")]), Vec::<String>::new(), "as a plain instance");
    let needs_roles = Name::parse("sg_persist").unwrap();
    let given = [("ip".to_owned(), "192.0.2.1".to_owned())].into();
    let text = refusals(&needs_roles, &agent, &given).remove(0);
    assert!(text.starts_with("ocf.type: heartbeat:sg_persist: it does its work only on an instance that is"), "{text}");
}

#[test]
fn times_come_from_the_agent_where_the_resource_gives_none() {
    let mut resource: api::Resource = serde_json::from_value(serde_json::json!(
        {"name": "x", "ocf": {"type": "X", "depths": [{"depth": 10}, {"depth": 20, "interval": "50s"}, {"depth": 30}]},
         "timeouts": {"start": "7s"}, "monitor": {"threshold": 2}}
    ))
    .unwrap();
    propose(&mut resource, &Metadata::parse(AGENT).unwrap());
    let seconds = Duration::from_secs;
    assert_eq!((resource.start_timeout(), resource.stop_timeout()), (seconds(7), seconds(100)));
    assert_eq!((resource.probe_timeout(), resource.check_timeout()), (seconds(30), seconds(30)));
    assert_eq!((resource.check_interval(), resource.check_threshold()), (seconds(15), 2));
    let checks: Vec<_> = resource.checks().into_iter().map(|(d, c)| (d, c.interval, c.timeout)).collect();
    let plain = (0, seconds(15), seconds(30));
    let expected = [plain, (10, seconds(60), seconds(31)), (20, seconds(50), seconds(32)), (30, plain.1, plain.2)];
    assert_eq!(checks, expected, "given, the agent's, the plain check's");
}

#[test]
fn a_group_gets_the_times_of_the_agents_that_are_here() {
    let group = |kind: &str| -> api::FailoverGroup {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "holdfast.dev/v1", "kind": "FailoverGroup", "metadata": {"name": "g"},
            "spec": {"subCluster": "s", "resources": [{"name": "x", "ocf": {"type": kind}}]}}))
        .unwrap()
    };
    let known = Known::default();
    let times = |kind: &str| {
        let group = known.with_proposed_times(&group(kind)).unwrap();
        let resource = &group.spec.resources[0];
        (resource.start_timeout().as_secs(), resource.stop_timeout().as_secs(), resource.check_interval().as_secs())
    };
    assert_eq!(times("exportfs"), (40, 120, 10), "as `holdfast agents describe heartbeat:exportfs` says");
    assert_eq!(times("exportfs"), (40, 120, 10), "remembered");
    assert_eq!(times("Nothing"), (60, 60, 10), "what holds for every other resource");
}

#[test]
fn a_name_leads_nowhere_else() {
    assert_eq!(Name::parse("IPaddr2").unwrap().path(), Path::new("/usr/lib/ocf/resource.d/heartbeat/IPaddr2"));
    assert_eq!(Name::parse("ocf:heartbeat:db2").unwrap().to_string(), "heartbeat:db2");
    for bad in ["../../bin:sh", "heartbeat:../x", "heartbeat:", ":x", "heartbeat:a/b", "a:b:c", "x\0"] {
        assert!(Name::parse(bad).is_err(), "{bad}");
    }
}

/// Every agent of the package describes itself in a way that can be used. xmllint-independent evidence is the package's
/// own list of files.
#[test]
fn every_agent_of_the_package_is_understood() {
    let listed = Command::new("dpkg").args(["-L", "resource-agents"]).output().expect("dpkg runs");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let agents: Vec<Name> = listed
        .lines()
        .filter_map(|line| line.strip_prefix("/usr/lib/ocf/resource.d/heartbeat/"))
        .filter(|file| !file.starts_with('.') && !file.contains('/'))
        .map(|file| Name::new("heartbeat", file).unwrap())
        .collect();
    assert!(agents.len() > 100, "install resource-agents: {agents:?}");
    let found = list().unwrap();
    let mut broken = Vec::new();
    for name in &agents {
        assert!(found.contains(name), "{name} is not listed");
        match describe(name) {
            Err(problem) => broken.push(problem),
            Ok(metadata) => {
                // The three actions that every agent must have, each with the time that it proposes.
                for action in ["start", "stop", "monitor"] {
                    if metadata.proposed(action).and_then(|proposed| proposed.timeout).is_none() {
                        broken.push(format!("{name}: no time for {action}"));
                    }
                }
            }
        }
    }
    println!("{} agents", agents.len());
    assert_eq!(broken, Vec::<String>::new());
}
