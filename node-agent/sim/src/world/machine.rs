//! A machine as a whole: standing still from outside (a virtual machine that is paused or moved), and its clock's rate.
//!
//! A machine that stands still runs neither process nor guard nor helper nor watchdog; what it gave to disks and networks
//! goes on. When it goes on, it knows nothing of that: its clock has counted the time, or not even that.

use super::{Event, MS, Moment, World};

impl World {
    /// The machine stands still.
    pub(super) fn pause(&mut self, server: usize, ms: u64, counts: bool) {
        let host = &mut self.hosts[server];
        if !host.powered || host.paused.is_some() {
            return;
        }
        let until = self.now + ms * MS;
        host.paused = Some((self.now, until, counts));
        let life = host.life;
        self.at(until, Event::Resume { server, life });
    }

    /// It goes on. With a clock that stood still, all its deadlines are later by as much.
    pub(super) fn resume(&mut self, server: usize, life: u64) {
        let host = &mut self.hosts[server];
        let Some((since, _, counts)) = host.paused.filter(|_| host.life == life) else { return };
        host.paused = None;
        let gone = if counts { 0 } else { self.now - since };
        host.offset = host.offset.saturating_sub(gone);
        if host.deadline.2 > 0 {
            let (soft, kill, end) = host.deadline;
            host.deadline = (soft + gone, kill + gone, end + gone);
        }
        let slack = (self.config.reset + self.config.drain + self.config.lease).as_nanos() as u64;
        host.lagging = self.now.max(host.deadline.2) + slack;
        let name = host.name.clone();
        self.say(format!("{name}: goes on after {} ms", (self.now - since) / MS));
        // The guard's timer is due, or is set anew.
        self.guard(server);
    }

    /// When something happens inside a machine that stands still, it happens once the machine goes on.
    pub(super) fn asleep(&self, event: &Event) -> Option<Moment> {
        use Event::{Act, Durable, Effect, Guard, Input, Kill, Looked, Start, Thaw, Tick};
        let server = match event {
            Input { server, .. } | Tick { server, .. } | Durable { server, .. } | Looked { server, .. } => *server,
            Act { server, .. } | Effect { server, .. } | Guard { server } | Kill { server, .. } => *server,
            Start { server } | Thaw { server } => *server,
            _ => return None,
        };
        // Behind the resumption itself, in the order in which they come.
        self.hosts[server].paused.map(|(_, until, _)| until.max(self.now) + 1)
    }

    /// Whether a server stands still, or may go on with what it knew before it did. Time proves nothing about it.
    pub(super) fn is_lagging(&self, server: usize) -> bool {
        let host = &self.hosts[server];
        host.paused.is_some() || self.now < host.lagging
    }

    /// Before each thing that a process does, it may be stopped.
    pub(super) fn goes_on(&mut self, server: usize) -> bool {
        self.happens(server, super::faults::Moment::Acts);
        !self.hosts[server].frozen
    }

    /// A monitor's word. Everything was handed over before; at least half of all servers do not go this way, and never one
    /// that stands alone: what was healthy stays served, however wrong the monitor is.
    pub(super) fn shut_down(&mut self, server: usize, reason: &str) {
        let name = self.hosts[server].name.clone();
        self.say(format!("{name}: powers off: {reason}"));
        if !self.hosts[server].running.is_empty() {
            self.violation("shutdown", format!("{name} shuts down while it runs {:?}", self.hosts[server].running));
        }
        if self.check_ordered(server) {
            return self.power_cut(server);
        }
        self.hosts[server].shut_down = true;
        let gone = self.hosts.iter().filter(|host| host.shut_down).count();
        // Of how many is not clear while servers come and go.
        if gone * 2 > self.hosts.len() && self.config.generation == self.first.generation {
            self.violation("shutdown", format!("{gone} of {} servers shut down", self.hosts.len()));
        }
        let view = self.hosts[server].ledger.view.as_ref();
        if view.is_some_and(|view| view.members.len() == 1 && view.members.contains_key(&name)) {
            self.violation("shutdown", format!("{name} shuts down, the only one that was left"));
        }
        self.power_cut(server);
    }

    /// Its clock goes on at another rate, without a jump.
    pub(super) fn change_rate(&mut self, server: usize, ppm: i64) {
        let now = self.clock(server, self.now);
        let (soft, kill, end) = self.hosts[server].deadline;
        let points = [soft, kill, end].map(|at| self.clock(server, at));
        let host = &mut self.hosts[server];
        host.drift = ppm;
        let skew = (i128::from(self.now) * i128::from(ppm) / 1_000_000) as i64;
        host.offset = (now.0 - self.now).saturating_add_signed(-skew);
        if end > 0 {
            let [soft, kill, end] = points.map(|at| self.moment(server, at));
            self.hosts[server].deadline = (soft, kill, end);
        }
    }
}
