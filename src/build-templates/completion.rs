//! `<completionHelp>`: where the words come from that VyOS offers for a value.

use crate::refusal::{At, Refusal};
use crate::xml::{self, Element};

/// What VyOS offers: words, the nodes below a path of the configuration, what a command prints.
#[derive(Debug, PartialEq, Eq)]
pub struct Completion {
    /// Words with blanks between them, each entry as it stands there.
    pub lists: Vec<String>,
    /// Paths of the configuration.
    pub paths: Vec<String>,
    /// Commands.
    pub scripts: Vec<String>,
}

impl Completion {
    /// Reads it out of the properties of a node.
    pub fn read(at: &At, properties: &[Element]) -> Result<Option<Self>, Refusal> {
        let mut helps = xml::all(properties, "completionHelp");
        let Some(help) = helps.next() else {
            return Ok(None);
        };
        if let Some(second) = helps.next() {
            // VyOS's generators overwrite each with the next.
            return Err(at.refuse(
                second.line,
                "there is a second <completionHelp>, and only the last one would work: put all into one",
            ));
        }
        help.attributes_among(at, &[])?;
        let children = help.children(at, &["list", "path", "script"])?;
        if children.is_empty() {
            return Err(at.refuse(help.line, "<completionHelp> offers nothing"));
        }
        let texts = |name| xml::all(children, name).map(|e| Ok(e.text(at)?.to_owned())).collect::<Result<_, _>>();
        Ok(Some(Self { lists: texts("list")?, paths: texts("path")?, scripts: texts("script")? }))
    }
}
