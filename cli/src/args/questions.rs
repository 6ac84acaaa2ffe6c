//! The flags of commands that ask and change nothing.

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

/// `holdfast plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The sub-cluster; may be left out if the namespace has only one
    #[arg(value_name = "SUBCLUSTER")]
    pub(crate) sub_cluster: Option<String>,
    /// What is lost at one moment: server=NAME, site=NAME, path=NAME, disk=NAME, lock, control-plane; several with commas
    #[arg(long, value_name = "WHAT")]
    pub(crate) lose: String,
    /// Instead of lines
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<WhyOutput>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
