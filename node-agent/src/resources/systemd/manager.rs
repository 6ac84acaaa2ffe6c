//! What the system manager is asked over D-Bus, and what it answers. Thin: what an answer means is decided in `state`.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt;
use zbus::message::Type;
use zbus::zvariant::{Array, DynamicType, OwnedObjectPath, OwnedValue, Structure};
use zbus::{Connection, MatchRule, Message, MessageStream};

use super::state::Facts;

const NAME: &str = "org.freedesktop.systemd1";
const ROOT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// Between two looks whether a job is still there, for the case that word of its end was lost.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nobody answers: no bus, no manager on it, or it is busy with itself (loading its units anew, or being replaced).
    Silent(String),
    /// The manager says no.
    Refused(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Silent(text) => write!(f, "systemd does not answer over D-Bus: {text}"),
            Trouble::Refused(text) => write!(f, "systemd refuses: {text}"),
        }
    }
}

/// Whether this system was booted with systemd: the test of sd_booted(3), and the name of the first process.
pub(crate) fn booted() -> bool {
    let first = std::fs::read_to_string("/proc/1/comm").unwrap_or_default();
    Path::new("/run/systemd/system").is_dir() || first.trim() == "systemd"
}

/// Runs what talks to the manager; a runtime of one thread that ends with it.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map(|runtime| runtime.block_on(work)).map_err(|e| Trouble::Silent(e.to_string()))
}

/// The system manager.
#[derive(Debug)]
pub(crate) struct Manager {
    connection: Connection,
    /// After this moment it is not waited for any more.
    until: Instant,
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JobEnd {
    /// The manager's word for it: done, canceled, timeout, failed, dependency, skipped, assert …
    Result(String),
    /// It is gone, and how it ended was not heard.
    Unheard,
    /// It goes on.
    GoesOn,
}

impl Manager {
    /// Connects to the system bus.
    pub(crate) async fn connect(until: Instant) -> Result<Manager, Trouble> {
        let connection = limited(until, Connection::system()).await?;
        Ok(Manager { connection, until })
    }

    async fn call<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> Result<Message, Trouble>
    where
        B: serde::ser::Serialize + DynamicType,
    {
        limited(self.until, self.connection.call_method(Some(NAME), path, Some(interface), method, body)).await
    }

    async fn all(&self, path: &str, interface: &str) -> Result<Values, Trouble> {
        let answer = self.call(path, PROPERTIES, "GetAll", &(interface,)).await?;
        answer.body().deserialize().map(Values).map_err(malformed)
    }

    async fn unit_path(&self, unit: &str) -> Result<OwnedObjectPath, Trouble> {
        self.call(ROOT, MANAGER, "LoadUnit", &(unit,)).await?.body().deserialize().map_err(malformed)
    }

    /// Everything that decides about a unit.
    pub(crate) async fn facts(&self, unit: &str) -> Result<Facts, Trouble> {
        let path = self.unit_path(unit).await?;
        let of_unit = self.all(path.as_str(), UNIT).await?;
        // A unit of another kind has none of these.
        let service = match self.all(path.as_str(), SERVICE).await {
            Err(Trouble::Refused(_)) => Values(HashMap::new()),
            other => other?,
        };
        Ok(Facts {
            id: of_unit.text("Id"),
            load: of_unit.text("LoadState"),
            load_error: of_unit.field("LoadError", 1),
            active: of_unit.text("ActiveState"),
            sub: of_unit.text("SubState"),
            file_state: of_unit.text("UnitFileState"),
            job: of_unit.number("Job").is_some_and(|id| id != 0),
            drop_ins: of_unit.texts("DropInPaths"),
            outdated: of_unit.flag("NeedDaemonReload"),
            triggered_by: of_unit.texts("TriggeredBy"),
            condition: of_unit.flag("ConditionResult"),
            began: of_unit.time("InactiveExitTimestamp"),
            control_group: service.text("ControlGroup"),
            slice: service.text("Slice"),
            result: service.text("Result"),
            restart: service.text("Restart"),
            outlives: service.flag("RemainAfterExit"),
            exit: service.signed("ExecMainCode").zip(service.signed("ExecMainStatus")),
        })
    }

