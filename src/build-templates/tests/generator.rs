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

/// Definitions with every element that the generator accepts, and what VyOS's own generators make of them.
fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sample")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
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

/// The files below a folder, by their path in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|e| panic!("{}: {e}", next.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below it").to_owned();
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
fn the_output_for_vyos_s_samples_is_vyos_s_own() {
    let sample = sample();
    let folder = folder();
    for kind in ["config", "op"] {
        let out = folder.path().join(kind);
        built(kind, &[&sample.join(format!("{kind}.xml"))], &out, &[]);
        assert_same(&out, &sample.join(format!("{kind}-templates")), kind);
    }
    let out = folder.path().join("cache.py");
    built("cache", &[&sample.join("config.xml")], &out, &[]);
    let found = fs::read_to_string(&out).expect("written");
    let expected = fs::read_to_string(sample.join("weather_cache.py")).expect("there");
    assert_eq!(found.trim_end(), expected.trim_end());
}

#[test]
fn nodes_without_properties_can_be_left_out() {
    let sample = sample();
    let folder = folder();
    for (kind, left_out) in [("config", vec!["weather", "weather/station"]), ("op", vec!["show"])] {
        let out = folder.path().join(kind);
        built(kind, &[&sample.join(format!("{kind}.xml"))], &out, &["--owned-only"]);
        let mut expected = files(&sample.join(format!("{kind}-templates")));
        expected.retain(|path, _| left_out.iter().all(|node| *path != Path::new(node).join("node.def")));
        assert_eq!(files(&out), expected, "{kind}");
    }
}

#[test]
fn the_templates_are_current() {
    let definitions = repository().join("interface-definitions");
    let folder = folder();
    let (config, op) =
        (definitions.join("high-availability_vrrp_aws-vipa.xml"), definitions.join("op-mode/aws-vipa.xml"));
    let listed = |folder: &Path| {
        let entries = fs::read_dir(folder).expect("listed").map(|e| e.expect("an entry").path());
        entries.filter(|path| path.extension().is_some_and(|e| e == "xml")).collect::<Vec<_>>()
    };
    // The script takes all that are there.
    assert_eq!(listed(&definitions), [config.as_path()]);
    assert_eq!(listed(&definitions.join("op-mode")), [op.as_path()]);
    built("config", &[&config], &folder.path().join("cfg"), &["--owned-only"]);
    built("op", &[&op], &folder.path().join("op"), &["--owned-only"]);
    built("cache", &[&config], &folder.path().join("vyos_aws_vipa_cache.py"), &[]);
    assert_same(&repository().join("vyos-templates"), folder.path(), "run scripts/regenerate-templates");
}

#[test]
fn the_definitions_match_vyos_s_schemas() {
    // The schemas are VyOS's, and are not kept here.
    let schemas = repository().join("../shared/vyos/schema");
    if !schemas.is_dir() {
        return;
    }
    let samples = sample();
    let definitions = repository().join("interface-definitions");
    for (schema, files) in [
        (
            "interface_definition.rng",
            [definitions.join("high-availability_vrrp_aws-vipa.xml"), samples.join("config.xml")],
        ),
        ("op-mode-definition.rng", [definitions.join("op-mode/aws-vipa.xml"), samples.join("op.xml")]),
    ] {
        for file in files {
            let mut xmllint = Command::new("xmllint");
            let output = xmllint.arg("--noout").arg("--relaxng").arg(schemas.join(schema)).arg(&file).output();
            let output = output.expect("xmllint runs (Debian package libxml2-utils)");
            assert!(output.status.success(), "{}: {}", file.display(), text(&output.stderr));
        }
    }
}

#[test]
fn a_node_may_stand_in_two_files_that_agree() {
    let folder = folder();
    let [first, second, both] = ["first.xml", "second.xml", "both.xml"].map(|name| folder.path().join(name));
    let leaf = |name: &str| format!("<leafNode name='{name}'><properties><help>{name}</help></properties></leafNode>");
    let node = |about: &str, children: &str| {
        format!(
            "<interfaceDefinition><node name='a'>{about}<children>{children}</children></node></interfaceDefinition>"
        )
    };
    let about = "<properties><help>A</help></properties>";
    fs::write(&first, node("", &leaf("b"))).expect("written");
    fs::write(&second, node(about, &(leaf("c") + &leaf("b")))).expect("written");
    fs::write(&both, node(about, &(leaf("b") + &leaf("c")))).expect("written");
    let [two, one] = ["two", "one"].map(|name| folder.path().join(name));
    built("config", &[&first, &second], &two, &[]);
    built("config", &[&both], &one, &[]);
    assert_same(&two, &one, "the order of the files");
    built("cache", &[&first, &second], &two.join("cache.py"), &[]);
    built("cache", &[&both], &one.join("cache.py"), &[]);
    assert_same(&two, &one, "the cache");
}

