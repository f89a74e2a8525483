//! systemd, through `systemctl` alone.

use std::io;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long all calls of one command may take. keepalived's reload is waited for; our own units are not.
pub const TOTAL_TIMEOUT: Duration = Duration::from_secs(12);

/// What a call has in any case: one that hangs costs no other that systemd would do at once.
const MIN_CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// The agent's unit.
pub const AGENT_UNIT: &str = "vyos-aws-vipa.service";

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
    /// It took too long, with the calls before it, and was killed; the job may go on.
    #[error("systemctl {arguments} did not end within the {bound:?} for all calls: see `systemctl list-jobs`")]
    TimedOut {
        /// Its arguments.
        arguments: String,
        /// What was left to all calls together.
        bound: Duration,
    },
}

/// systemctl, with one bound for all that is asked of it.
#[derive(Debug, Clone, Copy)]
pub struct Systemctl {
    bound: Duration,
    deadline: Instant,
}

impl Systemctl {
    /// All calls together may take that long from now on.
    pub fn within(bound: Duration) -> Self {
        Self { bound, deadline: Instant::now() + bound }
    }

    /// Runs systemctl with these words. No shell is involved.
    ///
    /// # Errors
    /// [`SystemctlError`].
    pub fn run(self, arguments: &[&str]) -> Result<(), SystemctlError> {
        run(arguments, self)
    }
}

fn run(arguments: &[&str], Systemctl { bound, deadline }: Systemctl) -> Result<(), SystemctlError> {
    let said = tempfile::tempfile().map_err(SystemctlError::Run)?;
    let stderr = said.try_clone().map_err(SystemctlError::Run)?;
    let mut child = Command::new("systemctl")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .map_err(SystemctlError::Run)?;
    let deadline = deadline.max(Instant::now() + MIN_CALL_TIMEOUT);
    let status = loop {
        if let Some(status) = child.try_wait().map_err(SystemctlError::Run)? {
            break status;
        }
        if Instant::now() >= deadline {
            // It may have ended meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            return Err(SystemctlError::TimedOut { arguments: arguments.join(" "), bound });
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
