//! `node.def` files of configuration nodes, in the format of vyos-1x scripts/build-command-templates.

use std::fmt::Write;
use std::path::Path;

use crate::completion::Completion;
use crate::config::{Checks, Constraint, Kind, Node, Properties, ValueHelp, Values};
use crate::node_def::NodeDefs;
use crate::output::Tree;
use crate::wrap::wrap;

const VALIDATOR_DIRECTORY: &str = "${vyos_validators_dir}";

/// The files of these nodes; with `owned_only`, only those of nodes with properties.
pub(crate) fn render(nodes: &[Node], owned_only: bool) -> Tree {
    let mut files = NodeDefs::default();
    add(&mut files, nodes, Path::new(""), owned_only);
    files.into_tree()
}

fn add(files: &mut NodeDefs, nodes: &[Node], directory: &Path, owned_only: bool) {
    for node in nodes {
        let directory = directory.join(node.name.as_str());
        if node.properties.is_some() || !owned_only {
            files.insert(&directory, node_def(node), &node.context, node.line);
        }
        match &node.kind {
            Kind::Inner(children) => add(files, children, &directory, owned_only),
            Kind::Tag(children) => add(files, children, &directory.join("node.tag"), owned_only),
            Kind::Leaf(_) => {}
        }
    }
}

/// The text of one file. VyOS reads fields in any order; this is the order of its generator.
fn node_def(node: &Node) -> String {
    let mut fields = match node.kind {
        Kind::Inner(_) | Kind::Leaf(Values::None) => "",
        Kind::Tag(_) => "tag:\ntype: txt\n",
        Kind::Leaf(Values::One) => "type: txt\n",
        Kind::Leaf(Values::Many) => "multi:\ntype: txt\n",
        Kind::Leaf(Values::NoneAndMany) => "multi:\n",
    }
    .to_owned();
    if let Some(properties) = &node.properties {
        // Writing to a string does not fail.
        let _ = write_properties(&mut fields, properties, matches!(node.kind, Kind::Tag(_)));
    }
    fields
}

fn write_properties(fields: &mut String, properties: &Properties, is_tag: bool) -> std::fmt::Result {
    if let Some(priority) = &properties.priority {
        writeln!(fields, "priority: {}", or_none(priority))?;
    }
    let default = properties.default.as_deref();
    // VyOS's generator drops the help together with an empty default.
    if let Some(help) = properties.help.as_ref().filter(|_| default != Some("")) {
        let default = default.map(|d| d.split_whitespace().collect::<Vec<_>>().join(", "));
        let default = default.map(|d| format!(" (default: {d})")).unwrap_or_default();
        writeln!(fields, "help: {}", wrap(&format!("{help}{default}")))?;
    }
    let is_default = |value: &ValueHelp| default == Some(value.format.as_str());
    // It also drops all of these if it cannot append to an empty description.
    if !properties.value_help.iter().any(|value| is_default(value) && value.description.is_empty()) {
        for value in &properties.value_help {
            let default = if is_default(value) { " (default)" } else { "" };
            writeln!(fields, "val_help: {}; {}{default}", or_none(&value.format), value.description)?;
        }
    }
    if let Some(completion) = &properties.completion {
        writeln!(fields, "allowed: {}", allowed(completion))?;
    }
    if let Some(constraint) = &properties.constraint {
        writeln!(fields, "syntax:expression: {}", expression(constraint))?;
    }
    if let Some(owner) = &properties.owner {
        let name = if is_tag { " VYOS_TAGNODE_VALUE='$VAR(@)'" } else { "" };
        writeln!(fields, "end: sudo sh -c \"${{vyshim}}{name} {owner}\"")?;
    }
    Ok(())
}

/// An empty text as Python prints it.
fn or_none(text: &str) -> &str {
    if text.is_empty() { "None" } else { text }
}

fn allowed(completion: &Completion) -> String {
    let lists = completion.lists.iter().map(|list| format!("echo \"{list}\""));
    let paths = completion.paths.iter().map(|path| format!("/bin/cli-shell-api listNodes {path}"));
    let scripts = completion.scripts.iter().map(|script| format!("sh -c \"{script}\""));
    lists.chain(paths).chain(scripts).collect::<Vec<_>>().join(" && echo \" \" && ")
}

fn expression(constraint: &Constraint) -> String {
    let groups: String = constraint.groups.iter().map(|group| format!(" --grp {}", options(group))).collect();
    // Without <constraint>, the separator of options() is missing as well.
    let checks = if constraint.checks == Checks::default() { String::new() } else { options(&constraint.checks) };
    let message = constraint.message.as_deref().unwrap_or("Invalid value");
    format!(r#"exec "${{vyos_libexec_dir}}/validate-value {checks} {groups} --value \'$VAR(@)\'"; "{message}""#)
}

/// The command-line options of validate-value (vyos-utils) for these checks.
fn options(checks: &Checks) -> String {
    let regexes = checks.regexes.iter().map(|regex| format!(r"--regex \'{}\'", regex.replace('\\', r"\\")));
    let validators = checks.validators.iter().map(|validator| {
        let directory = if validator.name.starts_with('/') { String::new() } else { format!("{VALIDATOR_DIRECTORY}/") };
        format!(r#"--exec \"{directory}{} {}\""#, validator.name, validator.argument)
    });
    let [regexes, validators] = [regexes.collect::<Vec<_>>(), validators.collect()].map(|list| list.join(" "));
    format!("{regexes} {validators}")
}
