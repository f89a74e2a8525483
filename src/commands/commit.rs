//! `commit`: takes over a configuration from VyOS. Everything is verified before anything is written, and no call goes
//! over a network: AWS out of reach never blocks a commit or the boot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use serde::{Deserialize, Serialize};
use vipa_core::keepalived::groups::Groups;
use vipa_core::model::config::Config;
use vipa_core::printable;
use vipa_core::vyos::input::{Input, InputError, LARGEST};
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

/// How long to wait for a keepalived that can be reloaded, and then for what the reload brings.
const PATIENCE: Duration = Duration::from_secs(1);

/// What systemd is given once more, to take back what failed. With all the rest it stays below the owner's own bound, which
/// would end us in the middle of that.
const BOUND_BACK: Duration = Duration::from_secs(5);

/// Why the configuration was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Standard input.
    #[error("cannot read standard input: {0}")]
    Read(#[source] io::Error),
    /// What came in.
    #[error(transparent)]
    Input(#[from] InputError),
    /// What was set.
    #[error("{}", lines(.0))]
    Config(Vec<ConfigError>),
    /// A file of ours.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of ours could not be removed.
    #[error("cannot remove {path}: {source}")]
    Remove {
        /// Which.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The hook.
    #[error("transition hook: {0}")]
    Hook(#[from] HookError),
    /// The agent's copy of the credentials file.
    #[error(transparent)]
    Credentials(#[from] CopyError),
    /// systemd.
    #[error(transparent)]
    Systemctl(#[from] SystemctlError),
    /// Only said to the owner script, which then calls again with the configuration.
    #[error("this call has something left to do")]
    Left,
    /// Standard output does not take the warnings.
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
    /// Takes over what comes from `input`, or looks whether that is necessary.
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

/// Warnings that are in force, and were printed.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Warned {
    warnings: BTreeSet<String>,
}

/// Verifies, renders and applies what comes from `input`; new warnings go to `out`.
///
/// # Errors
/// [`CommitError`]. After [`CommitError::Input`] and [`CommitError::Config`] nothing has been changed.
pub fn run(paths: &Paths, input: &mut impl Read, out: &mut impl Write) -> Result<(), CommitError> {
    let mut bytes = Vec::new();
    input.take(LARGEST + 1).read_to_end(&mut bytes).map_err(CommitError::Read)?;
    let input = Input::parse(&bytes)?;
    let host = HostState { interfaces: interfaces(), mode: &operator_file::mode };
    let outcome = verify(&input, &host);
    if !outcome.errors.is_empty() {
        return Err(CommitError::Config(outcome.errors));
    }
    repeated_call::forget(paths)?;
    let mut warnings = outcome.warnings;
    if outcome.config.is_empty() {
        remove(paths, Systemctl::within(TOTAL_TIMEOUT), &mut warnings)?;
    } else {
        apply(paths, &outcome.config, input.boot, &mut warnings)?;
    }
    let shown = warn(paths, warnings, outcome.later, out)?;
    repeated_call::remember(paths, &input, outcome.calls, &shown, &outcome.config);
    Ok(())
}

/// Prints what was not printed by an earlier call: VyOS calls once for each node of one commit. What is for a `later` call
/// to print stays known if it was printed in an earlier commit. Returns the warnings that are in force and were printed.
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

/// Takes a configuration over. Whatever fails, the rest is done, for at boot VyOS does not call again, except
/// where config.json cannot be written; the first failure is returned.
/// At any other time VyOS drops what it was called for, and then the configuration before is in force again.
fn apply(paths: &Paths, config: &Config, boot: bool, warnings: &mut Vec<String>) -> Result<(), CommitError> {
    hook_files::make_directory(&paths.run).map_err(HookError::from)?;
    let bytes_before = fs::read(&paths.config).ok();
    let before: Option<Config> = json_file::read(&paths.config).ok();
    let changed = before.as_ref() != Some(config);
    let file = config.global.credentials_file.as_deref();
    let take_back = || {
        let systemctl = Systemctl::within(BOUND_BACK);
        // What fails now too would only hide the failure that led here; the next commit meets it again.
        let _ = match &bytes_before {
            Some(bytes) => restore(paths, bytes, before.as_ref(), systemctl),
            None => remove(paths, systemctl, &mut Vec::new()),
        };
    };
    // Before config.json: the agent reads the copy when that changes.
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
        // Nothing that the operator could mend here: the agent goes on, and keepalived's next reload tries again.
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
    // Only the first call of one commit waits for it: where keepalived cannot start, the others would wait in vain.
    let starting = changed && json_file::read::<Groups>(&paths.groups).is_ok_and(|groups| !groups.groups.is_empty());
    let rewritten = hooked.as_ref().is_ok_and(|rewritten| *rewritten);
    let matched = match_running(paths, &Wanted { attached: true, rewritten, starting }, systemctl, warnings);
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

/// Puts config.json back, and the copy of the credentials file that it names, with the timer.
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

/// Makes the copy of the credentials file, where one is configured.
fn install_credentials(paths: &Paths, file: Option<&Path>) -> Result<(), CommitError> {
    Ok(file.map_or(Ok(()), |file| credentials_file::install(paths, file))?)
}

/// Removes the copy of the credentials file, if there is one, and stops the timer. Where that fails, the timer's next run
/// stops it.
fn remove_credentials(paths: &Paths, systemctl: Systemctl) -> Result<(), CommitError> {
    if credentials_file::remove(paths)? {
        systemctl.run(&["stop", "--no-block", CREDENTIALS_TIMER])?;
    }
    Ok(())
}

/// Leaves VyOS as it was without us. It does as much of that as can be done, and tells what failed first; the next call
/// does the rest. Files come first: whatever systemd does, nothing is in force again after the next start.
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
    let matched = match_running(paths, &Wanted { attached: false, rewritten, starting: false }, systemctl, warnings);
    [detached.map(drop)].into_iter().chain(removed).chain([stopped, credentials, matched]).collect()
}

/// What the running keepalived should be like.
struct Wanted {
    /// It holds the FIFO open, or it does not.
    attached: bool,
    /// Its file has just been changed for that. What it holds open now may be a matter of the moment: VyOS may have told it
    /// to reload a moment ago, by the file as it was.
    rewritten: bool,
    /// It may be that VyOS has started it a moment ago, by the file as it was, and that its pid file is still to come.
    starting: bool,
}

/// Makes the running keepalived as it is wanted, by one reload. Nobody else reloads it at boot and when only our nodes
/// change.
fn match_running(
    paths: &Paths,
    wanted: &Wanted,
    systemctl: Systemctl,
    warnings: &mut Vec<String>,
) -> Result<(), CommitError> {
    let holds = |keepalived: KeepalivedProcess| keepalived.has_open(&paths.fifo).unwrap_or(false) == wanted.attached;
    let is_right = |keepalived: KeepalivedProcess| !wanted.rewritten && holds(keepalived);
    if KeepalivedProcess::running(&paths.keepalived_pid).map_or(!wanted.starting, is_right) {
        // Its next start goes by what stands in the files now.
        return Ok(());
    }
    if wait_for_reloadable(&paths.keepalived_pid, Instant::now() + PATIENCE).is_none_or(is_right) {
        return Ok(());
    }
    systemctl.run(&["reload", KEEPALIVED])?;
    let matches = || KeepalivedProcess::running(&paths.keepalived_pid).filter(|k| holds(*k));
    if wait_for(Instant::now() + PATIENCE, matches).is_none() {
        warnings.push(format!(
            "keepalived did not {} the transition FIFO {} after its reload: check `show log vrrp`",
            if wanted.attached { "open" } else { "close" },
            paths.fifo.display()
        ));
    }
    Ok(())
}

/// The interfaces that the kernel has, with their IPv4 addresses. Where it does not tell, those of the configuration count
/// alone.
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
        let folder = tempfile::tempdir().expect("a folder");
        let run = folder.path().to_owned();
        let paths = Paths { warned: run.join("warned.json"), run, ..Paths::system() };
        let warning = || vec!["group x\u{202e}y: odd\nWARNING: z\u{1b}[2J".to_owned()];
        let mut out = Vec::new();
        warn(&paths, warning(), Vec::new(), &mut out).expect("printed");
        warn(&paths, warning(), Vec::new(), &mut out).expect("known");
        let expected = "WARNING: group x\\u{202e}y: odd\\nWARNING: z\\u{1b}[2J\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}
