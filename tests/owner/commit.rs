//! The command `commit`, with keepalived and systemd working and failing.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::router::{
    CALLS, CONFIG, GROUPS, INCLUDE, KEEPALIVED_CONF, RELOAD, Router, START_AGENT, STOP_AGENT, VYOS_RELOADS,
    configuration, group, keepalived_conf, processor_time_of_children, vipa,
};

/// The agent's copy of the credentials file.
const COPY: &str = "/run/vyos-aws-vipa/credentials.json";
const START_BOTH: &str = "start --no-block vyos-aws-vipa.service vyos-aws-vipa-credentials.timer";
const START_TIMER: &str = "start --no-block vyos-aws-vipa-credentials.timer";
const STOP_TIMER: &str = "stop --no-block vyos-aws-vipa-credentials.timer";
const SECRET: &str = "vipa-example-secret";

fn one() -> Value {
    configuration(json!({ "a": group(1, json!({})) }))
}

/// The input that the owner script passes to `commit`.
fn input(proposed: &Value, effective: &Value) -> Vec<u8> {
    json!({
        "format": 1,
        "boot": false,
        "proposed": proposed["high-availability"],
        "effective": effective["high-availability"],
        "interface-addresses": { "eth0": ["10.99.0.1/24"], "eth1": ["10.98.0.1/24"], "lo": [] }
    })
    .to_string()
    .into_bytes()
}

#[test]
fn invalid_input_is_reported_and_changes_nothing() {
    let Some(router) = Router::booted("commit::invalid_input_is_reported_and_changes_nothing", one()) else {
        return;
    };
    let files = || [CONFIG, GROUPS, INCLUDE, KEEPALIVED_CONF].map(|path| fs::read(path).expect("read"));
    let before = files();
    let good = String::from_utf8(input(&one(), &one())).expect("text");
    let long = good.clone() + &" ".repeat(17 << 20);
    for (bytes, expected) in [
        (&b""[..], "EOF while parsing"),
        (b"{", "EOF while parsing"),
        (b"\x00\xff\xfe", "expected value"),
        (b"{\"format\":1}", "missing field"),
        (good.replace("\"boot\"", "\"boots\"").as_bytes(), "unknown field `boots`"),
        (good.replace("\"vrrp\"", "\"vrpp\"").as_bytes(), "unknown field `vrpp`"),
        (good.replace("\"format\":1", "\"format\":9").as_bytes(), "has format 9"),
        (long.as_bytes(), "longer than"),
    ] {
        let answer = vipa(&["commit"], bytes);
        assert_eq!((answer.code, answer.out.as_str()), (Some(1), ""), "{answer:?}");
        assert!(answer.err.starts_with("vyos-aws-vipa: ") && answer.err.contains("standard input"), "{}", answer.err);
        assert!(answer.err.contains(expected) && !answer.err.contains("panicked"), "{}", answer.err);
    }
    assert_eq!((files(), router.asked()), (before, vec![]));
    assert!(router.attached());
}

#[test]
fn unreadable_files_of_the_package_are_rewritten() {
    let Some(router) = Router::booted("commit::unreadable_files_of_the_package_are_rewritten", one()) else {
        return;
    };
    let before = fs::read(CONFIG).expect("read");
    for text in ["{\"format\":2,\"new\":true}", "", "\0"] {
        fs::write(CONFIG, text).expect("written");
        fs::write("/run/vyos-aws-vipa/warned.json", text).expect("written");
        vipa(&["commit"], &input(&one(), &one())).assert_silent();
        assert_eq!(fs::read(CONFIG).expect("read"), before);
        assert_eq!(router.asked(), [START_AGENT]);
    }
}

#[test]
fn a_keepalived_conf_that_cannot_be_read_is_a_warning() {
    let Some(router) = Router::enter("commit::a_keepalived_conf_that_cannot_be_read_is_a_warning") else {
        return;
    };
    fs::write(KEEPALIVED_CONF, "vrrp_instance a {\n").expect("written");
    let answer = vipa(&["commit"], &input(&one(), &json!({ "high-availability": {} })));
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "{answer:?}");
    let expected = format!("WARNING: transition hook: {KEEPALIVED_CONF}: incomplete: ");
    assert!(answer.out.starts_with(&expected), "{}", answer.out);
    assert!(Path::new(CONFIG).exists());
    assert_eq!(router.asked(), [START_AGENT]);
}

