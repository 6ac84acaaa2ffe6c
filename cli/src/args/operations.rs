//! The flags of commands that make an Operation.

use clap::Args;

use super::{ClientArgs, LocalArgs};

/// `holdfast move`.
#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// The failover group
    pub(crate) group: String,
    /// The server that shall run it
    #[arg(long, value_name = "SERVER")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// What all commands take that make an Operation.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Only tell what it would do: its steps, which groups it interrupts and for how long; nothing is done
    #[arg(long)]
    pub(crate) plan: bool,
    /// Do it only if its plan still has this digest, as --plan shows it
    #[arg(long, value_name = "DIGEST", conflicts_with = "plan")]
    pub(crate) plan_digest: Option<String>,
    /// How long to wait for the end, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `holdfast start`, `holdfast stop`.
#[derive(Debug, Args)]
pub(crate) struct GroupArgs {
    /// The failover group
    #[arg(required_unless_present = "data_service", conflicts_with = "data_service")]
    pub(crate) group: Option<String>,
    /// Instead of a group: a data service, in every group; the rest of the groups runs on
    #[arg(long, value_name = "NAME")]
    pub(crate) data_service: Option<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `holdfast restart`.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// The failover group
    pub(crate) group: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `holdfast clear-failures`.
#[derive(Debug, Args)]
pub(crate) struct ClearFailuresArgs {
    /// The failover group
    #[arg(required_unless_present = "server", conflicts_with = "server")]
    pub(crate) group: Option<String>,
    /// Instead of a group: what was counted against all groups on this server, as SUBCLUSTER.SERVER or SERVER
    #[arg(long, value_name = "SERVER", conflicts_with_all = ["resource", "local"])]
    pub(crate) server: Option<String>,
    /// Only what was counted against this resource; FailureLimit and the number of failovers are the group's and stay
    #[arg(long, value_name = "NAME")]
    pub(crate) resource: Option<String>,
    /// On a server itself, without API: through its agent
    #[arg(long, conflicts_with_all = ["plan", "plan_digest"])]
    pub(crate) local: bool,
    #[command(flatten)]
    pub(crate) agent: LocalArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `holdfast reinstate`.
#[derive(Debug, Args)]
pub(crate) struct ServerOperationArgs {
    /// The server, as SUBCLUSTER.SERVER; SERVER alone if only one of the namespace is called so
    pub(crate) server: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `holdfast detach`.
#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// The server, as SUBCLUSTER.SERVER; SERVER alone if only one of the namespace is called so
    pub(crate) server: String,
    /// Stop and hold the groups that run on it, instead of moving them
    #[arg(long)]
    pub(crate) stop_groups: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `holdfast force-reinstate`, `holdfast confirm-stopped`.
#[derive(Debug, Args)]
pub(crate) struct ConfirmArgs {
    /// The server, as SUBCLUSTER.SERVER; SERVER alone if only one of the namespace is called so
    pub(crate) server: String,
    /// The name of the server once more: what the command says about it is so
    #[arg(long, value_name = "SERVER")]
    pub(crate) confirm: Option<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}
