//! Operational commands, as VyOS rolling runs them for operators: with the part of op_cache.json that the package installs,
//! and a stand-in for vyos-op-run.

#[path = "../definitions/op_runs.rs"]
mod op_runs;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use op_runs::op_runs;
use serde_json::{Value, json};

const OPERATOR: &str = "ann";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cache() -> PathBuf {
    repository().join("vyos-templates/op_cache.json")
}

/// A directory with stand-ins for the called programs, which print their arguments.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join("bin")).expect("made");
    for name in ["sudo", "journalctl"] {
        let program = directory.path().join("bin").join(name);
        let words = if name == "sudo" { "\"$@\"" } else { "\"${0##*/}\" \"$@\"" };
        fs::write(&program, format!("#!/bin/sh\nprintf '[%s]' {words}\n")).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("set");
    }
    directory
}

/// Runs a command as an operator, and returns the call that it makes, or why it was refused. It must have no other effect.
fn run(policies: &[&str], words: &[&str]) -> Result<String, String> {
    run_by("\"$@\"", policies, words)
}

/// The same from VyOS's command line, which evaluates an operator's words once more (vyos-1x vyatta-op-run).
fn typed(words: &[&str]) -> Result<String, String> {
    run_by(
        "runner=$1 cache=$2 operators=$3 user=$4; shift 4; words=\"$@\"; eval \"$runner $cache $operators $user $words\"",
        &["*"],
        words,
    )
}

