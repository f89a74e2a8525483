//! `<completionHelp>`: where the suggested values of a node come from.

use crate::error::{Context, DefinitionError};
use crate::xml::{self, Element};

/// Sources of suggested values, each in the order of the definition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// Values separated by spaces.
    pub(crate) lists: Vec<String>,
    /// Configuration paths whose child nodes are suggested.
    pub(crate) paths: Vec<String>,
    /// Commands that print values.
    pub(crate) scripts: Vec<String>,
}

impl Completion {
    /// Reads the completion from a node's properties.
    pub(crate) fn read(context: &Context, properties: &[Element]) -> Result<Option<Self>, DefinitionError> {
        let mut helps = xml::named(properties, "completionHelp");
        let Some(help) = helps.next() else {
            return Ok(None);
        };
        if let Some(second) = helps.next() {
            // VyOS's generators overwrite each with the next.
            return Err(context.error(
                second.line,
                "duplicate <completionHelp>: VyOS would use only the last one; merge them into one",
            ));
        }
        help.allow_attributes(context, &[])?;
        let children = help.children(context, &["list", "path", "script"])?;
        if children.is_empty() {
            return Err(context.error(help.line, "<completionHelp> is empty"));
        }
        let texts =
            |name| xml::named(children, name).map(|e| Ok(e.text(context)?.to_owned())).collect::<Result<_, _>>();
        Ok(Some(Self { lists: texts("list")?, paths: texts("path")?, scripts: texts("script")? }))
    }
}
