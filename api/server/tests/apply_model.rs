//! Server-side apply against a plain model: an object is a set of places with values, an owner a set of places.
//!
//! The model knows nothing of trees, schemas or the server's code. Random applies (forced or not) and replacements by
//! several managers, on the object and its status, must give what it gives: values, owners, conflicts.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};
use support::{Reply, World};

const THINGS: &str = "/apis/test.dev/v1/namespaces/default/things";

/// The kind: one field of every sort that merging tells apart.
fn definition() -> Value {
    let text = json!({"type": "string"});
    let number = json!({"type": "integer"});
    let spec = json!({"type": "object", "properties": {
        "text": text, "number": number,
        "box": {"type": "object", "properties": {"x": text, "inner": {"type": "object", "properties": {"z": text}}}},
        "map": {"type": "object", "additionalProperties": text},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": text},
        "atomic": {"type": "array", "items": text, "x-kubernetes-list-type": "atomic"},
        "set": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
            "type": "object", "required": ["name"], "properties": {"name": text, "u": number, "v": number}}},
    }});
    let status = json!({"type": "object", "properties": {"seen": text}});
    json!({"spec": {
        "group": "test.dev", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}}}],
    }})
}

/// A place, as a conflict names it.
type Place = &'static str;

const PLACES: &[Place] = &[
    ".spec.text",
    ".spec.number",
    ".spec.box.x",
    ".spec.box.inner.z",
    ".spec.map.k",
    ".spec.map.l",
    ".spec.whole",
    ".spec.atomic",
    ".spec.set[=\"m\"]",
    ".spec.set[=\"n\"]",
    ".spec.list[name=\"i\"]",
    ".spec.list[name=\"i\"].u",
    ".spec.list[name=\"i\"].v",
    ".spec.list[name=\"j\"]",
    ".spec.list[name=\"j\"].u",
];
const SEEN: Place = ".status.seen";

/// The item that a place is in, none outside of the list.
fn item_of(place: Place) -> Option<Place> {
    let end = place.find("].")?;
    PLACES.iter().copied().find(|other| *other == &place[..=end])
}

/// Members of sets and items are there or not; everything else has a value.
fn has_value(place: Place) -> bool {
    !place.ends_with(']')
}

/// Values by place. The number stands for the value; 0 where there is none.
type State = BTreeMap<Place, u8>;

/// A state in which items stand for all their leaves, and what is no value is 0.
fn closed(picked: &BTreeMap<usize, u8>) -> State {
    let mut state = State::new();
    for (at, value) in picked {
        let place = PLACES[*at];
        state.insert(place, if has_value(place) { *value } else { 0 });
        if let Some(item) = item_of(place) {
            state.insert(item, 0);
        }
    }
    state
}

fn to_json(state: &State) -> Value {
    let mut object = json!({"apiVersion": "test.dev/v1", "kind": "Thing", "metadata": {}});
    for (place, value) in state {
        let text = json!(format!("v{value}"));
        let list = |object: &mut Value, item: Value| match object["spec"]["list"].as_array_mut() {
            Some(list) => list.push(item),
            None => object["spec"]["list"] = json!([item]),
        };
        let member = |object: &mut Value, member: &str| match object["spec"]["set"].as_array_mut() {
            Some(set) => set.push(json!(member)),
            None => object["spec"]["set"] = json!([member]),
        };
        match *place {
            ".spec.text" => object["spec"]["text"] = text,
            ".spec.number" => object["spec"]["number"] = json!(value),
            ".spec.box.x" => object["spec"]["box"]["x"] = text,
            ".spec.box.inner.z" => object["spec"]["box"]["inner"]["z"] = text,
            ".spec.map.k" => object["spec"]["map"]["k"] = text,
            ".spec.map.l" => object["spec"]["map"]["l"] = text,
            ".spec.whole" => object["spec"]["whole"] = json!({"w": text}),
            ".spec.atomic" => object["spec"]["atomic"] = json!([text, "end"]),
            ".spec.set[=\"m\"]" => member(&mut object, "m"),
            ".spec.set[=\"n\"]" => member(&mut object, "n"),
            ".spec.list[name=\"i\"]" | ".spec.list[name=\"j\"]" => {
                let mut item = json!({"name": &place[17..18]});
                let inside = |leaf: &str| state.iter().find(|(p, _)| item_of(p) == Some(place) && p.ends_with(leaf));
                for leaf in ["u", "v"] {
                    if let Some((_, value)) = inside(leaf) {
                        item[leaf] = json!(value);
                    }
                }
                list(&mut object, item);
            }
            SEEN => object["status"]["seen"] = text,
            _ => {}
        }
    }
    object
}

