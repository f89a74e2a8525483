//! README and the manual page name what the program says and what can be configured: both have to be there.

mod definitions;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use definitions::{Refused, check_set, run_of, templates};
use lab::Configuration;
use regex_lite::Regex;
use serde_json::{Value, json};
use vyos_aws_vipa::vyos::input::Input;
use vyos_aws_vipa::vyos::verify::{Surroundings, verify};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file")
}

/// The text below a heading `## …` of README.
fn chapter<'a>(readme: &'a str, title: &str) -> &'a str {
    let (_, below) = readme.split_once(&format!("\n## {title}\n")).expect("the chapter");
    below.split_once("\n## ").expect("a chapter after it").0
}

/// What stands in backticks.
fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The sources below a folder, one after the other.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// Text as the compiler sees a string literal: a backslash at the end of a line takes the next line's indentation away.
fn joined(text: &str) -> String {
    text.split("\\\n").enumerate().map(|(n, part)| if n > 0 { part.trim_start() } else { part }).collect()
}

/// The second column of the table below `## Troubleshooting`, its backticked parts.
fn quoted(readme: &str) -> Vec<&str> {
    let rows = chapter(readme, "Troubleshooting").lines().filter(|line| line.starts_with('|')).skip(2);
    rows.flat_map(|row| backticked(row.split('|').nth(2).expect("a second column"))).collect()
}

#[test]
fn the_messages_to_look_for_are_those_of_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    sources(&root.join("src"), &mut text);
    let text = joined(&text);
    let readme = fs::read_to_string(root.join("README.md")).expect("README.md");
    let quoted = quoted(&readme);
    assert!(quoted.len() > 20, "{quoted:#?}");
    let missing: Vec<_> = quoted.iter().filter(|quote| !text.contains(**quote)).collect();
    assert!(missing.is_empty(), "not in src: {missing:#?}");
}

#[test]
fn every_node_and_command_is_in_the_readme() {
    let readme = read("README.md");
    let names = |path: &str, kind: &str| -> Vec<String> {
        let (xml, start) = (read(path), format!("<{kind} name=\""));
        let parts = xml.split(&start).skip(1);
        parts.filter_map(|part| Some(part.split_once('"')?.0.to_owned())).collect()
    };
    let nodes = names("interface-definitions/high-availability_vrrp_aws-vipa.xml", "leafNode");
    assert!(nodes.len() > 10, "{nodes:?}");
    let missing: Vec<_> = nodes.into_iter().filter(|node| !readme.contains(&format!("\n| `{node}"))).collect();
    assert!(missing.is_empty(), "not in README: {missing:?}");
    let value = Regex::new("<[^>]*>").expect("a regular expression");
    let told = operational_commands(chapter(&readme, "Commands")).into_iter();
    let told: BTreeSet<String> = told.map(|command| value.replace_all(command, "<>").into_owned()).collect();
    let mut installed = BTreeSet::new();
    runnable(&templates().join("op"), "", &mut installed);
    assert!(installed.len() > 12, "{installed:?}");
    assert_eq!(told, installed);
}

/// The operational commands that the package installs, with `<>` for a value.
fn runnable(folder: &Path, words: &str, found: &mut BTreeSet<String>) {
    for path in fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()) {
        match path.file_name().and_then(|name| name.to_str()).expect("a name") {
            "node.def" if fs::read_to_string(&path).expect("a template").contains("\nrun:") => {
                found.insert(words.trim_start().to_owned());
            }
            "node.def" => {}
            "node.tag" => runnable(&path, &format!("{words} <>"), found),
            word => runnable(&path, &format!("{words} {word}"), found),
        }
    }
}

/// The `set` commands of a text, behind a prompt or not.
fn set_commands(text: &str) -> Vec<&str> {
    text.lines()
        .map(|line| {
            line.split_once("# ").filter(|(prompt, _)| prompt.starts_with("vyos@")).map_or(line, |(_, rest)| rest)
        })
        .filter(|line| line.starts_with("set "))
        .collect()
}

/// The operational commands of a text: in backticks, and behind a prompt.
fn operational_commands(text: &str) -> Vec<&str> {
    let typed =
        text.lines().filter(|line| line.starts_with("vyos@")).filter_map(|line| Some(line.split_once(":~$ ")?.1));
    let is_ours = |command: &&str| {
        let (verb, rest) = command.split_once(' ').unwrap_or_default();
        ["show", "monitor", "force", "restart", "generate"].contains(&verb) && rest.contains("aws-vipa")
    };
    backticked(text).chain(typed).filter(is_ours).collect()
}

