//! Fence devices of the world: a power switch per host, which works, fails, or hangs.
//!
//! What acts is a helper of the agent that fires: it lives on while its agent is frozen or dead, until the guard ends it
//! with the agent's authority, or the next agent of its host with its leftovers.

use std::collections::BTreeSet;

use holdfast_core::Input;
use holdfast_core::names::ServerName;
use holdfast_core::orders::Power;
use rand::Rng;

use super::{Event, MS, World};

/// How a device behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// Switches off, and says so.
    Works,
    /// Says that it can't.
    Fails,
    /// Switches off after seconds.
    Slow,
    /// Says nothing until its time is over.
    Hangs,
}

/// One step of a call.
#[derive(Debug, Clone)]
pub(super) struct FenceStep {
    server: usize,
    life: u64,
    op: u64,
    target: usize,
    power: Option<Power>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Off,
    On,
    Gone,
}

/// All devices.
#[derive(Debug, Clone)]
pub struct Fences {
    /// How they behave from now on.
    pub device: Device,
    /// What was switched off is switched on again.
    pub reboot: bool,
    /// Servers that were switched off, in order.
    pub fired: Vec<usize>,
    cancelled: BTreeSet<(usize, u64, u64)>,
    /// Which process has heard that which boot of which server is off.
    verified: BTreeSet<(usize, u64, usize, u64)>,
}

impl Default for Fences {
    fn default() -> Fences {
        Fences {
            device: Device::Works,
            reboot: false,
            fired: Vec::new(),
            cancelled: BTreeSet::new(),
            verified: BTreeSet::new(),
        }
    }
}

impl World {
    pub(super) fn fence(&mut self, server: usize, op: u64, target: &ServerName, power: Option<Power>) {
        let Some(target) = self.hosts.iter().position(|host| host.name == *target) else { return };
        let life = self.hosts[server].life;
        let (me, name) = (self.hosts[server].name.clone(), self.hosts[target].name.clone());
        if power == Some(Power::On) {
            self.say(format!("{me}: switches {name} on"));
        } else {
            self.say(format!("{me}: fences {name}"));
            self.is_hit_once(server, target, power);
        }
        let stage = if power == Some(Power::On) { Stage::On } else { Stage::Off };
        let step = FenceStep { server, life, op, target, power, stage };
        match self.fences.device {
            Device::Hangs => self.after(2000 * MS, 3000 * MS, Event::Fence(FenceStep { stage: Stage::Gone, ..step })),
            Device::Slow => self.after(1000 * MS, 3000 * MS, Event::Fence(step)),
            Device::Works | Device::Fails => self.after(20 * MS, 400 * MS, Event::Fence(step)),
        }
    }

    pub(super) fn cancel_fence(&mut self, server: usize, op: u64) {
        let life = self.hosts[server].life;
        if self.fences.cancelled.insert((server, life, op)) {
            let result = Err("cancelled".into());
            self.after(MS, 5 * MS, Event::Input { server, life, input: Input::FenceEnded { op, result } });
        }
    }

    pub(super) fn fence_step(&mut self, step: FenceStep) {
        let FenceStep { server, life, op, target, power, stage } = step.clone();
        let host = &self.hosts[server];
        let (_, kill, end) = host.deadline;
        // The guard acts at the kill point, or at the latest when the watchdog would have.
        let latest = end + self.reset_of(server) * 99 / 100;
        let killed = self.now >= kill && (self.now >= latest || self.rng.random_bool(0.5));
        let gone = !self.hosts[server].powered || self.hosts[server].life != life || killed;
        if gone || self.fences.cancelled.contains(&(server, life, op)) {
            let result = Err("its time was over".into());
            return self.input_if_alive(server, life, Input::FenceEnded { op, result });
        }
        match stage {
            Stage::Off if matches!(self.fences.device, Device::Works | Device::Slow) => {
                let (by, name) = (self.hosts[server].name.clone(), self.hosts[target].name.clone());
                self.hits_no_member(&by, target);
                self.fences.verified.insert((server, life, target, self.hosts[target].boot));
                self.hears_of_fence(target);
                self.power_cut(target);
                self.fences.fired.push(target);
                self.say(format!("{by}: {name} is off"));
                self.after(10 * MS, 500 * MS, Event::Fence(FenceStep { stage: Stage::On, ..step }));
                self.input_if_alive(server, life, Input::FencedOff { op, message: "level 1: switch".into() });
            }
            Stage::On => {
                if power.map_or(self.fences.reboot, |power| power != Power::Off) {
                    self.power_on(target);
                }
                self.input_if_alive(server, life, Input::FenceEnded { op, result: Ok(()) });
            }
            Stage::Off | Stage::Gone => {
                let result = Err("level 1: switch: no answer".into());
                self.input_if_alive(server, life, Input::FenceEnded { op, result });
            }
        }
    }

    /// D28: whoever has heard that all departed boots of a server are off does not switch it off again, nor the boot that
    /// an operator meant.
    fn is_hit_once(&mut self, server: usize, target: usize, power: Option<Power>) {
        let (name, life) = (self.hosts[target].name.clone(), self.hosts[server].life);
        let Some(view) = &self.hosts[server].ledger.view else { return };
        let off = |boot: u128| {
            let verified = |(by, process, hit, at): &(usize, u64, usize, u64)| {
                (*by, *process, *hit) == (server, life, target) && super::host::boot_id(target, *at) == boot
            };
            self.fences.verified.iter().any(verified)
        };
        if power.is_some() && !off(super::host::boot_id(target, self.hosts[target].boot)) {
            return;
        }
        let mut departed = view.departed.keys().filter(|(departed, _)| *departed == name).peekable();
        if departed.peek().is_some() && departed.all(|(_, boot)| off(boot.0)) {
            let by = self.hosts[server].name.clone();
            self.violation("S3", format!("{by} fences {name} again, which it has verified to be off"));
        }
    }

    /// S3, R19: whoever is a member of the newest view that anybody has is never switched off.
    fn hits_no_member(&mut self, by: &ServerName, target: usize) {
        let name = self.hosts[target].name.clone();
        let boot = super::host::boot_id(target, self.hosts[target].boot);
        let newest = self.seen.newest();
        if let Some(view) = newest
            && self.hosts[target].powered
            && view.admits(&name, holdfast_core::names::BootId(boot))
        {
            self.violation("S3", format!("{by} fences {name}, a member of the newest view {}", view.epoch));
        }
    }
}
