//! XML files as trees of elements with line numbers.
//!
//! Definitions consist of elements, attributes, text, comments and processing instructions. Document types, custom entities
//! and encodings other than UTF-8 are errors.

use std::path::Path;
use std::rc::Rc;

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

use crate::error::{Context, DefinitionError};
use crate::source::Source;

/// The limit of libxml2, with which VyOS's generators read files.
const MAX_ELEMENT_DEPTH: usize = 256;

#[derive(Debug)]
pub(crate) struct Element {
    pub(crate) name: String,
    /// The line of the start tag, from 1.
    pub(crate) line: usize,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
    /// The text up to the first comment or processing instruction, which is all that VyOS's generators read.
    text: String,
    /// The text after that comment or processing instruction, if there is one.
    rest: Option<String>,
}

/// Reads a file and returns its root element, and the context for its errors.
pub(crate) fn read(file: &Path) -> Result<(Context, Element), DefinitionError> {
    let file: Rc<Path> = file.into();
    let Source { text, lines } = Source::read(&file)?;
    let context = Context::of_file(file, lines.into());
    let root = parse(&context, &text)?;
    Ok((context, root))
}

fn parse(context: &Context, text: &str) -> Result<Element, DefinitionError> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().enable_all_checks(true);
    let line_of = |offset: u64| {
        let before = text.as_bytes().iter().take(usize::try_from(offset).unwrap_or(usize::MAX));
        1 + before.filter(|b| **b == b'\n').count()
    };
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    loop {
        let line = line_of(reader.buffer_position());
        let event = match reader.read_event() {
            Ok(event) => event,
            Err(error) => return Err(context.error(line_of(reader.error_position()), format!("invalid XML: {error}"))),
        };
        let outside = || context.error(line, "invalid XML: content outside the root element");
        match event {
            Event::Start(start) => {
                if open.len() == MAX_ELEMENT_DEPTH {
                    return Err(
                        context.error(line, format!("elements are nested more than {MAX_ELEMENT_DEPTH} levels deep"))
                    );
                }
                open.push(element(context, line, &start)?);
            }
            Event::Empty(start) => {
                close(element(context, line, &start)?, &mut open, &mut root).map_err(|()| outside())?
            }
            Event::End(_) => {
                let element = open.pop().ok_or_else(outside)?;
                close(element, &mut open, &mut root).map_err(|()| outside())?;
            }
            Event::Text(text) => add_text(context, line, &text.xml10_content(), &mut open)?,
            Event::CData(text) => add_text(context, line, &text.xml10_content(), &mut open)?,
            Event::GeneralRef(reference) => add_text(context, line, &resolve(context, line, &reference)?, &mut open)?,
            Event::Comment(_) | Event::PI(_) => {
                if let Some(element) = open.last_mut() {
                    element.rest.get_or_insert_default();
                }
            }
            Event::Decl(declaration) => {
                let encoding = declaration.encoding().transpose().map_err(|e| context.error(line, e.to_string()))?;
                if encoding.is_some_and(|e| !e.eq_ignore_ascii_case("utf-8")) {
                    return Err(context.error(line, "the encoding must be UTF-8"));
                }
            }
            Event::DocType(_) => return Err(context.error(line, "document types are not supported")),
            Event::Eof => break,
        }
    }
    if let Some(element) = open.last() {
        return Err(context.error(element.line, format!("invalid XML: <{}> is not closed", element.name)));
    }
    root.ok_or_else(|| context.error(1, "invalid XML: no root element"))
}

fn element(context: &Context, line: usize, start: &BytesStart<'_>) -> Result<Element, DefinitionError> {
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|e| context.error(line, format!("invalid XML: {e}")))?;
        let value = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|e| context.error(line, format!("invalid XML: {e}")))?;
        if attribute.value.contains('<') {
            return Err(context.error(line, "invalid XML: unescaped < in an attribute"));
        }
        check_characters(context, line, &value)?;
        attributes.push((attribute.key.0.to_owned(), value.into_owned()));
    }
    Ok(Element {
        name: start.name().0.to_owned(),
        line,
        attributes,
        children: Vec::new(),
        text: String::new(),
        rest: None,
    })
}

/// Appends a complete element to its parent, or makes it the root; fails if there is a root already.
fn close(element: Element, open: &mut [Element], root: &mut Option<Element>) -> Result<(), ()> {
    match open.last_mut() {
        Some(parent) => parent.children.push(element),
        None if root.is_none() => *root = Some(element),
        None => return Err(()),
    }
    Ok(())
}

