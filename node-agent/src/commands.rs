//! C25: the commands that a server takes over its local socket: one line of JSON each, read strictly.
//!
//! Only the super-user may give one: `run` starts programs as anybody, and the others stop services.

use holdfast_api::v1 as api;
use holdfast_core::commands::{self, Command};
pub use holdfast_core::holding::HoldChange;
use holdfast_core::names::GroupName;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::resources::plan::data_service::steps_of;

/// Longest line that is read, in bytes.
pub const LONGEST: usize = 64 * 1024;
/// Longest name of a group or program: a label of DNS, as in the API.
const NAME: usize = 63;
/// Longest reason, in characters.
const REASON: usize = 256;

/// What is asked of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// What this server knows: answered by its status, not by an [`Answer`].
    Status {},
    /// `holdfast failover`.
    Failover {
        /// The group.
        group: String,
        /// Why, for the record; may be empty.
        reason: String,
    },
    /// `holdfast clear-failures --local`.
    ClearFailures {
        /// The group.
        group: String,
        /// Only what was counted against this resource; none: against all.
        resource: Option<String>,
        /// Why, for the record; may be empty.
        reason: String,
    },
    /// `holdfast pause`, `resume`, `stop` and `start`, each with `--local`.
    Hold {
        /// The group.
        group: String,
        /// What is to change.
        change: HoldChange,
        /// Why, for the record; may be empty.
        reason: String,
    },
    /// `holdfast down`.
    Down {
        /// Why, for the record; may be empty.
        reason: String,
    },
    /// `holdfast run`.
    Run(Program),
    /// `holdfast run --stop`.
    Stop {
        /// The group.
        group: String,
        /// The program.
        name: String,
    },
}

/// A program that joins a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Program {
    /// The group.
    pub group: String,
    /// What the program is called.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Absolute directory that it runs in.
    pub directory: String,
    /// Who it runs as.
    pub user: String,
    /// Restarts in place within `window` before the group leaves; 0 to 100.
    pub restarts: u16,
    /// The window for `restarts`, in seconds; 1 to 2592000 (30 days).
    pub window: u32,
    /// Seconds that it has to end when it is asked to, before it is killed; 0 to 3600.
    pub grace: u32,
}

/// The answer to everything but [`Request::Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// What was done.
    Done(String),
    /// Why nothing was done.
    Refused(String),
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    /// A sentence: what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Request, String> {
        if line.len() > LONGEST {
            return Err(format!("the command is longer than {LONGEST} bytes"));
        }
        let request: Request = serde_json::from_slice(line)
            .map_err(|error| format!("this is no command that the agent knows: {error}"))?;
        request.check()?;
        Ok(request)
    }

    /// The line that says it.
    pub fn line(&self) -> String {
        // Nothing in it is a map with keys that are no strings.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    fn check(&self) -> Result<(), String> {
        match self {
            Request::Status {} => Ok(()),
            Request::Failover { group, reason } => label("the group", group).and_then(|()| sentence(reason)),
            Request::ClearFailures { group, resource, reason } => label("the group", group)
                .and_then(|()| resource.as_ref().map_or(Ok(()), |name| label("the resource", name)))
                .and_then(|()| sentence(reason)),
            Request::Hold { group, reason, .. } => label("the group", group).and_then(|()| sentence(reason)),
            Request::Down { reason } => sentence(reason),
            Request::Run(program) => program.check(),
            Request::Stop { group, name } => label("the group", group).and_then(|()| program_name(name)),
        }
    }

    /// As the core takes it, and for people: the command with its reason.
    pub(crate) fn command(
        &self,
        program: impl FnOnce(&Program) -> Result<holdfast_core::config::ResourceConfig, String>,
    ) -> Result<(Command, String), String> {
        let said = |command: &str, reason: &str| {
            if reason.is_empty() { command.to_owned() } else { format!("{command}: {reason}") }
        };
        Ok(match self {
            Request::Status {} => return Err("the status is no command".to_owned()),
            Request::Failover { group, reason } => {
                (Command::Failover { group: GroupName(group.clone()) }, said("holdfast failover", reason))
            }
            Request::ClearFailures { group, resource, reason } => {
                let resources = resource.as_deref().map(steps_of).unwrap_or_default();
                let command = Command::ClearFailures { group: GroupName(group.clone()), resources };
                (command, said("holdfast clear-failures", reason))
            }
            Request::Hold { group, change, reason } => {
                let command = match change {
                    HoldChange::Pause { .. } => "holdfast pause",
                    HoldChange::Resume { .. } => "holdfast resume",
                    HoldChange::Stop => "holdfast stop",
                    HoldChange::Start => "holdfast start",
                };
                let order = Command::Hold { group: GroupName(group.clone()), change: change.clone() };
                (order, said(command, reason))
            }
            Request::Down { reason } => (Command::Down, said("holdfast down", reason)),
            Request::Run(run) => {
                let (group, program_name) = (GroupName(run.group.clone()), commands::program(&run.name));
                let command = Command::Run { group, program: program_name, config: Box::new(program(run)?) };
                (command, "holdfast run".to_owned())
            }
            Request::Stop { group, name } => {
                let command = Command::Stop { group: GroupName(group.clone()), program: commands::program(name) };
                (command, "holdfast run --stop".to_owned())
            }
        })
    }
}

