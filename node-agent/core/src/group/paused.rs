//! A machine that is paused (see `holding.rs`): it checks what runs, and neither starts nor stops anything.

use super::{Machine, State};
use crate::holding::Looked;
use crate::names::ResourceName;
use crate::planted::planted;
use crate::time::Instant;

/// The pause of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Pause {
    on: bool,
    /// The request for which it is looked at, or was.
    look: Option<String>,
}

impl Machine {
    /// Nobody acts. What is to be stopped is stopped all the same: that is safety's word, not a failure's.
    pub(super) fn is_paused(&self) -> bool {
        self.pause.on && self.wanted
    }

    pub(super) fn is_left_alone(&self) -> bool {
        self.is_paused() && !planted!(PausedIsTouched)
    }

    /// Paused, and nothing that was begun before is under way.
    pub(super) fn is_settled_in_pause(&self) -> bool {
        let acts = |state: State| matches!(state, State::Starting(..) | State::Stopping(_));
        self.is_paused() && !self.resources.values().any(|resource| acts(resource.state))
    }

    /// Whether this is news.
    pub(crate) fn is_other_pause(&self, on: bool, look: Option<&str>) -> bool {
        let on = on && self.wanted;
        self.pause.on != on || on && self.pause.look.as_deref() != look
    }

    /// It is paused, or looked at for this request; or it is not any more.
    pub(crate) fn set_pause(&mut self, now: Instant, on: bool, look: Option<String>) {
        let on = on && self.wanted;
        if self.pause.on && !on {
            for resource in self.resources.values_mut().filter(|resource| resource.state == State::Lost) {
                // Stopped first, as after every failure: nobody knows how much of it is left.
                resource.state = State::NeedsStop;
                resource.not_before = now;
            }
            self.monitors.begin_anew();
        }
        if on && look.is_some() && self.pause.look != look {
            for resource in self.resources.values_mut() {
                if matches!(resource.state, State::Running | State::Lost | State::Stopped | State::NeedsStop) {
                    resource.state = State::NeedsProbe;
                }
            }
        }
        self.pause = Pause { on, look: look.filter(|_| on) };
    }

    /// In a pause a resource was found not to run, or not to be well.
    pub(super) fn lose(&mut self, name: &ResourceName, message: String) {
        if let Some(resource) = self.resources.get_mut(name) {
            resource.state = State::Lost;
            resource.message = message;
        }
    }

    /// What was found, once everything was looked at.
    pub(super) fn looked(&self) -> Option<Looked> {
        let by = self.pause.look.clone().filter(|_| self.is_paused())?;
        let looks = |state: State| matches!(state, State::NeedsProbe | State::Probing(_));
        if !self.is_settled_in_pause() || self.resources.values().any(|resource| looks(resource.state)) {
            return None;
        }
        let mut differences = Vec::new();
        for (name, resource) in &self.resources {
            match resource.state {
                State::Lost | State::Stuck(_) => differences.push(format!("{name}: {}", resource.message)),
                State::Running if !self.is_on(name) => {
                    differences.push(format!("{name}: it runs, and is switched off"))
                }
                _ => {}
            }
        }
        Some(Looked { by, differences })
    }
}