    /// State of a unit's file, as `enabled` or `static`; empty if there is none.
    pub(super) async fn file_state(&self, unit: &str) -> Result<String, Trouble> {
        match self.call(ROOT, MANAGER, "GetUnitFileState", &(unit,)).await {
            Ok(answer) => answer.body().deserialize().map_err(malformed),
            Err(Trouble::Refused(_)) => Ok(String::new()),
            Err(silent) => Err(silent),
        }
    }

    /// The control group below which the manager keeps its units, as it names it.
    pub(super) async fn control_group(&self) -> Result<String, Trouble> {
        let answer = self.call(ROOT, PROPERTIES, "Get", &(MANAGER, "ControlGroup")).await?;
        let value: OwnedValue = answer.body().deserialize().map_err(malformed)?;
        Ok(value.downcast_ref::<String>().unwrap_or_default())
    }

    /// Reads all unit files anew.
    pub(super) async fn reload(&self) -> Result<(), Trouble> {
        self.call(ROOT, MANAGER, "Reload", &()).await.map(drop)
    }

    /// Forgets that a unit has failed, and how often it was started lately: how often is the cluster's to decide.
    pub(super) async fn reset_failed(&self, unit: &str) -> Result<(), Trouble> {
        match self.call(ROOT, MANAGER, "ResetFailedUnit", &(unit,)).await {
            Ok(_) | Err(Trouble::Refused(_)) => Ok(()),
            Err(silent) => Err(silent),
        }
    }

    /// Queues the stop of a unit, in place of whatever waits for it.
    pub(crate) async fn queue_stop(&self, unit: &str) -> Result<OwnedObjectPath, Trouble> {
        self.queue("StopUnit", unit).await
    }

    async fn queue(&self, method: &str, unit: &str) -> Result<OwnedObjectPath, Trouble> {
        self.call(ROOT, MANAGER, method, &(unit, "replace")).await?.body().deserialize().map_err(malformed)
    }

