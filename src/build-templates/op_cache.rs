//! The commands that VyOS runs for operators, in the format of `/usr/share/vyos/op_cache.json` (vyos-1x
//! python/vyos/xml_ref/generate_op_cache.py and src/ocaml/vyos_op_run.ml, branch rolling).
//!
//! vyos-op-run replaces `{{TAG-tag_value}}` in a command by the argument of the node TAG, with `&`, `<`, `>` and quotes
//! written as HTML entities, and runs the result in a shell. Of several arguments it checks only the last one. So every
//! placeholder is in single quotes here; VyOS's own generator leaves it without quotes. They do not hold against what the
//! runner replaces afterwards (docs/internals/op-cache.md): its operators have to be trusted.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

use serde::Serialize;

use crate::completion::Completion;
use crate::config::{Constraint, Validator};
use crate::error::{DefinitionError, Location};
use crate::op::{Kind, Node};

/// Where VyOS has its validators.
const VALIDATORS: &str = "/usr/libexec/vyos/validators";

/// VyOS's directories that commands may name.
const DIRECTORIES: [(&str, &str); 3] = [
    ("${vyos_op_scripts_dir}", "/usr/libexec/vyos/op_mode"),
    ("${vyos_completion_dir}", "/usr/libexec/vyos/completion"),
    ("${vyos_libexec_dir}", "/usr/libexec/vyos"),
];

/// A node and the words that may follow it.
#[derive(Debug, Serialize)]
struct Entry {
    #[serde(rename = "__node_data")]
    data: NodeData,
    #[serde(flatten)]
    children: Entries,
    #[serde(skip)]
    place: Location,
}

type Entries = BTreeMap<String, Entry>;

#[derive(Debug, Serialize)]
struct NodeData {
    name: String,
    node_type: &'static str,
    help_text: Option<String>,
    comp_help: BTreeMap<&'static str, Vec<String>>,
    command: Option<String>,
    /// A tag node's command without an argument; the definitions here have none.
    standalone_help_text: Option<String>,
    standalone_command: Option<String>,
    constraints: Option<Constraints>,
    constraint_error_message: Option<String>,
    path: Vec<String>,
    files: Vec<String>,
    children: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Constraints {
    regexes: Vec<String>,
    /// Shell commands that get the argument as their last word.
    validators: Vec<String>,
}

/// The commands as JSON.
///
/// # Errors
/// Two nodes have the same path and are of different kinds, or a command has an argument that cannot be quoted.
pub(crate) fn render(nodes: &[Node]) -> Result<String, DefinitionError> {
    let mut entries = Entries::new();
    add(&mut entries, nodes, &[])?;
    let json = serde_json::to_string_pretty(&entries);
    Ok(json.unwrap_or_else(|error| panic!("strings are always JSON: {error}")) + "\n")
}

fn add(entries: &mut Entries, nodes: &[Node], above: &[String]) -> Result<(), DefinitionError> {
    for node in nodes {
        let new = data(node, above)?;
        let path = new.path.clone();
        let entry = match entries.entry(node.name.to_string()) {
            Slot::Vacant(vacant) => {
                let place = node.context.location(node.line);
                vacant.insert(Entry { data: new, children: Entries::new(), place })
            }
            Slot::Occupied(occupied) => {
                let entry = occupied.into_mut();
                merge(entry, new, node)?;
                entry
            }
        };
        let below = children(node);
        for child in below {
            let name = child.name.to_string();
            if !entry.data.children.contains(&name) {
                entry.data.children.push(name);
            }
        }
        add(&mut entry.children, below, &path)?;
    }
    Ok(())
}

/// Adds what a second definition of a node has. VyOS would let the first one win where they differ.
fn merge(entry: &mut Entry, new: NodeData, node: &Node) -> Result<(), DefinitionError> {
    let Entry { data: old, place, .. } = entry;
    let error = |problem: String| Err(node.context.error(node.line, problem));
    if old.node_type != new.node_type {
        return error(format!("{} and {} of the same name exclude each other", old.node_type, new.node_type));
    }
    let differs = |old: &Option<String>, new: &Option<String>| old.is_some() && new.is_some() && old != new;
    if differs(&old.help_text, &new.help_text) || differs(&old.command, &new.command) {
        return error(format!("its definition differs from that in {place}"));
    }
    old.help_text = old.help_text.take().or(new.help_text);
    old.command = old.command.take().or(new.command);
    if old.comp_help.is_empty() {
        old.comp_help = new.comp_help;
    }
    for file in new.files {
        if !old.files.contains(&file) {
            old.files.push(file);
        }
    }
    Ok(())
}

fn children(node: &Node) -> &[Node] {
    match &node.kind {
        Kind::Inner { children, .. } | Kind::Tag { children, .. } => children,
        Kind::Leaf { .. } => &[],
    }
}

fn data(node: &Node, above: &[String]) -> Result<NodeData, DefinitionError> {
    let (node_type, properties, run) = match &node.kind {
        Kind::Inner { properties, command, .. } => ("node", properties.as_ref(), command.as_ref()),
        Kind::Tag { properties, command, .. } => ("tagNode", Some(properties), command.as_ref()),
        Kind::Leaf { properties, command } => ("leafNode", Some(properties), Some(command)),
    };
    let mut path = above.to_vec();
    path.push(node.name.to_string());
    if node_type == "tagNode" {
        path.push(format!("{}-tag_value", node.name));
    }
    let command = run.map(|text| command(text, &path)).transpose();
    let command = command.map_err(|problem| node.context.error(node.line, problem))?;
    let constraint = properties.and_then(|p| p.constraint.as_ref());
    Ok(NodeData {
        name: node.name.to_string(),
        node_type,
        help_text: properties.map(|p| p.help.clone()),
        comp_help: properties.and_then(|p| p.completion.as_ref()).map(completion_help).unwrap_or_default(),
        command,
        standalone_help_text: None,
        standalone_command: None,
        constraints: constraint.map(constraints),
        constraint_error_message: constraint.and_then(|c| c.message.clone()),
        path,
        files: vec![file_name(node)],
        children: Vec::new(),
    })
}

/// The name of the definition file as VyOS notes it: without the suffix of a file that includes others.
fn file_name(node: &Node) -> String {
    let name = node.context.file().file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.strip_suffix(".in").map(str::to_owned).unwrap_or(name)
}

fn completion_help(completion: &Completion) -> BTreeMap<&'static str, Vec<String>> {
    let scripts = completion.scripts.iter().map(|script| with_directories(script)).collect();
    let sources = [("list", completion.lists.clone()), ("path", completion.paths.clone()), ("script", scripts)];
    sources.into_iter().filter(|(_, texts): &(_, Vec<String>)| !texts.is_empty()).collect()
}

