//! The flags of every command, and the words that explain them. No behaviour.

use std::net::SocketAddr;
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
    /// Move a failover group to another server and wait until it is there
    Move(MoveArgs),
    /// Start a failover group, and release what holds it
    Start(GroupArgs),
    /// Stop a failover group, and hold it until it is started
    Stop(GroupArgs),
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
    /// Check manifests without sending them anywhere
    Validate(ValidateArgs),
    /// Show the timing arithmetic of a sub-cluster, and what it guarantees
    Timing(TimingArgs),
    /// Print the custom resource definitions
    Crds,
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

/// `holdfast agent`.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// The agent's file: api, namespace, subCluster, server, credentials, dataDir, runDir
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// First get this server's credentials from the API server at this URL, unless it has good ones
    #[arg(long, value_name = "URL", requires = "token")]
    pub(crate) join: Option<String>,
    /// The token for it, from `holdfast token create`
    #[arg(long, value_name = "TOKEN", requires = "join")]
    pub(crate) token: Option<holdfast_agent::join::JoinToken>,
}

/// `holdfast token …`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token with which one server gets its first certificate, and print it; it is kept as a Secret in kube-system
    Create(TokenCreateArgs),
}

/// `holdfast token create`.
#[derive(Debug, Args)]
pub(crate) struct TokenCreateArgs {
    /// The server that may join with it: NAMESPACE/SUBCLUSTER/SERVER
    #[arg(long, value_name = "NS/SUB/SERVER")]
    pub(crate) server: String,
    /// How long it is good, for example 30m or 24h
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub(crate) ttl: String,
    /// For how many keys: a server that is installed anew has another one
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) uses: u32,
    /// URL under which the server reaches the API, for the command that is shown; else that of the kubeconfig
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
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
    #[arg(long)]
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

/// `holdfast apiserver`, and what `holdfast server` has in common with it.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Longest life of the certificates that agents are given when they join, and renew after two thirds of it: 10s to
    /// 87600h (10 years)
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = certificate_life)]
    pub(crate) agent_certificate_life: std::time::Duration,
}

/// Reads the life of certificates.
fn certificate_life(text: &str) -> Result<std::time::Duration, String> {
    use std::time::Duration;
    let life: holdfast_api::duration::Duration = text.parse().map_err(|error| format!("{error}"))?;
    life.check_range(Duration::from_secs(10), Duration::from_secs(87_600 * 3600))?;
    Ok(life.get())
}

/// Where a server keeps its things, and where it listens.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// Directory for the store, the certificate authority and admin.kubeconfig; made if absent, readable by its owner only
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6443")]
    pub(crate) listen: SocketAddr,
    /// Another host name or address that clients will use, for the serving certificate; may be repeated
    #[arg(long = "san", value_name = "NAME")]
    pub(crate) sans: Vec<String>,
}

/// Where objects are kept.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreArgs {
    /// Where objects are kept: `sqlite` (a file in the data directory), or `etcd://HOST:PORT,…`
    #[arg(long, value_name = "STORE", default_value = "sqlite")]
    pub(crate) store: String,
    /// Authorities that may have signed the certificates of etcd, in PEM; with it etcd is reached over TLS
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_ca: Option<PathBuf>,
    /// Certificate that is shown to etcd, in PEM
    #[arg(long, value_name = "FILE", requires = "etcd_ca", requires = "etcd_key")]
    pub(crate) etcd_cert: Option<PathBuf>,
    /// Key of the certificate that is shown to etcd, in PEM
    #[arg(long, value_name = "FILE", requires = "etcd_cert")]
    pub(crate) etcd_key: Option<PathBuf>,
}

impl StoreArgs {
    /// As they are written on a command line.
    pub(crate) fn as_flags(&self) -> String {
        let file = |flag: &str, file: &Option<PathBuf>| file.as_ref().map(|file| format!(" {flag} {}", file.display()));
        let files = [("--etcd-ca", &self.etcd_ca), ("--etcd-cert", &self.etcd_cert), ("--etcd-key", &self.etcd_key)];
        let files: String = files.into_iter().filter_map(|(flag, path)| file(flag, path)).collect();
        format!("--store {}{files}", self.store)
    }

