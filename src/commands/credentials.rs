//! `credentials`: copies the configured credentials file for the agent.
//!
//! Run as root by vyos-aws-vipa-credentials.service, which its timer starts twice a minute.

use vipa_core::model::config::Config;

use crate::fs::credentials_file::{self, CopyError};
use crate::fs::json_file::{self, FileError};
use crate::paths::Paths;
use crate::systemd::systemctl::{CREDENTIALS_TIMER, Systemctl, SystemctlError, TOTAL_TIMEOUT};

/// The copy is not up to date.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] FileError),
    /// The copy cannot be written or removed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The timer cannot be started or stopped.
    #[error(transparent)]
    Systemctl(#[from] SystemctlError),
}

/// Copies the file if it has changed. If none is configured, removes the copy and stops the timer: `commit` has done so, but
/// a concurrent run may have written the copy again.
///
/// # Errors
/// [`CredentialsError`].
pub fn run(paths: &Paths) -> Result<(), CredentialsError> {
    let systemctl = Systemctl::within(TOTAL_TIMEOUT);
    let mut config = read(paths)?;
    let mut is_stopped = false;
    loop {
        if let Some(file) = config.as_ref().and_then(|config| config.global.credentials_file.as_deref()) {
            credentials_file::install(paths, file)?;
            if is_stopped {
                systemctl.run(&["start", "--no-block", CREDENTIALS_TIMER])?;
            }
        } else {
            credentials_file::remove(paths)?;
            systemctl.run(&["stop", "--no-block", CREDENTIALS_TIMER])?;
            is_stopped = true;
        }
        // Repeated if a commit has changed the configuration meanwhile, so that its effect is not undone.
        let now = read(paths)?;
        if now == config {
            return Ok(());
        }
        config = now;
    }
}

fn read(paths: &Paths) -> Result<Option<Config>, FileError> {
    match json_file::read(&paths.config) {
        Err(FileError::Missing(_)) => Ok(None),
        read => read.map(Some),
    }
}
