//! `agent`: the service.

use std::io;

use crate::agent::{self, AgentError};
use crate::logging;
use crate::paths::Paths;

/// Why the agent ended otherwise than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum AgentCommandError {
    /// There is no runtime.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    /// It could not start.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// Runs the agent until SIGTERM.
///
/// # Errors
/// [`AgentCommandError`].
pub fn run(paths: &Paths) -> Result<(), AgentCommandError> {
    logging::start();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AgentCommandError::Runtime)?;
    let result = runtime.block_on(agent::run(paths));
    // A call that hangs in the system's resolver does not hold up the end.
    runtime.shutdown_background();
    Ok(result?)
}