    /// The embedded store.
    pub(crate) fn embedded() -> Self {
        Self { store: "sqlite".to_owned(), etcd_ca: None, etcd_cert: None, etcd_key: None }
    }
}

/// `holdfast backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The server's data directory: its certificates, and its store if that is the embedded one
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// File to write, which must not exist yet. It holds every key and Secret: readable by its owner only, keep it so
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// `holdfast restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// A file that `holdfast backup` wrote
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Data directory to put the certificates into, and the objects if they go into the embedded store; made if absent
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Replace what is in the store and among the certificates already. What is not in the backup is deleted
    #[arg(long)]
    pub(crate) replace: bool,
}

/// `holdfast server`.
#[derive(Debug, Args)]
pub(crate) struct WholeServerArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) election: ElectionArgs,
}

/// Where several controllers agree on the one that acts.
#[derive(Debug, Clone, Args)]
pub(crate) struct ElectionArgs {
    /// Namespace of the Lease holdfast-controller, whose holder is the one controller that acts; made if it is absent. The
    /// same for all controllers of an API
    #[arg(long, value_name = "NAME", default_value = holdfast_controller::LEASE_NAMESPACE, value_parser = namespace)]
    pub(crate) lease_namespace: String,
}

/// `holdfast quorum-server`.
#[derive(Debug, Args)]
pub(crate) struct QuorumServerArgs {
    /// Directory for the locks, the certificate authority and admin.kubeconfig; made if absent, readable by its owner only
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7443")]
    pub(crate) listen: SocketAddr,
    /// Another host name or address that agents will use, for the serving certificate; may be repeated. The addresses that
    /// this machine has at the start are known
    #[arg(long = "san", value_name = "NAME")]
    pub(crate) sans: Vec<String>,
}

/// `holdfast controller`.
#[derive(Debug, Args)]
pub(crate) struct ControllerArgs {
    /// Kubeconfig of the API server, with the rights of the role holdfast-controller
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: PathBuf,
    #[command(flatten)]
    pub(crate) election: ElectionArgs,
}

/// `holdfast kubeconfig`.
#[derive(Debug, Args)]
pub(crate) struct KubeconfigArgs {
    /// The server's data directory: its certificate authority signs
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// For the agent of this server: NAMESPACE/SUBCLUSTER/SERVER
    #[arg(long, value_name = "NS/SUB/SERVER", required_unless_present = "user", conflicts_with = "user")]
    pub(crate) server: Option<String>,
    /// For a person or a program of this name; roles and bindings say what it may do
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// The group that the user is in
    #[arg(long, value_name = "NAME", requires = "user")]
    pub(crate) group: Option<String>,
    /// URL under which the API is reached from there
    #[arg(long, value_name = "URL", default_value = "https://127.0.0.1:6443")]
    pub(crate) api: String,
    /// File to write, readable by its owner only
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// `holdfast disk …`
#[derive(Debug, Subcommand)]
pub(crate) enum DiskCommand {
    /// Write an empty cluster area to a device; what is at that place is lost
    Format(DiskFormatArgs),
    /// Show what the cluster area of a device holds; works with every daemon down
    Inspect(DiskArgs),
}

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

/// `holdfast fence …`.
#[derive(Debug, Subcommand)]
pub(crate) enum FenceCommand {
    /// List the devices of every server by level, with what each server saw when it last looked at them
    List(FenceListArgs),
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

/// The name of a namespace: an RFC 1123 label.
fn namespace(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = !text.is_empty() && text.len() <= 63 && text.chars().all(allowed);
    if good && !text.starts_with('-') && !text.ends_with('-') {
        return Ok(text.to_owned());
    }
    Err("allowed are 1 to 63 lowercase letters, digits and `-`, beginning and ending with a letter or digit".to_owned())
}
