//! Logs of the long-running processes: standard error, one line per event.
//!
//! `HOLDFAST_LOG` chooses what is logged: the syntax of tracing-subscriber's EnvFilter, e.g.
//! `info,holdfast_agent=debug`; default `info`. `HOLDFAST_LOG_FORMAT` chooses the form: `text` (default) for people, `json`
//! for machines: an object per line with `timestamp` (RFC 3339), `level`, `target`, `message` and the fields of the event. Lines
//! of an agent also have `sub_cluster`, those about a group `group`, `epoch`, and `operation`: on whose behalf the group is
//! where it is, an Operation or `SERVER:NUMBER` for a command on a server, empty for nobody's (`text` leaves it out then).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{OnceLock, PoisonError, RwLock};

use tracing::field::{Field, Visit};
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

/// What was said about a group last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// In which epoch.
    pub epoch: u64,
    /// On whose behalf; empty: nobody's.
    pub operation: String,
}

/// The groups that are known, by name.
static GROUPS: RwLock<BTreeMap<String, Standing>> = RwLock::new(BTreeMap::new());

/// From here on a line with a field `group` says this of it, unless it says something itself.
pub fn groups_stand(groups: BTreeMap<String, Standing>) {
    *GROUPS.write().unwrap_or_else(PoisonError::into_inner) = groups;
}

/// What was said about a group last, if it is known.
pub fn standing(group: &str) -> Option<Standing> {
    GROUPS.read().unwrap_or_else(PoisonError::into_inner).get(group).cloned()
}

/// What a line says of its group.
#[derive(Default)]
struct Said {
    group: String,
    epoch: bool,
    operation: bool,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "group" {
            value.clone_into(&mut self.group);
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "group" => self.group = format!("{value:?}"),
            "epoch" => self.epoch = true,
            "operation" => self.operation = true,
            _ => {}
        }
    }
}

/// The fields that are to be added to a line: name, value, and whether the value is a number.
fn missing(said: &Said, standing: Option<&Standing>, sub_cluster: Option<&str>) -> Vec<(&'static str, String, bool)> {
    let standing = standing.filter(|_| !said.group.is_empty());
    let epoch = standing.filter(|_| !said.epoch).map(|standing| ("epoch", standing.epoch.to_string(), true));
    let operation =
        standing.filter(|_| !said.operation).map(|standing| ("operation", standing.operation.clone(), false));
    let sub_cluster = sub_cluster.map(|name| ("sub_cluster", name.to_owned(), false));
    epoch.into_iter().chain(operation).chain(sub_cluster).collect()
}

/// Lines as `inner` writes them, with the sub-cluster, and with what is known of the group that they are about.
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
        let mut said = Said::default();
        event.record(&mut said);
        let more = missing(&said, standing(&said.group).as_ref(), SUB_CLUSTER.get().map(String::as_str));
        if more.is_empty() {
            return self.inner.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&with_fields(&line, &more, self.json))
    }
}

/// Names have neither quotes nor backslashes.
fn with_fields(line: &str, fields: &[(&str, String, bool)], json: bool) -> String {
    if let Some(rest) = line.strip_prefix('{').filter(|_| json) {
        let quoted = fields.iter().map(|(name, value, number)| match number {
            true => format!("\"{name}\":{value},"),
            false => format!("\"{name}\":\"{value}\","),
        });
        return format!("{{{}{rest}", quoted.collect::<String>());
    }
    let told = fields.iter().filter(|(_, value, _)| !value.is_empty());
    let plain: String = told.map(|(name, value, _)| format!(" {name}={value}")).collect();
    format!("{}{plain}\n", line.trim_end_matches('\n'))
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
    fn a_line_says_which_sub_cluster_it_is_about_and_what_was_said_of_its_group() {
        let standing = Standing { epoch: 7, operation: "move-1".into() };
        let about = Said { group: "web".into(), ..Said::default() };
        let all = missing(&about, Some(&standing), Some("ha/shop"));
        assert_eq!(
            with_fields("INFO: up group=web\n", &all, false),
            "INFO: up group=web epoch=7 operation=move-1 sub_cluster=ha/shop\n"
        );
        assert_eq!(
            with_fields("{\"level\":\"INFO\"}\n", &all, true),
            "{\"epoch\":7,\"operation\":\"move-1\",\"sub_cluster\":\"ha/shop\",\"level\":\"INFO\"}\n"
        );
        // What a line says itself is not said twice, and nothing is made up about what is no group's.
        let itself = Said { epoch: true, operation: true, ..about };
        assert_eq!(missing(&itself, Some(&standing), None), []);
        assert_eq!(missing(&Said::default(), Some(&standing), None), []);
        let nobody = Standing { operation: String::new(), ..standing };
        let all = missing(&Said { group: "web".into(), ..Said::default() }, Some(&nobody), None);
        assert_eq!(with_fields("INFO: up\n", &all, false), "INFO: up epoch=7\n");
        assert_eq!(with_fields("{\"a\":1}\n", &all, true), "{\"epoch\":7,\"operation\":\"\",\"a\":1}\n");
    }
}
