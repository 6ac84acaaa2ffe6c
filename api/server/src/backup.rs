//! A backup: everything that the store holds at one revision, and the certificates beside it, in one file.
//!
//! ```text
//! {"format":"holdfast-backup","version":1,"created":"2026-03-02T01:00:00Z","revision":4711}
//! {"key":"/registry/holdfast.dev/subclusters/ha/db","value":"<base64>"}
//! {"file":"pki/ca.crt","content":"<base64>"}
//! {"entries":1,"files":1,"sha256":"<hex, of all bytes before this line>"}
//! ```
//!
//! Lines of JSON, so that a backup can be read without this program. The last line makes a file that was cut off or changed
//! anywhere known as such. It is a secret: it holds the key of the certificate authority and every Secret.
//!
//! Not in it: Events, which end by themselves, and Leases. A lock that came back from the past would give twice what it gave
//! once; one that is missing is refused by agents until somebody makes it anew.

mod carry_out;

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holdfast_store::Revision;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use carry_out::{Restored, Unusable, is_left_out, keep_file, read_files, restore, write_files};

/// What the first line calls the format.
const FORMAT: &str = "holdfast-backup";
/// The version that this program writes and reads.
const VERSION: u64 = 1;
/// Files are taken from, and put back into, this directory of the data directory only.
const DIRECTORY: &str = "pki/";

/// A backup in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// When it was made, RFC 3339.
    pub created: String,
    /// The revision of the store that it shows.
    pub revision: Revision,
    /// Keys and values, in the order of keys.
    pub entries: Vec<(String, Vec<u8>)>,
    /// Names relative to the data directory, and contents.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Why a file is not taken for a backup.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBackup {
    /// It is something else.
    #[error("it is no backup of Holdfast: its first line is not {{\"format\":\"{FORMAT}\",…}}")]
    Foreign,
    /// A later program wrote it.
    #[error(
        "it has version {found} of the format, this program reads version {VERSION}; restore it with the program that made it"
    )]
    Version {
        /// What the first line says.
        found: u64,
    },
    /// Its end is missing.
    #[error("it ends without its last line, the one with the checksum: it was cut off; take another copy")]
    CutOff,
    /// It is not what was written.
    #[error("its checksum is {found}, its last line says {written}: it was changed or damaged; take another copy")]
    Changed {
        /// The checksum of what is there.
        found: String,
        /// What the last line says.
        written: String,
    },
    /// A line that can't be, in spite of the right checksum.
    #[error("line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: String,
    version: u64,
    created: String,
    revision: Revision,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Item {
    Entry { key: String, value: String },
    File { file: String, content: String },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    entries: usize,
    files: usize,
    sha256: String,
}

fn line(value: &impl Serialize) -> String {
    // Texts and numbers: nothing that JSON has no form for.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

impl Backup {
    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (created, revision) = (self.created.clone(), self.revision);
        let mut text = line(&Head { format: FORMAT.to_owned(), version: VERSION, created, revision });
        for (key, value) in &self.entries {
            text += &line(&Item::Entry { key: key.clone(), value: STANDARD.encode(value) });
        }
        for (file, content) in &self.files {
            text += &line(&Item::File { file: file.clone(), content: STANDARD.encode(content) });
        }
        let tail = Tail { entries: self.entries.len(), files: self.files.len(), sha256: checksum(text.as_bytes()) };
        text += &line(&tail);
        text.into_bytes()
    }

    /// Reads the bytes of a file, and believes nothing before the checksum is right.
    ///
    /// # Errors
    /// See [`BadBackup`].
    pub fn parse(bytes: &[u8]) -> Result<Backup, BadBackup> {
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let head: serde_json::Value = serde_json::from_slice(first).map_err(|_| BadBackup::Foreign)?;
        if head["format"] != FORMAT {
            return Err(BadBackup::Foreign);
        }
        match head["version"].as_u64() {
            Some(VERSION) => {}
            Some(found) => return Err(BadBackup::Version { found }),
            None => return Err(BadBackup::Foreign),
        }
        let body = bytes.strip_suffix(b"\n").ok_or(BadBackup::CutOff)?;
        let end = body.iter().rposition(|byte| *byte == b'\n').ok_or(BadBackup::CutOff)? + 1;
        let tail: Tail = serde_json::from_slice(&body[end..]).map_err(|_| BadBackup::CutOff)?;
        let found = checksum(&bytes[..end]);
        if found != tail.sha256 {
            return Err(BadBackup::Changed { found, written: tail.sha256 });
        }
        let wrong = |line: usize, problem: String| BadBackup::Line { line: line + 1, problem };
        let head: Head = serde_json::from_slice(first).map_err(|error| wrong(0, error.to_string()))?;
        let mut backup =
            Backup { created: head.created, revision: head.revision, entries: Vec::new(), files: Vec::new() };
        for (number, text) in bytes[..end - 1].split(|byte| *byte == b'\n').enumerate().skip(1) {
            let decode = |text: &str| STANDARD.decode(text).map_err(|error| wrong(number, error.to_string()));
            match serde_json::from_slice(text).map_err(|error| wrong(number, error.to_string()))? {
                Item::Entry { key, value } => {
                    check_key(&key, &backup).map_err(|problem| wrong(number, problem))?;
                    backup.entries.push((key, decode(&value)?));
                }
                Item::File { file, content } => {
                    check_file(&file, &backup).map_err(|problem| wrong(number, problem))?;
                    backup.files.push((file, decode(&content)?));
                }
            }
        }
        let last = bytes[..end].iter().filter(|byte| **byte == b'\n').count();
        if (tail.entries, tail.files) != (backup.entries.len(), backup.files.len()) {
            let problem = format!(
                "it counts {} entries and {} files; there are {} and {}",
                tail.entries,
                tail.files,
                backup.entries.len(),
                backup.files.len()
            );
            return Err(wrong(last, problem));
        }
        Ok(backup)
    }
}