fn of_json(object: &Value) -> State {
    let mut state = State::new();
    let number = |text: &Value| text.as_str().and_then(|t| t[1..].parse().ok()).or(text.as_u64().map(|n| n as u8));
    let mut put = |place: Place, value: &Value| state.extend(number(value).map(|value| (place, value)));
    let spec = &object["spec"];
    put(".spec.text", &spec["text"]);
    put(".spec.number", &spec["number"]);
    put(".spec.box.x", &spec["box"]["x"]);
    put(".spec.box.inner.z", &spec["box"]["inner"]["z"]);
    put(".spec.map.k", &spec["map"]["k"]);
    put(".spec.map.l", &spec["map"]["l"]);
    put(".spec.whole", &spec["whole"]["w"]);
    put(".spec.atomic", &spec["atomic"][0]);
    put(SEEN, &object["status"]["seen"]);
    let place_of = |text: String| PLACES.iter().copied().find(|place| **place == text).expect("a place of the kind");
    for member in spec["set"].as_array().into_iter().flatten() {
        put(place_of(format!(".spec.set[={member}]")), &json!(0));
    }
    for item in spec["list"].as_array().into_iter().flatten() {
        let at = format!(".spec.list[name={}]", item["name"]);
        for leaf in ["u", "v"].iter().filter(|leaf| item.get(**leaf).is_some()) {
            put(place_of(format!("{at}.{leaf}")), &item[*leaf]);
        }
        put(place_of(at), &json!(0));
    }
    state
}

/// Who: manager, `Apply` or `Update`, and the subresource.
type Owner = (String, &'static str, &'static str);
type Owners = BTreeMap<Owner, BTreeSet<Place>>;

/// The owners in an object, without the keys of items, which every owner of an item has.
fn owners_of(object: &Value) -> Owners {
    fn places(set: &Value, path: &str, out: &mut BTreeSet<Place>) {
        for (step, below) in set.as_object().into_iter().flatten() {
            let here = match step.split_at(1) {
                (".", _) => path.to_owned(),
                ("f", name) => format!("{path}.{}", &name[1..]),
                ("k", keys) => {
                    let keys: Value = serde_json::from_str(&keys[1..]).expect("keys");
                    format!("{path}[name={}]", keys["name"])
                }
                (_, value) => format!("{path}[={}]", &value[1..]),
            };
            let found = PLACES.iter().chain([&SEEN]).find(|place| **place == here);
            if *below == json!({}) {
                assert!(found.is_some() || here.ends_with("].name"), "a leaf that no place of the kind is: {here}");
                out.extend(found);
            } else {
                places(below, &here, out);
            }
        }
    }
    let mut owners = Owners::new();
    for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
        let operation = if entry["operation"] == "Apply" { "Apply" } else { "Update" };
        let subresource = if entry["subresource"] == "status" { "status" } else { "" };
        let manager = entry["manager"].as_str().expect("a manager").to_owned();
        let set = owners.entry((manager, operation, subresource)).or_default();
        places(&entry["fieldsV1"], "", set);
    }
    owners
}

#[derive(Debug, Clone, Default)]
struct Model {
    state: State,
    owners: Owners,
}

impl Model {
    /// An apply. The error has the conflicts: owner and place.
    fn apply(&mut self, who: &Owner, config: &State, force: bool) -> Result<(), BTreeSet<(Owner, Place)>> {
        let named: BTreeSet<Place> = config.keys().copied().collect();
        let before = self.owners.remove(who).unwrap_or_default();
        let differs = |place: &Place| self.state.get(place) != config.get(place);
        let conflicts: BTreeSet<(Owner, Place)> = self
            .owners
            .iter()
            .flat_map(|(owner, set)| set.iter().map(move |place| (owner.clone(), *place)))
            .filter(|(_, place)| named.contains(place) && differs(place))
            .collect();
        if !conflicts.is_empty() && !force {
            self.owners.extend(Some((who.clone(), before)).filter(|(_, set)| !set.is_empty()));
            return Err(conflicts);
        }
        let wanted = |place: &Place| named.contains(place) || self.owners.values().any(|set| set.contains(place));
        let given_up: Vec<Place> = before.into_iter().filter(|place| !wanted(place)).collect();
        // An item stays while somebody wants something in it.
        let used = |item: &Place| PLACES.iter().any(|place| item_of(place) == Some(item) && wanted(place));
        let gone: BTreeSet<Place> = given_up.into_iter().filter(|place| !used(place)).collect();
        self.state.retain(|place, _| !gone.contains(place) && !item_of(place).is_some_and(|item| gone.contains(item)));
        self.state.extend(config);
        for (owner, place) in conflicts {
            self.owners.entry(owner).or_default().remove(place);
        }
        self.owners.insert(who.clone(), named);
        self.owners.retain(|_, set| !set.is_empty());
        Ok(())
    }

