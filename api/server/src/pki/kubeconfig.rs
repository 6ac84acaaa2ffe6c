//! A kubeconfig with everything in it, so that one file is all a client needs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::Certificate;

/// The text (YAML) of a kubeconfig for `user` at the server `url`, with the CA, the certificate and the key embedded.
pub fn kubeconfig(url: &str, ca_pem: &str, user: &str, certificate: &Certificate) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "holdfast",
            "cluster": {"server": url, "certificate-authority-data": STANDARD.encode(ca_pem)},
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&certificate.pem),
                "client-key-data": STANDARD.encode(&certificate.key_pem),
            },
        }],
        "contexts": [{"name": "holdfast", "context": {"cluster": "holdfast", "user": user}}],
        "current-context": "holdfast",
    });
    serde_yaml::to_string(&config).expect("a tree of texts can be written as YAML")
}
