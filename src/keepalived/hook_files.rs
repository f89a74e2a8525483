//! The directory and the FIFO of the transition hook, as root makes them.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::fs::group::{self, AGENT_GROUP, GroupError};

/// The modes of the directory and of the FIFO, as in debian/vyos-aws-vipa.tmpfiles.
const DIRECTORY_MODE: u32 = 0o755;
const FIFO_MODE: u32 = 0o640;

/// The directory or the FIFO cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum HookFileError {
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error("cannot {doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// Makes the directory at `path`, owned and writable by root alone, because keepalived includes a file from there.
/// Anything else at that path is removed, and no symbolic link is followed. Returns whether the directory was missing.
///
/// # Errors
/// [`HookFileError`].
pub fn make_directory(path: &Path) -> Result<bool, HookFileError> {
    let io = |doing| move |source| HookFileError::Io { doing, path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Some(found),
        Ok(_) => {
            fs::remove_file(path).map_err(io("remove"))?;
            None
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(io("read the metadata of")(e)),
    };
    let is_right = |m: &fs::Metadata| (m.uid(), m.gid(), m.mode() & 0o7777) == (0, 0, DIRECTORY_MODE);
    if found.as_ref().is_some_and(is_right) {
        return Ok(false);
    }
    if found.is_none() {
        match fs::create_dir(path) {
            // A commit and the hook may run at the same time.
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

/// Whether this is a regular file that root alone may write, and no symbolic link.
pub fn is_writable_by_root_alone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.uid() == 0 && m.mode() & 0o022 == 0)
}

/// Makes the FIFO at `path`, readable by the agent and writable by root alone. An existing FIFO keeps its inode,
/// because keepalived may have it open. keepalived 2.4 uses no FIFO of another user than its own, which is root.
///
/// # Errors
/// [`HookFileError`].
pub fn make_fifo(path: &Path) -> Result<(), HookFileError> {
    let io = |doing| move |source| HookFileError::Io { doing, path: path.to_owned(), source };
    let group = group::gid(AGENT_GROUP)?.as_raw();
    let is_fifo = match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_fifo() => {
            if (found.uid(), found.gid(), found.mode() & 0o7777) == (0, group, FIFO_MODE) {
                return Ok(());
            }
            true
        }
        Ok(_) => {
            fs::remove_file(path).map_err(io("remove"))?;
            false
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(io("read the metadata of")(e)),
    };
    if !is_fifo {
        rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).map_err(|e| io("make")(e.into()))?;
    }
    std::os::unix::fs::chown(path, Some(0), Some(group)).map_err(io("change the owner of"))?;
    fs::set_permissions(path, Permissions::from_mode(FIFO_MODE)).map_err(io("change the mode of"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_what_the_package_makes() {
        let tmpfiles = include_str!("../../debian/vyos-aws-vipa.tmpfiles");
        let paths = crate::paths::Paths::system();
        for line in [
            format!("d {} {DIRECTORY_MODE:04o} root root -", paths.run.display()),
            format!("z {} {FIFO_MODE:04o} root {AGENT_GROUP} -", paths.fifo.display()),
        ] {
            assert!(tmpfiles.lines().any(|l| l == line), "{line}: {tmpfiles}");
        }
        let sysusers = include_str!("../../debian/vyos-aws-vipa.sysusers");
        let groups: Vec<&str> = sysusers.lines().filter(|line| line.contains(AGENT_GROUP)).collect();
        assert_eq!(groups, [format!("g {AGENT_GROUP} -")], "without a member");
        let unit = include_str!("../../debian/vyos-aws-vipa.service");
        assert!(unit.lines().any(|line| line == format!("SupplementaryGroups={AGENT_GROUP}")), "{unit}");
    }
}
