//! `node.def` files of configuration nodes, as vyos-1x scripts/build-command-templates writes them.

use std::fmt::Write;
use std::path::Path;

use crate::completion::Completion;
use crate::config::{About, Checks, Constraint, Kind, Node, Values};
use crate::fold::fold;
use crate::output::Tree;

/// Where VyOS keeps its validators.
const VALIDATORS: &str = "${vyos_validators_dir}";

/// The files of these nodes; with `owned_only`, those alone of which something is said.
pub fn render(nodes: &[Node], owned_only: bool) -> Tree {
    let mut tree = Tree::default();
    add(&mut tree, nodes, Path::new(""), owned_only);
    tree
}

fn add(tree: &mut Tree, nodes: &[Node], folder: &Path, owned_only: bool) {
    for node in nodes {
        let folder = folder.join(node.name.as_str());
        if node.about.is_some() || !owned_only {
            tree.insert(folder.join("node.def"), node_def(node));
        }
        match &node.kind {
            Kind::Inner(children) => add(tree, children, &folder, owned_only),
            Kind::Tag(children) => add(tree, children, &folder.join("node.tag"), owned_only),
            Kind::Leaf(_) => {}
        }
    }
}

/// The text of one file. VyOS reads its fields in any order; this is its generator's.
fn node_def(node: &Node) -> String {
    let mut fields = match node.kind {
        Kind::Inner(_) | Kind::Leaf(Values::None) => "",
        Kind::Tag(_) => "tag:\ntype: txt\n",
        Kind::Leaf(Values::One) => "type: txt\n",
        Kind::Leaf(Values::Many) => "multi:\ntype: txt\n",
    }
    .to_owned();
    if let Some(about) = &node.about {
        // Writing to a string does not fail.
        let _ = say(&mut fields, about, matches!(node.kind, Kind::Tag(_)));
    }
    fields
}

fn say(fields: &mut String, about: &About, is_tag: bool) -> std::fmt::Result {
    if let Some(priority) = about.priority {
        writeln!(fields, "priority: {priority}")?;
    }
    if let Some(help) = &about.help {
        let default = about.default.as_ref().map(|d| d.split_whitespace().collect::<Vec<_>>().join(", "));
        let default = default.map(|d| format!(" (default: {d})")).unwrap_or_default();
        writeln!(fields, "help: {}", fold(&format!("{help}{default}")))?;
    }
    for value in &about.value_help {
        let default = if about.default.as_ref() == Some(&value.format) { " (default)" } else { "" };
        writeln!(fields, "val_help: {}; {}{default}", value.format, value.description)?;
    }
    if let Some(completion) = &about.completion {
        writeln!(fields, "allowed: {}", allowed(completion))?;
    }
    if let Some(constraint) = &about.constraint {
        writeln!(fields, "syntax:expression: {}", expression(constraint))?;
    }
    if let Some(owner) = &about.owner {
        let name = if is_tag { " VYOS_TAGNODE_VALUE='$VAR(@)'" } else { "" };
        writeln!(fields, "end: sudo sh -c \"${{vyshim}}{name} {owner}\"")?;
    }
    Ok(())
}

fn allowed(completion: &Completion) -> String {
    let lists = completion.lists.iter().map(|list| format!("echo \"{list}\""));
    let paths = completion.paths.iter().map(|path| format!("/bin/cli-shell-api listNodes {path}"));
    let scripts = completion.scripts.iter().map(|script| format!("sh -c \"{script}\""));
    lists.chain(paths).chain(scripts).collect::<Vec<_>>().join(" && echo \" \" && ")
}

fn expression(constraint: &Constraint) -> String {
    let groups: String = constraint.groups.iter().map(|group| format!(" --grp {}", options(group))).collect();
    // Without a <constraint> there is not even the blank between its two halves.
    let checks = if constraint.checks == Checks::default() { String::new() } else { options(&constraint.checks) };
    let message = constraint.message.as_deref().unwrap_or("Invalid value");
    format!(r#"exec "${{vyos_libexec_dir}}/validate-value {checks} {groups} --value \'$VAR(@)\'"; "{message}""#)
}

/// The command-line options of validate-value (vyos-utils) for these checks.
fn options(checks: &Checks) -> String {
    let regexes = checks.regexes.iter().map(|regex| format!(r"--regex \'{}\'", regex.replace('\\', r"\\")));
    let validators = checks.validators.iter().map(|validator| {
        // An absolute path stands for itself.
        let folder = if validator.name.starts_with('/') { String::new() } else { format!("{VALIDATORS}/") };
        format!(r#"--exec \"{folder}{} {}\""#, validator.name, validator.argument)
    });
    let [regexes, validators] = [regexes.collect::<Vec<_>>(), validators.collect()].map(|list| list.join(" "));
    format!("{regexes} {validators}")
}
