//! Events in their two spellings: stored as core/v1, shown also as events.k8s.io/v1.

use serde_json::{Map, Value, json};

/// Pairs of core name and newer name with the same content.
const RENAMED: &[(&str, &str)] = &[
    ("message", "note"),
    ("involvedObject", "regarding"),
    ("source", "deprecatedSource"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("reportingComponent", "reportingController"),
];

/// core/v1 → events.k8s.io/v1.
pub(crate) fn to_view(core: &Value) -> Value {
    convert(core, "events.k8s.io/v1", |name| RENAMED.iter().find(|(core, _)| *core == name).map(|(_, view)| *view))
}

/// events.k8s.io/v1 → core/v1.
pub(crate) fn to_core(view: Value) -> Value {
    convert(&view, "v1", |name| RENAMED.iter().find(|(_, view)| *view == name).map(|(core, _)| *core))
}

/// Renames fields; those of neither form are kept, so that they can be reported as unknown.
fn convert(from: &Value, api_version: &str, rename: impl Fn(&str) -> Option<&'static str>) -> Value {
    let mut out = Map::new();
    for (name, value) in from.as_object().into_iter().flatten() {
        out.insert(rename(name).unwrap_or(name).to_owned(), value.clone());
    }
    out.insert("apiVersion".into(), api_version.into());
    Value::Object(out)
}

/// Completes a stored (core) Event on creation: what old readers look for is filled from the newer fields.
pub(crate) fn complete(event: &mut Value) {
    let Some(fields) = event.as_object_mut() else { return };
    let empty = |value: Option<&Value>| value.is_none_or(|v| v.is_null() || v == "" || *v == json!({}));
    if empty(fields.get("source")) {
        match fields.get("reportingComponent").cloned() {
            Some(component) if component != "" => fields.insert("source".into(), json!({ "component": component })),
            _ => fields.remove("source"),
        };
    }
    let controller = fields.get("source").and_then(|s| s.get("component")).cloned();
    if let (true, Some(component)) = (empty(fields.get("reportingComponent")), controller) {
        fields.insert("reportingComponent".into(), component);
    }
    // `kubectl describe` and `kubectl get events` look at these two for the time and the count.
    if let (true, Some(time)) = (empty(fields.get("firstTimestamp")), fields.get("eventTime").and_then(seconds)) {
        fields.insert("firstTimestamp".into(), time.into());
    }
    let last = fields.get("series").and_then(|s| s.get("lastObservedTime")).or(fields.get("eventTime"));
    if let (true, Some(time)) = (empty(fields.get("lastTimestamp")), last.and_then(seconds)) {
        fields.insert("lastTimestamp".into(), time.into());
    }
    if empty(fields.get("count")) {
        let count = fields.get("series").and_then(|s| s.get("count")).cloned().unwrap_or(1.into());
        fields.insert("count".into(), count);
    }
}

/// A time with microseconds, cut to whole seconds.
fn seconds(time: &Value) -> Option<String> {
    let time: jiff::Timestamp = time.as_str()?.parse().ok()?;
    Some(crate::object::rfc3339(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_keep_every_field_both_ways() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "ha"},
            "involvedObject": {"kind": "Server", "name": "db.db1"}, "reason": "PathDown", "message": "ic is silent",
            "type": "Warning", "count": 3, "firstTimestamp": "2026-03-02T01:00:00Z",
            "lastTimestamp": "2026-03-02T01:01:00Z", "source": {"component": "holdfast"},
            "reportingComponent": "holdfast", "reportingInstance": "db1", "action": "Report"
        });
        let view = to_view(&core);
        assert_eq!(view["note"], "ic is silent");
        assert_eq!(view["regarding"]["name"], "db.db1");
        assert_eq!(view["deprecatedCount"], 3);
        assert_eq!(to_core(view), core);
    }

    #[test]
    fn new_style_events_get_the_times_that_old_readers_show() {
        let mut event = json!({"eventTime": "2026-03-02T01:00:00.123456Z", "reportingComponent": "holdfast"});
        complete(&mut event);
        assert_eq!(event["firstTimestamp"], "2026-03-02T01:00:00Z");
        assert_eq!(event["source"]["component"], "holdfast");
        assert_eq!(event["count"], 1);
    }
}
