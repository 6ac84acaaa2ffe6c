//! The flags of commands for a server itself, which its agent carries out without the API.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// How to find the agent of this server.
#[derive(Debug, Clone, Args)]
pub(crate) struct LocalArgs {
    /// The agent's file
    #[arg(long, value_name = "FILE", default_value = "/etc/holdfast/agent.yaml")]
    pub(crate) config: PathBuf,
}

/// `holdfast failover`.
#[derive(Debug, Args)]
pub(crate) struct FailoverArgs {
    /// The failover group; it has to be on this server
    pub(crate) group: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
}

/// `holdfast down`.
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
}

/// What follows when the check of `holdfast monitor` fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MonitorAction {
    /// As `holdfast failover` of the group
    Failover,
    /// As `holdfast down`
    Down,
    /// It is only said
    Report,
}

/// `holdfast monitor`.
#[derive(Debug, Args)]
pub(crate) struct MonitorArgs {
    /// What the check is called in messages and in the group's history
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// Check only while this group is online on this server; needed for the action failover
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Seconds from the end of one check to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) interval: u32,
    /// Seconds after which a check is ended, and has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) timeout: u32,
    /// Failures in a row after which the action follows
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) threshold: u32,
    /// What follows
    #[arg(long, value_enum, default_value_t = MonitorAction::Failover)]
    pub(crate) action: MonitorAction,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    /// The check: a program and its arguments, without a shell. Exit status 0: all is well
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `holdfast run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The group; it has to be on this server. The program stops with it
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: String,
    /// What the program is called; the same name and program twice is one
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// Who it runs as
    #[arg(long, value_name = "USER", default_value = "root")]
    pub(crate) user: String,
    /// Absolute directory that it runs in
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) directory: String,
    /// Restarts here within the window, before the group fails over
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=100))]
    pub(crate) restarts: u16,
    /// The window for restarts, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=2_592_000))]
    pub(crate) window: u32,
    /// Seconds that it has to end when it is asked to (SIGTERM), before it and its children are killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub(crate) grace: u32,
    /// Stop the program of this name instead, and watch it no more
    #[arg(long, conflicts_with = "command")]
    pub(crate) stop: bool,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    /// The program by its absolute path, and its arguments; no shell
    #[arg(last = true, required_unless_present = "stop", value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}
