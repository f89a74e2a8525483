//! README names what the program says and what can be configured: both have to be there.

use std::fs;
use std::path::Path;

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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("a file");
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
