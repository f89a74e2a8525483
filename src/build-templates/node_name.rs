//! Names of nodes: words of a command, and names of folders.

use std::fmt;

/// The name of a node. It is a word of a command and the name of a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeName(String);

impl NodeName {
    /// Checks a name: letters, digits, `-`, `_` and `.`, the first none of these three, and none that the templates or
    /// the cache have for themselves.
    pub fn new(name: &str) -> Result<Self, &'static str> {
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err("a name begins with a letter or a digit");
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return Err("a name has letters, digits, - _ and . alone");
        }
        if matches!(name, "node.def" | "node.tag" | "node_data" | "component_version") {
            return Err("VyOS has this name for itself");
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
