//! The server's tables as text: columns by the widest cell, three spaces between, header in capitals as kubectl has
//! it. Pure; which columns there are and what stands in them is the server's business.

use serde_json::Value;

/// How a table is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Style<'a> {
    /// Also the columns that the server calls less important.
    pub(crate) wide: bool,
    /// A first column with the namespace.
    pub(crate) namespaces: bool,
    /// Put before every name, for tables of several kinds in a row.
    pub(crate) prefix: Option<&'a str>,
    /// Leave the header out.
    pub(crate) rows_only: bool,
}

/// A meta.k8s.io/v1 Table as text; empty when it has no rows.
pub(crate) fn render(table: &Value, style: Style<'_>) -> String {
    let columns: Vec<(usize, &str)> = array(table, "columnDefinitions")
        .iter()
        .enumerate()
        .filter(|(_, column)| style.wide || column.get("priority").and_then(Value::as_i64).unwrap_or(0) == 0)
        .map(|(index, column)| (index, column.get("name").and_then(Value::as_str).unwrap_or("")))
        .collect();
    let mut lines: Vec<Vec<String>> = Vec::new();
    for row in array(table, "rows") {
        let cells = array(row, "cells");
        let mut line = Vec::new();
        if style.namespaces {
            line.push(row.pointer("/object/metadata/namespace").and_then(Value::as_str).unwrap_or("").to_owned());
        }
        for (index, name) in &columns {
            let text = cells.get(*index).map_or_else(String::new, cell);
            let is_name = name.eq_ignore_ascii_case("name");
            line.push(match style.prefix {
                Some(prefix) if is_name => format!("{prefix}/{text}"),
                _ => text,
            });
        }
        lines.push(line);
    }
    if lines.is_empty() {
        return String::new();
    }
    if !style.rows_only {
        let mut header: Vec<String> = columns.iter().map(|(_, name)| name.to_uppercase()).collect();
        if style.namespaces {
            header.insert(0, "NAMESPACE".into());
        }
        lines.insert(0, header);
    }
    align(&lines)
}

/// Columns of text with three spaces between them; the last one is not padded.
pub(crate) fn align(lines: &[Vec<String>]) -> String {
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|column| {
            lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            row.push_str(&format!("{cell:width$}   "));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

fn array<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Value {
        json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Phase"}, {"name": "Message", "priority": 1}],
            "rows": [
                {"cells": ["ledger", "Online", "well"], "object": {"metadata": {"namespace": "ha"}}},
                {"cells": ["x", null, 7], "object": {"metadata": {"namespace": "payments"}}},
            ],
        })
    }

    #[test]
    fn columns_line_up() {
        assert_eq!(render(&table(), Style::default()), "NAME     PHASE\nledger   Online\nx\n");
    }

    #[test]
    fn wide_namespaced_and_prefixed() {
        let style = Style { wide: true, namespaces: true, prefix: Some("fog"), rows_only: true };
        assert_eq!(
            render(&table(), style),
            "ha         fog/ledger   Online   well\npayments   fog/x                 7\n"
        );
    }
}
