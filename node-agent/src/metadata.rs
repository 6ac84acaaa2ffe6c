//! What an agent of another maker says about itself: XML after the resource-agent DTD (ra-api-1.dtd of the OCF Resource
//! Agent API 1.0 and 1.1), which resource agents print for `meta-data` and fence agents for `metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What values of a parameter look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Type {
    /// Anything.
    #[default]
    Text,
    /// An integer, with or without a sign.
    Integer,
    /// A word for yes or no, as the library of resource-agents takes them (`ocf_is_true`).
    Boolean,
    /// One of [`Parameter::options`].
    Select,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parameter {
    /// The agent can't work without it.
    pub required: bool,
    /// Older name of another parameter.
    pub deprecated: bool,
    /// The older name that it replaces.
    pub obsoletes: Option<String>,
    /// One line about it.
    pub description: String,
    /// Its value when none is given.
    pub default: Option<String>,
    /// The values that it takes; empty: any.
    pub options: Vec<String>,
    /// What its values look like, as far as the agent can be believed.
    pub kind: Type,
}

impl Parameter {
    /// What a value should have been, if it is not that. An empty value is none: the agent takes its default.
    pub fn misfit(&self, value: &str) -> Option<String> {
        let value = value.trim();
        let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
        let word = value.to_ascii_lowercase();
        let words = ["yes", "no", "true", "false", "on", "off", "1", "0", "y", "n", "t", "f", "ja", "nein"];
        let fits = match self.kind {
            Type::Text => true,
            Type::Integer => !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()),
            Type::Boolean => words.contains(&word.as_str()),
            Type::Select => self.options.iter().any(|option| option.trim() == value),
        };
        (!fits && !value.is_empty()).then(|| self.wanted())
    }

    /// What it takes, in words; empty for any text.
    pub fn wanted(&self) -> String {
        match self.kind {
            Type::Text => String::new(),
            Type::Integer => "an integer".to_owned(),
            Type::Boolean => "true or false (or yes, no, on, off, 1, 0)".to_owned(),
            Type::Select => format!("one of {}", self.options.join(", ")),
        }
    }
}

/// Times that an agent proposes for one of its actions. An action may have several: by depth of a check, or by role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proposed {
    /// The action.
    pub action: String,
    /// Longest time.
    pub timeout: Option<Duration>,
    /// Time between two; recurring actions have one.
    pub interval: Option<Duration>,
    /// Depth of a check; 0 is the plainest.
    pub depth: u8,
}

/// What an agent is and takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Its own name.
    pub name: String,
    /// One line about it.
    pub description: String,
    /// Parameters by name.
    pub parameters: BTreeMap<String, Parameter>,
    /// Actions.
    pub actions: BTreeSet<String>,
    /// Times of the actions, in the agent's order.
    pub proposed: Vec<Proposed>,
}

impl Metadata {
    /// Reads what the agent printed.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Metadata, String> {
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
        let document = roxmltree::Document::parse_with_options(text.trim_start(), options)
            .map_err(|e| format!("its metadata is no XML: {e}"))?;
        let root = document.root_element();
        if root.tag_name().name() != "resource-agent" {
            return Err(format!("its metadata begins with <{}>, not with <resource-agent>", root.tag_name().name()));
        }
        let mut found = Metadata {
            name: root.attribute("name").unwrap_or_default().to_owned(),
            description: root.attribute("shortdesc").map_or_else(|| child_text(root, "shortdesc"), str::to_owned),
            ..Metadata::default()
        };
        for node in root.descendants() {
            match (node.tag_name().name(), node.attribute("name")) {
                ("parameter", Some(name)) => drop(found.parameters.insert(name.to_owned(), parameter(node))),
                ("action", Some(name)) => {
                    found.actions.insert(name.to_owned());
                    let time = |attribute: &str| node.attribute(attribute).and_then(time);
                    found.proposed.push(Proposed {
                        action: name.to_owned(),
                        timeout: time("timeout"),
                        interval: time("interval"),
                        depth: node.attribute("depth").and_then(|depth| depth.trim().parse().ok()).unwrap_or(0),
                    });
                }
                _ => {}
            }
        }
        if found.actions.is_empty() {
            return Err("its metadata names no actions".to_owned());
        }
        found.doubt_types();
        Ok(found)
    }

    /// Some agents say "integer" of names and host lists (pingd, jboss, rabbitmq-server-ha). Their own defaults give them
    /// away: a type that one default of the agent contradicts is not believed anywhere in that agent.
    fn doubt_types(&mut self) {
        let wrong = |parameter: &Parameter| {
            let default = parameter.default.as_deref().unwrap_or_default();
            parameter.misfit(default).map(|_| parameter.kind)
        };
        let doubtful: BTreeSet<Type> = self.parameters.values().filter_map(wrong).collect();
        for parameter in self.parameters.values_mut() {
            if doubtful.contains(&parameter.kind) {
                parameter.kind = Type::Text;
            }
        }
    }

    /// A check of this depth, with its times.
    pub fn proposed_check(&self, depth: u8) -> Option<&Proposed> {
        self.proposed.iter().find(|proposed| proposed.action == "monitor" && proposed.depth == depth)
    }

    /// The plainest form of an action, with its times.
    pub fn proposed(&self, action: &str) -> Option<&Proposed> {
        self.proposed.iter().filter(|proposed| proposed.action == action).min_by_key(|proposed| proposed.depth)
    }
}

