//! The flags of commands that make an Operation.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use jiff::Timestamp;

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
    /// How long to wait for the end, in seconds; then it has failed. Default: 300; of an upgrade 86400
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
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
    #[arg(long, value_name = "NAME", conflicts_with = "local")]
    pub(crate) data_service: Option<String>,
    #[command(flatten)]
    pub(crate) here: HereArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// That a command is given on a server itself.
#[derive(Debug, Args)]
pub(crate) struct HereArgs {
    /// On a server itself, without API: through its agent
    #[arg(long, conflicts_with_all = ["plan", "plan_digest"])]
    pub(crate) local: bool,
    #[command(flatten)]
    pub(crate) agent: LocalArgs,
}

/// What is paused or resumed.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// The failover group
    #[arg(required_unless_present_any = ["server", "subcluster", "supercluster"])]
    pub(crate) group: Option<String>,
    /// Instead of a group: all that are on this server now, as SUBCLUSTER.SERVER or SERVER
    #[arg(long, value_name = "NAME", conflicts_with_all = ["group", "local"])]
    pub(crate) server: Option<String>,
    /// Instead of a group: all of this sub-cluster
    #[arg(long, value_name = "NAME", conflicts_with_all = ["group", "server", "local"])]
    pub(crate) subcluster: Option<String>,
    /// Instead of a group: all of this super-cluster
    #[arg(long, value_name = "NAME", conflicts_with_all = ["group", "server", "subcluster", "local"])]
    pub(crate) supercluster: Option<String>,
}

/// `holdfast pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// When it ends by itself, if all is as it was left: a time (2026-03-01T22:00:00Z) or a duration from now (2h). The
    /// controller sees to it
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Until>,
    #[command(flatten)]
    pub(crate) here: HereArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `holdfast resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Although it is not as it was left: what should run is started where the group is
    #[arg(long)]
    pub(crate) accept_differences: bool,
    #[command(flatten)]
    pub(crate) here: HereArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `holdfast shutdown`.
#[derive(Debug, Args)]
pub(crate) struct ShutdownArgs {
    /// This server, as SUBCLUSTER.SERVER or SERVER; its groups go to the others
    #[arg(long, value_name = "NAME", required_unless_present_any = ["subcluster", "supercluster"])]
    pub(crate) server: Option<String>,
    /// All servers of this sub-cluster
    #[arg(long, value_name = "NAME", conflicts_with = "server")]
    pub(crate) subcluster: Option<String>,
    /// All sub-clusters of this super-cluster, the master last
    #[arg(long, value_name = "NAME", conflicts_with_all = ["server", "subcluster"])]
    pub(crate) supercluster: Option<String>,
    /// This sub-cluster of the super-cluster first; may be repeated, they go one after the other
    #[arg(long, value_name = "NAME", requires = "supercluster")]
    pub(crate) first: Vec<String>,
    /// Leave the machines on: the agents stay, out of service, until they or the machines are started anew
    #[arg(long)]
    pub(crate) keep_power: bool,
    /// Its name once more: it is to go down
    #[arg(long, value_name = "NAME")]
    pub(crate) confirm: Option<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `holdfast accept-spec`.
#[derive(Debug, Args)]
pub(crate) struct AcceptSpecArgs {
    /// The failover group
    #[arg(required_unless_present = "subcluster")]
    pub(crate) group: Option<String>,
    /// Instead of a group: this sub-cluster
    #[arg(long, value_name = "NAME", conflicts_with = "group")]
    pub(crate) subcluster: Option<String>,
    /// Its name once more: the stored specification is the right one
    #[arg(long, value_name = "NAME")]
    pub(crate) confirm: Option<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `holdfast upgrade`.
#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// The servers of this sub-cluster
    #[arg(long, value_name = "NAME", required_unless_present = "supercluster", conflicts_with = "supercluster")]
    pub(crate) subcluster: Option<String>,
    /// The servers of this super-cluster
    #[arg(long, value_name = "NAME")]
    pub(crate) supercluster: Option<String>,
    /// Only this one of them, as SERVER or SUBCLUSTER.SERVER; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Vec<String>,
    /// So many servers, of different sub-clusters, may be out of service at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) max_concurrent: u16,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    /// What is run on each server while it is out of service, after `--`; without it, it waits there for holdfast proceed
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

/// `holdfast drill`.
#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    /// Of this group alone
    #[arg(long, value_name = "NAME", required_unless_present_any = ["subcluster", "supercluster"])]
    pub(crate) group: Option<String>,
    /// Of the groups of this sub-cluster
    #[arg(long, value_name = "NAME", conflicts_with = "group")]
    pub(crate) subcluster: Option<String>,
    /// Of all groups of this super-cluster
    #[arg(long, value_name = "NAME", conflicts_with_all = ["group", "subcluster"])]
    pub(crate) supercluster: Option<String>,
    /// What is lost at one moment, as for holdfast plan: server=alder,path=ic; may be repeated. Without it and --apply: each
    /// server, one after the other
    #[arg(long, value_name = "WHAT")]
    pub(crate) lose: Vec<String>,
    /// Manifests of groups and sub-clusters that are applied at one moment: a file or a directory, as for holdfast apply; may
    /// be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) apply: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// `holdfast proceed`.
#[derive(Debug, Args)]
pub(crate) struct ProceedArgs {
    /// The Operation that waits for it
    pub(crate) operation: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `holdfast exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// On all servers of this sub-cluster
    #[arg(long, value_name = "NAME", required_unless_present = "supercluster", conflicts_with = "supercluster")]
    pub(crate) subcluster: Option<String>,
    /// On all servers of this super-cluster
    #[arg(long, value_name = "NAME")]
    pub(crate) supercluster: Option<String>,
    /// Only on this one of them, as SERVER or SUBCLUSTER.SERVER; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Vec<String>,
    /// Longest time on one server
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub(crate) command_timeout: holdfast_api::duration::Duration,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    /// The program and its arguments, after `--`
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

/// A moment that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Until(pub(crate) Timestamp);

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = text.parse::<Timestamp>().or_else(|_| {
            let span: holdfast_api::duration::Duration = text.parse().map_err(|_| ())?;
            Timestamp::now().checked_add(span.get()).map_err(|_| ())
        });
        let time =
            time.map_err(|()| "give a time (2026-03-01T22:00:00Z) or a duration from now (90m, 2h)".to_owned())?;
        // The API keeps whole seconds.
        Timestamp::from_second(time.as_second()).map(Until).map_err(|error| error.to_string())
    }
}

/// `holdfast restart`.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// The failover group
    pub(crate) group: String,
    /// Only this resource, with what can't go on without it; the rest of the group runs on
    #[arg(long, value_name = "NAME")]
    pub(crate) resource: Option<String>,
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
    #[command(flatten)]
    pub(crate) here: HereArgs,
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
