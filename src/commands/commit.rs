//! `commit`: applies a configuration from VyOS. Everything is verified before anything is written. No call uses a network,
//! so an unreachable AWS never blocks a commit or the boot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use vipa_core::keepalived::groups::Groups;
use vipa_core::model::config::Config;
use vipa_core::printable;
use vipa_core::vyos::input::{Input, InputError, MAX_INPUT_BYTES};
use vipa_core::vyos::verify::{ConfigError, HostState, verify};

use super::hook::{self, HookError};
use super::repeated_call;
use crate::fs::credentials_file::{self, CopyError};
use crate::fs::json_file::{self, FileError};
use crate::fs::operator_file;
use crate::keepalived::hook_files;
use crate::keepalived::process::{KeepalivedProcess, wait_for, wait_for_reloadable};
use crate::paths::Paths;
use crate::systemd::systemctl::{AGENT_UNIT, CREDENTIALS_TIMER, Systemctl, SystemctlError, TOTAL_TIMEOUT};

/// keepalived's unit, as VyOS runs it.
const KEEPALIVED: &str = "keepalived.service";

/// How long to wait for a keepalived that can be reloaded, and then for the effect of the reload.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait for a call that runs at the same time. It is short enough that the total of all bounds stays below the
/// owner script's own time limit.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The time for systemctl while a failed change is undone. The total stays below the owner script's own time limit, which
/// would kill this process halfway.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the configuration was not applied.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message of a variant says what its fields are")]
pub enum CommitError {
    /// Standard input cannot be read.
    #[error("cannot read standard input: {0}")]
    Read(#[source] io::Error),
    /// The input is invalid.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The configuration has errors.
    #[error("{}", lines(.0))]
    Config(Vec<ConfigError>),
    /// A file of this package cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of this package cannot be removed.
    #[error("cannot remove {path}: {source}")]
    Remove { path: PathBuf, source: io::Error },
    /// The transition hook cannot be attached or detached.
    #[error("transition hook: {0}")]
    Hook(#[from] HookError),
    /// The agent's copy of the credentials file cannot be written or removed.
    #[error(transparent)]
    Credentials(#[from] CopyError),
    /// A call of systemctl failed.
    #[error(transparent)]
    Systemctl(#[from] SystemctlError),
    /// The call has work to do. Only the owner script gets this, and then calls again with the configuration.
    #[error("this call has something left to do")]
    Left,
    /// The warnings cannot be printed.
    #[error("cannot print the warnings: {0}")]
    Print(#[source] io::Error),
}

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(ConfigError::to_string).collect::<Vec<_>>().join("\n")
}

/// `commit`.
#[derive(Debug, clap::Args)]
pub struct Commit {
    /// Do nothing, and succeed, if this call of the commit with this id has nothing left to do
    #[arg(long, value_name = "COMMIT", hide = true)]
    nothing_left: Option<String>,
    /// What VyOS calls for, with --nothing-left
    #[arg(hide = true, requires = "nothing_left")]
    called_for: Vec<String>,
}

impl Commit {
    /// Applies the configuration from `input`, or checks whether that is necessary.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn run(self, paths: &Paths, input: &mut impl Read, out: &mut impl Write) -> Result<(), CommitError> {
        match self.nothing_left {
            None => run(paths, input, out),
            Some(commit) if repeated_call::has_nothing_left(paths, &commit, &self.called_for.into()) => Ok(()),
            Some(_) => Err(CommitError::Left),
        }
    }
}

/// The warnings that still apply and were printed.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Warned {
    warnings: BTreeSet<String>,
}

/// Verifies, renders and applies the configuration from `input`, and prints new warnings to `out`.
///
/// # Errors
/// [`CommitError`]. After [`CommitError::Input`] and [`CommitError::Config`] nothing has been changed.
pub fn run(paths: &Paths, input: &mut impl Read, out: &mut impl Write) -> Result<(), CommitError> {
    let mut bytes = Vec::new();
    input.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes).map_err(CommitError::Read)?;
    let input = Input::parse(&bytes)?;
    let host = HostState { interfaces: interfaces(), mode: &operator_file::mode };
    let outcome = verify(&input, &host);
    if !outcome.errors.is_empty() {
        return Err(CommitError::Config(outcome.errors));
    }
    let lock = lock(paths);
    repeated_call::forget(paths)?;
    let mut warnings = outcome.warnings;
    if outcome.config.is_empty() {
        remove(paths, Systemctl::within(TOTAL_TIMEOUT), &mut warnings)?;
    } else {
        apply(paths, &outcome.config, input.boot, &mut warnings)?;
    }
    let shown = warn(paths, warnings, outcome.later, out)?;
    if lock.is_some() {
        repeated_call::remember(paths, &input, outcome.calls, &shown, &outcome.config);
    }
    Ok(())
}

/// Prevents two calls from changing the state at the same time: a call of a commit, and one by hand or by the package's
/// installation. A call that waited for [`LOCK_TIMEOUT`], or that cannot open the file, continues without the lock, because a
/// commit must not fail for that.
fn lock(paths: &Paths) -> Option<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&paths.lock).ok()?;
    let locked = || flock(&file, FlockOperation::NonBlockingLockExclusive).ok();
    wait_for(Instant::now() + LOCK_TIMEOUT, locked)?;
    Some(file)
}