#[test]
fn without_keepalived_nothing_is_reloaded() {
    let Some(router) = Router::enter("commit::without_keepalived_nothing_is_reloaded") else {
        return;
    };
    let nothing = json!({ "high-availability": {} });
    fs::write(KEEPALIVED_CONF, keepalived_conf(&one())).expect("written");
    // PID files without a process, of another program, and with invalid content.
    for pid in ["", "4000000\n", "1\n", "-1\n", "x\n"] {
        fs::write("/run/keepalived/keepalived.pid", pid).expect("written");
        vipa(&["commit"], &input(&one(), &nothing)).assert_silent();
        assert_eq!(router.asked(), [START_AGENT]);
        vipa(&["commit"], &input(&nothing, &one())).assert_silent();
        assert_eq!(router.asked(), [STOP_AGENT]);
        assert_eq!(fs::read_to_string(KEEPALIVED_CONF).expect("read"), keepalived_conf(&one()));
    }
    // Nothing is configured before or after.
    vipa(&["commit"], &input(&nothing, &nothing)).assert_silent();
    assert_eq!(router.asked(), Vec::<String>::new());
}

#[test]
fn a_keepalived_that_has_just_started_survives() {
    let Some(mut router) = Router::enter("commit::a_keepalived_that_has_just_started_survives") else {
        return;
    };
    // On a router, the owner script takes a moment to start. Here `commit` follows the start of keepalived at once.
    let off = configuration(json!({ "a": group(1, Value::Null) }));
    router.commit(off.clone());
    let began = Instant::now();
    vipa(&["commit"], &input(&one(), &off)).assert_silent();
    println!("commit after a start of keepalived: {:?}", began.elapsed());
    let expected: Vec<&str> = VYOS_RELOADS.into_iter().chain([START_AGENT, RELOAD]).collect();
    assert_eq!(router.asked(), expected);
    router.wait_attached(true);
}

#[test]
fn a_reload_without_effect_is_reported_within_its_time_limit() {
    let off = configuration(json!({ "a": group(1, Value::Null) }));
    let Some(router) = Router::booted("commit::a_reload_without_effect_is_reported_within_its_time_limit", off.clone())
    else {
        return;
    };
    router.spoil("reload.lost");
    let began = Instant::now();
    let answer = vipa(&["commit"], &input(&one(), &off));
    let took = began.elapsed();
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "{answer:?}");
    assert!(answer.out.starts_with("WARNING: keepalived did not open the transition FIFO "), "{}", answer.out);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(router.asked(), [START_AGENT, RELOAD]);
    // The next call tries again.
    router.mend("reload.lost");
    vipa(&["commit"], &input(&one(), &one())).assert_silent();
    assert_eq!(router.asked(), [RELOAD]);
    router.wait_attached(true);
}

#[test]
fn a_failure_of_systemctl_is_reported_and_the_next_call_continues() {
    let off = configuration(json!({ "a": group(1, Value::Null) }));
    let test = "commit::a_failure_of_systemctl_is_reported_and_the_next_call_continues";
    let Some(router) = Router::booted(test, off.clone()) else {
        return;
    };
    let refused = |answer: crate::router::Answer, words: &str| {
        assert_eq!((answer.code, answer.out.as_str()), (Some(1), ""), "{answer:?}");
        let expected = format!("vyos-aws-vipa: systemctl {words} failed (exit status: 1): Failed to connect to bus");
        assert!(answer.err.starts_with(&expected), "{}", answer.err);
    };
    router.spoil("systemctl.refuses");
    refused(vipa(&["commit"], &input(&one(), &off)), START_AGENT);
    // VyOS drops the nodes, so no file has them.
    assert!([CONFIG, GROUPS, INCLUDE].iter().all(|path| !Path::new(path).exists()));
    assert_eq!(fs::read_to_string(KEEPALIVED_CONF).expect("read"), keepalived_conf(&off));
    router.mend("systemctl.refuses");
    vipa(&["commit"], &input(&one(), &off)).assert_silent();
    router.wait_attached(true);
    // The steps that do not need systemd are done; the next call does the others.
    router.spoil("systemctl.refuses");
    refused(vipa(&["commit"], &input(&off, &one())), STOP_AGENT);
    assert!([CONFIG, GROUPS, INCLUDE].iter().all(|path| !Path::new(path).exists()));
    assert_eq!(fs::read_to_string(KEEPALIVED_CONF).expect("read"), keepalived_conf(&off));
    router.mend("systemctl.refuses");
    router.asked();
    vipa(&["commit"], &input(&off, &off)).assert_silent();
    assert_eq!(router.asked(), [STOP_AGENT, RELOAD]);
    router.wait_attached(false);
}

