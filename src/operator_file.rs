//! A file that the operator names, and that may change under a running agent. It may be anything: a FIFO, a device, endless,
//! or on a file system that hangs.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;

/// What tells one state of a file from the next without reading it: device, inode, size, and the times of the last change
/// of content and of inode (so that mended permissions count too). `None`: it cannot be looked at, or is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Version(Option<Inode>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inode {
    device: u64,
    number: u64,
    size: u64,
    /// Seconds and nanoseconds.
    content_changed: (i64, i64),
    inode_changed: (i64, i64),
}

impl Version {
    fn of(m: &Metadata) -> Self {
        Self(Some(Inode {
            device: m.dev(),
            number: m.ino(),
            size: m.size(),
            content_changed: (m.mtime(), m.mtime_nsec()),
            inode_changed: (m.ctime(), m.ctime_nsec()),
        }))
    }
}

/// The text of a file, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The whole text of a regular file, and the state that it was read in.
    Text(String, Version),
    /// A reason that an operator can act on, with the state that the file is in: not there, not readable, not a regular
    /// file, too long, not UTF-8.
    Refused(Reason, Version),
    /// The file system has not answered in time. What the file held before may hold still.
    Hangs,
}

/// Why a file is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// This user may not read it.
    NotPermitted,
    /// Anything else, in words.
    Other(String),
}

impl Reason {
    fn io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::NotPermitted,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPermitted => "Permission denied",
            Self::Other(reason) => reason,
        })
    }
}

/// What an operator is told of a file on a file system that hangs.
pub const HANGS: &str = "its file system does not answer: look at the mount that it is on";

/// How long the file system may take. One on this machine takes microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// A file that is read again and again. Each reading has a thread of its own, of which there is one at most: a call into a
/// file system that hangs cannot be given up, and nobody else may wait for it. Clones are the same file.
#[derive(Debug, Clone)]
pub struct OperatorFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Read in its place while it is there.
    copy: Option<PathBuf>,
    limit: u64,
    under_way: Mutex<Option<Reading>>,
}

/// A thread that reads, since when, and what it finds.
#[derive(Debug, Clone)]
struct Reading {
    since: Instant,
    found: watch::Receiver<Option<Found>>,
}

impl OperatorFile {
    /// The file at `path`, of at most `limit` bytes; `copy` is read in its place while it is there.
    pub fn new(path: PathBuf, copy: Option<PathBuf>, limit: u64) -> Self {
        Self(Arc::new(Inner { path, copy, limit, under_way: Mutex::default() }))
    }

    /// Where it is, for display: never the copy.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Reads it, and waits for a second at most. A thread that still hangs since an earlier call is not waited for anew.
    pub async fn read(&self) -> Found {
        let mut reading = match self.reading() {
            Ok(reading) => reading,
            Err(error) => return Found::Refused(Reason::io(&error), Version::default()),
        };
        let left = PATIENCE.saturating_sub(reading.since.elapsed());
        match timeout(left, reading.found.wait_for(Option::is_some)).await {
            Ok(Ok(found)) => found.clone().unwrap_or(Found::Hangs),
            // The thread is gone, and has found nothing.
            Ok(Err(_)) | Err(_) => Found::Hangs,
        }
    }

    /// The reading under way, or a new one.
    fn reading(&self) -> io::Result<Reading> {
        let mut under_way = self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reading) = &*under_way
            && reading.found.has_changed().is_ok()
            && reading.found.borrow().is_none()
        {
            return Ok(reading.clone());
        }
        let (sender, found) = watch::channel(None);
        let inner = self.0.clone();
        thread::Builder::new().name("operator-file".to_owned()).spawn(move || {
            let copy = inner.copy.as_deref().filter(|copy| copy.exists());
            sender.send_replace(Some(read(copy.unwrap_or(&inner.path), inner.limit)));
        })?;
        Ok(under_way.insert(Reading { since: Instant::now(), found }).clone())
    }
}

/// Reads a file once, and waits for a second at most, for a command that does nothing else meanwhile.
pub fn read_once(path: &Path, limit: u64) -> Found {
    let file = path.to_owned();
    within_patience(move || read(&file, limit)).unwrap_or(Found::Hangs)
}

/// The mode of a file, as chmod(2) counts it; `Some(None)`: there is no such file, `None`: its file system hangs.
pub fn mode(path: &Path) -> Option<Option<u32>> {
    let file = path.to_owned();
    within_patience(move || std::fs::metadata(file).ok().map(|m| m.mode() & 0o7777))
}

