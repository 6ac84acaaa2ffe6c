//! The flags of every command, and the words that explain them. No behaviour.

mod control_plane;
mod on_server;
mod operations;
mod questions;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use control_plane::*;
pub(crate) use on_server::*;
pub(crate) use operations::*;
pub(crate) use questions::*;

/// Failover clusters for Linux servers, declared in YAML.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast",
    version,
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
    /// Run the API server and the controller in one process
    Server(WholeServerArgs),
    /// Run the API server alone
    Apiserver(ServerArgs),
    /// Run the controller alone, against any API server that has the kinds
    Controller(ControllerArgs),
    /// Run a quorum server: an API server for nothing but the locks of sub-clusters, on a machine outside of them
    QuorumServer(QuorumServerArgs),
    /// Save everything that a server keeps, at one moment and while it runs: objects and certificates
    Backup(BackupArgs),
    /// Put back what `holdfast backup` saved, into either kind of store
    Restore(RestoreArgs),
    /// Run the agent of one server
    Agent(AgentArgs),
    /// Create or change the objects of manifests
    Apply(ApplyArgs),
    /// List objects, or show some of them
    Get(GetArgs),
    /// Delete objects
    Delete(DeleteArgs),
    /// Show the whole tree: super-clusters, sub-clusters, servers with their heartbeat paths, groups with their resources
    Status(StatusArgs),
    /// Tell why a group is where it is or a server as it is, what happened last, and what would change it
    Why(WhyArgs),
    /// Tell what the loss of a server, site, path or disk would do: what stops, moves and starts, and what stays away
    Plan(PlanArgs),
    /// Move a failover group to another server and wait until it is there
    Move(MoveArgs),
    /// Start a failover group, and release what holds it
    Start(GroupArgs),
    /// Stop a failover group, and hold it until it is started
    Stop(GroupArgs),
    /// Stop and start a failover group where it runs
    Restart(RestartArgs),
    /// Let nobody act on a group, or on all of a server or sub-cluster, while somebody works on it by hand
    Pause(PauseArgs),
    /// End a pause, once everything is as it was left
    Resume(ResumeArgs),
    /// Run a command on many servers at once, where spec.exec.enabled of their sub-cluster allows it
    Exec(ExecArgs),
    /// Stop the groups of a server, sub-cluster or super-cluster in order, let the servers leave, and switch them off. Dangerous
    Shutdown(ShutdownArgs),
    /// Take one server after the other out of service, have it serviced, and take it back; a group moves once where it can
    Upgrade(UpgradeArgs),
    /// Rehearse losses on the live state without touching it: which groups survive, which do not, for how long they are away
    Drill(DrillArgs),
    /// Let an Operation go on that waits for the operator
    Proceed(ProceedArgs),
    /// Take a server out of service: its groups move away, and it stays out until it is reinstated
    Detach(DetachArgs),
    /// Take a server back into service, as a standby
    Reinstate(ServerOperationArgs),
    /// Forget what was counted against a group, or on a server, and release the hold FailureLimit
    ClearFailures(ClearFailuresArgs),
    /// On a server itself, without API: let a group fail over to another server
    Failover(FailoverArgs),
    /// On a server itself, without API: hand its groups over and shut the server down
    Down(DownArgs),
    /// On a server itself, without API: check something again and again, and let a group fail over when it fails
    Monitor(MonitorArgs),
    /// On a server itself, without API: start a program as part of a group that is here, and watch it
    Run(RunArgs),
    /// After all servers were down: make this one the base. Dangerous
    ForceReinstate(ConfirmArgs),
    /// Confirm that a server that was lost has stopped. Dangerous
    ConfirmStopped(ConfirmArgs),
    /// After the store was restored: let a specification count that is older than what the servers act by. Dangerous
    AcceptSpec(AcceptSpecArgs),
    /// Check manifests without sending them anywhere
    Validate(ValidateArgs),
    /// Show the timing arithmetic of a sub-cluster, and what it guarantees
    Timing(TimingArgs),
    /// Print the custom resource definitions
    Crds,
    /// Print the completion script of a shell: all commands and flags; each script says at its beginning where it belongs
    Completion(CompletionArgs),
    /// Write the manual pages: holdfast.1 and one for each command
    Man(ManArgs),
    /// Prepare a control plane without running it: its data directory, certificates, keys and admin.kubeconfig
    Init(PlaceArgs),
    /// Make tokens with which servers join
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make a kubeconfig for the agent of one server, or for a user
    Kubeconfig(KubeconfigArgs),
    /// Prepare or look at the cluster area of a shared disk
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Make or look at the lock of a sub-cluster on a quorum server
    #[command(subcommand)]
    Lock(LockCommand),
    /// Show the fence devices, and look whether they work
    #[command(subcommand)]
    Fence(FenceCommand),
    /// Show the OCF resource agents of this server, and what they take
    #[command(subcommand)]
    Agents(AgentsCommand),
    /// Clusters made of network namespaces on this machine, and faults for them
    Lab(LabArgs),
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

/// `holdfast status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Stay and show every change
    #[arg(long, short)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `holdfast disk …`
#[derive(Debug, Subcommand)]
pub(crate) enum DiskCommand {
    /// Write an empty cluster area to a device; what is at that place is lost
    Format(DiskFormatArgs),
    /// Show what the cluster area of a device holds; works with every daemon down
    Inspect(DiskArgs),
}

