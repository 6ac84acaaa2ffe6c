//! Bearer tokens: whose they are.
//!
//! A token of a ServiceAccount is good until it ends, and only while that very ServiceAccount is there: one of the same
//! name that is made later has another uid. There is no other way to take a token back.

use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::identity::Identity;
use crate::join_tokens;
use crate::object::{is_deleting, meta};
use crate::ops::now;
use crate::registry::ResourceDef;
use crate::state::State;

/// Who issues tokens, and who takes them unless a token names others; the names of a stock server.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Prefix of the users of ServiceAccounts, and group of all of them.
const ACCOUNTS: &str = "system:serviceaccount";
/// Attribute of a user that names his token in the audit log.
const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// The user of a ServiceAccount.
pub(crate) fn account_user(namespace: &str, name: &str) -> String {
    format!("{ACCOUNTS}:{namespace}:{name}")
}

/// Namespace and name of the ServiceAccount that a user is.
pub(crate) fn account_of(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix(ACCOUNTS)?.strip_prefix(':')?.split_once(':')
}

/// The groups of the ServiceAccounts of a namespace.
pub(crate) fn account_groups(namespace: &str) -> [String; 2] {
    [format!("{ACCOUNTS}s"), format!("{ACCOUNTS}s:{namespace}")]
}

/// What the claims of a token say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claims {
    namespace: String,
    name: String,
    uid: String,
    id: String,
    /// Those of the audiences that were asked for and that the token is for.
    audiences: Vec<String>,
}

/// The claims of a new token, from `now` for `seconds`.
pub(crate) fn claims(account: &Value, audiences: &[String], now: i64, seconds: i64, id: &str) -> Value {
    let (namespace, name) = (meta(account, "namespace"), meta(account, "name"));
    json!({
        "iss": ISSUER, "sub": account_user(namespace, name), "aud": audiences,
        "iat": now, "nbf": now, "exp": now + seconds, "jti": id,
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": meta(account, "uid")}},
    })
}

/// Reads claims; none if they are not ours, not for any of these audiences, or not good now.
fn read(claims: &Value, audiences: &[String], now: i64) -> Option<Claims> {
    let text = |pointer: &str| claims.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (namespace, name) = (text("/kubernetes.io/namespace")?, text("/kubernetes.io/serviceaccount/name")?);
    let good = claims["iss"] == ISSUER
        && claims["sub"] == account_user(namespace, name)
        && claims["exp"].as_i64()? > now
        && claims["nbf"].as_i64()? <= now;
    let theirs: Vec<&str> = claims["aud"].as_array()?.iter().filter_map(Value::as_str).collect();
    let audiences: Vec<String> = audiences.iter().filter(|a| theirs.contains(&a.as_str())).cloned().collect();
    (good && !audiences.is_empty()).then(|| Claims {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: text("/kubernetes.io/serviceaccount/uid").unwrap_or_default().to_owned(),
        id: text("/jti").unwrap_or_default().to_owned(),
        audiences,
    })
}

/// Whom a token belongs to, and which of the audiences it is for (none given: this server); none if it is no good one.
///
/// # Errors
/// When the store must be asked and can't be.
pub(crate) async fn identify(
    state: &State,
    token: &str,
    audiences: &[String],
) -> ApiResult<Option<(Identity, Vec<String>)>> {
    let own = [ISSUER.to_owned()];
    let audiences = if audiences.is_empty() { &own } else { audiences };
    let claims = state.keys.tokens().verify(token).and_then(|claims| read(&claims, audiences, now().as_second()));
    let Some(claims) = claims else { return Ok(None) };
    let Some(def) = accounts(state) else { return Ok(None) };
    if !exists(state, def, &claims).await? {
        return Ok(None);
    }
    let groups = account_groups(&claims.namespace);
    let mut identity = Identity::new(account_user(&claims.namespace, &claims.name), groups);
    identity.uid = claims.uid;
    identity.extra.insert(CREDENTIAL.to_owned(), vec![format!("JTI={}", claims.id)]);
    Ok(Some((identity.authenticated(), claims.audiences)))
}

/// The definition of ServiceAccounts; none where they are not served.
pub(crate) fn accounts(state: &State) -> Option<&ResourceDef> {
    state.registry.find("", "v1", "serviceaccounts").map(|def| &**def)
}

/// Whether the ServiceAccount of the claims is there. The caches are asked first; they may not show one yet that was
/// just made, through another server.
async fn exists(state: &State, def: &ResourceDef, claims: &Claims) -> ApiResult<bool> {
    let is = |object: &Value| meta(object, "uid") == claims.uid && !is_deleting(object);
    let cached = state.feed.cache(def).and_then(|cache| cache.get(&def.key(&claims.namespace, &claims.name)));
    if cached.is_some_and(|object| is(&object.head)) {
        return Ok(true);
    }
    let newest = state.newest(def, &claims.namespace, &claims.name).await?;
    Ok(newest.is_some_and(|object| is(&object.value)))
}

/// The identity that the value of an `Authorization` header proves.
///
/// # Errors
/// 401 for everything that is no good token: what is shown and wrong is not outweighed by anything else.
pub(crate) async fn authenticate(state: &State, header: &http::HeaderValue) -> ApiResult<Identity> {
    let bearer = header.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let Some(token) = bearer else { return Err(ApiError::unauthorized()) };
    if join_tokens::parse(token).is_some() {
        return join_tokens::identify(state, token).await?.ok_or_else(ApiError::unauthorized);
    }
    let known = identify(state, token, &[]).await?;
    known.map(|(identity, _)| identity).ok_or_else(ApiError::unauthorized)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_good_for_their_time_and_audience_only() {
        let account = json!({"metadata": {"name": "ci", "namespace": "ha", "uid": "u-1"}});
        let own = [ISSUER.to_owned()];
        let good = claims(&account, &own, 1000, 600, "id");
        let found = read(&good, &own, 1000).expect("good");
        assert_eq!((found.namespace.as_str(), found.name.as_str(), found.uid.as_str()), ("ha", "ci", "u-1"));
        assert!(read(&good, &own, 1599).is_some());
        for (claims, audience, now) in [(&good, ISSUER, 1600), (&good, ISSUER, 999), (&good, "vault", 1000)] {
            assert_eq!(read(claims, &[audience.to_owned()], now), None);
        }
        for (field, value) in [
            ("iss", json!("x")),
            ("sub", json!("system:serviceaccount:ha:root")),
            ("exp", json!("9999")),
            ("aud", json!(ISSUER)),
        ] {
            let mut other = good.clone();
            other[field] = value;
            assert_eq!(read(&other, &own, 1000), None, "{field}");
        }
    }
}
