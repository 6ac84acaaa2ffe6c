//! FailoverGroup: resources that run together on one server at a time (rows C8, C14, C15, U4). Its resources are in
//! `resources.rs`, its monitors in `monitors.rs`, its status in `failover_group_status.rs`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{GroupState, zero},
    failover_group_status::FailoverGroupStatus,
    monitors::Monitor,
    resources::Resource,
    rules,
};
use crate::{duration::Duration, schema};

/// What a failover group shall be.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1",
    kind = "FailoverGroup",
    plural = "failovergroups",
    namespaced,
    shortname = "fog",
    category = "holdfast",
    status = "FailoverGroupStatus",
    derive = "PartialEq",
    selectable = ".spec.subCluster",
    selectable = ".status.phase",
    selectable = ".status.server",
    doc = "A failover group: resources that run together, on one server at a time.",
    printcolumn(name = "Sub-Cluster", type_ = "string", json_path = ".spec.subCluster"),
    printcolumn(name = "Desired", type_ = "string", json_path = ".spec.state"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Server", type_ = "string", json_path = ".status.server"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.since"),
    printcolumn(name = "Cause", type_ = "string", json_path = ".status.transitions[0].cause", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::failover_group()))]
pub struct FailoverGroupSpec {
    /// The sub-cluster, in this namespace, that runs the group. It can't be changed.
    #[schemars(schema_with = "schema::object_name")]
    #[schemars(extend("x-kubernetes-validations" = rules::immutable("the sub-cluster of a group")))]
    pub sub_cluster: String,
    /// Online (default) or Offline. A change takes effect at once.
    #[serde(default)]
    pub state: GroupState,
    /// Auto (default): started when the cluster starts. Manual: waits, with the hold ManualStart, for an operator.
    #[serde(default)]
    pub startup: GroupStartup,
    /// Where it may run and what it prefers. A change takes effect at once.
    #[serde(default)]
    pub placement: Placement,
    /// What happens when a resource fails. A change takes effect at once.
    #[serde(default)]
    pub recovery: Recovery,
    /// What happens when a change of this object needs a restart.
    #[serde(default)]
    pub change: Change,
    /// The group's counterpart in another region. Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disaster: Option<Disaster>,
    /// What runs, 1..64. A change of a parameter restarts that resource and what needs it, a change of a parameter that is
    /// marked so the group; `change` says when.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[schemars(extend("x-kubernetes-validations" = rules::resources()))]
    pub resources: Vec<Resource>,
    /// Checks beyond the resources' own. A change takes effect at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub monitors: Vec<Monitor>,
}

choices! {
    /// What a group does when the cluster starts.
    pub enum GroupStartup = Auto {
        /// It is started.
        Auto,
        /// It waits for an operator.
        Manual,
    }
}

/// Where a group may run and what it prefers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Placement {
    /// Servers that may run it, in order of preference; the first is the primary. Default: all, by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub servers: Vec<String>,
    /// Which group starts when capacity is short, and which side races first for the lock. Default 100, 0..1000; higher
    /// comes first.
    #[schemars(range(min = 0, max = 1000))]
    pub priority: u16,
    /// What a server must have free. Default: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires: Option<Requires>,
    /// Whether and when the group goes back to its primary.
    pub failback: Failback,
    /// Groups that must not, or had better not, run on the same server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["group"]))]
    pub separate_from: Vec<GroupRelation>,
    /// Groups that must, or had better, run on the same server.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["group"]))]
    pub together: Vec<GroupRelation>,
    /// Groups that must be Online before this one starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["group"]))]
    pub after: Vec<GroupOrder>,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            priority: 100,
            requires: None,
            failback: Failback::default(),
            separate_from: Vec::new(),
            together: Vec::new(),
            after: Vec::new(),
        }
    }
}

/// What a server must have free.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Requires {
    /// Processors, for example "2" or "500m"; a text, so in quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub cpu: Option<Quantity>,
    /// Memory, for example 4Gi.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub memory: Option<Quantity>,
}

choices! {
    /// Whether a group goes back to its primary.
    pub enum FailbackMode = Manual {
        /// Only when an operator moves it.
        Manual,
        /// As soon as the primary is back and `delay` has passed.
        Automatic,
        /// Within `window`.
        Window,
    }
}

/// Whether and when a group goes back to its primary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [schema::rule(
    "has(self.window) == (self.mode == 'Window')",
    "give window with mode Window, and only then",
)]))]
pub struct Failback {
    /// Manual (default), Automatic or Window.
    pub mode: FailbackMode,
    /// How long the primary must have been back. Default 0s.
    #[schemars(extend("x-kubernetes-validations" = rules::within("0s", "720h")))]
    pub delay: Duration,
    /// When a failback may happen. Needed with mode Window, not allowed with another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<FailbackWindow>,
}

impl Default for Failback {
    fn default() -> Self {
        Self { mode: FailbackMode::Manual, delay: "0s".parse().unwrap_or_else(|_| zero()), window: None }
    }
}

choices! {
    /// Days of the week.
    pub enum Weekday {
        /// Monday.
        Mon,
        /// Tuesday.
        Tue,
        /// Wednesday.
        Wed,
        /// Thursday.
        Thu,
        /// Friday.
        Fri,
        /// Saturday.
        Sat,
        /// Sunday.
        Sun,
    }
}

