//! Runs `systemctl`, the only interface to systemd that is used.

use std::io;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long all calls of one command may take together. They include the reload of keepalived, which is waited for.
pub const TOTAL_TIMEOUT: Duration = Duration::from_secs(12);

/// The least time for each call: a call that hangs must not prevent others that systemd would carry out at once.
const MIN_CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// The agent's unit.
pub const AGENT_UNIT: &str = "vyos-aws-vipa.service";

/// Runs `vyos-aws-vipa credentials` twice a minute, while a credentials file is configured.
pub const CREDENTIALS_TIMER: &str = "vyos-aws-vipa-credentials.timer";

/// A call of systemctl failed.
#[derive(Debug, thiserror::Error)]
pub enum SystemctlError {
    #[error("cannot run systemctl: {0}")]
    Run(#[source] io::Error),
    #[error("systemctl {arguments} failed ({status}): {stderr}")]
    Failed {
        arguments: String,
        status: std::process::ExitStatus,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// It was killed; systemd's job may continue.
    #[error("systemctl {arguments} did not end within the {bound:?} for all calls: see `systemctl list-jobs`")]
    TimedOut {
        arguments: String,
        /// The bound of all calls together.
        bound: Duration,
    },
}

/// systemctl, with one bound for all calls.
#[derive(Debug, Clone, Copy)]
pub struct Systemctl {
    bound: Duration,
    deadline: Instant,
}

impl Systemctl {
    /// All calls together may take this long from now on.
    pub fn within(bound: Duration) -> Self {
        Self { bound, deadline: Instant::now() + bound }
    }

    /// Runs systemctl with these arguments, without a shell.
    ///
    /// # Errors
    /// [`SystemctlError`].
    pub fn run(self, arguments: &[&str]) -> Result<(), SystemctlError> {
        run(arguments, self)
    }
}

fn run(arguments: &[&str], Systemctl { bound, deadline }: Systemctl) -> Result<(), SystemctlError> {
    let output = tempfile::tempfile().map_err(SystemctlError::Run)?;
    let stderr = output.try_clone().map_err(SystemctlError::Run)?;
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
    let stderr = io::read_to_string(rewound(output)).unwrap_or_default();
    Err(SystemctlError::Failed { arguments: arguments.join(" "), status, stderr: stderr.trim().to_owned() })
}

fn rewound(mut file: std::fs::File) -> std::fs::File {
    // If this fails there is no text, and the exit status must suffice.
    let _ = io::Seek::rewind(&mut file);
    file
}