    /// A replacement of everything outside of the status.
    fn update(&mut self, who: &Owner, new: &State) {
        let mut new = new.clone();
        new.extend(self.state.get(SEEN).map(|value| (SEEN, *value)));
        let changed: BTreeSet<Place> = new
            .iter()
            .filter(|(place, value)| self.state.get(*place) != Some(value))
            .map(|(place, _)| *place)
            .collect();
        let vanished: BTreeSet<Place> = self.state.keys().filter(|place| !new.contains_key(*place)).copied().collect();
        for set in self.owners.values_mut() {
            set.retain(|place| !changed.contains(place) && !vanished.contains(place));
        }
        self.owners.entry(who.clone()).or_default().extend(changed);
        self.owners.retain(|_, set| !set.is_empty());
        self.state = new;
    }
}

#[derive(Debug, Clone)]
enum Step {
    Apply { manager: u8, config: BTreeMap<usize, u8>, force: bool },
    Report { manager: u8, seen: Option<u8>, force: bool },
    Replace { manager: u8, put: BTreeMap<usize, u8>, cut: BTreeSet<usize> },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let places = || proptest::collection::btree_map(0..PLACES.len(), 0_u8..3, 0..6);
    let step = prop_oneof![
        4 => (0_u8..3, places(), any::<bool>())
            .prop_map(|(manager, config, force)| Step::Apply { manager, config, force }),
        1 => (0_u8..3, proptest::option::of(0_u8..3), any::<bool>())
            .prop_map(|(manager, seen, force)| Step::Report { manager, seen, force }),
        2 => (0_u8..3, places(), proptest::collection::btree_set(0..PLACES.len(), 0..4))
            .prop_map(|(manager, put, cut)| Step::Replace { manager, put, cut }),
    ];
    proptest::collection::vec(step, 1..14)
}

async fn send(world: &World, method: &str, path: &str, kind: &str, body: &Value) -> Reply {
    let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
    let request = request.body(Body::from(body.to_string())).expect("a request");
    world.request(Some(World::admin()), request).await
}

async fn apply(world: &World, path: &str, who: &Owner, config: &State, force: bool, more: &str) -> Reply {
    let path = format!("{path}?fieldManager={}&force={force}{more}", who.0);
    send(world, "PATCH", &path, "application/apply-patch+yaml", &to_json(config)).await
}

/// One apply, first as a dry run, then for real, then once more: what must be the same is compared.
async fn play_apply(
    world: &World,
    model: &mut Model,
    item: &str,
    (who, config, force): (Owner, State, bool),
) -> Result<(), TestCaseError> {
    let path = if who.2.is_empty() { item.to_owned() } else { format!("{item}/status") };
    let dry = apply(world, &path, &who, &config, force, "&dryRun=All").await;
    let real = apply(world, &path, &who, &config, force, "").await;
    prop_assert_eq!(dry.code, real.code, "{}", dry.text);
    match model.apply(&who, &config, force) {
        Err(expected) => {
            prop_assert_eq!(real.code, 409, "{}", real.text);
            let causes = real.body["details"]["causes"].as_array().cloned().unwrap_or_default();
            let found: Vec<(&str, &str)> = causes
                .iter()
                .map(|c| (c["message"].as_str().unwrap_or_default(), c["field"].as_str().unwrap_or_default()))
                .collect();
            // The key of an item is a place of its own on the wire; no other value of it can be applied.
            prop_assert_eq!(found.len(), expected.len(), "{:?} {:?}", found, expected);
            for (owner, place) in expected {
                let how = if owner.1 == "Update" { " using test.dev/v1" } else { "" };
                let subresource = if owner.2.is_empty() { "" } else { " with subresource \"status\"" };
                let message = format!("conflict with {:?}{subresource}{how}", owner.0);
                prop_assert!(found.contains(&(message.as_str(), place)), "{} {}: {:?}", message, place, found);
            }
        }
        Ok(()) => {
            prop_assert!(matches!(real.code, 200 | 201), "{}", real.text);
            prop_assert_eq!(of_json(&dry.body), of_json(&real.body), "a dry run answers as if");
            let again = apply(world, &path, &who, &config, force, "").await;
            prop_assert_eq!(&again.body, &real.body, "the same again changes nothing");
        }
    }
    Ok(())
}