/// The commands of VyOS in the manual page: in bold, with what stands for a value in italics.
fn commands_of_the_manual() -> Vec<String> {
    let manual = read("debian/vyos-aws-vipa.8").replace(r"\-", "-");
    let mut commands = vec![String::new()];
    for line in manual.lines() {
        match line.split_once(' ') {
            Some((".B", words)) => *commands.last_mut().expect("one") += &format!("{words} "),
            Some((".I" | ".IR", words)) => {
                *commands.last_mut().expect("one") += &format!("<{}> ", words.trim_end_matches(" ."));
            }
            _ => commands.push(String::new()),
        }
    }
    let commands = commands.into_iter().map(|command| command.trim_end().to_owned());
    commands.filter(|command| command.contains(" aws-vipa") && !command.starts_with("vyos-aws-vipa")).collect()
}

/// A command with values for what is in `<>`, and the same with each word misspelt in turn that is no value.
fn filled_in(command: &str) -> (String, Vec<String>) {
    let words: Vec<&str> = command.split(' ').collect();
    let is_value = |at: usize| {
        let word = words[at];
        let is_name = at == 4 && words[..4] == ["set", "high-availability", "vrrp", "group"];
        is_name || word.contains(['/', '.', ':', '<']) || word.starts_with(|c: char| c.is_ascii_digit())
    };
    let value = |word: &str| match word {
        "<n>" => "5".to_owned(),
        "<key=value>" => "Role=router".to_owned(),
        _ => word.replace("<group>", "web"),
    };
    let text = |wrong: Option<usize>| {
        let words = words.iter().enumerate();
        let words = words.map(|(at, word)| if wrong == Some(at) { format!("{word}x") } else { value(word) });
        words.collect::<Vec<_>>().join(" ")
    };
    (text(None), (0..words.len()).filter(|at| !is_value(*at)).map(|at| text(Some(at))).collect())
}

/// The nodes of VyOS's own that the examples set in a group, and whether they take a value.
const VYOS_NODES: [(&str, bool); 7] = [
    ("address", true),
    ("hello-source-address", true),
    ("interface", true),
    ("no-preempt", false),
    ("peer-address", true),
    ("priority", true),
    ("vrid", true),
];

fn is_vyos_s(command: &str) -> bool {
    match command.split(' ').collect::<Vec<_>>()[..] {
        ["set", "high-availability", "vrrp", "group", _, node] => VYOS_NODES.contains(&(node, false)),
        ["set", "high-availability", "vrrp", "group", _, node, _] => VYOS_NODES.contains(&(node, true)),
        _ => false,
    }
}

#[test]
fn every_example_is_taken_by_the_definitions_and_none_that_is_misspelt() {
    let readme = read("README.md");
    let manual = commands_of_the_manual();
    let manual: Vec<&str> = manual.iter().map(String::as_str).filter(|command| command.starts_with("set ")).collect();
    assert_eq!(manual, ["set high-availability vrrp group <group> aws-vipa"]);
    let (ours, vyos): (Vec<&str>, Vec<&str>) =
        set_commands(&readme).into_iter().partition(|command| command.contains(" aws-vipa"));
    assert!(ours.len() >= 6 && vyos.len() >= 18, "{ours:?} {vyos:?}");
    for command in ours.into_iter().chain(manual) {
        let (command, misspelt) = filled_in(command);
        assert_eq!(check_set(&command), Ok(()), "{command}");
        assert!(misspelt.len() >= 5, "{misspelt:?}");
        for wrong in misspelt {
            assert!(check_set(&wrong).is_err(), "{wrong}");
        }
    }
    for command in vyos {
        let (command, misspelt) = filled_in(command);
        assert!(check_set(&command) == Err(Refused::NotOurs) && is_vyos_s(&command), "{command}");
        // The name of an interface is a value.
        let misspelt: Vec<_> = misspelt.into_iter().filter(|wrong| !wrong.ends_with(" eth0x")).collect();
        assert!(misspelt.len() == 5, "{misspelt:?}");
        for wrong in misspelt {
            assert!(!is_vyos_s(&wrong), "{wrong}");
        }
    }
}

/// The operational commands, with values for what is in `<>`.
#[test]
fn every_operational_command_is_there_and_none_that_is_misspelt() {
    let readme = read("README.md");
    let manual = commands_of_the_manual();
    let manual = manual.iter().map(String::as_str).filter(|command| !command.starts_with("set "));
    let commands: BTreeSet<&str> = operational_commands(&readme).into_iter().chain(manual).collect();
    assert!(commands.len() >= 13, "{commands:?}");
    for command in commands {
        let (command, misspelt) = filled_in(command);
        assert!(run_of(&command).is_ok(), "{command}: {:?}", run_of(&command));
        for wrong in misspelt {
            assert!(run_of(&wrong).is_err(), "{wrong}");
        }
    }
}

