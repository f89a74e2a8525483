//! `completion`: the completions that VyOS offers for a value of an operational command.

use std::io::{self, Write};

use clap::Subcommand;
use vipa_core::model::config::Config;

use crate::fs::json_file::{self, FileError};
use crate::paths::Paths;

/// What to offer words for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Completion {
    /// List the VRRP groups whose addresses are claimed
    Groups,
}

/// The completions could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum CompletionError {
    /// The configuration cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Standard output cannot be written to.
    #[error("cannot print the completions: {0}")]
    Print(#[source] io::Error),
}

impl Completion {
    /// Prints the completions, one a line.
    ///
    /// VyOS passes them to bash's `compgen -W`, which expands each as a shell would (vyatta-op
    /// etc/bash_completion.d/vyatta-op). A name with characters that are special to a shell is left out; operators can still
    /// type it.
    ///
    /// # Errors
    /// [`CompletionError`]. A missing configuration is no error.
    pub fn run(self, paths: &Paths, out: &mut impl Write) -> Result<(), CompletionError> {
        let Self::Groups = self;
        let config: Config = match json_file::read(&paths.config) {
            Err(FileError::Missing(_)) => return Ok(()),
            config => config?,
        };
        for group in config.groups.iter().filter(|group| is_plain(group.name.as_str())) {
            writeln!(out, "{}", group.name).map_err(CompletionError::Print)?;
        }
        Ok(())
    }
}

/// Whether the word has no characters that are special to a shell.
fn is_plain(word: &str) -> bool {
    word.chars().all(|c| c.is_alphanumeric() || "-_.:@+,/=".contains(c))
}

#[cfg(test)]
mod tests {
    use vipa_core::model::config::GroupConfig;
    use vipa_core::model::ids::GroupName;

    use super::*;

    fn offered(directory: &tempfile::TempDir) -> String {
        let paths = Paths { config: directory.path().join("config.json"), ..Paths::system() };
        let mut out = Vec::new();
        Completion::Groups.run(&paths, &mut out).expect("printed");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn groups_are_offered_unless_a_shell_would_read_more_into_their_names() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(offered(&directory), "", "nothing is configured");
        let names =
            ["-n", "LAN_1", "a.b:c/d", "ü", "$HOME", "`id`", "$(id)", "a;b", "a\\b", "~root", "a*", "<a>", "(a)"];
        let group = |name: &str| GroupConfig::new(GroupName::try_from(name).expect("a name"));
        let config = Config { groups: names.into_iter().map(group).collect(), ..Config::default() };
        json_file::write(&directory.path().join("config.json"), 0o644, &config).expect("written");
        assert_eq!(offered(&directory), "-n\nLAN_1\na.b:c/d\nü\n");
    }
}
