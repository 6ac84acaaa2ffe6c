//! Names by which the agents of servers are known to the API server.

/// Prefix of the users of agents.
pub const AGENT_USER: &str = "holdfast:server:";
/// Group of all agents.
pub const AGENTS_GROUP: &str = "holdfast:servers";
/// Signer of agents' certificates, in CertificateSigningRequests.
pub const AGENT_SIGNER: &str = "holdfast.dev/agent";

/// The user of a server's agent.
pub fn agent_user(namespace: &str, sub_cluster: &str, server: &str) -> String {
    format!("{AGENT_USER}{namespace}:{sub_cluster}:{server}")
}
