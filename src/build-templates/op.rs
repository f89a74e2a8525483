//! Definitions of operational commands (vyos-1x schema/op-mode-definition.rng, with the constraints of vyos-1x PR 4758), and their `node.def` files in the
//! format of vyos-1x scripts/build-command-op-templates (branch sagitta).

use std::path::{Path, PathBuf};

use crate::completion::Completion;
use crate::config::{self, Constraint};
use crate::error::{Context, DefinitionError};
use crate::node_def::NodeDefs;
use crate::node_name::NodeName;
use crate::output::Tree;
use crate::wrap::wrap;
use crate::xml::{self, Element};

/// A word of a command, and the words that may follow it. Unlike in the configuration, siblings of different kinds may
/// have the same name: `show interfaces ethernet` and `show interfaces ethernet eth0` are two commands.
#[derive(Debug)]
pub(crate) struct OpNode {
    pub(crate) name: NodeName,
    pub(crate) kind: OpKind,
    pub(crate) context: Context,
    pub(crate) line: usize,
}

#[derive(Debug)]
pub(crate) enum OpKind {
    Inner {
        properties: Option<OpProperties>,
        command: Option<String>,
        children: Vec<OpNode>,
    },
    /// A word followed by a value, to which the command applies.
    Tag {
        properties: OpProperties,
        command: Option<String>,
        children: Vec<OpNode>,
    },
    Leaf {
        properties: OpProperties,
        command: String,
    },
}

#[derive(Debug)]
pub(crate) struct OpProperties {
    pub(crate) help: String,
    pub(crate) completion: Option<Completion>,
    /// Only vyos-op-run checks it, not the shell that reads `node.def` files.
    pub(crate) constraint: Option<Constraint>,
}

/// The help of a node without one.
pub(crate) const NO_HELP: &str = "No help available";

impl Default for OpProperties {
    fn default() -> Self {
        Self { help: NO_HELP.to_owned(), completion: None, constraint: None }
    }
}

pub(crate) fn read(files: &[PathBuf]) -> Result<Vec<OpNode>, DefinitionError> {
    let mut nodes = Vec::new();
    for file in files {
        let (context, root) = xml::read(file)?;
        if root.name != "interfaceDefinition" {
            return Err(context
                .error(root.line, format!("the root element must be <interfaceDefinition>, not <{}>", root.name)));
        }
        root.allow_attributes(&context, &[])?;
        for element in root.children(&context, &["node", "tagNode"])? {
            nodes.push(node(&context, element)?);
        }
    }
    Ok(nodes)
}

fn node(parent: &Context, element: &Element) -> Result<OpNode, DefinitionError> {
    element.allow_attributes(parent, &["name"])?;
    let (name, context) = NodeName::read(parent, element)?;
    let line = element.line;
    let error = |problem: &str| context.error(line, problem);
    let is_leaf = element.name == "leafNode";
    let allowed: &[&str] = if is_leaf { &["properties", "command"] } else { &["properties", "command", "children"] };
    let elements = element.children(&context, allowed)?;
    let properties = xml::optional(&context, elements, "properties")?.map(|e| properties(&context, e)).transpose()?;
    let command = xml::optional(&context, elements, "command")?;
    let command = command.map(|e| e.text_or_none(&context)).transpose()?;
    let children = xml::optional(&context, elements, "children")?;
    let children = children.map(|e| read_children(&context, e)).transpose()?.unwrap_or_default();
    let missing = |what| error(&format!("<{}> needs <{what}>", element.name));
    let kind = match element.name.as_str() {
        "node" => OpKind::Inner { properties, command, children },
        "tagNode" => {
            if properties.is_none() {
                context.warn(line, "<tagNode> without <properties>: VyOS's own generators fail here");
            }
            OpKind::Tag { properties: properties.unwrap_or_default(), command, children }
        }
        _ => OpKind::Leaf {
            properties: properties.ok_or_else(|| missing("properties"))?,
            command: command.ok_or_else(|| missing("command"))?,
        },
    };
    Ok(OpNode { name, kind, line, context })
}

