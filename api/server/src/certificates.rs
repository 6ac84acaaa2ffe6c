//! Certificates for agents, on request: `certificates.k8s.io/v1` CertificateSigningRequests of the signer
//! `holdfast.dev/agent`.
//!
//! An agent asks with a join token for its first certificate and with the one that it has for the next; both are signed
//! at once. What somebody else asks for waits for an approval, as with every signer. Requests of other signers are kept,
//! not signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_api::access::{AGENT_SIGNER as SIGNER, AGENT_USER, AGENTS_GROUP};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::authz::{self, Attributes};
use crate::error::{ApiError, ApiResult, Cause};
use crate::join_tokens;
use crate::object::{meta, rfc3339};
use crate::ops::now;
use crate::pki;
use crate::registry::ResourceDef;
use crate::request::Request;
use crate::state::State;

/// API group of the kind.
pub(crate) const GROUP: &str = "certificates.k8s.io";
/// What such a certificate is for, and what else may be asked for: some libraries always do.
const USAGE: &str = "client auth";
const USAGES: [&str; 3] = [USAGE, "digital signature", "key encipherment"];
/// The shortest life that can be asked for, in seconds; as on a stock server.
const SHORTEST: u64 = 600;

/// True for CertificateSigningRequests.
pub(crate) fn is_request(def: &ResourceDef) -> bool {
    def.group == GROUP && def.plural == "certificatesigningrequests"
}

/// What a PKCS #10 request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Common name.
    pub user: String,
    /// Organizations.
    pub groups: Vec<String>,
    /// SubjectPublicKeyInfo, DER.
    pub public_key: Vec<u8>,
}

impl Asked {
    /// Reads a request (PEM) whose signature shows that the asker has the key.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(pem: &[u8]) -> Result<Asked, String> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|error| format!("it is no PEM: {error}"))?;
        if pem.label != "CERTIFICATE REQUEST" {
            return Err(format!("it is a PEM block of the type {:?}, not CERTIFICATE REQUEST", pem.label));
        }
        let (_, request) = X509CertificationRequest::from_der(&pem.contents)
            .map_err(|error| format!("it is no PKCS #10 request: {error}"))?;
        request.verify_signature().map_err(|_| "its signature is not that of the key in it".to_owned())?;
        let info = &request.certification_request_info;
        let text = |part: &x509_parser::x509::AttributeTypeAndValue<'_>| part.as_str().ok().map(str::to_owned);
        let mut users = info.subject.iter_common_name().filter_map(text);
        let (Some(user), None) = (users.next(), users.next()) else {
            return Err("its subject has not just one common name".to_owned());
        };
        let groups = info.subject.iter_organization().filter_map(text).collect();
        Ok(Asked { user, groups, public_key: info.subject_pki.raw.to_vec() })
    }

    /// The server whose agent it is for: NAMESPACE/SUBCLUSTER/SERVER.
    fn server(&self) -> Option<String> {
        let parts: Vec<&str> = self.user.strip_prefix(AGENT_USER)?.split(':').collect();
        let whole = parts.len() == 3 && parts.iter().all(|part| !part.is_empty() && !part.contains('/'));
        (whole && self.groups == [AGENTS_GROUP]).then(|| parts.join("/"))
    }

    /// Digest of the key.
    fn key_digest(&self) -> String {
        format!("{:x}", Sha256::digest(&self.public_key))
    }
}

/// Completes a new request (stored form): says who asks, and signs at once what needs no approval.
pub(crate) async fn create(state: &State, request: &Request, dry_run: bool, object: &mut Value) -> ApiResult<()> {
    let identity = &request.identity;
    object["spec"]["username"] = identity.user.clone().into();
    object["spec"]["groups"] = json!(identity.groups);
    for (field, value) in [("uid", json!(identity.uid)), ("extra", json!(identity.extra))] {
        if value == json!("") || value == json!({}) {
            object["spec"].as_object_mut().map(|spec| spec.remove(field));
        } else {
            object["spec"][field] = value;
        }
    }
    let token = identity.user.strip_prefix(join_tokens::USER);
    if object["spec"]["signerName"] != SIGNER {
        return match token {
            Some(id) => {
                Err(ApiError::denied(format!("the join token {id} is for certificates of the signer {SIGNER} only")))
            }
            None => Ok(()),
        };
    }
    let asked = asked(&request.def, object)?;
    let server = asked.server().unwrap_or_default();
    match token {
        Some(id) => join_tokens::take_use(state, id, &server, &asked.key_digest(), dry_run).await?,
        None if identity.user == asked.user => still_listed(state, &server)?,
        None if identity.user.starts_with(AGENT_USER) => {
            let why = format!(
                "{} asks for the certificate of {}; an agent may ask for its own only",
                identity.user, asked.user
            );
            return Err(ApiError::denied(why));
        }
        None => return Ok(()),
    }
    let reason = if token.is_some() { "JoinToken" } else { "Renewal" };
    let time = rfc3339(now());
    object["status"]["conditions"] = json!([{
        "type": "Approved", "status": "True", "reason": reason, "message": format!("asked for by {}", identity.user),
        "lastUpdateTime": time, "lastTransitionTime": time,
    }]);
    if dry_run { Ok(()) } else { sign(state, &asked, object) }
}

