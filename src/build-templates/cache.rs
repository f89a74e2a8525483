//! The cache of configuration nodes for `vyos.xml_ref`, as vyos-1x python/vyos/xml_ref/generate_cache.py writes it.

use std::fmt::Write;

use crate::config::{Kind, Node, Values};

/// The Python module: one dictionary with an entry for each node, those above ours included.
pub fn render(nodes: &[Node]) -> String {
    let mut out = String::from("reference = ");
    dictionary(&mut out, None, nodes, ", 'component_version': {}");
    out.push('\n');
    out
}

/// A node's dictionary; that of no node is the root's. VyOS lists the last child first.
fn dictionary(out: &mut String, node: Option<&Node>, children: &[Node], more: &str) {
    out.push_str("{'node_data': ");
    out.push_str(&node_data(node));
    for child in children.iter().rev() {
        // A name needs no escape.
        let _ = write!(out, ", '{}': ", child.name);
        let below: &[Node] = match &child.kind {
            Kind::Inner(children) | Kind::Tag(children) => children,
            Kind::Leaf(_) => &[],
        };
        dictionary(out, Some(child), below, "");
    }
    out.push_str(more);
    out.push('}');
}

fn node_data(node: Option<&Node>) -> String {
    let (kind, values) = match node.map(|n| &n.kind) {
        None | Some(Kind::Inner(_)) => ("other", Values::One),
        Some(Kind::Tag(_)) => ("tag", Values::One),
        Some(Kind::Leaf(values)) => ("leaf", *values),
    };
    let about = node.and_then(|n| n.about.as_ref());
    format!(
        "{{'node_type': '{kind}', 'multi': {}, 'valueless': {}, 'owner': {}, 'priority': {}, 'default_value': {}}}",
        boolean(values == Values::Many),
        boolean(values == Values::None),
        text(about.and_then(|a| a.owner.as_deref())),
        text(about.and_then(|a| a.priority).map(|p| p.to_string()).as_deref()),
        text(about.and_then(|a| a.default.as_deref())),
    )
}

fn boolean(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// A Python string, or `None`.
fn text(text: Option<&str>) -> String {
    let Some(text) = text else {
        return "None".to_owned();
    };
    // As Python's repr() chooses its quotes.
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        if c == quote || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push(quote);
    out
}