fn parameter(node: roxmltree::Node<'_, '_>) -> Parameter {
    let flag = |name: &str| node.attribute(name).is_some_and(|value| value == "1");
    let content = node.children().find(|child| child.has_tag_name("content"));
    let options: Vec<String> = content
        .iter()
        .flat_map(|content| content.children().filter(|child| child.has_tag_name("option")))
        .filter_map(|option| option.attribute("value"))
        .map(str::to_owned)
        .collect();
    let kind = match content.and_then(|content| content.attribute("type")) {
        Some("integer") => Type::Integer,
        Some("boolean") => Type::Boolean,
        Some("select") if !options.is_empty() => Type::Select,
        _ => Type::Text,
    };
    Parameter {
        kind,
        required: flag("required"),
        deprecated: flag("deprecated"),
        obsoletes: node.attribute("obsoletes").map(str::to_owned),
        description: child_text(node, "shortdesc"),
        default: content.and_then(|content| content.attribute("default")).map(str::to_owned),
        options,
    }
}

/// Text of a child, on one line.
fn child_text(node: roxmltree::Node<'_, '_>, name: &str) -> String {
    let text = node.children().find(|child| child.has_tag_name(name)).and_then(|child| child.text());
    text.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A time as agents write it: seconds, or with a unit (`20s`, `20000ms`, `2min`). None for zero and for anything else:
/// then the agent proposes nothing.
fn time(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit.trim() {
        "" | "s" | "sec" => 1000,
        "ms" | "msec" => 1,
        "m" | "min" => 60_000,
        "h" | "hr" => 3_600_000,
        _ => return None,
    };
    let time = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(milliseconds)?);
    // What the API takes for a timeout; a longer one is a mistake.
    (!time.is_zero() && time <= Duration::from_secs(24 * 3600)).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_unit_that_agents_use() {
        let seconds = |n| Some(Duration::from_secs(n));
        for (text, expected) in [
            ("20s", seconds(20)),
            ("20", seconds(20)),
            ("20000ms", seconds(20)),
            (" 2min", seconds(120)),
            ("1h", seconds(3600)),
            ("0", None),
            ("soon", None),
            ("-3s", None),
            ("99999999999999999999s", None),
            ("999999h", None),
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
    }

    #[test]
    fn the_plainest_check_is_the_one_that_counts() {
        let text = r#"<resource-agent name="X"><shortdesc lang="en">An
            agent</shortdesc><actions><action name="monitor" depth="20" timeout="60" interval="60s"/>
            <action name="monitor" depth="0" timeout="20s" interval="10s"/><action name="start"/></actions></resource-agent>"#;
        let found = Metadata::parse(text).unwrap();
        assert_eq!(found.description, "An agent");
        assert_eq!(found.proposed("monitor").unwrap().interval, Some(Duration::from_secs(10)));
        assert_eq!(found.proposed_check(20).unwrap().timeout, Some(Duration::from_secs(60)));
        assert_eq!(found.proposed_check(10), None);
        assert_eq!(found.proposed("start").unwrap().timeout, None);
        assert_eq!(found.proposed("stop"), None);
    }
}
