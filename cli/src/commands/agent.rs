//! `holdfast agent`: runs until it has left cleanly or can't go on. Its supervisor starts it again at once.

use holdfast_agent::AgentError;
use holdfast_agent::config::AgentConfig;
use holdfast_agent::join::{self, Joined};

use crate::args::AgentArgs;
use crate::errors::{Failure, Result};

/// Runs the agent.
///
/// # Errors
/// When it can't start (file, directories, rights) or can't go on.
pub(crate) fn run(args: &AgentArgs) -> Result {
    holdfast_telemetry::logs::start().map_err(Failure::refused_by)?;
    if let (Some(url), Some(token)) = (&args.join, &args.token) {
        let config = AgentConfig::load(&args.config).map_err(Failure::refused_by)?;
        match join::join(&config, url, token).map_err(Failure::refused_by)? {
            Joined::Now => tracing::info!(credentials = %config.credentials.display(), "joined"),
            Joined::Before => tracing::info!("this server has credentials already; the token is not used"),
        }
    }
    holdfast_agent::agent_main(&args.config).map_err(|error| match error {
        AgentError::Start(_) => Failure::refused_by(error),
        AgentError::Ended(_) => anyhow::Error::from(error).into(),
    })
}