/// A definition that is refused, by what goes into its root element, and a part of the message.
type Bad = (&'static str, &'static str, &'static str);

const BAD: &[Bad] = &[
    ("config", "<node name='a'>", "it is no XML"),
    ("config", "<node name='a'></nod>", "it is no XML"),
    ("config", "<node name='a' name='b'/>", "it is no XML"),
    ("config", "</interfaceDefinition><more/><interfaceDefinition>", "outside the root element"),
    ("config", "&nbsp;", "no entity &nbsp;"),
    ("config", "<?php?>", "processing instructions"),
    ("config", "words", "there is text in <interfaceDefinition>"),
    ("config", "<leafNode name='a'/>", ":2: <leafNode> in <interfaceDefinition> is not known"),
    ("config", "<syntaxVersion component='a' version='1'/>", "syntax version"),
    ("config", "<node/>", "<node> has no name"),
    ("config", "<node name='../a'/>", "a name begins with"),
    ("config", "<node name='a b'/>", "a name has letters"),
    ("config", "<node name='node.tag'/>", "VyOS has this name for itself"),
    ("config", "<node name='a' standalone='1'/>", "<node> has no attribute standalone"),
    ("config", "<node name='a'/>", ":2: node `a`: <node> has no <children>"),
    ("config", "<tagNode name='a'><children/></tagNode>", "<tagNode> in <interfaceDefinition> is not known"),
    ("config", "<node name='a'><children/></node>", "node `a`: <children> is empty"),
    ("config", "<node name='a'><children><virtualTagNode name='b'/></children></node>", "<virtualTagNode>"),
    (
        "config",
        "<node name='a'><children><leafNode name='b'/></children></node>",
        "node `a b`: <leafNode> has no <properties>",
    ),
    ("config", "<node name='a'><defaultValue>1</defaultValue>LEAF</node>", "<defaultValue> in <node> is not known"),
    ("config", "<node name='a'><properties/><properties/>LEAF</node>", "there is a second <properties>"),
    ("config", "<node name='a' owner='a.py'>LEAF</node>", "node `a`: it has an owner, which needs a <priority>"),
    ("config", "<node name='a' owner='a.py'><properties><help>A</help></properties>LEAF</node>", "needs a <priority>"),
    ("config", "<node name='a' owner='a.sh'><properties><priority>1</priority></properties>LEAF</node>", "NAME.py"),
    ("config", "<node name='a' owner=''><properties><priority>1</priority></properties>LEAF</node>", "NAME.py"),
    ("config", "<node name='a'><properties><priority>high</priority></properties>LEAF</node>", "no number"),
    ("config", "<node name='a'><properties><priority>0801</priority></properties>LEAF</node>", "no number"),
    ("config", "<node name='a'><properties><priority> 801</priority></properties>LEAF</node>", "white space"),
    (
        "config",
        "<node name='a'><properties><valueless/></properties>LEAF</node>",
        "<valueless/> is for <leafNode> alone",
    ),
    ("config", "<node name='a'><properties><multi/></properties>LEAF</node>", "<multi/> is for <leafNode> alone"),
    ("config", "<node name='a'><properties><keepChildOrder/></properties>LEAF</node>", "<keepChildOrder>"),
    ("config", "<node name='a'><properties><help/></properties>LEAF</node>", "<help> is empty"),
    ("config", "<node name='a'><properties><help>A<!-- b --></help></properties>LEAF</node>", "comment in <help>"),
    ("config", "<node name='a'><properties><help>A</help><help>B</help></properties>LEAF</node>", "second <help>"),
    ("config", "<node name='a'><properties><help>A<b/></help></properties>LEAF</node>", "which holds text"),
    ("config", "PROPERTIES(<help>\u{1}</help>)", "control character"),
    ("config", "PROPERTIES(<help a='b'>A</help>)", "<help> has no attribute a"),
    ("config", "PROPERTIES(<valueless/><multi/>)", "at once"),
    ("config", "PROPERTIES(<valueless>no</valueless>)", "<valueless> holds nothing"),
    ("config", "PROPERTIES(<valueless/>)<defaultValue>1</defaultValue>", "has a <defaultValue>"),
    ("config", "PROPERTIES(<help>A</help>)<defaultValue> </defaultValue>", "<defaultValue> is empty"),
    ("config", "PROPERTIES(<valueHelp><format>a</format></valueHelp>)", "<valueHelp> has no <description>"),
    ("config", "PROPERTIES(<completionHelp/>)", "offers nothing"),
    ("config", "PROPERTIES(<completionHelp><imagePath/></completionHelp>)", "<imagePath>"),
    (
        "config",
        "PROPERTIES(<completionHelp><list>a</list></completionHelp><completionHelp><list>b</list></completionHelp>)",
        "put all into one",
    ),
    ("config", "PROPERTIES(<constraint/>)", "<constraint> checks nothing"),
    ("config", "PROPERTIES(<constraint><regex> </regex></constraint>)", "<regex> is empty"),
    ("config", "PROPERTIES(<constraint><regex>'</regex></constraint>)", "holds a quote"),
    ("config", "PROPERTIES(<constraint><validator argument='a'/></constraint>)", "<validator> has no name"),
    ("config", "PROPERTIES(<constraint><validator name='a' argument='&quot;'/></constraint>)", "holds a quote"),
    (
        "config",
        "PROPERTIES(<constraint><regex>a</regex></constraint><constraint><regex>b</regex></constraint>)",
        "second <constraint>",
    ),
    ("config", "PROPERTIES(<constraintErrorMessage>A</constraintErrorMessage>)", "without a constraint"),
    (
        "config",
        "<node name='a'>LEAF</node><node name='a'><children><node name='b'>LEAF</node></children></node>",
        "node `a b`: it is a node of another kind than in",
    ),
    (
        "config",
        "PROPERTIES(<help>A</help>)</leafNode><leafNode name='b'><properties><help>B</help></properties>",
        "node `a b`: other things are said of it than in",
    ),
    (
        "config",
        "PROPERTIES(<multi/>)</leafNode><leafNode name='b'><properties><valueless/></properties>",
        "another kind",
    ),
    ("op", "<leafNode name='a'/>", "<leafNode> in <interfaceDefinition> is not known"),
    ("op", "<node name='a' owner='a.py'/>", "<node> has no attribute owner"),
    ("op", "<node name='a'><standalone/></node>", "<standalone> in <node> is not known"),
    ("op", "<node name='a'><command> </command></node>", "node `a`: <command> is empty"),
    ("op", "<tagNode name='a'/>", "node `a`: <tagNode> has no <properties>"),
    ("op", "<node name='a'><children/></node>", "<children> is empty"),
    (
        "op",
        "<node name='a'><properties><priority>1</priority></properties></node>",
        "<priority> in <properties> is not known",
    ),
    (
        "op",
        "<node name='a'><children><leafNode name='b'><properties/></leafNode></children></node>",
        "node `a b`: <leafNode> has no <command>",
    ),
    (
        "op",
        "<node name='a'><command>b</command></node><node name='a'><command>c</command></node>",
        "node `a`: other things are said of it than in",
    ),
    (
        "op",
        "<tagNode name='a'><properties><help>A</help></properties></tagNode><tagNode name='a'><properties><help>B</help></properties></tagNode>",
        "other things are said",
    ),
];

#[test]
fn what_cannot_be_generated_is_refused_with_its_place_and_nothing_is_written() {
    const LEAF: &str = "<children><leafNode name='b'><properties/></leafNode></children>";
    let properties = Regex::new(r"(?s)^PROPERTIES\((.*?)\)([^)]*)$").expect("a regular expression");
    for (kind, inside, expected) in BAD {
        let inside = properties.replace(
            inside,
            "<node name='a'><children><leafNode name='b'><properties>$1</properties>$2</leafNode></children></node>",
        );
        let folder = folder();
        let file = folder.path().join("bad.xml");
        let whole = format!("<interfaceDefinition>\n{}\n</interfaceDefinition>", inside.replace("LEAF", LEAF));
        fs::write(&file, &whole).expect("written");
        let kinds: &[&str] = if *kind == "config" { &["config", "cache"] } else { &["op"] };
        for kind in kinds {
            let output = build_templates(kind, &[&file], &folder.path().join("out"), &[]);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{kind} {whole}: {said}");
            assert!(said.contains(expected), "{kind} {whole}: {said}");
            assert!(said.contains(&format!("{}:", file.display())), "{kind} {whole}: no place in {said}");
            assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1, "{kind} {whole}: something is left");
        }
    }
}

