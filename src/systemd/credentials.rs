//! The credentials file, handed to the agent by systemd: a file that root alone may read stays so.
//!
//! `LoadCredential=` (systemd.exec(5), "Credentials") gives the unit a copy that only its own user can read. A unit that
//! names a file which is not there does not start, so the line stands in a drop-in that is rendered while the file can be
//! read; a copy does not change, so a file that has changed means a restart, which loses nothing. A `.path` unit tells.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vipa_core::model::credentials::id;

use crate::fs::json_file::{self, FileError};
use crate::fs::operator_file::{self, Reason, Version};
use crate::paths::Paths;
use crate::systemd::systemctl::{AGENT_UNIT, Systemctl, SystemctlError};

/// The longest credentials file, in bytes.
pub const LONGEST_FILE: u64 = 64 * 1024;
/// The drop-in of the agent's unit.
const DROP_IN: &str = "vyos-aws-vipa.service.d/10-credentials.conf";
/// Tells that the file has changed.
const WATCH: &str = "vyos-aws-vipa-credentials.path";
/// Asks whether it has.
const TIMER: &str = "vyos-aws-vipa-credentials.timer";

/// Which state of which file the agent was started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handed {
    file: PathBuf,
    version: Version,
    /// Whether the agent got a copy.
    loaded: bool,
}

/// Why the file could not be handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// A file of ours.
    #[error(transparent)]
    File(#[from] FileError),
    /// A unit.
    #[error("cannot {doing} {path}: {source}")]
    Unit {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// systemd.
    #[error(transparent)]
    Systemctl(#[from] SystemctlError),
}

/// Makes systemd hand this file to the agent, and tell when it changes. Where the agent has another state of it than the
/// file is in, the agent is restarted, by this verb of systemctl, without waiting; the answer is whether it was.
///
/// # Errors
/// [`HandOverError`]; the next call tries everything again.
pub fn hand_over(paths: &Paths, file: Option<&Path>, verb: &str, systemctl: Systemctl) -> Result<bool, HandOverError> {
    let Some(file) = file else {
        let had_one = withdraw(paths, systemctl)?;
        if had_one {
            systemctl.run(&[verb, "--no-block", AGENT_UNIT])?;
        }
        return Ok(had_one);
    };
    let (loaded, version) = match operator_file::read(file, LONGEST_FILE) {
        Ok((_, version)) => (true, version),
        Err((Reason::NotLocal(_), _)) => return stand_back(paths, systemctl).map(|()| false),
        Err((_, version)) => (false, version),
    };
    let handed = Handed { file: file.to_owned(), version, loaded };
    let drop_in = (paths.units.join(DROP_IN), loaded.then(|| drop_in(file)));
    let watch = (paths.units.join(WATCH), Some(path_unit(file)));
    // Written when all the rest has been done: what it says holds for systemd too.
    let before: Option<Handed> = json_file::read(&paths.handed).ok();
    if stands(&watch) && stands(&drop_in) && before.as_ref() == Some(&handed) {
        return Ok(false);
    }
    put(&watch)?;
    put(&drop_in)?;
    systemctl.run(&["daemon-reload"])?;
    // One that watches another file goes on with that one until it is restarted.
    let watches_it = before.is_some_and(|before| before.file == handed.file);
    systemctl.run(&[if watches_it { "start" } else { "restart" }, "--no-block", WATCH, TIMER])?;
    systemctl.run(&[verb, "--no-block", AGENT_UNIT])?;
    json_file::write(&paths.handed, 0o644, &handed)?;
    Ok(true)
}

/// Keeps systemd away from a file on a file system that could hang: the start of the agent would wait for it, and so would
/// systemd itself where it watches. The agent keeps its copy, and the timer looks again.
fn stand_back(paths: &Paths, systemctl: Systemctl) -> Result<(), HandOverError> {
    let units = [DROP_IN, WATCH].map(|name| (paths.units.join(name), None));
    if !units.iter().all(stands) {
        systemctl.run(&["stop", "--no-block", WATCH])?;
        units.iter().try_for_each(put)?;
        systemctl.run(&["daemon-reload"])?;
    }
    Ok(systemctl.run(&["start", "--no-block", TIMER])?)
}

/// Takes back what [`hand_over`] has told systemd; whether there was anything. The agent keeps its copy until it ends.
///
/// # Errors
/// [`HandOverError`]; the next call tries everything again.
pub fn withdraw(paths: &Paths, systemctl: Systemctl) -> Result<bool, HandOverError> {
    let units = [DROP_IN, WATCH].map(|name| (paths.units.join(name), None));
    let handed = (paths.handed.clone(), None);
    if units.iter().all(stands) && stands(&handed) {
        return Ok(false);
    }
    systemctl.run(&["stop", "--no-block", WATCH, TIMER])?;
    units.iter().try_for_each(put)?;
    systemctl.run(&["daemon-reload"])?;
    put(&handed)?;
    Ok(true)
}

/// A unit file and what it should hold; nothing: it should not be there.
type Unit = (PathBuf, Option<String>);

fn stands((path, text): &Unit) -> bool {
    match (fs::read_to_string(path), text) {
        (Ok(found), Some(text)) => found == *text,
        (Err(error), None) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

fn put(unit: &Unit) -> Result<(), HandOverError> {
    if stands(unit) {
        return Ok(());
    }
    let (path, text) = unit;
    let error = |doing| move |source| HandOverError::Unit { doing, path: path.to_owned(), source };
    match text {
        Some(text) => {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).map_err(error("make the folder of"))?;
            Ok(json_file::write_bytes(path, 0o644, text.as_bytes())?)
        }
        None => fs::remove_file(path).map_err(error("remove")),
    }
}

fn drop_in(file: &Path) -> String {
    format!(
        "# Rendered by `vyos-aws-vipa`: there while the file is.\n[Service]\nLoadCredential={}:{}\n",
        id(file),
        in_unit(file)
    )
}

fn path_unit(file: &Path) -> String {
    format!(
        "# Rendered by `vyos-aws-vipa`, from the node credentials-file.\n[Unit]\nDescription=Credentials file of vyos-aws-vipa\n\n\
         [Path]\nPathChanged={}\n",
        in_unit(file)
    )
}

/// As it stands in a unit: `%` begins a specifier there. Nothing else is special in a path that `verify` lets pass.
fn in_unit(file: &Path) -> String {
    file.display().to_string().replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_copies_are_plain_and_distinct() {
        let names = [
            ("/root/.aws/credentials", "-root-.aws-credentials"),
            ("/root/.aws-credentials", "-root-.aws~2dcredentials"),
            ("/config/a b", "-config-a~20b"),
            ("/config/~20", "-config-~7e20"),
            ("/config/ü:%", "-config-~c3~bc~3a~25"),
        ];
        for (file, name) in names {
            assert_eq!(id(Path::new(file)), name);
        }
    }

    #[test]
    fn no_path_is_read_as_a_specifier() {
        let file = Path::new("/config/50%n/credentials");
        assert!(drop_in(file).ends_with("\nLoadCredential=-config-50~25n-credentials:/config/50%%n/credentials\n"));
        assert!(path_unit(file).ends_with("\n[Path]\nPathChanged=/config/50%%n/credentials\n"));
    }
}