fn check_key(key: &str, before: &Backup) -> Result<(), String> {
    if !key.starts_with(crate::feed::ROOT) || key.contains('\0') {
        return Err(format!("the key {key:?} is none of Holdfast's; they begin with {}", crate::feed::ROOT));
    }
    match before.entries.last() {
        Some((last, _)) if last.as_str() >= key => {
            Err(format!("the key {key:?} comes after {last:?}, which is out of order"))
        }
        _ => Ok(()),
    }
}

/// A name that stays in its directory.
fn check_file(file: &str, before: &Backup) -> Result<(), String> {
    let name = file.strip_prefix(DIRECTORY).unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(allowed) {
        return Err(format!("the file {file:?} is none of Holdfast's; they are directly in {DIRECTORY}"));
    }
    if before.files.iter().any(|(other, _)| other == file) {
        return Err(format!("the file {file:?} comes twice"));
    }
    Ok(())
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> Backup {
        Backup {
            created: "2026-03-02T01:00:00Z".into(),
            revision: 4711,
            entries: vec![
                ("/registry/core/configmaps/ha/a".into(), b"{\"x\":1}".to_vec()),
                ("/registry/core/configmaps/ha/b".into(), vec![0, 255, 10]),
            ],
            files: vec![("pki/ca.crt".into(), b"-----".to_vec()), ("pki/ca.key".into(), Vec::new())],
        }
    }

    #[test]
    fn what_was_written_is_read_and_any_other_byte_or_length_is_refused() {
        let bytes = backup().to_bytes();
        assert_eq!(Backup::parse(&bytes).expect("a backup"), backup());
        for length in 0..bytes.len() {
            assert!(Backup::parse(&bytes[..length]).is_err(), "cut off after {length}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                // Letters of the checksum itself may be written large and small; nothing else has two forms.
                assert_ne!(Backup::parse(&flipped).ok(), Some(backup()), "bit {bit} of byte {at}");
                assert!(Backup::parse(&flipped).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        let signed = |lines: &str| {
            let tail = Tail { entries: 1, files: 0, sha256: checksum(lines.as_bytes()) };
            Backup::parse(format!("{lines}{}", line(&tail)).as_bytes()).expect_err("refused").to_string()
        };
        let head = "{\"format\":\"holdfast-backup\",\"version\":1,\"created\":\"\",\"revision\":1}\n";
        assert!(signed("{}\n").contains("no backup"));
        assert!(signed(&head.replace("\"version\":1", "\"version\":2")).contains("version 2"));
        for (rest, part) in [
            ("{\"key\":\"/etc/passwd\",\"value\":\"\"}\n", "line 2: the key"),
            ("{\"file\":\"pki/../../etc/passwd\",\"content\":\"\"}\n", "line 2: the file"),
            ("{\"file\":\"store.sqlite\",\"content\":\"\"}\n", "line 2: the file"),
            ("{\"key\":\"/registry/a/b/c\",\"value\":\"?\"}\n", "line 2"),
            ("", "counts 1 entries"),
        ] {
            let text = signed(&format!("{head}{rest}"));
            assert!(text.contains(part), "{rest}: {text}");
        }
    }
}
