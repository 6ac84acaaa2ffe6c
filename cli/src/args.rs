//! The flags of every command, and the words that explain them. No behaviour.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Failover clusters for Linux servers, declared in YAML.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast",
    version,
    about,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "Exit status: 0 done, 1 refused (wrong input, or the cluster's state forbids it), 2 unexpected.\n\
                  Try it: `holdfast lab up examples/two-servers` builds a cluster on this machine (as root)."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create or change the objects of manifests
    Apply(ApplyArgs),
    /// List objects, or show some of them
    Get(GetArgs),
    /// Delete objects
    Delete(DeleteArgs),
}

/// Which API server to talk to, as who.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    /// Kubeconfig to use instead of the files in KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use instead of its current one
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace to use instead of the context's
    #[arg(long, short, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

/// Files with objects.
#[derive(Debug, Clone, Args)]
pub(crate) struct FileArgs {
    /// YAML or JSON file with one or more objects, `-` for standard input, or a directory: its kustomization.yaml
    /// (resources only), else its *.yaml, *.yml and *.json files; may be repeated
    #[arg(long = "filename", short = 'f', value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// `holdfast apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// Let the server check and answer, but store nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// How objects are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// All columns
    Wide,
    /// YAML
    Yaml,
    /// JSON
    Json,
    /// Kind and name
    Name,
}

/// `holdfast get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Kind (`failovergroup`, `fog`, `fog,hsub`, `holdfast` for all kinds), or KIND/NAME
    #[arg(value_name = "KIND")]
    pub(crate) kind: String,
    /// Names; all objects when none is given
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Look in all namespaces
    #[arg(long, short = 'A')]
    pub(crate) all_namespaces: bool,
    /// Only objects with these labels, e.g. holdfast.dev/sub-cluster=db
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Go on and print each change
    #[arg(long, short)]
    pub(crate) watch: bool,
    /// Instead of the table
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<OutputFormat>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `holdfast delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Kind, or KIND/NAME
    #[arg(value_name = "KIND", required_unless_present = "files", conflicts_with = "files")]
    pub(crate) kind: Option<String>,
    /// Names
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Delete the objects of these manifests instead
    #[arg(long = "filename", short = 'f', value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Do not fail when an object is already gone
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
    /// Return at once instead of waiting until the objects are gone
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
