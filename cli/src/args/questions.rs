//! The flags of commands that ask and change nothing.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ClientArgs;

/// `holdfast why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// group/NAME (or fog/NAME), or server/SUBCLUSTER.SERVER; SERVER alone if only one of the namespace is called so
    #[arg(value_name = "OBJECT")]
    pub(crate) object: String,
    /// Instead of sentences
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<WhyOutput>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhyOutput {
    /// JSON
    Json,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanOutput {
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// `holdfast plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The sub-cluster that loses it; may be left out if the namespace has only one
    #[arg(value_name = "SUBCLUSTER", conflicts_with = "files")]
    pub(crate) sub_cluster: Option<String>,
    /// What is lost at one moment: server=NAME, site=NAME, path=NAME, disk=NAME, lock, control-plane; several with commas
    #[arg(long, value_name = "WHAT", required_unless_present = "files", conflicts_with = "files")]
    pub(crate) lose: Option<String>,
    /// What is applied instead: YAML or JSON file with one or more objects, `-` for standard input, or a directory; may be
    /// repeated. The API server checks them like with apply and stores nothing. Objects that are in none of the files stay as
    /// they are
    #[arg(long = "filename", short = 'f', value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Instead of lines
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<PlanOutput>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
