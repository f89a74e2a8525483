//! Atomic output: all files are written, or none.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    #[error("{0} exists and is not an empty directory; remove it or choose another one")]
    NotEmpty(PathBuf),
    #[error("cannot write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl OutputError {
    fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// The text files of a directory tree, by their relative path.
#[derive(Debug, Default)]
pub(crate) struct Tree(BTreeMap<PathBuf, String>);

impl Tree {
    pub(crate) fn insert(&mut self, path: PathBuf, text: String) {
        self.0.insert(path, text);
    }

    /// Creates `directory` with these files.
    ///
    /// # Errors
    /// [`OutputError`]; `directory` is then unchanged.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), OutputError> {
        if directory.exists() {
            let mut entries = fs::read_dir(directory).map_err(|_| OutputError::NotEmpty(directory.to_owned()))?;
            if entries.next().is_some() {
                return Err(OutputError::NotEmpty(directory.to_owned()));
            }
        }
        let failed = OutputError::io(directory);
        let new = Builder::new().prefix(".build-templates").tempdir_in(parent(directory)).map_err(&failed)?;
        fs::set_permissions(new.path(), Permissions::from_mode(0o755)).map_err(&failed)?;
        for (path, text) in &self.0 {
            let file = new.path().join(path);
            fs::create_dir_all(parent(&file)).and_then(|()| fs::write(&file, text)).map_err(OutputError::io(&file))?;
        }
        // rename(2) replaces an empty directory.
        fs::rename(new.path(), directory).map_err(failed)?;
        // The temporary directory was renamed, so nothing is left to remove.
        let _ = new.keep();
        Ok(())
    }
}

/// Writes `file`, replacing an existing one.
///
/// # Errors
/// [`OutputError::Io`]; an existing file is then unchanged.
pub(crate) fn write_file(file: &Path, text: &str) -> Result<(), OutputError> {
    let failed = OutputError::io(file);
    let new = NamedTempFile::new_in(parent(file)).map_err(&failed)?;
    fs::write(new.path(), text).map_err(&failed)?;
    fs::set_permissions(new.path(), Permissions::from_mode(0o644)).map_err(&failed)?;
    new.persist(file).map_err(|e| failed(e.error))?;
    Ok(())
}

/// The parent directory; `.` for a bare file name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