#[test]
fn files_and_folders_that_do_not_serve_are_named_and_left_alone() {
    let sample = sample().join("config.xml");
    let folder = folder();
    let refused = |kind: &str, file: &Path, out: &Path, expected: &str| {
        let output = build_templates(kind, &[file], out, &[]);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{kind} {}: {said}", file.display());
    };
    let out = folder.path().join("out");
    refused("config", &folder.path().join("no.xml"), &out, "cannot read");
    for (text, expected) in [
        ("", "there is no element"),
        ("<?xml version='1.0' encoding='latin1'?><interfaceDefinition/>", "not UTF-8"),
        ("<!DOCTYPE a><interfaceDefinition/>", "no document type"),
        ("<other/>", "<other> is no <interfaceDefinition>"),
        (&"<a>".repeat(200), "nested more than"),
    ] {
        let file = folder.path().join("bad.xml");
        fs::write(&file, text).expect("written");
        refused("config", &file, &out, expected);
        refused("op", &file, &out, expected);
    }
    fs::create_dir(&out).expect("made");
    built("config", &[&sample], &out, &[]);
    let before = files(&out);
    refused("config", &sample, &out, "not an empty folder");
    refused("config", &sample, &folder.path().join("bad.xml"), "not an empty folder");
    refused("config", &sample, &folder.path().join("no/where"), "cannot write");
    refused("cache", &sample, &out, "cannot write");
    assert_eq!(files(&out), before);
}
