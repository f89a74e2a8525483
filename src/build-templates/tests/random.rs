//! Random definitions with all elements that VyOS's schemas allow: the generator accepts them all.

use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Few, so that nodes of the same name meet.
const NAMES: &str = "[a-c]";

/// Text of an element: empty, blank, with signs that XML escapes, or long enough to be wrapped.
fn text() -> impl Strategy<Value = String> {
    let fixed = ["", " ", "a &lt;b&gt; &amp; 'c'<!-- d --> e", "é <?f?>", "<!-- a -->"].map(str::to_owned);
    prop_oneof!["[a-z]{1,6}( [a-z]{1,9}){0,14}", prop::sample::select(fixed.to_vec())]
}

/// Up to one element of each of these, in any order: `<interleave>` of `<optional>`.
fn interleaved(parts: Vec<BoxedStrategy<String>>) -> impl Strategy<Value = String> {
    let some = parts.into_iter().map(|part| prop::option::of(part).boxed()).collect::<Vec<_>>();
    some.prop_map(|parts| parts.into_iter().flatten().collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(|parts| parts.concat())
}

fn element(name: &'static str, content: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    content.prop_map(move |content| format!("<{name}>{content}</{name}>")).boxed()
}

fn several(part: BoxedStrategy<String>, from: usize) -> BoxedStrategy<String> {
    prop::collection::vec(part, from..3).prop_map(|parts| parts.concat()).boxed()
}

fn completion() -> BoxedStrategy<String> {
    let parts = ["list", "path", "script"].map(|name| several(element(name, text()), 0));
    several(element("completionHelp", interleaved(parts.into())), 0)
}

fn config_properties() -> BoxedStrategy<String> {
    let validator = prop_oneof![Just("<validator name='numeric'/>"), Just("<validator name='/x' argument='--y 1'/>")];
    let checks = several(prop_oneof![element("regex", text()), validator.prop_map(str::to_owned)].boxed(), 1);
    let value_help = (element("format", text()), element("description", text()), any::<bool>());
    let value_help = value_help.prop_map(|(a, b, swapped)| if swapped { b + &a } else { a + &b });
    let mut parts = vec![
        element("help", text()),
        element("constraint", checks.clone()),
        several(element("constraintGroup", checks), 0),
        several(element("valueHelp", value_help), 0),
        element("constraintErrorMessage", text()),
        completion(),
        element("priority", prop_oneof![Just("801".to_owned()), text()]),
    ];
    parts.extend(["hidden", "secret", "keepChildOrder"].map(|name| element(name, Just(String::new()))));
    element("properties", interleaved(parts))
}

/// VyOS's own generators accept these two only in leaf nodes.
fn leaf_properties() -> BoxedStrategy<String> {
    let flags = ["", "<multi/>", "<valueless/>", "<multi/><valueless/>"];
    (config_properties(), prop::sample::select(flags.to_vec()))
        .prop_map(|(properties, flags)| properties.replace("</properties>", &format!("{flags}</properties>")))
        .boxed()
}

fn named(tag: &'static str, attributes: &'static str, content: BoxedStrategy<String>) -> BoxedStrategy<String> {
    (NAMES, content)
        .prop_map(move |(name, inside)| format!("<{tag} name='{name}'{attributes}>{inside}</{tag}>"))
        .boxed()
}

fn config() -> BoxedStrategy<String> {
    let leaf = (leaf_properties(), prop::option::of(element("defaultValue", text())))
        .prop_map(|(properties, default)| properties + &default.unwrap_or_default())
        .boxed();
    let inner = |children: BoxedStrategy<String>| {
        let children = element("children", several(children, 1));
        let tag = (
            prop::option::of(config_properties()),
            children.clone(),
            prop::option::of(element("defaultValue", text())),
        )
            .prop_map(|(properties, children, default)| {
                properties.unwrap_or_default() + &children + &default.unwrap_or_default()
            });
        let owned = children.clone().prop_map(|c| format!("<properties><priority>801</priority></properties>{c}"));
        prop_oneof![
            named("node", "", interleaved(vec![config_properties(), children]).boxed()),
            named("tagNode", "", tag.boxed()),
            named("node", " owner='${x}/a.py b'", owned.boxed()),
            named("node", " owner=''", config_properties()),
        ]
        .boxed()
    };
    let any = named("leafNode", "", leaf).prop_recursive(3, 24, 2, move |deeper| inner(deeper.boxed())).boxed();
    let node = named("node", "", interleaved(vec![config_properties(), element("children", several(any, 1))]).boxed());
    let versions = several(Just("<syntaxVersion component='a' version='1'/>".to_owned()).boxed(), 0);
    (versions, several(node, 0)).prop_map(|(versions, nodes)| versions + &nodes).boxed()
}

fn op() -> BoxedStrategy<String> {
    let properties = || element("properties", interleaved(vec![element("help", text()), completion()]));
    let command = || element("command", text());
    let leaf = (properties(), command()).prop_map(|(properties, command)| properties + &command).boxed();
    let inner = move |children: BoxedStrategy<String>| {
        let parts = vec![properties(), command(), element("children", several(children, 1))];
        let content = interleaved(parts).boxed();
        prop_oneof![named("node", "", content.clone()), named("tagNode", "", content)].boxed()
    };
    let any = named("leafNode", "", leaf).prop_recursive(3, 24, 2, move |deeper| inner(deeper.boxed()));
    several(inner(any.boxed()), 0)
}

/// Whether xmllint finds the file valid; `None` if VyOS's schemas are not available.
fn is_valid(schema: &str, file: &Path) -> Option<bool> {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vyos/schema").join(schema);
    if !schema.is_file() {
        return None;
    }
    let output = Command::new("xmllint").arg("--noout").arg("--relaxng").arg(schema).arg(file).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(true)
}

fn all_are_taken(kinds: &[&str], schema: &str, content: &BoxedStrategy<String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let result = runner.run(content, |content| {
        let file = directory.path().join("random.xml");
        fs::write(&file, format!("<interfaceDefinition>{content}</interfaceDefinition>")).expect("written");
        is_valid(schema, &file);
        for kind in kinds {
            let out = tempfile::tempdir().expect("a directory");
            let to = out.path().join("out");
            let output =
                Command::new(env!("CARGO_BIN_EXE_build-templates")).arg(kind).arg(&file).arg("--out").arg(&to).output();
            let output = output.expect("build-templates runs");
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            prop_assert!(output.status.success(), "{kind}: {stderr}");
            prop_assert!(
                stderr.lines().filter(|l| l.starts_with("build-templates")).all(|l| l.contains("warning: ")),
                "{stderr}"
            );
            match *kind {
                "cache" => {}
                "op-cache" => {
                    let text = fs::read_to_string(&to).expect("written");
                    check_entries(&serde_json::from_str(&text).expect("JSON"), &[]);
                }
                _ => check_fields(&to),
            }
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// The form of the samples: each line of a `node.def` is a known field, in this order, or continues a help text.
fn check_fields(directory: &Path) {
    const FIELDS: &[&str] = &[
        "tag:",
        "multi:",
        "type: txt",
        "priority: ",
        "help: ",
        "val_help: ",
        "allowed: ",
        "syntax:expression: ",
        "end: ",
        "run: ",
    ];
    for entry in fs::read_dir(directory).expect("listed").map(|e| e.expect("an entry").path()) {
        if entry.is_dir() {
            check_fields(&entry);
            continue;
        }
        let text = fs::read_to_string(&entry).expect("read");
        let mut last = 0;
        for line in text.lines().filter(|line| !line.starts_with("\t\t\t")) {
            let field = FIELDS.iter().position(|field| line.starts_with(field));
            let field = field.unwrap_or_else(|| panic!("{line:?} in {text}"));
            assert!(field >= last, "{line:?} in {text}");
            last = field;
        }
    }
}

/// Each word of `op_cache.json` has its data, and a path that begins with those above it.
fn check_entries(entries: &serde_json::Value, above: &[serde_json::Value]) {
    for (word, entry) in entries.as_object().expect("words").iter().filter(|(word, _)| *word != "__node_data") {
        let data = &entry["__node_data"];
        let path = data["path"].as_array().expect("a path");
        assert!(path.starts_with(above) && data["name"] == **word, "{data}");
        let children = data["children"].as_array().expect("children");
        let words = entry.as_object().expect("an entry").keys().filter(|word| *word != "__node_data");
        assert!(words.clone().all(|word| children.contains(&word.as_str().into())), "{data}");
        assert_eq!(words.count(), children.len(), "{data}");
        check_entries(entry, path);
    }
}

#[test]
fn random_configuration_nodes_are_accepted() {
    all_are_taken(&["config", "cache"], "interface_definition.rng", &config());
}

#[test]
fn random_operational_commands_are_accepted() {
    all_are_taken(&["op", "op-cache"], "op-mode-definition.rng", &op());
}
