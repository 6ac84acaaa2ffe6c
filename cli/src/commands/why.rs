//! `holdfast why`: why a group is where it is and not elsewhere, why it moved last, why a server is as it is, and what would
//! change that. `group` and `server` make statements of what the objects report; `statement` draws them.

mod group;
mod server;
mod statement;
#[cfg(test)]
mod tests;
mod words;

use holdfast_api::v1::{FailoverGroup, Server, SubCluster};
use serde_json::json;

use super::operation::object_name;
use crate::args::{WhyArgs, WhyOutput};
use crate::client::Api;
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Group(String),
    Server(String),
}

/// Reads `group/NAME` or `server/NAME`.
fn subject(text: &str) -> Result<Subject> {
    let wrong = || {
        Failure::refused(format!("{text:?} is neither a group nor a server"))
            .hint("write group/NAME (or fog/NAME), or server/SUBCLUSTER.SERVER (or hsrv/…)")
    };
    let (kind, name) = text.split_once('/').filter(|(_, name)| !name.is_empty()).ok_or_else(wrong)?;
    match kind {
        "group" | "fog" | "failovergroup" | "failovergroups" => Ok(Subject::Group(name.to_owned())),
        "server" | "hsrv" | "servers" => Ok(Subject::Server(name.to_owned())),
        _ => Err(wrong()),
    }
}

/// Runs the command.
///
/// # Errors
/// When the object does not exist, or the API server can't be reached or refuses.
pub(crate) async fn run(args: WhyArgs, printer: Printer) -> Result {
    let subject = subject(&args.object)?;
    let api = Api::connect(&args.client).await?;
    let (title, statements) = match &subject {
        Subject::Group(name) => {
            let group: FailoverGroup = read(&api, "failovergroups", "FailoverGroup", name).await?;
            let sub: SubCluster = read(&api, "subclusters", "SubCluster", &group.spec.sub_cluster).await?;
            (format!("group {}/{name}", api.namespace()), group::why(&group, &sub))
        }
        Subject::Server(given) => {
            let name = object_name(&api, given).await?;
            let server: Server = read(&api, "servers", "Server", &name).await?;
            let sub: SubCluster = read(&api, "subclusters", "SubCluster", &server.spec.sub_cluster).await?;
            (format!("server {}/{name}", api.namespace()), server::why(&server, &sub))
        }
    };
    match args.output {
        Some(WhyOutput::Json) => {
            let all = json!({"about": title, "statements": statements});
            printer.data(&serde_json::to_string_pretty(&all).map_err(anyhow::Error::from)?)
        }
        None => printer.data(&statement::text(&title, &statements)),
    }
}

async fn read<T: serde::de::DeserializeOwned>(api: &Api, plural: &str, kind: &str, name: &str) -> Result<T> {
    let namespace = api.namespace();
    let path = format!("/apis/{}/namespaces/{namespace}/{plural}/{name}", holdfast_api::API_VERSION);
    let found = api.find(&path).await?.ok_or_else(|| {
        Failure::refused(format!("there is no {kind} {name} in the namespace {namespace}"))
            .hint(format!("holdfast get {plural} -A shows all there are"))
    })?;
    serde_json::from_value(found)
        .map_err(|error| Failure::refused(format!("{kind} {namespace}/{name} can't be understood: {error}")))
}
