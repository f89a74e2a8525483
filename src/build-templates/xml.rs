//! The elements of an XML file, each with its line.
//!
//! Definitions need elements, attributes and text alone. What else XML has (document types, entities of one's own,
//! processing instructions, other encodings than UTF-8) is refused.

use std::fs;

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

use crate::refusal::{At, Refusal};

/// No definition is nested deeper.
const DEEPEST: usize = 100;

/// An element.
#[derive(Debug)]
pub struct Element {
    /// Its name.
    pub name: String,
    /// The line that it begins in, from 1.
    pub line: usize,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
    text: String,
    has_comment: bool,
}

/// Reads a file, and gives its root element.
pub fn read(at: &At, file: &std::path::Path) -> Result<Element, Refusal> {
    parse(at, &fs::read_to_string(file).map_err(|e| at.unreadable(e))?)
}

/// Parses a text, and gives its root element.
pub fn parse(at: &At, text: &str) -> Result<Element, Refusal> {
    // A byte order mark is no text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
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
            Err(error) => return Err(at.refuse(line_of(reader.error_position()), format!("it is no XML: {error}"))),
        };
        // Only white space may stand outside the root element.
        let outside = || at.refuse(line, "it is no XML: there is something outside the root element");
        match event {
            Event::Start(start) => {
                if open.len() == DEEPEST {
                    return Err(at.refuse(line, format!("elements are nested more than {DEEPEST} deep")));
                }
                open.push(element(at, line, &start)?);
            }
            Event::Empty(start) => close(element(at, line, &start)?, &mut open, &mut root).map_err(|()| outside())?,
            Event::End(_) => {
                let element = open.pop().ok_or_else(outside)?;
                close(element, &mut open, &mut root).map_err(|()| outside())?;
            }
            Event::Text(text) => add(at, line, &text.xml10_content(), &mut open)?,
            Event::CData(text) => add(at, line, &text.xml10_content(), &mut open)?,
            Event::GeneralRef(reference) => add(at, line, &resolve(at, line, &reference)?, &mut open)?,
            Event::Comment(_) => {
                if let Some(element) = open.last_mut() {
                    element.has_comment = true;
                }
            }
            Event::Decl(declaration) => {
                let encoding = declaration.encoding().transpose().map_err(|e| at.refuse(line, e.to_string()))?;
                if encoding.is_some_and(|e| !e.eq_ignore_ascii_case("utf-8")) {
                    return Err(at.refuse(line, "its encoding is not UTF-8"));
                }
            }
            Event::PI(_) => return Err(at.refuse(line, "a definition has no processing instructions")),
            Event::DocType(_) => return Err(at.refuse(line, "a definition has no document type")),
            Event::Eof => break,
        }
    }
    if let Some(element) = open.last() {
        return Err(at.refuse(element.line, format!("it is no XML: <{}> is never closed", element.name)));
    }
    root.ok_or_else(|| at.refuse(1, "it is no XML: there is no element"))
}

fn element(at: &At, line: usize, start: &BytesStart<'_>) -> Result<Element, Refusal> {
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|e| at.refuse(line, format!("it is no XML: {e}")))?;
        let value = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|e| at.refuse(line, format!("it is no XML: {e}")))?;
        if attribute.value.contains('<') {
            return Err(at.refuse(line, "it is no XML: < in an attribute"));
        }
        characters(at, line, &value)?;
        attributes.push((attribute.key.0.to_owned(), value.into_owned()));
    }
    Ok(Element {
        name: start.name().0.to_owned(),
        line,
        attributes,
        children: Vec::new(),
        text: String::new(),
        has_comment: false,
    })
}

/// Puts a complete element where it belongs; there is one root.
fn close(element: Element, open: &mut [Element], root: &mut Option<Element>) -> Result<(), ()> {
    match open.last_mut() {
        Some(parent) => parent.children.push(element),
        None if root.is_none() => *root = Some(element),
        None => return Err(()),
    }
    Ok(())
}

