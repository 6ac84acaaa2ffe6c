//! Sealing of everything that servers say to each other: only who has the sub-cluster's key can read or write it.
//!
//! ChaCha20-Poly1305 with the extended nonce (XChaCha20): 16 random bytes of this process and a counter, so that a nonce
//! never repeats, not over restarts, servers or reverted virtual machines. Namespace, sub-cluster and path are bound in,
//! so nothing said on one path or in another sub-cluster counts here. Replays are the core's matter: it drops frames
//! that are not newer, and messages name the boot and the view that they belong to.
//!
//! ```text
//! byte 0      version: 1
//! byte 1      kind: 1 frame, 2 message
//! bytes 2-5   number of the key, little-endian
//! bytes 6-29  nonce: 16 bytes of the process, 8 of the counter
//! bytes 30-   cipher text and 16 bytes of authentication
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};

const VERSION: u8 = 1;
const HEAD: usize = 30;
/// The fewest bytes that a key may have.
pub const MIN_KEY: usize = 16;

/// What is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A heartbeat.
    Frame = 1,
    /// A message.
    Message = 2,
}

/// Why something sealed is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not ours.
    #[error("{0} bytes that are no Holdfast envelope")]
    Malformed(usize),
    /// Sealed with a key that this server doesn't have.
    #[error("sealed with key {found}, this server has {known}")]
    UnknownKey {
        /// Its number.
        found: u32,
        /// The numbers that are known.
        known: String,
    },
    /// Wrong key bytes, wrong path or sub-cluster, or changed under way.
    #[error("the authentication fails: another key {0}, another sub-cluster or path, or changed under way")]
    Authentication(u32),
    /// There is no key yet.
    #[error("there is no key yet")]
    NoKey,
}

/// Why a Secret holds no usable keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is empty.
    #[error("the key Secret has no data; it needs at least one entry, named by a number, with {MIN_KEY} or more bytes")]
    Empty,
    /// A name is no number.
    #[error("the key Secret has the entry {0:?}; names are numbers, the highest one seals")]
    Name(String),
    /// Too short to be secret.
    #[error("key {name} has {found} bytes; at least {MIN_KEY} random bytes are needed")]
    Short {
        /// The number.
        name: u32,
        /// Its length.
        found: usize,
    },
}

/// All keys of a sub-cluster: the highest number seals, all open (so that a new key can be brought to all servers
/// before the first one uses it).
pub struct Keyring {
    domain: Vec<u8>,
    ciphers: BTreeMap<u32, XChaCha20Poly1305>,
    process: [u8; 16],
    counter: AtomicU64,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("keys", &self.ciphers.keys()).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Keys from the data of the Secret. `process` is a random number of this process.
    pub fn new(
        namespace: &str,
        sub_cluster: &str,
        data: &BTreeMap<String, Vec<u8>>,
        process: u128,
    ) -> Result<Keyring, KeyError> {
        let mut ciphers = BTreeMap::new();
        for (name, bytes) in data {
            let number: u32 = name.parse().map_err(|_| KeyError::Name(name.clone()))?;
            if bytes.len() < MIN_KEY {
                return Err(KeyError::Short { name: number, found: bytes.len() });
            }
            let key = Sha256::new().chain_update(b"holdfast.dev heartbeat key\0").chain_update(bytes).finalize();
            ciphers.insert(number, XChaCha20Poly1305::new(&key));
        }
        if ciphers.is_empty() {
            return Err(KeyError::Empty);
        }
        let domain = format!("{namespace}/{sub_cluster}/").into_bytes();
        Ok(Keyring { domain, ciphers, process: process.to_le_bytes(), counter: AtomicU64::new(0) })
    }