fn constraints(constraint: &Constraint) -> Constraints {
    let command = |validator: &Validator| {
        let program = if validator.name.starts_with('/') {
            validator.name.clone()
        } else {
            format!("{VALIDATORS}/{}", validator.name)
        };
        format!("{program} {}", validator.argument).trim_end().to_owned()
    };
    Constraints {
        regexes: constraint.checks.regexes.clone(),
        validators: constraint.checks.validators.iter().map(command).collect(),
    }
}

fn with_directories(text: &str) -> String {
    DIRECTORIES.iter().fold(text.to_owned(), |text, (variable, directory)| text.replace(variable, directory))
}

/// The command with `"$4"` replaced by a quoted placeholder for the fourth word.
fn command(text: &str, path: &[String]) -> Result<String, String> {
    let text = with_directories(text);
    if text.contains("{{") || text.contains("}}") {
        return Err("<command> must not contain {{ or }}: vyos-op-run replaces what is in them".to_owned());
    }
    let mut command = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('$') {
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = after.split_at(digits);
        let (Some(before), Some(after)) = (before.strip_suffix('"'), after.strip_prefix('"')) else {
            return Err(format!("<command> may have $ only as \"$4\", the word with that number: {text}"));
        };
        let word = number.parse::<usize>().ok().and_then(|number| path.get(number.checked_sub(1)?));
        match word {
            Some(word) if word.ends_with("-tag_value") => command += &format!("{before}'{{{{{word}}}}}'"),
            _ => return Err(format!("\"${number}\" in <command> is not an argument of this node: {text}")),
        }
        rest = after;
    }
    Ok(command + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_quoted_placeholders_and_nothing_else_is_taken() {
        let path = ["force", "pause", "pause-tag_value", "minutes", "minutes-tag_value"].map(str::to_owned);
        for (text, expected) in [
            ("a b --c", "a b --c"),
            (r#"a -- "$3""#, "a -- '{{pause-tag_value}}'"),
            (r#"a --m="$5" -- "$3""#, "a --m='{{minutes-tag_value}}' -- '{{pause-tag_value}}'"),
            ("${vyos_op_scripts_dir}/a.py b", "/usr/libexec/vyos/op_mode/a.py b"),
        ] {
            assert_eq!(command(text, &path).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "a $3",
            "a ${3}",
            "a \"$3",
            "a \"$3-x\"",
            "a $HOME",
            "a \"$@\"",
            "a \"$2\"",
            "a \"$6\"",
            "a \"$0\"",
            "a {{b}}",
        ] {
            assert!(command(text, &path).is_err(), "{text}");
        }
    }
}
