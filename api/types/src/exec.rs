//! Which servers an Operation Exec is about, when the command of an Upgrade runs, and how much of its output is kept.

use crate::v1::ExecParameters;

/// Whether it is about this server of this sub-cluster: it names none, or it, as SERVER or SUBCLUSTER.SERVER.
pub fn names(exec: &ExecParameters, sub_cluster: &str, server: &str) -> bool {
    let whole = format!("{sub_cluster}.{server}");
    exec.servers.is_empty() || exec.servers.iter().any(|name| name == server || *name == whole)
}

/// Name of the step of an Upgrade in which its command runs on a server, SUBCLUSTER.SERVER.
pub fn service_step(server: &str) -> String {
    format!("service: {server}")
}

/// As much of the beginning of a text as fits into so many bytes.
pub fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}
