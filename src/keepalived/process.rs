//! keepalived's processes, as its pid files and /proc describe them.
//!
//! None of the files read here needs a lock that a stuck process may hold, as its command line would.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The name that the kernel has for keepalived's processes.
pub const KEEPALIVED_COMM: &str = "keepalived";

/// More than any file that is read here has, in bytes.
const MAX_PROC_BYTES: u64 = 16 << 10;

/// SIGHUP in keepalived's first 5 ms kills it, from 10 ms on it survives (observed with 2.2.7).
const MIN_RELOAD_AGE: Duration = Duration::from_millis(100);

/// How often a condition is checked while waiting for it.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// keepalived's main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepalivedProcess {
    pid: u32,
    start_time: u64,
}

impl KeepalivedProcess {
    /// The process that the pid file names, if it is a running keepalived.
    pub fn running(pid_file: &Path) -> Option<Self> {
        let pid = pid_in(pid_file).ok()?;
        let stat = ProcessStat::read(pid).ok()?;
        (stat.name == KEEPALIVED_COMM).then_some(Self { pid, start_time: stat.start_time })
    }

    /// Whether it, or a child of it, has the FIFO at `path` open.
    ///
    /// # Errors
    /// Only root may see which files keepalived has open.
    pub fn has_open(self, path: &Path) -> io::Result<bool> {
        let Ok(fifo) = fs::metadata(path) else {
            return Ok(false);
        };
        for pid in children(self.pid).unwrap_or_default().into_iter().chain([self.pid]) {
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
    fn is_reloadable(self) -> bool {
        self.age().is_some_and(|age| age >= MIN_RELOAD_AGE)
    }

    /// How long it has run, to a hundredth of a second (proc_uptime(5)).
    fn age(self) -> Option<Duration> {
        let uptime: f64 = read(Path::new("/proc/uptime")).ok()?.split_whitespace().next()?.parse().ok()?;
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        Duration::try_from_secs_f64(uptime - self.start_time as f64 / per_second).ok()
    }
}

/// Waits, at most until the deadline, for a keepalived that survives a reload.
pub fn wait_for_reloadable(pid_file: &Path, deadline: Instant) -> Option<KeepalivedProcess> {
    wait_for(deadline, || KeepalivedProcess::running(pid_file).filter(|k| k.is_reloadable()))
}

/// Calls `look` until it returns something, or the deadline has passed.
pub fn wait_for<T>(deadline: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        sleep(POLL_INTERVAL);
    }
}

/// /proc/PID/stat (proc_pid_stat(5)).
pub struct ProcessStat {
    pub name: String,
    pub parent: u32,
    pub is_zombie: bool,
    /// It waits for something that wakes it: it is neither stopped nor stuck in the kernel.
    pub is_asleep: bool,
    /// In clock ticks since boot.
    pub start_time: u64,
}

impl ProcessStat {
    pub fn read(pid: u32) -> io::Result<Self> {
        Self::parse(&read(Path::new(&format!("/proc/{pid}/stat")))?).ok_or_else(|| unexpected("not a stat line"))
    }

    /// The name is in parentheses and may hold any character, so the last `)` ends it. After it come the state (field
    /// 3), the parent (4), and as field 22 the start time.
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let mut fields = after.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let start_time = fields.nth(17)?.parse().ok()?;
        let (is_zombie, is_asleep) = (matches!(state, "Z" | "X"), state == "S");
        Some(Self { name: name.to_owned(), parent, is_zombie, is_asleep, start_time })
    }
}

/// The children of a process (proc_pid_task_children(5)).
pub fn children(pid: u32) -> io::Result<Vec<u32>> {
    let text = read(Path::new(&format!("/proc/{pid}/task/{pid}/children")))?;
    Ok(text.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect())
}

/// The process id in a pid file.
pub fn pid_in(path: &Path) -> io::Result<u32> {
    match read(path)?.trim().parse() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(unexpected("it contains no process id")),
    }
}

