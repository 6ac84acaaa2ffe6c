//! `holdfast delete`: asks for deletion and waits until the objects are gone. What may be deleted is the server's
//! decision; finalizers may take their time, for a running group until it has stopped.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use crate::args::DeleteArgs;
use crate::client::Api;
use crate::commands::get::split;
use crate::errors::{Failure, Result};
use crate::manifest;
use crate::printer::Printer;

/// How often it looks whether an object is gone.
const LOOK: Duration = Duration::from_millis(200);
/// After this time it says what it waits for.
const PATIENCE: Duration = Duration::from_secs(3);

/// An object to delete.
struct Victim {
    label: String,
    path: String,
}

/// Runs the command.
///
/// # Errors
/// What the server answers; an object that is not there, unless that is to be ignored.
pub(crate) async fn run(args: DeleteArgs, printer: Printer) -> Result {
    let api = Api::connect(&args.client).await?;
    let victims = victims(&api, &args).await?;
    let mut waiting = Vec::new();
    for victim in victims {
        let Some(live) = api.find(&victim.path).await? else {
            if args.ignore_not_found {
                continue;
            }
            return Err(Failure::refused(format!("{} is not there", victim.label))
                .hint("--ignore-not-found makes that no error"));
        };
        let _: Value =
            api.send(Method::DELETE, &victim.path, None).await.map_err(|error| error.context(victim.label.clone()))?;
        let uid = live.pointer("/metadata/uid").cloned();
        waiting.push((victim, uid));
    }
    for (victim, uid) in waiting {
        if !args.no_wait {
            wait_until_gone(&api, &victim, uid.as_ref(), printer).await?;
        }
        printer.data(&format!("{} deleted", victim.label))?;
    }
    Ok(())
}

async fn victims(api: &Api, args: &DeleteArgs) -> Result<Vec<Victim>> {
    let kinds = api.kinds().await?;
    let mut victims = Vec::new();
    if let Some(word) = &args.kind {
        let (word, names) = split(word, &args.names)?;
        let found = kinds.called(&word)?;
        let [kind] = found.as_slice() else {
            return Err(Failure::refused(format!("{word} is {} kinds; delete takes one", found.len())));
        };
        if names.is_empty() {
            return Err(Failure::refused("no name given").hint(format!("holdfast delete {word} NAME…")));
        }
        for name in names {
            victims.push(Victim {
                label: format!("{}/{name}", kind.full_name()),
                path: kind.path(Some(api.namespace()), Some(&name)),
            });
        }
        return Ok(victims);
    }
    for manifest in manifest::load(&args.files)? {
        let kind = kinds.of_manifest(manifest.api_version()?, manifest.kind()?)?;
        let Some(name) = manifest.name() else {
            return Err(Failure::refused(format!(
                "{}: {}: an object with generateName only can't be deleted by its manifest",
                manifest.source,
                manifest.label()
            )));
        };
        let namespace = manifest.namespace().unwrap_or(api.namespace());
        victims.push(Victim {
            label: format!("{}/{name}", kind.full_name()),
            path: kind.path(Some(namespace), Some(name)),
        });
    }
    // What was made last goes first: groups before their sub-cluster, everything before its namespace.
    victims.reverse();
    Ok(victims)
}

async fn wait_until_gone(api: &Api, victim: &Victim, uid: Option<&Value>, printer: Printer) -> Result {
    let start = tokio::time::Instant::now();
    let mut said = false;
    loop {
        match api.find(&victim.path).await? {
            None => return Ok(()),
            // Gone, and another one has its name.
            Some(live) if live.pointer("/metadata/uid") != uid => return Ok(()),
            Some(live) if !said && start.elapsed() > PATIENCE => {
                said = true;
                printer.note(format!("{}: waiting for {}", victim.label, reason(&live)));
            }
            Some(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Why an object that is being deleted is still there.
fn reason(live: &Value) -> String {
    let conditions = live.pointer("/status/conditions").and_then(Value::as_array);
    let blocked = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.get("type").is_some_and(|kind| kind == "DeletionBlocked"));
    if let Some(message) = blocked.and_then(|condition| condition.get("message")).and_then(Value::as_str) {
        return message.to_owned();
    }
    match live.pointer("/metadata/finalizers") {
        Some(Value::Array(list)) => {
            format!("the finalizers {}", list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "))
        }
        _ => "the server".to_owned(),
    }
}
