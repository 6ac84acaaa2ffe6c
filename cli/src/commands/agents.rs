//! `holdfast agents`: the OCF resource agents of this server, and what one of them takes. Local: no API, no cluster, and
//! nothing is started but the agents' `meta-data`.

use std::collections::BTreeMap;
use std::thread;

use holdfast_agent::metadata::{Metadata, Parameter, Proposed, Type};
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
        .map(|(name, metadata)| format!("{:width$}   {}", name.to_string(), about(&name, &metadata)))
        .collect();
    printer.data(&lines.join("\n"))?;
    Ok(())
}

fn about(name: &Name, metadata: &std::result::Result<Metadata, String>) -> String {
    match metadata {
        Err(problem) => format!("can't be used: {problem}"),
        Ok(metadata) => match agents::unusable(name) {
            Some(why) => format!("can't be used: {why}"),
            None => metadata.description.clone(),
        },
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
    if let Some(why) = agents::unusable(name) {
        lines.push(format!("It can't be used: {why}."));
    } else if agents::promotable(metadata) {
        lines.push("It can be promoted. A group runs it as one plain instance, without roles.".to_owned());
    }
    lines.push("\nTimes where a resource gives none:".to_owned());
    lines.extend(["start", "stop", "monitor"].map(|action| times(action, metadata.proposed(action))));
    let deeper: BTreeMap<u8, &Proposed> = metadata
        .proposed
        .iter()
        .filter(|proposed| proposed.action == "monitor" && proposed.depth > 0)
        .map(|proposed| (proposed.depth, proposed))
        .collect();
    if !deeper.is_empty() {
        lines.push("\nDeeper checks:".to_owned());
        lines.extend(deeper.into_iter().map(|(depth, proposed)| times(&format!("depth {depth}"), Some(proposed))));
    }
    lines.push("\nParameters:".to_owned());
    lines.extend(metadata.parameters.iter().map(|(name, parameter)| line(name, parameter)));
    if metadata.parameters.is_empty() {
        lines.push("  none".to_owned());
    }
    lines.join("\n")
}

fn times(what: &str, proposed: Option<&Proposed>) -> String {
    let timeout = proposed.and_then(|proposed| proposed.timeout).map_or("not given".to_owned(), |t| format!("{t:?}"));
    let every = proposed.and_then(|proposed| proposed.interval).map(|time| format!(", every {time:?}"));
    format!("  {what:8} {timeout}{}", every.unwrap_or_default())
}

fn line(name: &str, parameter: &Parameter) -> String {
    let mut notes = Vec::new();
    if parameter.required {
        notes.push("required".to_owned());
    }
    match parameter.kind {
        Type::Text => {}
        Type::Integer => notes.push("integer".to_owned()),
        Type::Boolean => notes.push("boolean".to_owned()),
        Type::Select => notes.push(parameter.wanted()),
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
