//! `credentials`: hands a credentials file that has changed, come or gone to the agent.
//!
//! Run as root by vyos-aws-vipa-credentials.service, which the .path unit starts at once, and the timer every half minute:
//! inotify misses what happens while the service runs, and what happens behind a symbolic link or on another machine.

use vipa_core::model::config::Config;

use crate::fs::json_file::{self, FileError};
use crate::paths::Paths;
use crate::systemd::credentials::{self, HandOverError};
use crate::systemd::systemctl::{Systemctl, TOTAL_TIMEOUT};

/// Why the file was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] FileError),
    /// The file.
    #[error(transparent)]
    HandOver(#[from] HandOverError),
}

/// Does nothing where nothing has changed. Where nothing is configured any more, it takes back what a run made that went
/// on while the last node was deleted.
///
/// # Errors
/// [`CredentialsError`].
pub fn run(paths: &Paths) -> Result<(), CredentialsError> {
    let systemctl = Systemctl::within(TOTAL_TIMEOUT);
    match json_file::read::<Config>(&paths.config) {
        Ok(config) => {
            let file = config.global.credentials_file.as_deref();
            // An agent that does not run is left at rest.
            credentials::hand_over(paths, file, "try-restart", systemctl)?
        }
        Err(FileError::Missing(_)) => credentials::withdraw(paths, systemctl)?,
        Err(error) => return Err(error.into()),
    };
    Ok(())
}
