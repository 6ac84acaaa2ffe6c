//! Tokens for joining: what a new server shows before it has a certificate. Each is a Secret in `kube-system`, in the form
//! of Kubernetes' bootstrap tokens, and is good for one thing: to have the certificate of the server signed that it names.
//!
//! ```text
//!  token-id, token-secret            the token is ID.SECRET
//!  expiration                        RFC 3339; a token without it is good for nothing
//!  usage-bootstrap-authentication    "true"
//!  server                            NAMESPACE/SUBCLUSTER/SERVER
//!  uses                              for how many keys it may still be used
//!  keys                              digests of the keys that it was used for: asking again for one of them is no use
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_store::{Error, Expect};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{ApiError, ApiResult};
use crate::identity::Identity;
use crate::object::{Object, encode, is_deleting};
use crate::ops::now;
use crate::registry::ResourceDef;
use crate::state::State;

/// Namespace of the Secrets.
pub const NAMESPACE: &str = "kube-system";
/// Type of the Secrets.
pub const TYPE: &str = "bootstrap.kubernetes.io/token";
/// Prefix of the user that a token proves.
pub(crate) const USER: &str = "system:bootstrap:";
const GROUP: &str = "system:bootstrappers";
/// How often a lost race for a use is repeated.
const ATTEMPTS: usize = 16;

/// Name of the Secret of a token.
pub fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// Id and secret of a token; none for what can't be one.
pub fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let is =
        |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (is(id, 6) && is(secret, 16)).then_some((id, secret))
}

/// What the Secret of a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    secret: String,
    server: String,
    uses: u32,
    keys: Vec<String>,
}

impl Token {
    /// Reads a Secret; none if it is no token that is good now.
    fn of(object: &Value, id: &str, now: jiff::Timestamp) -> Option<Token> {
        let text = |name: &str| {
            let bytes = STANDARD.decode(object["data"][name].as_str()?).ok()?;
            String::from_utf8(bytes).ok()
        };
        let until: jiff::Timestamp = text("expiration")?.trim().parse().ok()?;
        let good = object["type"] == TYPE
            && !is_deleting(object)
            && text("token-id")? == id
            && text("usage-bootstrap-authentication")? == "true"
            && until > now;
        good.then(|| Token {
            secret: text("token-secret").unwrap_or_default(),
            server: text("server").unwrap_or_default(),
            uses: text("uses").and_then(|uses| uses.trim().parse().ok()).unwrap_or(0),
            keys: text("keys").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        })
    }
}

fn def(state: &State) -> Option<&ResourceDef> {
    state.registry.find("", "v1", "secrets").map(|def| &**def)
}

async fn find(state: &State, id: &str) -> ApiResult<Option<(Object, Token)>> {
    let Some(def) = def(state) else { return Ok(None) };
    let Some(object) = state.newest(def, NAMESPACE, &secret_name(id)).await? else { return Ok(None) };
    Ok(Token::of(&object.value, id, now()).map(|token| (object, token)))
}

/// Whom a token stands for; none if it is no good one.
///
/// # Errors
/// When the store can't be asked.
pub(crate) async fn identify(state: &State, token: &str) -> ApiResult<Option<Identity>> {
    let Some((id, secret)) = parse(token) else { return Ok(None) };
    let Some((_, known)) = find(state, id).await? else { return Ok(None) };
    // Compared as digests: how long it takes tells nothing about the secret.
    if Sha256::digest(secret) != Sha256::digest(&known.secret) {
        return Ok(None);
    }
    Ok(Some(Identity::new(format!("{USER}{id}"), [GROUP]).authenticated()))
}

/// Takes a use of the token behind an identity for the certificate of `server` with the key of this digest; `dry_run`:
/// only looks whether it could.
///
/// # Errors
/// 403 with the reason if the token is for another server, is used up, or has ended since.
pub(crate) async fn take_use(state: &State, id: &str, server: &str, key: &str, dry_run: bool) -> ApiResult<()> {
    let refused =
        |why: String| ApiError::denied(format!("{why}; make a token: holdfast token create --server {server}"));
    for _ in 0..ATTEMPTS {
        let (Some(def), Some((object, token))) = (def(state), find(state, id).await?) else {
            return Err(refused(format!("the join token {id} has ended")));
        };
        if token.server != server {
            return Err(refused(format!(
                "the join token {id} is for the server {:?}, not for {server:?}",
                token.server
            )));
        }
        if token.keys.iter().any(|known| known == key) {
            return Ok(());
        }
        if token.uses == 0 {
            return Err(refused(format!("the join token {id} is used up")));
        }
        if dry_run {
            return Ok(());
        }
        let mut new = object.value.clone();
        new["data"]["uses"] = STANDARD.encode((token.uses - 1).to_string()).into();
        new["data"]["keys"] = STANDARD.encode([token.keys.join(" "), key.to_owned()].join(" ").trim()).into();
        match state.store.put(&object.key, encode(&mut new).into(), Expect::Modified(object.revision), def.ttl).await {
            Ok(_) => return Ok(()),
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::unavailable(format!("the join token {id} is being changed by others all the time")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_a_token_only_with_all_that_makes_one_and_until_it_ends() {
        let data = |name: &str, text: &str| (name.to_owned(), json!(STANDARD.encode(text)));
        let good = json!({"type": TYPE, "metadata": {"name": "bootstrap-token-abcdef"}, "data": serde_json::Map::from_iter([
            data("token-id", "abcdef"), data("token-secret", "0123456789abcdef"), data("expiration", "2026-03-02T01:00:00Z"),
            data("usage-bootstrap-authentication", "true"), data("server", "ha/db/db1"), data("uses", "1"), data("keys", "a b"),
        ])});
        let at = |time: &str| time.parse().expect("a time");
        let before = at("2026-03-02T00:59:59Z");
        let token = Token::of(&good, "abcdef", before).expect("good");
        assert_eq!((token.uses, token.keys.len(), token.server.as_str()), (1, 2, "ha/db/db1"));
        assert_eq!(Token::of(&good, "abcdef", at("2026-03-02T01:00:00Z")), None);
        assert_eq!(Token::of(&good, "other1", before), None);
        for name in ["token-id", "expiration", "usage-bootstrap-authentication"] {
            let mut less = good.clone();
            less["data"].as_object_mut().expect("data").remove(name);
            assert_eq!(Token::of(&less, "abcdef", before), None, "{name}");
        }
        let mut opaque = good;
        opaque["type"] = "Opaque".into();
        assert_eq!(Token::of(&opaque, "abcdef", before), None);
    }

    #[test]
    fn only_the_form_of_a_token_is_one() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for wrong in ["", ".", "abcdef", "abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "abcde/.0123456789abcdef"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
