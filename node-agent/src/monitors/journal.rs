//! Lines of the system journal, read by its own program, journalctl.
//!
//! Each check reads on from where the one before ended: the cursor and the moments of the lines that matched stand in a
//! file of the run directory, so neither the journal's rotation nor a restart of the agent makes a line count twice or not
//! at all. An action of the monitor begins anew: lines that it has answered do not count again.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_api::v1::JournalCheck;
use nix::fcntl::OFlag;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{Request, pattern};
use crate::boot::Host;
use crate::clock;
use crate::resources::Verdict;
use crate::spawn::{self, Spawn};

/// Where systemd-journald takes lines.
const SOCKET: &str = "/run/systemd/journal/socket";

/// How far a check has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Position {
    /// What it counts: another check begins anew.
    pattern: String,
    unit: Option<String>,
    /// From where it counts, CLOCK_BOOTTIME, ns.
    since: u64,
    /// The last line that was read.
    cursor: Option<String>,
    /// When matching lines were written, CLOCK_MONOTONIC, µs, oldest first; no more than count.
    hits: VecDeque<u64>,
    /// The newest of them.
    newest: String,
}

impl Position {
    fn at(check: &JournalCheck, since: u64) -> Position {
        let (pattern, unit) = (check.match_.clone(), check.unit.clone());
        Position { pattern, unit, since, cursor: None, hits: VecDeque::new(), newest: String::new() }
    }

    /// Goes on from what stands in the file, unless something else is to be counted.
    fn resumed(file: &Path, check: &JournalCheck, since: Option<u64>) -> Position {
        let fresh = Position::at(check, since.unwrap_or(clock::now().0));
        let old = fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<Position>(&bytes).ok());
        let same = |old: &Position| old.pattern == fresh.pattern && old.unit == fresh.unit;
        old.filter(|old| same(old) && since.is_none_or(|since| old.since == since)).unwrap_or(fresh)
    }

    fn take(&mut self, line: &Line, check: &JournalCheck, pattern: &regex::bytes::Regex) {
        self.cursor = Some(line.cursor.clone());
        if !pattern.is_match(&line.message) {
            return;
        }
        self.hits.push_back(line.monotonic);
        self.newest = String::from_utf8_lossy(&line.message).chars().filter(|c| !c.is_control()).take(300).collect();
        while self.hits.len() > check.count as usize {
            self.hits.pop_front();
        }
    }

    fn judge(&mut self, check: &JournalCheck, now: u64) -> Verdict {
        let within = u64::try_from(check.within.get().as_micros()).unwrap_or(u64::MAX);
        self.hits.retain(|hit| now.saturating_sub(*hit) <= within);
        if self.hits.len() < check.count as usize {
            return Verdict::running();
        }
        let count = match check.count {
            1 => "a line matches".to_owned(),
            more => format!("{more} lines match"),
        };
        let (text, within, newest) = (&check.match_, &check.within, &self.newest);
        let unit = check.unit.as_ref().map(|unit| format!(" -u {unit}")).unwrap_or_default();
        Verdict::failed(format!(
            "{count} {text:?} within {within} (`journalctl{unit}` shows what was before); the last one: {newest}"
        ))
    }
}

/// A line of the journal.
struct Line {
    cursor: String,
    /// CLOCK_MONOTONIC, µs.
    monotonic: u64,
    message: Vec<u8>,
}

pub(super) fn run(check: &JournalCheck, request: &Request) -> Verdict {
    let pattern = match pattern(&check.match_) {
        Ok(pattern) => pattern,
        Err(verdict) => return verdict,
    };
    let file = file(request);
    let mut position = Position::resumed(&file, check, request.since);
    // What was read so far is kept even if the rest takes longer: the next check goes on there.
    let until = Instant::now() + request.timeout.mul_f64(0.8);
    let read = read(&mut position, check, until, |position, line| position.take(&line, check, &pattern));
    let verdict = position.judge(check, monotonic());
    if let Err(error) = keep(&file, &position) {
        return Verdict::unknown(format!("how far the journal was read can't be kept: {error}"));
    }
    match read {
        Err(problem) if verdict == Verdict::running() => Verdict::unknown(problem),
        _ => verdict,
    }
}

