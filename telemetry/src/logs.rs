//! Logs of the long-running processes: standard error, one line per event.
//!
//! `HOLDFAST_LOG` chooses what is logged: the syntax of tracing-subscriber's EnvFilter, e.g.
//! `info,holdfast_agent=debug`; default `info`. `HOLDFAST_LOG_FORMAT` chooses the form: `text` (default) for people, `json`
//! for machines: an object per line with `timestamp` (RFC 3339), `level`, `target`, `message` and the fields of the event.

use tracing_subscriber::EnvFilter;

/// A variable of the environment that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{variable}={found}: {problem}; allowed: {allowed}")]
pub struct Unusable {
    variable: &'static str,
    found: String,
    problem: String,
    allowed: &'static str,
}

/// Sets logging up for this process; to be called once.
///
/// # Errors
/// When one of the variables has no such value; nothing is set up then.
pub fn start() -> Result<(), Unusable> {
    let filter = match std::env::var("HOLDFAST_LOG") {
        Ok(found) => EnvFilter::try_new(&found).map_err(|error| Unusable {
            variable: "HOLDFAST_LOG",
            found,
            problem: error.to_string(),
            allowed: "a level (error, warn, info, debug, trace), or MODULE=LEVEL pairs with commas between them",
        })?,
        // kube logs every failed attempt; whoever made it says so once, with what follows from it.
        Err(_) => EnvFilter::new("info,kube_client::client::builder=off"),
    };
    let format = std::env::var("HOLDFAST_LOG_FORMAT").unwrap_or_else(|_| "text".to_owned());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match format.as_str() {
        "text" => lines.init(),
        "json" => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
        _ => {
            let problem = "no such form".to_owned();
            return Err(Unusable { variable: "HOLDFAST_LOG_FORMAT", found: format, problem, allowed: "text, json" });
        }
    }
    Ok(())
}
