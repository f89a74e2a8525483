//! The templates that the package installs.

mod definitions;
#[path = "definitions/op_runs.rs"]
mod op_runs;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use definitions::{Refused, check_set, run_of, templates};
use op_runs::op_runs;
use regex_lite::Regex;
use vipa_core::vyos::input::Input;
use vipa_core::vyos::verify::{HostState, verify};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn empty_directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The files below a directory, by their path in it.
fn files(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|e| panic!("{}: {e}", next.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("below it").to_owned();
                files.insert(name, fs::read_to_string(&path).expect("read"));
            }
        }
    }
    files
}

#[test]
fn no_template_belongs_to_another_package() {
    for tree in ["cfg", "op"] {
        let names = files(&templates().join(tree));
        assert!(!names.is_empty());
        for name in names.keys() {
            assert!(name.components().any(|c| c.as_os_str() == "aws-vipa"), "{tree}/{}", name.display());
        }
    }
}

#[test]
fn every_node_has_a_help_text_and_every_value_an_explanation_and_a_check() {
    for (name, text) in files(&templates().join("cfg")).into_iter().chain(files(&templates().join("op"))) {
        let has = |field: &str| text.lines().any(|line| line.starts_with(field));
        assert!(has("help: ") && !text.contains("No help available"), "{}: {text}", name.display());
        assert!(!text.contains("Invalid value"), "{}: a constraint without a message of its own", name.display());
        if has("type:") {
            assert!(has("val_help: ") && has("syntax:expression: "), "{}: {text}", name.display());
        }
    }
}

/// A node that verification does not support would fail each commit that has it.
#[test]
fn verification_knows_every_node_of_the_definitions() {
    let verification_of = |path: &str, nodes: &serde_json::Value| {
        let ours = serde_json::json!({ "aws-vipa": nodes });
        let vrrp = match path {
            "global-parameters" => serde_json::json!({ "global-parameters": ours }),
            _ => serde_json::json!({ "group": { "web": ours } }),
        };
        let tree = serde_json::json!({ "vrrp": vrrp });
        let input = serde_json::json!({ "format": 1, "boot": false, "proposed": tree, "effective": {}, "interface-addresses": {} });
        let input = Input::parse(&serde_json::to_vec(&input).expect("JSON")).expect("an input");
        let host = HostState { interfaces: BTreeMap::new(), mode: &|_| Ok(None) };
        let errors = verify(&input, &host).errors;
        errors.iter().map(ToString::to_string).filter(|error| error.contains("not supported by this version")).count()
    };
    let cfg = templates().join("cfg/high-availability/vrrp");
    let mut tags = 0;
    for path in ["global-parameters", "group/node.tag"] {
        let nodes = nodes_below(&cfg.join(path).join("aws-vipa"));
        assert!(nodes.len() > 3, "{nodes:?}");
        for node in nodes {
            let tag = cfg.join(path).join("aws-vipa").join(&node).join("node.tag");
            if !tag.is_dir() {
                assert_eq!(verification_of(path, &serde_json::json!({ &node: "x" })), 0, "{path} aws-vipa {node}");
                continue;
            }
            tags += 1;
            let with = |below: &str| serde_json::json!({ &node: { "x": { below: "x" } } });
            for below in nodes_below(&tag) {
                assert_eq!(verification_of(path, &with(&below)), 0, "{path} aws-vipa {node} x {below}");
            }
            assert_eq!(verification_of(path, &with("another")), 1, "{path} aws-vipa {node} x another");
        }
        assert_eq!(verification_of(path, &serde_json::json!({ "another": "x" })), 1, "{path} aws-vipa another");
    }
    assert_eq!(tags, 2, "not only elastic-ip and route");
}

/// The names of the nodes in a directory of templates.
fn nodes_below(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the nodes").map(|entry| entry.expect("a node"));
    let nodes = entries.filter(|entry| entry.path().is_dir());
    nodes.map(|node| node.file_name().into_string().expect("a name")).collect()
}