/// The owner script kills `commit` after its TIMEOUT, so a failed commit must be rolled back before that.
#[test]
fn a_hanging_systemctl_is_rolled_back_within_the_timeout_of_the_owner() {
    let off = configuration(json!({ "a": group(1, Value::Null) }));
    let test = "commit::a_hanging_systemctl_is_rolled_back_within_the_timeout_of_the_owner";
    let Some(router) = Router::booted(test, off.clone()) else {
        return;
    };
    let mut tree = one();
    fs::write("/run/lab/keys", "[default]\n").expect("written");
    tree["high-availability"]["vrrp"]["global-parameters"]["aws-vipa"] = json!({ "credentials-file": "/run/lab/keys" });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conf_mode/high-availability_vrrp_aws-vipa.py");
    let script = fs::read_to_string(script).expect("the owner script");
    let (_, timeout) = script.split_once("\nTIMEOUT = ").expect("a time limit");
    let timeout: u64 = timeout.split('\n').next().expect("a line").parse().expect("seconds");
    router.spoil("systemctl.hangs");
    let began = Instant::now();
    let answer = vipa(&["commit"], &input(&tree, &off));
    let took = began.elapsed();
    let expected = format!("systemctl {START_BOTH} did not end within");
    assert!(answer.code == Some(1) && answer.err.contains(&expected), "{answer:?}");
    // Including the 2 s that a call waits for a concurrent one.
    assert!(took + Duration::from_secs(2 + 3) < Duration::from_secs(timeout), "{took:?} of {timeout} s");
    assert!([CONFIG, GROUPS, INCLUDE, COPY].iter().all(|path| !Path::new(path).exists()));
    assert_eq!(fs::read_to_string(KEEPALIVED_CONF).expect("read"), keepalived_conf(&off));
    // One hanging call of systemctl does not prevent the others.
    router.mend("systemctl.hangs");
    router.asked();
    fs::write("/run/lab/systemctl.hangs", format!("{START_BOTH}\n")).expect("written");
    let mut with_boot: Value = serde_json::from_slice(&input(&tree, &off)).expect("JSON");
    with_boot["boot"] = json!(true);
    let answer = vipa(&["commit"], with_boot.to_string().as_bytes());
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert_eq!(router.asked(), [START_BOTH, RELOAD]);
    router.wait_attached(true);
}

fn with_credentials(file: &str) -> Value {
    let mut tree = one();
    tree["high-availability"]["vrrp"]["global-parameters"]["aws-vipa"] = json!({ "credentials-file": file });
    tree
}

/// Replaces a file by one that only root may read.
fn replace(file: &str, text: &str) {
    fs::write("/run/lab/new", text).expect("written");
    fs::set_permissions("/run/lab/new", Permissions::from_mode(0o600)).expect("set");
    fs::rename("/run/lab/new", file).expect("renamed");
}

fn copy() -> Value {
    serde_json::from_slice(&fs::read(COPY).expect("a copy")).expect("JSON")
}

fn text_copy(file: &str, text: &str) -> Value {
    json!({ "format": 1, "file": file, "content": { "text": text } })
}