/// `commit` finds nothing wrong with the whole set-up, and warns of nothing but the file that is not on this machine.
#[test]
fn the_whole_set_up_commits() {
    let readme = read("README.md");
    let (first, second) = chapter(&readme, "A whole set-up").split_once("\nRouter 2:\n").expect("two routers");
    for (commands, own) in [(first, "10.99.0.11/24"), (second, "10.99.0.12/24")] {
        let mut configuration = Configuration::default();
        set_commands(commands).into_iter().for_each(|command| configuration.perform(command));
        let input = json!({
            "format": 1,
            "boot": false,
            "proposed": configuration.dict(),
            "effective": {},
            "interface-addresses": { "eth0": [own] },
        });
        let input = Input::read(&mut input.to_string().as_bytes()).expect("what the owner hands over");
        let interfaces = BTreeMap::from([("eth0".to_owned(), vec![own.to_owned()])]);
        let outcome = verify(&input, &Surroundings { interfaces, mode: &|_| Ok(None) });
        assert_eq!(outcome.faults, []);
        assert_eq!(outcome.config.groups.len(), 1);
        assert!(
            matches!(&outcome.warnings[..], [one] if one.contains("/config/aws/credentials is not there")),
            "{outcome:?}"
        );
    }
}

/// Every field of a JSON value by its path, such as `groups[].name`.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                paths(value, &below, found);
                found.insert(below);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| paths(value, &format!("{path}[]"), found)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_status_as_json_is_in_the_readme_and_no_other() {
    let mut printed = BTreeSet::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/status")).expect("a folder").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let value = fs::read_to_string(&path).expect("a pinned report");
            let value: Value = serde_json::from_str(&value).expect("JSON");
            // Where it is an array, it is the history of a report.
            paths(&if value.is_array() { json!({ "history": value }) } else { value }, "", &mut printed);
        }
    }
    assert!(printed.len() > 80, "{printed:#?}");
    let readme = read("README.md");
    let mut named = BTreeSet::new();
    let mut objects = Vec::new();
    for line in chapter(&readme, "The status as JSON").lines().take_while(|line| *line != "The words:") {
        match line.strip_prefix('|') {
            Some(row) => {
                let names = backticked(row.split('|').next().expect("a first column"));
                for name in names {
                    named.extend(objects.iter().map(|object| format!("{object}{name}")));
                }
            }
            // The line above a table says what has these fields.
            None if line == "The report:" => objects = vec![String::new()],
            None if !line.is_empty() => {
                let (before, _) = line.split_once(';').unwrap_or((line, ""));
                objects = backticked(before).map(|object| format!("{object}.")).collect();
            }
            None => {}
        }
    }
    let missing: Vec<_> = printed.difference(&named).collect();
    assert!(missing.is_empty(), "not in README: {missing:#?}");
    let unknown: Vec<_> = named.difference(&printed).collect();
    assert!(unknown.is_empty(), "in README, and not printed: {unknown:#?}");
}

/// The variants of an enum in a source, as words with hyphens.
fn words_of(path: &str, name: &str) -> Vec<String> {
    let source = read(path);
    let (_, below) = source.split_once(&format!("\npub enum {name} {{\n")).expect("the enum");
    let (body, _) = below.split_once("\n}\n").expect("its end");
    let variants =
        body.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| line.starts_with(char::is_uppercase));
    let part = Regex::new("[A-Z][a-z]*").expect("a regular expression");
    variants
        .map(|line| part.find_iter(line).map(|part| part.as_str().to_lowercase()).collect::<Vec<_>>().join("-"))
        .collect()
}

#[test]
fn every_word_of_the_status_as_json_is_in_the_readme() {
    let readme = read("README.md");
    let (_, table) = chapter(&readme, "The status as JSON").split_once("\nThe words:\n").expect("its table");
    let mut field = "";
    let mut told: Vec<(&str, &str)> = Vec::new();
    for row in table.lines().filter(|line| line.starts_with('|')).skip(2) {
        let columns: Vec<_> = row.split('|').collect();
        field = backticked(columns[1]).next().unwrap_or(field);
        told.extend(backticked(columns[2]).map(|word| (field, word)));
    }
    let mut expected: Vec<(&str, String)> = Vec::new();
    for (field, path, name) in [
        ("vrrp", "src/status/report.rs", "Vrrp"),
        ("verdict", "src/status/report.rs", "Verdict"),
        ("file_fault", "src/status/report.rs", "FileFault"),
        ("who", "src/status/report.rs", "Who"),
        ("taker", "src/ownership.rs", "Taker"),
        ("kind", "src/state.rs", "Kind"),
        ("outcome", "src/state.rs", "Outcome"),
        ("class", "src/ownership.rs", "ErrorClass"),
    ] {
        let words = words_of(path, name);
        assert!(words.len() > 1, "{name}: {words:?}");
        let is_upper = matches!(field, "vrrp" | "verdict");
        expected.extend(words.into_iter().map(|word| (field, if is_upper { word.to_uppercase() } else { word })));
    }
    let told: BTreeSet<_> = told.into_iter().map(|(field, word)| (field, word.to_owned())).collect();
    assert_eq!(told, BTreeSet::from_iter(expected));
}
