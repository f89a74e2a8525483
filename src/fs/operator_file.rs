//! A file that the operator names, and that may change while the agent runs. It may be a FIFO, a device, endless, or on a
//! file system that hangs.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use vipa_core::model::mounts::{Mounts, NotLocal, Unresolved};

/// The mounts that this process sees.
const MOUNTINFO: &str = "/proc/self/mountinfo";
/// The size limit of that list, in bytes: about 20,000 mounts.
const MAX_MOUNTINFO_BYTES: u64 = 4 * 1024 * 1024;

/// Identifies one state of a file without reading it: device, inode, size, and the times of the last change of content and
/// of inode (a change of permissions counts). `None`: the file does not exist, or its metadata cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileFingerprint(Option<Inode>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Inode {
    device: u64,
    number: u64,
    size: u64,
    /// Seconds and nanoseconds.
    content_changed: (i64, i64),
    inode_changed: (i64, i64),
}

impl FileFingerprint {
    /// The fingerprint of the file at `path`, which must be on a local file system.
    pub(crate) fn at(path: &Path) -> Self {
        std::fs::metadata(path).map_or(Self(None), |metadata| Self::of(&metadata))
    }

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

/// Why a file is not read, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnreadableReason {
    /// This user may not read it.
    NotPermitted,
    /// It is on a file system that could hang, and was not accessed.
    NotLocal(NotLocal),
    /// Any other reason, as text.
    Other(String),
}

impl From<io::Error> for UnreadableReason {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::NotPermitted,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<Unresolved> for UnreadableReason {
    fn from(error: Unresolved) -> Self {
        match error {
            Unresolved::NotLocal(why) => Self::NotLocal(why),
            Unresolved::TooManyLinks => Self::Other(error.to_string()),
            Unresolved::Io(error) => error.into(),
        }
    }
}

impl fmt::Display for UnreadableReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted => f.write_str("Permission denied"),
            Self::NotLocal(why) => why.fmt(f),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

/// The text of a file, or why it is not available; each with the fingerprint at that time.
pub type Found = Result<(String, FileFingerprint), (UnreadableReason, FileFingerprint)>;

/// A file that is read repeatedly.
#[derive(Debug)]
pub struct OperatorFile {
    path: PathBuf,
    limit: u64,
}

impl OperatorFile {
    /// The file at `path`, of at most `limit` bytes.
    pub fn new(path: PathBuf, limit: u64) -> Self {
        Self { path, limit }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file.
    ///
    /// # Errors
    /// See [`read`].
    pub fn read(&self) -> Found {
        read(&self.path, self.limit)
    }
}

/// Reads a regular file of at most `limit` bytes on a local file system. It is opened once, and without waiting: a FIFO or a
/// device is not opened, and a file system that could hang is not accessed. The file may be replaced after these checks, so
/// opening never waits either, and the opened file is checked again.
///
/// # Errors
/// The reason, and the fingerprint at that time: the file is missing, not readable, not on a local file system, not a regular
/// file, too long, or not UTF-8.
pub fn read(path: &Path, limit: u64) -> Found {
    let mut fingerprint = FileFingerprint::default();
    read_into(path, limit, &mut fingerprint).map(|text| (text, fingerprint)).map_err(|reason| (reason, fingerprint))
}

fn read_into(path: &Path, limit: u64, fingerprint: &mut FileFingerprint) -> Result<String, UnreadableReason> {
    let path = resolve(path)?;
    let mut look = |metadata: io::Result<Metadata>| {
        let metadata = metadata?;
        *fingerprint = FileFingerprint::of(&metadata);
        if metadata.is_file() { Ok(()) } else { Err(io::Error::other("it is not a regular file")) }
    };
    look(path.symlink_metadata())?;
    let file = open(&path)?;
    look(file.metadata())?;
    let mut text = Vec::new();
    file.take(limit + 1).read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        return Err(UnreadableReason::Other(format!("it is longer than {limit} bytes")));
    }
    String::from_utf8(text).map_err(|_| UnreadableReason::Other("it is not UTF-8".to_owned()))
}

/// The mode of a file, as for chmod(2); `None` if the file does not exist, or its metadata cannot be read.
///
/// # Errors
/// The file is on a file system that could hang, and was not accessed.
pub fn mode(path: &Path) -> Result<Option<u32>, NotLocal> {
    match resolve(path) {
        Ok(path) => Ok(path.symlink_metadata().ok().map(|m| m.mode() & 0o7777)),
        Err(UnreadableReason::NotLocal(why)) => Err(why),
        Err(_) => Ok(None),
    }
}

/// The path without symbolic links. Every part of it must be on a local file system.
fn resolve(path: &Path) -> Result<PathBuf, UnreadableReason> {
    let unknown = |why: &dyn fmt::Display| UnreadableReason::Other(format!("cannot read {MOUNTINFO}: {why}"));
    let mut text = Vec::new();
    let read = File::open(MOUNTINFO).and_then(|file| file.take(MAX_MOUNTINFO_BYTES + 1).read_to_end(&mut text));
    read.map_err(|error| unknown(&error))?;
    if text.len() as u64 > MAX_MOUNTINFO_BYTES {
        return Err(unknown(&format_args!("it is longer than {MAX_MOUNTINFO_BYTES} bytes")));
    }
    let mounts = Mounts::parse(&text).map_err(|line| unknown(&format_args!("line {line} cannot be read")))?;
    let link = |at: &Path| match std::fs::read_link(at) {
        // It exists, and is not a link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        target => target.map(Some),
    };
    Ok(mounts.resolve(path, link)?)
}

/// Opens without waiting. The path must have no symbolic link.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_anew_each_time_with_its_fingerprint() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        let file = OperatorFile::new(path.clone(), 4);
        let missing = UnreadableReason::Other("No such file or directory (os error 2)".to_owned());
        assert_eq!((file.read(), mode(&path)), (Err((missing, FileFingerprint::default())), Ok(None)));
        std::fs::write(&path, "text").expect("written");
        let first = file.read().expect("text");
        assert_eq!(first.0, "text");
        assert_eq!(file.read(), Ok(first.clone()));
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "text").expect("written again");
        assert_ne!(file.read(), Ok(first), "another fingerprint");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("./f", &link).expect("a link");
        assert_eq!(read(&link, 4), read(&path, 4));
        assert_eq!(mode(&link), Ok(Some(path.metadata().expect("a file").mode() & 0o7777)));
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
            assert_eq!(read(path, 4).expect_err("refused").0.to_string(), reason, "{path:?}");
        }
    }
}
