//! The CEL rules of the kinds: what one object shows by itself. Each has a message that says what to change.
//!
//! Rules over several objects are not here: they become the condition `Accepted`. Rules look only at given values, never at
//! derived ones; the full timing arithmetic is in [`crate::timing`].

use serde_json::{Value, json};

use crate::schema::{rule, rule_at, rule_with};

/// Exactly one of several optional members is given.
pub(crate) fn exactly_one(members: &[&str], message: &str) -> Value {
    let all: Vec<String> = members.iter().map(|m| format!("(has(self.{m}) ? 1 : 0)")).collect();
    json!([rule(&format!("{} == 1", all.join(" + ")), message)])
}

/// A duration lies between two bounds, both included.
pub(crate) fn within(min: &str, max: &str) -> Value {
    json!([rule_with(
        &format!("duration(self) >= duration('{min}') && duration(self) <= duration('{max}')"),
        &format!("must lie in {min}..{max}"),
        &format!("self + ' is outside {min}..{max}'"),
    )])
}

/// A value that can't be changed once it is there.
pub(crate) fn immutable(what: &str) -> Value {
    json!([rule("self == oldSelf", &format!("{what} can't be changed; make a new object instead"))])
}

/// `/dev/DIRECTORY/NAME` without white space, as an expression. Not as a regular expression: those are compiled anew each
/// time that the rule is evaluated, which took a tenth of the time of a write.
fn in_directory_of_dev(text: &str) -> String {
    format!(
        r"({text}.startsWith('/dev/') && {text}.split('/').size() > 3 && ['//', ' ', '\t', '\n', '\r'].all(bad, !{text}.contains(bad)) && !{text}.endsWith('/'))"
    )
}

/// A device name that means the same disk after every boot.
pub(crate) fn stable_device() -> Value {
    json!([rule_with(
        &in_directory_of_dev("self"),
        "write a stable device name: /dev/disk/by-id/…, /dev/disk/by-uuid/…, /dev/mapper/… or /dev/VG/LV",
        "self + ' may be another disk after the next boot; write a stable name: /dev/disk/by-id/…, /dev/disk/by-uuid/…, \
         /dev/mapper/… or /dev/VG/LV'",
    )])
}

/// What a file system is mounted from fits its type.
pub(crate) fn filesystem() -> Value {
    json!([
        rule_at(
            ".device",
            &format!(
                "self.type in ['nfs', 'bind'] || self.device.startsWith('UUID=') || {} || self.device.matches('^/dev/drbd[0-9]+$')",
                in_directory_of_dev("self.device")
            ),
            "write a stable device name (/dev/disk/by-id/…, /dev/mapper/…, /dev/VG/LV, /dev/drbdN) or UUID=…; a name such \
             as /dev/sdb1 may be another disk after the next boot",
        ),
        rule_at(
            ".device",
            r"self.type != 'nfs' || self.device.matches('^[^/\\s]+:/\\S*$')",
            "with type nfs the device is written host:/path",
        ),
        rule_at(
            ".device",
            "self.type != 'bind' || self.device.startsWith('/')",
            "with type bind the device is the absolute path of a directory",
        ),
        rule_at(".mountPoint", "self.mountPoint != '/'", "the root of the server can't be a mount point of a group"),
    ])
}

/// Rules of one heartbeat.
pub(crate) fn heartbeat() -> Value {
    let stall = "(has(self.advanced) && has(self.advanced.stall) ? duration(self.advanced.stall) : duration('0s'))";
    let interval = "duration(self.interval)";
    json!([
        rule_with(
            &format!("!has(self.interval) || duration(self.timeout) >= {interval} + {interval} + {interval} + {stall}"),
            "timeout is shorter than three intervals and the stall; raise timeout or leave interval out",
            "'timeout ' + self.timeout + ' is shorter than three intervals of ' + self.interval + \
             (has(self.advanced) && has(self.advanced.stall) ? ' and the stall ' + self.advanced.stall : '') + \
             '; raise timeout, or leave interval and stall out'",
        ),
        // While servers change over they hear both under one name, and what they conclude depends on the kind.
        rule_at(
            ".paths",
            "oldSelf.paths.all(o, self.paths.all(p, p.name != o.name || (has(p.lan) == has(o.lan) && has(p.disk) == has(o.disk))))",
            "a path keeps its kind (lan, disk, serial) as long as it has its name; give the new path a new name",
        ),
        rule_with(
            "!has(self.advanced) || !has(self.advanced.stall) || duration(self.advanced.stall) < duration(self.timeout)",
            "advanced.stall is not shorter than timeout; lower it or leave it out",
            "'advanced.stall ' + self.advanced.stall + ' is not shorter than timeout ' + self.timeout + '; lower it or leave it out'",
        ),
        rule_with(
            &format!(
                "!has(self.interval) || !has(self.advanced) || !has(self.advanced.lease) || duration(self.advanced.lease) >= {interval} + {interval} + {interval} + {interval}"
            ),
            "advanced.lease is shorter than four intervals; raise it or leave it out",
            "'advanced.lease ' + self.advanced.lease + ' is shorter than four intervals of ' + self.interval + '; raise it or leave it out'",
        ),
    ])
}

