//! The generator: its output for VyOS's own definitions and for the package's, and what it rejects.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use regex_lite::Regex;

/// The top directory.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Definitions with every element that the generator accepts, and the output of VyOS's own generators.
fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sample")
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn build_templates(kind: &str, files: &[&Path], out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_build-templates"));
    command.arg(kind).args(files).arg("--out").arg(out).args(more).output().expect("build-templates runs")
}

fn built(kind: &str, files: &[&Path], out: &Path, more: &[&str]) {
    let output = build_templates(kind, files, out, more);
    assert!(output.status.success(), "{kind} {files:?}: {}", text(&output.stderr));
}

/// Builds from definitions that must not cause a warning.
fn built_silently(kind: &str, files: &[&Path], out: &Path, more: &[&str]) {
    let output = build_templates(kind, files, out, more);
    assert!(output.status.success() && output.stderr.is_empty(), "{kind} {files:?}: {}", text(&output.stderr));
}

/// The files below a directory, by their relative path.
fn files(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|e| panic!("{}: {e}", next.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("inside").to_owned();
                files.insert(name, fs::read_to_string(&path).expect("read"));
            }
        }
    }
    files
}

fn assert_same(found: &Path, expected: &Path, hint: &str) {
    let (found, expected) = (files(found), files(expected));
    let names = |files: &BTreeMap<PathBuf, String>| files.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&found), names(&expected), "{hint}");
    for (name, text) in &expected {
        assert_eq!(found.get(name), Some(text), "{}: {hint}", name.display());
    }
}

#[test]
fn the_output_equals_that_of_vyos() {
    let sample = sample();
    let directory = directory();
    for kind in ["config", "op"] {
        let out = directory.path().join(kind);
        built(kind, &[&sample.join(format!("{kind}.xml"))], &out, &[]);
        assert_same(&out, &sample.join(format!("{kind}-templates")), kind);
    }
    let out = directory.path().join("cache.py");
    built("cache", &[&sample.join("config.xml")], &out, &[]);
    let found = fs::read_to_string(&out).expect("written");
    let expected = fs::read_to_string(sample.join("weather_cache.py")).expect("there");
    assert_eq!(found.trim_end(), expected.trim_end());
}

/// Except for the quotes around placeholders, which VyOS omits.
#[test]
fn the_part_of_op_cache_equals_that_of_vyos() {
    let directory = directory();
    let out = directory.path().join("op_cache.json");
    built("op-cache", &[&sample().join("op.xml")], &out, &[]);
    let read = |file: &Path| fs::read_to_string(file).expect("there");
    assert_eq!(read(&out), read(&sample().join("op_cache.json")));
}

#[test]
fn files_include_others_and_errors_name_the_included_line() {
    let directory = directory();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("written");
    fs::create_dir(directory.path().join("include")).expect("made");
    let whole = directory.path().join("whole.xml.in");
    let leaf = "<leafNode name='b'>\n#include <include/properties.xml.i>\n<command>c</command>\n</leafNode>\n";
    write(
        "whole.xml.in",
        "<interfaceDefinition><node name='a'><children>\n  #include <include/leaf.xml.i>\n</children></node></interfaceDefinition>\n",
    );
    write("include/leaf.xml.i", leaf);
    write("include/properties.xml.i", "<properties><help>B</help></properties>\n");
    built("op", &[&whole], &directory.path().join("op"), &["--owned-only"]);
    let generated = files(&directory.path().join("op"));
    assert_eq!(generated[Path::new("a/b/node.def")], "help: B\nrun: c\n");
    built("op-cache", &[&whole], &directory.path().join("op_cache.json"), &[]);
    let cache = fs::read_to_string(directory.path().join("op_cache.json")).expect("written");
    assert!(cache.contains("\"whole.xml\"") && !cache.contains("xml.i"), "{cache}");

    let fails = |expected: &str| {
        let output = build_templates("op", &[&whole], &directory.path().join("out"), &[]);
        let stderr = text(&output.stderr);
        assert!(!output.status.success() && stderr.contains(expected), "{stderr}");
    };
    write("include/properties.xml.i", "\n<properties><help><b/></help></properties>\n");
    fails("include/properties.xml.i:2: node `a b`: <b> in <help>, which takes only text");
    write("include/leaf.xml.i", &leaf.replace("command", "order"));
    write("include/properties.xml.i", "<properties><help>B</help></properties>\n");
    fails("include/leaf.xml.i:3: node `a b`: unexpected <order> in <leafNode>");
    fs::remove_file(directory.path().join("include/properties.xml.i")).expect("there");
    fails("include/leaf.xml.i:2: cannot include ");
    write("include/properties.xml.i", "#include <include/leaf.xml.i>\n");
    fails("files include each other more than 10 levels deep");
}

