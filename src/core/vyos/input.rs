//! The input that the owner script passes to `commit` on standard input.
//!
//! `{"format":1,"boot":bool,"called-for":["group","10"],"commit":"1a2b…","proposed":{"vrrp":…},"effective":{"vrrp":…},"interface-addresses":{"eth0":["10.99.0.1/24"]}}`.
//! Both trees are results of VyOS's `get_config_dict` for `high-availability` (vyos-1x python/vyos/config.py): a node
//! is an object, a node without a value an empty object, a leaf a string, a leaf with several values a list of strings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest input, in bytes. Every real configuration is far smaller.
pub const MAX_INPUT_BYTES: u64 = 16 << 20;

/// The input is invalid.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It has more than [`MAX_INPUT_BYTES`].
    #[error("standard input is longer than {MAX_INPUT_BYTES} bytes")]
    TooLong,
    /// It is not JSON, or not of this form.
    #[error(
        "invalid input on standard input: {0}; check that the owner script and vyos-aws-vipa are from the same package"
    )]
    Shape(#[source] serde_json::Error),
    /// A node is a leaf, or a leaf is a node. To ignore it would treat it as deleted.
    #[error("invalid input on standard input: node {0} has an unexpected type")]
    Node(String),
    /// It is in another version's format.
    #[error("standard input has format {0}, but this version of vyos-aws-vipa supports only 1: reinstall the package")]
    Format(u64),
}

/// The input from the owner script.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Input {
    #[serde(rename = "format")]
    _format: u64,
    /// Whether the router is loading its boot configuration.
    pub boot: bool,
    /// The node that VyOS runs the owner for.
    #[serde(default)]
    pub called_for: CalledFor,
    /// The id of the commit, if the calling process does not identify it: VyOS's daemon runs the owner script of every
    /// commit.
    #[serde(default)]
    pub commit: Option<String>,
    /// The proposed configuration.
    pub proposed: Tree,
    /// The configuration before the commit.
    pub effective: Tree,
    /// The addresses with prefix lengths that each configured interface has, outside VRRP.
    pub interface_addresses: BTreeMap<String, Vec<String>>,
}

/// The node that VyOS runs the owner script for, by the script's arguments in the interface definition.
///
/// VyOS could pass the name of a group too, but inserts it unquoted into a shell command line. The VRID is a number,
/// and almost unique: groups on different interfaces may share one.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub enum CalledFor {
    /// Unknown: it may be any node that this commit changes.
    #[default]
    Unknown,
    /// `global-parameters aws-vipa`.
    Settings,
    /// `group <name> aws-vipa`, of a group with this VRID in the proposed configuration. A group that is deleted has none.
    Group {
        /// The VRID as configured.
        vrid: Option<String>,
    },
}

impl From<Vec<String>> for CalledFor {
    fn from(words: Vec<String>) -> Self {
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["global-parameters"] => Self::Settings,
            ["group"] => Self::Group { vrid: None },
            ["group", vrid] => Self::Group { vrid: Some(vrid.to_owned()) },
            _ => Self::Unknown,
        }
    }
}

impl From<CalledFor> for Vec<String> {
    fn from(called_for: CalledFor) -> Self {
        match called_for {
            CalledFor::Unknown => Vec::new(),
            CalledFor::Settings => vec!["global-parameters".to_owned()],
            CalledFor::Group { vrid } => ["group".to_owned()].into_iter().chain(vrid).collect(),
        }
    }
}

/// A tree below `high-availability`, which is empty without VRRP.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    #[serde(default)]
    vrrp: Map<String, Value>,
}

/// Only the format of an input.
#[derive(Deserialize)]
struct Formatted {
    format: u64,
}

impl Input {
    /// Parses the bytes of standard input.
    ///
    /// # Errors
    /// [`InputError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InputError> {
        if bytes.len() as u64 > MAX_INPUT_BYTES {
            return Err(InputError::TooLong);
        }
        // The format is checked first, because another format may have another form.
        match serde_json::from_slice(bytes) {
            Ok(Formatted { format: 1 }) | Err(_) => {}
            Ok(Formatted { format }) => return Err(InputError::Format(format)),
        }
        let input: Self = serde_json::from_slice(bytes).map_err(InputError::Shape)?;
        for (name, tree) in [("proposed", &input.proposed), ("effective", &input.effective)] {
            tree.check().map_err(|path| InputError::Node(format!("{name} {path}")))?;
        }
        Ok(input)
    }
}

