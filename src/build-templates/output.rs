//! Writing: everything, or nothing.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

/// Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// There is something in the way.
    #[error("{0} is there, and not an empty folder: remove it, or name another one")]
    Taken(PathBuf),
    /// The system refused.
    #[error("cannot write {path}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl OutputError {
    fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Files below a folder.
#[derive(Debug, Default)]
pub struct Tree(BTreeMap<PathBuf, String>);

impl Tree {
    /// Adds a file, by its path below the folder.
    pub fn insert(&mut self, path: PathBuf, text: String) {
        self.0.insert(path, text);
    }

    /// Makes the folder with these files in it.
    ///
    /// # Errors
    /// [`OutputError`]; the folder is then as it was.
    pub fn write(&self, folder: &Path) -> Result<(), OutputError> {
        if folder.exists() {
            let mut entries = fs::read_dir(folder).map_err(|_| OutputError::Taken(folder.to_owned()))?;
            if entries.next().is_some() {
                return Err(OutputError::Taken(folder.to_owned()));
            }
        }
        let new =
            Builder::new().prefix(".build-templates").tempdir_in(parent(folder)).map_err(OutputError::io(folder))?;
        fs::set_permissions(new.path(), Permissions::from_mode(0o755)).map_err(OutputError::io(folder))?;
        for (path, text) in &self.0 {
            let file = new.path().join(path);
            let failed = OutputError::io(&file);
            fs::create_dir_all(parent(&file)).and_then(|()| fs::write(&file, text)).map_err(failed)?;
        }
        // An empty folder is replaced by it.
        fs::rename(new.path(), folder).map_err(OutputError::io(folder))?;
        // It is the other folder now.
        let _ = new.keep();
        Ok(())
    }
}

/// Writes a file, over one that is there.
///
/// # Errors
/// [`OutputError::Io`]; a file that is there is then as it was.
pub fn write_file(file: &Path, text: &str) -> Result<(), OutputError> {
    let failed = OutputError::io(file);
    let new = NamedTempFile::new_in(parent(file)).map_err(&failed)?;
    fs::write(new.path(), text).map_err(&failed)?;
    fs::set_permissions(new.path(), Permissions::from_mode(0o644)).map_err(&failed)?;
    new.persist(file).map_err(|e| failed(e.error))?;
    Ok(())
}

/// The folder of a file or folder.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