fn file(request: &Request) -> PathBuf {
    // No group has a name with a plus sign.
    let group = if request.group.is_empty() { "+servers" } else { &request.group };
    request.run_dir.join("monitors").join(group).join(format!("{}.json", request.monitor))
}

fn keep(file: &Path, position: &Position) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let aside = file.with_extension("new");
    fs::write(&aside, serde_json::to_vec(position)?)?;
    fs::rename(aside, file)
}

fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Where journalctl is to begin.
fn begin(position: &Position) -> String {
    if let Some(cursor) = &position.cursor {
        return format!("--after-cursor={cursor}");
    }
    // Only the first time, and about the last seconds: a wall clock that is set meanwhile makes the beginning inexact.
    let ago = Duration::from_nanos(clock::now().0.saturating_sub(position.since));
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(ago);
    format!("--since=@{}.{:06}", began.as_secs(), began.subsec_micros())
}

/// Gives every new line of this boot to `take`.
fn read(
    position: &mut Position,
    check: &JournalCheck,
    until: Instant,
    take: impl Fn(&mut Position, Line),
) -> Result<(), String> {
    let text = |e: io::Error| e.to_string();
    // journalctl says nothing where there is no journal at all.
    if !Path::new(SOCKET).exists() {
        return Err(format!("journal: systemd-journald does not run on this server, there is no {SOCKET}"));
    }
    let program = spawn::find_program("journalctl").ok_or("journal: there is no program journalctl in PATH")?;
    let boot = Host::default().boot_id().map_err(|e| e.to_string())?.to_string().replace('-', "");
    let mut args: Vec<String> =
        ["journalctl", "--no-pager", "--all", "--output=json", "--output-fields=MESSAGE"].map(str::to_owned).to_vec();
    args.push(begin(position));
    args.extend(check.unit.as_ref().map(|unit| format!("--unit={unit}")));
    let path = std::env::var("PATH").unwrap_or_else(|_| spawn::DEFAULT_PATH.to_owned());
    let environment = [("PATH".to_owned(), path), ("LC_ALL".to_owned(), "C".to_owned())];
    let (output, their_output) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| e.to_string())?;
    let (errors, their_errors) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| e.to_string())?;
    let child = spawn::spawn(&Spawn {
        program: &program,
        args: &args,
        environment: &environment,
        directory: Path::new("/"),
        stdio: [None, Some(their_output.as_fd()), Some(their_errors.as_fd())],
        identity: None,
        cgroup: None,
    })
    .map_err(|e| format!("journalctl can't be run: {e}"))?;
    drop((their_output, their_errors));
    let mut lines = 0_u64;
    for line in BufReader::new(fs::File::from(output)).split(b'\n') {
        let line = line.map_err(text)?;
        lines += 1;
        // Journals that came from other machines are no lines of this server.
        if let Some(line) = parsed(&line, &boot) {
            take(position, line);
        }
        if Instant::now() >= until {
            spawn::signal(&child.pidfd, nix::libc::SIGKILL);
            return Err(format!("the journal has more than could be read in time, {lines} lines were read"));
        }
    }
    let said = BufReader::new(fs::File::from(errors)).lines().map_while(Result::ok).last().unwrap_or_default();
    match child.wait(None) {
        Some(spawn::Exit::Code(0)) => Ok(()),
        Some(exit) => Err(format!("journalctl: {exit}; {said}")),
        None => Err("the end of journalctl was not seen".into()),
    }
}

/// A line as journalctl writes it, if it is of this boot.
fn parsed(text: &[u8], boot: &str) -> Option<Line> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).ok()?;
    let word = |name: &str| fields.get(name).and_then(|value| value.as_str());
    if word("_BOOT_ID") != Some(boot) {
        return None;
    }
    Some(Line {
        cursor: word("__CURSOR")?.to_owned(),
        monotonic: word("__MONOTONIC_TIMESTAMP")?.parse().ok()?,
        message: message(fields.get("MESSAGE")?),
    })
}