/// Prints the warnings that no earlier call has printed: VyOS calls once for each node of a commit. The warnings in `later`
/// are left to a later call, but stay recorded if an earlier commit printed them. Returns the warnings that apply and were
/// printed.
fn warn(
    paths: &Paths,
    now: Vec<String>,
    later: Vec<String>,
    out: &mut impl Write,
) -> Result<BTreeSet<String>, CommitError> {
    let known: Warned = json_file::read(&paths.warned).unwrap_or_default();
    for warning in now.iter().filter(|w| !known.warnings.contains(*w)) {
        writeln!(out, "WARNING: {}", printable::line(warning)).map_err(CommitError::Print)?;
    }
    let later = later.into_iter().filter(|w| known.warnings.contains(w));
    let warnings: BTreeSet<String> = now.into_iter().chain(later).collect();
    let warned = Warned { warnings };
    if warned.warnings != known.warnings && paths.run.is_dir() {
        json_file::write(&paths.warned, 0o644, &warned)?;
    }
    Ok(warned.warnings)
}

/// Applies a configuration. After a failure the remaining steps are still done, because at boot there is no second call;
/// only if config.json cannot be written does it stop. The first failure is returned. Except at boot, VyOS then drops the
/// change, and the previous configuration is restored.
fn apply(paths: &Paths, config: &Config, boot: bool, warnings: &mut Vec<String>) -> Result<(), CommitError> {
    hook_files::make_directory(&paths.run).map_err(HookError::from)?;
    let bytes_before = fs::read(&paths.config).ok();
    let before: Option<Config> = json_file::read(&paths.config).ok();
    let changed = before.as_ref() != Some(config);
    let file = config.global.credentials_file.as_deref();
    let take_back = || {
        let systemctl = Systemctl::within(ROLLBACK_TIMEOUT);
        // A failure here would hide the first one, and occurs again in the next commit.
        let _ = match &bytes_before {
            Some(bytes) => restore(paths, bytes, before.as_ref(), systemctl),
            None => remove(paths, systemctl, &mut Vec::new()),
        };
    };
    // Before config.json, because the agent reads the copy when config.json changes.
    let mut copied = install_credentials(paths, file);
    if changed {
        if let Err(error) = json_file::write(&paths.config, 0o644, config) {
            if !boot {
                take_back();
            }
            return Err(error.into());
        }
        // A run of `credentials` that read the old config.json may have replaced the copy meanwhile.
        copied = copied.and_then(|()| install_credentials(paths, file));
    }
    let hooked = match hook::attach(paths) {
        // Only a warning: the operator cannot correct it, the agent continues, and keepalived's next reload tries again.
        Err(error @ HookError::Conf { .. }) => {
            warnings.push(format!("transition hook: {error}"));
            Ok(false)
        }
        Ok(attached) => {
            warnings.extend(attached.skipped);
            Ok(attached.rewritten)
        }
        Err(error) => Err(CommitError::from(error)),
    };
    let systemctl = Systemctl::within(TOTAL_TIMEOUT);
    let started = if changed || !paths.socket.exists() {
        let units = ["start", "--no-block", AGENT_UNIT].into_iter().chain(file.map(|_| CREDENTIALS_TIMER));
        systemctl.run(&units.collect::<Vec<_>>()).map_err(CommitError::from)
    } else {
        Ok(())
    };
    // Only the first call of a commit waits for keepalived's start: if it cannot start, the others would wait in vain.
    let starting = changed && json_file::read::<Groups>(&paths.groups).is_ok_and(|groups| !groups.groups.is_empty());
    let rewritten = hooked.as_ref().is_ok_and(|rewritten| *rewritten);
    let matched = match_running(paths, &DesiredKeepalived { attached: true, rewritten, starting }, systemctl, warnings);
    let done: Result<(), CommitError> = [copied, hooked.map(drop), started, matched].into_iter().collect();
    let done = match done {
        Ok(()) if file.is_none() => remove_credentials(paths, systemctl),
        done => done,
    };
    if done.is_err() && changed && !boot {
        take_back();
    }
    done
}

/// Restores config.json, the copy of the credentials file that it names, and the timer.
fn restore(paths: &Paths, bytes: &[u8], config: Option<&Config>, systemctl: Systemctl) -> Result<(), CommitError> {
    let file = config.and_then(|config| config.global.credentials_file.as_deref());
    // In this order, and the copy twice, as in `apply`.
    let copied = install_credentials(paths, file);
    let written = json_file::write_bytes(&paths.config, 0o644, bytes).map_err(CommitError::from);
    let done = copied.and(written);
    let timer = match file {
        Some(_) => install_credentials(paths, file)
            .and(systemctl.run(&["start", "--no-block", CREDENTIALS_TIMER]).map_err(CommitError::from)),
        None => remove_credentials(paths, systemctl),
    };
    done.and(timer)
}

