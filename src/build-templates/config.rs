//! Definitions of configuration nodes (vyos-1x schema/interface_definition.rng).

use std::path::{Path, PathBuf};

use crate::completion::Completion;
use crate::node_name::NodeName;
use crate::refusal::{At, Refusal};
use crate::xml::{self, Element};

/// A node, and what is below it.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// What kind of node it is.
    pub kind: Kind,
    /// What is said of it; nothing for a node that only leads to others, and is another package's.
    pub about: Option<About>,
    at: At,
    line: usize,
}

/// The kinds of nodes.
#[derive(Debug)]
pub enum Kind {
    /// It has nodes below it.
    Inner(Vec<Node>),
    /// It has names below it, and each of these has nodes below it.
    Tag(Vec<Node>),
    /// It has nothing below it but values.
    Leaf(Values),
}

/// How many values a leaf takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// None: to be there is all it can say.
    None,
    /// One.
    One,
    /// Any number.
    Many,
}

/// What is said of a node.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The program that takes over changes, and its turn among others.
    pub owner: Option<String>,
    /// The turn among others, lower is earlier; there with each owner.
    pub priority: Option<u16>,
    /// A line for the operator.
    pub help: Option<String>,
    /// Forms of a value, each with a line for the operator.
    pub value_help: Vec<ValueHelp>,
    /// What VyOS offers.
    pub completion: Option<Completion>,
    /// What a value must be.
    pub constraint: Option<Constraint>,
    /// The value of a node that is not set.
    pub default: Option<String>,
}

/// A form of a value.
#[derive(Debug, PartialEq, Eq)]
pub struct ValueHelp {
    /// The form, `ipv4` or `u32:1-30`.
    pub format: String,
    /// A line for the operator, which may be empty.
    pub description: String,
}

/// What a value must be: one of `checks`, or all of one of `groups`.
#[derive(Debug, PartialEq, Eq)]
pub struct Constraint {
    /// Of which one is enough.
    pub checks: Checks,
    /// Of which one is enough, as a whole.
    pub groups: Vec<Checks>,
    /// What the operator is told of another value.
    pub message: Option<String>,
}

/// Checks of a value.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Perl-compatible regular expressions of the whole value.
    pub regexes: Vec<String>,
    /// Programs.
    pub validators: Vec<Validator>,
}

/// A program that checks a value.
#[derive(Debug, PartialEq, Eq)]
pub struct Validator {
    /// Its name in VyOS's folder of them, or its path.
    pub name: String,
    /// What stands before the value on its command line.
    pub argument: String,
}

/// Reads files as one tree, with nodes in the order of the files.
pub fn read(files: &[PathBuf]) -> Result<Vec<Node>, Refusal> {
    let mut tree = Vec::new();
    for file in files {
        read_file(file, &mut tree)?;
    }
    Ok(tree)
}

fn read_file(file: &Path, tree: &mut Vec<Node>) -> Result<(), Refusal> {
    let at = At::root(file);
    let root = xml::read(&at, file)?;
    if root.name != "interfaceDefinition" {
        return Err(at.refuse(root.line, format!("<{}> is no <interfaceDefinition>", root.name)));
    }
    root.attributes_among(&at, &[])?;
    for element in root.children(&at, &["node", "syntaxVersion"])? {
        if element.name == "syntaxVersion" {
            return Err(at.refuse(
                element.line,
                "a syntax version is of a component of vyos-1x, which brings the migration; an add-on has none",
            ));
        }
        add(tree, node(&at, element)?)?;
    }
    Ok(())
}

/// Adds a node to its siblings. One that is there already is the same node: what is said of it is said once, or again in
/// the same words.
fn add(siblings: &mut Vec<Node>, new: Node) -> Result<(), Refusal> {
    let Some(old) = siblings.iter_mut().find(|old| old.name == new.name) else {
        siblings.push(new);
        return Ok(());
    };
    let differs = |what| Err(new.at.refuse(new.line, format!("{what} than in {}", old.at.place(old.line))));
    if new.about.is_some() && old.about.is_some() && new.about != old.about {
        return differs("other things are said of it");
    }
    let (into, children) = match (&mut old.kind, new.kind) {
        (Kind::Inner(old), Kind::Inner(new)) | (Kind::Tag(old), Kind::Tag(new)) => (old, new),
        (Kind::Leaf(old), Kind::Leaf(new)) if *old == new => return Ok(()),
        _ => return differs("it is a node of another kind"),
    };
    old.about = old.about.take().or(new.about);
    children.into_iter().try_for_each(|child| add(into, child))
}