impl Tree {
    /// Checks that the nodes above groups and settings are nodes. The error is the path of one that is a leaf.
    fn check(&self) -> Result<(), String> {
        let vrrp = self.vrrp();
        vrrp.below("vrrp", "global-parameters")?.below("vrrp global-parameters", "aws-vipa")?;
        let groups = vrrp.below("vrrp", "group")?;
        for name in groups.names() {
            let group = groups.below("vrrp group", name)?;
            let path = format!("vrrp group {}", name.escape_debug());
            let ours = group.below(&path, "aws-vipa")?;
            for tag in ["route", "elastic-ip"] {
                let tags = ours.below(&format!("{path} aws-vipa"), tag)?;
                tags.names().try_for_each(|name| tags.below(&format!("{path} aws-vipa {tag}"), name).map(drop))?;
            }
        }
        Ok(())
    }

    /// `high-availability vrrp`.
    pub fn vrrp(&self) -> Node<'_> {
        Node(Some(&self.vrrp))
    }
}

/// A node of the configuration, which may be absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node<'a>(Option<&'a Map<String, Value>>);

impl<'a> Node<'a> {
    /// Whether the node exists.
    pub fn exists(self) -> bool {
        self.0.is_some()
    }

    /// The node below it with that name; absent also if it is a leaf.
    pub fn node(self, name: &str) -> Node<'a> {
        Node(self.0.and_then(|map| map.get(name)?.as_object()))
    }

    /// Like [`Node::node`], but a leaf is an error: its path, if this node is at `path`.
    fn below(self, path: &str, name: &str) -> Result<Node<'a>, String> {
        let node = self.node(name);
        if self.has(name) && !node.exists() {
            return Err(format!("{path} {}", name.escape_debug()));
        }
        Ok(node)
    }

    /// The nodes of a tag node, with their names.
    pub fn tags(self) -> impl Iterator<Item = (&'a str, Node<'a>)> {
        self.0.into_iter().flatten().map(|(name, value)| (name.as_str(), Node(value.as_object())))
    }

    /// The names of the nodes below it.
    pub fn names(self) -> impl Iterator<Item = &'a str> {
        self.0.into_iter().flatten().map(|(name, _)| name.as_str())
    }

    /// Whether a node of that name exists below it, with or without a value.
    pub fn has(self, name: &str) -> bool {
        self.0.is_some_and(|map| map.contains_key(name))
    }

    /// The value of the leaf below it with that name.
    pub fn value(self, name: &str) -> Option<&'a str> {
        self.0?.get(name)?.as_str()
    }

    /// The values of the leaf below it with that name. VyOS writes a single value as a string or as a list of one.
    pub fn values(self, name: &str) -> Vec<&'a str> {
        match self.0.and_then(|map| map.get(name)) {
            Some(Value::String(value)) => vec![value],
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            // The form of a tag node.
            Some(Value::Object(tags)) => tags.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Input, InputError> {
        Input::parse(text.as_bytes())
    }

    fn whole(proposed: &str) -> String {
        format!(r#"{{"format":1,"boot":false,"proposed":{proposed},"effective":{{}},"interface-addresses":{{}}}}"#)
    }

    #[test]
    fn what_vyos_gives_is_read() {
        for sample in
            [include_str!("../../../tests/samples/vrrp.json"), include_str!("../../../tests/samples/vrrp-2.json")]
        {
            let input = read(&whole(sample)).expect("read");
            assert!(!input.boot && !input.effective.vrrp().node("group").exists());
            assert!(input.proposed.vrrp().node("group").tags().all(|(_, group)| group.value("vrid").is_some()));
        }
        let input = read(&whole(include_str!("../../../tests/samples/vrrp-2.json"))).expect("read");
        let groups = input.proposed.vrrp().node("group");
        assert_eq!(groups.names().collect::<Vec<_>>(), ["dev-case", "odd$(n)ame"]);
        let group = groups.node("dev-case");
        assert_eq!(group.values("address"), ["10.98.0.110/24", "10.99.0.110/24"]);
        assert_eq!(group.node("address").node("10.98.0.110/24").value("interface"), Some("eth1"));
        assert_eq!(group.values("peer-address"), ["10.99.0.2"]);
        assert_eq!((group.values("interface"), group.values("nothing")), (vec!["eth0"], vec![]));
        assert!(group.has("interface") && !group.node("interface").exists() && !group.has("aws-vipa"));
    }

    #[test]
    fn a_tree_that_is_gone_is_empty_and_a_node_without_a_value_is_there() {
        let input = read(&whole("{}")).expect("read");
        assert!(input.proposed.vrrp().exists() && input.proposed.vrrp().names().count() == 0);
        let input = read(&whole(r#"{"vrrp":{"group":{"a":{"aws-vipa":{}}}}}"#)).expect("read");
        assert!(input.proposed.vrrp().node("group").node("a").node("aws-vipa").exists());
    }

    #[test]
    fn what_is_no_configuration_is_refused_by_name() {
        for (text, expected) in [
            (String::new(), "EOF while parsing"),
            ("{".to_owned(), "EOF while parsing"),
            ("\u{0}\u{1}".to_owned(), "expected value"),
            ("[]".to_owned(), "invalid length 0"),
            (r#"{"format":1}"#.to_owned(), "missing field `boot`"),
            (whole("{}").replace("\"boot\":false", "\"boot\":0"), "expected a boolean"),
            (whole("{}").replace("\"boot\":false,", "\"boot\":false,\"surprise\":1,"), "unknown field `surprise`"),
            (whole(r#"{"vrpp":{}}"#), "unknown field `vrpp`"),
            (whole(r#"{"vrrp":[]}"#), "invalid type: sequence"),
            (whole("{}").replace("\"format\":1", "\"format\":2"), "has format 2"),
            (r#"{"format":2}"#.to_owned(), "has format 2"),
            (r#"{"format":2,"proposed":[{"new":1}]}"#.to_owned(), "has format 2"),
            (r#"{"format":"2"}"#.to_owned(), "invalid type: string"),
            (whole("{}").replace("\"boot\"", "\"called-for\":\"group\",\"boot\""), "invalid type: string"),
            (whole("{}").replace("\"format\":1", "\"format\":-1"), "invalid value"),
            (whole("{}") + "{}", "trailing characters"),
            (whole(r#"{"vrrp":{"group":"a"}}"#), "node proposed vrrp group has an"),
            (whole(r#"{"vrrp":{"group":{"a\nb":[]}}}"#), "node proposed vrrp group a\\nb has an"),
            (whole(r#"{"vrrp":{"group":{"a":{"aws-vipa":"x"}}}}"#), "node proposed vrrp group a aws-vipa has an"),
            (whole(r#"{"vrrp":{"group":{"a":{"aws-vipa":{"route":"x"}}}}}"#), "vrrp group a aws-vipa route has an"),
            (
                whole(r#"{"vrrp":{"group":{"a":{"aws-vipa":{"route":{"10.0.0.0/8":"rtb-01234567"}}}}}}"#),
                "vrrp group a aws-vipa route 10.0.0.0/8 has an",
            ),
            (
                whole(r#"{"vrrp":{"group":{"a":{"aws-vipa":{"elastic-ip":["eipalloc-01234567"]}}}}}"#),
                "vrrp group a aws-vipa elastic-ip has an",
            ),
            (whole(r#"{"vrrp":{"global-parameters":{"aws-vipa":1}}}"#), "vrrp global-parameters aws-vipa has an"),
            (whole(&format!(r#"{{"vrrp":{{"group":{}"#, "[".repeat(100_000))), "recursion limit"),
        ] {
            let error = read(&text).expect_err(&text[..text.len().min(200)]).to_string();
            assert!(error.contains(expected) && error.contains("standard input"), "{error}");
        }
    }

    #[test]
    fn the_words_behind_the_owner_tell_the_node() {
        for (words, expected) in [
            ("[]", CalledFor::Unknown),
            (r#"["global-parameters"]"#, CalledFor::Settings),
            (r#"["group"]"#, CalledFor::Group { vrid: None }),
            (r#"["group","10"]"#, CalledFor::Group { vrid: Some("10".to_owned()) }),
            (r#"["group","10","11"]"#, CalledFor::Unknown),
            (r#"["something"]"#, CalledFor::Unknown),
        ] {
            let text = whole("{}").replace("\"boot\"", &format!("\"called-for\":{words},\"boot\""));
            assert_eq!(read(&text).expect("read").called_for, expected, "{words}");
        }
        assert_eq!(read(&whole("{}")).expect("read").called_for, CalledFor::Unknown);
    }

    #[test]
    fn too_long_an_input_is_refused_before_it_is_parsed() {
        let long = vec![b' '; usize::try_from(MAX_INPUT_BYTES).expect("it fits") + 1];
        let error = Input::parse(&long).expect_err("too long");
        assert!(matches!(error, InputError::TooLong), "{error}");
    }
}
