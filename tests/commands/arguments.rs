//! The command line: accepted and rejected arguments, help and version.

use std::process::{Command, Stdio};

use clap::{FromArgMatches, Subcommand};
use vyos_aws_vipa::commands::force::Force;
use vyos_aws_vipa::commands::{self, Show};

/// The command for these arguments, or the error.
fn parse(words: &[&str]) -> Result<commands::Command, clap::Error> {
    let program = commands::Command::augment_subcommands(clap::Command::new("vyos-aws-vipa"));
    let matches = program.try_get_matches_from([&["vyos-aws-vipa"], words].concat())?;
    commands::Command::from_arg_matches(&matches)
}

#[test]
fn a_group_may_have_any_name_that_keepalived_carries() {
    for name in ["web", "$(reboot)", "a;b", "-x", "--help", "a\\b", "x@y~", "status"] {
        for words in [
            vec!["show", "group", "--", name],
            vec!["force", "claim", "--", name],
            vec!["force", "pause", "--", name],
            vec!["force", "pause", "--minutes", "5", "--", name],
            vec!["force", "resume", "--", name],
        ] {
            let (group, minutes) = match parse(&words).unwrap_or_else(|e| panic!("{words:?}: {e}")) {
                commands::Command::Show { what: Show::Group(show) } => (show.group, None),
                commands::Command::Force { what: Force::Pause { group, minutes } } => {
                    (group.into(), Some(minutes.get()))
                }
                commands::Command::Force { what: Force::Claim { group } | Force::Resume { group } } => {
                    (group.into(), None)
                }
                other => panic!("{words:?}: {other:?}"),
            };
            assert_eq!(group.as_str(), name, "{words:?}");
            let expected = (words[1] == "pause").then_some(if words.contains(&"5") { 5 } else { 30 });
            assert_eq!(minutes, expected, "{words:?}");
        }
    }
}

#[test]
fn invalid_arguments_are_rejected_with_the_reason() {
    for (words, reason) in [
        (&["force", "pause", "--minutes", "0", "--", "web"][..], "from 1 to 1440 minutes"),
        (&["force", "pause", "--minutes", "1441", "--", "web"], "from 1 to 1440 minutes"),
        (&["force", "pause", "--minutes", "an hour", "--", "web"], "from 1 to 1440 minutes"),
        (&["force", "claim", "--", "a b"], "white space"),
        (&["force", "claim"], "<GROUP>"),
        (&["force", "claim", "--", ""], "empty"),
        (&["generate", "iam-policy", "--tag", "a"], "KEY=VALUE"),
        (&["show", "nothing"], "unrecognized subcommand"),
    ] {
        let error = parse(words).expect_err("refused").to_string();
        assert!(error.contains(reason), "{words:?}: {error}");
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vyos-aws-vipa"))
}

#[test]
fn the_program_prints_its_version_and_commands() {
    let said = |words: &[&str]| {
        let output = program().args(words).output().expect("it runs");
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(said(&["--version"]), format!("vyos-aws-vipa {}\n", env!("CARGO_PKG_VERSION")));
    let help = said(&["--help"]);
    for command in ["commit", "hook", "agent", "show", "force", "generate"] {
        assert!(help.contains(&format!("\n  {command}")), "{command}: {help}");
    }
    for (words, expected) in [
        (&["show", "--help"][..], &["status", "group", "failover", "check"][..]),
        (&["show", "status", "--help"], &["--json", "--fresh", "--detail"]),
        (&["force", "--help"], &["claim", "pause", "prove", "resume"]),
        (&["force", "pause", "--help"], &["--minutes", "[default: 30]"]),
        (&["generate", "iam-policy", "--help"], &["--tag <KEY=VALUE>"]),
    ] {
        let help = said(words);
        assert!(expected.iter().all(|word| help.contains(word)), "{words:?}: {help}");
    }
}

/// VyOS's commands have no options, and its terminals have 80 columns.
#[test]
fn errors_name_commands_of_vyos_and_fit_on_its_terminal() {
    let long = "a-name-of-a-group-that-is-unknown ".repeat(4);
    for (words, code, expected) in [
        (&["show", "status"][..], 1, "is not configured: `set high-availability vrrp group <group> aws-vipa`"),
        (&["show", "group", "--", "a b"], 1, "is not configured"),
        (&["force", "pause", "--minutes=0", "--", "web"], 2, "a pause lasts from 1 to 1440 minutes, not 0"),
        (&["force", "claim", "--", "a b"], 2, "or a control character; `show aws-vipa status` lists the groups"),
        (&["force", "claim", "--", long.trim()], 2, "it contains white space"),
        (&["generate", "iam-policy", "--tag=a"], 2, "a tag must be KEY=VALUE, not \"a\""),
    ] {
        let output = program().args(words).output().expect("it runs");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.lines().all(|line| line.chars().count() <= 80) && !said.contains("--"), "{words:?}: {said}");
        let joined = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(joined.starts_with("vyos-aws-vipa: ") && joined.contains(expected), "{words:?}: {said}");
    }
}

#[test]
fn a_closed_standard_error_is_no_crash() {
    let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
    drop(reader);
    // With or without a configuration on this machine, it must exit and not end by a signal.
    let status = program()
        .args(["force", "claim", "--", "no-such-group"])
        .stdout(Stdio::null())
        .stderr(Stdio::from(writer))
        .status()
        .expect("it runs");
    assert_eq!(status.code(), Some(1), "{status}");
}
