//! Logs of the long-running commands: standard error, one line per event, level `info` unless HOLDFAST_LOG says
//! otherwise (the syntax of tracing-subscriber's EnvFilter, e.g. `info,holdfast_agent=debug`).

use tracing_subscriber::EnvFilter;

use crate::errors::{Failure, Result};

/// Sets logging up for this process.
///
/// # Errors
/// When HOLDFAST_LOG is not a filter.
pub(crate) fn start() -> Result {
    let filter = match std::env::var("HOLDFAST_LOG") {
        Ok(text) => EnvFilter::try_new(&text).map_err(|error| {
            Failure::refused(format!("HOLDFAST_LOG={text}: {error}")).hint(
                "allowed: a level (error, warn, info, debug, trace), or MODULE=LEVEL pairs with commas between them",
            )
        })?,
        // kube logs every failed attempt; whoever made it says so once, with what follows from it.
        Err(_) => EnvFilter::new("info,kube_client::client::builder=off"),
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    Ok(())
}
