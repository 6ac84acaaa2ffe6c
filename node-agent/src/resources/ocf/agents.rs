//! The OCF resource agents of this server: where they are, what they say about themselves, and whether a resource fits
//! one of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use holdfast_api::v1 as api;
use nix::unistd::{AccessFlags, access};

use crate::ask::{Ask, ask};
use crate::metadata::Metadata;
use crate::spawn::{DEFAULT_PATH, Exit};

/// Where agents and their library are (OCF Resource Agent API, OCF_ROOT).
pub const ROOT: &str = "/usr/lib/ocf";
/// Longest time for an agent to describe itself.
const DESCRIBE: Duration = Duration::from_secs(10);

/// Which agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Whose it is: a directory below `resource.d`.
    pub provider: String,
    /// Its own name: a file in that directory.
    pub kind: String,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.provider, self.kind)
    }
}

impl Name {
    /// A name that leads to a file below `resource.d` and nowhere else.
    ///
    /// # Errors
    /// A sentence that says which part is no name.
    pub fn new(provider: &str, kind: &str) -> Result<Name, String> {
        for (what, text) in [("provider", provider), ("type", kind)] {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
            if text.is_empty() || text.starts_with('.') || !text.chars().all(good) {
                return Err(format!(
                    "the {what} is {text:?}; letters, digits and -_.+ make a name, as in heartbeat:IPaddr2"
                ));
            }
        }
        Ok(Name { provider: provider.to_owned(), kind: kind.to_owned() })
    }

    /// Reads `PROVIDER:TYPE`, or `TYPE` of the provider heartbeat.
    ///
    /// # Errors
    /// As [`Name::new`].
    pub fn parse(text: &str) -> Result<Name, String> {
        let (provider, kind) = text.strip_prefix("ocf:").unwrap_or(text).split_once(':').unwrap_or(("heartbeat", text));
        Name::new(provider, kind)
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        Path::new(ROOT).join("resource.d").join(&self.provider).join(&self.kind)
    }

    /// Its file, if it can be run.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub fn program(&self) -> Result<PathBuf, String> {
        let path = self.path();
        if path.is_file() && access(&path, AccessFlags::X_OK).is_ok() {
            return Ok(path);
        }
        Err(format!(
            "there is no agent {self} on this server ({}); install the package that has it (Debian: resource-agents), \
             or correct provider and type: `holdfast agents list` shows what is here",
            path.display()
        ))
    }
}