impl Program {
    fn check(&self) -> Result<(), String> {
        label("the group", &self.group)?;
        program_name(&self.name)?;
        match self.command.first() {
            None => return Err("a program is needed".to_owned()),
            Some(program) if !program.starts_with('/') => {
                return Err(format!("the program {program:?} needs its absolute path"));
            }
            Some(_) => {}
        }
        let all = self.command.iter().chain([&self.directory, &self.user]);
        if let Some(text) = all.into_iter().find(|text| text.contains('\0')) {
            return Err(format!("{text:?} contains a zero byte"));
        }
        if !self.directory.starts_with('/') {
            return Err(format!("the directory {:?} is not absolute", self.directory));
        }
        if self.user.is_empty() || self.user.len() > 64 {
            return Err(format!("the user {:?} is no name or number of a user", self.user));
        }
        let numbers = [
            ("restarts", u32::from(self.restarts), 0, 100),
            ("the window", self.window, 1, 2_592_000),
            ("the grace", self.grace, 0, 3600),
        ];
        for (what, value, least, most) in numbers {
            if value < least || value > most {
                return Err(format!("{what}: {value} is outside {least} to {most}"));
            }
        }
        Ok(())
    }

    /// The resource that it becomes.
    ///
    /// # Errors
    /// A sentence, if the API's types take it differently.
    pub(crate) fn resource(&self) -> Result<api::Resource, String> {
        let resource = json!({
            "name": commands::program(&self.name).0,
            "process": {
                "command": self.command,
                "workingDirectory": self.directory,
                "runAs": {"user": self.user},
                "grace": format!("{}s", self.grace),
            },
            "timeouts": {"stop": format!("{}s", self.grace + 10)},
            "recovery": {"restarts": self.restarts, "window": format!("{}s", self.window), "then": "Failover"},
        });
        serde_json::from_value(resource).map_err(|error| format!("the program can't be run: {error}"))
    }
}

fn label(what: &str, name: &str) -> Result<(), String> {
    let wanted = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends = !name.starts_with('-') && !name.ends_with('-');
    if name.is_empty() || name.len() > NAME || !name.chars().all(wanted) || !ends {
        return Err(format!("{what} {name:?} is no name: up to {NAME} lower-case letters, digits and inner hyphens"));
    }
    Ok(())
}

/// With the prefix that the core gives it, it has to be a name in the status.
fn program_name(name: &str) -> Result<(), String> {
    label("the program's name", name)?;
    if commands::program(name).0.len() > NAME {
        return Err(format!("the program's name {name:?} is too long: at most {} characters", NAME - 4));
    }
    Ok(())
}

fn sentence(reason: &str) -> Result<(), String> {
    if reason.chars().count() > REASON {
        return Err(format!("the reason is longer than {REASON} characters"));
    }
    if reason.chars().any(char::is_control) {
        return Err("the reason contains a control character or a line break".to_owned());
    }
    Ok(())
}
