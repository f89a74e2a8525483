//! Definitions of configuration nodes (vyos-1x schema/interface_definition.rng).

use std::path::{Path, PathBuf};

use crate::completion::Completion;
use crate::error::{Context, DefinitionError};
use crate::node_name::NodeName;
use crate::xml::{self, Element};

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) kind: Kind,
    /// `None` for an intermediate node that another package owns.
    pub(crate) properties: Option<Properties>,
    pub(crate) context: Context,
    pub(crate) line: usize,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Inner(Vec<Node>),
    Tag(Vec<Node>),
    Leaf(Values),
}

/// The number of values that a leaf accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    None,
    One,
    Many,
    /// Contradictory: both `valueless` and `multi`.
    NoneAndMany,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    /// The program that applies changes, with its arguments.
    pub(crate) owner: Option<String>,
    /// The order of owners in a commit, lowest first; set for every node with an owner.
    pub(crate) priority: Option<String>,
    pub(crate) help: Option<String>,
    pub(crate) value_help: Vec<ValueHelp>,
    pub(crate) completion: Option<Completion>,
    pub(crate) constraint: Option<Constraint>,
    /// Of a leaf without a value in the configuration. It may be empty.
    pub(crate) default: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ValueHelp {
    /// The value format, for example `ipv4` or `u32:1-30`; empty if the element is.
    pub(crate) format: String,
    pub(crate) description: String,
}

/// A value is valid if it passes one of `checks`, or all checks of one of `groups`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Constraint {
    pub(crate) checks: Checks,
    pub(crate) groups: Vec<Checks>,
    /// The error message for an invalid value.
    pub(crate) message: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Checks {
    /// Perl-compatible regular expressions that match the whole value.
    pub(crate) regexes: Vec<String>,
    pub(crate) validators: Vec<Validator>,
}

/// A program that checks a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Validator {
    /// A name in VyOS's validator directory, or an absolute path.
    pub(crate) name: String,
    /// Precedes the value on the command line.
    pub(crate) argument: String,
}

/// Reads files into one tree, with nodes in the order of the files. Nodes of the same name stay apart: VyOS's generators
/// differ in which one they use.
pub(crate) fn read(files: &[PathBuf]) -> Result<Vec<Node>, DefinitionError> {
    let mut tree = Vec::new();
    for file in files {
        read_file(file, &mut tree)?;
    }
    Ok(tree)
}

fn read_file(file: &Path, tree: &mut Vec<Node>) -> Result<(), DefinitionError> {
    let (context, root) = xml::read(file)?;
    if root.name != "interfaceDefinition" {
        return Err(
            context.error(root.line, format!("the root element must be <interfaceDefinition>, not <{}>", root.name))
        );
    }
    root.allow_attributes(&context, &[])?;
    for element in root.children(&context, &["node", "syntaxVersion"])? {
        if element.name == "syntaxVersion" {
            element.allow_attributes(&context, &["component", "version"])?;
            element.children(&context, &[])?;
            if element.attribute("component").is_none() || element.attribute("version").is_none() {
                let problem = "<syntaxVersion> needs the attributes component and version";
                return Err(context.error(element.line, problem));
            }
            context.warn(element.line, "<syntaxVersion> has no effect: an add-on has no migration scripts");
            continue;
        }
        tree.push(node(&context, element)?);
    }
    Ok(())
}

fn node(parent: &Context, element: &Element) -> Result<Node, DefinitionError> {
    element.allow_attributes(parent, &["name", "owner"])?;
    let (name, context) = NodeName::read(parent, element)?;
    let error = |problem: &str| context.error(element.line, problem);
    let is_leaf = element.name == "leafNode";
    let elements = element.children(
        &context,
        match element.name.as_str() {
            "node" => &["properties", "children"],
            "tagNode" => &["properties", "children", "defaultValue"],
            _ => &["properties", "defaultValue"],
        },
    )?;
    let declared = xml::optional(&context, elements, "properties")?;
    let default = xml::optional(&context, elements, "defaultValue")?;
    let default = default.map(|e| e.text(&context)).transpose()?.map(str::to_owned);
    let (values, mut properties) = match declared {
        Some(declared) => read_properties(&context, declared)?,
        None => (Values::One, Properties::default()),
    };
    let has_properties = declared.is_some() || default.is_some();
    properties.owner = owner(&context, element);
    if properties.owner.is_some() && properties.priority.is_none() {
        return Err(error("a node with an owner needs a <priority>"));
    }
    if matches!(values, Values::None | Values::NoneAndMany) && default.is_some() {
        context.warn(element.line, "<valueless/> and <defaultValue> exclude each other");
    }
    properties.default = default;
    let kind = if is_leaf {
        if declared.is_none() {
            return Err(error("<leafNode> needs <properties>"));
        }
        Kind::Leaf(values)
    } else {
        match values {
            Values::None | Values::NoneAndMany => return Err(error("<valueless/> is only allowed in <leafNode>")),
            Values::Many => return Err(error("<multi/> is only allowed in <leafNode>")),
            Values::One => {}
        }
        let children = xml::optional(&context, elements, "children")?;
        let children = match children {
            Some(children) => read_children(&context, children)?,
            None if element.name == "tagNode" => return Err(error("<tagNode> needs <children>")),
            None => {
                context.warn(element.line, "<node> without <children>: VyOS's own generators fail here");
                Vec::new()
            }
        };
        if element.name == "tagNode" { Kind::Tag(children) } else { Kind::Inner(children) }
    };
    Ok(Node { name, kind, properties: has_properties.then_some(properties), line: element.line, context })
}

