//! Whether the running keepalived holds our FIFO open, and what it takes to make it do so.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};

/// The group that may read the FIFO: the agent's. debian/vyos-aws-vipa.sysusers makes it.
pub const GROUP: &str = "vyos-aws-vipa";

/// SIGHUP in keepalived's first 5 ms kills it, from 10 ms on it survives (observed with 2.2.7).
const OLD_ENOUGH: Duration = Duration::from_millis(100);

/// How often to look while waiting.
const LOOK: Duration = Duration::from_millis(10);

/// What failed about the FIFO.
#[derive(Debug, thiserror::Error)]
pub enum FifoError {
    /// There is no such group of users.
    #[error("there is no group {GROUP}: `systemd-sysusers` makes it from the package's sysusers.d file")]
    NoGroup,
    /// The system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// Sees to it that there is a FIFO at `path`, root's, that the agent may read and root alone may write. One that is there
/// keeps its inode: keepalived may hold it open.
///
/// # Errors
/// [`FifoError`].
pub fn make_fifo(path: &Path) -> Result<(), FifoError> {
    let io = |doing| move |source| FifoError::Io { doing, path: path.to_owned(), source };
    let group = nix::unistd::Group::from_name(GROUP).map_err(|e| io("look up the group of")(e.into()))?;
    let group = group.ok_or(FifoError::NoGroup)?.gid.as_raw();
    let is_fifo = match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_fifo() => {
            if found.gid() == group && found.mode() & 0o7777 == 0o640 {
                return Ok(());
            }
            true
        }
        Ok(_) => {
            fs::remove_file(path).map_err(io("remove"))?;
            false
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(io("look at")(e)),
    };
    if !is_fifo {
        rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).map_err(|e| io("make")(e.into()))?;
    }
    std::os::unix::fs::chown(path, None, Some(group)).map_err(io("change the group of"))?;
    fs::set_permissions(path, Permissions::from_mode(0o640)).map_err(io("change the mode of"))
}

/// keepalived's main process, as its pid file names it.
#[derive(Debug, Clone, Copy)]
pub struct Keepalived(u32);

impl Keepalived {
    /// The one that runs, if one does.
    pub fn running(pid_file: &Path) -> Option<Self> {
        let pid = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim_end() == "keepalived").then_some(Self(pid))
    }

    /// Whether it, or a child of it, holds the FIFO at `path` open.
    pub fn holds(self, path: &Path) -> bool {
        let Ok(fifo) = fs::metadata(path) else {
            return false;
        };
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.0)).unwrap_or_default();
        let processes = children.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([self.0]);
        processes
            .filter_map(|pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).ok())
            .flatten()
            .filter_map(|entry| fs::metadata(entry.ok()?.path()).ok())
            .any(|open| (open.dev(), open.ino()) == (fifo.dev(), fifo.ino()))
    }

    /// Whether it has run long enough for a SIGHUP.
    fn is_old_enough(self) -> bool {
        self.age().is_some_and(|age| age >= OLD_ENOUGH)
    }

    /// How long it has run, to a hundredth of a second (proc_pid_stat(5) field 22, proc_uptime(5)).
    fn age(self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        // The second field is a name in brackets that may hold anything.
        let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        Duration::try_from_secs_f64(uptime - ticks / per_second).ok()
    }
}

/// Waits, at most until the deadline, for a keepalived that can be told to reload.
pub fn wait_for_reloadable(pid_file: &Path, deadline: Instant) -> Option<Keepalived> {
    wait_for(deadline, || Keepalived::running(pid_file).filter(|k| k.is_old_enough()))
}

/// Looks again and again until there is something, or the deadline has passed.
pub fn wait_for<T>(deadline: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        sleep(LOOK);
    }
}
