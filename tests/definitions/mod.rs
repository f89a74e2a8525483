//! Whether VyOS would take a command, by the templates that the package installs: the tests' stand-in for its command
//! line. It reads node.def files as VyOS does, and knows the validators of VyOS that they name.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use regex_lite::Regex;

/// Why a command is not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// No template of this package leads there.
    NotOurs,
    /// What VyOS would say.
    Because(String),
}

/// What VyOS installs, in this repository.
pub fn templates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vyos-templates")
}

/// Whether a `set` command is taken, by its path and by its value. `delete` takes the same paths.
pub fn check_set(line: &str) -> Result<(), Refused> {
    let words = words(line)?;
    let Some(("set", path)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) else {
        return Err(because("it is no set command"));
    };
    let mut directory = templates().join("cfg");
    let mut is_ours = false;
    let mut path = path.iter();
    while let Some(word) = path.next() {
        directory.push(word);
        if !directory.is_dir() || word.contains('/') {
            return Err(if is_ours { because(format!("{word} is no node there")) } else { Refused::NotOurs });
        }
        let Some(node) = NodeDef::read(&directory) else {
            // Another package's. Below a tag node the next word is a name.
            if directory.join("node.tag").is_dir() {
                directory.push("node.tag");
                if path.next().is_none() {
                    return Err(Refused::NotOurs);
                }
            }
            continue;
        };
        is_ours = true;
        if !node.takes_a_value {
            continue;
        }
        let value = path.next().ok_or_else(|| because(format!("{word} needs a value")))?;
        node.check(value)?;
        if node.is_tag {
            directory.push("node.tag");
        }
    }
    if is_ours { Ok(()) } else { Err(Refused::NotOurs) }
}

/// What an operational command runs: a shell command in which `$4` is the fourth word.
pub fn run_of(line: &str) -> Result<String, Refused> {
    let mut directory = templates().join("op");
    let mut is_ours = false;
    for word in words(line)? {
        let below = directory.join(&word);
        let value = directory.join("node.tag");
        directory = match (below.is_dir(), value.is_dir()) {
            (true, _) if !word.contains('/') => below,
            (_, true) => value,
            _ if is_ours => return Err(because(format!("{word} is no word there"))),
            _ => return Err(Refused::NotOurs),
        };
        is_ours |= directory.join("node.def").is_file();
    }
    let Some(text) = fs::read_to_string(directory.join("node.def")).ok().filter(|_| is_ours) else {
        return Err(Refused::NotOurs);
    };
    field(&text, "run").ok_or_else(|| because("it is incomplete"))
}

fn because(reason: impl Into<String>) -> Refused {
    Refused::Because(reason.into())
}

/// The words of a command line; quotes keep blanks in a word.
fn words(line: &str) -> Result<Vec<String>, Refused> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let mut word = String::new();
        while let Some(first) = rest.chars().next().filter(|c| !c.is_whitespace()) {
            if matches!(first, '\'' | '"') {
                let (quoted, after) =
                    rest[1..].split_once(first).ok_or_else(|| because(format!("a quote is not closed: {line}")))?;
                word += quoted;
                rest = after;
            } else {
                word.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        words.push(word);
        rest = rest.trim_start();
    }
    Ok(words)
}

/// A field of a node.def file, its continuation lines included.
fn field(text: &str, name: &str) -> Option<String> {
    let begins = Regex::new("^[a-z_]+(:[a-z]+)?:").expect("a regular expression");
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&format!("{name}:")));
    let first = lines.next()?[name.len() + 1..].trim_start().to_owned();
    Some(lines.take_while(|line| !begins.is_match(line)).fold(first, |text, line| text + "\n" + line))
}

struct NodeDef {
    takes_a_value: bool,
    is_tag: bool,
    expression: Option<String>,
}

impl NodeDef {
    fn read(directory: &Path) -> Option<Self> {
        let text = fs::read_to_string(directory.join("node.def")).ok()?;
        Some(Self {
            takes_a_value: field(&text, "type").is_some(),
            is_tag: field(&text, "tag").is_some(),
            expression: field(&text, "syntax:expression"),
        })
    }

