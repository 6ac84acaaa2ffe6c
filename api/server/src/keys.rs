//! What all API servers on one store share: the certificate authority, the keys that sign tokens and the keys that seal
//! Secrets. Files of the directory `pki`, made once per store and copied to every further server.
//!
//! ```text
//!  DIR/pki/ca.{crt,key}      certificate authority
//!  DIR/pki/tokens.keys       keys that sign tokens: the first signs, all of them verify
//!  DIR/pki/secrets.keys      keys that seal Secrets: the first seals, all of them open
//! ```
//!
//! Whether they belong to a store is decided in [`crate::authority`].

pub(crate) mod secrets;
pub(crate) mod tokens;

use std::io;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::pki::{Ca, PkiError, files};
pub use secrets::SecretKeys;
pub use tokens::TokenKeys;

/// Names of the shared files inside `pki`, as an operator copies them.
pub const FILES: [&str; 4] = ["ca.crt", "ca.key", TOKENS, SECRETS];
const TOKENS: &str = "tokens.keys";
const SECRETS: &str = "secrets.keys";
/// Most keys that a file may hold; more would be a mistake.
const MOST: usize = 16;

/// The keys of one store.
#[derive(Clone)]
pub struct Keys {
    ca: Arc<Ca>,
    tokens: Arc<TokenKeys>,
    secrets: Arc<SecretKeys>,
}

impl Keys {
    /// Reads the keys in `data_dir`. Does blocking disk access.
    ///
    /// # Errors
    /// See [`PkiError`]; [`PkiError::File`] with kind `NotFound` names the first file that is missing.
    pub fn load(data_dir: &Path) -> Result<Keys, PkiError> {
        let ca = Ca::load(data_dir)?;
        let dir = data_dir.join("pki");
        let tokens = parsed(&dir, TOKENS, TokenKeys::parse)?;
        let secrets = parsed(&dir, SECRETS, SecretKeys::parse)?;
        Ok(Keys { ca: Arc::new(ca), tokens: Arc::new(tokens), secrets: Arc::new(secrets) })
    }

    /// Reads the keys in `data_dir` and makes those that are missing. For a store that has none yet; see
    /// [`crate::authority::establish`].
    ///
    /// # Errors
    /// See [`PkiError`]. What is damaged is never replaced.
    pub fn load_or_create(data_dir: &Path) -> Result<Keys, PkiError> {
        Ca::load_or_create(data_dir)?;
        let dir = data_dir.join("pki");
        for (name, make) in [(TOKENS, tokens::generate as fn() -> String), (SECRETS, secrets::generate)] {
            let path = dir.join(name);
            if let Err(PkiError::File { source, .. }) = files::read(&path)
                && source.kind() == io::ErrorKind::NotFound
            {
                files::write(&path, &make())?;
            }
        }
        Keys::load(data_dir)
    }

    /// The certificate authority.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// The keys that sign tokens.
    pub fn tokens(&self) -> &TokenKeys {
        &self.tokens
    }

    /// The keys that seal Secrets.
    pub fn secrets(&self) -> &Arc<SecretKeys> {
        &self.secrets
    }
}

fn parsed<T>(dir: &Path, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, PkiError> {
    let path = dir.join(name);
    let text = files::read(&path)?;
    parse(&text).map_err(|problem| PkiError::Damaged { path, problem, dir: dir.to_path_buf() })
}

/// The keys of a file: one per line in base64, empty lines and lines with `#` left out.
fn lines(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = STANDARD.decode(line).map_err(|error| format!("line {number} is no base64: {error}"))?;
        if keys.contains(&key) {
            return Err(format!("line {number} holds the same key as a line before"));
        }
        keys.push(key);
    }
    if keys.is_empty() || keys.len() > MOST {
        return Err(format!("it holds {} keys; allowed are 1 to {MOST}, one per line in base64", keys.len()));
    }
    Ok(keys)
}

/// What a key is known by: the first 12 hexadecimal digits of a digest, which tells nothing about a secret key.
fn id(purpose: &str, key: &[u8]) -> String {
    let digest = Sha256::new().chain_update(purpose).chain_update([0]).chain_update(key).finalize();
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