/// Reads a file of /proc or a pid file.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::with_capacity(4 << 10);
    File::open(path)?.take(MAX_PROC_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// The error of a file with other content than expected.
pub fn unexpected(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::process::CommandExt;
    use std::path::PathBuf;
    use std::process::{Child, Command, Stdio};

    use rustix::fs::{CWD, FileType, Mode};
    use tempfile::TempDir;

    use super::*;

    /// More than any condition here needs to become true.
    const TEST_TIMEOUT: Duration = Duration::from_secs(10);

    /// A shell with the name `keepalived`, and its pid file. It ends at the end of its standard input.
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
    fn one_that_has_just_started_is_not_reloaded() {
        let began = Instant::now();
        let young = Named::start("read line", None);
        wait_for(began + TEST_TIMEOUT, || KeepalivedProcess::running(&young.pid_file())).expect("it runs");
        let found = wait_for_reloadable(&young.pid_file(), Instant::now());
        assert!(
            found.is_none() || began.elapsed() >= MIN_RELOAD_AGE - Duration::from_millis(20),
            "{:?}",
            began.elapsed()
        );
        assert!(wait_for_reloadable(&young.pid_file(), began + TEST_TIMEOUT).is_some());
        // The kernel counts its age in hundredths of a second.
        assert!(began.elapsed() >= MIN_RELOAD_AGE - Duration::from_millis(20), "{:?}", began.elapsed());
    }

    #[test]
    fn what_the_pid_file_names_has_to_be_keepalived() {
        let other = Named::start("read line", None);
        let deadline = Instant::now() + TEST_TIMEOUT;
        wait_for(deadline, || KeepalivedProcess::running(&other.pid_file())).expect("it runs");
        let ours = std::process::id().to_string();
        for text in ["", "\n", "x", "-1", "0", "4294967296", &ours] {
            fs::write(other.pid_file(), text).expect("written");
            assert!(KeepalivedProcess::running(&other.pid_file()).is_none(), "{text:?}");
            assert!(wait_for_reloadable(&other.pid_file(), Instant::now()).is_none(), "{text:?}");
        }
        fs::remove_file(other.pid_file()).expect("removed");
        assert!(KeepalivedProcess::running(&other.pid_file()).is_none());
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
                KeepalivedProcess::running(&process.pid_file())
                    .is_some_and(|keepalived| keepalived.has_open(path).unwrap_or(false))
            };
            let deadline = Instant::now() + TEST_TIMEOUT;
            assert!(wait_for(deadline, || holds(&held).then_some(())).is_some(), "{script}");
            assert!(!holds(&other) && !holds(&directory.path().join("missing")), "{script}");
            // Another file at that path is not the one that is open.
            let moved = directory.path().join("moved");
            fs::rename(&held, &moved).expect("moved");
            let new = fifo(&directory, "held");
            assert!(!holds(&new) && holds(&moved), "{script}");
            fs::rename(&moved, &held).expect("moved back");
            // The shell that reads from it ends.
            fs::write(&held, "\n").expect("written");
            assert!(wait_for(deadline, || (!holds(&held)).then_some(())).is_some(), "{script}");
        }
    }

    #[test]
    fn what_proc_says_is_read_whatever_the_name_holds() {
        let line = "12 (a) R (b) S 10 10 10 0 -1 4194624 52 0 0 0 1 2 3 4 20 0 1 0 987654 1 2 3";
        let stat = ProcessStat::parse(line).expect("a stat line");
        assert_eq!((stat.name.as_str(), stat.parent, stat.is_zombie, stat.start_time), ("a) R (b", 10, false, 987_654));
        assert!(
            ProcessStat::parse("12 (keepalived) Z 10 10 10 0 -1 4 5 0 0 0 1 2 3 4 20 0 1 0 9")
                .expect("a line")
                .is_zombie
        );
        for bad in ["", "12", "12 (a", "12 (a) S", "12 (a) S x 10 10 0 -1 4 5 0 0 0 1 2 3 4 20 0 1 0 9"] {
            assert!(ProcessStat::parse(bad).is_none(), "{bad:?}");
        }
    }
}
