//! The commands that VyOS runs for operators, in the format of `/usr/share/vyos/op_cache.json` (vyos-1x
//! python/vyos/xml_ref/generate_op_cache.py and src/ocaml/vyos_op_run.ml, branch rolling).
//!
//! vyos-op-run replaces `{{TAG-tag_value}}` in a command by the argument of the node TAG, with `&`, `<`, `>` and quotes
//! written as HTML entities, and runs the result in a shell. Of several arguments it checks only the last one. So every
//! placeholder is in single quotes here; VyOS's own generator does not quote it. The quotes do not protect against later
//! replacements by the runner (docs/internals/op-cache.md): its operators must be trusted.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::completion::Completion;
use crate::config::{Constraint, Validator};
use crate::error::DefinitionError;
use crate::op::{self, OpKind, OpNode};

/// VyOS's directory of validators.
const VALIDATORS: &str = "/usr/libexec/vyos/validators";

/// Variables for VyOS's directories that commands may contain.
const DIRECTORIES: [(&str, &str); 3] = [
    ("${vyos_op_scripts_dir}", "/usr/libexec/vyos/op_mode"),
    ("${vyos_completion_dir}", "/usr/libexec/vyos/completion"),
    ("${vyos_libexec_dir}", "/usr/libexec/vyos"),
];

/// The key of a word's argument, if the word may also be used without one.
const VIRTUAL_TAG: &str = "__virtual_tag";

/// A node and the words that may follow it.
#[derive(Debug, Serialize)]
struct OpEntry {
    #[serde(rename = "__node_data")]
    data: NodeData,
    #[serde(flatten)]
    children: Entries,
}

type Entries = BTreeMap<String, OpEntry>;

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

#[derive(Debug, PartialEq, Serialize)]
struct Constraints {
    regexes: Vec<String>,
    /// Shell commands that get the argument as their last word.
    validators: Vec<String>,
}

/// The commands as JSON.
///
/// # Errors
/// A command has an argument that cannot be quoted.
pub(crate) fn render(nodes: &[OpNode]) -> Result<String, DefinitionError> {
    let json = serde_json::to_string_pretty(&entries(&op::in_order(nodes), &[])?);
    Ok(json.unwrap_or_else(|error| panic!("strings are always JSON: {error}")) + "\n")
}

/// The entries of siblings. VyOS has one for each word, and its own generator fails at a tag node and another node of the same
/// name; the runner has `__virtual_tag` for that (vyos-1x, `<virtualTagNode>`).
fn entries(nodes: &[&OpNode], above: &[String]) -> Result<Entries, DefinitionError> {
    let mut words: BTreeMap<&str, [Vec<&OpNode>; 2]> = BTreeMap::new();
    for node in nodes {
        let [words, tags] = words.entry(node.name.as_str()).or_default();
        if matches!(node.kind, OpKind::Tag { .. }) { tags } else { words }.push(node);
    }
    let mut entries = Entries::new();
    for (name, [word, tag]) in words {
        let entry = match (entry(&word, above)?, entry(&tag, above)?) {
            (Some(mut word), Some(mut tag)) => {
                if let Some(node) = nodes.iter().find(|node| node.name.as_str() == name) {
                    node.context
                        .warn(node.line, "a tag node and another node of this name: VyOS's own generator fails here");
                }
                word.data.node_type = "node";
                word.data.children.push(VIRTUAL_TAG.to_owned());
                tag.data.node_type = "virtualTagNode";
                tag.data.name = VIRTUAL_TAG.to_owned();
                word.children.insert(VIRTUAL_TAG.to_owned(), tag);
                Some(word)
            }
            (word, tag) => word.or(tag),
        };
        entries.extend(entry.map(|entry| (name.to_owned(), entry)));
    }
    Ok(entries)
}

/// The entry of all definitions of one word; `None` without definitions.
fn entry(definitions: &[&OpNode], above: &[String]) -> Result<Option<OpEntry>, DefinitionError> {
    let Some((first, others)) = definitions.split_first() else { return Ok(None) };
    let mut data = data(first, above)?;
    for node in others {
        data.merge(self::data(node, above)?, first, node);
    }
    let mut below = Vec::new();
    for node in definitions {
        below.extend(op::in_order(children(node)));
        for child in children(node) {
            let name = child.name.to_string();
            if !data.children.contains(&name) {
                data.children.push(name);
            }
        }
    }
    Ok(Some(OpEntry { children: entries(&below, &data.path)?, data }))
}