/// Rules of the list of servers.
pub(crate) fn servers() -> Value {
    json!([
        rule("self.all(a, self.exists_one(b, b.id == a.id))", "two servers have the same id; give each its own, 1..16"),
        rule(
            "oldSelf.filter(o, !self.exists(s, s.name == o.name)).size() <= 1",
            "more than one server would leave at once; remove one server per change",
        ),
        rule(
            "oldSelf.all(o, self.exists(s, s.name == o.name) || (has(o.state) && o.state == 'Detached'))",
            "a server that leaves must be Detached first: set its state to Detached, apply, then remove it",
        ),
    ])
}

/// Rules over several parts of one sub-cluster.
pub(crate) fn sub_cluster() -> Value {
    let lan_of_all = "self.heartbeat.paths.all(p, !has(p.lan) || self.servers.all(s, p.lan.endpoints.exists(e, e.server == s.name)))";
    json!([
        rule_at(
            ".servers",
            "!has(self.disks) || size(self.disks) == 0 || size(self.servers) == 2",
            "with a shared disk exactly 2 servers: take servers out, or remove disks and use quorum Majority or QuorumServer",
        ),
        rule_at(
            ".quorum.type",
            "self.quorum.type != 'Majority' || size(self.servers) > 2",
            "two servers have no majority when one is lost; use quorum LockDisk or QuorumServer, or add a third server",
        ),
        rule_at(
            ".quorum.type",
            "self.quorum.type != 'LockDisk' || size(self.servers) == 2",
            "a lock disk serves exactly 2 servers; use Majority or QuorumServer",
        ),
        rule_at(
            ".quorum.lockDisk",
            "!has(self.quorum.lockDisk) || (has(self.disks) && self.disks.exists(d, d.name == self.quorum.lockDisk.disk && has(d.area)))",
            "names no entry of disks that has an area; add the disk with an area, or correct the name",
        ),
        rule_at(
            ".heartbeat.paths",
            "self.heartbeat.paths.all(p, !has(p.disk) || (has(self.disks) && self.disks.exists(d, d.name == p.disk.disk && has(d.area))))",
            "a disk path names no entry of disks that has an area; add the disk with an area, or correct the name",
        ),
        rule_with_at(
            ".heartbeat.paths",
            lan_of_all,
            "a lan path lacks the endpoint of a server; give one for every server",
            "'lan path ' + self.heartbeat.paths.filter(p, has(p.lan) && !self.servers.all(s, p.lan.endpoints.exists(e, e.server == s.name)))[0].name + ' lacks the endpoint of a server; give one for every server'",
        ),
        rule_at(
            ".heartbeat.paths",
            "self.heartbeat.paths.all(p, !has(p.lan) || p.lan.endpoints.all(e, self.servers.exists(s, s.name == e.server)))",
            "a lan path has an endpoint of a server that is not in servers; remove it or correct the name",
        ),
        rule_at(
            ".heartbeat.paths",
            "self.heartbeat.paths.all(p, !has(p.serial) || size(self.servers) == 2)",
            "a serial line connects exactly 2 servers; remove the path",
        ),
        rule_at(
            ".heartbeat.paths",
            "self.heartbeat.paths.all(p, !has(p.serial) || self.servers.all(s, p.serial.devices.exists(d, d.server == s.name)))",
            "a serial path lacks the device of a server; give one for each of the two",
        ),
        rule_at(
            ".fencing",
            "!has(self.fencing) || !has(self.fencing.devices) || self.fencing.devices.all(d, d.hosts.all(h, self.servers.exists(s, s.name == h.server)))",
            "a fence device names a server that is not in servers; correct the name",
        ),
        rule_at(
            ".fencing",
            "!has(self.fencing) || !has(self.fencing.levels) || self.fencing.levels.all(l, self.servers.exists(s, s.name == l.server) && l.devices.all(n, has(self.fencing.devices) && self.fencing.devices.exists(d, d.name == n)))",
            "a fence level names a server or device that does not exist; correct the name",
        ),
        rule_at(
            ".monitors",
            "!has(self.monitors) || self.monitors.all(m, m.action in ['FailoverAll', 'ServerDown', 'Report'])",
            "monitors of a sub-cluster act on servers: use action FailoverAll, ServerDown or Report",
        ),
    ])
}

