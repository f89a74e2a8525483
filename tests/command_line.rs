//! The completion of the command line in bash, and its description in the manual page.
//!
//! `BLESS=1` rewrites the completion.

use std::collections::BTreeSet;
use std::{env, fs};

use clap::{Arg, Command, CommandFactory};
use clap_complete::{Shell, generate};
use vyos_aws_vipa::arguments::Arguments;

const COMPLETION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/debian/bash-completion/vyos-aws-vipa");
const MANUAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/debian/vyos-aws-vipa.8");

#[test]
fn the_packaged_completion_is_that_of_the_command_line() {
    let mut text = Vec::new();
    generate(Shell::Bash, &mut Arguments::command(), "vyos-aws-vipa", &mut text);
    let text = String::from_utf8(text).expect("text");
    if env::var_os("BLESS").is_some() {
        fs::write(COMPLETION, &text).expect("written");
    }
    let packaged = fs::read_to_string(COMPLETION).unwrap_or_default();
    assert!(packaged == text, "{COMPLETION} is not that of the command line now (BLESS=1 takes it over)");
}

/// The synopses of all commands that do something: the words to type, and the options.
fn synopses(command: &Command, words: &[&str], into: &mut BTreeSet<String>) {
    let words = [words, &[command.get_name()]].concat();
    let mut below = command.get_subcommands().filter(|sub| sub.get_name() != "help").peekable();
    if below.peek().is_some() {
        below.for_each(|sub| synopses(sub, &words, into));
        return;
    }
    let mut synopsis = words.join(" ");
    for option in command.get_opts().filter(|o| !matches!(o.get_id().as_str(), "help" | "version")) {
        synopsis += &format!(" [--{}", option.get_long().expect("a long option"));
        if option.get_action().takes_values() {
            synopsis += &format!(" {}", value_name(option));
        }
        synopsis += "]";
    }
    for value in command.get_positionals() {
        let dots = if value.get_num_args().is_some_and(|range| range.max_values() > 1) { " ..." } else { "" };
        let name = format!("{}{dots}", value_name(value));
        synopsis += &if value.is_required_set() { format!(" {name}") } else { format!(" [{name}]") };
    }
    into.insert(synopsis);
}

/// The value's name as the manual writes it.
fn value_name(argument: &Arg) -> String {
    argument.get_value_names().and_then(|names| names.first()).expect("a named value").to_lowercase()
}

#[test]
fn the_manual_describes_every_command_and_option_and_no_other() {
    let mut expected = BTreeSet::new();
    synopses(&Arguments::command(), &[], &mut expected);
    let manual = fs::read_to_string(MANUAL).expect("the manual page");
    // A synopsis is what follows a .TP, without the fonts.
    let mut lines = manual.lines();
    let mut described = BTreeSet::new();
    while let Some(line) = lines.next() {
        if line == ".TP" {
            let heading = lines.next().unwrap_or_default();
            let plain = ["\\fB", "\\fI", "\\fR"].iter().fold(heading.to_owned(), |text, font| text.replace(font, ""));
            let plain = plain.replace("\\-", "-");
            if plain.starts_with("vyos-aws-vipa ") {
                described.insert(plain);
            }
        }
    }
    assert_eq!(described, expected, "what {MANUAL} describes (left) and what there is");
}
