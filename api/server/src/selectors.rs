//! Label and field selectors: parsing and matching. Pure; which fields a kind allows is the registry's knowledge.

use std::collections::BTreeSet;

use serde_json::Value;

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Label {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

/// A parsed `labelSelector`; the empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Label>);

impl LabelSelector {
    /// Parses the syntax of `labelSelector`: `a=b,c!=d,e in (f,g),!h,i>3`.
    pub(crate) fn parse(text: &str) -> Result<LabelSelector, String> {
        let fail =
            |part: &str, why: &str| format!("unable to parse requirement {part:?} of labelSelector {text:?}: {why}");
        let mut requirements = Vec::new();
        for part in split(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    continue;
                }
                return Err(fail(part, "it is empty"));
            }
            let requirement = requirement(part).map_err(|why| fail(part, &why))?;
            requirements.push(requirement);
        }
        Ok(LabelSelector(requirements))
    }

    /// True if nothing is filtered.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if an object's labels fulfil every requirement.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let get = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
        self.0.iter().all(|requirement| match requirement {
            Label::In(key, values) => get(key).is_some_and(|v| values.contains(v)),
            Label::NotIn(key, values) => get(key).is_none_or(|v| !values.contains(v)),
            Label::Exists(key) => get(key).is_some(),
            Label::Absent(key) => get(key).is_none(),
            Label::Greater(key, bound) => get(key).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *bound),
            Label::Less(key, bound) => get(key).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *bound),
        })
    }
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth <= 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(part: &str) -> Result<Label, String> {
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Label::Absent(label_key(key)?));
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Label::NotIn(label_key(key)?, [label_value(value)?].into()));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Label::In(label_key(key)?, [label_value(value)?].into()));
    }
    if let Some((key, value)) = part.split_once('>') {
        return Ok(Label::Greater(label_key(key)?, integer(value)?));
    }
    if let Some((key, value)) = part.split_once('<') {
        return Ok(Label::Less(label_key(key)?, integer(value)?));
    }
    if let Some((head, set)) = part.split_once('(') {
        let set = set.trim().strip_suffix(')').ok_or("the set is not closed by ')'")?;
        let values = set.split(',').map(label_value).collect::<Result<BTreeSet<_>, _>>()?;
        return match head.split_whitespace().collect::<Vec<_>>()[..] {
            [key, "in"] => Ok(Label::In(label_key(key)?, values)),
            [key, "notin"] => Ok(Label::NotIn(label_key(key)?, values)),
            _ => Err("expected 'key in (…)' or 'key notin (…)'".into()),
        };
    }
    Ok(Label::Exists(label_key(part)?))
}

fn integer(text: &str) -> Result<i64, String> {
    text.trim().parse().map_err(|_| format!("{:?} is not an integer", text.trim()))
}

fn label_key(text: &str) -> Result<String, String> {
    let key = text.trim();
    match crate::names::qualified_name(key) {
        Ok(()) => Ok(key.to_owned()),
        Err(why) => Err(format!("key {key:?}: {why}")),
    }
}

fn label_value(text: &str) -> Result<String, String> {
    let value = text.trim();
    match crate::names::label_value(value) {
        Ok(()) => Ok(value.to_owned()),
        Err(why) => Err(format!("value {value:?}: {why}")),
    }
}

/// A parsed `fieldSelector`: field, whether it must be equal, value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector(Vec<(String, bool, String)>);

impl FieldSelector {
    /// Parses `a=b,c!=d`, with `\,`, `\=` and `\\` in values.
    pub(crate) fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut requirements = Vec::new();
        for part in split_escaped(text) {
            if part.is_empty() {
                continue;
            }
            let (field, equal, value) = match part.find('=') {
                Some(at) if part[..at].ends_with('!') => (&part[..at - 1], false, &part[at + 1..]),
                Some(at) => (&part[..at], true, part[at + 1..].strip_prefix('=').unwrap_or(&part[at + 1..])),
                None => return Err(format!("invalid field selector {text:?}: {part:?} has no '=', '==' or '!='")),
            };
            requirements.push((field.trim().to_owned(), equal, unescape(value)));
        }
        Ok(FieldSelector(requirements))
    }

    /// True if nothing is filtered.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields that are asked for.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(field, ..)| field.as_str())
    }

    /// The value that `field` must have, if one is demanded.
    pub(crate) fn exact(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|(f, equal, _)| *equal && f == field).map(|(_, _, value)| value.as_str())
    }

    /// True if `value_of` gives fitting values for all fields.
    pub(crate) fn matches(&self, value_of: impl Fn(&str) -> String) -> bool {
        self.0.iter().all(|(field, equal, value)| (value_of(field) == *value) == *equal)
    }
}

fn split_escaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_match_as_documented() {
        let object = json!({"metadata": {"labels": {"app": "db", "tier": "2"}}});
        for (selector, expected) in [
            ("", true),
            ("app=db", true),
            ("app==db,tier=2", true),
            ("app!=db", false),
            ("other!=x", true),
            ("app in (db, web)", true),
            ("app notin (web)", true),
            ("missing notin (web)", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("tier>1", true),
            ("tier<2", false),
            ("app in (a),tier", false),
        ] {
            assert_eq!(LabelSelector::parse(selector).expect(selector).matches(&object), expected, "{selector}");
        }
        for bad in ["a in b", "a=b,,c", "a in (b", "-x=1", "a=b c", "a>x"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors_know_escapes_and_negation() {
        let selector = FieldSelector::parse(r"metadata.name=a\,b,spec.x!=1,y==2").expect("valid");
        let value = |field: &str| match field {
            "metadata.name" => "a,b".to_owned(),
            "y" => "2".to_owned(),
            _ => String::new(),
        };
        assert!(selector.matches(value));
        assert_eq!(selector.exact("metadata.name"), Some("a,b"));
        assert!(FieldSelector::parse("nonsense").is_err());
    }
}