#[test]
fn credentials_are_copied_for_the_agents_group_only_and_after_each_change() {
    let test = "commit::credentials_are_copied_for_the_agents_group_only_and_after_each_change";
    let Some(router) = Router::enter(test) else {
        return;
    };
    let keys = "/run/lab/keys";
    let tree = with_credentials(keys);
    let credentials = || vipa(&["credentials"], &[]).assert_silent();
    let unreadable = |reason: Value| json!({ "format": 1, "file": keys, "content": { "unreadable": reason } });
    let missing = || unreadable(json!({ "other": "No such file or directory (os error 2)" }));

    let answer = vipa(&["commit"], &input(&tree, &configuration(json!({}))));
    assert_eq!(answer.code, Some(0), "a missing file is a warning: {answer:?}");
    assert_eq!(router.asked(), [START_BOTH]);
    assert_eq!(copy(), missing());
    let first = format!("[default]\naws_secret_access_key = {SECRET}\n");
    replace(keys, &first);
    credentials();
    assert_eq!(copy(), text_copy(keys, &first));
    let state = || {
        let found = fs::symlink_metadata(COPY).expect("a copy");
        (found.uid(), found.gid(), found.mode() & 0o7777, found.ino(), found.ctime_nsec())
    };
    let before = state();
    assert_eq!((before.0, before.1, before.2), (0, 0, 0o640), "the agent's group has root's id in this namespace");
    credentials();
    vipa(&["commit"], &input(&tree, &tree)).assert_silent();
    assert_eq!(state(), before, "written although nothing has changed");

    // A change in place, of the same length.
    let second = first.replace("example", "another");
    fs::write(keys, &second).expect("written");
    credentials();
    assert_eq!(copy(), text_copy(keys, &second));
    for (make, reason) in [
        ("rm /run/lab/keys", json!({ "other": "No such file or directory (os error 2)" })),
        ("mkdir /run/lab/keys", json!({ "other": "it is not a regular file" })),
        ("rmdir /run/lab/keys && mkfifo /run/lab/keys", json!({ "other": "it is not a regular file" })),
        (
            "rm /run/lab/keys && head -c 65537 /dev/zero >/run/lab/keys",
            json!({ "other": "it is longer than 65536 bytes" }),
        ),
        ("printf '\\377' >/run/lab/keys", json!({ "other": "it is not UTF-8" })),
    ] {
        let status = std::process::Command::new("sh").args(["-c", make]).status().expect("a shell");
        assert!(status.success(), "{make}");
        credentials();
        assert_eq!(copy(), unreadable(reason), "{make}");
    }
    // The longest text, with bytes that take six each in JSON.
    let longest = "\u{1}".repeat(64 * 1024);
    for text in [longest, first] {
        replace(keys, &text);
        credentials();
        assert_eq!(copy(), text_copy(keys, &text));
    }
    // A copy that something else has changed is written again.
    for spoil in [
        "chmod 644 /run/vyos-aws-vipa/credentials.json",
        "echo rubbish >/run/vyos-aws-vipa/credentials.json",
        "ln -sf /run/lab/keys /run/vyos-aws-vipa/credentials.json",
        "rm /run/vyos-aws-vipa/credentials.json",
    ] {
        let status = std::process::Command::new("sh").args(["-c", spoil]).status().expect("a shell");
        assert!(status.success(), "{spoil}");
        credentials();
        let found = fs::symlink_metadata(COPY).expect("a copy");
        assert_eq!((found.is_file(), found.mode() & 0o7777), (true, 0o640), "{spoil}");
        assert_eq!(copy()["file"], keys, "{spoil}");
    }
    assert_eq!(router.asked(), Vec::<String>::new(), "systemd was called");
    for file in ["config.json", "groups.json", "keepalived.conf", "warned.json"] {
        let text = fs::read_to_string(format!("/run/vyos-aws-vipa/{file}")).unwrap_or_default();
        assert!(!text.contains(SECRET), "{file}: {text}");
    }
}