    /// Whether the constraints take the value. VyOS puts the value into a quoted shell command.
    fn check(&self, value: &str) -> Result<(), Refused> {
        if value.contains(['\'', '"']) {
            return Err(because("a value holds no quotes"));
        }
        let Some(expression) = &self.expression else {
            return Ok(());
        };
        // exec "${vyos_libexec_dir}/validate-value OPTIONS --value \'$VAR(@)\'"; "MESSAGE"
        let (command, message) = expression.rsplit_once("\"; \"").expect("a command and a message");
        let options = command
            .strip_prefix("exec \"${vyos_libexec_dir}/validate-value ")
            .and_then(|c| c.strip_suffix(r"--value \'$VAR(@)\'"))
            .unwrap_or_else(|| panic!("not a call of validate-value: {command}"));
        if takes(options, value) { Ok(()) } else { Err(because(message.trim_end_matches('"'))) }
    }
}

/// validate-value of vyos-utils: one check is enough, or all of one group.
fn takes(options: &str, value: &str) -> bool {
    // Within the string of the template, a backslash precedes each quote and each backslash.
    let escaped = Regex::new(r#"\\(['"\\])"#).expect("a regular expression");
    let options = escaped.replace_all(options, "$1");
    let option = Regex::new(r#"^\s*(?:--regex '([^']*)'|--exec "([^"]*)"|(--grp))"#).expect("a regular expression");
    let mut rest: &str = &options;
    let mut is_taken = false;
    let mut group: Option<bool> = None;
    while !rest.trim().is_empty() {
        let found = option.captures(rest).unwrap_or_else(|| panic!("an unknown option: {rest}"));
        rest = &rest[found[0].len()..];
        let passes = if found.get(3).is_some() {
            is_taken |= group.replace(true) == Some(true);
            continue;
        } else if let Some(regex) = found.get(1) {
            Regex::new(&format!("^{}$", regex.as_str())).expect("a regular expression").is_match(value)
        } else {
            validator(&found[2], value)
        };
        match &mut group {
            Some(all) => *all &= passes,
            None => is_taken |= passes,
        }
    }
    is_taken || group == Some(true)
}

/// The validators of VyOS, as far as templates here name them.
fn validator(command: &str, value: &str) -> bool {
    let command = command.strip_prefix("${vyos_validators_dir}/").expect("a validator of VyOS");
    match command.split_whitespace().collect::<Vec<_>>()[..] {
        ["ipv4-address"] => value.parse::<Ipv4Addr>().is_ok(),
        // ipaddrcheck takes no network with bits after its length.
        ["ipv4-prefix"] => {
            network::<Ipv4Addr>(value, 32).is_some_and(|(address, rest)| u128::from(address.to_bits()) % rest == 0)
        }
        ["ipv6-prefix"] => network::<Ipv6Addr>(value, 128).is_some_and(|(address, rest)| match rest {
            0 => address.is_unspecified(),
            rest => address.to_bits() % rest == 0,
        }),
        ["numeric", "--range", range] => {
            let (low, high) = range.split_once('-').expect("a range");
            let [low, high] = [low, high].map(|bound| bound.parse::<i64>().expect("a number"));
            let digits = value.strip_prefix('-').unwrap_or(value);
            digits.bytes().all(|b| b.is_ascii_digit()) && value.parse().is_ok_and(|v: i64| (low..=high).contains(&v))
        }
        _ => panic!("the tests do not know the validator {command}"),
    }
}

/// The address of a network, and the number of its addresses; of all 2^128 addresses, 0.
fn network<A: FromStr>(value: &str, bits: u32) -> Option<(A, u128)> {
    let (address, length) = value.split_once('/')?;
    let length: u32 = length.parse().ok().filter(|length| *length <= bits)?;
    Some((address.parse().ok()?, 1_u128.checked_shl(bits - length).unwrap_or(0)))
}