async fn play(world: &World, steps: Vec<Step>) -> Result<(), TestCaseError> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let item = format!("{THINGS}/t{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut model = Model::default();
    let first = (("m0".to_owned(), "Apply", ""), closed(&BTreeMap::from([(0, 0)])), false);
    play_apply(world, &mut model, &item, first).await?;
    for step in steps {
        match step {
            Step::Apply { manager, config, force } => {
                let who = (format!("m{manager}"), "Apply", "");
                play_apply(world, &mut model, &item, (who, closed(&config), force)).await?;
            }
            Step::Report { manager, seen, force } => {
                let who = (format!("m{manager}"), "Apply", "status");
                let config = seen.map(|value| (SEEN, value)).into_iter().collect();
                play_apply(world, &mut model, &item, (who, config, force)).await?;
            }
            Step::Replace { manager, put, cut } => {
                let who = (format!("m{manager}"), "Update", "");
                let mut new = model.state.clone();
                new.remove(SEEN);
                let cut: BTreeSet<Place> = cut.into_iter().map(|at| PLACES[at]).collect();
                new.retain(|place, _| !cut.contains(place) && !item_of(place).is_some_and(|item| cut.contains(item)));
                new.extend(closed(&put));
                let mut body = to_json(&new);
                let live = world.get(&item).await.expect(200);
                body["metadata"] =
                    json!({"name": live["metadata"]["name"], "resourceVersion": live["metadata"]["resourceVersion"]});
                let path = format!("{item}?fieldManager={}", who.0);
                let reply = send(world, "PUT", &path, "application/json", &body).await;
                prop_assert_eq!(reply.code, 200, "{}", reply.text);
                model.update(&who, &new);
            }
        }
        let live = world.get(&item).await.expect(200);
        prop_assert_eq!(of_json(&live), model.state.clone(), "values: {}", live);
        prop_assert_eq!(owners_of(&live), model.owners.clone(), "owners: {}", live["metadata"]["managedFields"]);
    }
    Ok(())
}

#[test]
fn applies_and_updates_of_several_managers_give_what_the_model_gives() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let world = runtime.block_on(World::with_kind(definition()));
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(96);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&steps(), |steps| runtime.block_on(play(&world, steps)));
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// Two managers with their own items in one list, as controllers have their own conditions.
#[tokio::test(flavor = "multi_thread")]
async fn two_who_share_a_list_do_not_move_each_others_items() {
    let world = World::with_kind(definition()).await;
    let item = format!("{THINGS}/shared");
    let thing = |names: &[&str]| {
        let list: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"apiVersion": "test.dev/v1", "kind": "Thing", "spec": {"list": list}})
    };
    let send = async |who: &str, names: &[&str]| {
        let path = format!("{item}?fieldManager={who}");
        let reply = send(&world, "PATCH", &path, "application/apply-patch+yaml", &thing(names)).await;
        assert!(matches!(reply.code, 200 | 201), "{}", reply.text);
        reply.body
    };
    send("git", &["a", "b"]).await;
    let both = send("ops", &["c"]).await;
    assert_eq!(both["spec"], thing(&["a", "b", "c"])["spec"]);
    assert_eq!(send("git", &["a", "b"]).await, both);
    assert_eq!(send("ops", &["c"]).await, both, "nothing moved, so nothing was written");
    // An empty list names no items: it takes away what its manager had, and nothing of others.
    let left = send("git", &[]).await;
    assert_eq!(left["spec"], thing(&["c"])["spec"]);
    assert_eq!(send("git", &["b", "c", "a"]).await["spec"], thing(&["b", "c", "a"])["spec"]);
    assert_eq!(send("git", &["a", "c", "b"]).await["spec"], thing(&["a", "c", "b"])["spec"], "the request's order");
}
