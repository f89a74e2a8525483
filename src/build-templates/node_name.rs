//! Names of nodes.

use std::fmt;

/// The name of a node: a word of a command and a directory name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeName(String);

impl NodeName {
    /// Validates a name: it is a directory name, and not one of the names that templates or cache reserve.
    pub(crate) fn new(name: &str) -> Result<Self, &'static str> {
        if name.is_empty() || name.contains('/') || matches!(name, "." | "..") {
            return Err("a node name must be the name of a directory");
        }
        if matches!(name, "node.def" | "node.tag" | "node_data" | "component_version") {
            return Err("VyOS reserves this node name");
        }
        Ok(Self(name.to_owned()))
    }

    /// Whether the command line takes it as a word without quotes.
    pub(crate) fn is_plain(&self) -> bool {
        self.0.starts_with(|c: char| c.is_ascii_alphanumeric())
            && self.0.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