fn node(above: &At, element: &Element) -> Result<Node, Refusal> {
    element.attributes_among(above, &["name", "owner"])?;
    let name = element.attribute("name");
    let name = name.ok_or_else(|| above.refuse(element.line, format!("<{}> has no name", element.name)))?;
    let at = above.below(name);
    let refuse = |problem: &str| at.refuse(element.line, problem);
    let name = NodeName::new(name).map_err(refuse)?;
    let is_leaf = element.name == "leafNode";
    let elements = element.children(
        &at,
        match element.name.as_str() {
            "node" => &["properties", "children"],
            "tagNode" => &["properties", "children", "defaultValue"],
            _ => &["properties", "defaultValue"],
        },
    )?;
    let properties = xml::one(&at, elements, "properties")?;
    let default = xml::one(&at, elements, "defaultValue")?.map(|e| e.word(&at)).transpose()?.map(str::to_owned);
    let (values, mut about) = match properties {
        Some(properties) => read_properties(&at, properties)?,
        None => (Values::One, About::default()),
    };
    let is_said = properties.is_some() || default.is_some();
    about.owner = owner(&at, element)?;
    if about.owner.is_some() && about.priority.is_none() {
        return Err(refuse("it has an owner, which needs a <priority>"));
    }
    if values == Values::None && default.is_some() {
        return Err(refuse("it is <valueless/>, and has a <defaultValue>"));
    }
    about.default = default;
    let kind = if is_leaf {
        if properties.is_none() {
            return Err(refuse("<leafNode> has no <properties>"));
        }
        Kind::Leaf(values)
    } else {
        match values {
            Values::None => return Err(refuse("<valueless/> is for <leafNode> alone")),
            Values::Many => return Err(refuse("<multi/> is for <leafNode> alone")),
            Values::One => {}
        }
        let children = xml::one(&at, elements, "children")?;
        let children = children.ok_or_else(|| refuse(&format!("<{}> has no <children>", element.name)))?;
        let children = read_children(&at, children)?;
        if element.name == "tagNode" { Kind::Tag(children) } else { Kind::Inner(children) }
    };
    Ok(Node { name, kind, about: is_said.then_some(about), line: element.line, at })
}

fn owner(at: &At, element: &Element) -> Result<Option<String>, Refusal> {
    let Some(owner) = element.attribute("owner") else {
        return Ok(None);
    };
    let program = owner.split_whitespace().next().unwrap_or_default();
    // vyos-configd, which is asked first, takes such names alone: another one ends it, and the commit hangs.
    if !program.ends_with(".py") {
        return Err(at.refuse(element.line, format!("its owner {owner:?} is no Python program, NAME.py")));
    }
    Ok(Some(owner.to_owned()))
}

fn read_children(at: &At, element: &Element) -> Result<Vec<Node>, Refusal> {
    element.attributes_among(at, &[])?;
    let elements = element.children(at, &["node", "tagNode", "leafNode"])?;
    if elements.is_empty() {
        return Err(at.refuse(element.line, "<children> is empty"));
    }
    let mut children = Vec::new();
    elements.iter().try_for_each(|child| add(&mut children, node(at, child)?))?;
    Ok(children)
}

