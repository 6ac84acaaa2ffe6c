//! What can go wrong while a lab is built, broken or taken down. One enum: whoever calls the lab
//! either shows the message or fails a test with it, nobody branches on the details.

use std::path::PathBuf;
use std::time::Duration;

/// Result of every operation of the lab.
pub type Result<T> = std::result::Result<T, LabError>;

/// Why an operation of the lab failed. `Display` names the thing and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program that the lab runs could not be started.
    #[error(
        "cannot run `{program}`: {source}; install the package that has it (iproute2, util-linux, nftables, e2fsprogs)"
    )]
    Spawn {
        /// The program's name.
        program: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("`{command}` ended with {status}: {output}")]
    Command {
        /// The whole command line.
        command: String,
        /// Its exit status, as text.
        status: String,
        /// What it wrote to both outputs.
        output: String,
    },
    /// A system call or a file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, with its path.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The machine lacks something that the lab needs.
    #[error("the lab needs {what}; {hint}")]
    Missing {
        /// What is missing.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// A manifest of an example does not describe a lab.
    #[error("{file}: {field}: {problem}", file = file.display())]
    Manifest {
        /// The file or directory.
        file: PathBuf,
        /// The field's path.
        field: String,
        /// What was found, what is allowed.
        problem: String,
    },
    /// Something did not happen in time.
    #[error("waited {waited:?} for {what}; last seen: {last}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// For how long.
        waited: Duration,
        /// The state at the end.
        last: String,
    },
    /// A host was asked for something that its power state does not allow.
    #[error("host {host} is {found}, this needs it to be {needed}")]
    Power {
        /// The host's name.
        host: String,
        /// Its state.
        found: &'static str,
        /// The state needed.
        needed: &'static str,
    },
    /// A name that the lab does not have.
    #[error("no {kind} is named {name:?}; there are: {known}")]
    Unknown {
        /// Kind of thing: host, network, disk, service.
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The init process of a host answered with an error.
    #[error("host {host}: {message}")]
    Host {
        /// The host's name.
        host: String,
        /// Its words.
        message: String,
    },
    /// The control plane or a client of it failed.
    #[error("{0}")]
    Api(String),
    /// Wrong arguments, in clap's words.
    #[error("{0}")]
    Usage(String),
    /// The user ended it (Ctrl-C or SIGTERM).
    #[error("interrupted")]
    Interrupted,
}

/// Adds what was attempted to a system error.
pub(crate) trait Attempt<T> {
    /// Turns the error into [`LabError::Io`] with `what` in front.
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Attempt<T> for std::result::Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| LabError::Io { what: what(), source: error.into() })
    }
}