/// Makes the copy of the credentials file, if one is configured.
fn install_credentials(paths: &Paths, file: Option<&Path>) -> Result<(), CommitError> {
    Ok(file.map_or(Ok(()), |file| credentials_file::install(paths, file))?)
}

/// Removes the copy of the credentials file, if there is one, and stops the timer. If that fails, the timer's next run stops
/// it.
fn remove_credentials(paths: &Paths, systemctl: Systemctl) -> Result<(), CommitError> {
    if credentials_file::remove(paths)? {
        systemctl.run(&["stop", "--no-block", CREDENTIALS_TIMER])?;
    }
    Ok(())
}

/// Removes what this package added to VyOS's files, and stops the agent. After a failure the remaining steps are still
/// done, and the first failure is returned; the next call does the rest. Files are removed first, so that nothing is in
/// force after the next start, whatever systemd does.
fn remove(paths: &Paths, systemctl: Systemctl, warnings: &mut Vec<String>) -> Result<(), CommitError> {
    let may_run = paths.config.exists() || paths.socket.exists();
    let detached = hook::detach(paths).map_err(CommitError::from);
    let files = [&paths.config, &paths.groups, &paths.include];
    let removed = files.map(|path| match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(CommitError::Remove { path: path.clone(), source })
        }
        _ => Ok(()),
    });
    let stopped =
        if may_run { systemctl.run(&["stop", "--no-block", AGENT_UNIT]).map_err(CommitError::from) } else { Ok(()) };
    let credentials = remove_credentials(paths, systemctl);
    let rewritten = detached.as_ref().is_ok_and(|rewritten| *rewritten);
    let matched =
        match_running(paths, &DesiredKeepalived { attached: false, rewritten, starting: false }, systemctl, warnings);
    [detached.map(drop)].into_iter().chain(removed).chain([stopped, credentials, matched]).collect()
}

/// The state that the running keepalived should have.
struct DesiredKeepalived {
    /// Whether it has the FIFO open.
    attached: bool,
    /// keepalived.conf has just been changed for that. Whether the FIFO is open now may be about to change: VyOS may have
    /// requested a reload just before, with the previous file.
    rewritten: bool,
    /// VyOS may have started it just before, with the previous file, and its pid file may not exist yet.
    starting: bool,
}

/// Brings the running keepalived into the desired state, by at most one reload. VyOS itself does not reload it at boot, or
/// if only nodes of this package change.
fn match_running(
    paths: &Paths,
    desired: &DesiredKeepalived,
    systemctl: Systemctl,
    warnings: &mut Vec<String>,
) -> Result<(), CommitError> {
    let holds = |keepalived: KeepalivedProcess| keepalived.has_open(&paths.fifo).unwrap_or(false) == desired.attached;
    let is_right = |keepalived: KeepalivedProcess| !desired.rewritten && holds(keepalived);
    if KeepalivedProcess::running(&paths.keepalived_pid).map_or(!desired.starting, is_right) {
        // Its next start reads the present files.
        return Ok(());
    }
    if wait_for_reloadable(&paths.keepalived_pid, Instant::now() + RELOAD_TIMEOUT).is_none_or(is_right) {
        return Ok(());
    }
    systemctl.run(&["reload", KEEPALIVED])?;
    let matches = || KeepalivedProcess::running(&paths.keepalived_pid).filter(|k| holds(*k));
    if wait_for(Instant::now() + RELOAD_TIMEOUT, matches).is_none() {
        warnings.push(format!(
            "keepalived did not {} the transition FIFO {} after its reload: check `show log vrrp`",
            if desired.attached { "open" } else { "close" },
            paths.fifo.display()
        ));
    }
    Ok(())
}

/// The kernel's interfaces, with their IPv4 addresses. Empty if they cannot be read: then only those of the configuration
/// count.
pub(super) fn interfaces() -> BTreeMap<String, Vec<String>> {
    let mut interfaces: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in getifaddrs().into_iter().flatten() {
        let addresses = interfaces.entry(entry.interface_name).or_default();
        let ip = |address: Option<SockaddrStorage>| Some(address?.as_sockaddr_in()?.ip());
        if let (Some(address), Some(mask)) = (ip(entry.address), ip(entry.netmask)) {
            addresses.push(format!("{address}/{}", mask.to_bits().count_ones()));
        }
    }
    interfaces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_one_line_that_prints() {
        let directory = tempfile::tempdir().expect("a directory");
        let run = directory.path().to_owned();
        let paths = Paths { warned: run.join("warned.json"), run, ..Paths::system() };
        let warning = || vec!["group x\u{202e}y: odd\nWARNING: z\u{1b}[2J".to_owned()];
        let mut out = Vec::new();
        warn(&paths, warning(), Vec::new(), &mut out).expect("printed");
        warn(&paths, warning(), Vec::new(), &mut out).expect("known");
        let expected = "WARNING: group x\\u{202e}y: odd\\nWARNING: z\\u{1b}[2J\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}