fn read_children(context: &Context, element: &Element) -> Result<Vec<OpNode>, DefinitionError> {
    element.allow_attributes(context, &[])?;
    let elements = element.children(context, &["node", "tagNode", "leafNode"])?;
    if elements.is_empty() {
        return Err(context.error(element.line, "<children> is empty"));
    }
    elements.iter().map(|child| node(context, child)).collect()
}

fn properties(context: &Context, element: &Element) -> Result<OpProperties, DefinitionError> {
    element.allow_attributes(context, &[])?;
    let properties = element.children(context, &["help", "completionHelp", "constraint", "constraintErrorMessage"])?;
    let help = xml::optional(context, properties, "help")?.map(|e| e.text(context)).transpose()?;
    Ok(OpProperties {
        // VyOS's own generators fail at an empty one.
        help: help.filter(|text| !text.is_empty()).unwrap_or(NO_HELP).to_owned(),
        completion: Completion::read(context, properties)?,
        constraint: config::constraint(context, properties)?,
    })
}

/// The files of these nodes; with `owned_only`, only those of nodes with properties or a command.
pub(crate) fn render(nodes: &[OpNode], owned_only: bool) -> Tree {
    let mut files = Files { owned_only, ..Files::default() };
    files.add(nodes, Path::new(""));
    files.node_defs.fill_in(files.tag_words);
    files.node_defs.into_tree()
}

/// Siblings in the order of VyOS's generator of `node.def` files: of two with the same path, it uses the first.
pub(crate) fn in_order(nodes: &[OpNode]) -> Vec<&OpNode> {
    let mut nodes: Vec<&OpNode> = nodes.iter().collect();
    nodes.sort_by_key(|node| match node.kind {
        OpKind::Leaf { .. } => 0,
        OpKind::Inner { .. } => 1,
        OpKind::Tag { .. } => 2,
    });
    nodes
}

#[derive(Default)]
struct Files {
    owned_only: bool,
    node_defs: NodeDefs,
    /// The `node.def` of a tag node's own word; used only if no other node defines that word.
    tag_words: NodeDefs,
}

impl Files {
    fn add(&mut self, nodes: &[OpNode], directory: &Path) {
        for node in in_order(nodes) {
            let OpNode { context, line, .. } = node;
            let directory = directory.join(node.name.as_str());
            match &node.kind {
                OpKind::Inner { properties, command, children } => {
                    if properties.is_some() || command.is_some() || !self.owned_only {
                        let text = node_def(properties.as_ref(), command.as_deref());
                        self.node_defs.insert(&directory, text, context, *line);
                    }
                    self.add(children, &directory);
                }
                OpKind::Tag { properties, command, children } => {
                    // VyOS's generator does not wrap this text.
                    self.tag_words.insert(&directory, format!("help: {}\n", properties.help), context, *line);
                    let directory = directory.join("node.tag");
                    let text = node_def(Some(properties), command.as_deref());
                    self.node_defs.insert(&directory, text, context, *line);
                    self.add(children, &directory);
                }
                OpKind::Leaf { properties, command } => {
                    self.node_defs.insert(&directory, node_def(Some(properties), Some(command)), context, *line);
                }
            }
        }
    }
}

fn node_def(properties: Option<&OpProperties>, command: Option<&str>) -> String {
    let mut fields = String::new();
    if let Some(properties) = properties {
        fields += &format!("help: {}\n", wrap(&properties.help));
        if let Some(completion) = &properties.completion {
            fields += &format!("allowed: {}\n", allowed(completion));
        }
    }
    if let Some(command) = command {
        fields += &format!("run: {command}\n");
    }
    fields
}

fn allowed(completion: &Completion) -> String {
    let lists = completion.lists.iter().map(|list| format!("echo \"{list}\""));
    let paths = completion
        .paths
        .iter()
        .map(|path| format!("/bin/cli-shell-api listActiveNodes {path} | sed -e \"s/'//g\" && echo"));
    lists.chain(paths).chain(completion.scripts.iter().cloned()).collect::<Vec<_>>().join(" && ")
}