    /// Starts or stops a unit (`StartUnit`, `StopUnit`) and follows the job to its end, at most to `limit`.
    pub(super) async fn carry_out(&self, method: &str, unit: &str, limit: Instant) -> Result<JobEnd, Trouble> {
        // ORDER: heard before the job exists, so that its end can't be missed.
        self.call(ROOT, MANAGER, "Subscribe", &()).await?;
        let rule = MatchRule::builder().msg_type(Type::Signal).interface(MANAGER).and_then(|r| r.member("JobRemoved"));
        let rule = rule.map_err(malformed)?.build();
        let mut ends = limited(self.until, MessageStream::for_match_rule(rule, &self.connection, Some(256))).await?;
        let job = self.queue(method, unit).await?;
        loop {
            let now = Instant::now();
            if now >= limit {
                return Ok(JobEnd::GoesOn);
            }
            let heard = tokio::time::timeout(LOOK_AGAIN.min(limit - now), ends.next()).await;
            match heard {
                Ok(Some(Ok(message))) => {
                    if let Some(result) = end_of(&message, &job) {
                        return Ok(JobEnd::Result(result));
                    }
                }
                Ok(Some(Err(_))) => {}
                Ok(None) => return Err(Trouble::Silent("the bus has closed the connection".to_owned())),
                Err(_) => match self.all(job.as_str(), "org.freedesktop.systemd1.Job").await {
                    Err(Trouble::Refused(_)) => return Ok(last_word(&mut ends, &job).await),
                    // Busy with itself: its jobs outlive that.
                    Ok(_) | Err(Trouble::Silent(_)) => {}
                },
            }
        }
    }
}

/// The job's end, if word of it came while it was asked whether the job is still there.
async fn last_word(ends: &mut MessageStream, job: &OwnedObjectPath) -> JobEnd {
    while let Ok(Some(heard)) = tokio::time::timeout(Duration::from_millis(20), ends.next()).await {
        if let Some(result) = heard.ok().and_then(|message| end_of(&message, job)) {
            return JobEnd::Result(result);
        }
    }
    JobEnd::Unheard
}

fn end_of(message: &Message, job: &OwnedObjectPath) -> Option<String> {
    let (_, ended, _, result): (u32, OwnedObjectPath, String, String) = message.body().deserialize().ok()?;
    (ended == *job).then_some(result)
}

fn malformed(error: impl std::fmt::Display) -> Trouble {
    Trouble::Refused(format!("its answer is not understood: {error}"))
}

async fn limited<T>(until: Instant, work: impl Future<Output = zbus::Result<T>>) -> Result<T, Trouble> {
    let left = until.saturating_duration_since(Instant::now());
    match tokio::time::timeout(left, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(trouble(error)),
        Err(_) => Err(Trouble::Silent("no answer in time".to_owned())),
    }
}

fn trouble(error: zbus::Error) -> Trouble {
    let zbus::Error::MethodError(name, text, _) = &error else { return Trouble::Silent(error.to_string()) };
    let said = text.clone().unwrap_or_else(|| name.to_string());
    if nobody(name.as_str()) { Trouble::Silent(said) } else { Trouble::Refused(said) }
}

/// Errors by which the bus says that nobody answered, as opposed to the manager's own.
fn nobody(error: &str) -> bool {
    let Some(kind) = error.strip_prefix("org.freedesktop.DBus.Error.") else { return false };
    kind.starts_with("Spawn.")
        || matches!(
            kind,
            "ServiceUnknown" | "NameHasNoOwner" | "NoReply" | "NoServer" | "Disconnected" | "Timeout" | "TimedOut"
        )
}

/// Properties of an object.
struct Values(HashMap<String, OwnedValue>);

impl Values {
    fn text(&self, name: &str) -> String {
        self.0.get(name).and_then(|value| value.downcast_ref::<String>().ok()).unwrap_or_default()
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let array = self.0.get(name).and_then(|value| value.downcast_ref::<Array<'_>>().ok());
        let all = array.iter().flat_map(|array| array.iter().filter_map(|value| value.downcast_ref::<String>().ok()));
        all.collect()
    }

    fn time(&self, name: &str) -> u64 {
        self.0.get(name).and_then(|value| value.downcast_ref::<u64>().ok()).unwrap_or_default()
    }

    fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(|value| value.downcast_ref::<bool>().ok()).unwrap_or_default()
    }

    fn signed(&self, name: &str) -> Option<i32> {
        self.0.get(name)?.downcast_ref::<i32>().ok()
    }

    /// First member of a structure that is a number.
    fn number(&self, name: &str) -> Option<u32> {
        self.0.get(name)?.downcast_ref::<Structure<'_>>().ok()?.fields().first()?.downcast_ref::<u32>().ok()
    }

    /// A member of a structure that is a text.
    fn field(&self, name: &str, at: usize) -> String {
        let structure = self.0.get(name).and_then(|value| value.downcast_ref::<Structure<'_>>().ok());
        structure.and_then(|s| s.fields().get(at)?.downcast_ref::<String>().ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_apart_from_refusal() {
        for silent in ["ServiceUnknown", "NoReply", "Spawn.ChildExited", "Disconnected"] {
            assert!(nobody(&format!("org.freedesktop.DBus.Error.{silent}")), "{silent}");
        }
        assert!(!nobody("org.freedesktop.DBus.Error.AccessDenied"));
        assert!(!nobody("org.freedesktop.systemd1.UnitMasked"));
    }
}
