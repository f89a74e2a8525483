//! What the owner script hands to `commit` on standard input.
//!
//! `{"format":1,"boot":bool,"proposed":{"vrrp":…},"effective":{"vrrp":…},"interface-addresses":{"eth0":["10.99.0.1/24"]}}`.
//! Both trees are what VyOS's `get_config_dict` gives for `high-availability` (vyos-1x python/vyos/config.py): a node is an
//! object, a node without a value an empty one, a leaf a string, a leaf with several values a list of strings.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;
use serde_json::{Map, Value};

/// No configuration comes near this size, in bytes.
const LARGEST: u64 = 16 << 20;

/// Standard input does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It could not be read.
    #[error("cannot read standard input: {0}")]
    Read(#[source] std::io::Error),
    /// It is too long.
    #[error("standard input is longer than {LARGEST} bytes: it is no configuration")]
    TooLong,
    /// It is no JSON, or not of this shape.
    #[error(
        "standard input is not what the owner script hands over: {0}; are the script and vyos-aws-vipa of one package?"
    )]
    Shape(#[source] serde_json::Error),
    /// Another version's.
    #[error(
        "standard input has format {0}, and this version of vyos-aws-vipa takes 1: install the script's package whole"
    )]
    Format(u64),
}

/// What the owner hands over.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Input {
    format: u64,
    /// Whether the system is loading its boot configuration.
    pub boot: bool,
    /// The configuration that is to be.
    pub proposed: Tree,
    /// The configuration that was.
    pub effective: Tree,
    /// The addresses with prefix lengths that each configured interface has, outside VRRP.
    pub interface_addresses: BTreeMap<String, Vec<String>>,
}

/// A tree below `high-availability`; without VRRP, an empty one.
#[derive(Debug, Default, Deserialize)]
pub struct Tree {
    #[serde(default)]
    vrrp: Map<String, Value>,
}

impl Input {
    /// Reads it.
    ///
    /// # Errors
    /// [`InputError`].
    pub fn read(from: &mut impl Read) -> Result<Self, InputError> {
        let mut bytes = Vec::new();
        from.take(LARGEST + 1).read_to_end(&mut bytes).map_err(InputError::Read)?;
        if bytes.len() as u64 > LARGEST {
            return Err(InputError::TooLong);
        }
        let input: Self = serde_json::from_slice(&bytes).map_err(InputError::Shape)?;
        match input.format {
            1 => Ok(input),
            other => Err(InputError::Format(other)),
        }
    }
}

impl Tree {
    /// `high-availability vrrp`.
    pub fn vrrp(&self) -> Node<'_> {
        Node(Some(&self.vrrp))
    }
}

/// A node of the configuration, which may be absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node<'a>(Option<&'a Map<String, Value>>);

impl<'a> Node<'a> {
    /// Whether it is there.
    pub fn exists(self) -> bool {
        self.0.is_some()
    }

    /// The node below it with that name; absent also if it is a leaf.
    pub fn node(self, name: &str) -> Node<'a> {
        Node(self.0.and_then(|map| map.get(name)?.as_object()))
    }

    /// The nodes of a tag node, with their names.
    pub fn tags(self) -> impl Iterator<Item = (&'a str, Node<'a>)> {
        self.0.into_iter().flatten().map(|(name, value)| (name.as_str(), Node(value.as_object())))
    }

    /// The names of what is below it.
    pub fn names(self) -> impl Iterator<Item = &'a str> {
        self.0.into_iter().flatten().map(|(name, _)| name.as_str())
    }

    /// Whether there is something of that name below it, a leaf without a value too.
    pub fn has(self, name: &str) -> bool {
        self.0.is_some_and(|map| map.contains_key(name))
    }

    /// The value of the leaf below it with that name.
    pub fn value(self, name: &str) -> Option<&'a str> {
        self.0?.get(name)?.as_str()
    }

    /// The values of the leaf below it with that name. VyOS gives a single one as a string or as a list of one.
    pub fn values(self, name: &str) -> Vec<&'a str> {
        match self.0.and_then(|map| map.get(name)) {
            Some(Value::String(value)) => vec![value],
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            // As VyOS gives a tag node.
            Some(Value::Object(tags)) => tags.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }
}
