//! `holdfast backup` and `holdfast restore`: the files around [`holdfast_apiserver::backup`].

use std::path::Path;
use std::time::Duration;

use holdfast_apiserver::backup::{self, Backup};
use holdfast_store::{Error, OpenError, Page};

use crate::args::{BackupArgs, RestoreArgs};
use crate::commands::server::{make_directory, open_store, tls_files};
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// Where the API server keeps everything.
const ROOT: &str = "/registry/";
/// How long a store may take to answer for the first time.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between attempts.
const RETRY: Duration = Duration::from_millis(500);

/// Saves store and certificates.
///
/// # Errors
/// When something can't be read, or the file can't be written.
pub(crate) async fn backup(args: BackupArgs, printer: Printer) -> Result {
    let tls = tls_files(&args.store);
    let page = patiently(|| holdfast_store::snapshot(&args.store.store, &args.data_dir, tls.as_ref(), ROOT)).await?;
    let Page { entries, revision, .. } = page;
    let entries: Vec<_> = entries
        .into_iter()
        .filter(|entry| !backup::is_left_out(&entry.key))
        .map(|entry| (entry.key, entry.value.to_vec()))
        .collect();
    let files = backup::read_files(&args.data_dir).map_err(Failure::refused_by)?;
    if files.is_empty() {
        return Err(Failure::refused(format!("there are no certificates in {}", args.data_dir.join("pki").display()))
            .hint("give the data directory of a server with --data-dir"));
    }
    let backup = Backup { created: jiff::Timestamp::now().to_string(), revision, entries, files };
    backup::keep_file(&args.output, &backup.to_bytes(), false).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::refused(format!("{} exists already", args.output.display()))
            .hint("choose another name: a backup is never written over"),
        _ => unusable(&args.output, &error),
    })?;
    printer.data(&format!(
        "saved {} objects of revision {revision} and {} files of certificates in {}",
        backup.entries.len(),
        backup.files.len(),
        args.output.display()
    ))?;
    printer.note("it holds the key of the certificate authority and every Secret: keep it as secret as those");
    Ok(())
}

/// Puts a backup into a store and a data directory. Everything is checked before anything is written.
///
/// # Errors
/// When the file is no backup, or store or certificates are there already, or can't be written.
pub(crate) async fn restore(args: RestoreArgs, printer: Printer) -> Result {
    let bytes = std::fs::read(&args.file).map_err(|error| unusable(&args.file, &error))?;
    let backup = Backup::parse(&bytes).map_err(|error| {
        Failure::refused_by(error).context(format!("{} is not restored, nothing was changed", args.file.display()))
    })?;
    let present = backup::read_files(&args.data_dir).map_err(Failure::refused_by)?;
    if !args.replace
        && let Some((name, _)) = present.iter().find(|file| !backup.files.contains(file))
    {
        return Err(taken(&format!("{} is there already, and another one", args.data_dir.join(name).display())));
    }
    make_directory(&args.data_dir)?;
    let store = open_store(&args.store, &args.data_dir)?;
    let present = patiently(async || Ok(store.list(ROOT, None, 0, None).await?)).await?.entries;
    if !args.replace && !present.is_empty() {
        return Err(taken(&format!("the store holds {} objects", present.len())));
    }
    backup::write_files(&backup, &args.data_dir).map_err(Failure::refused_by)?;
    let restored = backup::restore(&backup, &*store, present).await.map_err(|error| {
        Failure::from(anyhow::Error::from(error))
            .context("the store holds a part of the backup only")
            .hint("stop every server of this store and run the command again with --replace")
    })?;
    printer.data(&format!(
        "restored {} objects of revision {} ({}), deleted {}; store incarnation {}",
        restored.objects, backup.revision, backup.created, restored.deleted, restored.incarnation
    ))
}

fn taken(what: &str) -> Failure {
    Failure::refused(format!("{what}; nothing was changed"))
        .hint("give an empty data directory and store, or say --replace to have what is there replaced")
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::refused(format!("cannot use {}: {error}", path.display()))
}

/// A first read, tried again while the store can't be reached.
async fn patiently(read: impl AsyncFn() -> Result<Page, OpenError>) -> Result<Page> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        match read().await {
            Err(OpenError::Store(Error::Unavailable(_) | Error::Compacted { .. }))
                if tokio::time::Instant::now() < end =>
            {
                tokio::time::sleep(RETRY).await;
            }
            other => return other.map_err(Failure::refused_by),
        }
    }
}