/// The member that the type of quorum names, and only it.
pub(crate) fn quorum() -> Value {
    json!([rule_with(
        "has(self.lockDisk) == (self.type == 'LockDisk') && has(self.quorumServer) == (self.type == 'QuorumServer')",
        "give the member that type names, and only it: lockDisk with LockDisk, quorumServer with QuorumServer, none with Majority",
        "'with type ' + self.type + (self.type == 'LockDisk' ? ' give lockDisk' : self.type == 'QuorumServer' ? ' give quorumServer' : ' give no other member') + (self.type == 'Majority' ? '' : ', and no other member')",
    )])
}

/// Reports of an older lineage, epoch or revision never replace newer ones.
pub(crate) fn newer_report() -> Value {
    let newer = "self.epoch > oldSelf.epoch || (self.epoch == oldSelf.epoch && (!has(oldSelf.revision) || (has(self.revision) && self.revision >= oldSelf.revision)))";
    let (ours, theirs) = ("(has(self.lineage) ? self.lineage : 1)", "(has(oldSelf.lineage) ? oldSelf.lineage : 1)");
    json!([rule(
        &format!(
            "!has(oldSelf.clusterID) || !has(oldSelf.epoch) || (has(self.clusterID) && (oldSelf.clusterID != self.clusterID || (has(self.epoch) && ({ours} > {theirs} || ({ours} == {theirs} && ({newer}))))))"
        ),
        "the report is older than the one that stands here; read the object again",
    )])
}

/// Rules over several parts of one group.
pub(crate) fn failover_group() -> Value {
    json!([
        rule_at(
            ".monitors",
            "!has(self.monitors) || self.monitors.all(m, !has(m.resource) || self.resources.exists(r, r.name == m.resource))",
            "a monitor names a resource that is not in resources; correct the name",
        ),
        rule_at(
            ".resources",
            "self.resources.all(r, !has(r.filesystem) || self.resources.exists_one(o, has(o.filesystem) && o.filesystem.mountPoint == r.filesystem.mountPoint))",
            "two file systems have the same mountPoint; give each its own",
        ),
    ])
}

/// Rules of the list of resources.
pub(crate) fn resources() -> Value {
    json!([rule_with(
        "self.all(r, !has(r.dependsOn) || r.dependsOn.all(d, d != r.name && self.exists(o, o.name == d)))",
        "dependsOn names other resources of the list, never itself; correct the name",
        "'dependsOn of ' + self.filter(r, has(r.dependsOn) && !r.dependsOn.all(d, d != r.name && self.exists(o, o.name == d)))[0].name + ' names itself or what is not in the list; correct the name'",
    )])
}

/// Rules of one monitor.
pub(crate) fn monitor() -> Value {
    let mut all = exactly_one(
        &["exec", "http", "tcp", "process", "icmp", "link", "diskIO", "address", "usage", "journal"],
        "give exactly one of exec, http, tcp, process, icmp, link, diskIO, address, usage, journal",
    );
    if let Some(list) = all.as_array_mut() {
        list.push(rule(
            "self.action != 'Restart' || has(self.resource)",
            "action Restart needs resource: what to restart",
        ));
    }
    all
}

/// Parameters of operations by type; a type that is not here has none.
const PARAMETERS: &[(&str, &str)] = &[
    ("move", "Move"),
    ("restart", "Restart"),
    ("clearFailures", "ClearFailures"),
    ("pause", "Pause"),
    ("resume", "Resume"),
    ("detach", "Detach"),
    ("fence", "Fence"),
    ("shutdown", "Shutdown"),
    ("upgrade", "Upgrade"),
    ("drill", "Drill"),
    ("resolveMirror", "ResolveMirror"),
    ("exec", "Exec"),
];

