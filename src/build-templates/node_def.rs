//! `node.def` files by their directories, and the choice between several definitions of a node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Context, Location};
use crate::output::Tree;

/// The texts of `node.def` files, each with the place of its definition.
#[derive(Debug, Default)]
pub(crate) struct NodeDefs(BTreeMap<PathBuf, (String, Location)>);

impl NodeDefs {
    /// Adds the definition of a node. As in VyOS's generators, the first non-empty one is used; one that differs from it
    /// causes a warning.
    pub(crate) fn insert(&mut self, directory: &Path, text: String, context: &Context, line: usize) {
        match self.0.get(directory) {
            Some((old, other)) if !old.is_empty() => {
                if !text.is_empty() && *old != text {
                    context.warn_of_difference(line, other, "VyOS's node.def is that of the other one");
                }
            }
            _ => {
                self.0.insert(directory.to_owned(), (text, context.location(line)));
            }
        }
    }

    /// Adds the texts of directories that have none, or an empty one.
    pub(crate) fn fill_in(&mut self, others: Self) {
        for (directory, other) in others.0 {
            if self.0.get(&directory).is_none_or(|(text, _)| text.is_empty()) {
                self.0.insert(directory, other);
            }
        }
    }

    /// A `node.def` file in each directory.
    pub(crate) fn into_tree(self) -> Tree {
        let mut tree = Tree::default();
        for (directory, (text, _)) in self.0 {
            tree.insert(directory.join("node.def"), text);
        }
        tree
    }
}
