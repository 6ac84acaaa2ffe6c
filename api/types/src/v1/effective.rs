//! Effective values where a default is derived from other fields, so that nobody derives them twice.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    FailoverGroupSpec, RecoveryAction, Resource, Stage, StopFailureAction, SubClusterSpec,
    resources::{DataServiceResource, Filesystem, FloatingIp, Process, Script},
    resources_other::{MirrorDisk, NfsExport, Ocf, Systemd, VirtualIp, VolumeGroup},
};

/// What a resource is: its one member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Member<'a> {
    /// A file system.
    Filesystem(&'a Filesystem),
    /// An address in the servers' subnet.
    FloatingIp(&'a FloatingIp),
    /// An address outside the servers' subnet.
    VirtualIp(&'a VirtualIp),
    /// Scripts.
    Script(&'a Script),
    /// A program.
    Process(&'a Process),
    /// A unit of systemd.
    Systemd(&'a Systemd),
    /// An OCF resource agent.
    Ocf(&'a Ocf),
    /// An LVM volume group.
    VolumeGroup(&'a VolumeGroup),
    /// A mirror of local disks.
    MirrorDisk(&'a MirrorDisk),
    /// A directory exported by NFS.
    NfsExport(&'a NfsExport),
    /// A registered DataService.
    DataService(&'a DataServiceResource),
}

impl Member<'_> {
    /// The member's name in manifests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Filesystem(_) => "filesystem",
            Self::FloatingIp(_) => "floatingIP",
            Self::VirtualIp(_) => "virtualIP",
            Self::Script(_) => "script",
            Self::Process(_) => "process",
            Self::Systemd(_) => "systemd",
            Self::Ocf(_) => "ocf",
            Self::VolumeGroup(_) => "volumeGroup",
            Self::MirrorDisk(_) => "mirrorDisk",
            Self::NfsExport(_) => "nfsExport",
            Self::DataService(_) => "dataService",
        }
    }

    /// The stage of such a member.
    pub fn stage(&self) -> Stage {
        match self {
            Self::VolumeGroup(_) | Self::MirrorDisk(_) => Stage::Storage,
            Self::Filesystem(_) => Stage::Mount,
            Self::NfsExport(_) => Stage::Export,
            Self::FloatingIp(_) | Self::VirtualIp(_) => Stage::Address,
            Self::Script(_) | Self::Process(_) | Self::Systemd(_) | Self::Ocf(_) | Self::DataService(_) => {
                Stage::Service
            }
        }
    }

    /// Longest times to start and to stop. Those of OCF agents and methods are in their metadata; what stands here is the
    /// fallback for agents that say nothing.
    fn timeouts(&self) -> (Duration, Duration) {
        let (start, stop) = match self {
            Self::FloatingIp(_) | Self::VirtualIp(_) => (20, 20),
            Self::Filesystem(_) | Self::Script(_) | Self::Process(_) | Self::Ocf(_) | Self::DataService(_) => (60, 60),
            Self::Systemd(_) | Self::VolumeGroup(_) => (90, 90),
            Self::MirrorDisk(_) => (240, 100),
            Self::NfsExport(_) => (40, 120),
        };
        (Duration::from_secs(start), Duration::from_secs(stop))
    }
}

impl Resource {
    /// What the resource is; `None` only for what the schema refuses, or for a member of a later version.
    pub fn member(&self) -> Option<Member<'_>> {
        None.or(self.filesystem.as_ref().map(Member::Filesystem))
            .or(self.floating_ip.as_ref().map(Member::FloatingIp))
            .or(self.virtual_ip.as_ref().map(Member::VirtualIp))
            .or(self.script.as_ref().map(Member::Script))
            .or(self.process.as_ref().map(Member::Process))
            .or(self.systemd.as_ref().map(Member::Systemd))
            .or(self.ocf.as_ref().map(Member::Ocf))
            .or(self.volume_group.as_ref().map(Member::VolumeGroup))
            .or(self.mirror_disk.as_ref().map(Member::MirrorDisk))
            .or(self.nfs_export.as_ref().map(Member::NfsExport))
            .or(self.data_service.as_ref().map(Member::DataService))
    }

    /// When it starts: what is given, else by member.
    pub fn effective_stage(&self) -> Stage {
        self.stage.or(self.member().map(|m| m.stage())).unwrap_or(Stage::Service)
    }

    fn default_timeouts(&self) -> (Duration, Duration) {
        self.member().map_or((Duration::from_secs(60), Duration::from_secs(60)), |m| m.timeouts())
    }

    /// Longest time to start.
    pub fn start_timeout(&self) -> Duration {
        let given = self.timeouts.as_ref().and_then(|t| t.start.as_ref());
        given.map_or(self.default_timeouts().0, |d| d.get())
    }

    /// Longest time to stop.
    pub fn stop_timeout(&self) -> Duration {
        let given = self.timeouts.as_ref().and_then(|t| t.stop.as_ref());
        given.map_or(self.default_timeouts().1, |d| d.get())
    }

    /// Longest time to find out whether it runs.
    pub fn probe_timeout(&self) -> Duration {
        let given = self.timeouts.as_ref().and_then(|t| t.probe.as_ref());
        given.map_or(Duration::from_secs(20), |d| d.get())
    }

    /// Time between two of its own checks.
    pub fn check_interval(&self) -> Duration {
        let given = self.monitor.as_ref().and_then(|m| m.interval.as_ref());
        given.map_or(Duration::from_secs(10), |d| d.get())
    }

    /// Longest time for one of its own checks.
    pub fn check_timeout(&self) -> Duration {
        let given = self.monitor.as_ref().and_then(|m| m.timeout.as_ref());
        given.map_or(Duration::from_secs(20), |d| d.get())
    }

    /// Its own checks by depth: 0 is the plain one. Deeper ones, which only OCF agents have, take its times where they give
    /// none.
    pub fn checks(&self) -> BTreeMap<u8, CheckTimes> {
        let plain = CheckTimes { interval: self.check_interval(), timeout: self.check_timeout() };
        let deeper = self.ocf.iter().flat_map(|ocf| &ocf.depths).map(|given| {
            let interval = given.interval.as_ref().map_or(plain.interval, |d| d.get());
            (given.depth, CheckTimes { interval, timeout: given.timeout.as_ref().map_or(plain.timeout, |d| d.get()) })
        });
        std::iter::once((0, plain)).chain(deeper).collect()
    }

    /// Failed checks of one depth in a row that count as a failure.
    pub fn check_threshold(&self) -> u16 {
        self.monitor.as_ref().and_then(|m| m.threshold).unwrap_or(1)
    }
}

/// Times of one of a resource's own checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckTimes {
    /// From the end of one to the next.
    pub interval: Duration,
    /// Longest time for one.
    pub timeout: Duration,
}

/// What happens when one resource fails: its own rules, completed by those of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveRecovery {
    /// Restarts in place within `window` before `then`.
    pub restarts: u16,
    /// The window for `restarts`.
    pub window: Duration,
    /// What follows.
    pub then: RecoveryAction,
    /// What follows when a stop fails.
    pub on_stop_failure: StopFailureAction,
}

impl FailoverGroupSpec {
    /// What happens when this resource of the group fails.
    pub fn recovery_of(&self, resource: &Resource) -> EffectiveRecovery {
        let own = resource.recovery.as_ref();
        let group = &self.recovery;
        EffectiveRecovery {
            restarts: own.and_then(|r| r.restarts).unwrap_or(group.restarts),
            window: own.and_then(|r| r.window.as_ref()).unwrap_or(&group.window).get(),
            then: own.and_then(|r| r.then).unwrap_or(group.then),
            on_stop_failure: own.and_then(|r| r.on_stop_failure).unwrap_or(group.on_stop_failure),
        }
    }

    /// Servers that may run the group, in order of preference: what is given, else all of the sub-cluster by id. Names that
    /// the sub-cluster does not have are left out.
    pub fn placement_servers(&self, sub_cluster: &SubClusterSpec) -> Vec<String> {
        let known = |name: &&String| sub_cluster.servers.iter().any(|s| s.name == **name);
        if self.placement.servers.is_empty() {
            let mut all: Vec<_> = sub_cluster.servers.iter().collect();
            all.sort_by_key(|s| s.id);
            all.into_iter().map(|s| s.name.clone()).collect()
        } else {
            self.placement.servers.iter().filter(known).cloned().collect()
        }
    }
}

impl SubClusterSpec {
    /// Name of the Secret with the heartbeat keys of the sub-cluster `name`.
    pub fn key_secret(&self, name: &str) -> String {
        self.heartbeat.key_secret.clone().unwrap_or_else(|| format!("{name}-heartbeat"))
    }

    /// Losses within `brakes.lossesWithin` that are acted on: what is given, else half of the servers; servers of one site
    /// count once.
    pub fn max_losses(&self) -> usize {
        let mut sites: Vec<&str> = self.servers.iter().map(|s| s.site.as_str()).filter(|s| !s.is_empty()).collect();
        let alone = self.servers.len() - sites.len();
        sites.sort_unstable();
        sites.dedup();
        self.brakes.max_losses.map_or_else(|| (alone + sites.len()).div_ceil(2).max(1), usize::from)
    }
}
