//! Commands that were given on this server, until they stand in the API as finished Operations: reported as
//! `status.commands` of the Server, forgotten when `status.commandsRecorded` says that the controller has made the
//! Operations. Kept in the data directory: the API may be away for longer than this process lives.
//!
//! A record and nothing more: what a command leads to is in the ledger before it is answered.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_api::v1::{GivenCommand, OperationType};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use crate::commands::{HoldChange, Request};
use crate::convert::clip;
use crate::spec_cache;

/// Name of the file in the data directory.
const FILE: &str = "given.json";
/// As many as the schema takes; of more the oldest are forgotten, the log has them all.
const MOST: usize = 32;
/// How long an answer waits for a disk that hangs.
const SLOW: Duration = Duration::from_secs(2);

/// The commands that wait for their Operations.
#[derive(Debug, Clone)]
pub struct Given {
    file: PathBuf,
    commands: watch::Sender<Vec<GivenCommand>>,
    /// One file is written at a time, and the newest last.
    turn: Arc<Mutex<()>>,
}

impl Given {
    /// Those that an earlier process has left in the data directory. A file that can't be read is said to be lost.
    pub fn open(data_dir: &Path) -> Given {
        let file = data_dir.join(FILE);
        let read = fs::read(&file).map_err(|error| (error.kind(), error.to_string()));
        let commands = match read.map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(commands)) => commands,
            Err((ErrorKind::NotFound, _)) => Vec::new(),
            Ok(Err(error)) => lost(&file, &error.to_string()),
            Err((_, error)) => lost(&file, &error),
        };
        Given { file, commands: watch::Sender::new(commands), turn: Arc::default() }
    }

    /// What waits, and news of it.
    pub fn subscribe(&self) -> watch::Receiver<Vec<GivenCommand>> {
        self.commands.subscribe()
    }

    /// Notes a command that was carried out, if it is one that an Operation could have been.
    pub async fn note(&self, request: &Request, given: Timestamp, answer: &str) {
        let Some(command) = record(request, given, Timestamp::now(), answer) else { return };
        self.commands.send_modify(|all| add(all, command));
        self.keep().await;
    }

    /// Up to this number they stand in the API.
    pub async fn recorded(&self, number: u64) {
        let news = self.commands.send_if_modified(|all| {
            let before = all.len();
            all.retain(|command| command.id > number);
            all.len() != before
        });
        if news {
            self.keep().await;
        }
    }

    async fn keep(&self) {
        let this = self.clone();
        let write = tokio::task::spawn_blocking(move || {
            let _turn = this.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let all = this.commands.borrow().clone();
            if let Err(error) = spec_cache::write(&this.file, &all) {
                tracing::warn!("commands that were given here are recorded only if this process lives on: {error}");
            }
        });
        if tokio::time::timeout(SLOW, write).await.is_err() {
            tracing::warn!(file = %self.file.display(), "it is not written yet: the disk is slow");
        }
    }
}

fn lost(file: &Path, why: &str) -> Vec<GivenCommand> {
    tracing::warn!(file = %file.display(), "commands that were given here will not be recorded as Operations: {why}");
    Vec::new()
}

/// Numbers grow, also when the clock was set back.
fn add(all: &mut Vec<GivenCommand>, mut command: GivenCommand) {
    let last = all.iter().map(|known| known.id).max().unwrap_or(0);
    command.id = command.id.max(last + 1);
    all.push(command);
    let surplus = all.len().saturating_sub(MOST);
    all.drain(..surplus);
}

/// A command as an Operation would say it; none: none could (`down`, `run`).
fn record(request: &Request, given: Timestamp, done: Timestamp, answer: &str) -> Option<GivenCommand> {
    let (type_, group, reason) = match request {
        Request::Failover { group, reason } => (OperationType::Move, group, reason),
        Request::ClearFailures { group, reason, .. } => (OperationType::ClearFailures, group, reason),
        Request::Hold { group, change, reason } => {
            let type_ = match change {
                HoldChange::Stop => OperationType::Stop,
                HoldChange::Start => OperationType::Start,
                HoldChange::Pause { .. } => OperationType::Pause,
                HoldChange::Resume { .. } => OperationType::Resume,
            };
            (type_, group, reason)
        }
        Request::Status {} | Request::Down { .. } | Request::Run(_) | Request::Stop { .. } => return None,
    };
    let mut command = GivenCommand {
        id: u64::try_from(given.as_millisecond()).unwrap_or(0),
        type_,
        group: group.clone(),
        reason: reason.clone(),
        given: Time(given),
        done: Time(done),
        message: clip(answer),
        resource: None,
        until: None,
        accept_differences: false,
    };
    match request {
        Request::ClearFailures { resource, .. } => command.resource.clone_from(resource),
        Request::Hold { change: HoldChange::Pause { until }, .. } => {
            command.until = until.and_then(|until| Timestamp::from_second(until).ok()).map(Time);
        }
        Request::Hold { change: HoldChange::Resume { accept }, .. } => command.accept_differences = *accept,
        _ => {}
    }
    Some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop() -> Request {
        Request::Hold { group: "web".into(), change: HoldChange::Stop, reason: "a test".into() }
    }

    #[tokio::test]
    async fn commands_outlive_the_process_until_they_are_recorded() {
        let directory = tempfile::tempdir().unwrap();
        let given = Given::open(directory.path());
        let at = Timestamp::from_millisecond(1_700_000_000_000).unwrap();
        given.note(&stop(), at, "stopped").await;
        given.note(&Request::Down { reason: String::new() }, at, "no Operation could say that").await;
        let pause = HoldChange::Pause { until: Some(1_800_000_000) };
        given.note(&Request::Hold { group: "web".into(), change: pause, reason: String::new() }, at, "paused").await;

        let again = Given::open(directory.path());
        let known = again.subscribe().borrow().clone();
        let ids: Vec<u64> = known.iter().map(|command| command.id).collect();
        assert_eq!(ids, [1_700_000_000_000, 1_700_000_000_001], "numbers differ although the times do not");
        assert_eq!((known[0].type_, known[0].reason.as_str()), (OperationType::Stop, "a test"));
        assert_eq!(known[1].until.as_ref().map(|until| until.0.as_second()), Some(1_800_000_000));
        again.recorded(ids[0]).await;
        assert_eq!(Given::open(directory.path()).subscribe().borrow().len(), 1);

        for _ in 0..2 * MOST {
            again.note(&stop(), at, "stopped").await;
        }
        let kept = again.subscribe().borrow().clone();
        assert!(kept.len() == MOST && kept.is_sorted_by_key(|command| command.id), "the newest are kept");
        fs::write(directory.path().join(FILE), "[{").unwrap();
        assert!(Given::open(directory.path()).subscribe().borrow().is_empty(), "and an agent starts all the same");
    }
}