    /// Seals for one path.
    pub fn seal(&self, kind: Kind, path: &str, content: &[u8]) -> Result<Vec<u8>, SealError> {
        let (number, cipher) = self.ciphers.last_key_value().ok_or(SealError::NoKey)?;
        let mut out = Vec::with_capacity(HEAD + content.len() + 16);
        out.extend_from_slice(&[VERSION, kind as u8]);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&self.process);
        out.extend_from_slice(&self.counter.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let aad = self.bound(&out[..6], path);
        let sealed = cipher
            .encrypt(XNonce::from_slice(&out[6..HEAD]), Payload { msg: content, aad: &aad })
            .map_err(|_| SealError::Malformed(content.len()))?;
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens what came on one path.
    pub fn open(&self, path: &str, envelope: &[u8]) -> Result<(Kind, Vec<u8>), SealError> {
        let Some((head, sealed)) = envelope.split_at_checked(HEAD) else {
            return Err(SealError::Malformed(envelope.len()));
        };
        let kind = match (head[0], head[1]) {
            (VERSION, 1) => Kind::Frame,
            (VERSION, 2) => Kind::Message,
            _ => return Err(SealError::Malformed(envelope.len())),
        };
        let number = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
        let cipher = self.ciphers.get(&number).ok_or_else(|| SealError::UnknownKey {
            found: number,
            known: self.ciphers.keys().map(u32::to_string).collect::<Vec<_>>().join(", "),
        })?;
        let aad = self.bound(&head[..6], path);
        let content = cipher
            .decrypt(XNonce::from_slice(&head[6..HEAD]), Payload { msg: sealed, aad: &aad })
            .map_err(|_| SealError::Authentication(number))?;
        Ok((kind, content))
    }

    fn bound(&self, head: &[u8], path: &str) -> Vec<u8> {
        [head, &self.domain, path.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(sub_cluster: &str, keys: &[(&str, u8)]) -> Keyring {
        let data = keys.iter().map(|(name, byte)| ((*name).to_owned(), vec![*byte; 32])).collect();
        Keyring::new("ha", sub_cluster, &data, rand::random()).unwrap()
    }

    #[test]
    fn only_the_same_key_path_and_sub_cluster_open_an_envelope() {
        let (a, b) = (ring("db", &[("1", 7)]), ring("db", &[("1", 7)]));
        let sealed = a.seal(Kind::Frame, "ic", b"hello").unwrap();
        assert!(!sealed.windows(5).any(|w| w == b"hello"));
        assert_eq!(b.open("ic", &sealed), Ok((Kind::Frame, b"hello".to_vec())));
        assert_eq!(b.open("pub", &sealed), Err(SealError::Authentication(1)));
        assert_eq!(ring("web", &[("1", 7)]).open("ic", &sealed), Err(SealError::Authentication(1)));
        assert_eq!(ring("db", &[("1", 8)]).open("ic", &sealed), Err(SealError::Authentication(1)));
        let mut as_message = sealed.clone();
        as_message[1] = 2;
        assert_eq!(b.open("ic", &as_message), Err(SealError::Authentication(1)));
        assert_ne!(a.seal(Kind::Frame, "ic", b"hello").unwrap(), sealed, "a nonce is used once");
    }

    #[test]
    fn a_key_can_be_changed_while_all_run() {
        let (old, new) = (ring("db", &[("1", 7)]), ring("db", &[("1", 7), ("2", 9)]));
        assert!(new.open("ic", &old.seal(Kind::Frame, "ic", b"x").unwrap()).is_ok());
        let by_new = new.seal(Kind::Frame, "ic", b"x").unwrap();
        assert_eq!(old.open("ic", &by_new), Err(SealError::UnknownKey { found: 2, known: "1".to_owned() }));
        assert!(ring("db", &[("2", 9), ("10", 1)]).open("ic", &by_new).is_ok(), "ten is more than two");
    }

    #[test]
    fn a_secret_without_usable_keys_is_refused_with_what_is_needed() {
        let refused = |name: &str, bytes: usize| {
            Keyring::new("ha", "db", &BTreeMap::from([(name.to_owned(), vec![0; bytes])]), 0).unwrap_err().to_string()
        };
        assert!(refused("key", 32).contains("\"key\"; names are numbers"));
        assert!(refused("1", 8).contains("key 1 has 8 bytes; at least 16"));
        assert_eq!(Keyring::new("ha", "db", &BTreeMap::new(), 0).unwrap_err(), KeyError::Empty);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_quietly(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(ring("db", &[("1", 7)]).open("ic", &bytes).is_err());
        }
    }
}
