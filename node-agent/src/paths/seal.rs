//! Sealing of everything that servers say to each other: only who has the sub-cluster's key can read or write it.
//!
//! ChaCha20-Poly1305 with the extended nonce (XChaCha20): 16 random bytes of this process and a counter, so that a nonce
//! never repeats, not over restarts, servers or reverted virtual machines. Namespace, sub-cluster and path are bound in,
//! so nothing said on one path or in another sub-cluster counts here. Replays are the core's matter: it drops frames
//! that are not newer, and messages name the boot and the view that they belong to.
//!
//! ```text
//! byte 0       version: 3
//! byte 1       kind: 1 frame, 2 message
//! bytes 2-5    number of the key, little-endian
//! bytes 6-9    highest number of a key that the sender has
//! bytes 10-33  nonce: 16 bytes of the process, 8 of the counter
//! bytes 34-    cipher text and 16 bytes of authentication
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// Form of frames and messages. It changes with them, so that an agent of before refuses what it would misread.
const VERSION: u8 = 4;
const BOUND: usize = 10;
const HEAD: usize = BOUND + 24;
/// Size of the authentication of a serial line's frame, in bytes.
pub const TAG: usize = 10;
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

/// All keys of a sub-cluster: one seals ([`super::keys::Keys`] says which), all open (so that a new key can be brought to
/// all servers before the first one uses it).
pub struct Keyring {
    domain: Vec<u8>,
    keys: BTreeMap<u32, Key>,
    sealing: AtomicU32,
    process: [u8; 16],
    counter: AtomicU64,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("keys", &self.keys.keys()).finish_non_exhaustive()
    }
}

/// What is derived from one entry of the Secret.
struct Key {
    cipher: XChaCha20Poly1305,
    /// For serial lines.
    line: Hmac<Sha256>,
}

/// What was in an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What it is.
    pub kind: Kind,
    /// The highest key of the sender.
    pub highest: u32,
    /// What it says.
    pub content: Vec<u8>,
}

impl Keyring {
    /// Keys from the data of the Secret. `process` is a random number of this process.
    pub fn new(
        namespace: &str,
        sub_cluster: &str,
        data: &BTreeMap<String, Vec<u8>>,
        process: u128,
    ) -> Result<Keyring, KeyError> {
        let mut keys = BTreeMap::new();
        for (name, bytes) in data {
            let number: u32 = name.parse().map_err(|_| KeyError::Name(name.clone()))?;
            if bytes.len() < MIN_KEY {
                return Err(KeyError::Short { name: number, found: bytes.len() });
            }
            let derived = |purpose: &[u8]| Sha256::new().chain_update(purpose).chain_update(bytes).finalize();
            let cipher = XChaCha20Poly1305::new(&derived(b"holdfast.dev heartbeat key\0"));
            let line = KeyInit::new_from_slice(&derived(b"holdfast.dev serial key\0"));
            let line = line.map_err(|_| KeyError::Name(name.clone()))?;
            keys.insert(number, Key { cipher, line });
        }
        let Some((lowest, _)) = keys.first_key_value() else { return Err(KeyError::Empty) };
        let sealing = AtomicU32::new(*lowest);
        let domain = format!("{namespace}/{sub_cluster}/").into_bytes();
        Ok(Keyring { domain, keys, sealing, process: process.to_le_bytes(), counter: AtomicU64::new(0) })
    }

    /// The numbers of the keys, lowest first.
    pub fn numbers(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.keys.keys().copied()
    }

    /// The number of the key that seals; the lowest at first.
    pub fn sealing(&self) -> u32 {
        self.sealing.load(Ordering::Relaxed)
    }

    /// Seals with this key from now on, if it is one.
    pub fn seal_with(&self, number: u32) {
        if self.keys.contains_key(&number) {
            self.sealing.store(number, Ordering::Relaxed);
        }
    }

    /// The error for an envelope whose key this server doesn't have.
    pub(super) fn unknown(&self, found: u32) -> SealError {
        let known = self.numbers().map(|number| number.to_string()).collect::<Vec<_>>().join(", ");
        SealError::UnknownKey { found, known }
    }

    /// Authenticates what is said on a serial line, with one of the keys.
    pub fn tag(&self, number: u32, path: &str, said: &[u8]) -> Option<[u8; TAG]> {
        self.mac(number, path, said)?.finalize().into_bytes().first_chunk().copied()
    }

    /// Whether [`Keyring::tag`] gives this. Takes the same time for every wrong one.
    pub fn verifies(&self, number: u32, path: &str, said: &[u8], tag: &[u8]) -> bool {
        tag.len() == TAG && self.mac(number, path, said).is_some_and(|mac| mac.verify_truncated_left(tag).is_ok())
    }

    fn mac(&self, number: u32, path: &str, said: &[u8]) -> Option<Hmac<Sha256>> {
        // What is said has a fixed length, so it can't be confused with a part of the path.
        Some(self.keys.get(&number)?.line.clone().chain_update(self.bound(said, path)))
    }

    /// Seals for one path.
    pub fn seal(&self, kind: Kind, path: &str, content: &[u8]) -> Result<Vec<u8>, SealError> {
        let number = self.sealing();
        let cipher = &self.keys.get(&number).ok_or(SealError::NoKey)?.cipher;
        let (highest, _) = self.keys.last_key_value().ok_or(SealError::NoKey)?;
        let mut out = Vec::with_capacity(HEAD + content.len() + 16);
        out.extend_from_slice(&[VERSION, kind as u8]);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&highest.to_le_bytes());
        out.extend_from_slice(&self.process);
        out.extend_from_slice(&self.counter.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let aad = self.bound(&out[..BOUND], path);
        let sealed = cipher
            .encrypt(XNonce::from_slice(&out[BOUND..HEAD]), Payload { msg: content, aad: &aad })
            .map_err(|_| SealError::Malformed(content.len()))?;
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens what came on one path.
    pub fn open(&self, path: &str, envelope: &[u8]) -> Result<Opened, SealError> {
        let Some((head, sealed)) = envelope.split_at_checked(HEAD) else {
            return Err(SealError::Malformed(envelope.len()));
        };
        let kind = match (head[0], head[1]) {
            (VERSION, 1) => Kind::Frame,
            (VERSION, 2) => Kind::Message,
            _ => return Err(SealError::Malformed(envelope.len())),
        };
        let number = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
        let highest = u32::from_le_bytes([head[6], head[7], head[8], head[9]]);
        let cipher = &self.keys.get(&number).ok_or_else(|| self.unknown(number))?.cipher;
        let aad = self.bound(&head[..BOUND], path);
        let content = cipher
            .decrypt(XNonce::from_slice(&head[BOUND..HEAD]), Payload { msg: sealed, aad: &aad })
            .map_err(|_| SealError::Authentication(number))?;
        Ok(Opened { kind, highest, content })
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
        let opened = Opened { kind: Kind::Frame, highest: 1, content: b"hello".to_vec() };
        assert_eq!(b.open("ic", &sealed), Ok(opened));
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
        let still_old = new.seal(Kind::Frame, "ic", b"x").unwrap();
        assert_eq!(old.open("ic", &still_old).unwrap().highest, 2, "the old key, and word of the new one");
        new.seal_with(2);
        let by_new = new.seal(Kind::Frame, "ic", b"x").unwrap();
        assert_eq!(old.open("ic", &by_new), Err(SealError::UnknownKey { found: 2, known: "1".to_owned() }));
        assert_eq!(ring("db", &[("2", 9), ("10", 1)]).sealing(), 2, "ten is more than two");
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