fn add(at: &At, line: usize, text: &str, open: &mut [Element]) -> Result<(), Refusal> {
    characters(at, line, text)?;
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err(at.refuse(line, "it is no XML: there is text outside the root element")),
    }
    Ok(())
}

fn characters(at: &At, line: usize, text: &str) -> Result<(), Refusal> {
    match text.chars().find(|c| c.is_control() && !matches!(c, '\t' | '\n')) {
        Some(bad) => Err(at.refuse(line, format!("it holds the control character {}", bad.escape_unicode()))),
        None => Ok(()),
    }
}

fn resolve(at: &At, line: usize, reference: &BytesRef<'_>) -> Result<String, Refusal> {
    let character = reference.resolve_char_ref().map_err(|e| at.refuse(line, format!("it is no XML: {e}")))?;
    match (character, resolve_predefined_entity(reference)) {
        (Some(character), _) => Ok(character.to_string()),
        (None, Some(text)) => Ok(text.to_owned()),
        (None, None) => Err(at.refuse(line, format!("there is no entity &{};", &**reference))),
    }
}

impl Element {
    /// An attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Refuses every attribute but those.
    pub fn attributes_among(&self, at: &At, known: &[&str]) -> Result<(), Refusal> {
        match self.attributes.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => Err(at.refuse(self.line, format!("<{}> has no attribute {name}", self.name))),
            None => Ok(()),
        }
    }

    /// The text of an element that holds nothing else, as it stands there.
    pub fn text(&self, at: &At) -> Result<&str, Refusal> {
        self.attributes_among(at, &[])?;
        if let Some(child) = self.children.first() {
            return Err(at.refuse(child.line, format!("<{}> in <{}>, which holds text", child.name, self.name)));
        }
        // Each of VyOS's tools would take another part of the text.
        if self.has_comment {
            return Err(at.refuse(self.line, format!("there is a comment in <{}>: put it outside", self.name)));
        }
        if self.text.trim().is_empty() {
            return Err(at.refuse(self.line, format!("<{}> is empty", self.name)));
        }
        Ok(&self.text)
    }

    /// Like [`Self::text()`], of one line and without white space around it.
    pub fn word(&self, at: &At) -> Result<&str, Refusal> {
        let text = self.text(at)?;
        if text.trim() != text || text.contains(['\n', '\t']) {
            return Err(at.refuse(self.line, format!("there is white space around or a line break in <{}>", self.name)));
        }
        Ok(text)
    }

    /// Refuses content.
    pub fn empty(&self, at: &At) -> Result<(), Refusal> {
        self.attributes_among(at, &[])?;
        if self.children.is_empty() && self.text.is_empty() {
            return Ok(());
        }
        Err(at.refuse(self.line, format!("<{}> holds nothing", self.name)))
    }

    /// The elements in it. Refuses text, and other elements than those.
    pub fn children(&self, at: &At, known: &[&str]) -> Result<&[Element], Refusal> {
        if !self.text.trim().is_empty() {
            return Err(at.refuse(self.line, format!("there is text in <{}>", self.name)));
        }
        match self.children.iter().find(|c| !known.contains(&c.name.as_str())) {
            Some(child) => Err(at.refuse(child.line, format!("<{}> in <{}> is not known", child.name, self.name))),
            None => Ok(&self.children),
        }
    }
}

/// The element of that name; refuses a second one.
pub fn one<'a>(at: &At, elements: &'a [Element], name: &str) -> Result<Option<&'a Element>, Refusal> {
    let mut named = all(elements, name);
    let first = named.next();
    match named.next() {
        Some(second) => Err(at.refuse(second.line, format!("there is a second <{name}>"))),
        None => Ok(first),
    }
}

/// The elements of that name.
pub fn all<'a>(elements: &'a [Element], name: &str) -> impl Iterator<Item = &'a Element> {
    elements.iter().filter(move |e| e.name == name)
}
