//! Checking, defaulting and pruning by any structural schema, as a stock Kubernetes API server does it.

use holdfast_api::schema::{apply_defaults, evaluate_rules, prune, unknown_fields, validate, validate_structure};
use serde_json::{Value, json};

fn texts(schema: &Value, object: &Value) -> Vec<String> {
    validate_structure(schema, object).iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_go_top_down_and_null_counts_as_absent() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a": {"type": "integer", "default": 1},
        "b": {"type": "object", "default": {"given": "yes"}, "properties": {
            "given": {"type": "string", "default": "no"}, "inner": {"type": "boolean", "default": true}}},
        "c": {"type": "object", "properties": {"d": {"type": "string", "default": "not reached"}}},
        "e": {"type": "string"},
        "f": {"type": "string", "nullable": true, "default": "kept null"},
        "list": {"type": "array", "items": {"type": "object", "properties": {"port": {"type": "integer", "default": 80}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"n": {"type": "integer", "default": 7}}}},
    }}}});
    let mut object = json!({"spec": {"a": null, "e": null, "f": null, "list": [{}, {"port": 1}], "map": {"k": {}}}});
    apply_defaults(&schema, &mut object);
    assert_eq!(
        object,
        json!({"spec": {"a": 1, "b": {"given": "yes", "inner": true}, "f": null, "list": [{"port": 80}, {"port": 1}], "map": {"k": {"n": 7}}}})
    );
}

#[test]
fn unknown_fields_are_found_and_taken_away() {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "known": {"type": "string"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"deep": {"type": "object", "properties": {}}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "manifest": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object", "properties": {}}}},
        }},
    }});
    let object = json!({
        "apiVersion": "v1", "kind": "X", "metadata": {"name": "x", "anything": 1}, "extra": 1,
        "spec": {
            "known": "", "wrong": 1, "free": {"any": {"thing": 1}, "deep": {"not": 1}},
            "list": [{"name": "a"}, {"nam": "b"}], "map": {"any.key": ""},
            "manifest": {"apiVersion": "v1", "kind": "Y", "metadata": {"name": "y"}, "spec": {"no": 1}},
        },
    });
    let expected = ["extra", "spec.free.deep.not", "spec.list[1].nam", "spec.manifest.spec.no", "spec.wrong"];
    assert_eq!(unknown_fields(&schema, &object), expected);
    let mut pruned = object.clone();
    assert_eq!(prune(&schema, &mut pruned), expected);
    assert_eq!(unknown_fields(&schema, &pruned), Vec::<String>::new());
    assert_eq!(pruned["metadata"], object["metadata"]);
    assert_eq!(pruned["spec"]["free"], json!({"any": {"thing": 1}, "deep": {}}));
}

#[test]
fn structure_is_checked_in_full() {
    let schema = json!({"type": "object", "required": ["must"], "properties": {
        "must": {"type": "string"},
        "number": {"type": "integer", "minimum": 1.0, "maximum": 16.0, "multipleOf": 2.0},
        "text": {"type": "string", "minLength": 1, "maxLength": 3, "pattern": "^[a-z]+$"},
        "time": {"type": "string", "format": "date-time"},
        "port": {"x-kubernetes-int-or-string": true},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "kind"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "kind": {"type": "string"}}}},
        "env": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string"}},
        "one": {"type": "object", "oneOf": [{"required": ["x"]}, {"required": ["y"]}]},
        "maybe": {"type": "string", "nullable": true},
    }});
    let object = json!({
        "number": 17, "text": "ABC", "time": "yesterday", "port": true, "set": ["a", "b", "a"],
        "map": [{"name": "a", "kind": "x"}, {"name": "a", "kind": "y"}, {"kind": "x", "name": "a"}],
        "env": {"A": 1, "B": "2"}, "one": {"x": 1, "y": 2}, "maybe": null,
    });
    assert_eq!(
        texts(&schema, &object),
        [
            "must: Required value: must be given",
            "env: Too many: 2 entries: must have at most 1 entries",
            "env.A: Invalid value: 1: must be a string, is a number; write it in quotes",
            "map[2]: Duplicate value: {\"kind\":\"x\",\"name\":\"a\"}: stands at map[0] already; each may be there once",
            "number: Invalid value: 17: must lie in 1..16",
            "number: Invalid value: 17: must be a multiple of 2",
            "one: Invalid value: an object: must fit exactly one of the forms that the schema allows",
            "port: Invalid value: true: must be an integer or a string, is a boolean",
            "set[2]: Duplicate value: \"a\": stands at set[0] already; each may be there once",
            "text: Invalid value: \"ABC\": must match ^[a-z]+$",
            "time: Invalid value: \"yesterday\": must be a time such as 2026-03-01T08:00:00Z",
        ]
    );
    assert!(
        texts(&schema, &json!({"must": "", "number": 16, "text": "abc", "time": "2026-03-01T08:00:00Z", "port": 80}))
            .is_empty()
    );
    assert_eq!(
        texts(&schema, &json!({"must": "", "text": "abcd"})),
        ["text: Too long: \"abcd\": has 4 characters; allowed are 1 to 3"]
    );
}

