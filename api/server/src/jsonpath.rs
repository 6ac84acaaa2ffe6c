//! The part of JSONPath that printer columns and selectable fields use: `.a.b`, `['a']`, `[0]`, `[*]`,
//! `[?(@.type=="Ready")]`, with `\.` inside a name. Scripts, slices and recursive descent are not here.

use serde_json::Value;

/// One step of a path.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Where { path: Vec<String>, equal: bool, value: Value },
}

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

/// Why a path can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("JSONPath {path:?} can't be used: {why}")]
pub struct PathError {
    path: String,
    why: String,
}

impl JsonPath {
    /// Parses a path such as `.status.conditions[?(@.type=="Ready")].status`.
    pub fn parse(path: &str) -> Result<JsonPath, PathError> {
        let fail = |why: &str| PathError { path: path.into(), why: why.into() };
        let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let end = closing(inner).ok_or_else(|| fail("a bracket is not closed"))?;
                steps.push(bracket(&inner[..end]).ok_or_else(|| fail("brackets hold something unknown"))?);
                rest = &inner[end + 1..];
            } else {
                let (name, after) = name(rest.strip_prefix('.').unwrap_or(rest));
                match name.as_str() {
                    "" if !after.starts_with('[') => return Err(fail("a name is missing")),
                    "" => {}
                    "*" => steps.push(Step::All),
                    _ => steps.push(Step::Field(name)),
                }
                rest = after;
            }
        }
        Ok(JsonPath(steps))
    }

    /// All values that the path selects.
    pub fn select<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| apply(step, value)).collect();
        }
        found
    }

    /// The first selected value.
    pub fn first<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.select(root).into_iter().next()
    }
}

fn apply<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
        (Step::Index(index), Value::Array(list)) => {
            let at = if *index < 0 { list.len() as i64 + index } else { *index };
            usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
        }
        (Step::All, Value::Array(list)) => list.iter().collect(),
        (Step::All, Value::Object(map)) => map.values().collect(),
        (Step::Where { path, equal, value: wanted }, Value::Array(list)) => list
            .iter()
            .filter(|item| {
                let found = path.iter().try_fold(*item, |at, name| at.get(name));
                found.is_some_and(|found| (found == wanted) == *equal)
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Splits a name off, up to an unescaped `.` or a `[`.
fn name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[at..]),
            _ => name.push(c),
        }
    }
    (name, "")
}

/// Position of the bracket that closes, outside quotes.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = quoted(text) {
        return Some(Step::Field(name));
    }
    if let Some(inner) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        let (left, equal, right) = match (inner.split_once("=="), inner.split_once("!=")) {
            (Some((l, r)), _) => (l, true, r),
            (None, Some((l, r))) => (l, false, r),
            (None, None) => return None,
        };
        let path = left.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
        let right = right.trim();
        let value = match quoted(right) {
            Some(text) => Value::String(text),
            None => serde_json::from_str(right).ok()?,
        };
        return Some(Step::Where { path, equal, value });
    }
    text.parse().ok().map(Step::Index)
}

fn quoted(text: &str) -> Option<String> {
    ['"', '\''].iter().find_map(|q| Some(text.strip_prefix(*q)?.strip_suffix(*q)?.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_find_their_values() {
        let object = json!({
            "metadata": {"labels": {"holdfast.dev/x": "y"}},
            "status": {"conditions": [{"type": "Accepted", "status": "True"}, {"type": "Ready", "status": "False"}], "n": [1, 2]}
        });
        let get =
            |path: &str| JsonPath::parse(path).expect(path).select(&object).into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(get(r#".status.conditions[?(@.type=="Ready")].status"#), [json!("False")]);
        assert_eq!(get(".status.conditions[?(@.type=='Accepted')].status"), [json!("True")]);
        assert_eq!(get(r".metadata.labels.holdfast\.dev/x"), [json!("y")]);
        assert_eq!(get(".metadata.labels['holdfast.dev/x']"), [json!("y")]);
        assert_eq!(get(".status.n[*]"), [json!(1), json!(2)]);
        assert_eq!(get(".status.n[-1]"), [json!(2)]);
        assert!(get(".status.none.deeper").is_empty());
        assert!(JsonPath::parse(".a[").is_err());
    }
}