#[test]
fn the_copied_credentials_are_those_of_the_configuration_in_force() {
    let test = "commit::the_copied_credentials_are_those_of_the_configuration_in_force";
    let off = configuration(json!({ "a": group(1, Value::Null) }));
    let Some(router) = Router::booted(test, off.clone()) else {
        return;
    };
    replace("/run/lab/keys", "keys");
    replace("/run/lab/other", "other");
    let (keys, other) = (with_credentials("/run/lab/keys"), with_credentials("/run/lab/other"));
    let commit = |proposed: &Value, effective: &Value| {
        let answer = vipa(&["commit"], &input(proposed, effective));
        let refuses = Path::new("/run/lab/systemctl.refuses").exists();
        assert_eq!(answer.code, Some(i32::from(refuses)), "{answer:?}");
    };
    router.asked();
    // A failed commit leaves the copy as it was: first there is none, then it is that of the previous file.
    router.spoil("systemctl.refuses");
    commit(&keys, &off);
    assert!(!Path::new(COPY).exists());
    router.mend("systemctl.refuses");
    commit(&keys, &off);
    assert_eq!(copy(), text_copy("/run/lab/keys", "keys"));
    router.spoil("systemctl.refuses");
    commit(&other, &keys);
    assert_eq!(copy(), text_copy("/run/lab/keys", "keys"));
    commit(&one(), &keys);
    assert_eq!(copy(), text_copy("/run/lab/keys", "keys"));
    router.mend("systemctl.refuses");
    // The timer is started again if systemctl stopped it and still failed.
    router.asked();
    fs::write("/run/lab/systemctl.refuses", format!("{STOP_TIMER}\n")).expect("written");
    fs::remove_file("/run/lab/timer").expect("it ran");
    commit(&one(), &keys);
    assert_eq!(copy(), text_copy("/run/lab/keys", "keys"));
    assert_eq!(router.asked(), [START_AGENT, STOP_TIMER, START_TIMER]);
    assert!(Path::new("/run/lab/timer").exists(), "the timer is not running");
    router.mend("systemctl.refuses");
    // The same if config.json cannot be written: a mount point cannot be replaced.
    let config = fs::read(CONFIG).expect("read");
    let run = |words: &[&str]| {
        let status = std::process::Command::new(words[0]).args(&words[1..]).status().expect("util-linux");
        assert!(status.success(), "{words:?}: {status}");
    };
    run(&["mount", "--bind", CONFIG, CONFIG]);
    let answer = vipa(&["commit"], &input(&other, &keys));
    let expected = format!("vyos-aws-vipa: cannot write {CONFIG}: ");
    assert!(answer.code == Some(1) && answer.err.starts_with(&expected), "{answer:?}");
    assert_eq!((fs::read(CONFIG).expect("read"), copy()), (config, text_copy("/run/lab/keys", "keys")));
    run(&["umount", CONFIG]);
    commit(&other, &keys);
    assert_eq!(copy(), text_copy("/run/lab/other", "other"));
    router.asked();

    commit(&one(), &other);
    assert!(!Path::new(COPY).exists(), "the copy is still there, but no credentials file is configured");
    assert_eq!(router.asked(), [START_AGENT, STOP_TIMER]);
    commit(&keys, &one());
    router.asked();
    commit(&off, &keys);
    assert!(!Path::new(COPY).exists(), "the copy is still there, but nothing is configured");
    assert_eq!(router.asked(), [STOP_AGENT, STOP_TIMER, RELOAD]);
}

/// `credentials` may run while the last node is deleted, and write a copy after that.
#[test]
fn credentials_that_are_copied_too_late_are_removed() {
    let Some(router) = Router::enter("commit::credentials_that_are_copied_too_late_are_removed") else {
        return;
    };
    replace("/run/lab/keys", "keys");
    let tree = with_credentials("/run/lab/keys");
    assert_eq!(vipa(&["commit"], &input(&tree, &configuration(json!({})))).code, Some(0));
    assert!(Path::new(COPY).exists());
    fs::remove_file(CONFIG).expect("removed");
    router.asked();
    for _ in 0..2 {
        vipa(&["credentials"], &[]).assert_silent();
        assert!(!Path::new(COPY).exists());
        assert_eq!(router.asked(), [STOP_TIMER]);
    }
}

