//! Errors in definitions, with file, line and node.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) file: Rc<Path>,
    /// The line number, from 1.
    pub(crate) line: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DefinitionError {
    #[error("cannot read {file}: {source}", file = file.display())]
    Read { file: Rc<Path>, source: io::Error },
    #[error("{location}: cannot include {file}: {problem}", file = file.display())]
    Include { location: Location, file: PathBuf, problem: String },
    #[error("{location}: {}{problem}", node_prefix(path))]
    Invalid {
        location: Location,
        /// The node's names from the root; empty outside of all nodes.
        path: Vec<String>,
        problem: String,
    },
}

fn node_prefix(path: &[String]) -> String {
    if path.is_empty() { String::new() } else { format!("node `{}`: ", path.join(" ")) }
}

/// The file and the node being read: the context of errors.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    file: Rc<Path>,
    /// The original location of each line, because files were included.
    lines: Rc<[Location]>,
    path: Vec<String>,
}

impl Context {
    /// The context of a file, outside of all nodes.
    pub(crate) fn of_file(file: Rc<Path>, lines: Rc<[Location]>) -> Self {
        Self { file, lines, path: Vec::new() }
    }

    /// The file that was given to the generator.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The context of the child node `name`.
    pub(crate) fn child(&self, name: &str) -> Self {
        let mut child = self.clone();
        child.path.push(name.to_owned());
        child
    }

    /// The place of a line of the text, from 1.
    pub(crate) fn location(&self, line: usize) -> Location {
        let place = self.lines.get(line.saturating_sub(1)).or(self.lines.last());
        place.cloned().unwrap_or_else(|| Location { file: Rc::clone(&self.file), line })
    }

    /// Prints a warning: the definition is valid, but a part of it has no effect or an unexpected one.
    pub(crate) fn warn(&self, line: usize, problem: impl Into<String>) {
        eprintln!("build-templates: warning: {}", self.error(line, problem));
    }

    /// Warns that the node here differs from the same node at `other`. `used` says which one VyOS uses.
    pub(crate) fn warn_of_difference(&self, line: usize, other: &Location, used: &str) {
        self.warn(line, format!("its definition differs from that in {other}: {used}"));
    }

    pub(crate) fn error(&self, line: usize, problem: impl Into<String>) -> DefinitionError {
        DefinitionError::Invalid { location: self.location(line), path: self.path.clone(), problem: problem.into() }
    }
}
