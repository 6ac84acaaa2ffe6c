//! Answers in other shapes: Tables for people and PartialObjectMetadata for metadata clients. Pure; the time is an
//! argument.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::error::{ApiError, ApiResult};
use crate::registry::{Column, ResourceDef};

/// What a row carries beside its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    /// Metadata only.
    Metadata,
    /// The whole object.
    Object,
    /// Nothing.
    None,
}

impl Include {
    /// Reads the query parameter `includeObject`.
    pub(crate) fn parse(text: Option<&str>) -> ApiResult<Include> {
        match text {
            None | Some("" | "Metadata") => Ok(Include::Metadata),
            Some("Object") => Ok(Include::Object),
            Some("None") => Ok(Include::None),
            Some(other) => {
                Err(ApiError::bad_request(format!("includeObject: {other:?} is unknown; use None, Metadata or Object")))
            }
        }
    }
}

/// A Table with one row per object. `metadata` is that of the list.
pub(crate) fn table(
    def: &ResourceDef,
    metadata: Value,
    objects: &[Value],
    include: Include,
    headings: bool,
    now: Timestamp,
) -> Value {
    let columns = if headings { columns(def) } else { Value::Null };
    let rows: Vec<Value> = objects.iter().map(|object| row(def, object, include, now)).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": if headings { columns } else { json!([]) }, "rows": rows,
    })
}

fn columns(def: &ResourceDef) -> Value {
    let first = json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name of the object, unique within its namespace.",
    });
    // A kind's own column `Name` (Events have one) would be a second one with the same heading.
    let own = def.columns.iter().map(|column| {
        json!({
            "name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    });
    std::iter::once(first).chain(own).collect()
}

fn row(def: &ResourceDef, object: &Value, include: Include, now: Timestamp) -> Value {
    let name = object.pointer("/metadata/name").cloned().unwrap_or(Value::Null);
    let cells: Vec<Value> = std::iter::once(name).chain(def.columns.iter().map(|c| cell(c, object, now))).collect();
    let mut row = Map::new();
    row.insert("cells".into(), cells.into());
    match include {
        Include::Metadata => row.insert("object".into(), metadata_only(object)),
        Include::Object => row.insert("object".into(), object.clone()),
        Include::None => None,
    };
    Value::Object(row)
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    // An Event's object is shown the way kubectl users write it.
    if column.name == "Object" && object["kind"] == "Event" {
        let about = object.get("involvedObject").or(object.get("regarding")).unwrap_or(&Value::Null);
        let text = |field: &str| about[field].as_str().unwrap_or_default().to_owned();
        return format!("{}/{}", text("kind").to_lowercase(), text("name")).into();
    }
    let found = column.path.select(object);
    let first = found.first().copied().unwrap_or(&Value::Null);
    match (column.kind.as_str(), first) {
        (_, Value::Null) => Value::Null,
        ("date", Value::String(time)) => match time.parse::<Timestamp>() {
            Ok(time) => age(time, now).into(),
            Err(_) => "<invalid>".into(),
        },
        ("integer" | "number", Value::Number(_)) | ("boolean", Value::Bool(_)) => first.clone(),
        ("integer" | "number" | "boolean" | "date", _) => Value::Null,
        _ => found.iter().map(|value| text(value)).collect::<Vec<_>>().join(",").into(),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A time as an age the way kubectl prints it: two units at most, coarser with growing age.
pub(crate) fn age(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - time.as_second();
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small}{small_unit}"),
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..-1 => "<invalid>".into(),
        -1..0 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// An object reduced to its metadata.
pub(crate) fn metadata_only(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_default(),
    })
}

/// A list reduced to metadata.
pub(crate) fn metadata_list(metadata: Value, objects: &[Value]) -> Value {
    json!({
        "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "items": objects.iter().map(metadata_only).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_printed_like_kubectl_does() {
        let now: Timestamp = "2026-03-10T12:00:00Z".parse().expect("a time");
        for (time, expected) in [
            ("2026-03-10T11:59:55Z", "5s"),
            ("2026-03-10T11:58:01Z", "119s"),
            ("2026-03-10T11:55:00Z", "5m"),
            ("2026-03-10T11:54:30Z", "5m30s"),
            ("2026-03-10T11:00:00Z", "60m"),
            ("2026-03-10T08:30:00Z", "3h30m"),
            ("2026-03-07T09:00:00Z", "3d3h"),
            ("2026-01-10T12:00:00Z", "59d"),
            ("2026-03-10T12:10:00Z", "<invalid>"),
        ] {
            assert_eq!(age(time.parse().expect("a time"), now), expected);
        }
    }
}
