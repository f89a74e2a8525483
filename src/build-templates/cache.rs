//! The cache of configuration nodes for `vyos.xml_ref`, in the format of vyos-1x
//! python/vyos/xml_ref/generate_cache.py.

use std::fmt::Write;

use crate::config::{Kind, Node, Values};

/// The Python module: nested dictionaries with an entry for each node, intermediate nodes included.
pub(crate) fn render(nodes: &[Node]) -> String {
    let mut out = String::from("reference = ");
    dictionary(&mut out, None, nodes, ", 'component_version': {}");
    out.push('\n');
    out
}

/// The dictionary of `node`, or of the root if there is none. VyOS lists the last child first.
fn dictionary(out: &mut String, node: Option<&Node>, children: &[Node], more: &str) {
    out.push_str("{'node_data': ");
    out.push_str(&node_data(node));
    for child in children.iter().rev() {
        // The characters of a NodeName need no escape.
        let _ = write!(out, ", '{}': ", child.name);
        let grandchildren: &[Node] = match &child.kind {
            Kind::Inner(children) | Kind::Tag(children) => children,
            Kind::Leaf(_) => &[],
        };
        dictionary(out, Some(child), grandchildren, "");
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
    let properties = node.and_then(|n| n.properties.as_ref());
    format!(
        "{{'node_type': '{kind}', 'multi': {}, 'valueless': {}, 'owner': {}, 'priority': {}, 'default_value': {}}}",
        boolean(values == Values::Many),
        boolean(values == Values::None),
        string(properties.and_then(|p| p.owner.as_deref())),
        string(properties.and_then(|p| p.priority).map(|p| p.to_string()).as_deref()),
        string(properties.and_then(|p| p.default.as_deref())),
    )
}

fn boolean(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// A Python string literal, or `None`.
fn string(text: Option<&str>) -> String {
    let Some(text) = text else {
        return "None".to_owned();
    };
    // The same quotes as Python's repr().
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
