//! The next certificate, at two thirds of the life of the one in use: a new key, signed on the word of the old one.
//!
//! Nothing in a sub-cluster waits for it. A renewal that fails is tried again until the certificate ends, and after it:
//! the API server may be away for as long.

use std::time::Duration;

use holdfast_api::access::agent_user;
use tokio::sync::Notify;

use super::credentials::{self, Credentials, unix_now};
use super::{JoinError, new_key, request};
use crate::api_sync;
use crate::config::AgentConfig;

/// Longest pause between two looks at the file: it may be replaced, and clocks may be set.
const LOOK: Duration = Duration::from_secs(3600);
/// Shortest pause between two attempts.
const RETRY: Duration = Duration::from_secs(1);

/// Renews for ever, and says each time that the credentials are new. Credentials that are no certificate of this agent
/// are somebody else's to renew.
pub(crate) async fn keep(config: &AgentConfig, renewed: &Notify) {
    let user = agent_user(&config.namespace, &config.sub_cluster, &config.server);
    let mut told: Option<String> = None;
    loop {
        let own = Credentials::read(&config.credentials).ok().flatten().filter(|found| found.user == user);
        let Some(own) = own else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let left = own.due() - unix_now();
        if left > 0 {
            tokio::time::sleep(Duration::from_secs(left.unsigned_abs()).min(LOOK)).await;
            continue;
        }
        match renew(config, &own).await {
            Ok(()) => {
                tracing::info!("the certificate for the API was renewed");
                told = None;
                renewed.notify_one();
            }
            Err(error) => {
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    let ended = own.not_after <= unix_now();
                    let hint = if ended {
                        "; it has ended: join again with a token (`holdfast token create`, then `holdfast agent --join`)"
                    } else {
                        "; trying again"
                    };
                    tracing::warn!("the certificate for the API could not be renewed: {error}{hint}");
                    told = Some(error);
                }
                // About twenty attempts in the last third of the life.
                let pause = Duration::from_secs((own.not_after - own.due()).unsigned_abs() / 20);
                tokio::time::sleep(pause.clamp(RETRY, LOOK)).await;
            }
        }
    }
}

/// Tries every URL of the API.
async fn renew(config: &AgentConfig, own: &Credentials) -> Result<(), JoinError> {
    let key = new_key()?;
    let own_url = [own.url.clone()];
    let urls = if config.api.is_empty() { &own_url[..] } else { &config.api };
    let mut last = JoinError::Url { found: String::new() };
    for url in urls {
        let client = match api_sync::client(config, Some(url)).await {
            Ok(client) => client,
            Err(error) => {
                last = JoinError::Request { what: "the credentials", reason: error.to_string() };
                continue;
            }
        };
        match request::certificate(&client, &key, &own.user).await {
            Ok(certificate) => {
                let text = credentials::kubeconfig(&own.url, &own.ca_pem, &own.user, &certificate, &key);
                return credentials::write(&config.credentials, &text);
            }
            Err(request::Error::Unauthorized) => {
                last = JoinError::Refused("it does not take the certificate that this server has".to_owned());
            }
            Err(request::Error::Join(error)) => last = error,
        }
    }
    Err(last)
}
