//! The text of a join token: what it shows to the API server, and by what it knows that server.

use std::fmt;
use std::str::FromStr;

use rand::Rng as _;

/// `ID.SECRET:sha256:FINGERPRINT`, e.g. `f0a1b2.0123456789abcdef:sha256:` and 64 hexadecimal digits. Before the colon it is
/// a bootstrap token of Kubernetes, after it the CA's fingerprint as kubeadm writes it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: String,
    secret: String,
    ca: String,
}

/// Letters of ids and secrets.
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID: usize = 6;
const SECRET: usize = 16;

/// Why a text is no join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no join token: {0}; one has the form ID.SECRET:sha256:FINGERPRINT, 6 and 16 characters of a-z and 0-9 and 64 \
     hexadecimal digits, and is made by `holdfast token create`"
)]
pub struct TokenError(&'static str);

impl JoinToken {
    /// A new token for servers of the CA with this fingerprint (`sha256:` and 64 hexadecimal digits).
    pub fn generate(ca: &str) -> JoinToken {
        let mut random = rand::rng();
        let mut text =
            |length| (0..length).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
        JoinToken { id: text(ID), secret: text(SECRET), ca: ca.to_owned() }
    }

    /// Its public part.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its secret part.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Fingerprint of the CA.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// What is shown to the API server.
    pub(crate) fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.bearer(), self.ca)
    }
}

/// Without the secret.
impl fmt::Debug for JoinToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "JoinToken({}, {})", self.id, self.ca)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<JoinToken, TokenError> {
        let (bearer, ca) = text.trim().split_once(':').ok_or(TokenError("it has no fingerprint"))?;
        let (id, secret) = bearer.split_once('.').ok_or(TokenError("it has no secret"))?;
        let is = |text: &str, length| text.len() == length && text.bytes().all(|byte| LETTERS.contains(&byte));
        if !is(id, ID) || !is(secret, SECRET) {
            return Err(TokenError("its id or its secret is of another form"));
        }
        let digits = ca.strip_prefix("sha256:").ok_or(TokenError("its fingerprint does not begin with sha256:"))?;
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(TokenError("its fingerprint has not 64 hexadecimal digits"));
        }
        Ok(JoinToken { id: id.to_owned(), secret: secret.to_owned(), ca: ca.to_ascii_lowercase() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_anything_else_is_refused_with_its_form() {
        let ca = format!("sha256:{}", "0a".repeat(32));
        let token = JoinToken::generate(&ca);
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_ne!(JoinToken::generate(&ca).bearer(), token.bearer());
        assert!(!format!("{token:?}").contains(token.secret()), "what is logged does not hold the secret");
        for wrong in [
            "",
            "abcdef.0123456789abcdef",
            "abcdef:sha256:00",
            &format!("abcdef.0123456789abcdeF:{ca}"),
            &format!("{token}0"),
        ] {
            let error = wrong.parse::<JoinToken>().expect_err(wrong).to_string();
            assert!(error.contains("ID.SECRET:sha256:FINGERPRINT"), "{wrong}: {error}");
        }
    }
}
