//! Names and ids, each a type of its own so that none is taken for another.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $type(pub String);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                $type(text.to_owned())
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// Name of a server, unique in its sub-cluster (`servers[].name`).
    ServerName
}
name! {
    /// Name of a heartbeat path (`heartbeat.paths[].name`).
    PathName
}
name! {
    /// Name of a failover group; all groups of a sub-cluster live in one namespace.
    GroupName
}
name! {
    /// Name of a resource inside its group.
    ResourceName
}
name! {
    /// Name of a monitor inside its group, or inside the sub-cluster.
    MonitorName
}

macro_rules! id {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $type(pub u128);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let b = format!("{:032x}", self.0);
                write!(f, "{}-{}-{}-{}-{}", &b[..8], &b[8..12], &b[12..16], &b[16..20], &b[20..])
            }
        }
    };
}

id! {
    /// Identity of an acceptor: made at the first start of a server, or when a lock is formatted. A server that lost
    /// its state, or a lock that was formatted anew, is another acceptor and has no vote (protocol-why D9).
    AcceptorId
}
id! {
    /// The kernel's boot id: one incarnation of a machine.
    BootId
}
id! {
    /// Identity of a sub-cluster, made at its formation.
    ClusterId
}
id! {
    /// Identity of a chain of views: made at the formation, and anew by every force-reinstate (R22). Views of one lineage
    /// whose chains differ come from two force-reinstates and can never be brought together.
    ChainId
}