/// Runs vyos-op-run from a script of bash, which gets vyos-op-run and its arguments.
fn run_by(script: &str, policies: &[&str], words: &[&str]) -> Result<String, String> {
    let directory = directory();
    let allow: Vec<Vec<&str>> = policies.iter().map(|policy| policy.split(' ').collect()).collect();
    let operators =
        json!({ "users": { OPERATOR: ["group"] }, "groups": { "group": { "command_policy": { "allow": allow } } } });
    let file = directory.path().join("bin/operators.json");
    fs::write(&file, operators.to_string()).expect("written");
    let path = format!("{}:/usr/bin:/bin", directory.path().join("bin").display());
    let runner = repository().join("tests/operators/vyos-op-run");
    let output = Command::new("bash")
        .args(["-c", script, "bash"])
        .args([runner.as_path(), &cache(), &file, Path::new(OPERATOR)])
        .args(words)
        .env("PATH", path)
        .current_dir(directory.path())
        .output()
        .expect("python3 runs");
    assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1, "{words:?}: an argument was executed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[track_caller]
fn refused(words: &[&str], why: &str) {
    match run(&["*"], words) {
        Err(said) => assert!(said.contains(why) && !said.contains("Traceback"), "{words:?}: {said}"),
        Ok(called) => panic!("{words:?}: {called}"),
    }
}

/// Collects the commands of the cache, by their words.
fn commands(node: &Value, words: &str, found: &mut BTreeMap<String, String>) {
    let data = &node["__node_data"];
    let words = match data["node_type"].as_str() {
        Some("tagNode") => format!("{words} <>"),
        _ => words.to_owned(),
    };
    if let Some(command) = data["command"].as_str() {
        found.insert(words.trim_start().to_owned(), command.to_owned());
    }
    for (word, child) in node.as_object().expect("a node").iter().filter(|(word, _)| *word != "__node_data") {
        commands(child, &format!("{words} {word}"), found);
    }
}

#[test]
fn operators_have_the_same_commands_as_administrators() {
    let (mut operators, administrators) = (BTreeMap::new(), op_runs());
    let text = fs::read_to_string(cache()).expect("the part of op_cache.json");
    commands(&serde_json::from_str(&text).expect("JSON"), "", &mut operators);
    assert!(operators.len() >= 18, "{operators:#?}");
    assert_eq!(operators.keys().collect::<Vec<_>>(), administrators.keys().collect::<Vec<_>>());
    for (words, run) in administrators {
        // `"$4"` is the fourth word.
        let word = |text: &str| (1..9).fold(text.to_owned(), |text, n| text.replace(&format!("\"${n}\""), "''"));
        let placeholder = regex_lite::Regex::new(r"'\{\{[a-z-]+-tag_value\}\}'").expect("a pattern");
        assert_eq!(placeholder.replace_all(&operators[&words], "''"), word(&run), "{words}");
    }
}

#[test]
fn commands_call_the_program_with_their_arguments() {
    const LOG: &str = "[journalctl][--no-pager][--no-hostname][--output][short-iso-precise][--boot]";
    for (words, expected) in [
        ("show aws-vipa status", "[/usr/bin/vyos-aws-vipa][show][status]".to_owned()),
        ("show aws-vipa status json", "[/usr/bin/vyos-aws-vipa][show][status][--json]".to_owned()),
        ("show aws-vipa group LAN", "[/usr/bin/vyos-aws-vipa][show][group][--][LAN]".to_owned()),
        ("force aws-vipa prove", "[/usr/bin/vyos-aws-vipa][force][prove]".to_owned()),
        ("show aws-vipa failover", "[/usr/bin/vyos-aws-vipa][show][failover]".to_owned()),
        ("show aws-vipa failover json", "[/usr/bin/vyos-aws-vipa][show][failover][--json]".to_owned()),
        ("show aws-vipa failover group LAN", "[/usr/bin/vyos-aws-vipa][show][failover][--][LAN]".to_owned()),
        (
            "show aws-vipa failover group LAN json",
            "[/usr/bin/vyos-aws-vipa][show][failover][--json][--][LAN]".to_owned(),
        ),
        ("show log aws-vipa", format!("{LOG}[--unit][vyos-aws-vipa.service]")),
        ("monitor log aws-vipa", format!("{LOG}[--follow][--unit][vyos-aws-vipa.service]")),
        ("restart aws-vipa", "[/usr/bin/vyos-aws-vipa][restart]".to_owned()),
        ("generate aws-vipa iam-policy", "[/usr/bin/vyos-aws-vipa][generate][iam-policy]".to_owned()),
        (
            "generate aws-vipa iam-policy tag Role=router",
            "[/usr/bin/vyos-aws-vipa][generate][iam-policy][--tag=Role=router]".to_owned(),
        ),
        (
            "reset aws-vipa pause LAN minutes 90",
            "[/usr/bin/vyos-aws-vipa][force][pause][--minutes=90][--][LAN]".to_owned(),
        ),
    ] {
        let words: Vec<_> = words.split(' ').collect();
        assert_eq!(run(&["*"], &words), Ok(expected.clone()), "{words:?}");
        assert_eq!(typed(&words), Ok(expected), "{words:?}");
    }
    // Quotes for both evaluations.
    let expected = "[/usr/bin/vyos-aws-vipa][show][group][--][a;b c]".to_owned();
    assert_eq!(typed(&["show", "aws-vipa", "group", "'a;b c'"]), Ok(expected));
    refused(&["show", "aws-vipa"], "Incomplete");
    refused(&["show", "aws-vipa", "group"], "Incomplete");
    refused(&["show", "aws-vipa", "states"], "not a valid argument");
}

#[test]
fn names_of_groups_reach_the_program_unchanged() {
    const NAMES: [&str; 13] = [
        "LAN",
        "-h",
        "a b",
        "$HOME",
        "$(touch hurt)",
        "`touch hurt`",
        "a;touch hurt",
        "a\\b",
        "(",
        "$",
        "a|b",
        "*",
        "ü",
    ];
    for (verb, name) in NAMES.map(|name| ("force", name)).into_iter().chain([("reset", "LAN"), ("reset", "a b")]) {
        for (words, before) in [
            (vec![verb, "aws-vipa", "claim", name], "[force][claim][--]["),
            (vec![verb, "aws-vipa", "pause", name], "[force][pause][--]["),
            (vec![verb, "aws-vipa", "pause", name, "minutes", "7"], "[force][pause][--minutes=7][--]["),
            (vec![verb, "aws-vipa", "resume", name], "[force][resume][--]["),
            (vec!["show", "aws-vipa", "group", name], "[show][group][--]["),
        ] {
            let expected = format!("[/usr/bin/vyos-aws-vipa]{before}{name}]");
            assert_eq!(run(&["*"], &words), Ok(expected), "{words:?}");
        }
    }
    for tag in ["Role=router", "a=", "Name=router a", "a:b/c=@+-._", "ä=ü", "a=b=c"] {
        let expected = format!("[/usr/bin/vyos-aws-vipa][generate][iam-policy][--tag={tag}]");
        assert_eq!(run(&["*"], &["generate", "aws-vipa", "iam-policy", "tag", tag]), Ok(expected), "{tag}");
    }
}

/// vyos-op-run would pass them on changed.
#[test]
fn other_arguments_are_rejected_with_the_reason() {
    for name in ["a&b", "<a>", "a$@", "a$*b", "a\nb"] {
        refused(&["show", "aws-vipa", "group", name], "Only an administrator can name a group");
    }
    for name in ["a'b", "a\"b"] {
        refused(&["show", "aws-vipa", "group", name], "Quote characters");
    }
    for minutes in ["0", "1441", "01", "5;id", "-5", "x"] {
        refused(&["force", "aws-vipa", "pause", "LAN", "minutes", minutes], "Must be 1 to 1440 minutes");
    }
    for minutes in ["1", "9", "60", "999", "1000", "1399", "1400", "1439", "1440"] {
        let expected = format!("[/usr/bin/vyos-aws-vipa][force][pause][--minutes={minutes}][--][LAN]");
        assert_eq!(run(&["*"], &["force", "aws-vipa", "pause", "LAN", "minutes", minutes]), Ok(expected));
    }
    for tag in ["a", "=a", "a=$b", "a=<b>"] {
        refused(&["generate", "aws-vipa", "iam-policy", "tag", tag], "Must be KEY=VALUE");
    }
}

/// vyos-op-run does not check the name before `minutes`, and replaces `$@` in it after quoting.
#[test]
fn quotes_in_an_unchecked_argument_do_not_end_the_quotes_of_the_command() {
    for name in ["a';touch hurt;'", "a\";touch hurt;\"", "';touch hurt #"] {
        let called = run(&["*"], &["force", "aws-vipa", "pause", name, "minutes", "5"]).expect("run");
        assert!(called.starts_with("[/usr/bin/vyos-aws-vipa][force][pause][--minutes=5][--]["), "{called}");
    }
}

/// The operator groups of the document allow and refuse the commands that it says.
#[test]
fn the_documented_operator_groups_allow_the_documented_commands() {
    let commands = fs::read_to_string(repository().join("docs/operations/commands.md")).expect("the document");
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in commands.lines().filter_map(|line| line.strip_prefix("set system login operator-group ")) {
        let (group, policy) = line.split_once(" command-policy allow ").expect("a policy");
        groups.entry(group).or_default().push(policy.trim_matches('\''));
    }
    assert_eq!(groups.keys().copied().collect::<Vec<_>>(), ["vipa-operate", "vipa-view"]);
    let looks = ["show aws-vipa status", "show aws-vipa check", "show aws-vipa group LAN", "show log aws-vipa"];
    let acts = ["force aws-vipa claim LAN", "reset aws-vipa resume LAN", "restart aws-vipa"];
    for (group, policies) in groups {
        let is_allowed = |command: &str| run(&policies, &command.split(' ').collect::<Vec<_>>()).is_ok();
        assert!(looks.iter().all(|command| is_allowed(command)), "{group}");
        assert!(acts.iter().all(|command| is_allowed(command) == (group == "vipa-operate")), "{group}");
        assert!(run(&policies, &["reset", "vpn"]).expect_err("refused").contains("permission"), "{group}");
    }
}