/// At boot no later call repeats a failed step.
#[test]
fn at_boot_a_failed_step_does_not_prevent_the_others() {
    let Some(router) = Router::booted(
        "commit::at_boot_a_failed_step_does_not_prevent_the_others",
        configuration(json!({ "a": group(1, Value::Null) })),
    ) else {
        return;
    };
    let mut tree = one();
    fs::write("/run/lab/keys", "[default]\n").expect("written");
    tree["high-availability"]["vrrp"]["global-parameters"]["aws-vipa"] = json!({ "credentials-file": "/run/lab/keys" });
    let boot = |tree: &Value| {
        let mut with_boot: Value = serde_json::from_slice(&input(tree, &configuration(json!({})))).expect("JSON");
        with_boot["boot"] = json!(true);
        vipa(&["commit"], with_boot.to_string().as_bytes())
    };
    fs::write("/run/lab/systemctl.refuses", format!("{START_BOTH}\n")).expect("written");
    router.asked();
    let answer = boot(&tree);
    assert!(answer.code == Some(1) && answer.err.contains(&format!("systemctl {START_BOTH} failed")), "{answer:?}");
    assert_eq!(router.asked(), [START_BOTH, RELOAD]);
    router.wait_attached(true);
    assert!(Path::new(CONFIG).exists() && Path::new(COPY).exists(), "the configuration is not in force");
    router.mend("systemctl.refuses");
    assert_eq!(boot(&tree).code, Some(0));
    assert_eq!(router.asked(), [START_BOTH]);
}

#[test]
fn a_call_waits_for_a_concurrent_one_for_a_limited_time() {
    let Some(router) = Router::booted("commit::a_call_waits_for_a_concurrent_one_for_a_limited_time", one()) else {
        return;
    };
    let (path, calls) = ("/run/vyos-aws-vipa/lock", Path::new(CALLS));
    assert_eq!(fs::metadata(path).expect("made at boot").mode() & 0o7777, 0o600);
    let disabled = configuration(json!({ "a": group(1, json!({ "disable": {} })) }));
    let of_a_commit = |proposed: &Value, effective: &Value| {
        let mut input: Value = serde_json::from_slice(&input(proposed, effective)).expect("JSON");
        input["commit"] = json!("one");
        input.to_string().into_bytes()
    };
    let before = fs::read(CONFIG).expect("read");
    let lock = fs::File::open(path).expect("opened");
    let hold = || rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    hold();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| vipa(&["commit"], &of_a_commit(&disabled, &one())));
        // This process has the file open too.
        let has_it_open = |process: &Path| {
            let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
            files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file == Path::new(path))
        };
        router.wait("the call to wait", || {
            let processes = fs::read_dir("/proc").expect("processes").flatten().map(|entry| entry.path());
            processes.filter(|process| has_it_open(process)).count() > 1
        });
        assert_eq!(fs::read(CONFIG).expect("read"), before);
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::Unlock).expect("unlocked");
        call.join().expect("no panic").assert_silent();
    });
    assert_ne!(fs::read(CONFIG).expect("read"), before);
    assert!(calls.exists());
    // A concurrent call that hangs does not block the commit. As it may have changed files meanwhile, the next call is made
    // in full.
    hold();
    let began = Instant::now();
    vipa(&["commit"], &of_a_commit(&one(), &disabled)).assert_silent();
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert_eq!(fs::read(CONFIG).expect("read"), before);
    assert!(!calls.exists());
}

/// The limit on a router is 20 ms, which the benchmark checks. This measures the processor time of an unoptimised build.
#[test]
fn commit_is_quick_with_200_groups_and_nothing_to_change() {
    let Some(router) = Router::enter("commit::commit_is_quick_with_200_groups_and_nothing_to_change") else {
        return;
    };
    let groups = (1..=200_u8).map(|n| {
        let mut group = group(n, json!({}));
        group["address"] = json!({ format!("10.99.0.{}/24", u16::from(n) + 2): {} });
        (format!("group-{n}"), group)
    });
    let tree = configuration(Value::Object(groups.collect()));
    fs::write(KEEPALIVED_CONF, keepalived_conf(&tree)).expect("written");
    let input = input(&tree, &tree);
    vipa(&["commit"], &input).assert_silent();
    assert_eq!(router.asked(), [START_AGENT]);
    let before = processor_time_of_children();
    for _ in 0..10 {
        vipa(&["commit"], &input).assert_silent();
    }
    let cost = (processor_time_of_children() - before) / 10;
    println!("commit with 200 groups and nothing to change: {cost:?} of processor time");
    assert!(cost < Duration::from_millis(200), "{cost:?}");
    assert_eq!(router.asked(), Vec::<String>::new());
}
