//! Why definitions are not taken, and where.

use std::fmt;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Rc<Path>,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Definitions that are not taken. Nothing has been written.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A file that cannot be read.
    #[error("cannot read {file}: {source}", file = file.display())]
    Read {
        /// Which.
        file: Rc<Path>,
        /// The reason.
        source: io::Error,
    },
    /// What a file says.
    #[error("{place}: {}{problem}", node(path))]
    Content {
        /// Where.
        place: Place,
        /// The node's names from the root; none outside of all nodes.
        path: Vec<String>,
        /// What is wrong, and what to do.
        problem: String,
    },
}

fn node(path: &[String]) -> String {
    if path.is_empty() { String::new() } else { format!("node `{}`: ", path.join(" ")) }
}

/// The node that is being read.
#[derive(Debug, Clone)]
pub struct At {
    file: Rc<Path>,
    path: Vec<String>,
}

impl At {
    /// Outside of all nodes.
    pub fn root(file: &Path) -> Self {
        Self { file: file.into(), path: Vec::new() }
    }

    /// In the node of that name below this one.
    pub fn below(&self, name: &str) -> Self {
        let mut below = self.clone();
        below.path.push(name.to_owned());
        below
    }

    /// A line of its file.
    pub fn place(&self, line: usize) -> Place {
        Place { file: Rc::clone(&self.file), line }
    }

    /// A refusal of something in that line.
    pub fn refuse(&self, line: usize, problem: impl Into<String>) -> Refusal {
        Refusal::Content { place: self.place(line), path: self.path.clone(), problem: problem.into() }
    }

    /// A refusal of the file as a whole.
    pub fn unreadable(&self, source: io::Error) -> Refusal {
        Refusal::Read { file: Rc::clone(&self.file), source }
    }
}
