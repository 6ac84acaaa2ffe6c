//! `holdfast agents`: the OCF resource agents of this server, and what one of them takes. Local: no API, no cluster, and
//! nothing is started but the agents' `meta-data`.

use std::thread;
use std::time::Duration;

use holdfast_agent::metadata::{Metadata, Parameter};
use holdfast_agent::resources::ocf::agents::{self, Name};

use crate::args::AgentsDescribeArgs;
use crate::errors::{Failure, Result};
use crate::printer::Printer;

/// Runs `agents list`.
///
/// # Errors
/// When there are none, or the directory can't be read.
pub(crate) fn list(printer: Printer) -> Result {
    let names = agents::list().map_err(|e| Failure::refused(format!("{}/resource.d: {e}", agents::ROOT)))?;
    if names.is_empty() {
        return Err(Failure::refused(format!("there are no OCF agents in {}/resource.d", agents::ROOT))
            .hint("install the package that has them (Debian: resource-agents)"));
    }
    let width = names.iter().map(|name| name.to_string().len()).max().unwrap_or(0);
    let lines: Vec<String> = described(&names)
        .into_iter()
        .map(|(name, metadata)| format!("{:width$}   {}", name.to_string(), about(&metadata)))
        .collect();
    printer.data(&lines.join("\n"))?;
    Ok(())
}

fn about(metadata: &std::result::Result<Metadata, String>) -> String {
    match metadata {
        Err(problem) => format!("can't be used: {problem}"),
        Ok(metadata) if agents::promotable(metadata) => format!("can't be used, promotable: {}", metadata.description),
        Ok(metadata) => metadata.description.clone(),
    }
}

/// Asks all of them, as many at a time as there are processors.
fn described(names: &[Name]) -> Vec<(Name, std::result::Result<Metadata, String>)> {
    let share = names.len().div_ceil(thread::available_parallelism().map_or(1, usize::from)).max(1);
    thread::scope(|scope| {
        let ask = |name: &Name| (name.clone(), agents::describe(name));
        let parts: Vec<_> =
            names.chunks(share).map(|part| scope.spawn(move || part.iter().map(ask).collect::<Vec<_>>())).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_default()).collect()
    })
}

/// Runs `agents describe`.
///
/// # Errors
/// When there is no such agent, or it doesn't say what it is.
pub(crate) fn describe(args: &AgentsDescribeArgs, printer: Printer) -> Result {
    let name = Name::parse(&args.name).map_err(Failure::refused)?;
    let metadata = agents::describe(&name).map_err(Failure::refused)?;
    printer.data(&description(&name, &metadata))?;
    Ok(())
}

fn description(name: &Name, metadata: &Metadata) -> String {
    let mut lines = vec![format!("{name}: {}", metadata.description)];
    if agents::promotable(metadata) {
        lines.push("It is promotable, which this version does not carry out.".to_owned());
    }
    lines.push("\nTimes where a resource gives none:".to_owned());
    for action in ["start", "stop", "monitor"] {
        let proposed = metadata.proposed(action);
        let text = |time: Option<Duration>| time.map_or("not given".to_owned(), |time| format!("{time:?}"));
        let timeout = text(proposed.and_then(|proposed| proposed.timeout));
        let every = proposed.and_then(|proposed| proposed.interval).map(|time| format!(", every {time:?}"));
        lines.push(format!("  {action:8} {timeout}{}", every.unwrap_or_default()));
    }
    lines.push("\nParameters:".to_owned());
    lines.extend(metadata.parameters.iter().map(|(name, parameter)| line(name, parameter)));
    if metadata.parameters.is_empty() {
        lines.push("  none".to_owned());
    }
    lines.join("\n")
}

fn line(name: &str, parameter: &Parameter) -> String {
    let mut notes = Vec::new();
    if parameter.required {
        notes.push("required".to_owned());
    }
    if let Some(default) = parameter.default.as_ref().filter(|default| !default.is_empty()) {
        notes.push(format!("default {default}"));
    }
    if parameter.deprecated {
        notes.push("deprecated".to_owned());
    }
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
    format!("  {name}{notes}: {}", parameter.description)
}
