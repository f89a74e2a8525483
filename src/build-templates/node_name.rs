//! Names of nodes.

use std::fmt;

/// The name of a node: a word of a command and a directory name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeName(String);

impl NodeName {
    /// Validates a name: ASCII letters, digits, `-`, `_` and `.`, with a letter or a digit first, and not one of the
    /// names that templates or cache reserve.
    pub(crate) fn new(name: &str) -> Result<Self, &'static str> {
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err("a node name must start with a letter or a digit");
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return Err("a node name may contain only letters, digits, - _ and .");
        }
        if matches!(name, "node.def" | "node.tag" | "node_data" | "component_version") {
            return Err("VyOS reserves this node name");
        }
        Ok(Self(name.to_owned()))
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