fn add_text(context: &Context, line: usize, text: &str, open: &mut [Element]) -> Result<(), DefinitionError> {
    check_characters(context, line, text)?;
    match open.last_mut() {
        Some(element) => element.rest.as_mut().unwrap_or(&mut element.text).push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err(context.error(line, "invalid XML: text outside the root element")),
    }
    Ok(())
}

fn check_characters(context: &Context, line: usize, text: &str) -> Result<(), DefinitionError> {
    let is_invalid = |c: &char| (*c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{fffe}' | '\u{ffff}');
    match text.chars().find(is_invalid) {
        Some(bad) => Err(context.error(line, format!("control character {} is not allowed", bad.escape_unicode()))),
        None => Ok(()),
    }
}

fn resolve(context: &Context, line: usize, reference: &BytesRef<'_>) -> Result<String, DefinitionError> {
    let character = reference.resolve_char_ref().map_err(|e| context.error(line, format!("invalid XML: {e}")))?;
    match (character, resolve_predefined_entity(reference)) {
        (Some(character), _) => Ok(character.to_string()),
        (None, Some(text)) => Ok(text.to_owned()),
        (None, None) => Err(context.error(line, format!("unknown entity &{};", &**reference))),
    }
}

impl Element {
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Rejects attributes other than those allowed.
    pub(crate) fn allow_attributes(&self, context: &Context, allowed: &[&str]) -> Result<(), DefinitionError> {
        match self.attributes.iter().find(|(name, _)| !allowed.contains(&name.as_str())) {
            Some((name, _)) => {
                Err(context.error(self.line, format!("<{}> does not take the attribute {name}", self.name)))
            }
            None => Ok(()),
        }
    }

    /// The unmodified text of an element without child elements. It may be empty: VyOS's generators treat an empty text
    /// and white space differently.
    pub(crate) fn text(&self, context: &Context) -> Result<&str, DefinitionError> {
        self.allow_attributes(context, &[])?;
        if let Some(child) = self.children.first() {
            return Err(
                context.error(child.line, format!("<{}> in <{}>, which takes only text", child.name, self.name))
            );
        }
        if self.has_text_behind_comment() {
            context.warn(self.line, format!("<{}> is used only up to the comment in it", self.name));
        }
        if self.text.trim().is_empty() {
            context.warn(self.line, format!("<{}> is empty", self.name));
        } else if self.text.trim().contains('\n') && !matches!(self.name.as_str(), "help" | "regex") {
            context.warn(self.line, format!("<{}> has line breaks, which break node.def", self.name));
        }
        Ok(&self.text)
    }

    fn has_text_behind_comment(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| !rest.trim().is_empty())
    }

    /// Like [`Self::text()`], but `None` for an empty text: Python prints that where VyOS's generators expect a text.
    pub(crate) fn text_or_none(&self, context: &Context) -> Result<String, DefinitionError> {
        let text = self.text(context)?;
        Ok(if text.is_empty() { "None" } else { text }.to_owned())
    }

    /// Rejects attributes and content.
    pub(crate) fn require_empty(&self, context: &Context) -> Result<(), DefinitionError> {
        self.allow_attributes(context, &[])?;
        if self.children.is_empty() && self.text.trim().is_empty() && !self.has_text_behind_comment() {
            return Ok(());
        }
        Err(context.error(self.line, format!("<{}> must be empty", self.name)))
    }

    /// The child elements; rejects text, and elements other than those allowed.
    pub(crate) fn children(&self, context: &Context, allowed: &[&str]) -> Result<&[Element], DefinitionError> {
        if !self.text.trim().is_empty() || self.has_text_behind_comment() {
            return Err(context.error(self.line, format!("unexpected text in <{}>", self.name)));
        }
        match self.children.iter().find(|c| !allowed.contains(&c.name.as_str())) {
            Some(child) => Err(context.error(child.line, format!("unexpected <{}> in <{}>", child.name, self.name))),
            None => Ok(&self.children),
        }
    }
}

/// The element with this name, if any; rejects a second one.
pub(crate) fn optional<'a>(
    context: &Context,
    elements: &'a [Element],
    name: &str,
) -> Result<Option<&'a Element>, DefinitionError> {
    let mut named = named(elements, name);
    let first = named.next();
    match named.next() {
        Some(second) => Err(context.error(second.line, format!("duplicate <{name}>"))),
        None => Ok(first),
    }
}

/// The elements with this name.
pub(crate) fn named<'a>(elements: &'a [Element], name: &str) -> impl Iterator<Item = &'a Element> {
    elements.iter().filter(move |e| e.name == name)
}
