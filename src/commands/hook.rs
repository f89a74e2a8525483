//! `hook`: run by keepalived.service before each start and reload (debian/keepalived.service.d).
//!
//! It must never harm keepalived: it uses no network, waits for nothing, and ends by itself. The unit still limits its time,
//! and ignores its failure.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use vipa_core::keepalived::conf::{self, ConfError, SkippedInstance};
use vipa_core::keepalived::groups::Groups;
use vipa_core::keepalived::include;
use vipa_core::model::config::Config;

use crate::fs::json_file::{self, FileError};
use crate::keepalived::hook_files::{self, HookFileError};
use crate::paths::Paths;

/// The most skipped groups that are named.
const MAX_NAMED_GROUPS: usize = 10;

/// More than any keepalived.conf has, in bytes.
const MAX_CONF_BYTES: u64 = 16 << 20;

/// Why the hook could not do its work. keepalived still starts and reloads.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message of a variant says what its fields are")]
pub enum HookError {
    /// A file of this package cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The FIFO, or its directory, cannot be made.
    #[error(transparent)]
    Fifo(#[from] HookFileError),
    /// config.json was removed, but not by `commit`.
    #[error(
        "{0} was removed while the agent is running; keepalived stays attached. Commit a change of an aws-vipa node, which writes it again"
    )]
    Lost(PathBuf),
    /// keepalived.conf cannot be parsed.
    #[error("{path}: {source}; the agent keeps the previous groups")]
    Conf { path: PathBuf, source: ConfError },
    /// keepalived.conf could not be read or written.
    #[error("cannot {doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// The result of [`attach`].
#[derive(Debug)]
pub struct Attached {
    /// keepalived.conf was changed, and a running keepalived has not read it yet.
    pub rewritten: bool,
    /// The groups of keepalived.conf that are not in groups.json, a sentence each.
    pub skipped: Vec<String>,
}

/// Attaches the hook if config.json has a configuration, and detaches it otherwise. Prints the skipped groups to `err`.
///
/// # Errors
/// [`HookError`].
pub fn run(paths: &Paths, err: &mut impl Write) -> Result<(), HookError> {
    let was_missing = hook_files::make_directory(&paths.run)?;
    let (attached, result) = match json_file::read::<Config>(&paths.config) {
        Ok(config) if config.is_empty() => return detach(paths).map(drop),
        // `commit` removes config.json only together with the file that keepalived includes, and stops the agent. If one of
        // the two is left, config.json was removed otherwise, and the agent keeps the configuration that it has read.
        Err(FileError::Missing(config)) if (was_missing || paths.include.exists()) && paths.socket.exists() => {
            (attach(paths)?, Err(HookError::Lost(config)))
        }
        Err(FileError::Missing(_)) => return detach(paths).map(drop),
        // Also if config.json cannot be read: the agent has loaded it before, or reports the failure.
        Ok(_) => (attach(paths)?, Ok(())),
        Err(error) => (attach(paths)?, Err(error.into())),
    };
    for fault in attached.skipped {
        // Standard error may be closed.
        let _ = writeln!(err, "vyos-aws-vipa: {fault}");
    }
    result
}

/// Makes keepalived.conf include the hook, and writes its groups to groups.json.
///
/// # Errors
/// [`HookError`].
pub fn attach(paths: &Paths) -> Result<Attached, HookError> {
    hook_files::make_directory(&paths.run)?;
    // The FIFO and the included file must exist before the line in keepalived.conf that refers to them.
    hook_files::make_fifo(&paths.fifo)?;
    let text = include::render(&paths.fifo);
    if !hook_files::is_writable_by_root_alone(&paths.include)
        || fs::read_to_string(&paths.include).ok().as_ref() != Some(&text)
    {
        json_file::write_bytes(&paths.include, 0o644, text.as_bytes())?;
    }
    let Some(conf) = read_conf(&paths.keepalived_conf)? else {
        return Ok(Attached { rewritten: false, skipped: Vec::new() });
    };
    let path = &paths.keepalived_conf;
    let reading = conf::parse(&conf);
    let rewritten = if reading.as_ref().is_ok_and(|reading| reading.is_cut_short) {
        let text = include::first(&conf, &paths.include);
        text.map(|text| replace(path, &text)).transpose()?.is_some()
    } else {
        let line = include::missing(&conf, &paths.include);
        line.map(|line| append(path, &line)).transpose()?.is_some()
    };
    let reading = reading.map_err(|source| HookError::Conf { path: path.clone(), source })?;
    if json_file::read::<Groups>(&paths.groups).ok().as_ref() != Some(&reading.groups) {
        json_file::write(&paths.groups, 0o644, &reading.groups)?;
    }
    let described = |fault: &SkippedInstance| format!("{}: {fault}", path.display());
    let mut skipped: Vec<String> = reading.skipped.iter().take(MAX_NAMED_GROUPS).map(described).collect();
    if let Some(more @ 1..) = reading.skipped.len().checked_sub(MAX_NAMED_GROUPS) {
        skipped.push(format!("{}: {more} more groups skipped", path.display()));
    }
    Ok(Attached { rewritten, skipped })
}

/// Removes the line that [`attach`] added to keepalived.conf. Returns whether the file was changed.
///
/// # Errors
/// [`HookError::Io`].
pub fn detach(paths: &Paths) -> Result<bool, HookError> {
    let path = &paths.keepalived_conf;
    let Some(conf) = read_conf(path)? else {
        return Ok(false);
    };
    match include::without(&conf, &paths.include) {
        Some(text) => replace(path, &text).map(|()| true),
        None => Ok(false),
    }
}

/// The text of keepalived.conf, or `None` if there is no such file, because VyOS has no VRRP group.
fn read_conf(path: &Path) -> Result<Option<Vec<u8>>, HookError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_CONF_BYTES + 1).read_to_end(&mut bytes)) {
        Ok(_) if bytes.len() as u64 > MAX_CONF_BYTES => {
            let source =
                io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {} MiB", MAX_CONF_BYTES >> 20));
            Err(HookError::Io { doing: "read", path: path.to_owned(), source })
        }
        Ok(_) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HookError::Io { doing: "read", path: path.to_owned(), source }),
    }
}

/// Appends in one write. The file keeps its owner, mode and inode, as when VyOS writes it.
fn append(path: &Path, line: &str) -> Result<(), HookError> {
    OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .map_err(|source| HookError::Io { doing: "append to", path: path.to_owned(), source })
}

/// Replaces the file by a new one with the same owner and mode, so that a reader gets the old or the new one, complete.
fn replace(path: &Path, text: &[u8]) -> Result<(), HookError> {
    let io = |doing| move |source| HookError::Io { doing, path: path.to_owned(), source };
    let old = fs::metadata(path).map_err(io("read the metadata of"))?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(io("write a new version of"))?;
    file.write_all(text).map_err(io("write a new version of"))?;
    file.as_file().set_permissions(Permissions::from_mode(old.mode())).map_err(io("write a new version of"))?;
    std::os::unix::fs::fchown(file.as_file(), Some(old.uid()), Some(old.gid()))
        .map_err(io("write a new version of"))?;
    file.persist(path).map_err(|e| io("replace")(e.error))?;
    Ok(())
}
