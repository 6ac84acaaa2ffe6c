//! OpenAPI as kubectl reads it: v3 for `explain` and for what PATCH can do, v2 as protobuf for the older `explain`.

mod support;

use support::{World, sub_cluster};

/// Each kind with a field deep inside, and words of its description.
const FIELDS: &[(&str, &str)] = &[
    ("subclusters.spec.heartbeat.timeout", "timeout"),
    ("failovergroups.spec.resources.filesystem", "filesystem"),
    ("servers.metadata.ownerReferences.controller", "managing controller"),
    ("operations.status.conditions", "conditions"),
    ("namespaces.status.phase", "Terminating"),
    ("events.involvedObject.fieldPath", "part of the object"),
    ("leases.spec.renewTime", "renewed"),
];

/// What older programs than kubectl 1.28 do not ask for; the test script leaves this module out there, and says so.
mod kubectl_1_28 {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn kubectl_explains_every_kind_from_both_versions() {
        let world = World::new().await;
        let names = world.kubectl(&["api-resources", "--verbs=list", "-o", "name"], "").await;
        assert!(names.lines().count() >= 12, "{names}");
        for form in ["plaintext", "plaintext-openapiv2"] {
            let output = format!("--output={form}");
            for name in names.lines() {
                // kubectl takes the group of this name for fields, because core has events too.
                let asked: &[&str] = match name {
                    "events.events.k8s.io" => &["events", "--api-version=events.k8s.io/v1"],
                    name => &[name],
                };
                let text = world.kubectl(&[&["explain", "--recursive", &output], asked].concat(), "").await;
                assert!(text.contains("metadata") && text.contains("DESCRIPTION"), "{name} {form}: {text}");
            }
            for (field, words) in FIELDS {
                let text = world.kubectl(&["explain", field, &output], "").await;
                assert!(text.to_lowercase().contains(&words.to_lowercase()), "{field} {form}: {text}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn kubectl_finds_validation_and_dry_run_in_the_document() {
        let world = World::new().await;
        let good = sub_cluster("db").to_string();
        // Without fieldValidation and dryRun in the document, kubectl refuses or checks by itself.
        let done = world.kubectl(&["create", "--dry-run=server", "--validate=strict", "-f", "-"], &good).await;
        assert!(done.contains("created (server dry run)"), "{done}");
        let mut bad = sub_cluster("db");
        bad["spec"]["sevrers"] = bad["spec"]["servers"].clone();
        let refused = world.kubectl_fails(&["create", "--validate=strict", "-f", "-"], &bad.to_string()).await;
        assert!(refused.contains("unknown field \"spec.sevrers\""), "{refused}");
        // Client-side apply chooses the patch type from the document, too.
        world.kubectl(&["apply", "-f", "-"], &good).await;
        let mut changed = sub_cluster("db");
        changed["metadata"]["labels"] = serde_json::json!({"tier": "gold"});
        let applied = world.kubectl(&["apply", "-f", "-"], &changed.to_string()).await;
        assert!(applied.contains("configured"), "{applied}");
        let difference = world.kubectl_raw(&["diff", "-f", "-"], &good).await;
        assert_eq!(difference.status.code(), Some(1), "{}", String::from_utf8_lossy(&difference.stderr));
        assert!(String::from_utf8_lossy(&difference.stdout).contains("-    tier: gold"));
    }
}