/// Completes a changed request (stored form): an approval needs the right to it, and is followed by the signature.
pub(crate) fn approve(state: &State, request: &Request, old: &Value, object: &mut Value) -> ApiResult<()> {
    let has = |object: &Value, kind: &str| {
        let list = object.pointer("/status/conditions").and_then(Value::as_array);
        list.into_iter().flatten().any(|condition| condition["type"] == kind && condition["status"] != "False")
    };
    if old.pointer("/status/conditions") == object.pointer("/status/conditions") {
        return Ok(());
    }
    let signer = object["spec"]["signerName"].as_str().unwrap_or_default().to_owned();
    let action = Attributes {
        verb: "approve".into(),
        group: GROUP.into(),
        resource: "signers".into(),
        name: signer.clone(),
        ..Attributes::default()
    };
    if !authz::allows(&request.identity, &action, state) {
        return Err(ApiError::forbidden(request.target(), action.refusal(&request.identity.user)));
    }
    let decided = |kind: &str| has(old, kind) && !has(object, kind);
    if decided("Approved") || decided("Denied") || (has(object, "Approved") && has(object, "Denied")) {
        let why = "a decision stays: Approved and Denied can't be removed, and exclude each other";
        let cause = Cause::invalid("status.conditions", &object["status"]["conditions"], why);
        return Err(ApiError::invalid(request.target(), &[cause]));
    }
    if signer != SIGNER || !has(object, "Approved") || object["status"]["certificate"].is_string() {
        return Ok(());
    }
    sign(state, &asked(&request.def, object)?, object)
}

/// What the object asks for; 422 with the field if it can't be a request of an agent.
fn asked(def: &ResourceDef, object: &Value) -> ApiResult<Asked> {
    let spec = &object["spec"];
    let name = meta(object, "name");
    let invalid = |field: &str, value: &Value, why: String| {
        Err(ApiError::invalid(def.target(name), &[Cause::invalid(field, value, &why)]))
    };
    let pem = STANDARD.decode(spec["request"].as_str().unwrap_or_default());
    let asked = match pem.map_err(|error| format!("it is no base64: {error}")).and_then(|pem| Asked::parse(&pem)) {
        Ok(asked) => asked,
        Err(why) => return invalid("spec.request", &Value::Null, why),
    };
    if asked.server().is_none() {
        let why = format!(
            "the subject is CN {:?} with O {:?}; {SIGNER} signs CN {}NAMESPACE:SUBCLUSTER:SERVER with O {AGENTS_GROUP}",
            asked.user, asked.groups, AGENT_USER
        );
        return invalid("spec.request", &Value::Null, why);
    }
    let usages: Vec<&str> = spec["usages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !usages.contains(&USAGE) || usages.iter().any(|usage| !USAGES.contains(usage)) {
        let why = format!("{SIGNER} needs {USAGE:?} and allows {}", USAGES.join(", "));
        return invalid("spec.usages", &spec["usages"], why);
    }
    if let Some(seconds) = spec["expirationSeconds"].as_u64().filter(|seconds| *seconds < SHORTEST) {
        return invalid("spec.expirationSeconds", &seconds.into(), format!("may not be less than {SHORTEST}"));
    }
    Ok(asked)
}

/// An agent whose server was taken out of its sub-cluster gets no new certificate. One whose sub-cluster is not known
/// here, yet or any more, does: it may be applied again.
fn still_listed(state: &State, server: &str) -> ApiResult<()> {
    let mut parts = server.split('/');
    let (Some(namespace), Some(sub_cluster), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(());
    };
    let Some((_, object)) = state.cached("SubCluster", namespace, sub_cluster) else { return Ok(()) };
    let object = object.value();
    let listed = object.pointer("/spec/servers").and_then(Value::as_array);
    if listed.is_none_or(|servers| servers.iter().any(|server| server["name"] == name)) {
        return Ok(());
    }
    Err(ApiError::denied(format!(
        "spec.servers of the sub-cluster {sub_cluster:?} in {namespace:?} has no server {name:?} any more, so its agent gets \
         no new certificate; add it again, or end the agent"
    )))
}

fn sign(state: &State, asked: &Asked, object: &mut Value) -> ApiResult<()> {
    let wanted = object["spec"]["expirationSeconds"].as_u64().map(std::time::Duration::from_secs);
    let life = wanted.unwrap_or(state.agent_life).min(state.agent_life);
    let signed = state.keys.ca().sign(&asked.public_key, &asked.user, AGENTS_GROUP, life);
    let pem = signed.map_err(|error| match error {
        pki::PkiError::Sign { source, .. } => {
            ApiError::bad_request(format!("spec.request: the key can't be used: {source}"))
        }
        other => ApiError::internal(other.to_string()),
    })?;
    object["status"]["certificate"] = STANDARD.encode(pem).into();
    tracing::info!(target: "audit", user = %asked.user, verb = "sign", request = meta(object, "name"), ?life);
    Ok(())
}
