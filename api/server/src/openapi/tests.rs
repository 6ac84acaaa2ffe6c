//! What clients need of the documents, on the real kinds.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use super::*;
use crate::registry::Registry;

fn documents() -> &'static Documents {
    static MADE: OnceLock<Documents> = OnceLock::new();
    MADE.get_or_init(|| {
        let crds: Vec<Value> = holdfast_api::crds().iter().map(|crd| json!(crd)).collect();
        Documents::new(Registry::new(&crds).expect("the kinds are served").all())
    })
}

fn get(path: &str, query: Option<&str>, headers: &[(http::HeaderName, &str)]) -> ApiResult<Response<Bytes>> {
    let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().expect("a header"))).collect();
    documents().answer(path, query, &headers)
}

fn json_of(path: &str) -> Value {
    serde_json::from_slice(get(path, None, &[]).expect("an answer").body()).expect("JSON")
}

/// Every reference, and every definition's name, of a document.
fn check_references(document: &Value, definitions: &str) {
    fn collect<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| collect(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    collect(document, &mut found);
    assert!(found.len() > 5, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("a local reference");
        assert!(pointer.starts_with(definitions), "{reference}");
        assert!(document.pointer(pointer).is_some(), "{reference} dangles");
    }
}

#[test]
fn v3_tells_kubectl_what_it_looks_for() {
    let index = json_of("/openapi/v3");
    for path in ["api/v1", "apis/holdfast.dev/v1", "apis/coordination.k8s.io/v1", "apis/events.k8s.io/v1"] {
        let url = index["paths"][path]["serverRelativeURL"].as_str().expect("a URL");
        assert!(url.starts_with(&format!("/openapi/v3/{path}?hash=")), "{url}");
        check_references(&json_of(&format!("/openapi/v3/{path}")), "/components/schemas/");
    }
    let document = json_of("/openapi/v3/apis/holdfast.dev/v1");
    let schemas = &document["components"]["schemas"];
    let kind = &schemas["dev.holdfast.v1.SubCluster"];
    let gvk = json!({"group": "holdfast.dev", "version": "v1", "kind": "SubCluster"});
    assert_eq!(kind["x-kubernetes-group-version-kind"], json!([gvk]));
    assert!(kind["properties"]["spec"]["properties"]["servers"]["description"].is_string());
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    assert_eq!(kind["properties"]["metadata"]["allOf"][0]["$ref"], format!("#/components/schemas/{meta}"));
    for field in ["name", "labels", "finalizers", "ownerReferences", "managedFields", "deletionTimestamp"] {
        assert!(schemas[meta]["properties"][field]["description"].is_string(), "{field}");
    }
    assert_eq!(schemas[meta]["properties"]["finalizers"]["x-kubernetes-list-type"], "set");
    assert_eq!(schemas["dev.holdfast.v1.SubClusterList"]["required"], json!(["items"]));

    let item = "/apis/holdfast.dev/v1/namespaces/{namespace}/subclusters/{name}";
    let patch = &document["paths"][item]["patch"];
    let names: Vec<_> = patch["parameters"].as_array().expect("parameters").iter().map(|p| &p["name"]).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    assert_eq!(patch["x-kubernetes-group-version-kind"], gvk);
    let types: Vec<_> = patch["requestBody"]["content"].as_object().expect("content").keys().collect();
    assert_eq!(types.len(), 3);
    assert!(types.iter().all(|media| !media.contains("strategic")), "{types:?}");
    let paths = document["paths"].as_object().expect("paths");
    for path in ["/apis/holdfast.dev/v1/subclusters", &format!("{item}/status")] {
        assert!(paths[path]["get"]["x-kubernetes-action"].is_string(), "{path}");
    }
    let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let reviews = json_of("/openapi/v3/apis/authorization.k8s.io/v1");
    assert_eq!(reviews["paths"][review].as_object().expect("a path").keys().collect::<Vec<_>>(), ["post"]);
}

#[test]
fn v2_has_each_kind_once_and_only_words_of_v2() {
    let document = json_of("/openapi/v2");
    check_references(&document, "/definitions/");
    let mut kinds = BTreeSet::new();
    for (name, definition) in document["definitions"].as_object().expect("definitions") {
        for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            assert!(kinds.insert(kind.to_string()), "{kind} again in {name}");
        }
    }
    assert!(kinds.len() > 20, "{kinds:?}");
    let text = document["definitions"].to_string();
    for word in ["anyOf", "oneOf", "allOf", "nullable", "x-kubernetes-validations"] {
        assert!(!text.contains(&format!("\"{word}\":")), "{word}");
    }
    let servers = &document["definitions"]["dev.holdfast.v1.SubCluster"]["properties"]["spec"]["properties"]["servers"];
    assert_eq!(servers["x-kubernetes-list-type"], "map");
    assert_eq!(servers["x-kubernetes-list-map-keys"], json!(["name"]));
    let ids: Vec<String> =
        operations_of(&document).filter_map(|o| Some(o["operationId"].as_str()?.to_owned())).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "operation ids are unique");
}

fn operations_of(document: &Value) -> impl Iterator<Item = &Value> {
    document["paths"].as_object().into_iter().flat_map(|paths| paths.values()).flat_map(|item| {
        item.as_object().into_iter().flatten().filter(|(key, _)| *key != "parameters").map(|(_, operation)| operation)
    })
}

#[test]
fn a_document_may_be_kept_as_long_as_its_hash_is_right() {
    let path = "/openapi/v3/apis/holdfast.dev/v1";
    let index = json_of("/openapi/v3");
    let url = index["paths"]["apis/holdfast.dev/v1"]["serverRelativeURL"].as_str().expect("a URL").to_owned();
    let hash = url.split_once('?').expect("a query").1;
    let kept = get(path, Some(hash), &[]).expect("an answer");
    assert_eq!(
        (kept.status(), &kept.headers()[CACHE_CONTROL]),
        (StatusCode::OK, &"public, immutable".parse().expect(""))
    );
    let moved = get(path, Some("hash=00"), &[]).expect("an answer");
    assert_eq!(
        (moved.status(), moved.headers()[LOCATION].to_str().expect("text")),
        (StatusCode::MOVED_PERMANENTLY, &*url)
    );
    for path in [path, "/openapi/v2", "/openapi/v3"] {
        let etag = get(path, None, &[]).expect("an answer").headers()[ETAG].clone();
        let again = get(path, None, &[(IF_NONE_MATCH, etag.to_str().expect("text"))]).expect("an answer");
        assert_eq!((again.status(), again.body().len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
        let other = get(path, None, &[(IF_NONE_MATCH, "\"00\"")]).expect("an answer");
        assert_eq!(other.status(), StatusCode::OK);
    }
    assert_eq!(get("/openapi/v3/apis/none/v1", None, &[]).expect_err("unknown").status()["code"], 404);
}

#[test]
fn go_clients_get_v2_as_protobuf_and_others_as_json() {
    let media = |accept: &str| {
        get("/openapi/v2", None, &[(ACCEPT, accept)])
            .map(|answer| answer.headers()[CONTENT_TYPE].to_str().expect("text").to_owned())
    };
    for accept in [PROTOBUF[0], PROTOBUF[1], "application/com.github.proto-openapi.spec.v2@v1.0+protobuf;q=1, */*"] {
        assert_eq!(media(accept).expect("an answer"), PROTOBUF[1]);
    }
    for accept in ["*/*", "application/json", "application/json, */*", "text/html, application/*;q=0.5"] {
        assert_eq!(media(accept).expect("an answer"), JSON);
    }
    assert_eq!(media("text/html").expect_err("nothing fits").status()["code"], 406);
}
