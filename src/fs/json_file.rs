//! JSON files with a `format` number: read whole and checked, written atomically.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use vipa_core::FORMAT;

/// More than any file of this package needs: 1,000 groups with 200 addresses each stay below it.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The beginning of the name of a file that is being written. The name of the file that it replaces follows.
const TEMPORARY_PREFIX: &str = ".tmp";

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message of a variant says what its fields are")]
pub enum FileError {
    /// The file does not exist.
    #[error("{0} is missing")]
    Missing(PathBuf),
    /// The system's error.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// The operation, as a verb.
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The content is not as expected.
    #[error("{path} does not have the expected content: {reason}")]
    Content {
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A newer version wrote the file.
    #[error(
        "{path} has format {found}, and this version of vyos-aws-vipa reads up to {FORMAT}: install the newer version again"
    )]
    Newer {
        path: PathBuf,
        /// The format in the file.
        found: u64,
    },
}

impl FileError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::NotFound if doing == "read" => Self::Missing(path.to_owned()),
            _ => Self::Io { doing, path: path.to_owned(), source },
        }
    }
}

/// Reads a JSON object and its `format`.
///
/// # Errors
/// [`FileError`]: missing, unreadable, larger than 16 MiB, of a newer format, or not a `T`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(FileError::io("read", path))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(FileError::io("read", path))?;
    parse(path, &bytes)
}

/// Like [`read()`], for the bytes that were read from `path`.
///
/// # Errors
/// [`FileError`]: larger than 16 MiB, of a newer format, or not a `T`.
pub fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, FileError> {
    let content = |reason: String| FileError::Content { path: path.to_owned(), reason };
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(content(format!("it is larger than {MAX_FILE_BYTES} bytes")));
    }
    let mut value: Value = serde_json::from_slice(bytes).map_err(|e| content(e.to_string()))?;
    let format = value.as_object_mut().and_then(|o| o.remove("format")).and_then(|f| f.as_u64());
    match format {
        None | Some(0) => Err(content("it has no format number".to_owned())),
        Some(found) if found > FORMAT => Err(FileError::Newer { path: path.to_owned(), found }),
        Some(_) => serde_json::from_value(value).map_err(|e| content(e.to_string())),
    }
}

/// Writes a value with its `format` to a new file and renames that into place, so that a reader sees the old or the new
/// content as a whole, also after a power failure. `mode` is that of chmod(2).
///
/// # Errors
/// [`FileError::Io`].
pub fn write<T: Serialize>(path: &Path, mode: u32, value: &T) -> Result<(), FileError> {
    replace(path, None, mode, &to_bytes(path, value)?)
}

/// Like [`write()`], but the file gets the group with this id, before that group may read it.
///
/// # Errors
/// [`FileError::Io`].
pub fn write_for_group<T: Serialize>(path: &Path, group: u32, mode: u32, value: &T) -> Result<(), FileError> {
    replace(path, Some(group), mode, &to_bytes(path, value)?)
}

/// A JSON object with its `format`.
#[derive(Serialize)]
struct WithFormat<'a, T> {
    format: u64,
    #[serde(flatten)]
    value: &'a T,
}

fn to_bytes<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, FileError> {
    let content = |reason: String| FileError::Content { path: path.to_owned(), reason };
    let mut bytes =
        serde_json::to_vec(&WithFormat { format: FORMAT, value }).map_err(|error| content(error.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Removes what interrupted writes have left in this directory, which no other process may write to.
pub fn remove_leftovers(directory: &Path) {
    remove_with_prefix(directory, TEMPORARY_PREFIX.as_ref(), Duration::ZERO);
}

/// Removes what interrupted writes of this file have left beside it, if it is older than `age`: a write may be under way in
/// another process.
pub fn remove_leftovers_of(path: &Path, age: Duration) {
    remove_with_prefix(directory_of(path), &temporary_prefix(path), age);
}

fn remove_with_prefix(directory: &Path, prefix: &OsStr, age: Duration) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
        let is_old = |m: &Metadata| age.is_zero() || m.modified().is_ok_and(|at| at.elapsed().is_ok_and(|t| t >= age));
        if is_ours && entry.metadata().is_ok_and(|m| m.is_file() && is_old(&m)) {
            // If it cannot be removed, the next call tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn temporary_prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(TEMPORARY_PREFIX);
    prefix.push("-");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push("-");
    prefix
}

/// Like [`write()`], for a file that is not JSON.
///
/// # Errors
/// [`FileError::Io`].
pub fn write_bytes(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), FileError> {
    replace(path, None, mode, bytes)
}

fn replace(path: &Path, group: Option<u32>, mode: u32, bytes: &[u8]) -> Result<(), FileError> {
    let io = |e| FileError::io("write", path)(e);
    let mut file =
        tempfile::Builder::new().prefix(&temporary_prefix(path)).tempfile_in(directory_of(path)).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    if group.is_some() {
        fchown(file.as_file(), None, group).map_err(io)?;
    }
    file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|e| io(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use vipa_core::model::config::Config;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[test]
    fn a_file_reads_back_as_it_was_written() {
        let directory = directory();
        let path = directory.path().join("config.json");
        write(&path, 0o644, &Config::default()).expect("written");
        assert_eq!(read::<Config>(&path).expect("read"), Config::default());
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1, "nothing else is left");
    }

    #[test]
    fn leftovers_of_one_file_are_removed_when_they_are_old() {
        let directory = directory();
        let at = |name: &str| directory.path().join(name);
        let path = at("credentials.json");
        let mut names = [".tmp-credentials.json-aBcD12", ".tmp-config.json-aBcD12", "credentials.json"];
        names.iter().for_each(|name| fs::write(at(name), "x").expect("written"));
        let left = || {
            let entries = fs::read_dir(directory.path()).expect("listed");
            let mut names: Vec<_> = entries.map(|e| e.expect("read").file_name()).collect();
            names.sort();
            names
        };
        names.sort_unstable();
        remove_leftovers_of(&path, Duration::from_secs(60));
        assert_eq!(left(), names, "a write may be under way");
        remove_leftovers_of(&path, Duration::ZERO);
        assert_eq!(left(), [".tmp-config.json-aBcD12", "credentials.json"]);
        remove_leftovers(directory.path());
        assert_eq!(left(), ["credentials.json"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let directory = directory();
        let path = directory.path().join("config.json");
        assert!(matches!(read::<Config>(&path), Err(FileError::Missing(_))));
        for (text, expected) in [
            ("", "EOF while parsing"),
            ("[]", "no format number"),
            ("{}", "no format number"),
            (r#"{"format":"1"}"#, "no format number"),
            (r#"{"format":7}"#, "has format 7"),
            (r#"{"format":1,"surprise":1}"#, "unknown field `surprise`"),
        ] {
            fs::write(&path, text).expect("written");
            let error = read::<Config>(&path).expect_err(text).to_string();
            assert!(error.contains(expected) && error.contains("config.json"), "{text}: {error}");
        }
    }
}
