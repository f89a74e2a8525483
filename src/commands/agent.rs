//! `agent`: the service.

use std::io;

use crate::agent::{self, AgentError};
use crate::paths::Paths;
use crate::systemd::journal;

/// How many calls may block at a time, such as lookups of a name by the system's resolver: each occupies a thread until it
/// ends. The unit's TasksMax has room for them, since a thread that cannot be started ends the agent.
const MAX_BLOCKING_THREADS: usize = 32;

/// Why the agent ended otherwise than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum AgentCommandError {
    /// The async runtime cannot be started.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    /// The agent could not start.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// Runs the agent until SIGTERM.
///
/// # Errors
/// [`AgentCommandError`].
pub fn run(paths: &Paths) -> Result<(), AgentCommandError> {
    journal::start();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(MAX_BLOCKING_THREADS).build();
    let runtime = runtime.map_err(AgentCommandError::Runtime)?;
    let result = runtime.block_on(agent::run(paths));
    // Does not wait for a call that hangs in the system's resolver.
    runtime.shutdown_background();
    Ok(result?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_has_room_for_all_threads() {
        let unit = include_str!("../../debian/vyos-aws-vipa.service");
        let limit = unit.lines().find_map(|line| line.strip_prefix("TasksMax=")).expect("a limit");
        let limit: usize = limit.parse().expect("a number");
        // The loop, and a few that a library may start.
        assert!(MAX_BLOCKING_THREADS + 8 <= limit, "{MAX_BLOCKING_THREADS} of {limit}");
    }
}