fn owner(context: &Context, element: &Element) -> Option<String> {
    // VyOS's generators treat an empty owner as none.
    let owner = element.attribute("owner").filter(|owner| !owner.is_empty())?;
    let program = owner.split_whitespace().next().unwrap_or_default();
    // vyshim passes every owner to vyos-configd first, which supports only Python programs: any other name terminates
    // it, and the commit hangs.
    if !program.ends_with(".py") {
        let hangs = "a commit of VyOS 1.4 hangs, because it is not a Python program (NAME.py)";
        context.warn(element.line, format!("the owner {owner:?}: {hangs}"));
    }
    Some(owner.to_owned())
}

fn read_children(context: &Context, element: &Element) -> Result<Vec<Node>, DefinitionError> {
    element.allow_attributes(context, &[])?;
    let elements = element.children(context, &["node", "tagNode", "leafNode"])?;
    if elements.is_empty() {
        return Err(context.error(element.line, "<children> is empty"));
    }
    elements.iter().map(|child| node(context, child)).collect()
}

fn read_properties(context: &Context, element: &Element) -> Result<(Values, Properties), DefinitionError> {
    element.allow_attributes(context, &[])?;
    let properties = element.children(
        context,
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
            "keepChildOrder",
        ],
    )?;
    let flag = |name| match xml::optional(context, properties, name)? {
        Some(flag) => flag.require_empty(context).map(|()| true),
        None => Ok(false),
    };
    // VyOS's generators accept these and ignore them.
    for name in ["hidden", "secret", "keepChildOrder"] {
        if flag(name)? {
            context.warn(element.line, format!("<{name}/> has no effect"));
        }
    }
    let values = match (flag("valueless")?, flag("multi")?) {
        (false, false) => Values::One,
        (false, true) => Values::Many,
        (true, false) => Values::None,
        (true, true) => {
            context.warn(element.line, "<valueless/> and <multi/> exclude each other");
            Values::NoneAndMany
        }
    };
    let help = xml::optional(context, properties, "help")?.map(|e| e.text(context)).transpose()?;
    let properties = Properties {
        owner: None,
        priority: xml::optional(context, properties, "priority")?.map(|e| priority(context, e)).transpose()?,
        help: help.filter(|text| !text.is_empty()).map(str::to_owned),
        value_help: xml::named(properties, "valueHelp").map(|e| value_help(context, e)).collect::<Result<_, _>>()?,
        completion: Completion::read(context, properties)?,
        constraint: constraint(context, properties)?,
        default: None,
    };
    Ok((values, properties))
}

fn priority(context: &Context, element: &Element) -> Result<String, DefinitionError> {
    let text = element.text(context)?;
    if text.parse::<u16>().map(|number| number.to_string()).ok().as_deref() != Some(text) {
        context.warn(element.line, format!("the priority {text:?} is not a number from 0 to 65535"));
    }
    Ok(text.to_owned())
}

fn value_help(context: &Context, element: &Element) -> Result<ValueHelp, DefinitionError> {
    element.allow_attributes(context, &[])?;
    let parts = element.children(context, &["format", "description"])?;
    let part = |name| {
        let missing = || context.error(element.line, format!("<valueHelp> needs <{name}>"));
        xml::optional(context, parts, name)?.ok_or_else(missing)?.text(context).map(str::to_owned)
    };
    Ok(ValueHelp { format: part("format")?, description: part("description")? })
}

pub(crate) fn constraint(context: &Context, properties: &[Element]) -> Result<Option<Constraint>, DefinitionError> {
    let one = xml::optional(context, properties, "constraint")?;
    let groups: Vec<Checks> =
        xml::named(properties, "constraintGroup").map(|e| checks(context, e)).collect::<Result<_, _>>()?;
    let message = xml::optional(context, properties, "constraintErrorMessage")?;
    if one.is_none() && groups.is_empty() {
        return match message {
            Some(message) => {
                message.text(context)?;
                context.warn(message.line, "<constraintErrorMessage> has no effect without a constraint");
                Ok(None)
            }
            None => Ok(None),
        };
    }
    let checks = one.map(|e| checks(context, e)).transpose()?.unwrap_or_default();
    let message = message.map(|e| Ok(with_quotes(context, e, &e.text_or_none(context)?, &['"']))).transpose()?;
    Ok(Some(Constraint { checks, groups, message }))
}

fn checks(context: &Context, element: &Element) -> Result<Checks, DefinitionError> {
    element.allow_attributes(context, &[])?;
    let elements = element.children(context, &["regex", "validator"])?;
    if elements.is_empty() {
        return Err(context.error(element.line, format!("<{}> needs a <regex> or a <validator>", element.name)));
    }
    let regex = |e: &Element| Ok(with_quotes(context, e, e.text(context)?.trim(), &['\'', '"']));
    Ok(Checks {
        regexes: xml::named(elements, "regex").map(regex).collect::<Result<_, _>>()?,
        validators: xml::named(elements, "validator").map(|e| validator(context, e)).collect::<Result<_, _>>()?,
    })
}

fn validator(context: &Context, element: &Element) -> Result<Validator, DefinitionError> {
    element.allow_attributes(context, &["name", "argument"])?;
    element.children(context, &[])?;
    let name = element.attribute("name");
    let name = name.ok_or_else(|| context.error(element.line, "<validator> needs the attribute name"))?;
    let argument = element.attribute("argument").unwrap_or_default();
    Ok(Validator {
        name: with_quotes(context, element, name, &['\'', '"']),
        argument: with_quotes(context, element, argument, &['\'', '"']),
    })
}

/// Warns of the quotes that VyOS's generator puts around the text without escaping them.
fn with_quotes(context: &Context, element: &Element, text: &str, quotes: &[char]) -> String {
    if text.contains(quotes) {
        context.warn(element.line, format!("VyOS does not escape the quotes in <{}>: {text}", element.name));
    }
    text.to_owned()
}
