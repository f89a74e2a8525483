//! Checks of the documents: their tables, examples and blocks are compared with the definitions, the expected reports and
//! the program. `BLESS=1` rewrites the status in README.

mod definitions;
#[path = "../src/core/tests/examples/mod.rs"]
mod examples;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::{env, fs};

use definitions::{Refused, check_set, run_of, templates};
use lab::Configuration;
use regex_lite::Regex;
use serde_json::{Value, json};
use vipa_core::keepalived::conf::{self, ConfError};
use vipa_core::model::ec2::{ErrorClass, Failure, NoCredentials};
use vipa_core::model::ids::ErrorCode;
use vipa_core::model::resource::Kind;
use vipa_core::report::model::Report;
use vipa_core::report::{metrics, reasons};
use vipa_core::vyos::input::Input;
use vipa_core::vyos::verify::{HostState, Verification, verify};
use vyos_aws_vipa::commands::hook::HookError;
use vyos_aws_vipa::log_messages::ALL;
use vyos_aws_vipa::paths::Paths;

/// The command that makes VyOS's node_exporter read a directory (vyos-1x interface-definitions/
/// service_monitoring_prometheus.xml.in).
const PROMETHEUS: &str = "set service monitoring prometheus node-exporter collectors textfile";

/// The size limit of README, in bytes, so that it stays readable as a whole.
const README_SIZE: usize = 9_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files below a directory with this extension, from the root of the repository, sorted.
fn files(directory: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(directory)).expect("a directory").flatten() {
        let path = format!("{directory}/{}", entry.file_name().to_str().expect("a name"));
        if entry.path().is_dir() {
            found.extend(files(&path, extension));
        } else if Path::new(&path).extension().is_some_and(|other| other == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All documents, by their paths from the root of the repository.
fn documents() -> Vec<(String, String)> {
    let mut paths = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    paths.extend(files("docs", "md"));
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// The text below a heading of the second level.
fn section<'a>(document: &'a str, title: &str) -> &'a str {
    let (_, below) = document.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no heading {title}"));
    below.split_once("\n## ").map_or(below, |(section, _)| section)
}

/// The text without its code blocks.
fn prose(document: &str) -> String {
    let mut in_code = false;
    let is_prose = |line: &&str| {
        let is_fence = line.starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    };
    document.lines().filter(is_prose).collect::<Vec<_>>().join("\n")
}

/// The first code block.
fn block(text: &str) -> &str {
    let (_, code) = text.split_once("\n```").expect("a block").1.split_once('\n').expect("a line");
    &code[..code.find("```").expect("its end")]
}

/// The parts of a text that are in backticks.
fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows of all tables with this header, cell by cell.
fn rows<'a>(text: &'a str, header: &str) -> Vec<Vec<&'a str>> {
    let mut lines = text.lines();
    let mut found = Vec::new();
    while lines.by_ref().any(|line| line == header) {
        let rows = lines.by_ref().skip(1).take_while(|line| line.starts_with('|'));
        found.extend(rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>()));
    }
    assert!(found.len() > 1, "no table {header}");
    found
}

