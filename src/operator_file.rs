//! A file that the operator names, and that may change under a running agent.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

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

/// The state that the file is in: one stat(2).
pub fn version(path: &Path) -> Version {
    std::fs::metadata(path).map_or(Version::default(), |m| Version::of(&m))
}

/// The whole text of a regular file and the state that it was read in.
///
/// # Errors
/// A reason that an operator can act on, with the state that the file is in: not there, not readable, not a regular file,
/// longer than `limit` bytes, not UTF-8.
pub fn read(path: &Path, limit: u64) -> Result<(String, Version), (String, Version)> {
    let before = version(path);
    let file = open(path).map_err(|e| (e.to_string(), before))?;
    let metadata = file.metadata().map_err(|e| (e.to_string(), before))?;
    let version = Version::of(&metadata);
    if !metadata.is_file() {
        return Err(("it is not a regular file".to_owned(), version));
    }
    let mut text = Vec::new();
    file.take(limit + 1).read_to_end(&mut text).map_err(|e| (e.to_string(), version))?;
    if text.len() as u64 > limit {
        return Err((format!("it is longer than {limit} bytes"), version));
    }
    String::from_utf8(text).map(|text| (text, version)).map_err(|_| ("it is not UTF-8".to_owned(), version))
}

/// Opens without waiting, should the path name a FIFO.
fn open(path: &Path) -> io::Result<File> {
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new().read(true).custom_flags(nonblock).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_the_version_that_stat_tells() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        assert_eq!(version(&path), Version::default());
        std::fs::write(&path, "text").expect("written");
        let (text, read_in) = read(&path, 4).expect("read");
        assert_eq!((text.as_str(), read_in), ("text", version(&path)));
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "text").expect("written again");
        assert_ne!(read_in, version(&path));
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
            assert_eq!(read(path, 4).expect_err("refused").0, reason, "{path:?}");
        }
    }
}