fn read_properties(at: &At, element: &Element) -> Result<(Values, About), Refusal> {
    element.attributes_among(at, &[])?;
    let properties = element.children(
        at,
        &[
            "help",
            "constraint",
            "constraintGroup",
            "valueHelp",
            "constraintErrorMessage",
            "completionHelp",
            "valueless",
            "multi",
            "hidden",
            "secret",
            "priority",
        ],
    )?;
    let flag = |name| match xml::one(at, properties, name)? {
        Some(flag) => flag.empty(at).map(|()| true),
        None => Ok(false),
    };
    // VyOS's generators take these two, and make nothing of them.
    flag("hidden")?;
    flag("secret")?;
    let values = match (flag("valueless")?, flag("multi")?) {
        (false, false) => Values::One,
        (false, true) => Values::Many,
        (true, false) => Values::None,
        (true, true) => return Err(at.refuse(element.line, "it is <valueless/> and <multi/> at once")),
    };
    let text = |name| -> Result<Option<String>, Refusal> {
        Ok(xml::one(at, properties, name)?.map(|e| e.text(at)).transpose()?.map(str::to_owned))
    };
    let about = About {
        owner: None,
        priority: xml::one(at, properties, "priority")?.map(|e| priority(at, e)).transpose()?,
        help: text("help")?,
        value_help: xml::all(properties, "valueHelp").map(|e| value_help(at, e)).collect::<Result<_, _>>()?,
        completion: Completion::read(at, properties)?,
        constraint: constraint(at, properties)?,
        default: None,
    };
    Ok((values, about))
}

fn priority(at: &At, element: &Element) -> Result<u16, Refusal> {
    let text = element.word(at)?;
    let number = text.parse().ok().filter(|n: &u16| n.to_string() == text);
    number.ok_or_else(|| at.refuse(element.line, format!("the priority {text:?} is no number from 0 to 65535")))
}

fn value_help(at: &At, element: &Element) -> Result<ValueHelp, Refusal> {
    element.attributes_among(at, &[])?;
    let parts = element.children(at, &["format", "description"])?;
    let part = |name| {
        let missing = || at.refuse(element.line, format!("<valueHelp> has no <{name}>"));
        xml::one(at, parts, name)?.ok_or_else(missing)?.text(at).map(str::to_owned)
    };
    Ok(ValueHelp { format: part("format")?, description: part("description")? })
}

fn constraint(at: &At, properties: &[Element]) -> Result<Option<Constraint>, Refusal> {
    let one = xml::one(at, properties, "constraint")?;
    let groups: Vec<Checks> =
        xml::all(properties, "constraintGroup").map(|e| checks(at, e)).collect::<Result<_, _>>()?;
    let message = xml::one(at, properties, "constraintErrorMessage")?;
    if one.is_none() && groups.is_empty() {
        return match message {
            Some(message) => Err(at.refuse(message.line, "there is a <constraintErrorMessage> without a constraint")),
            None => Ok(None),
        };
    }
    let checks = one.map(|e| checks(at, e)).transpose()?.unwrap_or_default();
    let message = message.map(|e| unquoted(at, e, e.text(at)?, &['"'])).transpose()?;
    Ok(Some(Constraint { checks, groups, message }))
}

fn checks(at: &At, element: &Element) -> Result<Checks, Refusal> {
    element.attributes_among(at, &[])?;
    let elements = element.children(at, &["regex", "validator"])?;
    if elements.is_empty() {
        return Err(at.refuse(element.line, format!("<{}> checks nothing", element.name)));
    }
    let regex = |e: &Element| unquoted(at, e, e.text(at)?.trim(), &['\'', '"']);
    Ok(Checks {
        regexes: xml::all(elements, "regex").map(regex).collect::<Result<_, _>>()?,
        validators: xml::all(elements, "validator").map(|e| validator(at, e)).collect::<Result<_, _>>()?,
    })
}

fn validator(at: &At, element: &Element) -> Result<Validator, Refusal> {
    element.attributes_among(at, &["name", "argument"])?;
    element.children(at, &[])?;
    let name = element.attribute("name").filter(|name| !name.trim().is_empty());
    let name = name.ok_or_else(|| at.refuse(element.line, "<validator> has no name"))?;
    let argument = element.attribute("argument").unwrap_or_default();
    Ok(Validator {
        name: unquoted(at, element, name, &['\'', '"'])?,
        argument: unquoted(at, element, argument, &['\'', '"'])?,
    })
}

/// Refuses the quotes that VyOS's generator puts around the text, and does not escape in it.
fn unquoted(at: &At, element: &Element, text: &str, quotes: &[char]) -> Result<String, Refusal> {
    if text.contains(quotes) {
        return Err(at.refuse(element.line, format!("<{}> holds a quote, which would end it: {text}", element.name)));
    }
    Ok(text.to_owned())
}
