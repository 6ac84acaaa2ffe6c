//! What a server is given to join with, and what it keeps of it.

use holdfast_agent::join::JoinToken;
use holdfast_agent::join::credentials::Credentials;

use crate::targets::Target;

/// The text of a join token.
pub(crate) struct JoinTokens;

impl JoinTokens {
    fn read(input: &[u8]) -> Option<JoinToken> {
        std::str::from_utf8(input).ok()?.parse().ok()
    }
}

impl Target for JoinTokens {
    fn valid(&self) -> Vec<Vec<u8>> {
        vec![JoinToken::generate(&format!("sha256:{}", "0f".repeat(32))).to_string().into_bytes()]
    }

    fn takes(&self, input: &[u8]) -> bool {
        JoinTokens::read(input).is_some()
    }

    fn check(&self, input: &[u8]) {
        let Some(token) = JoinTokens::read(input) else { return };
        assert_eq!(token.to_string().parse(), Ok(token.clone()), "a token that is taken is written in its form");
        assert_eq!((token.id().len(), token.secret().len(), token.ca().len()), (6, 16, 71));
    }
}

/// The agent's kubeconfig.
pub(crate) struct AgentCredentials {
    valid: String,
}

impl AgentCredentials {
    pub(crate) fn new() -> AgentCredentials {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "holdfast:server:ha:db:db1");
        let certificate = params.self_signed(&key).expect("signed").pem();
        let user = "holdfast:server:ha:db:db1";
        let url = "https://10.0.0.9:6443";
        AgentCredentials {
            valid: holdfast_agent::join::credentials::kubeconfig(url, &certificate, user, &certificate, &key),
        }
    }
}

impl Target for AgentCredentials {
    fn valid(&self) -> Vec<Vec<u8>> {
        vec![self.valid.clone().into_bytes()]
    }

    fn takes(&self, input: &[u8]) -> bool {
        std::str::from_utf8(input).is_ok_and(|text| Credentials::parse(text).is_ok())
    }

    fn check(&self, input: &[u8]) {
        let Ok(found) = Credentials::parse(&String::from_utf8_lossy(input)) else { return };
        // Whatever stands there, the next certificate is due within the life of this one.
        assert!(found.not_after < found.not_before || (found.not_before..=found.not_after).contains(&found.due()));
    }
}
