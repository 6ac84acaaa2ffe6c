//! Durations as people write them in manifests: `500ms`, `30s`, `1m30s`.
//!
//! The text is kept as written, so that an object read back equals the object applied. Ranges of single fields are not
//! checked here: they are rules of the schema, and [`Duration::check_range`] serves whoever checks one in Rust.

use std::{fmt, str::FromStr, time};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time: whole or decimal numbers with the units `ms`, `s`, `m`, `h`, largest first or not, for example
/// `500ms`, `1m30s`, `1.5h`. Reported values may also use `us`.
///
/// Two durations are equal when they are equally long, however they are written.
#[derive(Clone)]
pub struct Duration {
    text: String,
    value: time::Duration,
}

/// The longest text that a duration may have.
pub const MAX_LENGTH: usize = 32;

/// What durations in a spec look like.
pub const PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$";

/// What reported durations look like; measurements may be shorter than a millisecond.
pub const REPORTED_PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(us|ms|s|m|h))+$";

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing was written.
    #[error("a duration is empty; write a number with a unit, for example 500ms, 30s or 1m30s")]
    Empty,
    /// A number without a unit, or a unit that does not exist.
    #[error("{0:?} is not a duration; write numbers with the units ms, s, m, h, for example 500ms, 30s or 1m30s")]
    Malformed(String),
    /// More than the longest length that can be represented, or more text than a duration needs.
    #[error("{0:?} is too long for a duration")]
    TooLarge(String),
}

impl Duration {
    /// How long it is.
    pub fn get(&self) -> time::Duration {
        self.value
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `n` milliseconds, written in the largest unit that divides them.
    pub fn from_millis(n: u64) -> Self {
        Self::from(time::Duration::from_millis(n))
    }

    /// `n` seconds, written in the largest unit that divides them.
    pub fn from_secs(n: u64) -> Self {
        Self::from(time::Duration::from_secs(n))
    }

    /// Says what is wrong when the length lies outside `min..=max`; both bounds are part of the message.
    pub fn check_range(&self, min: time::Duration, max: time::Duration) -> Result<(), String> {
        if (min..=max).contains(&self.value) {
            Ok(())
        } else {
            Err(format!("{} is outside {}..{}", self.text, Self::from(min), Self::from(max)))
        }
    }
}

impl From<time::Duration> for Duration {
    /// The shortest text without fractions; below one microsecond the length is rounded down.
    fn from(value: time::Duration) -> Self {
        let us = value.as_micros();
        let text = match us {
            0 => "0ms".to_string(),
            _ if us.is_multiple_of(3_600_000_000) => format!("{}h", us / 3_600_000_000),
            _ if us.is_multiple_of(60_000_000) => format!("{}m", us / 60_000_000),
            _ if us.is_multiple_of(1_000_000) => format!("{}s", us / 1_000_000),
            _ if us.is_multiple_of(1_000) => format!("{}ms", us / 1_000),
            _ => format!("{us}us"),
        };
        Self { text, value: time::Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX)) }
    }
}

impl FromStr for Duration {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(ParseError::TooLarge(text.chars().take(MAX_LENGTH).collect()));
        }
        let malformed = || ParseError::Malformed(text.to_string());
        let too_large = || ParseError::TooLarge(text.to_string());
        let mut nanos: u128 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(malformed)?;
            let whole: u128 = rest[..digits].parse().map_err(|_| malformed())?;
            rest = &rest[digits..];
            let mut fraction = "";
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(|c: char| !c.is_ascii_digit()).ok_or_else(malformed)?;
                if end == 0 {
                    return Err(malformed());
                }
                (fraction, rest) = after.split_at(end);
            }
            let (unit, scale): (&str, u128) = [
                ("ms", 1_000_000),
                ("us", 1_000),
                ("s", 1_000_000_000),
                ("m", 60_000_000_000),
                ("h", 3_600_000_000_000),
            ]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))
            .ok_or_else(malformed)?;
            rest = &rest[unit.len()..];
            nanos = whole.checked_mul(scale).and_then(|n| nanos.checked_add(n)).ok_or_else(too_large)?;
            let mut step = scale;
            for digit in fraction.bytes() {
                step /= 10;
                nanos += u128::from(digit - b'0') * step;
            }
        }
        let value = u64::try_from(nanos).map(time::Duration::from_nanos).map_err(|_| too_large())?;
        Ok(Self { text: text.to_string(), value })
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Duration {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for Duration {}

impl PartialOrd for Duration {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Duration {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.value.cmp(&other.value)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "maxLength": MAX_LENGTH, "pattern": PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_and_lengths_known() {
        for (text, millis) in
            [("500ms", 500), ("30s", 30_000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("0ms", 0), ("60s", 60_000)]
        {
            let duration: Duration = text.parse().expect(text);
            assert_eq!(duration.get(), time::Duration::from_millis(millis));
            assert_eq!(serde_json::to_string(&duration).expect("a text"), format!("{text:?}"));
        }
        assert_eq!("210us".parse::<Duration>().expect("reported").get(), time::Duration::from_micros(210));
        assert_eq!("1m".parse::<Duration>(), "60s".parse());
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "5", "s", "1 s", "-1s", "1.s", ".5s", "1d", "1e3s", "1S", "99999999999h", "1s 2m"] {
            assert!(text.parse::<Duration>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn lengths_are_written_shortly() {
        for (millis, text) in
            [(0, "0ms"), (748, "748ms"), (1100, "1100ms"), (3000, "3s"), (60_000, "1m"), (7_200_000, "2h")]
        {
            assert_eq!(Duration::from_millis(millis).as_str(), text);
        }
        let short = Duration::from(time::Duration::from_micros(1500));
        assert_eq!(short.as_str(), "1500us");
        let range = short.check_range(time::Duration::from_millis(2), time::Duration::from_secs(1));
        assert_eq!(range, Err("1500us is outside 2ms..1s".to_string()));
    }
}
