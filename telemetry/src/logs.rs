//! Logs of the long-running processes: standard error, one line per event.
//!
//! `HOLDFAST_LOG` chooses what is logged: the syntax of tracing-subscriber's EnvFilter, e.g.
//! `info,holdfast_agent=debug`; default `info`. `HOLDFAST_LOG_FORMAT` chooses the form: `text` (default) for people, `json`
//! for machines: an object per line with `timestamp` (RFC 3339), `level`, `target`, `message` and the fields of the event. Lines
//! of an agent also have `sub_cluster`, those about a group `group` and `epoch`.

use std::fmt;
use std::sync::OnceLock;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The sub-cluster that this process belongs to, once it is known.
static SUB_CLUSTER: OnceLock<String> = OnceLock::new();

/// From here on every line says that it is about this sub-cluster, NAMESPACE/NAME; only the first call counts.
pub fn belongs_to(namespace: &str, sub_cluster: &str) {
    SUB_CLUSTER.get_or_init(|| format!("{namespace}/{sub_cluster}"));
}

/// Lines as `inner` writes them, with the sub-cluster.
struct Belonging<E> {
    inner: E,
    json: bool,
}

impl<S, N, E> FormatEvent<S, N> for Belonging<E>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    E: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(sub_cluster) = SUB_CLUSTER.get() else { return self.inner.format_event(context, writer, event) };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&with_sub_cluster(&line, sub_cluster, self.json))
    }
}

/// Names have neither quotes nor backslashes.
fn with_sub_cluster(line: &str, sub_cluster: &str, json: bool) -> String {
    match line.strip_prefix('{').filter(|_| json) {
        Some(rest) => format!("{{\"sub_cluster\":\"{sub_cluster}\",{rest}"),
        None => format!("{} sub_cluster={sub_cluster}\n", line.trim_end_matches('\n')),
    }
}

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
        "text" => lines.map_event_format(|inner| Belonging { inner, json: false }).init(),
        "json" => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .map_event_format(|inner| Belonging { inner, json: true })
            .init(),
        _ => {
            let problem = "no such form".to_owned();
            return Err(Unusable { variable: "HOLDFAST_LOG_FORMAT", found: format, problem, allowed: "text, json" });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_which_sub_cluster_it_is_about() {
        assert_eq!(
            with_sub_cluster("INFO: up group=web\n", "ha/shop", false),
            "INFO: up group=web sub_cluster=ha/shop\n"
        );
        let json = with_sub_cluster("{\"level\":\"INFO\"}\n", "ha/shop", true);
        assert_eq!(json, "{\"sub_cluster\":\"ha/shop\",\"level\":\"INFO\"}\n");
    }
}
