//! A group's machine, with what follows from its state kept until something touches it: asking a thousand resources after
//! every heartbeat would cost more than everything else that an agent does.
//!
//! Right because the only way to a change is [`DerefMut`], which forgets what was kept, and one check's answer, which moves
//! a time that is kept ([`Hosted::still_runs`]).

use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use crate::group::{Machine, Request};
use crate::monitors::DueCheck;
use crate::names::ResourceName;
use crate::output::OpId;
use crate::status::GroupReport;
use crate::time::Instant;

/// A machine. Two are equal if their machines are.
#[derive(Debug, Clone)]
pub(crate) struct Hosted {
    machine: Machine,
    /// Its report, for a newest generation.
    report: OnceLock<(u64, Arc<GroupReport>)>,
    quiet: Option<Quiet>,
}

/// Nothing is to be done.
#[derive(Debug, Clone, Copy)]
struct Quiet {
    /// While the lease says this.
    may_start: bool,
    /// Until then; none: until something happens.
    until: Option<Instant>,
}

impl Hosted {
    /// See [`Machine::report`].
    pub(crate) fn kept_report(&self, known: u64) -> Arc<GroupReport> {
        let fresh = || Arc::new(self.machine.report(known));
        let (of, kept) = self.report.get_or_init(|| (known, fresh()));
        if *of != known {
            return fresh();
        }
        debug_assert_eq!(**kept, self.machine.report(known), "what was kept is not what is");
        kept.clone()
    }

    /// What is to be done now, see [`Machine::requests`] and [`Machine::checks`].
    pub(crate) fn due(
        &mut self,
        now: Instant,
        may_start: bool,
        wake: &mut Vec<Instant>,
    ) -> (Vec<Request>, Vec<DueCheck>) {
        if let Some(quiet) = self.quiet.filter(|quiet| quiet.may_start == may_start)
            && quiet.until.is_none_or(|until| now < until)
        {
            #[cfg(debug_assertions)]
            assert!(
                !now.is_sample()
                    || self.machine.clone().requests(now, may_start, &mut Vec::new()).is_empty()
                        && self.machine.clone().checks(now, may_start, &mut Vec::new()).is_empty(),
                "something is to be done"
            );
            wake.extend(quiet.until);
            return Default::default();
        }
        let machine = &mut **self;
        let before = wake.len();
        let due = (machine.requests(now, may_start, wake), machine.checks(now, may_start, wake));
        // Where all resources run, and are to, only time can bring something new.
        if due.0.is_empty() && due.1.is_empty() && machine.is_calm() {
            self.quiet = Some(Quiet { may_start, until: wake[before..].iter().min().copied() });
        }
        due
    }

    /// See [`Machine::still_runs`]. A report says nothing of it, and of what is to be done it changes only when.
    pub(crate) fn still_runs(&mut self, now: Instant, name: &ResourceName, op: OpId) -> Option<Instant> {
        let next = self.machine.still_runs(now, name, op)?;
        if let Some(quiet) = &mut self.quiet {
            quiet.until = Some(quiet.until.map_or(next, |until| until.min(next)));
        }
        Some(next)
    }
}

impl From<Machine> for Hosted {
    fn from(machine: Machine) -> Hosted {
        Hosted { machine, report: OnceLock::new(), quiet: None }
    }
}

impl Deref for Hosted {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl DerefMut for Hosted {
    fn deref_mut(&mut self) -> &mut Machine {
        self.report = OnceLock::new();
        self.quiet = None;
        &mut self.machine
    }
}

impl PartialEq for Hosted {
    fn eq(&self, other: &Hosted) -> bool {
        self.machine == other.machine
    }
}

impl Eq for Hosted {}

impl Hash for Hosted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.machine.hash(state);
    }
}
