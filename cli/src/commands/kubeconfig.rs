//! `holdfast kubeconfig`: credentials for the agent of one server or for a user, signed by the API server's own
//! certificate authority.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use holdfast_apiserver::pki;

use crate::args::KubeconfigArgs;
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// Prefixes of users and groups whose rights are built in.
const RESERVED: [&str; 2] = ["system:", "holdfast:"];

/// Runs the command.
///
/// # Errors
/// A server that is not named as NS/SUB/SERVER, a reserved name, a data directory without certificate authority, a file
/// that can't be written.
pub(crate) fn run(args: &KubeconfigArgs, printer: Printer) -> Result {
    let (issued, whose) = match (&args.server, &args.user) {
        (Some(server), _) => {
            let [namespace, sub_cluster, name] = server_parts(server)?;
            let issued = pki::issue_agent_kubeconfig(&args.data_dir, &args.api, namespace, sub_cluster, name);
            (issued, format!("server {name}, for `credentials` in its agent file"))
        }
        (None, user) => {
            let user = user.as_deref().unwrap_or_default();
            check_name("--user", user)?;
            if let Some(group) = &args.group {
                check_name("--group", group)?;
            }
            let issued = pki::issue_user_kubeconfig(&args.data_dir, &args.api, user, args.group.as_deref());
            (issued, format!("user {user}; roles and bindings say what it may do"))
        }
    };
    let text = issued.map_err(|error| {
        Failure::refused_by(error)
            .hint("start `holdfast server` once with this --data-dir: it makes the certificate authority")
    })?;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&args.out);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::refused(format!("cannot write {}: {error}", args.out.display())))?;
    printer.note(format!("{}: credentials of {whose}", args.out.display()));
    Ok(())
}

fn check_name(option: &str, name: &str) -> Result {
    if name.is_empty() || RESERVED.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(Failure::refused(format!(
            "{option} {name:?}: allowed is any name that does not begin with {}",
            RESERVED.join(" or ")
        ))
        .hint(
            "the administrator's own credentials are in admin.kubeconfig, those of a server are made with --server",
        ));
    }
    Ok(())
}

/// NAMESPACE/SUBCLUSTER/SERVER, taken apart.
///
/// # Errors
/// Anything else.
pub(crate) fn server_parts(found: &str) -> Result<[&str; 3]> {
    let parts: Vec<&str> = found.split('/').collect();
    match parts[..] {
        [namespace, sub_cluster, server] if parts.iter().all(|part| !part.is_empty() && !part.contains(':')) => {
            Ok([namespace, sub_cluster, server])
        }
        _ => Err(Failure::refused(format!(
            "--server {found}: allowed is NAMESPACE/SUBCLUSTER/SERVER, for example ha/db/db1"
        ))),
    }
}
