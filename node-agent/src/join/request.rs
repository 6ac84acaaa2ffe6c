//! Asking for a certificate: a CertificateSigningRequest, which the API server signs at once if it may.

use std::time::Duration;

use holdfast_api::access::{AGENT_SIGNER, AGENTS_GROUP};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{ANSWER, JoinError};

/// How long the agent waits for somebody's approval.
const APPROVAL: Duration = Duration::from_secs(120);
/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);

/// Why there is no certificate.
pub(super) enum Error {
    /// What was shown is not good.
    Unauthorized,
    /// Anything else.
    Join(JoinError),
}

/// A certificate (PEM) for the key, as `user`.
pub(super) async fn certificate(client: &Client, key: &KeyPair, user: &str) -> Result<String, Error> {
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let digest = format!("{:x}", Sha256::digest(key.subject_public_key_info()));
    // The same key asks under the same name: after a crash it finds what was signed before.
    let name = format!("holdfast-agent-{}", &digest[..32]);
    let object = CertificateSigningRequest {
        metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pkcs10(key, user).map_err(Error::Join)?.into_bytes()),
            signer_name: AGENT_SIGNER.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let parameters = PostParams::default();
    let mut found = match within(requests.create(&parameters, &object)).await {
        Err(kube::Error::Api(status)) if status.code == 409 => within(requests.get(&name)).await.map_err(refused)?,
        made => made.map_err(refused)?,
    };
    let end = Instant::now() + APPROVAL;
    let mut told = false;
    loop {
        if let Some(certificate) = issued(&found).map_err(Error::Join)? {
            return Ok(certificate);
        }
        if Instant::now() >= end {
            return Err(Error::Join(JoinError::Pending { name, waited: APPROVAL }));
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("waiting for an approval: kubectl certificate approve {name}");
        }
        tokio::time::sleep(LOOK).await;
        found = within(requests.get(&name)).await.map_err(refused)?;
    }
}

/// The certificate of a request that was signed; none yet.
fn issued(object: &CertificateSigningRequest) -> Result<Option<String>, JoinError> {
    let Some(status) = &object.status else { return Ok(None) };
    let against = status.conditions.iter().flatten().find(|c| matches!(c.type_.as_str(), "Denied" | "Failed"));
    if let Some(condition) = against {
        let message = condition.message.clone().unwrap_or_default();
        return Err(JoinError::Refused(format!("it is {}: {message}", condition.type_)));
    }
    let Some(certificate) = &status.certificate else { return Ok(None) };
    let text = String::from_utf8(certificate.0.clone());
    text.map(Some).map_err(|_| JoinError::Refused("what it gave is no PEM".to_owned()))
}

fn pkcs10(key: &KeyPair, user: &str) -> Result<String, JoinError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    params.distinguished_name.push(DnType::OrganizationName, AGENTS_GROUP);
    let fail = |e: rcgen::Error| JoinError::Request { what: "making a request", reason: e.to_string() };
    params.serialize_request(key).and_then(|request| request.pem()).map_err(fail)
}

async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let answer = tokio::time::timeout(ANSWER, request).await;
    answer.unwrap_or_else(|_| Err(kube::Error::Service("no answer in time".into())))
}

fn refused(error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) if status.code == 401 => Error::Unauthorized,
        kube::Error::Api(status) => Error::Join(JoinError::Refused(status.message.clone())),
        other => {
            Error::Join(JoinError::Request { what: "asking for a certificate", reason: crate::api_sync::whole(&other) })
        }
    }
}
