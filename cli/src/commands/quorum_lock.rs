//! `holdfast lock`: the lock of a sub-cluster on a quorum server. Makes it once, shows it, issues credentials for it.
//! Making works on any Kubernetes API server, too; credentials there are that server's own.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use holdfast_agent::quorum::access::{CA, CERTIFICATE, KEY};
use holdfast_agent::quorum::admin::{self, AdminError};
use holdfast_apiserver::pki;
use serde_json::json;

use crate::args::{ClientArgs, LockArgs, LockCommand, LockCredentialsArgs};
use crate::client::Api;
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// Runs the command.
///
/// # Errors
/// A lock or Secret that is not named as NAMESPACE/NAME, one that is there already or is not there, an API server that
/// refuses, a data directory without certificate authority, a file that can't be written.
pub(crate) fn run(command: LockCommand, printer: Printer) -> Result {
    match command {
        LockCommand::Create(args) => {
            let (namespace, name) = parts("the lock", &args.lock.lock)?;
            let id = with_client(&args.lock, |client| async move {
                admin::create(&client, &namespace, &name, args.replace).await
            })?;
            printer.data(&format!("Lease {}: lock {id}", args.lock.lock))?;
            if args.replace {
                printer.note("a sub-cluster that used the old one gives this one no vote until a new view admits it");
            }
            Ok(())
        }
        LockCommand::Inspect(args) => {
            let (namespace, name) = parts("the lock", &args.lock)?;
            let shown = with_client(&args, |client| async move { admin::inspect(&client, &namespace, &name).await })?;
            printer.data(&shown.to_string())
        }
        LockCommand::Credentials(args) => credentials(&args, printer),
    }
}

fn with_client<T, F>(args: &LockArgs, action: impl FnOnce(kube::Client) -> F) -> Result<T>
where
    F: Future<Output = Result<T, AdminError>>,
{
    let client = ClientArgs { kubeconfig: args.kubeconfig.clone(), context: args.context.clone(), namespace: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let api = Api::connect(&client).await?;
        action(api.client()).await.map_err(|error| match error {
            AdminError::Request { what, source } => Failure::from(source).context(what),
            AdminError::Exists { .. } => Failure::refused_by(error).hint(
                "`holdfast lock inspect` shows it; --replace makes a new one in its place, which has no vote in a \
                 sub-cluster that used the old one",
            ),
            AdminError::Absent(_) => {
                Failure::refused_by(error).hint("`holdfast lock create NAMESPACE/NAME` makes it, once")
            }
            AdminError::Unreadable(_) => Failure::refused_by(error),
        })
    })
}

fn credentials(args: &LockCredentialsArgs, printer: Printer) -> Result {
    let (lock_namespace, lock_name) = parts("the lock", &args.lock)?;
    let (namespace, name) = parts("--secret", &args.secret)?;
    let (ca, certificate) =
        pki::issue_lock_certificate(&args.data_dir, &lock_namespace, &lock_name).map_err(|error| {
            Failure::refused_by(error)
                .hint("start `holdfast quorum-server` once with this --data-dir: it makes the certificate authority")
        })?;
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "Opaque",
        "stringData": {CA: ca, CERTIFICATE: certificate.pem, KEY: certificate.key_pem},
    });
    write_private(&args.out, &serde_yaml::to_string(&secret).map_err(anyhow::Error::from)?)?;
    printer.note(format!(
        "{}: Secret {} with credentials for the lock {}, good for a year; `holdfast apply -f` it where the sub-cluster is",
        args.out.display(),
        args.secret,
        args.lock
    ));
    Ok(())
}

fn write_private(path: &PathBuf, text: &str) -> Result {
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::refused(format!("cannot write {}: {error}", path.display())))
}

/// NAMESPACE/NAME, taken apart.
fn parts(what: &str, text: &str) -> Result<(String, String)> {
    let sound = |part: &str| {
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        !part.is_empty() && part.len() <= 253 && part.chars().all(inside)
    };
    match text.split_once('/') {
        Some((namespace, name)) if sound(namespace) && sound(name) => Ok((namespace.to_owned(), name.to_owned())),
        _ => Err(Failure::refused(format!(
            "{what} is {text:?}: allowed is NAMESPACE/NAME with a-z, 0-9, '-' and '.', for example ha/db"
        ))),
    }
}
