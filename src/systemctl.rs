//! systemd, through `systemctl` alone.

use std::io;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a job may take. keepalived's reload is bounded by its unit; ours are not waited for.
const BOUND: Duration = Duration::from_secs(10);

/// The agent's unit.
pub const AGENT: &str = "vyos-aws-vipa.service";

/// systemctl did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum SystemctlError {
    /// It could not be run.
    #[error("cannot run systemctl: {0}")]
    Run(#[source] io::Error),
    /// It failed.
    #[error("systemctl {arguments} failed ({status}): {said}")]
    Failed {
        /// Its arguments.
        arguments: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote to standard error.
        said: String,
    },
    /// It took too long, and was killed; the job may go on.
    #[error("systemctl {0} did not end within {BOUND:?}: see `systemctl list-jobs`")]
    TimedOut(String),
}

/// Runs systemctl with these words. No shell is involved.
///
/// # Errors
/// [`SystemctlError`].
pub fn run(arguments: &[&str]) -> Result<(), SystemctlError> {
    let said = tempfile::tempfile().map_err(SystemctlError::Run)?;
    let stderr = said.try_clone().map_err(SystemctlError::Run)?;
    let mut child = Command::new("systemctl")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .map_err(SystemctlError::Run)?;
    let deadline = Instant::now() + BOUND;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(SystemctlError::Run)? {
            break status;
        }
        if Instant::now() >= deadline {
            // It may have ended meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            return Err(SystemctlError::TimedOut(arguments.join(" ")));
        }
        sleep(Duration::from_millis(2));
    };
    if status.success() {
        return Ok(());
    }
    let said = io::read_to_string(rewound(said)).unwrap_or_default();
    Err(SystemctlError::Failed { arguments: arguments.join(" "), status, said: said.trim().to_owned() })
}

fn rewound(mut file: std::fs::File) -> std::fs::File {
    // A file that cannot be read from its start gives no text, and the exit code speaks.
    let _ = io::Seek::rewind(&mut file);
    file
}
