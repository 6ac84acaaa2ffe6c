//! Everything that has to survive, in one place, with what happens when it is lost.
//!
//! | field | if lost |
//! |---|---|
//! | all of it | the server is a new acceptor without a vote; it has to be admitted again (R19, I-g) |
//! | `view` | as above; peers and the lock teach it the newest one |
//! | `promised`, `accepted` | never alone: they are written with `view` in one record |
//! | `highest` | older assignments could be taken again (R14) |
//! | `shut_downs` | never alone; else an order to shut down that is given again would be heeded again |
//! | `table`, `held` | the server would not know what it may still run; probing finds it, the guard's kill list stops it |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::lock::LockMemory;
use crate::message::Assignment;
use crate::names::{AcceptorId, BootId, GroupName};
use crate::view::{Ballot, Tag, View};

/// A server's durable state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Durable {
    /// Identity of this server as an acceptor, made at its first start.
    pub acceptor: AcceptorId,
    /// Counts boots of the machine.
    pub boot_counter: u64,
    /// Boot that wrote this.
    pub boot: BootId,
    /// Newest view adopted; none before formation.
    pub view: Option<View>,
    /// Highest ballot promised for the successor of `view`.
    pub promised: Ballot,
    /// Ballot and value accepted for the successor of `view`.
    pub accepted: Option<(Ballot, View)>,
    /// Highest tag seen.
    pub highest: Tag,
    /// Newest assignment per group.
    pub table: BTreeMap<GroupName, Assignment>,
    /// Groups that this server may hold, with the assignment under which it started them.
    pub held: BTreeMap<GroupName, Assignment>,
    /// The last process of this server left cleanly (holds nothing, is in no view or in a stopped one).
    pub clean: bool,
    /// Highest sequence written to the own ring of the lock.
    pub lock_sequence: u64,
    /// What was last seen of the lock. Not written for its own sake: it goes along with what else is written.
    pub lock_memory: LockMemory,
    /// Stays out of views until an operator or the return policy brings it back (C20).
    pub barred: bool,
    /// The newest orders to shut down that it took, the newest last.
    pub shut_downs: Vec<crate::closing::ShutDown>,
}

impl Durable {
    /// State of a server that starts for the first time. `acceptor` is a random number.
    pub fn fresh(acceptor: AcceptorId, boot: BootId) -> Durable {
        Durable {
            acceptor,
            boot_counter: 1,
            boot,
            view: None,
            promised: Ballot::default(),
            accepted: None,
            highest: Tag::default(),
            table: BTreeMap::new(),
            held: BTreeMap::new(),
            clean: true,
            lock_sequence: 0,
            lock_memory: LockMemory::default(),
            barred: false,
            shut_downs: Vec::new(),
        }
    }
}