/// The kinds that a type of operation can be asked of.
const TARGETS: &[(&[&str], &[&str])] = &[
    (&["Start", "Stop"], &["FailoverGroup", "DataService"]),
    (&["Restart", "Move", "Takeover", "Release", "ResolveMirror"], &["FailoverGroup"]),
    (&["ClearFailures"], &["FailoverGroup", "Server"]),
    (&["Pause", "Resume"], &["SuperCluster", "SubCluster", "Server", "FailoverGroup"]),
    (&["Detach", "Reinstate", "ForceReinstate", "ConfirmStopped", "Fence"], &["Server"]),
    (&["Shutdown"], &["SuperCluster", "SubCluster", "Server"]),
    (&["Upgrade", "Exec"], &["SuperCluster", "SubCluster"]),
    (&["Drill"], &["SuperCluster", "SubCluster", "FailoverGroup"]),
    (&["AcceptSpec"], &["SubCluster", "FailoverGroup"]),
    (&["RotateKey"], &["SubCluster"]),
];

/// Types that need requestedBy, reason and confirm.
const DANGEROUS: &str =
    "['ForceReinstate', 'ConfirmStopped', 'Fence', 'Shutdown', 'Takeover', 'AcceptSpec', 'ResolveMirror']";

/// Rules of one operation.
pub(crate) fn operation() -> Value {
    let quoted = |words: &[&str]| words.iter().map(|w| format!("'{w}'")).collect::<Vec<_>>().join(", ");
    let only_own: Vec<String> =
        PARAMETERS.iter().map(|(member, type_)| format!("(!has(self.{member}) || self.type == '{type_}')")).collect();
    let fits: Vec<String> = TARGETS
        .iter()
        .map(|(types, kinds)| format!("(self.type in [{}] && self.target.kind in [{}])", quoted(types), quoted(kinds)))
        .collect();
    let dangerous =
        format!("(self.type in {DANGEROUS} || (has(self.drill) && has(self.drill.live) && self.drill.live))");
    let mut same = vec![
        "self.type == oldSelf.type".to_string(),
        "self.target == oldSelf.target".to_string(),
        "self.mode == oldSelf.mode".to_string(),
        "self.timeout == oldSelf.timeout".to_string(),
        "self.ttlAfterFinished == oldSelf.ttlAfterFinished".to_string(),
    ];
    let optional = ["planDigest", "preconditions", "requestedBy", "reason", "confirm", "notAfter"];
    for field in optional.iter().copied().chain(PARAMETERS.iter().map(|(member, _)| *member)) {
        same.push(format!(
            "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
        ));
    }
    json!([
        rule_with(
            &only_own.join(" && "),
            "only the parameters of the operation's own type may be given; remove the others",
            "'parameters of another type than ' + self.type + ' are given; remove them'",
        ),
        rule_with_at(
            ".target.kind",
            &fits.join(" || "),
            "this type of operation can't be asked of this kind of object",
            "self.type + ' can not be asked of a ' + self.target.kind",
        ),
        rule(
            "(self.type != 'ResolveMirror' || has(self.resolveMirror)) && (self.type != 'Exec' || has(self.exec))",
            "ResolveMirror needs resolveMirror, Exec needs exec",
        ),
        rule_with(
            &format!("!{dangerous} || (has(self.requestedBy) && has(self.reason) && has(self.confirm))"),
            "this operation is dangerous: give requestedBy, reason and confirm",
            "self.type + ' is dangerous: give requestedBy, reason and confirm'",
        ),
        rule_with_at(
            ".confirm",
            &format!("!{dangerous} || !has(self.confirm) || self.confirm == self.target.name"),
            "confirm must be the target's name once more",
            "'confirm must be the name of the target, ' + self.target.name",
        ),
        rule(&same.join(" && "), "an operation can't be changed, except cancel and proceed; make a new one",),
    ])
}

/// Rules of a whole Operation object.
pub(crate) fn operation_object() -> Value {
    json!([rule(
        "has(self.metadata.generateName) || has(self.spec.notAfter)",
        "give metadata.generateName (and use create), or spec.notAfter; so that a repository can't repeat an operation",
    )])
}

fn rule_with_at(field: &str, rule: &str, message: &str, expression: &str) -> Value {
    let mut value = rule_with(rule, message, expression);
    value["fieldPath"] = json!(field);
    value
}
