//! `holdfast agent`: runs until it has left cleanly or can't go on. Its supervisor starts it again at once.

use holdfast_agent::AgentError;

use crate::args::AgentArgs;
use crate::errors::{Failure, Result};
use crate::logging;

/// Runs the agent.
///
/// # Errors
/// When it can't start (file, directories, rights) or can't go on.
pub(crate) fn run(args: &AgentArgs) -> Result {
    logging::start()?;
    holdfast_agent::agent_main(&args.config).map_err(|error| match error {
        AgentError::Start(_) => Failure::refused_by(error),
        AgentError::Ended(_) => anyhow::Error::from(error).into(),
    })
}