#[test]
fn set_commands_are_accepted_or_rejected() {
    const GROUP: &str = "set high-availability vrrp group X aws-vipa";
    const GLOBAL: &str = "set high-availability vrrp global-parameters aws-vipa";
    for (node, good, bad) in [
        (format!("{GROUP} address"), vec!["10.0.0.1"], vec!["10.0.0.1/24", "fe80::1", "10.0.0.256", "10.0.0"]),
        (format!("{GROUP} interface"), vec!["eth0", "eth12"], vec!["eth", "lo", "eth0 eth1", "xeth0", "eth0v1"]),
        (
            format!("{GROUP} network-interface-id"),
            vec!["eni-01234567", "eni-0123456789abcdef0"],
            vec!["eni-0123456", "eni-0123ABCD", "i-01234567"],
        ),
        (
            format!("{GROUP} route"),
            vec!["10.0.0.0/8", "10.255.0.1/32", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1/128", "::/0"],
            vec!["10.0.0.1/8", "2001:db8::1/64", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "2001:db8::/129", "x", ""],
        ),
        (
            format!("{GROUP} route 10.0.0.0/8 route-table"),
            vec!["rtb-01234567", "rtb-0123456789abcdef0"],
            vec!["rtb-0123456", "rtb-0123ABCD", "vpc-01234567", "rtb-01234567 rtb-01234568"],
        ),
        (format!("{GROUP} route 10.0.0.0/8 interface"), vec!["eth0"], vec!["lo", "eth0v1", "tun0"]),
        (
            format!("{GROUP} elastic-ip"),
            vec!["eipalloc-01234567", "eipalloc-0123456789abcdef0"],
            vec!["eipalloc-0123456", "eipalloc-0123ABCD", "eipassoc-01234567", "203.0.113.9"],
        ),
        (
            format!("{GROUP} elastic-ip eipalloc-01234567 private-address"),
            vec!["10.0.0.1"],
            vec!["10.0.0.1/24", "fe80::1", "10.0.0.256"],
        ),
        (format!("{GROUP} elastic-ip eipalloc-01234567 interface"), vec!["eth0"], vec!["lo", "eth0v1"]),
        (format!("{GLOBAL} region"), vec!["eu-central-1", "test"], vec!["EU", "-a", "a.b"]),
        (
            format!("{GLOBAL} endpoint-url"),
            vec!["https://ec2.eu-central-1.amazonaws.com", "http://[::1]:4566/"],
            vec!["ec2.amazonaws.com", "ftp://a", "https://", "https://a/b", "https://a b"],
        ),
        (
            format!("{GLOBAL} credentials-file"),
            vec!["/root/.aws/credentials", "/config/auth/aws"],
            vec!["credentials", "/", "/a b", "/a;b", "/config/$x"],
        ),
        (format!("{GLOBAL} ca-certificate-file"), vec!["/config/auth/ca.pem"], vec!["ca.pem", "/a/"]),
        (format!("{GLOBAL} profile"), vec!["default", "vipa/2@a"], vec!["a b", "[a]", ""]),
        (format!("{GLOBAL} verify-interval"), vec!["5", "300"], vec!["4", "301", "x", "5.0", "-5"]),
        (format!("{GLOBAL} request-timeout"), vec!["1", "30"], vec!["0", "31", ""]),
    ] {
        for value in good {
            let line = format!("{node} '{value}'");
            assert_eq!(check_set(&line), Ok(()), "{line}");
        }
        for value in bad {
            let line = format!("{node} '{value}'");
            assert!(matches!(check_set(&line), Err(Refused::Because(_))), "{line}: {:?}", check_set(&line));
        }
        assert!(matches!(check_set(&node), Err(Refused::Because(_))), "{node} without a value");
    }
    for line in [GROUP, GLOBAL, &format!("{GROUP} disable"), &format!("{GROUP} no-address")] {
        assert_eq!(check_set(line), Ok(()), "{line}");
    }
    for line in [
        &format!("{GROUP} disable true"),
        &format!("{GROUP} no-address 10.0.0.1"),
        &format!("{GROUP} adress 10.0.0.1"),
        &format!("{GROUP} route 10.0.0.0/8 gateway 10.0.0.1"),
        &format!("{GROUP} elastic-ip eipalloc-01234567 address 10.0.0.1"),
        &format!("{GLOBAL} disable"),
        &format!("{GLOBAL} route 10.0.0.0/8"),
    ] {
        assert!(matches!(check_set(line), Err(Refused::Because(_))), "{line}: {:?}", check_set(line));
    }
    for line in [
        "set high-availability vrrp group X aws-vip",
        "set high-availability vrrp groups X aws-vipa",
        "set high-availability vrrp group aws-vipa",
        "set high-availability vrrp group X vrid 5",
        "set high-availability vrrp",
    ] {
        assert_eq!(check_set(line), Err(Refused::NotOurs), "{line}");
    }
}

/// The output of a script of bash.
fn bash(script: &str, directory: &Path) -> String {
    let output = Command::new("bash").args(["-c", script]).current_dir(directory).output().expect("bash runs");
    assert!(output.status.success(), "{script}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// How VyOS evaluates the text of an operational command, on a terminal and elsewhere: unchanged (vyatta-op
/// functions/interpreter/vyatta-op-run), and with `sudo` for administrators of rolling (the same file of vyos-1x).
const WAYS: [&str; 4] = ["TEXT", "(TEXT) | ${VYATTA_PAGER:-cat}", "sudo TEXT", "(sudo TEXT) | ${VYATTA_PAGER:-cat}"];

/// Runs an operational command in all of these ways: VyOS replaces `$4` by `${args[4]}`, and a shell evaluates the line.
fn run(words: &[&str], directory: &Path) -> String {
    let quoted: Vec<_> = words.iter().map(|w| format!("'{w}'")).collect();
    let command = run_of(&quoted.join(" ")).unwrap_or_else(|e| panic!("{words:?}: {e:?}"));
    let command = Regex::new(r"\$([0-9])").expect("a pattern").replace_all(&command, r"$${args[$1]}");
    // The stand-in for sudo prints the call of a program, and runs a function.
    let sudo = "sudo() { case $1 in /*) printf '[%s]' \"$@\" ;; *) \"$@\" ;; esac; }";
    let journalctl = "journalctl() { printf '[%s]' journalctl \"$@\"; }";
    let ways: Vec<_> = WAYS.iter().map(|way| format!("eval '{}'; echo", way.replace("TEXT", &command))).collect();
    let script = format!("{sudo}; {journalctl}; args=(vyos {}); {}", quoted.join(" "), ways.join("; "));
    let called = bash(&script, directory);
    let called: BTreeSet<_> = called.lines().collect();
    assert_eq!(called.len(), 1, "{words:?} depends on the way in which VyOS runs it: {called:#?}");
    called.first().expect("one").to_string()
}

#[test]
fn operational_commands_run_the_program_and_journalctl() {
    let directory = empty_directory();
    for (words, expected) in [
        ("show aws-vipa status", "[/usr/bin/vyos-aws-vipa][show][status]"),
        ("show aws-vipa status detail", "[/usr/bin/vyos-aws-vipa][show][status][--detail]"),
        ("show aws-vipa status json", "[/usr/bin/vyos-aws-vipa][show][status][--json]"),
        ("show aws-vipa group LAN", "[/usr/bin/vyos-aws-vipa][show][group][--][LAN]"),
        ("show aws-vipa check", "[/usr/bin/vyos-aws-vipa][show][check]"),
        (
            "show log aws-vipa",
            "[journalctl][--no-pager][--no-hostname][--output][short-iso-precise][--boot][--unit][vyos-aws-vipa.service]",
        ),
        (
            "monitor log aws-vipa",
            "[journalctl][--no-pager][--no-hostname][--output][short-iso-precise][--boot][--follow][--unit][vyos-aws-vipa.service]",
        ),
        ("force aws-vipa claim LAN", "[/usr/bin/vyos-aws-vipa][force][claim][--][LAN]"),
        ("force aws-vipa pause LAN", "[/usr/bin/vyos-aws-vipa][force][pause][--][LAN]"),
        ("force aws-vipa pause LAN minutes 5", "[/usr/bin/vyos-aws-vipa][force][pause][--minutes=5][--][LAN]"),
        ("force aws-vipa resume LAN", "[/usr/bin/vyos-aws-vipa][force][resume][--][LAN]"),
        ("generate aws-vipa iam-policy", "[/usr/bin/vyos-aws-vipa][generate][iam-policy]"),
        ("generate aws-vipa iam-policy tag a=b", "[/usr/bin/vyos-aws-vipa][generate][iam-policy][--tag=a=b]"),
        ("reset aws-vipa claim LAN", "[/usr/bin/vyos-aws-vipa][force][claim][--][LAN]"),
        ("reset aws-vipa pause LAN", "[/usr/bin/vyos-aws-vipa][force][pause][--][LAN]"),
        ("reset aws-vipa pause LAN minutes 5", "[/usr/bin/vyos-aws-vipa][force][pause][--minutes=5][--][LAN]"),
        ("reset aws-vipa resume LAN", "[/usr/bin/vyos-aws-vipa][force][resume][--][LAN]"),
        ("restart aws-vipa", "[/usr/bin/vyos-aws-vipa][restart]"),
    ] {
        assert_eq!(run(&words.split(' ').collect::<Vec<_>>(), directory.path()), expected, "{words}");
    }
    for line in [
        "show aws-vipa",
        "show aws-vipa group",
        "force aws-vipa",
        "reset aws-vipa",
        "reset aws-vipa claim",
        "force aws-vipa pause LAN minutes",
        "generate aws-vipa iam-policy tag",
    ] {
        assert_eq!(run_of(line), Err(Refused::Because("it is incomplete".to_owned())), "{line}");
    }
    for line in ["show aws-vipa states", "force aws-vipa pause LAN hours 1", "show aws-vipa check now"] {
        assert!(matches!(run_of(line), Err(Refused::Because(_))), "{line}: {:?}", run_of(line));
    }
    for line in ["show", "show vrrp", "show log", "restart", "reset", "reset vpn", "reboot"] {
        assert_eq!(run_of(line), Err(Refused::NotOurs), "{line}");
    }
}

/// Whether a text is the call of one program: plain words, and `"$4"` alone or after `--option=`.
fn is_plain_call(text: &str) -> bool {
    const KEYWORDS: [&str; 23] = [
        "if", "then", "elif", "else", "fi", "time", "for", "in", "until", "while", "do", "done", "case", "esac",
        "coproc", "select", "function", "!", "[[", "{", "}", "eval", "exec",
    ];
    let program = Regex::new("^[-A-Za-z0-9_./]+$").expect("a pattern");
    let argument = Regex::new("^([-A-Za-z0-9_./=]+|(--[a-z-]+=)?\"\\$[1-9]\")$").expect("a pattern");
    let mut words = text.split(' ');
    words.next().is_some_and(|word| program.is_match(word))
        && words.all(|word| argument.is_match(word))
        && text.split(' ').all(|word| !KEYWORDS.contains(&word))
}

/// VyOS rolling prepends `sudo` to the text, and vyos-op-run passes it to another shell than 1.4 does.
#[test]
fn every_operational_command_calls_one_program() {
    for text in [
        "if true",
        "sudo a; b",
        "sudo a;b",
        "a | b",
        "a|b",
        "a & b",
        "a && b",
        "A=b c",
        "a $HOME",
        "a $4",
        "a \"$@\"",
        "a >b",
        "a <b",
        "(a)",
        "a `b`",
        "! a",
        "{ a",
        "while a",
        "a\nb",
        "a  b",
        "",
    ] {
        assert!(!is_plain_call(text), "{text:?}");
    }
    let runs = op_runs();
    assert!(runs.len() >= 18, "{runs:#?}");
    for text in runs.into_values() {
        assert!(is_plain_call(&text), "{text}");
    }
}

#[test]
fn names_and_tags_reach_the_program_unchanged() {
    let directory = empty_directory();
    for name in ["-h", "--help", "$HOME", "$(touch hurt)", "`touch hurt`", "a;touch hurt", "a\\b", "(", "~", "*", "a@b"]
    {
        for (words, before) in [
            (vec!["show", "aws-vipa", "group", name], "[show][group][--]["),
            (vec!["force", "aws-vipa", "claim", name], "[force][claim][--]["),
            (vec!["force", "aws-vipa", "pause", name], "[force][pause][--]["),
            (vec!["force", "aws-vipa", "pause", name, "minutes", "7"], "[force][pause][--minutes=7][--]["),
            (vec!["force", "aws-vipa", "resume", name], "[force][resume][--]["),
            (vec!["generate", "aws-vipa", "iam-policy", "tag", name], "[generate][iam-policy][--tag="),
        ] {
            assert_eq!(run(&words, directory.path()), format!("[/usr/bin/vyos-aws-vipa]{before}{name}]"), "{words:?}");
        }
    }
    assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 0, "a name was executed");
}

/// The words that VyOS offers as completions for a node (vyatta-cfg src/cstore/cstore.cpp, `getCompletionEnv`).
fn offered(node: &str, typed: &[&str], before: &str, directory: &Path) -> Vec<String> {
    let typed: Vec<_> = typed.iter().map(|w| format!(" '{w}'")).collect();
    let template = fs::read_to_string(templates().join(node).join("node.def")).expect("a template");
    let allowed = template.lines().find_map(|line| line.strip_prefix("allowed: ")).expect("a completion");
    let allowed = allowed.replace("/bin/cli-shell-api", "cli-shell-api").replace('\'', r"'\''");
    let script = format!("{before}; COMP_WORDS=({}); f () {{ eval '{allowed}'; }}; f || true", typed.concat());
    let output = Command::new("bash").args(["-c", &script]).current_dir(directory).output().expect("bash runs");
    // On VyOS, errors would appear in the middle of the typed line.
    assert_eq!(text(&output.stderr), "", "{script}");
    text(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_ipv4_addresses_of_the_group_are_completed() {
    const NODE: &str = "cfg/high-availability/vrrp/group/node.tag/aws-vipa/address";
    let directory = empty_directory();
    for group in ["LAN", "$(touch hurt)", "a;touch hurt", "a\\b"] {
        // Lists nodes as VyOS does, and prints any other call.
        let cli = format!(
            r#"cli-shell-api() {{ case "$*" in
                'listNodes high-availability vrrp group {group} address') echo "'10.0.0.1/24' 'fe80::1/64' '10.0.0.2'" ;;
                'listNodes high-availability vrrp group {group} excluded-address') echo "'10.0.0.3/32'" ;;
                'listNodes address') echo "'10.0.0.9/24'" ;;
                'listNodes excluded-address') ;;
                'listNodes address address' | 'listNodes address excluded-address') ;;
                *) echo "unexpected: $*" ;;
            esac; }}"#
        );
        let path = ["set", "high-availability", "vrrp", "group", group, "aws-vipa", "address", ""];
        assert_eq!(offered(NODE, &path, &cli, directory.path()), ["10.0.0.1", "10.0.0.2", "10.0.0.3"], "{group}");
        let edited = ["set", "aws-vipa", "address", ""];
        assert_eq!(offered(NODE, &edited, &cli, directory.path()), ["10.0.0.9"], "within edit");
        for typed in ["", "10"] {
            let within = ["set", "address", typed];
            assert_eq!(offered(NODE, &within, &cli, directory.path()), [""; 0], "within edit of aws-vipa itself");
        }
    }
    assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 0, "a name was executed");
}

