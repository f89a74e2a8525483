//! The credentials file, and the copy of it that the agent reads.
//!
//! Only root may be able to read the file, so root copies it to /run, which is in memory, for the agent alone. The copy
//! names the file, and has the reason if the file cannot be read: the agent itself never opens the file.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vipa_core::model::ec2::NoCredentials;

use crate::fs::group::{self, AGENT_GROUP, GroupError};
use crate::fs::json_file::{self, FileError};
use crate::fs::operator_file::{self, FileFingerprint, OperatorFile, UnreadableReason};
use crate::paths::Paths;

/// The mode of the copy, which belongs to root and [`AGENT_GROUP`].
const COPY_MODE: u32 = 0o640;

/// No write of a copy takes longer. An older temporary file is what an interrupted one has left.
const MAX_WRITE_TIME: Duration = Duration::from_secs(60);

/// The size limit of a credentials file, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// The size limit of a copy, in bytes: JSON needs at most six for one of the file.
const MAX_COPY_BYTES: u64 = 8 * MAX_FILE_BYTES;

/// The content of a copy. Without `Debug`: it holds secrets.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialsCopy {
    /// The file that it is a copy of.
    file: PathBuf,
    content: Content,
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Content {
    Text(String),
    Unreadable(UnreadableReason),
}

/// The copy could not be installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The id of the agent's group cannot be determined.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The copy cannot be written or removed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Copies `file` for the agent if the copy differs from it. If the file cannot be read, the copy has the reason. If the file
/// is now on a file system that may hang, an existing copy of its text is kept.
///
/// # Errors
/// [`CopyError`]; the next call tries again.
pub fn install(paths: &Paths, file: &Path) -> Result<(), CopyError> {
    let path = &paths.credentials;
    json_file::remove_leftovers_of(path, MAX_WRITE_TIME);
    let group = group::gid(AGENT_GROUP)?.as_raw();
    let is_right = |m: fs::Metadata| m.is_file() && (m.uid(), m.gid(), m.mode() & 0o7777) == (0, group, COPY_MODE);
    let old = fs::symlink_metadata(path).is_ok_and(is_right).then(|| json_file::read::<CredentialsCopy>(path).ok());
    let old = old.flatten().filter(|old| old.file == file);
    let content = match operator_file::read(file, MAX_FILE_BYTES) {
        Ok((text, _)) => Content::Text(text),
        Err((UnreadableReason::NotLocal(_), _))
            if matches!(&old, Some(CredentialsCopy { content: Content::Text(_), .. })) =>
        {
            return Ok(());
        }
        Err((reason, _)) => Content::Unreadable(reason),
    };
    let new = CredentialsCopy { file: file.to_owned(), content };
    if old.as_ref() != Some(&new) {
        json_file::write_for_group(path, group, COPY_MODE, &new)?;
    }
    Ok(())
}

/// Removes the copy. Returns whether there was one.
///
/// # Errors
/// [`CopyError::File`].
pub fn remove(paths: &Paths) -> Result<bool, CopyError> {
    json_file::remove_leftovers_of(&paths.credentials, Duration::ZERO);
    match fs::remove_file(&paths.credentials) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::io("remove", &paths.credentials)(error).into()),
    }
}

/// Why the text of the file is not available. [`vipa_core::report::remedies`] has what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("{0}")]
    File(UnreadableReason),
    /// There is no copy, or it is of another file.
    #[error("it has not been copied to {0}")]
    NotCopied(PathBuf),
    /// This user may not read the copy.
    #[error("only root and the agent may read its copy {0}")]
    CopyNotPermitted(PathBuf),
    /// The copy cannot be read. The reason could quote it, so it is not given.
    #[error("its copy {0} cannot be read")]
    Copy(PathBuf),
}

impl ReadError {
    /// The failure of a call that needs the file.
    pub fn cause(&self) -> NoCredentials {
        match self {
            Self::File(UnreadableReason::NotLocal(_)) => NoCredentials::NotLocal,
            Self::File(UnreadableReason::NotPermitted | UnreadableReason::Other(_)) => NoCredentials::File,
            Self::NotCopied(_) => NoCredentials::NotCopied,
            Self::CopyNotPermitted(_) => NoCredentials::CopyNotPermitted,
            Self::Copy(_) => NoCredentials::Copy,
        }
    }
}

/// The credentials file, which the agent or a command reads repeatedly.
#[derive(Debug)]
pub struct CredentialsFile {
    file: OperatorFile,
    /// The copy, which is read instead of the file.
    copy: Option<PathBuf>,
}

impl CredentialsFile {
    /// The file at `path`. If `copy` is given, the copy is read, and the file is never opened.
    pub fn new(path: PathBuf, copy: Option<PathBuf>) -> Self {
        Self { file: OperatorFile::new(path, MAX_FILE_BYTES), copy }
    }

    /// The path of the file, for display: never that of the copy.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Reads the text, and the fingerprint of the file or copy that was read.
    ///
    /// # Errors
    /// The reason, and the fingerprint at that time.
    pub fn read(&self) -> Result<(String, FileFingerprint), (ReadError, FileFingerprint)> {
        match &self.copy {
            None => self.file.read().map_err(|(reason, fingerprint)| (ReadError::File(reason), fingerprint)),
            Some(copy) => self.read_copy(copy),
        }
    }

    fn read_copy(&self, copy: &Path) -> Result<(String, FileFingerprint), (ReadError, FileFingerprint)> {
        let (text, fingerprint) = operator_file::read(copy, MAX_COPY_BYTES).map_err(|(reason, fingerprint)| {
            let is_there = fingerprint != FileFingerprint::default();
            let error = match reason {
                UnreadableReason::NotPermitted => ReadError::CopyNotPermitted,
                _ if is_there => ReadError::Copy,
                _ => ReadError::NotCopied,
            };
            (error(copy.to_owned()), fingerprint)
        })?;
        match json_file::parse::<CredentialsCopy>(copy, text.as_bytes()) {
            Err(_) => Err((ReadError::Copy(copy.to_owned()), fingerprint)),
            Ok(found) if found.file != self.path() => Err((ReadError::NotCopied(copy.to_owned()), fingerprint)),
            Ok(CredentialsCopy { content: Content::Text(text), .. }) => Ok((text, fingerprint)),
            Ok(CredentialsCopy { content: Content::Unreadable(reason), .. }) => {
                Err((ReadError::File(reason), fingerprint))
            }
        }
    }
}