/// A time of the week.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailbackWindow {
    /// Time of day, "00:00".."23:59".
    #[schemars(length(max = 5), regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub start: String,
    /// How long it lasts.
    #[schemars(extend("x-kubernetes-validations" = rules::within("1m", "168h")))]
    pub length: Duration,
    /// Days on which it begins. Default: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7), extend("x-kubernetes-list-type" = "set"))]
    pub days: Vec<Weekday>,
    /// Name of the time zone, for example Europe/Rome. Default UTC.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 63))]
    pub time_zone: String,
}

fn utc() -> String {
    "UTC".to_string()
}

choices! {
    /// How strictly a relation between groups is kept.
    pub enum Strength = Required {
        /// Always; rather the group stays Offline.
        Required,
        /// If possible.
        Preferred,
    }
}

/// A relation to another group of the same sub-cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupRelation {
    /// Name of the other group.
    #[schemars(schema_with = "schema::object_name")]
    pub group: String,
    /// Required (default) or Preferred.
    #[serde(default)]
    pub strength: Strength,
}

choices! {
    /// Where another group must be Online.
    pub enum AfterScope = Any {
        /// On any server.
        Any,
        /// On the server on which this group starts.
        SameServer,
    }
}

/// A group that must be Online first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupOrder {
    /// Name of the other group.
    #[schemars(schema_with = "schema::object_name")]
    pub group: String,
    /// Any (default) or SameServer.
    #[serde(default)]
    pub scope: AfterScope,
}

choices! {
    /// What follows when restarts in place did not help.
    pub enum RecoveryAction = Failover {
        /// The group goes to the next server.
        Failover,
        /// The group stops and stays stopped.
        Stop,
        /// The server shuts down.
        ServerDown,
        /// It is only reported.
        Report,
    }
}

choices! {
    /// What follows when a stop fails or times out.
    pub enum StopFailureAction = Fence {
        /// The others go on without the server, and it is fenced; without fence device and watchdog as Block.
        Fence,
        /// The group stays stuck until an operator confirms that it has stopped.
        Block,
    }
}

choices! {
    /// What follows when no server is left for the group.
    pub enum NoServerLeftAction = Stop {
        /// What still runs of it stops.
        Stop,
        /// What still runs of it goes on.
        Keep,
    }
}

/// What happens when a resource of the group fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Recovery {
    /// Restarts in place within `window` before `then`. Default 2.
    #[schemars(range(min = 0, max = 100))]
    pub restarts: u16,
    /// The window for `restarts`. Default 10m.
    #[schemars(extend("x-kubernetes-validations" = rules::within("1s", "720h")))]
    pub window: Duration,
    /// What follows: Failover (default), Stop, ServerDown or Report.
    pub then: RecoveryAction,
    /// Failovers within `failoverWindow`, and starts after a failure on all servers, before the group stops with the hold
    /// FailureLimit. Default 3.
    #[schemars(range(min = 0, max = 100))]
    pub max_failovers: u16,
    /// The window for `maxFailovers`. Default 1h.
    #[schemars(extend("x-kubernetes-validations" = rules::within("1s", "720h")))]
    pub failover_window: Duration,
    /// What follows when a stop fails: Fence (default) or Block.
    pub on_stop_failure: StopFailureAction,
    /// What follows when no server is left: Stop (default) or Keep.
    pub no_server_left: NoServerLeftAction,
    /// After so long without a further failure a server counts as good again; twice as long after each further failure
    /// of the group there in a row, up to a day. Default 1h.
    #[schemars(extend("x-kubernetes-validations" = rules::within("1s", "720h")))]
    pub failure_decay: Duration,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            restarts: 2,
            window: Duration::from_secs(600),
            then: RecoveryAction::Failover,
            max_failovers: 3,
            failover_window: Duration::from_secs(3600),
            on_stop_failure: StopFailureAction::Fence,
            no_server_left: NoServerLeftAction::Stop,
            failure_decay: Duration::from_secs(3600),
        }
    }
}

choices! {
    /// What follows when a change needs a restart.
    pub enum OnRestartNeeded = Wait {
        /// It is listed in status.pendingChanges and taken at the next start.
        Wait,
        /// The restart happens at once.
        Restart,
    }
}

/// How changes of a running group are taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Change {
    /// Wait (default) or Restart.
    pub on_restart_needed: OnRestartNeeded,
}

choices! {
    /// What a region is to a group.
    pub enum DisasterRole {
        /// The group normally runs here.
        Primary,
        /// The group runs here after a disaster.
        Recovery,
    }
}

/// The group's counterpart in another region (U12).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disaster {
    /// Primary or Recovery.
    pub role: DisasterRole,
    /// The counterpart.
    pub peer: PeerGroup,
    /// Who may run it.
    pub ticket: Ticket,
}

/// A group in another region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerGroup {
    /// Its namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub namespace: String,
    /// Its name.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// The right of a region to run a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// Addresses of the third site that keeps it.
    #[schemars(length(min = 1, max = 8), inner(length(max = 1024), regex(pattern = "^https://")))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub urls: Vec<String>,
    /// Secret of this namespace with the credentials for it.
    #[schemars(schema_with = "schema::object_name")]
    pub credential_secret: String,
    /// Name of the object there.
    #[schemars(schema_with = "schema::object_name")]
    pub lease: String,
    /// How long a grant lasts. Default 60s.
    #[serde(default = "super::sub_cluster::sixty_seconds")]
    #[schemars(extend("x-kubernetes-validations" = rules::within("1s", "1h")))]
    pub duration: Duration,
}