/// Asks a file system on a thread of its own, for a command that does nothing else meanwhile.
fn within_patience<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, answer) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name("operator-file".to_owned()).spawn(move || {
        // Nobody waits for it any more once the time is over.
        let _ = sender.send(ask());
    });
    thread.ok()?;
    answer.recv_timeout(PATIENCE).ok()
}

/// Opens the file once, and only if it is a regular one: a FIFO or a device could be waited for, or do something. In the
/// time between, it may have become another one; so opening does not wait, and what was opened is looked at again.
fn read(path: &Path, limit: u64) -> Found {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return Found::Refused(Reason::io(&error), Version::default()),
    };
    let mut version = Version::of(&metadata);
    let mut text = Vec::new();
    let result = regular(&metadata).and_then(|()| {
        let file = open(path)?;
        let metadata = file.metadata()?;
        version = Version::of(&metadata);
        regular(&metadata)?;
        file.take(limit + 1).read_to_end(&mut text)
    });
    let reason = match result {
        Err(error) => Reason::io(&error),
        Ok(_) if text.len() as u64 > limit => Reason::Other(format!("it is longer than {limit} bytes")),
        Ok(_) => match String::from_utf8(text) {
            Ok(text) => return Found::Text(text, version),
            Err(_) => Reason::Other("it is not UTF-8".to_owned()),
        },
    };
    Found::Refused(reason, version)
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() { Ok(()) } else { Err(io::Error::other("it is not a regular file")) }
}

/// Opens without waiting.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_anew_each_time_with_the_version_that_it_has() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        let file = OperatorFile::new(path.clone(), Some(dir.path().join("copy")), 4);
        let missing = Reason::Other("No such file or directory (os error 2)".to_owned());
        assert_eq!(file.read().await, Found::Refused(missing, Version::default()));
        std::fs::write(&path, "text").expect("written");
        let first = file.read().await;
        assert!(matches!(&first, Found::Text(text, _) if text == "text"), "{first:?}");
        assert_eq!(first, file.read().await);
        assert_eq!(first, read_once(&path, 4));
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "text").expect("written again");
        assert_ne!(first, file.read().await, "another version");
        std::fs::write(dir.path().join("copy"), "copy").expect("written");
        let copy = file.read().await;
        assert!(matches!(&copy, Found::Text(text, _) if text == "copy"), "{copy:?}");
    }

    #[test]
    fn what_is_no_readable_text_is_refused_with_its_reason() {
        let dir = tempfile::tempdir().expect("a directory");
        let long = dir.path().join("long");
        std::fs::write(&long, "12345").expect("written");
        let binary = dir.path().join("binary");
        std::fs::write(&binary, [0xff, 0xfe]).expect("written");
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a FIFO");
        for (path, reason) in [
            (long.as_path(), "it is longer than 4 bytes"),
            (binary.as_path(), "it is not UTF-8"),
            (fifo.as_path(), "it is not a regular file"),
            (Path::new("/dev/zero"), "it is not a regular file"),
            (dir.path(), "it is not a regular file"),
            (dir.path().join("absent").as_path(), "No such file or directory (os error 2)"),
        ] {
            match read_once(path, 4) {
                Found::Refused(refused, _) => assert_eq!(refused.to_string(), reason, "{path:?}"),
                found => panic!("{path:?}: {found:?}"),
            }
        }
    }

    /// The thread that would read is one that has not come back yet.
    #[tokio::test]
    async fn a_file_system_that_hangs_costs_a_second_once_and_one_thread() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        std::fs::write(&path, "text").expect("written");
        let file = OperatorFile::new(path, None, 4);
        let (sender, found) = watch::channel(None);
        let since = Instant::now();
        *file.0.under_way.lock().expect("the reading") = Some(Reading { since, found });
        assert_eq!(file.read().await, Found::Hangs);
        assert!(since.elapsed() >= PATIENCE, "{:?}", since.elapsed());
        // Those that come later do not wait at all: this would take a quarter of an hour.
        for _ in 0..1000 {
            assert_eq!(file.read().await, Found::Hangs);
        }
        assert!(sender.receiver_count() > 0, "no other thread has taken its place");
        sender.send_replace(Some(Found::Text("old".to_owned(), Version::default())));
        let found = file.read().await;
        assert!(matches!(&found, Found::Text(text, _) if text == "text"), "it is read anew: {found:?}");
    }
}
