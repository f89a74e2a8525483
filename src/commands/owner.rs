//! `owner`: the interpreter of VyOS's owner script. VyOS runs the script once for each node that a commit changes. A call
//! with nothing left to do ends here, and saves the 100 ms or more that Python and VyOS's library take.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::repeated_call::{has_nothing_left, running_commit};
use crate::paths::Paths;

/// The interpreter of the script.
const PYTHON: &str = "/usr/bin/python3";

/// `owner`, with what the kernel puts behind it: the script and its arguments.
#[derive(Debug, clap::Args)]
pub struct OwnerScript {
    /// The script
    script: PathBuf,
    /// What VyOS calls for
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    called_for: Vec<String>,
}

/// Python could not be run.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {PYTHON}: {0}")]
pub struct OwnerError(#[source] io::Error);

impl OwnerScript {
    /// Returns if nothing is left to do. Otherwise Python with the script replaces this process.
    ///
    /// # Errors
    /// [`OwnerError`].
    pub fn run(self, paths: &Paths) -> Result<(), OwnerError> {
        let called_for = self.called_for.clone().into();
        if running_commit(paths).is_some_and(|commit| has_nothing_left(paths, &commit, &called_for)) {
            return Ok(());
        }
        Err(OwnerError(Command::new(PYTHON).arg(self.script).args(self.called_for).exec()))
    }
}