#[test]
fn rules_know_the_old_entry_of_the_same_key() {
    let schema = json!({"type": "object", "properties": {"list": {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "properties": {"name": {"type": "string"}, "id": {
            "type": "integer", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is fixed"}]}}},
    }}});
    let old = json!({"list": [{"name": "a", "id": 1}, {"name": "b", "id": 2}]});
    let errors = |new: Value| -> Vec<String> {
        evaluate_rules(&schema, &new, Some(&old)).iter().map(ToString::to_string).collect()
    };
    assert!(
        errors(json!({"list": [{"name": "b", "id": 2}, {"name": "new", "id": 9}, {"name": "a", "id": 1}]})).is_empty()
    );
    assert_eq!(errors(json!({"list": [{"name": "b", "id": 1}]})), ["list[0].id: Invalid value: 1: is fixed"]);
}

/// The second rule tells apart what the values below a rule are converted by, a time and a map, from what they are not.
#[test]
fn a_write_is_judged_by_what_it_changes_and_times_and_maps_are_what_they_are() {
    let schema = json!({"type": "object", "properties": {
        "a": {"type": "object", "properties": {"n": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.n < 5", "message": "n is too large"}]},
        "b": {"type": "object",
            "properties": {
                "at": {"type": "string", "format": "date-time"},
                "deep": {"type": "object", "properties": {"map": {"type": "object", "additionalProperties": {"type": "string"}}}},
            },
            "x-kubernetes-validations": [
                {"rule": "self.at < timestamp('2026-01-01T00:00:00Z') && self.deep.map['a-b'] == 'c'", "message": "b is wrong"},
            ]},
    }});
    let object = |n: i32, at: &str| json!({"a": {"n": n}, "b": {"at": at, "deep": {"map": {"a-b": "c"}}}});
    let texts = |new: &Value, old: Option<&Value>| -> Vec<String> {
        evaluate_rules(&schema, new, old).iter().map(|error| error.field.clone()).collect()
    };
    let old = object(9, "2025-12-31T23:00:00-00:30");
    assert_eq!(texts(&old, None), ["a"], "stored before there was the rule");
    assert_eq!(texts(&object(9, "2025-12-01T00:00:00Z"), Some(&old)), Vec::<String>::new());
    assert_eq!(texts(&object(9, "2026-12-01T00:00:00Z"), Some(&old)), ["b"]);
    assert_eq!(texts(&object(8, "2025-12-31T23:00:00-00:30"), Some(&old)), ["a"]);
}

#[test]
fn rules_have_the_libraries_of_kubernetes() {
    let check = |rule: &str, value: Value| -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"v": {"x-kubernetes-validations": [{"rule": rule, "message": "no"}]}}});
        evaluate_rules(&schema, &json!({"v": value}), None).iter().map(ToString::to_string).collect()
    };
    for (rule, good, bad) in [
        ("duration(self) <= duration('1m30s')", json!("90s"), json!("91s")),
        ("isIP(self) && ip(self).family() == 4", json!("10.0.0.1"), json!("::1")),
        ("isCIDR(self)", json!("10.0.0.0/8"), json!("10.0.0.0")),
        ("isURL(self) && url(self).getScheme() == 'https'", json!("https://x"), json!("http://x")),
        ("quantity(self).isLessThan(quantity('2Gi'))", json!("1Gi"), json!("3Gi")),
        ("self.all(x, x.startsWith('a')) && self.isSorted()", json!(["a", "ab"]), json!(["ab", "a"])),
        ("self.find('[0-9]+') == '12'", json!("a12"), json!("a1")),
    ] {
        assert_eq!(check(rule, good), Vec::<String>::new(), "{rule}");
        assert_eq!(check(rule, bad).len(), 1, "{rule}");
    }
    // A rule that can't be judged is never a pass.
    assert!(check("self.missing == 1", json!({}))[0].contains("can't be evaluated"));
    assert!(check("self ===", json!(1))[0].contains("can't be evaluated"));
}

#[test]
fn a_wrong_type_is_told_once() {
    let schema = json!({"type": "object", "properties": {"t": {"type": "string", "maxLength": 8,
        "x-kubernetes-validations": [{"rule": "duration(self) > duration('1s')", "message": "too short"}]}}});
    let errors = validate(&schema, &json!({"t": 5}), None);
    assert_eq!(errors.len(), 1, "{errors:?}");
    // Beyond a bound no rule is evaluated: its cost is known only within.
    assert_eq!(validate(&schema, &json!({"t": "000000000.5s"}), None).len(), 1);
}
