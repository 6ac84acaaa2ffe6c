//! Signed tokens: JSON Web Tokens (RFC 7519) with ES256, the only algorithm that is made or taken.
//!
//! Here is only who signed what; what a token has to say, and until when it is good, is decided by who asks.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::KeyPair;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde_json::{Value, json};

use super::{id, lines};

/// Longest token that is looked at, in bytes. Those that are made here have less than 2,000.
const LONGEST: usize = 16 * 1024;

/// The keys of `tokens.keys`.
pub struct TokenKeys {
    /// Id and key; the first one signs.
    keys: Vec<(String, EcdsaKeyPair)>,
}

/// The text of a new key file.
pub(super) fn generate() -> String {
    let key = KeyPair::generate().expect("the system gives random bytes");
    format!(
        "# Keys that sign tokens of ServiceAccounts. The first one signs, all of them verify.\n{}\n",
        STANDARD.encode(key.serialize_der())
    )
}

impl TokenKeys {
    /// Reads the text of a key file: one P-256 key in PKCS#8 form per line, in base64.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<TokenKeys, String> {
        let mut keys = Vec::new();
        for key in lines(text)? {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &SystemRandom::new())
                .map_err(|error| {
                    format!(
                        "a line is no P-256 key in PKCS#8 form ({error}); one is made by `openssl genpkey -algorithm EC \
                         -pkeyopt ec_paramgen_curve:P-256 -outform DER | base64 -w0`"
                    )
                })?;
            keys.push((id("tokens", pair.public_key().as_ref()), pair));
        }
        Ok(TokenKeys { keys })
    }

    /// The ids of the keys; the first is the one that signs.
    pub fn ids(&self) -> Vec<String> {
        self.keys.iter().map(|(id, _)| id.clone()).collect()
    }

    /// Signs claims; none if the system gives no random numbers.
    pub fn sign(&self, claims: &Value) -> Option<String> {
        let (id, key) = self.keys.first()?;
        let head = json!({"alg": "ES256", "kid": id, "typ": "JWT"}).to_string();
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that one of these keys has signed; none for everything else.
    pub fn verify(&self, token: &str) -> Option<Value> {
        if token.len() > LONGEST {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let read = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let head: Value = serde_json::from_slice(&read(head)?).ok()?;
        // What says another algorithm is never looked at, so none can be talked into a weaker one.
        if head["alg"] != "ES256" {
            return None;
        }
        let (_, key) = self.keys.iter().find(|(id, _)| head["kid"] == id.as_str())?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key().as_ref());
        key.verify(signed.as_bytes(), &read(signature)?).ok()?;
        serde_json::from_slice(&read(claims)?).ok().filter(Value::is_object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_one_of_the_keys_has_signed_is_believed() {
        let (ours, theirs) = (generate(), generate());
        let keys = TokenKeys::parse(&ours).expect("a key");
        let claims = json!({"sub": "somebody"});
        let token = keys.sign(&claims).expect("signed");
        assert_eq!(keys.verify(&token), Some(claims.clone()));
        let others = TokenKeys::parse(&theirs).expect("a key");
        assert_eq!(others.verify(&token), None);
        let both = TokenKeys::parse(&format!("{theirs}{ours}")).expect("two keys");
        assert_eq!(both.verify(&token), Some(claims), "a key that no longer signs still verifies");

        let parts: Vec<&str> = token.split('.').collect();
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let other_claims = format!("{}.{}.{}", parts[0], encode(json!({"sub": "root"})), parts[2]);
        let unsigned = format!("{}.{}.", encode(json!({"alg": "none", "kid": keys.ids()[0]})), parts[1]);
        let hmac = format!("{}.{}.{}", encode(json!({"alg": "HS256", "kid": keys.ids()[0]})), parts[1], parts[2]);
        for wrong in [other_claims.as_str(), &unsigned, &hmac, "", ".", "..", "a.b.c", &token[..token.len() - 2]] {
            assert_eq!(keys.verify(wrong), None, "{wrong}");
        }
    }
}