#[test]
fn the_readme_is_short() {
    let size = read("README.md").len();
    assert!(size <= README_SIZE, "README.md has {size} bytes: move something to docs");
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The links of a document, each as the path of a file and an anchor.
fn links(path: &str, document: &str) -> Vec<(PathBuf, Option<String>)> {
    let link = Regex::new(r"\]\(([^)]+)\)").expect("a pattern");
    let prose = prose(document);
    let targets = link.captures_iter(&prose).map(|found| found.get(1).expect("the target").as_str().to_owned());
    let targets = targets.filter(|target| !target.starts_with("https://"));
    targets
        .map(|target| {
            let (file, anchor) = target.split_once('#').map_or((&*target, None), |(f, a)| (f, Some(a.to_owned())));
            let from = Path::new(path);
            let file = if file.is_empty() { from.to_owned() } else { from.with_file_name(file) };
            let mut plain = PathBuf::new();
            for part in file.components() {
                match part {
                    Component::ParentDir => assert!(plain.pop(), "{path}: {target}"),
                    part => plain.push(part),
                }
            }
            (plain, anchor)
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere_and_every_document_is_linked() {
    let documents = documents();
    let mut linked = BTreeSet::from([PathBuf::from("README.md")]);
    for (path, document) in &documents {
        for (target, wanted) in links(path, document) {
            assert!(root().join(&target).is_file(), "{path} links to {}", target.display());
            if let Some(wanted) = wanted {
                let text = read(target.to_str().expect("text"));
                let text = prose(&text);
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let is_there = headings.any(|line| anchor(line.trim_start_matches('#').trim_start()) == wanted);
                assert!(is_there, "{path} links to {}#{wanted}", target.display());
            }
            linked.insert(target);
        }
    }
    let unlinked: Vec<_> = documents.iter().filter(|(path, _)| !linked.contains(Path::new(path))).collect();
    assert!(unlinked.is_empty(), "no document links to {unlinked:#?}");
}

/// Files and directories of this repository.
#[test]
fn every_file_named_in_a_document_exists() {
    let path = Regex::new(
        r"(^|[ `(])((src|tests|scripts|docs|debian|interface-definitions|vyos-templates|\.ci)/[-A-Za-z0-9_./]*[A-Za-z0-9_/])",
    )
    .expect("a pattern");
    let mut named = BTreeSet::new();
    for (document, text) in documents() {
        for found in path.captures_iter(&prose(&text)) {
            let name = found.get(2).expect("a path").as_str();
            assert!(root().join(name).exists(), "{document} names {name}");
            named.insert(name.to_owned());
        }
    }
    assert!(named.len() > 15, "{named:#?}");
}

/// Its table has one place for each change that a maintainer may want.
#[test]
fn the_architecture_names_the_place_of_each_change() {
    let architecture = read("docs/internals/architecture.md");
    let rows = rows(section(&architecture, "Where to change what"), "| To change | Look in |");
    assert!(rows.len() >= 25, "{rows:#?}");
    for row in rows {
        let place = backticked(row[1]).next().expect("a path");
        assert!(root().join(place).exists(), "{row:?}");
    }
    assert!(architecture.matches("**Architecture invariant:**").count() >= 8);
}

/// The nodes of a table, with the placeholder of the last value.
fn nodes<'a>(configuration: &'a str, title: &str) -> Vec<(&'a str, Option<&'a str>)> {
    let rows = rows(section(configuration, title), "| Node | Meaning | Default |");
    let node = |row: Vec<&'a str>| {
        let node = backticked(row[0]).next().expect("a node");
        let (path, value) = node.rsplit_once(' ').unwrap_or((node, ""));
        if value.starts_with('<') { (path, Some(value)) } else { (node, None) }
    };
    rows.into_iter().map(node).collect()
}

/// Collects the nodes that the package installs below a directory, by their path without values, and whether each is a tag:
/// has values, and nodes below them.
fn installed_nodes(directory: &Path, path: &str, found: &mut BTreeMap<String, bool>) {
    for below in fs::read_dir(directory).expect("a directory").flatten().map(|entry| entry.path()) {
        let name = below.file_name().and_then(|name| name.to_str()).expect("a name");
        if below.is_dir() {
            let path = format!("{path} {name}").trim_start().to_owned();
            let tag = below.join("node.tag");
            if tag.is_dir() {
                installed_nodes(&tag, &path, found);
            }
            found.insert(path, tag.is_dir());
        }
    }
}

#[test]
fn the_configuration_tables_have_every_node_with_its_range() {
    let configuration = read("docs/operations/configuration.md");
    for (title, path) in [
        ("Nodes of a group", "high-availability/vrrp/group/node.tag/aws-vipa"),
        ("Nodes of the router", "high-availability/vrrp/global-parameters/aws-vipa"),
    ] {
        let mut installed = BTreeMap::new();
        installed_nodes(&templates().join("cfg").join(path), "", &mut installed);
        let documented = nodes(&configuration, title);
        let without_values =
            |node: &str| node.split(' ').filter(|word| !word.starts_with('<')).collect::<Vec<_>>().join(" ");
        let names: BTreeSet<String> = documented.iter().map(|(node, _)| without_values(node)).collect();
        let unknown: Vec<_> = names.iter().filter(|name| !installed.contains_key(*name)).collect();
        // The rows of the nodes below it may explain a tag.
        let missing: Vec<_> = installed.iter().filter(|(name, is_tag)| !**is_tag && !names.contains(*name)).collect();
        assert!(unknown.is_empty() && missing.is_empty(), "{unknown:?} {missing:?}");
        let path = path.replace("node.tag", "web").replace('/', " ");
        for (node, value) in documented {
            let node = node.replace("<prefix>", "10.0.0.0/8").replace("<eipalloc-…>", "eipalloc-01234567");
            let set = |value: &str| check_set(format!("set {path} {node} {value}").trim_end());
            let range = value.and_then(|value| value.trim_matches(['<', '>']).split_once('-'));
            let range = range.and_then(|(least, most)| Some((least.parse::<u32>().ok()?, most.parse::<u32>().ok()?)));
            if let Some((least, most)) = range {
                assert!(set(&least.to_string()).is_ok() && set(&most.to_string()).is_ok(), "{node}");
                assert!(set(&(least - 1).to_string()).is_err() && set(&(most + 1).to_string()).is_err(), "{node}");
            } else {
                assert_eq!(set("").is_ok(), value.is_none(), "{node}");
            }
        }
    }
}

#[test]
fn the_command_table_has_every_operational_command() {
    let value = Regex::new("<[^>]*>").expect("a pattern");
    let commands = read("docs/operations/commands.md");
    let (table, _) = commands.split_once("\n\n`show aws-vipa status` and").expect("the text after the table");
    let documented: BTreeSet<String> =
        operational_commands(table).into_iter().map(|command| value.replace_all(command, "<>").into_owned()).collect();
    let mut installed = BTreeSet::new();
    runnable(&templates().join("op"), "", &mut installed);
    assert!(installed.len() > 12, "{installed:?}");
    assert_eq!(documented, installed);
}

/// Collects the operational commands that the package installs, with `<>` for a value.
fn runnable(directory: &Path, words: &str, found: &mut BTreeSet<String>) {
    for path in fs::read_dir(directory).expect("a directory").flatten().map(|entry| entry.path()) {
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

/// The `set` commands of a text, with or without a prompt.
fn set_commands(text: &str) -> Vec<&str> {
    text.lines()
        .map(|line| {
            line.split_once("# ").filter(|(prompt, _)| prompt.starts_with("vyos@")).map_or(line, |(_, rest)| rest)
        })
        .filter(|line| line.starts_with("set "))
        .collect()
}

/// The operational commands of a text: in backticks, and after a prompt.
fn operational_commands(text: &str) -> Vec<&str> {
    let typed =
        text.lines().filter(|line| line.starts_with("vyos@")).filter_map(|line| Some(line.split_once(":~$ ")?.1));
    let is_ours = |command: &&str| {
        let (verb, rest) = command.split_once(' ').unwrap_or_default();
        ["show", "monitor", "force", "reset", "restart", "generate"].contains(&verb) && rest.contains("aws-vipa")
    };
    backticked(text).chain(typed).filter(is_ours).collect()
}

/// The commands of VyOS in the manual page, which are in bold, with placeholders of values in italics.
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

/// A command with values for the placeholders in `<>`, and its variants in each of which one other word is misspelt.
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

/// The nodes of VyOS that the examples set in a group, and whether they have a value.
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
fn every_example_is_accepted_and_each_misspelt_one_is_rejected() {
    let manual = commands_of_the_manual();
    let manual: Vec<&str> = manual.iter().map(String::as_str).filter(|command| command.starts_with("set ")).collect();
    assert_eq!(manual, ["set high-availability vrrp group <group> aws-vipa"]);
    let documents = documents();
    let examples = documents.iter().flat_map(|(_, document)| set_commands(document));
    // tests/operators and tests/monitoring check these.
    let others = ["set system login ", "set service event-handler event ", PROMETHEUS];
    let examples = examples.filter(|command| !others.iter().any(|other| command.starts_with(other)));
    let (ours, vyos): (Vec<&str>, Vec<&str>) = examples.partition(|command| command.contains(" aws-vipa"));
    assert!(ours.len() >= 8 && vyos.len() >= 32, "{ours:?} {vyos:?}");
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

#[test]
fn every_operational_command_exists_and_each_misspelt_one_does_not() {
    let documents = documents();
    let manual = commands_of_the_manual();
    let manual = manual.iter().map(String::as_str).filter(|command| !command.starts_with("set "));
    let commands = documents.iter().flat_map(|(_, document)| operational_commands(document));
    let commands: BTreeSet<&str> = commands.chain(manual).collect();
    assert!(commands.len() >= 13, "{commands:?}");
    for command in commands {
        let (command, misspelt) = filled_in(command);
        assert!(run_of(&command).is_ok(), "{command}: {:?}", run_of(&command));
        for wrong in misspelt {
            assert!(run_of(&wrong).is_err(), "{wrong}");
        }
    }
}

/// The result of verification for these `set` commands on a router with this address.
fn committed(commands: &[&str], boot: bool, own: &str) -> Verification {
    let mut configuration = Configuration::default();
    commands.iter().for_each(|command| configuration.perform(command));
    let input = json!({
        "format": 1,
        "boot": boot,
        "proposed": configuration.dict(),
        "effective": {},
        "interface-addresses": { "eth0": [own] },
    });
    let input = Input::parse(input.to_string().as_bytes()).expect("the owner's input");
    let interfaces = BTreeMap::from([("eth0".to_owned(), vec![own.to_owned()])]);
    verify(&input, &HostState { interfaces, mode: &|_| Ok(None) })
}

/// Without an error, and with no warning except for the missing credentials file.
#[test]
fn the_example_configurations_commit() {
    let (readme, configuration) = (read("README.md"), read("docs/operations/configuration.md"));
    let one_subnet = ["10.99.0.11/24", "10.99.0.12/24"];
    for (text, warnings, own) in [
        (section(&readme, "Configure"), 0, one_subnet),
        (section(&configuration, "Example"), 1, one_subnet),
        (section(&configuration, "Example: two availability zones"), 0, ["10.99.1.11/24", "10.99.2.12/24"]),
    ] {
        let (first, second) = text.split_once("\nRouter 2:\n").expect("two routers");
        for (commands, own) in [(first, own[0]), (second, own[1])] {
            let outcome = committed(&set_commands(commands), false, own);
            assert_eq!(outcome.errors, []);
            assert_eq!(outcome.config.groups.len(), 1);
            assert_eq!(outcome.warnings.len(), warnings, "{outcome:?}");
            let is_the_file = |warning: &String| warning.contains("/config/aws/credentials does not exist");
            assert!(outcome.warnings.iter().all(is_the_file), "{outcome:?}");
        }
    }
}

#[test]
fn the_status_in_the_readme_is_the_printed_one() {
    let readme = read("README.md");
    let (command, shown) = block(section(&readme, "Operate")).split_once('\n').expect("a command");
    assert_eq!(command, "vyos@router:~$ show aws-vipa status");
    let printed = read("tests/status/ok.txt");
    if env::var_os("BLESS").is_some() {
        fs::write(root().join("README.md"), readme.replace(shown, &printed)).expect("written");
    } else {
        assert_eq!(shown, printed, "BLESS=1 rewrites it");
    }
}

#[test]
fn the_documented_policy_allows_the_calls_of_the_program() {
    let aws = read("docs/operations/aws.md");
    let documented: Value = serde_json::from_str(block(section(&aws, "Permissions"))).expect("a policy");
    // Notes follow the policy.
    let printed = read("tests/status/iam-policy.txt");
    let mut printed = serde_json::Deserializer::from_str(&printed).into_iter::<Value>();
    let printed = printed.next().expect("a value").expect("a policy");
    let actions = |policy: &Value| -> Vec<String> {
        let statements = policy["Statement"].as_array().expect("statements").iter();
        let actions = statements.flat_map(|statement| match &statement["Action"] {
            Value::Array(actions) => actions.clone(),
            action => vec![action.clone()],
        });
        actions.map(|action| action.as_str().expect("an action").to_owned()).collect()
    };
    assert_eq!(actions(&documented), actions(&printed));
    for action in actions(&printed) {
        assert!(section(&read("README.md"), "What AWS must have").contains(&format!("`{action}`")), "{action}");
    }
}

/// The expected reports, as JSON. A history without a report is put into one.
fn reports() -> Vec<Value> {
    let report = |path: &String| {
        let value: Value = serde_json::from_str(&read(path)).expect("JSON");
        if value.is_array() { json!({ "history": value }) } else { value }
    };
    files("tests/status", "json").iter().map(report).collect()
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

/// The fields of a document about JSON, by their paths.
fn documented_fields(document: &str) -> BTreeSet<String> {
    let mut documented = BTreeSet::new();
    for part in document.split("\n## ").skip(1).take_while(|part| !part.starts_with("Values\n")) {
        let (title, table) = part.split_once('\n').expect("a heading");
        // The heading, or otherwise the text above the table, names the object that has these fields.
        let above = table.split("\n| Field |").next().expect("the text above");
        let objects: Vec<String> = match title {
            "Report" => vec![String::new()],
            title if title.contains('`') => backticked(title).map(|object| format!("{object}.")).collect(),
            _ => backticked(above).map(|object| format!("{object}.")).collect(),
        };
        for row in rows(table, "| Field | Type | Meaning | Null |") {
            for name in backticked(row[0]) {
                documented.extend(objects.iter().map(|object| format!("{object}{name}")));
            }
        }
    }
    documented
}

#[test]
fn the_json_tables_have_every_field_and_no_others() {
    let timelines = files("tests/failover", "json");
    let timelines = timelines.iter().map(|path| serde_json::from_str(&read(path)).expect("JSON")).collect();
    for (document, printed, least) in
        [("docs/reference/status-json.md", reports(), 80), ("docs/reference/failover-json.md", timelines, 60)]
    {
        let mut fields = BTreeSet::new();
        printed.iter().for_each(|value| paths(value, "", &mut fields));
        assert!(fields.len() > least, "{document}: {fields:#?}");
        assert_eq!(documented_fields(&read(document)), fields, "{document}");
    }
}

/// The values that the program accepts for a field of a report, from its error about another value.
fn values_of(field: &str) -> BTreeSet<String> {
    /// Sets the first field of that name to another value.
    fn replace(value: &mut Value, field: &str) -> bool {
        match value {
            Value::Object(fields) => match fields.get_mut(field).filter(|value| value.is_string()) {
                Some(word) => {
                    *word = json!("another");
                    true
                }
                None => fields.values_mut().any(|value| replace(value, field)),
            },
            Value::Array(values) => values.iter_mut().any(|value| replace(value, field)),
            _ => false,
        }
    }
    let mut whole = reports();
    let report = whole.iter().find(|report| report.get("groups").is_some()).expect("a whole report").clone();
    let mut changed = whole.iter_mut().find_map(|value| replace(value, field).then(|| value.take())).expect(field);
    for (name, value) in report.as_object().expect("fields") {
        if changed.get(name).is_none() {
            changed[name] = value.clone();
        }
    }
    let error = serde_json::from_value::<Report>(changed).expect_err("another value").to_string();
    let (_, expected) = error.split_once("`another`, expected ").unwrap_or_else(|| panic!("{field}: {error}"));
    backticked(expected).map(str::to_owned).collect()
}

#[test]
fn the_json_values_are_those_of_the_program() {
    let document = read("docs/reference/status-json.md");
    let mut documented: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut fields = Vec::new();
    for row in rows(section(&document, "Values"), "| Field | Value | Meaning |") {
        let named: Vec<&str> = backticked(row[0]).collect();
        if !named.is_empty() {
            fields = named;
        }
        for field in &fields {
            documented.entry(field).or_default().extend(backticked(row[1]).map(str::to_owned));
        }
    }
    let words = document.lines().filter(|line| line.contains(" | word | "));
    let words: BTreeSet<&str> = words.flat_map(|row| backticked(row.split('|').nth(1).expect("a field"))).collect();
    assert_eq!(documented.keys().copied().collect::<BTreeSet<_>>(), words);
    for (field, values) in documented {
        assert_eq!(values, values_of(field), "{field}");
    }
}

/// The words that a summary of a timeline can have.
#[test]
fn the_kinds_of_the_timelines_are_those_of_the_program() {
    let document = read("docs/reference/failover-json.md");
    let rows = rows(section(&document, "Values"), "| Field | Value | Meaning |");
    let documented: BTreeSet<&str> = rows.iter().flat_map(|row| backticked(row[1])).collect();
    let error = serde_json::from_value::<Kind>(json!("another")).expect_err("another value").to_string();
    let (_, expected) = error.split_once("`another`, expected ").unwrap_or_else(|| panic!("{error}"));
    assert_eq!(documented, backticked(expected).collect());
}

#[test]
fn the_timeline_shown_is_the_expected_one() {
    let commands = read("docs/operations/commands.md");
    let (command, shown) = block(section(&commands, "The timeline of a failover")).split_once('\n').expect("a command");
    assert_eq!(command, "vyos@router:~$ show aws-vipa failover");
    let printed = read("tests/failover/address.txt");
    if env::var_os("BLESS").is_some() {
        fs::write(root().join("docs/operations/commands.md"), commands.replace(shown, &printed)).expect("written");
    } else {
        assert_eq!(shown, printed, "BLESS=1 rewrites it");
    }
}

#[test]
fn the_reason_codes_are_those_of_the_program() {
    let document = read("docs/reference/status-json.md");
    let rows = rows(section(&document, "Reason codes"), "| Code | Reason |");
    let documented: BTreeSet<&str> = rows.iter().flat_map(|row| backticked(row[0])).collect();
    assert_eq!(documented, examples::reasons_of_verdicts().iter().map(reasons::code).collect());
}

/// The log messages of the reference, each with the levels and fields that its rows have.
fn log_messages(reference: &str) -> Vec<(&str, &str, Vec<&str>)> {
    let rows = rows(reference, "| Level | Message | Fields | Meaning, and what to do |");
    rows.iter()
        .map(|row| (row[0], backticked(row[1]).next().expect("a message"), backticked(row[2]).collect()))
        .collect()
}

/// A row for each message, with its level and fields; optional fields are in brackets.
#[test]
fn the_log_messages_are_those_of_the_program() {
    let reference = read("docs/reference/log-messages.md");
    let documented: BTreeSet<(String, &str, Vec<&str>)> = log_messages(&reference)
        .into_iter()
        .map(|(level, message, fields)| (level.to_owned(), message, fields))
        .collect();
    let logged: BTreeSet<(String, &str, Vec<&str>)> =
        ALL.iter().map(|message| (message.level.to_string(), message.text, message.fields.to_vec())).collect();
    let undocumented: Vec<_> = logged.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&logged).collect();
    assert!(undocumented.is_empty() && unknown.is_empty(), "missing: {undocumented:#?}; not logged: {unknown:#?}");
}

/// The log lines in the documents, with the fields that the reference has.
#[test]
fn the_log_lines_shown_are_those_of_the_program() {
    let line = Regex::new(r"(?m)vyos-aws-vipa\[[0-9]+\]: ([A-Z]+) (.*)$").expect("a pattern");
    // A value in quotes or brackets may contain blanks.
    let field = Regex::new(r#" ([a-z_]+)=("[^"]*"|\[[^]]*\]|[^ ]*)"#).expect("a pattern");
    let mut shown = 0;
    for (path, document) in documents() {
        for found in line.captures_iter(&document) {
            let (level, text) = (&found[1], &found[2]);
            let message = ALL.iter().find(|message| {
                message.level.as_str() == level
                    && text.strip_prefix(message.text).is_some_and(|rest| {
                        let mut fields = field.captures_iter(rest);
                        field.replace_all(rest, "").is_empty()
                            && fields.all(|found| {
                                let name = &found[1];
                                message.fields.iter().any(|other| other.trim_matches(['[', ']']) == name)
                            })
                    })
            });
            assert!(message.is_some(), "{path}: {text}");
            shown += 1;
        }
    }
    assert!(shown >= 3, "{shown}");
}

/// Whether the other text contains the parts between "…" in this order.
fn is_found(text: &str, within: &str) -> bool {
    let mut rest = within;
    text.split('…').all(|part| match rest.split_once(part.trim()) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// Errors of the hook and of `commit` about groups that are skipped, and about missing files.
fn errors_of_the_hook() -> String {
    let path = PathBuf::from("/run/keepalived/keepalived.conf");
    let group = "vrrp_instance web {\n    interface eth0\n    virtual_router_id 1\n}\n";
    let fault = conf::parse(group.repeat(2).as_bytes()).expect("a configuration").skipped.remove(0);
    let unreadable = HookError::Conf { path: path.clone(), source: ConfError::Incomplete };
    format!("{fault}\n{unreadable}\n{}", HookError::Lost(path))
}

#[test]
fn the_causes_are_those_of_the_program() {
    let reference = read("docs/reference/log-messages.md");
    let documented: BTreeSet<&str> = rows(section(&reference, "Causes of a transition"), "| Cause | Meaning |")
        .iter()
        .flat_map(|row| backticked(row[0]))
        .collect();
    let logged: BTreeSet<&str> = examples::causes().into_iter().map(reasons::cause).collect();
    assert_eq!(documented, logged);
}

/// Whether the program can log a failure with this code: its own code, or one of EC2's that has a class.
fn is_code(code: &str) -> bool {
    let code = ErrorCode::try_from(code).expect("a code");
    let class = code.class(400);
    matches!(Failure::api(code, class), Failure::InvalidResponse) || class != ErrorClass::Refused
}

#[test]
fn each_error_of_the_log_is_in_troubleshooting() {
    let (messages, troubleshooting) =
        (read("docs/reference/log-messages.md"), read("docs/operations/troubleshooting.md"));
    let errors: Vec<&str> =
        messages.lines().filter_map(|line| line.strip_prefix("| ERROR | `")?.split('`').next()).collect();
    assert!(errors.len() > 10, "{errors:?}");
    for error in errors {
        assert!(troubleshooting.contains(&format!("`{error}")), "{error}");
    }
}

/// Log lines are checked against the reference, other texts against the program or its expected output.
#[test]
fn the_texts_in_troubleshooting_are_those_of_the_program() {
    let reference = read("docs/reference/log-messages.md");
    let messages = log_messages(&reference);
    let causes: BTreeSet<&str> = examples::causes().into_iter().map(reasons::cause).collect();
    let printed: String = [files("tests/status", "txt"), files("tests/status", "json")]
        .concat()
        .iter()
        .map(|path| read(path).split_whitespace().collect::<Vec<_>>().join(" "))
        .chain(examples::texts())
        .map(|text| text + "\n")
        .collect();
    let skipped =
        committed(&["set high-availability vrrp group web aws-vipa"], true, "10.99.0.11/24").warnings.join("\n");
    let troubleshooting = read("docs/operations/troubleshooting.md");
    let rows = rows(&troubleshooting, "| Symptom | Found in | Text | Remedy |");
    assert!(rows.len() > 40, "{rows:#?}");
    let field = Regex::new(r#"([a-z_]+)="([^"]*)""#).expect("a pattern");
    let texts: BTreeSet<&str> = rows.iter().flat_map(|row| backticked(row[2])).collect();
    for cause in NoCredentials::ALL {
        let text = format!("no credentials for EC2 … code=\"{}\"", cause.code());
        assert!(texts.contains(&*text), "no row for {text}");
    }
    for row in rows {
        let text = backticked(row[2]).next().expect("a text");
        match row[1] {
            "log" => {
                let (message, rest) = text.split_once(" … ").unwrap_or((text, ""));
                let fields =
                    messages.iter().filter(|(_, other, _)| *other == message).flat_map(|(_, _, fields)| fields);
                let fields: BTreeSet<&str> = fields.copied().collect();
                assert!(messages.iter().any(|(_, other, _)| *other == message), "{text}");
                for found in field.captures_iter(rest) {
                    assert!(fields.contains(&found[1]), "{text}");
                    assert!(&found[1] != "cause" || causes.contains(&found[2]), "{text}");
                    assert!(&found[1] != "code" || is_code(&found[2]), "{text}");
                }
            }
            "log vrrp" => assert!(is_found(text, &errors_of_the_hook()), "{text}: {}", errors_of_the_hook()),
            "commit" => assert!(is_found(text, &skipped), "{text}: {skipped}"),
            "status" => assert!(printed.lines().any(|line| is_found(text, line)), "{text}"),
            other => panic!("found in {other}: {text}"),
        }
    }
}

/// The tests of the repository, as `module::function`.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in [files("src", "rs"), files("tests", "rs")].concat() {
        let file = Path::new(&path);
        let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let module = match stem {
            "mod" | "main" => file.parent().and_then(Path::file_name).and_then(|name| name.to_str()).expect("a name"),
            stem => stem,
        };
        let text = read(&path);
        for (at, _) in text.match_indices("#[test]").chain(text.match_indices("#[tokio::test")) {
            let name = text[at..].split_once("fn ").and_then(|(_, rest)| rest.split_once('(')).expect("a function").0;
            found.insert(format!("{module}::{name}"));
        }
    }
    found
}

#[test]
fn the_tests_of_each_behaviour_exist() {
    let testing = read("docs/internals/testing.md");
    let (tests, section) = (tests(), section(&testing, "Behaviours and their tests"));
    let header = section.lines().find(|line| line.starts_with("| Behaviour |")).expect("a table");
    let rows = rows(section, header);
    let (_, each) = rows.split_last().expect("a row about several behaviours");
    assert_eq!(each.len(), 26, "{each:#?}");
    for (n, row) in each.iter().enumerate() {
        assert!(row[0].starts_with(&format!("B{} ", n + 1)), "{row:?}");
    }
    for row in rows {
        let named: Vec<&str> =
            row[1..].iter().flat_map(|cell| backticked(cell)).filter(|name| name.contains("::")).collect();
        assert!(!named.is_empty(), "{row:?}");
        let missing: Vec<_> = named.iter().filter(|name| !tests.contains(**name)).collect();
        assert!(missing.is_empty(), "{}: {missing:?}", row[0]);
    }
}

#[test]
fn the_metrics_are_those_of_the_program() {
    let reference = read("docs/reference/metrics.md");
    let documented: Vec<Vec<String>> = rows(&reference, "| Name | Type | Labels | Meaning |")
        .iter()
        .map(|row| {
            let labels: Vec<&str> = backticked(row[2]).collect();
            let name = backticked(row[0]).next().expect("a name");
            [name, row[1], &labels.join(" "), row[3]].map(str::to_owned).into()
        })
        .collect();
    let written: Vec<Vec<String>> = metrics::ALL
        .iter()
        .map(|m| [m.name, m.kind.as_str(), &m.labels.join(" "), m.help].map(str::to_owned).into())
        .collect();
    assert_eq!(documented, written);
    let labels = rows(&reference, "| Label | Value | Meaning |");
    let explained: BTreeSet<&str> = labels.iter().flat_map(|row| backticked(row[0])).filter(|l| *l != "le").collect();
    assert_eq!(explained, metrics::ALL.iter().flat_map(|metric| metric.labels).copied().collect());
}

#[test]
fn telegraf_reads_the_agent_s_metrics() {
    let example = read("debian/examples/telegraf.conf");
    let settings: Vec<&str> = example.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
    let file = format!("files = [\"{}\"]", Paths::system().metrics.display());
    assert_eq!(settings, ["[[inputs.file]]", &file, "interval = \"15s\"", "data_format = \"prometheus\""]);
}

/// In the documents, the alert rules, their tests and the dashboard.
#[test]
fn every_metric_that_is_named_exists() {
    let name = Regex::new("vyos_aws_vipa_[a-z0-9_]+").expect("a pattern");
    let mut texts = documents();
    for path in ["debian/examples", "tests/monitoring"] {
        let files = [files(path, "yml"), files(path, "json"), files(path, "rs")].concat();
        texts.extend(files.into_iter().map(|path| (path.clone(), read(&path))));
    }
    let mut named = BTreeSet::new();
    for (path, text) in texts {
        for found in name.find_iter(&text) {
            let exists = metrics::ALL.iter().any(|metric| {
                let suffixes = match metric.kind {
                    metrics::MetricKind::Histogram => &["_bucket", "_sum", "_count"][..],
                    _ => &[""],
                };
                found.as_str().strip_prefix(metric.name).is_some_and(|rest| suffixes.contains(&rest))
            });
            // The reference names the histograms themselves.
            let is_named = path == "docs/reference/metrics.md" && metrics::ALL.iter().any(|m| m.name == found.as_str());
            assert!(exists || is_named, "{path} names {}", found.as_str());
            named.insert(found.as_str().to_owned());
        }
    }
    assert!(named.len() > 20, "{named:#?}");
}

#[test]
fn the_alerts_are_those_of_the_rules() {
    let rules = read("debian/examples/prometheus-rules.yml");
    let rules: Vec<(&str, &str)> = rules
        .split("- alert: ")
        .skip(1)
        .map(|rule| {
            let severity = rule.split_once("severity: ").and_then(|(_, rest)| rest.lines().next()).expect("a severity");
            (rule.lines().next().expect("a name"), severity)
        })
        .collect();
    let monitoring = read("docs/operations/monitoring.md");
    let rows = rows(&monitoring, "| Alert | Severity | Meaning | What to do |");
    let documented: Vec<(&str, &str)> =
        rows.iter().map(|row| (backticked(row[0]).next().expect("an alert"), row[1])).collect();
    assert_eq!(documented, rules);
}

/// Each stable message is one of the program, and each pattern finds one message alone.
#[test]
fn the_stable_messages_are_those_of_the_program() {
    let reference = read("docs/reference/log-messages.md");
    let (_, table) = reference.split_once("\n| Event | Pattern |\n").expect("a table");
    let patterns = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let patterns: Vec<String> =
        patterns.map(|line| backticked(line).next().expect("a pattern").replace("\\|", "|")).collect();
    assert!(patterns.len() >= 12, "{patterns:#?}");
    let states = ["MASTER", "BACKUP", "FAULT", "STOP", "UNKNOWN"];
    for pattern in patterns {
        let whole = Regex::new(&format!("^(?:{pattern})$")).expect("a pattern");
        let mut found = BTreeSet::new();
        for message in ALL {
            for (from, to) in states.iter().flat_map(|from| states.iter().map(move |to| (from, to))) {
                let value = |field: &&str| match *field {
                    "from" => (*from).to_owned(),
                    "to" => (*to).to_owned(),
                    _ => "\"a value\"".to_owned(),
                };
                let fields: String = message.fields.iter().map(|f| format!(" {f}={}", value(f))).collect();
                if whole.is_match(&format!("{} {}{fields}", message.level, message.text)) {
                    found.insert((message.level, message.text.split(':').next()));
                }
            }
        }
        assert_eq!(found.len(), 1, "{pattern} finds {found:?}");
    }
}
