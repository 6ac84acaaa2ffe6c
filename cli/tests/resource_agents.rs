//! Every resource agent of Debian's package: described to people, and held against what a manifest gives it. What is
//! expected comes from the text that the agent itself prints, taken apart here by other means than the product's.

use std::collections::BTreeMap;
use std::process::Command;

use holdfast_agent::resources::ocf::agents::{Name, describe, refusals};

const DIRECTORY: &str = "/usr/lib/ocf/resource.d/heartbeat/";

/// They work only on an instance that is promoted: refused, whatever they are given.
const NEED_ROLES: [&str; 4] = ["conntrackd", "mpathpersist", "rabbitmq-server-ha", "sg_persist"];

/// Their metadata calls something an integer or a boolean whose default is none: the type is not held against a value.
const MISTYPED: [(&str, &str); 3] = [("jboss", "integer"), ("pingd", "integer"), ("rabbitmq-server-ha", "boolean")];

/// Configuration is read again by these (`reload` of API 1.0). None of the package has `reload-agent` or a parameter that
/// is `reloadable`, which is what a change without a restart would need (docs/decisions/0012).
const RELOAD: [&str; 12] = [
    "AoEtarget",
    "Dummy",
    "Route",
    "SAPInstance",
    "dovecot",
    "dummypy",
    "ipsec",
    "mysql-proxy",
    "named",
    "nfsnotify",
    "nginx",
    "postfix",
];

/// A parameter, as the agent's text has it.
struct Written {
    required: bool,
    deprecated: bool,
    kind: String,
    default: String,
}

fn attribute(tag: &str, name: &str) -> String {
    let from = tag.find(&format!("{name}=\"")).map(|at| at + name.len() + 2);
    from.and_then(|from| tag[from..].split('"').next()).unwrap_or_default().to_owned()
}

fn parameters(text: &str) -> BTreeMap<String, Written> {
    // What is commented out is not there.
    let text: String = text
        .split("<!--")
        .enumerate()
        .map(|(i, part)| if i == 0 { part } else { part.split_once("-->").map_or("", |p| p.1) })
        .collect();
    text.split("<parameter ")
        .skip(1)
        .map(|part| {
            let body = part.split("</parameter>").next().unwrap_or_default();
            let head = body.split('>').next().unwrap_or_default();
            let content = body.split("<content").nth(1).and_then(|rest| rest.split('>').next()).unwrap_or_default();
            let written = Written {
                required: attribute(head, "required") == "1",
                deprecated: attribute(head, "deprecated") == "1",
                kind: attribute(content, "type"),
                default: attribute(content, "default"),
            };
            (attribute(head, "name"), written)
        })
        .collect()
}

/// A value of that type.
fn value(kind: &str) -> String {
    match kind {
        "integer" => "3",
        "boolean" => "true",
        _ => "x",
    }
    .to_owned()
}

#[test]
fn every_agent_of_the_package_is_described_and_refuses_what_does_not_fit_it() {
    let listed = Command::new("dpkg").args(["-L", "resource-agents"]).output().expect("dpkg runs");
    let listed = String::from_utf8(listed.stdout).expect("text");
    let files = listed.lines().filter_map(|line| line.strip_prefix(DIRECTORY));
    let kinds: Vec<&str> = files.filter(|file| !file.starts_with('.') && !file.contains('/')).collect();
    assert!(kinds.len() > 100, "install resource-agents: {kinds:?}");
    let (mut problems, mut reload, mut counts) = (Vec::new(), Vec::new(), [0; 3]);
    for kind in kinds {
        let written = Command::new(format!("{DIRECTORY}{kind}"))
            .arg("meta-data")
            .envs([("OCF_ROOT", "/usr/lib/ocf"), ("OCF_RESOURCE_INSTANCE", "x"), ("OCF_RESOURCE_TYPE", kind)])
            .output()
            .expect("the agent runs");
        let text = String::from_utf8_lossy(&written.stdout).into_owned();
        let written = parameters(&text);
        if text.contains("\"reload\"") {
            reload.push(kind);
        }
        if text.contains("reloadable=") || text.contains("reload-agent") {
            problems.push(format!("{kind} can take parameters without a restart: see docs/decisions/0012"));
        }

        let shown = Command::new(env!("CARGO_BIN_EXE_holdfast")).args(["agents", "describe", kind]).output();
        let shown = String::from_utf8(shown.expect("it runs").stdout).expect("text");
        if !shown.starts_with(&format!("heartbeat:{kind}: ")) {
            problems.push(format!("{kind} is not described: {shown:?}"));
        }
        for parameter in written.keys() {
            let named = |line: &str| {
                line.trim_start().starts_with(&format!("{parameter} ("))
                    || line.trim_start().starts_with(&format!("{parameter}:"))
            };
            if !shown.lines().any(named) {
                problems.push(format!("{kind}: {parameter} is not described"));
            }
        }

        let name = Name::new("heartbeat", kind).expect("a name");
        let metadata = match describe(&name) {
            Ok(metadata) => metadata,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let needed = written.iter().filter(|(_, w)| w.required && !w.deprecated && w.default.is_empty());
        let good: BTreeMap<String, String> = needed.map(|(name, w)| (name.clone(), value(&w.kind))).collect();
        let refused = |change: &dyn Fn(&mut BTreeMap<String, String>)| {
            let mut given = good.clone();
            change(&mut given);
            refusals(&name, &metadata, &given)
        };
        let mut is = |what: &str, found: Vec<String>, expected: &[String]| {
            // The reason that holds for the agent as a whole comes first, and alone is shown elsewhere.
            let roles = found.iter().filter(|line| line.contains("only on an instance that is promoted")).count();
            let rest: Vec<&String> = found.iter().skip(roles).collect();
            let fits = rest.len() == expected.len()
                && rest.iter().zip(expected).all(|(line, start)| line.starts_with(start.as_str()));
            if !fits || roles != usize::from(NEED_ROLES.contains(&kind)) {
                problems.push(format!("{kind}, {what}: {found:?} instead of {expected:?}"));
            }
        };
        is("fitting", refused(&|_| {}), &[]);
        counts[0] += 1;
        let no_such = format!("ocf.parameters.no_such: heartbeat:{kind} has none of that name; it takes ");
        is("wrong name", refused(&|given| drop(given.insert("no_such".into(), "x".into()))), &[no_such]);
        for parameter in good.keys() {
            counts[1] += 1;
            let missing = format!("ocf.parameters.{parameter}: heartbeat:{kind} needs it");
            is("missing", refused(&|given| drop(given.remove(parameter))), &[missing]);
        }
        for (parameter, written) in written.iter().filter(|(_, w)| matches!(w.kind.as_str(), "integer" | "boolean")) {
            let wrong = refused(&|given| drop(given.insert(parameter.clone(), "often".into())));
            let wanted = if written.kind == "integer" { "an integer" } else { "true or false" };
            let refusal = format!("ocf.parameters.{parameter}: heartbeat:{kind} takes {wanted}");
            let believed = !MISTYPED.contains(&(kind, written.kind.as_str()));
            counts[2] += usize::from(believed);
            is("wrong type", wrong, if believed { std::slice::from_ref(&refusal) } else { &[] });
        }
    }
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(reload, RELOAD);
    println!("{} agents, {} required parameters, {} typed ones", counts[0], counts[1], counts[2]);
    assert!(counts[1] > 80 && counts[2] > 150, "{counts:?}");
}
