//! `restart`: restarts the agent. Addresses stay where they are.

use std::time::Duration;

use nix::unistd::Uid;

use super::show_status::ShowStatusError;
use crate::paths::Paths;
use crate::systemd::systemctl::{AGENT_UNIT, Systemctl, SystemctlError};

/// More than `TimeoutStopSec` and `TimeoutStartSec` of the agent's unit together.
const RESTART_TIMEOUT: Duration = Duration::from_secs(20);

/// The agent was not restarted.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// Without a configuration there is no agent to start.
    #[error(transparent)]
    Configuration(ShowStatusError),
    /// systemd would refuse it, and ask for the password of a user.
    #[error("only root may restart the agent: use sudo")]
    NotPermitted,
    /// systemd did not restart it.
    #[error("{0}; `show log aws-vipa` shows the agent's log")]
    Systemctl(#[from] SystemctlError),
}

/// Restarts the agent, if there is a configuration. An agent that does not run is started.
///
/// # Errors
/// [`RestartError`].
pub fn run(paths: &Paths) -> Result<(), RestartError> {
    if !paths.config.exists() {
        return Err(RestartError::Configuration(ShowStatusError::NotConfigured));
    }
    if !Uid::effective().is_root() {
        return Err(RestartError::NotPermitted);
    }
    Ok(Systemctl::within(RESTART_TIMEOUT).run(&["restart", AGENT_UNIT])?)
}
