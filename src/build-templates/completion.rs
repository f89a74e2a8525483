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
        // VyOS's generators overwrite each with the next.
        let mut last = None;
        for help in xml::named(properties, "completionHelp") {
            let completion = Self::read_one(context, help)?;
            if last.replace(completion).is_some() {
                context.warn(help.line, "duplicate <completionHelp>: VyOS uses only the last one");
            }
        }
        Ok(last)
    }

    fn read_one(context: &Context, help: &Element) -> Result<Self, DefinitionError> {
        help.allow_attributes(context, &[])?;
        let children = help.children(context, &["list", "path", "script"])?;
        if children.is_empty() {
            context.warn(help.line, "<completionHelp> is empty");
        }
        let texts = |name| xml::named(children, name).map(|e| e.text_or_none(context)).collect::<Result<_, _>>();
        Ok(Self { lists: texts("list")?, paths: texts("path")?, scripts: texts("script")? })
    }
}
