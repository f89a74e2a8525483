//! Errors in definitions, with file, line and node.

use std::fmt;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    file: Rc<Path>,
    /// From 1.
    line: usize,
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
    path: Vec<String>,
}

impl Context {
    /// The context of a file, outside of all nodes.
    pub(crate) fn of_file(file: &Path) -> Self {
        Self { file: file.into(), path: Vec::new() }
    }

    /// The context of the child node `name`.
    pub(crate) fn child(&self, name: &str) -> Self {
        let mut child = self.clone();
        child.path.push(name.to_owned());
        child
    }

    pub(crate) fn location(&self, line: usize) -> Location {
        Location { file: Rc::clone(&self.file), line }
    }

    pub(crate) fn error(&self, line: usize, problem: impl Into<String>) -> DefinitionError {
        DefinitionError::Invalid { location: self.location(line), path: self.path.clone(), problem: problem.into() }
    }

    pub(crate) fn read_error(&self, source: io::Error) -> DefinitionError {
        DefinitionError::Read { file: Rc::clone(&self.file), source }
    }
}
