//! Whether the running keepalived holds our FIFO open, and what it takes to make it do so.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags};

/// The group that may read the FIFO. It has no members: the agent's unit puts the agent into it, and whoever else read
/// there would take lines away from the agent. debian/vyos-aws-vipa.sysusers makes it.
pub const FIFO_GROUP: &str = "vyos-aws-vipa-fifo";

/// The modes of the directory and of the FIFO, those of debian/vyos-aws-vipa.tmpfiles.
const DIRECTORY_MODE: u32 = 0o755;
const FIFO_MODE: u32 = 0o640;

/// SIGHUP in keepalived's first 5 ms kills it, from 10 ms on it survives (observed with 2.2.7).
const MIN_RELOAD_AGE: Duration = Duration::from_millis(100);

/// How often to look while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What failed about the FIFO.
#[derive(Debug, thiserror::Error)]
pub enum FifoError {
    /// There is no such group of users.
    #[error("there is no group {FIFO_GROUP}: `systemd-sysusers` makes it from the package's sysusers.d file")]
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

/// Sees to it that there is a directory at `path`, root's, which root alone may write: keepalived includes a file from there.
/// What stands in its place is removed, and no link is followed. Whether it was missing.
///
/// # Errors
/// [`FifoError`].
pub fn make_directory(path: &Path) -> Result<bool, FifoError> {
    let io = |doing| move |source| FifoError::Io { doing, path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Some(found),
        Ok(_) => {
            fs::remove_file(path).map_err(io("remove"))?;
            None
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(io("look at")(e)),
    };
    let is_right = |m: &fs::Metadata| (m.uid(), m.gid(), m.mode() & 0o7777) == (0, 0, DIRECTORY_MODE);
    if found.as_ref().is_some_and(is_right) {
        return Ok(false);
    }
    if found.is_none() {
        match fs::create_dir(path) {
            // A commit and the hook may meet here.
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(io("make")(e)),
            _ => {}
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| io("open")(e.into()))?;
    std::os::unix::fs::fchown(&directory, Some(0), Some(0)).map_err(io("change the owner of"))?;
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(DIRECTORY_MODE))
        .map_err(|e| io("change the mode of")(e.into()))?;
    Ok(found.is_none())
}

/// Whether a file is one that root alone may write, and no link.
pub fn is_roots(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.uid() == 0 && m.mode() & 0o022 == 0)
}

/// Sees to it that there is a FIFO at `path`, root's, that the agent may read and root alone may write. One that is there
/// keeps its inode: keepalived may hold it open.
///
/// # Errors
/// [`FifoError`].
pub fn make_fifo(path: &Path) -> Result<(), FifoError> {
    let io = |doing| move |source| FifoError::Io { doing, path: path.to_owned(), source };
    let group = nix::unistd::Group::from_name(FIFO_GROUP).map_err(|e| io("look up the group of")(e.into()))?;
    let group = group.ok_or(FifoError::NoGroup)?.gid.as_raw();
    let is_fifo = match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_fifo() => {
            if found.gid() == group && found.mode() & 0o7777 == FIFO_MODE {
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
    fs::set_permissions(path, Permissions::from_mode(FIFO_MODE)).map_err(io("change the mode of"))
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
    ///
    /// # Errors
    /// Only root may see what keepalived holds open.
    pub fn holds(self, path: &Path) -> io::Result<bool> {
        let Ok(fifo) = fs::metadata(path) else {
            return Ok(false);
        };
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.0)).unwrap_or_default();
        let processes = children.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([self.0]);
        for pid in processes {
            let pid: u32 = pid;
            let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            let mut open = entries.filter_map(|entry| fs::metadata(entry.ok()?.path()).ok());
            if open.any(|open| (open.dev(), open.ino()) == (fifo.dev(), fifo.ino())) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether it has run long enough for a SIGHUP.
    fn is_old_enough(self) -> bool {
        self.age().is_some_and(|age| age >= MIN_RELOAD_AGE)
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
        sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use tempfile::TempDir;

    use super::*;

    /// No condition here takes as long to come true.
    const TEST_TIMEOUT: Duration = Duration::from_secs(10);

    /// A shell that the kernel knows as `keepalived`, with its pid file. It ends when its standard input does.
    struct Named {
        process: Child,
        directory: TempDir,
    }

    impl Named {
        fn start(script: &str, file: Option<&Path>) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let program = directory.path().join("keepalived");
            std::os::unix::fs::symlink("/bin/sh", &program).expect("a link");
            let input = file.map_or(Stdio::piped(), |file| {
                OpenOptions::new().read(true).write(true).open(file).expect("opened").into()
            });
            let mut command = Command::new(program);
            let process = command.arg0("sh").args(["-c", script]).stdin(input).spawn().expect("a shell");
            let this = Self { process, directory };
            fs::write(this.pid_file(), format!("{}\n", this.process.id())).expect("written");
            this
        }

        fn pid_file(&self) -> PathBuf {
            self.directory.path().join("keepalived.pid")
        }
    }

    impl Drop for Named {
        fn drop(&mut self) {
            // It may have ended already.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    fn fifo(directory: &TempDir, name: &str) -> PathBuf {
        let path = directory.path().join(name);
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        path
    }

    #[test]
    fn what_is_made_is_what_the_package_makes() {
        let tmpfiles = include_str!("../../debian/vyos-aws-vipa.tmpfiles");
        let paths = crate::paths::Paths::system();
        for line in [
            format!("d {} {DIRECTORY_MODE:04o} root root -", paths.run.display()),
            format!("z {} {FIFO_MODE:04o} root {FIFO_GROUP} -", paths.fifo.display()),
        ] {
            assert!(tmpfiles.lines().any(|l| l == line), "{line}: {tmpfiles}");
        }
        let sysusers = include_str!("../../debian/vyos-aws-vipa.sysusers");
        let groups: Vec<&str> = sysusers.lines().filter(|line| line.contains(FIFO_GROUP)).collect();
        assert_eq!(groups, [format!("g {FIFO_GROUP} -")], "without a member");
        let unit = include_str!("../../debian/vyos-aws-vipa.service");
        assert!(unit.lines().any(|line| line == format!("SupplementaryGroups={FIFO_GROUP}")), "{unit}");
    }

    #[test]
    fn one_that_has_just_started_is_not_told_to_reload() {
        let began = Instant::now();
        let young = Named::start("read line", None);
        wait_for(began + TEST_TIMEOUT, || Keepalived::running(&young.pid_file())).expect("it runs");
        if began.elapsed() < MIN_RELOAD_AGE / 2 {
            assert!(wait_for_reloadable(&young.pid_file(), Instant::now()).is_none());
        }
        assert!(wait_for_reloadable(&young.pid_file(), began + TEST_TIMEOUT).is_some());
        // Its age is counted in hundredths of a second.
        assert!(began.elapsed() >= MIN_RELOAD_AGE - Duration::from_millis(20), "{:?}", began.elapsed());
    }

    #[test]
    fn what_the_pid_file_names_has_to_be_keepalived() {
        let other = Named::start("read line", None);
        let deadline = Instant::now() + TEST_TIMEOUT;
        wait_for(deadline, || Keepalived::running(&other.pid_file())).expect("it runs");
        let ours = std::process::id().to_string();
        for text in ["", "\n", "x", "-1", "0", "4294967296", &ours] {
            fs::write(other.pid_file(), text).expect("written");
            assert!(Keepalived::running(&other.pid_file()).is_none(), "{text:?}");
            assert!(wait_for_reloadable(&other.pid_file(), Instant::now()).is_none(), "{text:?}");
        }
        fs::remove_file(other.pid_file()).expect("removed");
        assert!(Keepalived::running(&other.pid_file()).is_none());
    }

    #[test]
    fn it_holds_the_fifo_itself_or_by_a_child() {
        let directory = tempfile::tempdir().expect("a directory");
        let [held, other] = ["held", "other"].map(|name| fifo(&directory, name));
        // keepalived's VRRP child opens it, not its main process.
        let by_a_child = format!("read line <>{} & wait", held.display());
        for (script, file) in [("read line", Some(&*held)), (&*by_a_child, None)] {
            let process = Named::start(script, file);
            let holds = |path: &Path| {
                Keepalived::running(&process.pid_file())
                    .is_some_and(|keepalived| keepalived.holds(path).unwrap_or(false))
            };
            let deadline = Instant::now() + TEST_TIMEOUT;
            assert!(wait_for(deadline, || holds(&held).then_some(())).is_some(), "{script}");
            assert!(!holds(&other) && !holds(&directory.path().join("missing")), "{script}");
            // Another file in its place is another file, whatever its name.
            let moved = directory.path().join("moved");
            fs::rename(&held, &moved).expect("moved");
            let new = fifo(&directory, "held");
            assert!(!holds(&new) && holds(&moved), "{script}");
            fs::rename(&moved, &held).expect("moved back");
            // What reads from it ends.
            fs::write(&held, "\n").expect("written");
            assert!(wait_for(deadline, || (!holds(&held)).then_some(())).is_some(), "{script}");
        }
    }
}
