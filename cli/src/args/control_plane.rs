//! The flags of what runs a control plane or an agent, and of what keeps it: stores, keys, tokens, backups.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ClientArgs;

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
    /// Address and port at which `GET /metrics` is answered over plain HTTP, for Prometheus; without it nowhere. `holdfast
    /// server` answers at its own address
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
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

/// The name of a namespace: an RFC 1123 label.
fn namespace(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = !text.is_empty() && text.len() <= 63 && text.chars().all(allowed);
    if good && !text.starts_with('-') && !text.ends_with('-') {
        return Ok(text.to_owned());
    }
    Err("allowed are 1 to 63 lowercase letters, digits and `-`, beginning and ending with a letter or digit".to_owned())
}