/// `holdfast fence …`.
#[derive(Debug, Subcommand)]
pub(crate) enum FenceCommand {
    /// List the devices of every server by level, with what each server saw when it last looked at them
    List(FenceListArgs),
    /// Switch a server off and leave it off: the others leave it out of the view and take its groups over
    PowerOff(ConfirmArgs),
    /// Switch a server off, and on again once it is verified to be off
    Reboot(ConfirmArgs),
    /// Switch a server on
    PowerOn(ConfirmArgs),
    /// Look at the devices now, from this server: their parameters, whether they answer, how they see the servers; switches
    /// nothing; needs neither API nor agent
    Test(FenceTestArgs),
}

/// `holdfast fence list`.
#[derive(Debug, Args)]
pub(crate) struct FenceListArgs {
    /// The sub-cluster
    #[arg(value_name = "SUBCLUSTER")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `holdfast fence test`.
#[derive(Debug, Args)]
pub(crate) struct FenceTestArgs {
    /// Only the devices of this server
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
    /// The agent's file
    #[arg(long, value_name = "FILE", default_value = "/etc/holdfast/agent.yaml")]
    pub(crate) config: PathBuf,
}

/// `holdfast agents …`.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentsCommand {
    /// List the OCF resource agents that are installed here
    List,
    /// Show the parameters and times of one of them
    Describe(AgentsDescribeArgs),
}

/// `holdfast agents describe`.
#[derive(Debug, Args)]
pub(crate) struct AgentsDescribeArgs {
    /// The agent as PROVIDER:TYPE, for example heartbeat:IPaddr2
    #[arg(value_name = "AGENT")]
    pub(crate) name: String,
}

/// Where a cluster area is.
#[derive(Debug, Args)]
pub(crate) struct DiskArgs {
    /// The device or partition of the area
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: PathBuf,
    /// Where the area begins on it, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) offset: u64,
}

/// `holdfast disk format`.
#[derive(Debug, Args)]
pub(crate) struct DiskFormatArgs {
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
    /// Overwrite an area, a file system or anything else that is there; not an area that a sub-cluster may be using
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Overwrite that, too: the identity of its lock, as `holdfast disk inspect` shows it
    #[arg(long, value_name = "LOCK", requires = "overwrite", value_parser = parse_lock)]
    pub(crate) discard_lock: Option<holdfast_core::names::AcceptorId>,
}

/// Reads the identity of a lock.
fn parse_lock(text: &str) -> Result<holdfast_core::names::AcceptorId, String> {
    let digits = text.replace('-', "");
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
    let wanted = "expected 32 hexadecimal digits, as `holdfast disk inspect` shows them after \"lock\"";
    number.map(holdfast_core::names::AcceptorId).ok_or_else(|| wanted.into())
}

/// `holdfast lock …`
#[derive(Debug, Subcommand)]
pub(crate) enum LockCommand {
    /// Make the lock of one sub-cluster, once; nothing else ever makes it
    Create(LockCreateArgs),
    /// Show what a lock holds
    Inspect(LockArgs),
    /// Issue credentials that may use one lock and nothing else, as the Secret that quorumServer.credentialSecret names
    Credentials(LockCredentialsArgs),
}

/// A lock on an API server.
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// The Lease: NAMESPACE/NAME, as in quorumServer.lease
    #[arg(value_name = "NS/NAME")]
    pub(crate) lock: String,
    /// Kubeconfig of the quorum server's administrator, instead of the files in KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use instead of its current one
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// `holdfast lock create`.
#[derive(Debug, Args)]
pub(crate) struct LockCreateArgs {
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    /// Delete what is there under this name. To a sub-cluster that uses it the new one is another lock, without a vote
    #[arg(long)]
    pub(crate) replace: bool,
}

/// `holdfast lock credentials`.
#[derive(Debug, Args)]
pub(crate) struct LockCredentialsArgs {
    /// The Lease: NAMESPACE/NAME, as in quorumServer.lease
    #[arg(value_name = "NS/NAME")]
    pub(crate) lock: String,
    /// The quorum server's data directory: its certificate authority signs
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// The Secret to write: NAMESPACE/NAME of the sub-cluster's namespace and quorumServer.credentialSecret
    #[arg(long, value_name = "NS/NAME")]
    pub(crate) secret: String,
    /// File to write, readable by its owner only; apply it where the sub-cluster is
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// `holdfast completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// `holdfast man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Directory to write them into, for example /usr/local/share/man/man1; made if absent
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// `holdfast lab …`; the lab has its own flags.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct LabArgs {
    /// Arguments of the lab; `holdfast lab --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    pub(crate) arguments: Vec<std::ffi::OsString>,
}

/// `holdfast validate`.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    pub(crate) files: FileArgs,
}

/// `holdfast timing`.
#[derive(Debug, Args)]
pub(crate) struct TimingArgs {
    /// A sub-cluster of the API server: also shows which timeout the gaps measured on its paths allow
    #[arg(value_name = "SUBCLUSTER", required_unless_present = "files", conflicts_with = "files")]
    pub(crate) name: Option<String>,
    /// Manifests with sub-clusters, instead
    #[arg(long = "filename", short = 'f', value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// The name under which kubectl finds the program as its plugin `kubectl holdfast`.
const PLUGIN: &str = "kubectl-holdfast";

/// Reads the command line. Called as kubectl's plugin, the program shows itself as that in its usage.
///
/// # Errors
/// Help and version, and a command line that is none.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    use clap::{CommandFactory, FromArgMatches};
    let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let mut command = Cli::command();
    if program.file_name().is_some_and(|name| name == PLUGIN) {
        command = command.bin_name("kubectl holdfast");
    }
    let mut matches = command.try_get_matches()?;
    Cli::from_arg_matches_mut(&mut matches)
}
