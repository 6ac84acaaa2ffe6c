//! One file per verb.

pub(crate) mod agent;
pub(crate) mod agents;
pub(crate) mod apply;
pub(crate) mod backup;
pub(crate) mod crds;
pub(crate) mod delete;
pub(crate) mod disk;
pub(crate) mod fence;
pub(crate) mod get;
pub(crate) mod init;
pub(crate) mod kubeconfig;
pub(crate) mod lab;
pub(crate) mod local;
pub(crate) mod merge;
pub(crate) mod monitor;
pub(crate) mod move_group;
pub(crate) mod operation;
pub(crate) mod quorum_lock;
pub(crate) mod quorum_server;
pub(crate) mod server;
pub(crate) mod shell;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod timing;
pub(crate) mod token;
pub(crate) mod validate;
