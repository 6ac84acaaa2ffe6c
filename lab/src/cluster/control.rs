//! The control plane's host: API server and controller in one process, with the embedded store or an etcd beside
//! it, and the files that it issues.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_yaml::Value;

use super::StoreKind;
use crate::binary::holdfast_binary;
use crate::blueprint::Blueprint;
use crate::error::{Attempt, LabError, Result};
use crate::forward::Forwarder;
use crate::host::Host;
use crate::shell::{run, wait_for};
use crate::spec::{BIN_DIR, STATE_DIR, ServiceSpec};

/// Port of the API server.
pub(super) const PORT: u16 = 6443;
const SERVER: &str = "server";
const ETCD: &str = "etcd";
const ETCD_URL: &str = "http://127.0.0.1:2379";
/// A first start makes keys and certificates; an etcd beside it syncs its files to disk.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The services of the host.
pub(super) fn services(api: SocketAddr, store: StoreKind) -> Vec<ServiceSpec> {
    let own = |parts: &[&str]| parts.iter().map(ToString::to_string).collect::<Vec<String>>();
    let place = match store {
        StoreKind::Sqlite => "sqlite",
        StoreKind::Etcd => "etcd://127.0.0.1:2379",
    };
    let (binary, data, listen) = (format!("{BIN_DIR}/holdfast"), format!("{STATE_DIR}/server"), api.to_string());
    let server =
        own(&[&binary, "server", "--data-dir", &data, "--listen", &listen, "--san", "127.0.0.1", "--store", place]);
    let etcd_data = format!("{STATE_DIR}/etcd");
    let etcd = own(&[
        "etcd",
        "--data-dir",
        &etcd_data,
        "--listen-client-urls",
        ETCD_URL,
        "--advertise-client-urls",
        ETCD_URL,
        "--listen-peer-urls",
        "http://127.0.0.1:2380",
    ]);
    let service = |name: &str, command| ServiceSpec { name: name.into(), command, environment: Default::default() };
    vec![service(SERVER, server), service(ETCD, etcd)]
}

/// Starts the control plane and waits until it accepts connections.
pub(super) fn start(control: &std::sync::Arc<Host>, api: SocketAddr, store: StoreKind) -> Result<()> {
    if store == StoreKind::Etcd {
        control.start_service(ETCD)?;
    }
    start_api(control, SERVER, api)
}

/// Starts a service that is an API server, with a data directory of its name, and waits until it accepts connections.
pub(super) fn start_api(host: &std::sync::Arc<Host>, service: &str, api: SocketAddr) -> Result<()> {
    host.start_service(service)?;
    let door = Forwarder::open(std::sync::Arc::clone(host), api)?;
    let admin = host.state_dir().join(service).join("admin.kubeconfig");
    wait_for("the API server to answer", START_LIMIT, |last| {
        let log = fs::read_to_string(host.log_dir().join(format!("{service}.log"))).unwrap_or_default();
        *last = format!("its log ends with: {}", tail(&log));
        Ok((admin.is_file() && answers(door.address())).then_some(()))
    })
}

/// Whether the far side of a door keeps a connection open: the door itself accepts always, and closes at once
/// when nobody listens behind it.
fn answers(door: SocketAddr) -> bool {
    use std::io::{ErrorKind, Read};
    let Ok(mut stream) = TcpStream::connect_timeout(&door, Duration::from_secs(1)) else { return false };
    if stream.set_read_timeout(Some(Duration::from_millis(100))).is_err() {
        return false;
    }
    match stream.read(&mut [0]) {
        Ok(count) => count > 0,
        // A TLS server waits for the client to speak first.
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// Stops the control plane.
pub(super) fn stop(control: &Host, store: StoreKind, limit: Duration) -> Result<()> {
    control.stop_service(SERVER, limit)?;
    if store == StoreKind::Etcd {
        control.stop_service(ETCD, limit)?;
    }
    Ok(())
}

/// Writes the administrator's kubeconfig for use on the machine, where the API is behind `door`.
pub(super) fn copy_kubeconfig(source: &Path, api: SocketAddr, door: SocketAddr, target: &Path) -> Result<()> {
    let text = fs::read_to_string(source).attempt(|| format!("reading {}", source.display()))?;
    let wrong = |problem: String| LabError::Manifest { file: source.to_path_buf(), field: "clusters".into(), problem };
    let mut config: Value = serde_yaml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let server = config.get_mut("clusters").and_then(|list| list.get_mut(0)).and_then(|entry| entry.get_mut("cluster"));
    let server = server
        .and_then(|cluster| cluster.get_mut("server"))
        .ok_or_else(|| wrong(format!("no clusters[0].cluster.server, which should be the API server at {api}")))?;
    *server = Value::from(format!("https://{door}"));
    let text = serde_yaml::to_string(&config).map_err(|error| wrong(error.to_string()))?;
    fs::write(target, text).attempt(|| format!("writing {}", target.display()))?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(target, fs::Permissions::from_mode(0o600)).attempt(|| format!("closing {}", target.display()))
}

/// Issues the kubeconfig of a server's agent.
pub(super) fn issue_credentials(
    control: &Host,
    blueprint: &Blueprint,
    server: &str,
    api: SocketAddr,
    target: &Path,
) -> Result<()> {
    let binary = holdfast_binary()?;
    let data = control.state_dir().join(SERVER);
    let name = format!("{}/{}/{server}", blueprint.namespace, blueprint.sub_cluster);
    let api = format!("https://{api}");
    run(
        &binary.to_string_lossy(),
        &[
            "kubeconfig",
            "--data-dir",
            &data.to_string_lossy(),
            "--server",
            &name,
            "--api",
            &api,
            "--out",
            &target.to_string_lossy(),
        ],
    )
    .map(drop)
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
