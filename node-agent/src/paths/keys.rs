//! The keys in use, shared by all threads that seal or open, and which of them seals.
//!
//! A new key comes to every server at another moment. A server seals with the highest key that it and everybody whom it
//! hears hold, so nobody is sent what he can't open, whatever the order (api.md, RotateKey). Every envelope says what
//! the highest key of its sender is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use holdfast_core::names::ServerName;
use holdfast_core::time::Instant;

use super::seal::{Keyring, SealError};

/// A server that was silent for so long holds no key back; when it is heard again, it counts again.
pub const HEARD_FOR: Duration = Duration::from_secs(60);

/// The keys, or none before the Secret was read for the first time.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    ring: RwLock<Option<Arc<Keyring>>>,
    /// The highest key of every server, and when it said so.
    others: Mutex<BTreeMap<ServerName, (u32, Instant)>>,
}

/// Which keys a server has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyState {
    /// The one that seals.
    pub sealing: Option<u32>,
    /// Those that open.
    pub held: Vec<u32>,
}

impl Keys {
    /// The keys in force.
    pub fn current(&self) -> Result<Arc<Keyring>, SealError> {
        self.inner.ring.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(SealError::NoKey)
    }

    /// Puts keys into force. The one that sealed before goes on if it is still among them.
    pub fn replace(&self, ring: Keyring, now: Instant) {
        let before = self.current().ok().map(|ring| ring.sealing());
        let lowest = ring.numbers().next();
        ring.seal_with(before.filter(|number| ring.numbers().any(|n| n == *number)).or(lowest).unwrap_or_default());
        *self.inner.ring.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(ring));
        self.choose(now);
    }

    /// An authentic envelope of `server` said what its highest key is.
    pub fn heard(&self, server: &ServerName, highest: u32, now: Instant) {
        let mut others = self.inner.others.lock().unwrap_or_else(PoisonError::into_inner);
        let before = others.insert(server.clone(), (highest, now));
        drop(others);
        if before.is_none_or(|(key, _)| key != highest) {
            self.choose(now);
        }
    }

    /// Chooses the key that seals from now on. Called whenever something changed, and before every heartbeat.
    pub fn choose(&self, now: Instant) {
        let Ok(ring) = self.current() else { return };
        let others = self.inner.others.lock().unwrap_or_else(PoisonError::into_inner);
        let heard: Vec<u32> =
            others.values().filter(|(_, at)| now.since(*at) < HEARD_FOR).map(|(key, _)| *key).collect();
        drop(others);
        let chosen = choice(&ring.numbers().collect::<Vec<_>>(), ring.sealing(), &heard);
        if chosen != ring.sealing() {
            tracing::info!("key {chosen} seals from now on, it was key {}", ring.sealing());
            ring.seal_with(chosen);
        }
    }

    /// Which keys there are, for the status.
    pub fn state(&self) -> KeyState {
        match self.current() {
            Ok(ring) => KeyState { sealing: Some(ring.sealing()), held: ring.numbers().collect() },
            Err(_) => KeyState::default(),
        }
    }
}

/// The key that seals: the highest own one that everybody heard holds; if there is none, the lowest, which is what a
/// server that has not read the newest Secret holds. Alone: what sealed before.
fn choice(own: &[u32], before: u32, heard: &[u32]) -> u32 {
    match heard.iter().min() {
        None => before,
        Some(all) => own.iter().rev().find(|key| *key <= all).or(own.first()).copied().unwrap_or(before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_seals_when_everybody_who_is_heard_has_it() {
        assert_eq!(choice(&[1], 1, &[1, 1]), 1);
        assert_eq!(choice(&[1, 2], 1, &[1, 2]), 1, "one has not read it yet");
        assert_eq!(choice(&[1, 2], 1, &[2, 2]), 2);
        assert_eq!(choice(&[1, 2], 2, &[2, 1]), 1, "one came back with an old Secret");
        assert_eq!(choice(&[2], 2, &[2, 1]), 2, "the old key was taken away: it is refused");
        assert_eq!(choice(&[1, 2], 1, &[]), 1, "nobody is there to be asked");
        assert_eq!(choice(&[1], 1, &[3]), 1, "others are ahead");
    }

    #[test]
    fn who_is_silent_holds_nothing_back() {
        let ring = |keys: &[u32]| {
            let data = keys.iter().map(|key| (key.to_string(), vec![*key as u8; 32])).collect();
            Keyring::new("ha", "db", &data, 1).expect("keys")
        };
        let (keys, now) = (Keys::default(), Instant(1_000_000_000));
        keys.replace(ring(&[1]), now);
        keys.heard(&"b".into(), 1, now);
        keys.heard(&"c".into(), 1, now);
        keys.replace(ring(&[1, 2]), now);
        keys.heard(&"b".into(), 2, now);
        assert_eq!(keys.state(), KeyState { sealing: Some(1), held: vec![1, 2] });
        let later = now + HEARD_FOR;
        keys.heard(&"b".into(), 2, later);
        keys.choose(later);
        assert_eq!(keys.state().sealing, Some(2));
        keys.replace(ring(&[2]), later);
        assert_eq!(keys.state(), KeyState { sealing: Some(2), held: vec![2] });
    }
}
