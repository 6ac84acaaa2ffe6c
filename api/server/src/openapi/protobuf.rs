//! The v2 document as a protobuf message: `openapi.v2.Document` of gnostic's OpenAPIv2.proto, which is what Go clients
//! read. Only the messages and fields that our document has are written; each function is one message.
//!
//! Wire format: a field is `number << 3 | type`, then a varint (type 0), eight bytes (1), or length and bytes (2).
//! Values of free form (defaults, enums, extensions) go as YAML text, of which JSON is a part.

use serde_json::{Map, Value};

/// Encodes the document.
pub(super) fn document(v2: &Value) -> Vec<u8> {
    let mut m = Message::default();
    m.text(1, &v2["swagger"]);
    m.message(2, |m| {
        m.text(1, &v2["info"]["title"]);
        m.text(2, &v2["info"]["version"]);
    });
    m.message(8, |m| {
        for (path, item) in entries(&v2["paths"]) {
            m.named(2, path, |m| path_item(m, item));
        }
    });
    m.message(9, |m| named_schemas(m, &v2["definitions"]));
    m.bytes
}

fn path_item(m: &mut Message, item: &Value) {
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(found) = item.get(method) {
            m.message(number, |m| operation(m, found));
        }
    }
    parameters(m, 9, &item["parameters"]);
}

fn operation(m: &mut Message, operation: &Value) {
    m.texts(1, &operation["tags"]);
    m.text(3, &operation["description"]);
    m.text(5, &operation["operationId"]);
    m.texts(6, &operation["produces"]);
    m.texts(7, &operation["consumes"]);
    parameters(m, 8, &operation["parameters"]);
    m.message(9, |m| {
        for (code, answer) in entries(&operation["responses"]) {
            // NamedResponseValue > ResponseValue.response > Response
            m.named(1, code, |m| {
                m.message(1, |m| {
                    m.text(1, &answer["description"]);
                    // SchemaItem.schema
                    m.message(2, |m| m.message(1, |m| schema(m, &answer["schema"])));
                });
            });
        }
    });
    m.texts(10, &operation["schemes"]);
    extensions(m, 13, operation);
}

fn parameters(m: &mut Message, number: u32, list: &Value) {
    for parameter in list.as_array().into_iter().flatten() {
        // ParametersItem.parameter
        m.message(number, |m| m.message(1, |m| one_parameter(m, parameter)));
    }
}

fn one_parameter(m: &mut Message, parameter: &Value) {
    let place = parameter["in"].as_str().unwrap_or_default();
    if place == "body" {
        m.message(1, |m| {
            m.text(1, &parameter["description"]);
            m.text(2, &parameter["name"]);
            m.text(3, &parameter["in"]);
            m.truth(4, &parameter["required"]);
            m.message(5, |m| schema(m, &parameter["schema"]));
        });
        return;
    }
    // NonBodyParameter: the messages for query and path differ in their numbers from the type on.
    let (kind, type_number, unique_number) = if place == "query" { (3, 6, 20) } else { (4, 5, 19) };
    m.message(2, |m| {
        m.message(kind, |m| {
            m.truth(1, &parameter["required"]);
            m.text(2, &parameter["in"]);
            m.text(3, &parameter["description"]);
            m.text(4, &parameter["name"]);
            m.text(type_number, &parameter["type"]);
            m.truth(unique_number, &parameter["uniqueItems"]);
        });
    });
}

fn named_schemas(m: &mut Message, schemas: &Value) {
    for (name, found) in entries(schemas) {
        m.named(1, name, |m| schema(m, found));
    }
}

fn schema(m: &mut Message, s: &Value) {
    m.text(1, &s["$ref"]);
    m.text(2, &s["format"]);
    m.text(3, &s["title"]);
    m.text(4, &s["description"]);
    m.any(5, s.get("default"));
    m.number(6, &s["multipleOf"]);
    m.number(7, &s["maximum"]);
    m.truth(8, &s["exclusiveMaximum"]);
    m.number(9, &s["minimum"]);
    m.truth(10, &s["exclusiveMinimum"]);
    m.count(11, &s["maxLength"]);
    m.count(12, &s["minLength"]);
    m.text(13, &s["pattern"]);
    m.count(14, &s["maxItems"]);
    m.count(15, &s["minItems"]);
    m.truth(16, &s["uniqueItems"]);
    m.count(17, &s["maxProperties"]);
    m.count(18, &s["minProperties"]);
    m.texts(19, &s["required"]);
    for allowed in s["enum"].as_array().into_iter().flatten() {
        m.any(20, Some(allowed));
    }
    match &s["additionalProperties"] {
        Value::Bool(allowed) => m.message(21, |m| m.varint_field(2, u64::from(*allowed))),
        found @ Value::Object(_) => m.message(21, |m| m.message(1, |m| schema(m, found))),
        _ => {}
    }
    if s["type"].is_string() {
        m.message(22, |m| m.text(1, &s["type"]));
    }
    if s["items"].is_object() {
        m.message(23, |m| m.message(1, |m| schema(m, &s["items"])));
    }
    if s["properties"].is_object() {
        m.message(25, |m| named_schemas(m, &s["properties"]));
    }
    m.truth(27, &s["readOnly"]);
    m.any(30, s.get("example"));
    extensions(m, 31, s);
}

fn extensions(m: &mut Message, number: u32, of: &Value) {
    for (name, value) in entries(of).filter(|(name, _)| name.starts_with("x-")) {
        m.named(number, name, |m| m.string(2, &value.to_string()));
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// A message being written.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn key(&mut self, number: u32, wire: u64) {
        self.varint(u64::from(number) << 3 | wire);
    }

    fn varint_field(&mut self, number: u32, value: u64) {
        self.key(number, 0);
        self.varint(value);
    }

    fn block(&mut self, number: u32, block: &[u8]) {
        self.key(number, 2);
        self.varint(block.len() as u64);
        self.bytes.extend_from_slice(block);
    }

    fn string(&mut self, number: u32, text: &str) {
        self.block(number, text.as_bytes());
    }

    fn message(&mut self, number: u32, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.block(number, &inner.bytes);
    }

    /// An entry of a map: name and value.
    fn named(&mut self, number: u32, name: &str, write: impl FnOnce(&mut Message)) {
        self.message(number, |m| {
            m.string(1, name);
            m.message(2, write);
        });
    }

    // The following write nothing if the value is absent or of another type; zero and false are the absence of a field.

    fn text(&mut self, number: u32, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.string(number, text);
        }
    }

    fn texts(&mut self, number: u32, value: &Value) {
        for text in value.as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.string(number, text);
        }
    }

    fn truth(&mut self, number: u32, value: &Value) {
        if value.as_bool() == Some(true) {
            self.varint_field(number, 1);
        }
    }

    fn count(&mut self, number: u32, value: &Value) {
        if let Some(count) = value.as_u64().filter(|count| *count > 0) {
            self.varint_field(number, count);
        }
    }

    fn number(&mut self, number: u32, value: &Value) {
        if let Some(value) = value.as_f64().filter(|value| *value != 0.0) {
            self.key(number, 1);
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// A value of free form, as `Any.yaml`.
    fn any(&mut self, number: u32, value: Option<&Value>) {
        if let Some(value) = value {
            self.message(number, |m| m.string(2, &value.to_string()));
        }
    }
}
