//! How a server gets its credentials: it makes a key, shows a join token, and has its certificate signed; later it has the
//! next one signed with the one that it has. The key never leaves the server.
//!
//! ```text
//!  token ─▶ authority: the server that has the CA of the token's fingerprint ─▶ request ─▶ credentials (0600)
//!                                                                                             │
//!                       renewal: at two thirds of the certificate's life, with a new key ◀────┘
//! ```

pub(crate) mod authority;
pub mod credentials;
pub(crate) mod renewal;
mod request;
mod token;

use std::path::PathBuf;
use std::time::Duration;

use holdfast_api::access::agent_user;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::KeyPair;

use crate::config::AgentConfig;
pub use authority::fingerprint;
use credentials::{Credentials, unix_now};
pub use token::{JoinToken, TokenError};

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Why a server could not join, or get its next certificate.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The URL is none.
    #[error("the URL of the API server is {found:?}; allowed is https://HOST:PORT, for example https://10.0.0.9:6443")]
    Url {
        /// What was given.
        found: String,
    },
    /// Nobody answers there.
    #[error("{url} can't be reached: {reason}; check that the API server runs and listens on that address")]
    Unreachable {
        /// The URL.
        url: String,
        /// Why.
        reason: String,
    },
    /// Somebody else answers there.
    #[error(
        "{url} does not show that it is the API server of the token: {reason}; nothing was sent to it. Check the URL, and \
         that the server's certificate names this address (`holdfast server --san NAME`)"
    )]
    Stranger {
        /// The URL.
        url: String,
        /// Why.
        reason: String,
    },
    /// The credentials are those of somebody else.
    #[error(
        "the credentials {path} belong to {found}, not to {wanted}; move that file away, or correct the agent's file"
    )]
    Taken {
        /// The file.
        path: PathBuf,
        /// Whose they are.
        found: String,
        /// This server's user.
        wanted: String,
    },
    /// A file can't be used.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The token is none, or none any more.
    #[error(
        "the API server does not take the token: it is none of its own, has ended, or was deleted; make a new one: holdfast \
         token create --server {server}"
    )]
    Token {
        /// This server, NAMESPACE/SUBCLUSTER/SERVER.
        server: String,
    },
    /// The API server refuses.
    #[error("the API server refuses a certificate: {0}")]
    Refused(String),
    /// Nobody has decided.
    #[error(
        "CertificateSigningRequest {name} was not signed within {} s; approve it (`kubectl certificate approve {name}`), \
         then start the agent again", .waited.as_secs()
    )]
    Pending {
        /// The object.
        name: String,
        /// How long the agent waited.
        waited: Duration,
    },
    /// A request failed.
    #[error("{what}: {reason}")]
    Request {
        /// What was asked for.
        what: &'static str,
        /// What came back.
        reason: String,
    },
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// The server had good credentials; the token was not used.
    Before,
    /// It has credentials now.
    Now,
}

/// Gives this server credentials from the API server at `url`, unless it has good ones already: then a supervisor may
/// start the agent with the same command again and again. Blocks until they are written.
///
/// # Errors
/// [`JoinError`]; it says what to do. What was there before is left as it is.
pub fn join(config: &AgentConfig, url: &str, token: &JoinToken) -> Result<Joined, JoinError> {
    let path = &config.credentials;
    let user = agent_user(&config.namespace, &config.sub_cluster, &config.server);
    match Credentials::read(path) {
        Ok(Some(found)) if found.user != user => {
            return Err(JoinError::Taken { path: path.clone(), found: found.user, wanted: user });
        }
        Ok(Some(found))
            if found.not_after > unix_now() && fingerprint_of_pem(&found.ca_pem) == Some(token.ca().to_owned()) =>
        {
            return Ok(Joined::Before);
        }
        // Absent, ended, or of another CA: the token is for this case.
        Ok(_) => {}
        Err(why) => {
            let reason = format!("{why}; it is not a file that joining wrote, so it is not replaced: move it away");
            return Err(JoinError::File { path: path.clone(), reason });
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| JoinError::Request { what: "starting", reason: e.to_string() })?;
    runtime.block_on(async {
        let ca_pem = authority::fetch(url, token.ca()).await?;
        // Kept until the certificate is there: whoever asks again with the same key uses the token up only once.
        let key_file = path.with_extension("joining.key");
        let key = credentials::key_at(&key_file)?;
        let client = client(url, &ca_pem, serde_json::json!({"token": token.bearer()})).await?;
        let certificate = request::certificate(&client, &key, &user).await.map_err(|error| match error {
            request::Error::Unauthorized => {
                JoinError::Token { server: format!("{}/{}/{}", config.namespace, config.sub_cluster, config.server) }
            }
            request::Error::Join(error) => error,
        })?;
        credentials::write(path, &credentials::kubeconfig(url, &ca_pem, &user, &certificate, &key))?;
        let _ = std::fs::remove_file(key_file);
        Ok(Joined::Now)
    })
}

fn fingerprint_of_pem(pem: &str) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    fingerprint(&pem.contents)
}

/// A client that shows `user` (members of a kubeconfig's user).
async fn client(url: &str, ca_pem: &str, user: serde_json::Value) -> Result<kube::Client, JoinError> {
    let fail = |reason: String| JoinError::Request { what: "a client of the API server", reason };
    let config: Kubeconfig = serde_json::from_value(credentials::with_user(url, ca_pem, "joining", user))
        .map_err(|e| fail(e.to_string()))?;
    let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .map_err(|e| fail(e.to_string()))?;
    (config.connect_timeout, config.read_timeout) = (Some(ANSWER), Some(ANSWER));
    kube::Client::try_from(config).map_err(|e| fail(e.to_string()))
}

/// A new key.
fn new_key() -> Result<KeyPair, JoinError> {
    KeyPair::generate().map_err(|e| JoinError::Request { what: "making a key", reason: e.to_string() })
}