impl NodeData {
    /// Adds the parts that only another definition of the node has. VyOS uses only the first definition.
    fn merge(&mut self, other: Self, first: &OpNode, node: &OpNode) {
        let is_same = [
            fill_in(&mut self.help_text, other.help_text),
            fill_in(&mut self.command, other.command),
            self.comp_help.is_empty() || other.comp_help.is_empty() || self.comp_help == other.comp_help,
            // The message belongs to the constraints.
            self.constraints.is_none()
                || other.constraints.is_none()
                || (&self.constraints, &self.constraint_error_message)
                    == (&other.constraints, &other.constraint_error_message),
        ];
        if is_same.contains(&false) || self.node_type != other.node_type {
            let place = first.context.location(first.line);
            node.context.warn_of_difference(node.line, &place, "VyOS's op_cache.json has the other one");
        }
        if self.node_type != other.node_type {
            self.node_type = "node";
        }
        if self.comp_help.is_empty() {
            self.comp_help = other.comp_help;
        }
        if self.constraints.is_none() {
            self.constraints = other.constraints;
            self.constraint_error_message = other.constraint_error_message;
        }
        for file in other.files {
            if !self.files.contains(&file) {
                self.files.push(file);
            }
        }
    }
}

/// Sets a value that is missing. Returns whether the two values agree if both are set.
fn fill_in(old: &mut Option<String>, new: Option<String>) -> bool {
    match (&old, &new) {
        (Some(old), Some(new)) => old == new,
        _ => {
            *old = old.take().or(new);
            true
        }
    }
}

fn children(node: &OpNode) -> &[OpNode] {
    match &node.kind {
        OpKind::Inner { children, .. } | OpKind::Tag { children, .. } => children,
        OpKind::Leaf { .. } => &[],
    }
}

fn data(node: &OpNode, above: &[String]) -> Result<NodeData, DefinitionError> {
    let (node_type, properties, run) = match &node.kind {
        OpKind::Inner { properties, command, .. } => ("node", properties.as_ref(), command.as_ref()),
        OpKind::Tag { properties, command, .. } => ("tagNode", Some(properties), command.as_ref()),
        OpKind::Leaf { properties, command } => ("leafNode", Some(properties), Some(command)),
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
        help_text: properties.map(|p| p.help.clone()).filter(|help| help != op::NO_HELP),
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

/// The name of the definition file as in VyOS's cache: without the suffix of a file that includes others.
fn file_name(node: &OpNode) -> String {
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

/// The characters that quote text in a shell or begin a comment: next to them the quotes of a placeholder have no effect.
const QUOTES: [char; 5] = ['\'', '"', '\\', '`', '#'];

/// The command with `"$4"` replaced by a quoted placeholder for the fourth word.
fn command(text: &str, path: &[String]) -> Result<String, String> {
    let text = with_directories(text);
    if text.contains("{{") || text.contains("}}") {
        return Err("<command> must not contain {{ or }}: vyos-op-run replaces the text between them".to_owned());
    }
    let mut command = String::new();
    let mut rest = text.as_str();
    let mut is_plain = true;
    while let Some((before, after)) = rest.split_once('$') {
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = after.split_at(digits);
        let (Some(before), Some(after)) = (before.strip_suffix('"'), after.strip_prefix('"')) else {
            return Err(format!("<command> may contain $ only in \"$4\", the word with that number: {text}"));
        };
        is_plain &= !before.contains(QUOTES);
        let word = number.parse::<usize>().ok().and_then(|number| path.get(number.checked_sub(1)?));
        match word {
            Some(word) if word.ends_with("-tag_value") => command += &format!("{before}'{{{{{word}}}}}'"),
            _ => return Err(format!("\"${number}\" in <command> is not an argument of this node: {text}")),
        }
        rest = after;
    }
    if rest.len() != text.len() && (!is_plain || rest.contains(QUOTES)) {
        return Err(format!("<command> with an argument must not have ' \" \\ ` or # beside it: {text}"));
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
            ("a 'b' \"c\" # d", "a 'b' \"c\" # d"),
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
            // Inside other quotes, the placeholder's quotes end them.
            "a 'b \"$3\"'",
            "a \"b\"$3\"c\"",
            "a \"$3\" 'b'",
            "a \\\"$3\"",
            "a `b \"$3\"`",
            "a # \"$3\"",
        ] {
            assert!(command(text, &path).is_err(), "{text}");
        }
    }
}
