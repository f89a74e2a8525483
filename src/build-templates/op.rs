//! Definitions of operational commands (vyos-1x schema/op-mode-definition.rng), and their `node.def` files, as vyos-1x
//! scripts/build-command-op-templates of branch sagitta writes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::completion::Completion;
use crate::fold::fold;
use crate::node_name::NodeName;
use crate::output::Tree;
use crate::refusal::{At, Refusal};
use crate::xml::{self, Element};

/// A word of a command, and what may follow it. Unlike in the configuration, several nodes of different kinds may have
/// one name: `show interfaces ethernet` is a command, and `show interfaces ethernet eth0` another one.
#[derive(Debug)]
pub struct Node {
    name: NodeName,
    kind: Kind,
    at: At,
    line: usize,
}

#[derive(Debug)]
enum Kind {
    /// A word.
    Inner { about: Option<About>, command: Option<String>, children: Vec<Node> },
    /// A word with a value behind it, which the command is for.
    Tag { about: About, command: Option<String>, children: Vec<Node> },
    /// The last word of a command.
    Leaf { about: About, command: String },
}

#[derive(Debug)]
struct About {
    help: String,
    completion: Option<Completion>,
}

/// Reads files, one after the other.
pub fn read(files: &[PathBuf]) -> Result<Vec<Node>, Refusal> {
    let mut nodes = Vec::new();
    for file in files {
        let at = At::root(file);
        let root = xml::read(&at, file)?;
        if root.name != "interfaceDefinition" {
            return Err(at.refuse(root.line, format!("<{}> is no <interfaceDefinition>", root.name)));
        }
        root.attributes_among(&at, &[])?;
        for element in root.children(&at, &["node", "tagNode"])? {
            nodes.push(node(&at, element)?);
        }
    }
    Ok(nodes)
}

fn node(above: &At, element: &Element) -> Result<Node, Refusal> {
    element.attributes_among(above, &["name"])?;
    let name = element.attribute("name");
    let name = name.ok_or_else(|| above.refuse(element.line, format!("<{}> has no name", element.name)))?;
    let at = above.below(name);
    let line = element.line;
    let refuse = |problem: &str| at.refuse(line, problem);
    let name = NodeName::new(name).map_err(refuse)?;
    let is_leaf = element.name == "leafNode";
    let known: &[&str] = if is_leaf { &["properties", "command"] } else { &["properties", "command", "children"] };
    let elements = element.children(&at, known)?;
    let about = xml::one(&at, elements, "properties")?.map(|e| properties(&at, e)).transpose()?;
    let command = xml::one(&at, elements, "command")?.map(|e| e.text(&at)).transpose()?.map(str::to_owned);
    let children = xml::one(&at, elements, "children")?.map(|e| read_children(&at, e)).transpose()?.unwrap_or_default();
    let missing = |what| refuse(&format!("<{}> has no <{what}>", element.name));
    let kind = match element.name.as_str() {
        "node" => Kind::Inner { about, command, children },
        "tagNode" => Kind::Tag { about: about.ok_or_else(|| missing("properties"))?, command, children },
        _ => Kind::Leaf {
            about: about.ok_or_else(|| missing("properties"))?,
            command: command.ok_or_else(|| missing("command"))?,
        },
    };
    Ok(Node { name, kind, line, at })
}

fn read_children(at: &At, element: &Element) -> Result<Vec<Node>, Refusal> {
    element.attributes_among(at, &[])?;
    let elements = element.children(at, &["node", "tagNode", "leafNode"])?;
    if elements.is_empty() {
        return Err(at.refuse(element.line, "<children> is empty"));
    }
    elements.iter().map(|child| node(at, child)).collect()
}

fn properties(at: &At, element: &Element) -> Result<About, Refusal> {
    element.attributes_among(at, &[])?;
    let properties = element.children(at, &["help", "completionHelp"])?;
    let help = xml::one(at, properties, "help")?.map(|e| e.text(at)).transpose()?;
    Ok(About { help: help.unwrap_or("No help available").to_owned(), completion: Completion::read(at, properties)? })
}

/// The files of these nodes; with `owned_only`, those alone that have properties or a command.
///
/// # Errors
/// [`Refusal::Content`]: two nodes say different things in one file. VyOS would take the first.
pub fn render(nodes: &[Node], owned_only: bool) -> Result<Tree, Refusal> {
    let mut files = Files { owned_only, ..Files::default() };
    files.add(nodes, Path::new(""))?;
    Ok(files.tree())
}

#[derive(Default)]
struct Files<'a> {
    owned_only: bool,
    said: BTreeMap<PathBuf, (String, &'a Node)>,
    /// What a word says of itself for the sake of the value behind it: it counts where no other node has that word.
    words: BTreeMap<PathBuf, (String, &'a Node)>,
}

impl<'a> Files<'a> {
    fn add(&mut self, nodes: &'a [Node], folder: &Path) -> Result<(), Refusal> {
        for node in nodes {
            let folder = folder.join(node.name.as_str());
            match &node.kind {
                Kind::Inner { about, command, children } => {
                    if about.is_some() || command.is_some() || !self.owned_only {
                        insert(&mut self.said, &folder, node_def(about.as_ref(), command.as_deref()), node)?;
                    }
                    self.add(children, &folder)?;
                }
                Kind::Tag { about, command, children } => {
                    // VyOS does not fold this one.
                    insert(&mut self.words, &folder, format!("help: {}\n", about.help), node)?;
                    let folder = folder.join("node.tag");
                    insert(&mut self.said, &folder, node_def(Some(about), command.as_deref()), node)?;
                    self.add(children, &folder)?;
                }
                Kind::Leaf { about, command } => {
                    insert(&mut self.said, &folder, node_def(Some(about), Some(command)), node)?;
                }
            }
        }
        Ok(())
    }

    fn tree(self) -> Tree {
        let mut texts = self.said;
        for (folder, word) in self.words {
            if texts.get(&folder).is_none_or(|(said, _)| said.is_empty()) {
                texts.insert(folder, word);
            }
        }
        let mut tree = Tree::default();
        for (folder, (text, _)) in texts {
            tree.insert(folder.join("node.def"), text);
        }
        tree
    }
}

/// An empty text is none: it gives way to any other one.
fn insert<'a>(
    files: &mut BTreeMap<PathBuf, (String, &'a Node)>,
    folder: &Path,
    text: String,
    node: &'a Node,
) -> Result<(), Refusal> {
    match files.get(folder) {
        Some((old, other)) if !old.is_empty() && !text.is_empty() && *old != text => {
            let there = other.at.place(other.line);
            Err(node.at.refuse(node.line, format!("other things are said of it than in {there}")))
        }
        Some((old, _)) if !old.is_empty() => Ok(()),
        _ => {
            files.insert(folder.to_owned(), (text, node));
            Ok(())
        }
    }
}

fn node_def(about: Option<&About>, command: Option<&str>) -> String {
    let mut fields = String::new();
    if let Some(about) = about {
        fields += &format!("help: {}\n", fold(&about.help));
        if let Some(completion) = &about.completion {
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
