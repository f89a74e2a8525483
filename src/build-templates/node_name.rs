//! Names of nodes.

use std::fmt;

use crate::error::{Context, DefinitionError};
use crate::xml::Element;

/// The name of a node: a word of a command and a directory name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeName(String);

impl NodeName {
    /// Reads the name of an element for a node, with the context of that node.
    pub(crate) fn read(parent: &Context, element: &Element) -> Result<(Self, Context), DefinitionError> {
        let name = element.attribute("name");
        let name =
            name.ok_or_else(|| parent.error(element.line, format!("<{}> needs the attribute name", element.name)))?;
        let context = parent.child(name);
        let name = Self::new(name).map_err(|problem| context.error(element.line, problem))?;
        if !name.is_plain() {
            context.warn(
                element.line,
                "a node name should have only letters, digits, - _ and ., and begin with a letter or digit",
            );
        }
        Ok((name, context))
    }

    /// Validates a name: it is a directory name, and not one of the names that templates or cache reserve.
    fn new(name: &str) -> Result<Self, &'static str> {
        if name.is_empty() || name.contains('/') || matches!(name, "." | "..") {
            return Err("a node name must be the name of a directory");
        }
        if matches!(name, "node.def" | "node.tag" | "node_data" | "component_version" | "__node_data" | "__virtual_tag")
        {
            return Err("VyOS reserves this node name");
        }
        Ok(Self(name.to_owned()))
    }

    /// Whether it is a word on the command line without quotes.
    fn is_plain(&self) -> bool {
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