/// Variables that every call of an agent has.
pub(super) fn contract(name: &Name, instance: &str) -> Vec<(String, String)> {
    [
        ("OCF_ROOT", ROOT),
        ("OCF_RA_VERSION_MAJOR", "1"),
        ("OCF_RA_VERSION_MINOR", "1"),
        ("OCF_RESOURCE_INSTANCE", instance),
        ("OCF_RESOURCE_TYPE", &name.kind),
        ("OCF_RESOURCE_PROVIDER", &name.provider),
        // Agents read what tools print.
        ("LC_ALL", "C"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// What the agent says about itself.
///
/// # Errors
/// A sentence: it is not there, can't be run, says nothing within ten seconds, or nothing that can be read.
pub fn describe(name: &Name) -> Result<Metadata, String> {
    let program = name.program()?;
    let mut environment = contract(name, "meta-data");
    environment.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
    let answer = ask(&Ask {
        program: &program,
        args: &["meta-data".to_owned()],
        environment: &environment,
        input: "",
        timeout: DESCRIBE,
        cgroup: None,
        cancel: &AtomicBool::new(false),
    })
    .map_err(|silence| format!("{name} does not describe itself: {}", silence.problem))?;
    if answer.exit != Exit::Code(0) {
        return Err(format!("{name} does not describe itself: {}: {}", answer.exit, answer.last_lines));
    }
    Metadata::parse(&answer.output).map_err(|e| format!("{name}: {e}"))
}

/// Why a resource can't be carried out by this agent, a sentence each with the field, what is allowed and what to do;
/// empty: it can.
pub fn refusals(name: &Name, metadata: &Metadata, given: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    wrong.extend(unusable(name).map(|why| format!("ocf.type: {name}: {why}")));
    for action in ["start", "stop", "monitor"] {
        if !metadata.actions.contains(action) {
            wrong.push(format!("ocf.type: {name} has no action {action}, which every resource agent must have"));
        }
    }
    let takes = || metadata.parameters.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    for parameter in given.keys().filter(|parameter| !metadata.parameters.contains_key(*parameter)) {
        wrong.push(format!("ocf.parameters.{parameter}: {name} has none of that name; it takes {}", takes()));
    }
    for (parameter, known) in &metadata.parameters {
        let value = given.get(parameter);
        if let Some((value, wanted)) = value.and_then(|value| Some((value, known.misfit(value)?))) {
            wrong.push(format!("ocf.parameters.{parameter}: {name} takes {wanted} there, found {value:?}"));
        }
        let has = given.contains_key(parameter) || known.default.as_deref().is_some_and(|value| !value.is_empty());
        if known.required && !known.deprecated && !has {
            let about = if known.description.is_empty() { String::new() } else { format!(" ({})", known.description) };
            wrong.push(format!("ocf.parameters.{parameter}: {name} needs it{about}; give it"));
        }
    }
    wrong
}

/// Everything that keeps a resource from being carried out by the agent that described itself so, or could not.
pub fn problem(name: &Name, described: Result<Metadata, String>, given: &BTreeMap<String, String>) -> Option<String> {
    let wrong = match described {
        Ok(metadata) => refusals(name, &metadata, given),
        Err(problem) => vec![format!("ocf.type: {problem}")],
    };
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

/// Agents that accept to be one plain instance, and then do nothing of what they are for. Others that need roles (galera,
/// mariadb, pgsql with `rep_mode`) refuse to start themselves.
const NEED_ROLES: [(&str, &str); 4] = [
    ("heartbeat:conntrackd", "let systemd run conntrackd on every server"),
    ("heartbeat:mpathpersist", "Holdfast keeps the others off a shared disk by its lock and by fencing"),
    ("heartbeat:rabbitmq-server-ha", "let RabbitMQ copy its queues itself (quorum queues)"),
    ("heartbeat:sg_persist", "Holdfast keeps the others off a shared disk by its lock and by fencing"),
];

/// Why no resource can be carried out by this agent, and what to use instead.
pub fn unusable(name: &Name) -> Option<String> {
    let (_, instead) = NEED_ROLES.iter().find(|(agent, _)| *agent == name.to_string())?;
    Some(format!(
        "it does its work only on an instance that is promoted, and a group runs one plain instance; {instead}"
    ))
}

/// Whether the agent's instances can have roles. Such an agent is run as Pacemaker runs it outside of a promotable clone:
/// one plain instance that is told of no roles, which for a database is one server that is written to.
pub fn promotable(metadata: &Metadata) -> bool {
    metadata.actions.contains("promote")
}

/// All agents of this server, by name.
///
/// # Errors
/// When the directory is there and can't be read.
pub fn list() -> std::io::Result<Vec<Name>> {
    let root = Path::new(ROOT).join("resource.d");
    let mut found = Vec::new();
    let providers = match fs::read_dir(&root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for provider in providers.flatten().filter(|entry| entry.path().is_dir()) {
        for file in fs::read_dir(provider.path())?.flatten() {
            let (provider, file) = (provider.file_name(), file.file_name());
            let name = Name::new(&provider.to_string_lossy(), &file.to_string_lossy());
            found.extend(name.ok().filter(|name| name.program().is_ok()));
        }
    }
    found.sort();
    Ok(found)
}

/// What agents have said about themselves, as long as their files are the same: asking takes a process each.
#[derive(Debug, Default)]
pub struct Known(Mutex<BTreeMap<Name, Said>>);

/// What an agent said, and the time of its file then.
type Said = (SystemTime, Result<Metadata, String>);

impl Known {
    /// As [`describe`], from memory if the file is the same.
    ///
    /// # Errors
    /// As [`describe`]. A failure is remembered, too; see [`Known::forget_failures`].
    pub fn describe(&self, name: &Name) -> Result<Metadata, String> {
        let changed = fs::metadata(name.program()?).and_then(|file| file.modified()).map_err(|e| e.to_string())?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(name) {
            Some((seen, metadata)) if *seen == changed => metadata.clone(),
            _ => {
                let metadata = describe(name);
                known.insert(name.clone(), (changed, metadata.clone()));
                metadata
            }
        }
    }

    /// Agents that did not answer are asked again.
    pub fn forget_failures(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (_, said)| said.is_ok());
    }

    /// The group with the times that its agents propose where it gives none. An agent that is not here proposes nothing:
    /// what is wrong is told by [`crate::unusable`].
    pub fn with_proposed_times(&self, group: &api::FailoverGroup) -> Option<api::FailoverGroup> {
        group.spec.resources.iter().any(|resource| resource.ocf.is_some()).then(|| {
            let mut group = group.clone();
            for resource in &mut group.spec.resources {
                let Some(ocf) = &resource.ocf else { continue };
                let name = Name::new(&ocf.provider, &ocf.type_);
                if let Ok(metadata) = name.and_then(|name| self.describe(&name)) {
                    propose(resource, &metadata);
                }
            }
            group
        })
    }
}

/// Fills in what the resource leaves open. The probe is a plain check.
fn propose(resource: &mut api::Resource, metadata: &Metadata) {
    let timeout = |action: &str| metadata.proposed(action).and_then(|proposed| proposed.timeout).map(Into::into);
    let times = resource.timeouts.get_or_insert_default();
    times.start = times.start.take().or_else(|| timeout("start"));
    times.stop = times.stop.take().or_else(|| timeout("stop"));
    times.probe = times.probe.take().or_else(|| timeout("monitor"));
    let monitor = resource.monitor.get_or_insert_default();
    let interval = metadata.proposed("monitor").and_then(|proposed| proposed.interval).map(Into::into);
    monitor.interval = monitor.interval.take().or(interval);
    monitor.timeout = monitor.timeout.take().or_else(|| timeout("monitor"));
    for given in resource.ocf.iter_mut().flat_map(|ocf| &mut ocf.depths) {
        let Some(proposed) = metadata.proposed_check(given.depth) else { continue };
        given.interval = given.interval.take().or(proposed.interval.map(Into::into));
        given.timeout = given.timeout.take().or(proposed.timeout.map(Into::into));
    }
}

#[cfg(test)]
#[path = "agents_tests.rs"]
mod tests;
