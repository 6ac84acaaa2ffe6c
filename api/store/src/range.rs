//! Ranges of keys, the same for every backend: a prefix, cut off below by the last key already seen.

/// Keys from `low` (inclusive) to `high` (exclusive), as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) low: Vec<u8>,
    pub(crate) high: Vec<u8>,
}

impl Keys {
    /// The keys that start with `prefix` and come after the key `after`.
    pub(crate) fn page(prefix: &str, after: Option<&str>) -> Self {
        let low = match after {
            // Adding a zero byte gives the smallest key that is larger.
            Some(after) if after >= prefix => [after.as_bytes(), &[0]].concat(),
            // No key is empty, and etcd does not take an empty one as a bound.
            _ if prefix.is_empty() => vec![0],
            _ => prefix.as_bytes().to_vec(),
        };
        let mut high = prefix.as_bytes().to_vec();
        match high.last_mut() {
            // No byte of UTF-8 text is 0xff, so this cannot overflow.
            Some(last) => *last += 1,
            None => high.push(0xff),
        }
        Self { low, high }
    }

    /// Whether `key` lies in the range.
    pub(crate) fn contain(&self, key: &str) -> bool {
        let key = key.as_bytes();
        key >= self.low.as_slice() && key < self.high.as_slice()
    }
}
