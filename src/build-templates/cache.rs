//! The cache of configuration nodes for `vyos.xml_ref`, in the format of vyos-1x
//! python/vyos/xml_ref/generate_cache.py.

use std::fmt::Write;

use crate::config::{Kind, Node, Values};

/// The Python module: nested dictionaries with an entry for each node, intermediate nodes included.
pub(crate) fn render(nodes: &[Node]) -> String {
    let mut entries = Vec::new();
    insert(&mut entries, nodes);
    let mut out = String::from("reference = ");
    dictionary(&mut out, None, &entries, ", 'component_version': {}");
    out.push('\n');
    out
}

/// All nodes of one path.
struct Entry<'a> {
    node: &'a Node,
    children: Vec<Entry<'a>>,
}

/// Adds nodes to their siblings as VyOS's reference tree does: of several nodes with the same name, it uses the last one that
/// is not an intermediate node without properties, and adds the children of all.
fn insert<'a>(siblings: &mut Vec<Entry<'a>>, nodes: &'a [Node]) {
    for node in nodes {
        let children: &[Node] = match &node.kind {
            Kind::Inner(children) | Kind::Tag(children) => children,
            Kind::Leaf(_) => &[],
        };
        let at = siblings.iter().position(|entry| entry.node.name == node.name).unwrap_or_else(|| {
            siblings.push(Entry { node, children: Vec::new() });
            siblings.len() - 1
        });
        if let Some(entry) = siblings.get_mut(at) {
            if !is_trivial(node) {
                let other = entry.node;
                if !is_trivial(other) && node_data(Some(other)) != node_data(Some(node)) {
                    let other = other.context.location(other.line);
                    node.context.warn_of_difference(node.line, &other, "VyOS's cache has this one");
                }
                entry.node = node;
            }
            insert(&mut entry.children, children);
        }
    }
}

fn is_trivial(node: &Node) -> bool {
    matches!(node.kind, Kind::Inner(_)) && node.properties.is_none()
}

/// The dictionary of `node`, or of the root if there is none. VyOS lists the last child first.
fn dictionary(out: &mut String, node: Option<&Node>, children: &[Entry<'_>], more: &str) {
    out.push_str("{'node_data': ");
    out.push_str(&node_data(node));
    for child in children.iter().rev() {
        let _ = write!(out, ", {}: ", string(Some(child.node.name.as_str())));
        dictionary(out, Some(child.node), &child.children, "");
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
    let text = |text: Option<&String>| string(text.map(String::as_str).filter(|text| !text.is_empty()));
    format!(
        "{{'node_type': '{kind}', 'multi': {}, 'valueless': {}, 'owner': {}, 'priority': {}, 'default_value': {}}}",
        boolean(matches!(values, Values::Many | Values::NoneAndMany)),
        boolean(matches!(values, Values::None | Values::NoneAndMany)),
        text(properties.and_then(|p| p.owner.as_ref())),
        text(properties.and_then(|p| p.priority.as_ref())),
        text(properties.and_then(|p| p.default.as_ref())),
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
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => {
                if c == quote || c == '\\' {
                    out.push('\\');
                }
                out.push(c);
            }
        }
    }
    out.push(quote);
    out
}
