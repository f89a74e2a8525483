//! Definition files, with the files that they include.

use std::fs;
use std::path::Path;
use std::rc::Rc;

use crate::error::{DefinitionError, Location};

/// The maximum depth of includes; a deeper one is a cycle.
const MAX_INCLUDE_DEPTH: usize = 10;

/// The text of a definition and all that it includes.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) text: String,
    /// The original location of each line.
    pub(crate) lines: Vec<Location>,
}

impl Source {
    /// Reads a file. A line `#include <FILE>` is replaced by that file, whose path is relative to the first file (vyos-1x
    /// scripts/transclude-template).
    pub(crate) fn read(file: &Rc<Path>) -> Result<Self, DefinitionError> {
        let text = read(file).map_err(|source| DefinitionError::Read { file: Rc::clone(file), source })?;
        let mut source = Self::default();
        source.add(&text, file, file.parent().unwrap_or(Path::new("")), 0)?;
        Ok(source)
    }

    fn add(&mut self, text: &str, file: &Rc<Path>, directory: &Path, depth: usize) -> Result<(), DefinitionError> {
        for (number, line) in text.lines().enumerate() {
            let location = Location { file: Rc::clone(file), line: number + 1 };
            let Some(name) = included(line) else {
                self.lines.push(location);
                self.text.push_str(line);
                self.text.push('\n');
                continue;
            };
            let included: Rc<Path> = directory.join(name).into();
            let failed = |problem: String| DefinitionError::Include {
                location: location.clone(),
                file: included.to_path_buf(),
                problem,
            };
            if depth == MAX_INCLUDE_DEPTH {
                return Err(failed(format!("files include each other more than {MAX_INCLUDE_DEPTH} levels deep")));
            }
            let text = read(&included).map_err(|error| failed(error.to_string()))?;
            self.add(&text, &included, directory, depth + 1)?;
        }
        Ok(())
    }
}

/// The text of a file without its byte order mark.
fn read(file: &Path) -> std::io::Result<String> {
    let text = fs::read_to_string(file)?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The file that a line includes.
fn included(line: &str) -> Option<&str> {
    line.trim_start_matches(' ').strip_prefix("#include <")?.strip_suffix('>')
}
