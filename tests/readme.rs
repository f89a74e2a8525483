//! README and the manual page name what the program says and what can be configured: both have to be there.

mod definitions;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use definitions::{Refused, check_set, run_of};
use lab::Configuration;
use serde_json::json;
use vyos_aws_vipa::vyos::input::Input;
use vyos_aws_vipa::vyos::verify::{Surroundings, verify};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file")
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
    let (_, below) = readme.split_once("\n## Troubleshooting\n").expect("the chapter");
    let (chapter, _) = below.split_once("\n## ").expect("a chapter after it");
    let rows = chapter.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.flat_map(|row| row.split('|').nth(2).expect("a second column").split('`').skip(1).step_by(2)).collect()
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
    let mut missing: Vec<_> = nodes.into_iter().filter(|node| !readme.contains(&format!("\n| `{node}"))).collect();
    let (_, commands) = readme.split_once("\n## Commands\n").expect("the chapter");
    let (commands, _) = commands.split_once("\n## ").expect("a chapter after it");
    for kind in ["leafNode", "tagNode"] {
        let words = names("interface-definitions/op-mode/aws-vipa.xml", kind);
        assert!(words.len() > 3, "{words:?}");
        missing.extend(words.into_iter().filter(|word| !commands.contains(word.as_str())));
    }
    assert!(missing.is_empty(), "not in README: {missing:?}");
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

/// Each word of a command misspelt in turn, from the first of ours on; values stay.
fn misspelt(command: &str) -> Vec<String> {
    let words: Vec<&str> = command.split(' ').collect();
    let ours = words.iter().position(|word| *word == "aws-vipa").expect("one of our nodes");
    let is_node = |word: &str| !word.contains(['/', '.', ':', '<']) && !word.starts_with(|c: char| c.is_ascii_digit());
    (ours..words.len())
        .filter(|at| is_node(words[*at]))
        .map(|at| {
            let wrong = format!("{}x", words[at]);
            words
                .iter()
                .enumerate()
                .map(|(n, word)| if n == at { wrong.as_str() } else { *word })
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

#[test]
fn every_example_is_taken_by_the_definitions_and_none_that_is_misspelt() {
    let readme = read("README.md");
    let (ours, vyos): (Vec<&str>, Vec<&str>) =
        set_commands(&readme).into_iter().partition(|command| command.contains(" aws-vipa"));
    assert!(ours.len() >= 6 && vyos.len() >= 18, "{ours:?} {vyos:?}");
    for command in ours {
        assert_eq!(check_set(command), Ok(()), "{command}");
        for wrong in misspelt(command) {
            assert!(check_set(&wrong).is_err(), "{wrong}");
        }
    }
    for command in vyos {
        assert_eq!(check_set(command), Err(Refused::NotOurs), "{command}");
    }
}

/// The operational commands, as the table of README has them, with values for what is in `<>`.
#[test]
fn every_operational_command_is_there_and_none_that_is_misspelt() {
    let readme = read("README.md");
    let (_, chapter) = readme.split_once("\n## Commands\n").expect("the chapter");
    let (chapter, _) = chapter.split_once("\n## ").expect("a chapter after it");
    let rows = chapter.lines().filter(|line| line.starts_with("| `"));
    let commands: Vec<&str> = rows
        .flat_map(|row| row.split('|').nth(1).expect("a first column").split('`').skip(1).step_by(2))
        .filter(|command| command.contains("aws-vipa"))
        .collect();
    assert!(commands.len() >= 9, "{commands:?}");
    for command in commands {
        let command = command.replace("<group>", "web").replace("<n>", "5");
        assert!(run_of(&command).is_ok(), "{command}: {:?}", run_of(&command));
        for wrong in misspelt(&command).iter().filter(|wrong| !wrong.ends_with(" webx")) {
            assert!(run_of(wrong).is_err(), "{wrong}");
        }
    }
}

/// `commit` finds nothing wrong with the whole set-up, and warns of nothing but the file that is not on this machine.
#[test]
fn the_whole_set_up_commits() {
    let readme = read("README.md");
    let (_, chapter) = readme.split_once("\n## A whole set-up\n").expect("the chapter");
    let (chapter, _) = chapter.split_once("\n## ").expect("a chapter after it");
    let (first, second) = chapter.split_once("\nRouter 2:\n").expect("two routers");
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
        let outcome = verify(&input, &Surroundings { interfaces, mode: &|_| None });
        assert_eq!(outcome.faults, []);
        assert_eq!(outcome.config.groups.len(), 1);
        assert!(
            matches!(&outcome.warnings[..], [one] if one.contains("/config/aws/credentials is not there")),
            "{outcome:?}"
        );
    }
}
