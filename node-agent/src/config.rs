//! The agent's own file: where the API is, who this server is, where it keeps things.
//!
//! Everything that can be declared in the API is not here. Unknown fields are refused: a misspelt one would otherwise
//! be ignored.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use holdfast_core::names::ServerName;
use serde::Deserialize;

/// The agent file, checked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentConfig {
    /// URLs of the API, tried in turn. Empty: the one in the credentials.
    #[serde(default)]
    pub api: Vec<String>,
    /// Namespace of the sub-cluster.
    pub namespace: String,
    /// Name of the sub-cluster.
    pub sub_cluster: String,
    /// Name of this server in `servers[]` of the sub-cluster.
    pub server: String,
    /// Kubeconfig with this server's client certificate.
    pub credentials: PathBuf,
    /// Manifests to start with when nothing was ever read from the API (the master sub-cluster starts without it).
    #[serde(default)]
    pub bootstrap_manifest: Option<PathBuf>,
    /// Durable data: ledger, accepted specifications. Must survive a reboot.
    pub data_dir: PathBuf,
    /// Data of one boot: sockets, deadline page. Must not survive a reboot (a tmpfs).
    pub run_dir: PathBuf,
    /// Cgroup (v2) under which groups and helpers run. Absent: the agent's own.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// Address and port at which `GET /metrics` is answered over plain HTTP, for Prometheus. Absent: nowhere.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// The command that shuts this machine down, for `ServerDown`. Default: systemctl poweroff.
    #[serde(default = "power_off")]
    pub power_off: Vec<String>,
}

fn power_off() -> Vec<String> {
    ["systemctl", "poweroff"].map(str::to_owned).to_vec()
}

/// Why an agent file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It can't be read.
    #[error("the agent file {path} can't be read: {source}; name an existing file with --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no YAML of the right shape.
    #[error(
        "the agent file {path} is not valid: {source}; it takes api, namespace, subCluster, server, credentials, \
         bootstrapManifest, dataDir, runDir, cgroup, metrics, powerOff"
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// What was found where.
        source: serde_yaml::Error,
    },
    /// A field has a value that can't be right.
    #[error("the agent file {path}: {field} is {found:?}; {allowed}")]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl AgentConfig {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<AgentConfig, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        AgentConfig::parse(path, &text)
    }

    /// Checks the text of a file; `path` is only for messages.
    pub fn parse(path: &Path, text: &str) -> Result<AgentConfig, ConfigError> {
        let config: AgentConfig =
            serde_yaml::from_str(text).map_err(|source| ConfigError::Shape { path: path.to_owned(), source })?;
        let wrong = |field, found: &str, allowed| {
            Err(ConfigError::Field { path: path.to_owned(), field, found: found.to_owned(), allowed })
        };
        const NAME: &str = "allowed is the name of an object: a-z, 0-9, '-', '.', beginning and ending with a letter or \
                            a digit, at most 253 characters";
        const LABEL: &str = "allowed is the name as in servers[] of the sub-cluster: a-z, 0-9, '-', beginning and \
                             ending with a letter or a digit, at most 63 characters";
        for (field, value) in [("namespace", &config.namespace), ("subCluster", &config.sub_cluster)] {
            if value.len() > 253 || !value.split('.').all(is_label) {
                return wrong(field, value, NAME);
            }
        }
        if config.server.len() > 63 || !is_label(&config.server) {
            return wrong("server", &config.server, LABEL);
        }
        for url in &config.api {
            if !url.starts_with("https://") && !url.starts_with("http://") {
                return wrong("api", url, "each entry is a URL, for example https://10.0.0.9:7443");
            }
        }
        const ABSOLUTE: &str = "an absolute path is needed, because a service has no working directory of its own";
        let cgroup = config.cgroup.as_ref().map(|c| ("cgroup", c));
        let manifest = config.bootstrap_manifest.as_ref().map(|m| ("bootstrapManifest", m));
        let paths = [("credentials", &config.credentials), ("dataDir", &config.data_dir), ("runDir", &config.run_dir)];
        for (field, value) in paths.into_iter().chain(cgroup).chain(manifest) {
            if !value.is_absolute() {
                return wrong(field, &value.display().to_string(), ABSOLUTE);
            }
        }
        if config.power_off.iter().all(String::is_empty) {
            return wrong("powerOff", "", "a program and its arguments are needed, for example [systemctl, poweroff]");
        }
        if config.data_dir == config.run_dir {
            let found = config.run_dir.display().to_string();
            return wrong(
                "runDir",
                &found,
                "it must differ from dataDir: one is emptied by a reboot, the other is not",
            );
        }
        Ok(config)
    }

    /// This server, as the core names it.
    pub fn server_name(&self) -> ServerName {
        ServerName(self.server.clone())
    }

    /// Name of this server's object in the API.
    pub fn server_object(&self) -> String {
        format!("{}.{}", self.sub_cluster, self.server)
    }
}

fn is_label(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
api: ['https://127.0.0.1:7443']
namespace: ha
subCluster: db
server: db1
credentials: /etc/holdfast/agent.kubeconfig
dataDir: /var/lib/holdfast
runDir: /run/holdfast
";

    fn refused(text: &str) -> String {
        AgentConfig::parse(Path::new("agent.yaml"), text).unwrap_err().to_string()
    }

    #[test]
    fn a_complete_file_is_taken() {
        let config = AgentConfig::parse(Path::new("agent.yaml"), GOOD).unwrap();
        assert_eq!(config.server_object(), "db.db1");
        assert_eq!(config.cgroup, None);
    }

    #[test]
    fn a_wrong_file_is_refused_with_what_to_change() {
        let misspelt = refused(&GOOD.replace("runDir", "rundir"));
        assert!(misspelt.contains("rundir") && misspelt.contains("bootstrapManifest"), "{misspelt}");
        let relative = refused(&GOOD.replace("/var/lib/holdfast", "data"));
        assert!(relative.contains("dataDir is \"data\"") && relative.contains("absolute"), "{relative}");
        let name = refused(&GOOD.replace("db1", "DB1"));
        assert!(name.contains("server is \"DB1\""), "{name}");
        let url = refused(&GOOD.replace("https://", ""));
        assert!(url.contains("api is \"127.0.0.1:7443\""), "{url}");
        let same = refused(&GOOD.replace("/run/holdfast", "/var/lib/holdfast"));
        assert!(same.contains("runDir"), "{same}");
    }
}
