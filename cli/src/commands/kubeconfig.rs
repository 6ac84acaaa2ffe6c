//! `holdfast kubeconfig`: credentials for the agent of one server, signed by the server's own certificate authority.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use holdfast_apiserver::pki;

use crate::args::KubeconfigArgs;
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// Runs the command.
///
/// # Errors
/// A server that is not named as NS/SUB/SERVER, a data directory without certificate authority, a file that can't be
/// written.
pub(crate) fn run(args: &KubeconfigArgs, printer: Printer) -> Result {
    let parts: Vec<&str> = args.server.split('/').collect();
    let [namespace, sub_cluster, server] = parts[..] else {
        return Err(wrong_server(&args.server));
    };
    if parts.iter().any(|part| part.is_empty() || part.contains(':')) {
        return Err(wrong_server(&args.server));
    }
    let text =
        pki::issue_agent_kubeconfig(&args.data_dir, &args.api, namespace, sub_cluster, server).map_err(|error| {
            Failure::refused_by(error)
                .hint("start `holdfast server` once with this --data-dir: it makes the certificate authority")
        })?;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&args.out);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::refused(format!("cannot write {}: {error}", args.out.display())))?;
    printer
        .note(format!("{}: credentials of server {server}, for `credentials` in its agent file", args.out.display()));
    Ok(())
}

fn wrong_server(found: &str) -> Failure {
    Failure::refused(format!("--server {found}: allowed is NAMESPACE/SUBCLUSTER/SERVER, for example ha/db/db1"))
}