#[test]
fn files_are_completed_unless_their_names_have_special_characters_of_the_shell() {
    let directory = empty_directory();
    let auth = directory.path().join("auth");
    fs::create_dir_all(auth.join("aws")).expect("made");
    for name in ["credentials", "aws/ca-1.pem", "$(hurt)", "a b", "a'b", "a;b"] {
        fs::write(auth.join(name), "").expect("written");
    }
    for leaf in ["credentials-file", "ca-certificate-file"] {
        let node = format!("cfg/high-availability/vrrp/global-parameters/aws-vipa/{leaf}");
        let config = directory.path().to_str().expect("text");
        let shell = format!("sh() {{ command sh -c \"${{2//\\/config\\//{config}/}}\"; }}");
        let mut found = offered(&node, &["set", leaf, ""], &shell, directory.path());
        found.sort();
        assert_eq!(found, ["aws/ca-1.pem", "credentials"].map(|name| format!("{config}/auth/{name}")), "{leaf}");
    }
}

#[test]
fn the_completed_regions_are_those_of_the_sdk() {
    // Offline, and only for this machine's platform: the build of this test has fetched no other packages.
    let cargo = Path::new(env!("CARGO"));
    let version = Command::new(cargo).arg("-vV").output().expect("cargo runs");
    let version = text(&version.stdout);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its platform");
    let metadata = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host])
        // From the same toolchain: with sudo, PATH has none.
        .env("RUSTC", cargo.with_file_name("rustc"))
        .current_dir(repository())
        .output()
        .expect("cargo runs");
    assert!(metadata.status.success(), "{}", text(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let sdk = packages.iter().find(|p| p["name"] == "aws-sdk-ec2").expect("the SDK");
    let manifest = Path::new(sdk["manifest_path"].as_str().expect("a path"));
    // The partitions that the SDK resolves endpoints from are JSON in its source.
    let source = fs::read_to_string(manifest.with_file_name("src").join("endpoint_lib.rs")).expect("its source");
    let region = Regex::new(r#"\\"([a-z0-9-]+)\\":\{\\"description\\""#).expect("a pattern");
    let known: BTreeSet<_> = region.captures_iter(&source).map(|found| found[1].to_owned()).collect();
    let known: Vec<_> = known.into_iter().filter(|name| !name.ends_with("-global")).collect();
    assert!(known.len() > 30, "the SDK's source has another form: {known:?}");
    let node = "cfg/high-availability/vrrp/global-parameters/aws-vipa/region";
    assert_eq!(offered(node, &["set", "region", ""], ":", repository()), known);
}

/// A group's name reaches it whole, and never as an option.
#[test]
fn the_program_accepts_the_arguments_of_the_operational_commands() {
    let group = "-x$(>hurt);`>hurt`";
    let mut ran = 0;
    for command in [
        "show aws-vipa status",
        "show aws-vipa status detail",
        "show aws-vipa status json",
        "show aws-vipa group GROUP",
        "show aws-vipa failover",
        "show aws-vipa failover group GROUP",
        "show aws-vipa failover group GROUP json",
        "show aws-vipa failover json",
        "show aws-vipa check",
        "force aws-vipa claim GROUP",
        "force aws-vipa pause GROUP",
        "force aws-vipa pause GROUP minutes 5",
        "force aws-vipa prove",
        "force aws-vipa resume GROUP",
        "reset aws-vipa claim GROUP",
        "reset aws-vipa pause GROUP",
        "reset aws-vipa pause GROUP minutes 5",
        "reset aws-vipa prove",
        "reset aws-vipa resume GROUP",
        "restart aws-vipa",
        "generate aws-vipa iam-policy",
        "generate aws-vipa iam-policy tag vrrp=yes",
    ] {
        let directory = empty_directory();
        let run = definitions::run_of(command).expect("a command");
        let words: Vec<&str> = command.split(' ').map(|word| if word == "GROUP" { group } else { word }).collect();
        // Without a network, and with an empty /run.
        let script = format!("mount -t tmpfs tmpfs /run && sudo() {{ shift; \"$PROGRAM\" \"$@\"; }} && {run}");
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--mount", "bash", "-c", &script, "bash"])
            .args(&words)
            .env("PROGRAM", env!("CARGO_BIN_EXE_vyos-aws-vipa"))
            .current_dir(directory.path())
            .output()
            .expect("unshare(1)");
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        // clap exits with 2 for unknown arguments.
        assert!(matches!(output.status.code(), Some(0 | 1)) && !said.contains("Usage:"), "{command}: {said}");
        assert!(
            said.contains("not configured") || said.contains("agent") || said.contains("Statement"),
            "{command}: {said}"
        );
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 0, "{command}: a name was executed");
        ran += 1;
    }
    assert_eq!(ran, op_runs().values().filter(|run| run.contains("/usr/bin/vyos-aws-vipa")).count());
}

/// The program itself checks both.
#[test]
fn restart_needs_a_configuration_and_root() {
    let directory = empty_directory();
    let systemctl = directory.path().join("systemctl");
    fs::write(&systemctl, "#!/bin/sh\necho \"$*\" >>\"$ASKED\"\n").expect("written");
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).expect("set");
    let asked = directory.path().join("asked");
    let configured = "mkdir /run/vyos-aws-vipa && echo {} >/run/vyos-aws-vipa/config.json";
    for (make, sudo, code, stderr) in [
        ("true", "", 1, "aws-vipa is not configured"),
        (configured, "unshare --user --map-user=1000", 1, "only root may restart the agent: use sudo"),
        (configured, "", 0, ""),
    ] {
        let run = run_of("restart aws-vipa").expect("a command").replace("/usr/bin/vyos-aws-vipa", "\"$PROGRAM\"");
        let script = format!("mount -t tmpfs tmpfs /run && {make} && sudo() {{ {sudo} \"$@\"; }} && {run}");
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--mount", "bash", "-c", &script])
            .env("PROGRAM", env!("CARGO_BIN_EXE_vyos-aws-vipa"))
            .env("ASKED", &asked)
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", directory.path().display()))
            .output()
            .expect("unshare(1)");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(stderr), "{}", text(&output.stderr));
        let asked = fs::read_to_string(&asked).unwrap_or_default();
        assert_eq!(asked, if code == 0 { "restart vyos-aws-vipa.service\n" } else { "" });
    }
}