/// The text of a line: bytes, where it is no UTF-8; a list, where it was given more than once.
fn message(value: &serde_json::Value) -> Vec<u8> {
    match value {
        serde_json::Value::String(text) => text.as_bytes().to_vec(),
        serde_json::Value::Array(all) if all.iter().all(serde_json::Value::is_u64) => {
            all.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect()
        }
        serde_json::Value::Array(all) => all.iter().map(message).collect::<Vec<_>>().join(&b'\n'),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::State;

    const BOOT: &str = "0a1b";

    fn line(seconds: u64, text: serde_json::Value) -> Line {
        let json = serde_json::json!({"__CURSOR": format!("c{seconds}"), "_BOOT_ID": BOOT, "MESSAGE": text,
            "__MONOTONIC_TIMESTAMP": (seconds * 1_000_000).to_string()});
        parsed(json.to_string().as_bytes(), BOOT).unwrap()
    }

    fn check(count: u32) -> JournalCheck {
        JournalCheck { unit: None, match_: "I/O error".into(), within: "10s".parse().unwrap(), count }
    }

    #[test]
    fn so_many_lines_within_the_time_are_a_failure_and_older_ones_are_forgotten() {
        let (check, pattern) = (check(2), regex::bytes::Regex::new("I/O error").unwrap());
        let mut position = Position::at(&check, 5);
        let mut see = |seconds: u64, text: serde_json::Value| {
            position.take(&line(seconds, text), &check, &pattern);
            position.judge(&check, (seconds + 1) * 1_000_000)
        };
        assert_eq!(see(100, "sda: I/O error".into()), Verdict::running());
        assert_eq!(see(101, "all is well".into()), Verdict::running());
        assert_eq!(see(120, "sda: I/O error".into()), Verdict::running(), "the first one is too old");
        let verdict = see(121, serde_json::json!(b"sdb: I/O error \xff".to_vec()));
        assert_eq!(verdict.state, State::Failed);
        let expected =
            "2 lines match \"I/O error\" within 10s (`journalctl` shows what was before); the last one: sdb: I/O error";
        assert!(verdict.message.starts_with(expected), "{}", verdict.message);
        assert_eq!(position.judge(&check, 140_000_000), Verdict::running(), "after a quiet time all is well");
    }

    #[test]
    fn a_restart_goes_on_and_an_action_or_another_pattern_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("monitors/web/m.json");
        let mut kept = Position { cursor: Some("c9".into()), ..Position::at(&check(1), 5) };
        kept.hits.push_back(9);
        keep(&file, &kept).unwrap();
        assert_eq!(Position::resumed(&file, &check(1), Some(5)), kept, "the same run");
        assert_eq!(Position::resumed(&file, &check(1), None), kept, "another process of the agent");
        assert_eq!(Position::resumed(&file, &check(1), Some(6)), Position::at(&check(1), 6), "a later run");
        let other = JournalCheck { unit: Some("a.service".into()), ..check(1) };
        assert_eq!(Position::resumed(&file, &other, None).cursor, None);
        // Nothing is known of before: what happens from now on counts.
        fs::remove_file(&file).unwrap();
        assert!(Position::resumed(&file, &check(1), None).since > 5);
    }

    #[test]
    fn lines_of_other_boots_and_nonsense_are_no_lines() {
        let other =
            serde_json::json!({"__CURSOR": "c", "_BOOT_ID": "ffff", "MESSAGE": "x", "__MONOTONIC_TIMESTAMP": "1"});
        assert!(parsed(other.to_string().as_bytes(), BOOT).is_none());
        assert!(parsed(b"-- No entries --", BOOT).is_none());
        assert_eq!(message(&serde_json::json!(["a", "b"])), b"a\nb");
    }
}
