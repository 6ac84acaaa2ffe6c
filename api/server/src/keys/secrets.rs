//! Sealing of Secrets at rest: who has the store's file, or a backup of it, can't read them without the key.
//!
//! XChaCha20-Poly1305 with 24 random bytes as nonce, so many that they never meet. The key of the entry in the store is
//! bound in: a value that somebody moves to another name does not open there.
//!
//! ```text
//!  holdfast:sealed:v1:KEYID:  readable: which key has sealed it, 12 hexadecimal digits
//!  24 bytes                   nonce
//!  rest                       cipher text and 16 bytes of authentication
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, AeadCore, OsRng, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};

use super::{id, lines};

/// How every sealed value begins. No object does: they are JSON.
const HEAD: &[u8] = b"holdfast:sealed:v1:";
const KEY_LENGTH: usize = 32;
const ID_LENGTH: usize = 12;
const NONCE_LENGTH: usize = 24;

/// The keys of `secrets.keys`.
pub struct SecretKeys {
    /// Id and cipher; the first one seals.
    keys: Vec<(String, XChaCha20Poly1305)>,
}

/// The text of a new key file.
pub(super) fn generate() -> String {
    let key = XChaCha20Poly1305::generate_key(&mut OsRng);
    format!("# Keys that seal Secrets in the store. The first one seals, all of them open.\n{}\n", STANDARD.encode(key))
}

/// The id of the key that has sealed a value; none if the value is not sealed.
pub(crate) fn sealed_with(value: &[u8]) -> Option<&str> {
    let rest = value.strip_prefix(HEAD)?;
    let (id, rest) = rest.split_at_checked(ID_LENGTH)?;
    (rest.first() == Some(&b':')).then_some(())?;
    std::str::from_utf8(id).ok().filter(|id| id.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl SecretKeys {
    /// Reads the text of a key file: one key of 32 bytes per line, in base64.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<SecretKeys, String> {
        let mut keys = Vec::new();
        for key in lines(text)? {
            let cipher = XChaCha20Poly1305::new_from_slice(&key).map_err(|_| {
                format!(
                    "a key has {} bytes; it has to have {KEY_LENGTH} (`head -c 32 /dev/urandom | base64`)",
                    key.len()
                )
            })?;
            keys.push((id("secrets", &key), cipher));
        }
        Ok(SecretKeys { keys })
    }

    /// The ids of the keys; the first is the one that seals.
    pub fn ids(&self) -> Vec<String> {
        self.keys.iter().map(|(id, _)| id.clone()).collect()
    }

    /// Seals a value for its place in the store.
    pub(crate) fn seal(&self, place: &str, value: &[u8]) -> Option<Vec<u8>> {
        let (id, cipher) = self.keys.first()?;
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let sealed = cipher.encrypt(&nonce, Payload { msg: value, aad: place.as_bytes() }).ok()?;
        Some([HEAD, id.as_bytes(), b":", &nonce, &sealed].concat())
    }

    /// Opens what was sealed for this place; the error says why it doesn't open.
    ///
    /// # Errors
    /// A key that is not in the file, or a value that was changed or moved.
    pub fn open(&self, place: &str, value: &[u8]) -> Result<Vec<u8>, String> {
        let found = sealed_with(value).ok_or("it is not sealed")?;
        let Some((_, cipher)) = self.keys.iter().find(|(id, _)| id == found) else {
            return Err(format!(
                "it is sealed with the key {found}, and pki/secrets.keys here has {}; copy that file from the server \
                 that wrote it",
                self.ids().join(", ")
            ));
        };
        let (nonce, sealed) = value[HEAD.len() + ID_LENGTH + 1..]
            .split_at_checked(NONCE_LENGTH)
            .ok_or("it is cut off after the name of its key")?;
        cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: place.as_bytes() }).map_err(|_| {
            format!("it was sealed with the key {found}, but was changed since, or belongs to another name")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_at_its_own_place_only_and_with_every_key_of_the_file() {
        let (old, new) = (generate(), generate());
        let (first, both) =
            (SecretKeys::parse(&old).expect("a key"), SecretKeys::parse(&format!("{new}{old}")).expect("two keys"));
        let sealed = first.seal("/a", b"hunter2").expect("sealed");
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        assert_eq!(both.open("/a", &sealed).expect("opened"), b"hunter2");
        assert!(both.open("/b", &sealed).expect_err("moved").contains("another name"));
        let newer = both.seal("/a", b"hunter2").expect("sealed");
        assert!(first.open("/a", &newer).expect_err("no key").contains("copy that file"));
        let mut changed = sealed.clone();
        *changed.last_mut().expect("bytes") ^= 1;
        assert!(both.open("/a", &changed).is_err());
        assert_ne!(first.seal("/a", b"hunter2"), Some(sealed), "no nonce comes twice");
    }

    #[test]
    fn a_wrong_key_file_is_refused_with_what_is_allowed() {
        for (text, part) in [("", "0 keys"), ("# x\n", "0 keys"), ("!", "no base64"), ("AAAA", "has 3 bytes")] {
            let error = SecretKeys::parse(text).err().expect("refused");
            assert!(error.contains(part), "{text}: {error}");
        }
        let key = generate();
        assert!(SecretKeys::parse(&format!("{key}{key}")).err().expect("refused").contains("the same key"));
    }
}