#[test]
fn nodes_without_properties_can_be_skipped() {
    let sample = sample();
    let directory = directory();
    for (kind, skipped) in [("config", vec!["weather", "weather/station"]), ("op", vec!["show"])] {
        let out = directory.path().join(kind);
        built(kind, &[&sample.join(format!("{kind}.xml"))], &out, &["--owned-only"]);
        let mut expected = files(&sample.join(format!("{kind}-templates")));
        expected.retain(|path, _| skipped.iter().all(|node| *path != Path::new(node).join("node.def")));
        assert_eq!(files(&out), expected, "{kind}");
    }
}

#[test]
fn the_templates_are_current() {
    let definitions = repository().join("interface-definitions");
    let directory = directory();
    let (config, op) =
        (definitions.join("high-availability_vrrp_aws-vipa.xml"), definitions.join("op-mode/aws-vipa.xml.in"));
    let listed = |directory: &Path| {
        let entries = fs::read_dir(directory).expect("listed").map(|e| e.expect("an entry").path());
        entries.filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    // scripts/regenerate-templates reads every file there.
    assert_eq!(listed(&definitions), [config.as_path()]);
    assert_eq!(listed(&definitions.join("op-mode")), [op.as_path()]);
    built_silently("config", &[&config], &directory.path().join("cfg"), &["--owned-only"]);
    built_silently("op", &[&op], &directory.path().join("op"), &["--owned-only"]);
    built_silently("op-cache", &[&op], &directory.path().join("op_cache.json"), &[]);
    built_silently("cache", &[&config], &directory.path().join("vyos_aws_vipa_cache.py"), &[]);
    assert_same(&repository().join("vyos-templates"), directory.path(), "run scripts/regenerate-templates");
}

/// A definition with the files that it includes, without elements that the schema of VyOS 1.4 does not have: operational
/// commands have constraints since vyos-1x PR 4758.
fn as_for_1_4(file: &Path, directory: &Path) -> PathBuf {
    fn expanded(file: &Path, beside: &Path) -> String {
        let text = fs::read_to_string(file).expect("read");
        let included = |line: &str| Some(beside.join(line.trim_start().strip_prefix("#include <")?.strip_suffix('>')?));
        text.lines().map(|line| included(line).map_or(format!("{line}\n"), |file| expanded(&file, beside))).collect()
    }
    let mut text = expanded(file, file.parent().expect("a directory"));
    if file.ends_with("op-mode/aws-vipa.xml.in") {
        for element in ["constraint", "constraintErrorMessage"] {
            let element = Regex::new(&format!("(?s)<{element}>.*?</{element}>")).expect("a regular expression");
            assert!(element.is_match(&text));
            text = element.replace_all(&text, "").into_owned();
        }
    }
    let whole = directory.join("definition.xml");
    fs::write(&whole, text).expect("written");
    whole
}

#[test]
fn the_definitions_match_vyos_s_schemas() {
    // The schemas are part of VyOS and not of this repository.
    let schemas = repository().join("../shared/vyos/schema");
    if !schemas.is_dir() {
        return;
    }
    let samples = sample();
    let definitions = repository().join("interface-definitions");
    let directory = directory();
    for (schema, files) in [
        (
            "interface_definition.rng",
            [definitions.join("high-availability_vrrp_aws-vipa.xml"), samples.join("config.xml")],
        ),
        ("op-mode-definition.rng", [definitions.join("op-mode/aws-vipa.xml.in"), samples.join("op.xml")]),
    ] {
        for file in files {
            let mut xmllint = Command::new("xmllint");
            let whole = as_for_1_4(&file, directory.path());
            let output = xmllint.arg("--noout").arg("--relaxng").arg(schemas.join(schema)).arg(whole).output();
            let output = output.expect("xmllint runs (Debian package libxml2-utils)");
            assert!(output.status.success(), "{}: {}", file.display(), text(&output.stderr));
        }
    }
}

#[test]
fn two_files_may_define_the_same_node() {
    let directory = directory();
    let [first, second, both] = ["first.xml", "second.xml", "both.xml"].map(|name| directory.path().join(name));
    let leaf = |name: &str| format!("<leafNode name='{name}'><properties><help>{name}</help></properties></leafNode>");
    let node = |properties: &str, children: &str| {
        format!(
            "<interfaceDefinition><node name='a'>{properties}<children>{children}</children></node></interfaceDefinition>"
        )
    };
    let properties = "<properties><help>A</help></properties>";
    fs::write(&first, node("", &leaf("b"))).expect("written");
    fs::write(&second, node(properties, &(leaf("c") + &leaf("b")))).expect("written");
    fs::write(&both, node(properties, &(leaf("b") + &leaf("c")))).expect("written");
    let [two, one] = ["two", "one"].map(|name| directory.path().join(name));
    built("config", &[&first, &second], &two, &[]);
    built("config", &[&both], &one, &[]);
    assert_same(&two, &one, "templates");
    built("cache", &[&first, &second], &two.join("cache.py"), &[]);
    built("cache", &[&both], &one.join("cache.py"), &[]);
    assert_same(&two, &one, "cache");
}

/// An invalid definition: the kind of the definition, the content of its root element, a part of the error message.
type Invalid = (&'static str, &'static str, &'static str);

/// What the schemas refuse, or VyOS's own generator although the schemas allow it: `<multi/>` and `<valueless/>` outside of a
/// leaf, and an owner without a priority (vyos-1x scripts/build-command-templates). Besides, what has no form that is safe: a
/// name that leads out of the directory of the templates or is one of theirs, and a command whose quotes or `$` would make an
/// argument part of the command.
const INVALID: &[Invalid] = &[
    ("config", "<node name='a'>", "invalid XML"),
    ("config", "<node name='a'></nod>", "invalid XML"),
    ("config", "<node name='a' name='b'/>", "invalid XML"),
    ("config", "</interfaceDefinition><more/><interfaceDefinition>", "outside the root element"),
    ("config", "&nbsp;", "unknown entity &nbsp;"),
    ("config", "words", "unexpected text in <interfaceDefinition>"),
    ("config", "<leafNode name='a'/>", ":2: unexpected <leafNode> in <interfaceDefinition>"),
    ("config", "<node/>", "<node> needs the attribute name"),
    ("config", "<node name='../a'/>", "a node name must be the name of a directory"),
    ("config", "<node name='node.tag'/>", "VyOS reserves this node name"),
    ("config", "<node name='a' standalone='1'/>", "<node> does not take the attribute standalone"),
    ("config", "<tagNode name='a'><children/></tagNode>", "unexpected <tagNode> in <interfaceDefinition>"),
    ("config", "<node name='a'><children/></node>", "node `a`: <children> is empty"),
    ("config", "<node name='a'><children><virtualTagNode name='b'/></children></node>", "<virtualTagNode>"),
    (
        "config",
        "<node name='a'><children><leafNode name='b'/></children></node>",
        "node `a b`: <leafNode> needs <properties>",
    ),
    ("config", "<node name='a'><defaultValue>1</defaultValue>LEAF</node>", "unexpected <defaultValue> in <node>"),
    ("config", "<node name='a'><properties/><properties/>LEAF</node>", "duplicate <properties>"),
    ("config", "<node name='a' owner='a.py'>LEAF</node>", "node `a`: a node with an owner needs a <priority>"),
    ("config", "<node name='a' owner='a.py'><properties><help>A</help></properties>LEAF</node>", "needs a <priority>"),
    (
        "config",
        "<node name='a'><properties><valueless/></properties>LEAF</node>",
        "<valueless/> is only allowed in <leafNode>",
    ),
    ("config", "<node name='a'><properties><multi/></properties>LEAF</node>", "<multi/> is only allowed in <leafNode>"),
    ("config", "<node name='a'><properties><help>A</help><help>B</help></properties>LEAF</node>", "duplicate <help>"),
    ("config", "<node name='a'><properties><help>A<b/></help></properties>LEAF</node>", "which takes only text"),
    ("config", "PROPERTIES(<help>\u{1}</help>)", "control character"),
    ("config", "PROPERTIES(<help a='b'>A</help>)", "<help> does not take the attribute a"),
    ("config", "PROPERTIES(<valueless>no</valueless>)", "<valueless> must be empty"),
    ("config", "PROPERTIES(<valueHelp><format>a</format></valueHelp>)", "<valueHelp> needs <description>"),
    ("config", "PROPERTIES(<completionHelp><imagePath/></completionHelp>)", "<imagePath>"),
    ("config", "PROPERTIES(<constraint/>)", "<constraint> needs a <regex> or a <validator>"),
    (
        "config",
        "PROPERTIES(<constraint><validator argument='a'/></constraint>)",
        "<validator> needs the attribute name",
    ),
    (
        "config",
        "PROPERTIES(<constraint><regex>a</regex></constraint><constraint><regex>b</regex></constraint>)",
        "duplicate <constraint>",
    ),
    (
        "op-cache",
        "<node name='a'><command>b \"$1\"</command></node>",
        "node `a`: \"$1\" in <command> is not an argument of this node",
    ),
    ("op-cache", "<node name='a'><command>b; $HOME</command></node>", "<command> may contain $ only in"),
    ("op-cache", "<node name='a'><command>b {{c}}</command></node>", "<command> must not contain {{"),
    (
        "op-cache",
        "<tagNode name='a'><properties/><command>b 'c \"$2\"'</command></tagNode>",
        "node `a`: <command> with an argument must not have '",
    ),
    ("op", "<node name='a'><properties><constraint/></properties></node>", "<constraint> needs a <regex>"),
    ("op", "<leafNode name='a'/>", "unexpected <leafNode> in <interfaceDefinition>"),
    ("op", "<node name='a' owner='a.py'/>", "<node> does not take the attribute owner"),
    ("op", "<node name='a'><standalone/></node>", "unexpected <standalone> in <node>"),
    ("op", "<node name='a'><children/></node>", "<children> is empty"),
    (
        "op",
        "<node name='a'><properties><priority>1</priority></properties></node>",
        "unexpected <priority> in <properties>",
    ),
    (
        "op",
        "<node name='a'><children><leafNode name='b'><properties/></leafNode></children></node>",
        "node `a b`: <leafNode> needs <command>",
    ),
];

/// A definition with this content. LEAF is replaced by a leaf node `b`; `PROPERTIES(x)y` by such a leaf in a node `a`, with
/// the properties x, followed by y.
fn definition(inside: &str) -> String {
    const LEAF: &str = "<children><leafNode name='b'><properties/></leafNode></children>";
    let properties = Regex::new(r"(?s)^PROPERTIES\((.*?)\)([^)]*)$").expect("a regular expression");
    let inside = properties.replace(
        inside,
        "<node name='a'><children><leafNode name='b'><properties>$1</properties>$2</leafNode></children></node>",
    );
    format!("<interfaceDefinition>\n{}\n</interfaceDefinition>", inside.replace("LEAF", LEAF))
}

#[test]
fn invalid_definitions_are_errors_with_a_location_and_nothing_is_written() {
    for (kind, inside, expected) in INVALID {
        let directory = directory();
        let file = directory.path().join("bad.xml");
        let whole = definition(inside);
        fs::write(&file, &whole).expect("written");
        let kinds: &[&str] = match *kind {
            "config" => &["config", "cache"],
            "op" => &["op", "op-cache"],
            kind => &[kind],
        };
        for kind in kinds {
            let output = build_templates(kind, &[&file], &directory.path().join("out"), &[]);
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{kind} {whole}: {stderr}");
            assert!(stderr.contains(expected), "{kind} {whole}: {stderr}");
            assert!(stderr.contains(&format!("{}:", file.display())), "{kind} {whole}: no location in {stderr}");
            assert_eq!(
                fs::read_dir(directory.path()).expect("listed").count(),
                1,
                "{kind} {whole}: files were left behind"
            );
        }
    }
}

/// Definitions that the schemas allow, with parts that have no effect or an unexpected one: kind, content of the root element,
/// a part of the warning, and the file `a/node.def`, or `a/b/node.def` if it exists.
const ODD: &[(&str, &str, &str, &str)] = &[
    (
        "config",
        "<syntaxVersion component='a' version='1'/><node name='a'>LEAF</node>",
        "<syntaxVersion> has no effect",
        "type: txt\n",
    ),
    (
        "config",
        "<?php?><node name='a b'><children><leafNode name='c'><properties/></leafNode></children></node>",
        "a node name should have",
        "",
    ),
    ("config", "<node name='a'/>", "<node> without <children>", ""),
    ("config", "PROPERTIES(<keepChildOrder/>)", "<keepChildOrder/> has no effect", "type: txt\n"),
    ("config", "PROPERTIES(<help/>)", "<help> is empty", "type: txt\n"),
    ("config", "PROPERTIES(<help>A<!-- b -->C</help>)", "up to the comment", "type: txt\nhelp: A\n"),
    ("config", "PROPERTIES(<valueless/><multi/>)", "exclude each other", "multi:\n"),
    ("config", "PROPERTIES(<help>A</help>)<defaultValue/>", "<defaultValue> is empty", "type: txt\n"),
    ("config", "PROPERTIES(<priority/>)", "not a number from 0 to 65535", "type: txt\npriority: None\n"),
    (
        "config",
        "PROPERTIES(<valueHelp><format>a</format><description/></valueHelp>)",
        "<description> is empty",
        "type: txt\nval_help: a; \n",
    ),
    (
        "config",
        "PROPERTIES(<valueHelp><format>a</format><description/></valueHelp>)<defaultValue>a</defaultValue>",
        "<description> is empty",
        "type: txt\n",
    ),
    ("config", "PROPERTIES(<completionHelp/>)", "<completionHelp> is empty", "type: txt\nallowed: \n"),
    (
        "config",
        "PROPERTIES(<completionHelp><list>a</list></completionHelp><completionHelp><list>b</list></completionHelp>)",
        "VyOS uses only the last one",
        "type: txt\nallowed: echo \"b\"\n",
    ),
    (
        "config",
        "PROPERTIES(<constraintErrorMessage>A</constraintErrorMessage>)",
        "no effect without a constraint",
        "type: txt\n",
    ),
    (
        "config",
        "PROPERTIES(<help>A</help>)</leafNode><leafNode name='b'><properties><help>B</help></properties>",
        "odd.xml:2: VyOS's node.def is that of the other one",
        "type: txt\nhelp: A\n",
    ),
    (
        "op",
        "<node name='a'><properties><help/></properties><command>b</command></node>",
        "<help> is empty",
        "help: No help available\nrun: b\n",
    ),
    ("op", "<node name='a'><command/></node>", "<command> is empty", "run: None\n"),
    ("op", "<tagNode name='a'/>", "<tagNode> without <properties>", "help: No help available\n"),
    (
        "op",
        "<node name='a'><command>b</command></node><node name='a'><command>c</command></node>",
        "VyOS's node.def is that of the other one",
        "run: b\n",
    ),
];

/// Definitions that the schema of operational commands allows, and their entries in op_cache.json.
#[test]
fn commands_that_are_defined_twice_have_one_entry() {
    let directory = directory();
    let file = directory.path().join("twice.xml");
    let entries = |inside: &str, warning: &str| {
        fs::write(&file, definition(inside)).expect("written");
        let out = directory.path().join("op_cache.json");
        let output = build_templates("op-cache", &[&file], &out, &[]);
        let stderr = text(&output.stderr);
        assert!(output.status.success() && stderr.contains(warning), "{inside}: {stderr}");
        assert_eq!(stderr.is_empty(), warning.is_empty(), "{inside}: {stderr}");
        serde_json::from_str::<serde_json::Value>(&fs::read_to_string(out).expect("written")).expect("JSON")
    };
    let constraint = "<constraint><regex>x</regex></constraint><constraintErrorMessage>X</constraintErrorMessage>";
    let node = "<node name='a'><properties><help>A</help></properties><command>b</command>\
                <children><node name='c'><command>d</command></node></children></node>";
    let tag = format!(
        "<tagNode name='a'><properties><help>B</help>{constraint}</properties><command>e \"$2\"</command>\
         <children><leafNode name='f'><properties/><command>g \"$2\"</command></leafNode></children></tagNode>"
    );
    for inside in [node.to_owned() + &tag, tag.clone() + node] {
        let found = entries(&inside, "a tag node and another node of this name: VyOS's own generator fails here");
        let (word, argument) = (&found["a"]["__node_data"], &found["a"]["__virtual_tag"]["__node_data"]);
        assert_eq!((&word["node_type"], &word["command"]), (&"node".into(), &"b".into()));
        assert_eq!(word["children"], serde_json::json!(["c", "__virtual_tag"]));
        assert_eq!(found["a"]["c"]["__node_data"]["command"], "d");
        assert_eq!((&argument["node_type"], &argument["name"]), (&"virtualTagNode".into(), &"__virtual_tag".into()));
        assert_eq!(argument["command"], "e '{{a-tag_value}}'");
        assert_eq!(argument["constraints"]["regexes"], serde_json::json!(["x"]));
        assert_eq!(found["a"]["__virtual_tag"]["f"]["__node_data"]["command"], "g '{{a-tag_value}}'");
    }
    // Only a second definition has them.
    let found = entries(&format!("<tagNode name='a'><properties/></tagNode>{tag}"), "");
    let data = &found["a"]["__node_data"];
    assert_eq!(data["help_text"], "B");
    assert_eq!(data["constraints"]["regexes"], serde_json::json!(["x"]));
    assert_eq!((&data["constraint_error_message"], &data["command"]), (&"X".into(), &"e '{{a-tag_value}}'".into()));
    // Of two definitions that differ, VyOS uses the first, and prefers a leaf node to another node.
    let found = entries(
        "<node name='a'><command>b</command></node><node name='a'><command>c</command></node>",
        "twice.xml:2: VyOS's op_cache.json has the other one",
    );
    assert_eq!(found["a"]["__node_data"]["command"], "b");
    let found = entries(
        "<node name='a'><children><node name='b'><command>c</command></node>\
         <leafNode name='b'><properties/><command>d</command></leafNode></children></node>",
        "differs from that in",
    );
    let data = &found["a"]["b"]["__node_data"];
    assert_eq!((&data["node_type"], &data["command"]), (&"node".into(), &"d".into()));
    let found = entries("<node name='a'/><node name='a'><command>b</command></node>", "");
    assert_eq!(found["a"]["__node_data"]["command"], "b");
}

/// VyOS's node.def files have the first definition of a node, and its cache the last.
#[test]
fn a_warning_of_two_definitions_says_which_one_counts() {
    let directory = directory();
    let file = directory.path().join("twice.xml");
    let leaf = |more: &str| format!("<leafNode name='b'><properties><help>B</help>{more}</properties></leafNode>");
    let inside = leaf("") + "\n" + &leaf("<multi/>");
    fs::write(&file, definition(&format!("<node name='a'><children>{inside}</children></node>"))).expect("written");
    for (kind, used) in [("config", "VyOS's node.def is that of the other one"), ("cache", "VyOS's cache has this one")]
    {
        let output = build_templates(kind, &[&file], &directory.path().join(kind), &[]);
        let stderr = text(&output.stderr);
        let place = format!("{0}:3: node `a b`: its definition differs from that in {0}:2: {used}", file.display());
        assert!(output.status.success() && stderr.contains(&place), "{kind}: {stderr}");
    }
    let cache = fs::read_to_string(directory.path().join("cache")).expect("written");
    assert!(cache.contains("'node_type': 'leaf', 'multi': True"), "{cache}");
}

#[test]
fn odd_definitions_are_generated_as_by_vyos_with_a_warning() {
    for (kind, inside, warning, expected) in ODD {
        let directory = directory();
        let file = directory.path().join("odd.xml");
        fs::write(&file, definition(inside)).expect("written");
        let out = directory.path().join("out");
        let output = build_templates(kind, &[&file], &out, &[]);
        let stderr = text(&output.stderr);
        assert!(output.status.success() && stderr.contains(warning), "{inside}: {stderr}");
        let found = files(&out);
        let found = ["a/b/node.def", "a/node.def", "a b/node.def"].iter().find_map(|path| found.get(Path::new(path)));
        assert_eq!(found.map(String::as_str), Some(*expected), "{inside}");
        if *kind == "config" {
            built("cache", &[&file], &directory.path().join("cache.py"), &[]);
        }
    }
}

#[test]
fn unusable_files_and_directories_are_errors_and_stay_unchanged() {
    let sample = sample().join("config.xml");
    let directory = directory();
    let fails = |kind: &str, file: &Path, out: &Path, expected: &str| {
        let output = build_templates(kind, &[file], out, &[]);
        let stderr = text(&output.stderr);
        assert!(!output.status.success() && stderr.contains(expected), "{kind} {}: {stderr}", file.display());
    };
    let out = directory.path().join("out");
    fails("config", &directory.path().join("no.xml"), &out, "cannot read");
    for (text, expected) in [
        ("", "no root element"),
        ("<?xml version='1.0' encoding='latin1'?><interfaceDefinition/>", "must be UTF-8"),
        ("<!DOCTYPE a><interfaceDefinition/>", "document types are not supported"),
        ("<other/>", "must be <interfaceDefinition>, not <other>"),
        (&"<a>".repeat(300), "nested more than"),
    ] {
        let file = directory.path().join("bad.xml");
        fs::write(&file, text).expect("written");
        fails("config", &file, &out, expected);
        fails("op", &file, &out, expected);
    }
    fs::create_dir(&out).expect("made");
    built("config", &[&sample], &out, &[]);
    let before = files(&out);
    fails("config", &sample, &out, "is not an empty directory");
    fails("config", &sample, &directory.path().join("bad.xml"), "is not an empty directory");
    fails("config", &sample, &directory.path().join("no/where"), "cannot write");
    fails("cache", &sample, &out, "cannot write");
    assert_eq!(files(&out), before);
}
