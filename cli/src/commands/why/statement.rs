//! One sentence of an answer, and how all of them are drawn.

use holdfast_api::v1::ChartStep;
use serde::Serialize;

use crate::commands::table::align;

/// What a statement answers. In the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Topic {
    /// How things stand.
    Now,
    /// Why it is so.
    Here,
    /// Why not on another server.
    NotElsewhere,
    /// Why it moved or changed last.
    Last,
    /// What would change it.
    Change,
}

impl Topic {
    fn title(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Here => "why",
            Self::NotElsewhere => "why not elsewhere",
            Self::Last => "what happened last",
            Self::Change => "what would change it",
        }
    }
}

/// One thing that is so, in a sentence.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Statement {
    pub(super) topic: Topic,
    /// The server that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<String>,
    /// The sentence.
    pub(super) text: String,
    /// What to type to have it so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<String>,
    /// What took how long.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) chart: Vec<ChartStep>,
}

impl Statement {
    pub(super) fn new(topic: Topic, text: impl Into<String>) -> Statement {
        Statement { topic, server: None, text: text.into(), command: None, chart: Vec::new() }
    }

    pub(super) fn about(mut self, server: &str) -> Statement {
        self.server = Some(server.to_owned());
        self
    }

    pub(super) fn command(mut self, command: impl Into<String>) -> Statement {
        self.command = Some(command.into());
        self
    }
}

/// The whole answer for people.
pub(super) fn text(title: &str, statements: &[Statement]) -> String {
    let mut text = format!("{title}\n");
    let mut last = None;
    let mut sorted: Vec<&Statement> = statements.iter().collect();
    sorted.sort_by_key(|statement| statement.topic);
    for statement in sorted {
        if last != Some(statement.topic) {
            text.push_str(&format!("{}\n", statement.topic.title()));
            last = Some(statement.topic);
        }
        let server = match (&statement.server, statement.topic) {
            (Some(server), Topic::NotElsewhere) => format!("{server}: "),
            _ => String::new(),
        };
        text.push_str(&format!("  {server}{}\n", statement.text));
        let step = |step: &ChartStep| vec![step.step.clone(), format!("at {}", step.at), format!("took {}", step.took)];
        let chart: Vec<Vec<String>> = statement.chart.iter().map(step).collect();
        for line in align(&chart).lines() {
            text.push_str(&format!("    {line}\n"));
        }
        if let Some(command) = &statement.command {
            text.push_str(&format!("    {command}\n"));
        }
    }
    text
}
