//! `force`, and the agent's history: with a running agent and the simulator.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use simulator::{Fault, On};
use vipa_core::model::config::{Config, SkippedGroup};
use vipa_core::model::ids::GroupName;
use vyos_aws_vipa::agent;
use vyos_aws_vipa::aws::Imds;
use vyos_aws_vipa::commands::force::{Force, ForceError};
use vyos_aws_vipa::commands::show_group::ShowGroup;
use vyos_aws_vipa::commands::show_status::ShowStatus;
use vyos_aws_vipa::control::Access;
use vyos_aws_vipa::fs::json_file;

use crate::router::{Router, VIP, inside, ip, nowhere, router_1, start, stop};

const WITHIN: Duration = Duration::from_secs(20);

fn group(name: &str) -> GroupName {
    GroupName::try_from(name).expect("a group")
}

fn claim(name: &str) -> Force {
    Force::Claim { group: group(name) }
}

/// The output of a command, and its result.
fn force(router: &Router, what: Force) -> (String, Result<(), ForceError>) {
    let mut out = Vec::new();
    let result = what.run(&router.paths, &mut out);
    (String::from_utf8(out).expect("UTF-8"), result)
}

#[track_caller]
fn refused(router: &Router, what: Force, words: &str) {
    let shown = format!("{what:?}");
    match force(router, what) {
        (text, Err(error @ ForceError::Refused(_))) => {
            assert!(text.is_empty() && error.to_string().contains(words), "{shown}: {text}{error}");
        }
        (text, other) => panic!("{shown}: {other:?}\n{text}"),
    }
}

/// The agent's report, with its history.
fn report(router: &Router) -> Value {
    let show = ShowStatus { json: true, detail: true, fresh: false };
    let mut out = Vec::new();
    show.run(&router.paths, &Imds::at(&nowhere()), Access::Granted, &mut out).expect("printed");
    serde_json::from_slice(&out).expect("JSON")
}

#[track_caller]
fn wait_for(what: &str, router: &Router, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + WITHIN;
    loop {
        let report = report(router);
        if is_so(&report) {
            return report;
        }
        assert!(Instant::now() < deadline, "{what}: {report:#}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Requests at the same time share one response of EC2.
#[test]
fn many_concurrent_fresh_requests_are_one_read_a_second() {
    if !inside("force::many_concurrent_fresh_requests_are_one_read_a_second") {
        return;
    }
    let (cloud, router) = router_1();
    fs::create_dir(&router.paths.state).expect("a directory");
    let agent = start(&router.paths);
    wait_for("no agent that has read EC2", &router, |r| {
        r["agent"].is_object() && r["ec2"]["last_success_at"].is_string()
    });
    let reads = || cloud.requests().iter().filter(|r| r.action == "DescribeNetworkInterfaces").count();
    let (before, began) = (reads(), Instant::now());
    let fresh = || {
        let asked = jiff::Timestamp::now();
        let mut out = Vec::new();
        let show = ShowStatus { json: true, detail: false, fresh: true };
        show.run(&router.paths, &Imds::at(&nowhere()), Access::Granted, &mut out).expect("printed");
        let report: Value = serde_json::from_slice(&out).expect("JSON");
        let read: jiff::Timestamp =
            web(&report)["addresses"][0]["owner"]["at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
        let age = asked.duration_since(read);
        assert!(age.as_millis() < 1_100 && report["not_answered"] == serde_json::json!([]), "{age:?} {report:#}");
    };
    thread::scope(|scope| (0..8).for_each(|_| _ = scope.spawn(|| (0..10).for_each(|_| fresh()))));
    let most = began.elapsed().as_secs() as usize + 1;
    let made = reads() - before;
    // The regular read may be among them.
    assert!((1..=most + 1).contains(&made), "{made} reads for 80 requests in {:?}", began.elapsed());
    stop(agent);
}

/// The disk is not writable: a pause takes effect, and the output says that it is not saved.
#[test]
fn a_pause_that_cannot_be_saved_is_reported_as_lost_at_a_restart() {
    if !inside("force::a_pause_that_cannot_be_saved_is_reported_as_lost_at_a_restart") {
        return;
    }
    let (_cloud, router) = router_1();
    let agent = start(&router.paths);
    wait_for("no agent with the group", &router, |r| r["agent"].is_object() && web(r).is_object());
    let pause = || Force::Pause { group: group("web"), minutes: 5.try_into().expect("in range") };
    let (text, result) = force(&router, pause());
    let error = result.expect_err("not saved").to_string();
    assert!(text.starts_with("Group web is paused until "), "{text}");
    assert!(
        error.starts_with("the pause is in effect but not saved, and a restart") && error.contains("pauses.json"),
        "{error}"
    );
    let status = report(&router);
    assert!(web(&status)["pause_not_saved"].as_str().is_some_and(|why| why.contains("pauses.json")), "{status:#}");
    let (text, result) = force(&router, Force::Resume { group: group("web") });
    let error = result.expect_err("not saved").to_string();
    assert!(text.starts_with("Pause of group web ended: ") && error.starts_with("the end of the pause"), "{error}");
    fs::create_dir(&router.paths.state).expect("a directory");
    force(&router, pause()).1.expect("saved");
    assert!(web(&report(&router)).get("pause_not_saved").is_none());
    let kept = fs::read_to_string(router.paths.state.join("pauses.json")).expect("saved before the command ends");
    assert!(kept.contains(r#""groups":{"web":"#) && kept.contains(r#""minutes":5"#), "{kept}");

    // A second agent, started by hand, does not disturb the first one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let error = runtime.block_on(agent::run(&router.paths)).expect_err("an agent is running");
    assert!(matches!(error, agent::AgentError::Running { .. }), "{error:?}");
    assert!(error.to_string().contains("another agent is running"), "{error}");
    assert!(report(&router)["agent"].is_object(), "the first agent does not answer");
    stop(agent);
}

/// The group `web` of a report.
fn web(report: &Value) -> &Value {
    let mut groups = report["groups"].as_array().expect("groups").iter();
    groups.find(|g| g["name"] == "web").unwrap_or(&Value::Null)
}

#[test]
fn without_a_configuration_there_is_nothing_to_force() {
    match force(&Router::new(), claim("web")) {
        (_, Err(error @ ForceError::Configuration(_))) => {
            assert!(error.to_string().contains("set high-availability vrrp group <group> aws-vipa"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn forced_actions_and_the_history_survive_a_restart() {
    if !inside("force::forced_actions_and_the_history_survive_a_restart") {
        return;
    }
    let (cloud, router) = router_1();
    cloud.steal(VIP, "eni-0a000000000000002").expect("assigned");
    let mut config: Config = json_file::read(&router.paths.config).expect("read");
    let misnamed = SkippedGroup { name: "a b".to_owned(), errors: vec!["it holds white space".to_owned()] };
    config.skipped.push(misnamed);
    config.skipped.push(SkippedGroup { name: "bad".to_owned(), errors: vec!["10.1.1.1 is in two groups".to_owned()] });
    json_file::write(&router.paths.config, 0o644, &config).expect("written");
    fs::create_dir(&router.paths.state).expect("a directory");
    let mut fifo = router.keepalived();

    match force(&router, claim("web")) {
        (_, Err(error @ ForceError::NoAnswer(_))) => {
            assert!(error.to_string().contains("`restart aws-vipa`"), "{error}")
        }
        other => panic!("{other:?}"),
    }
    let agent = start(&router.paths);
    let deadline = Instant::now() + WITHIN;
    while !router.paths.socket.exists() {
        assert!(Instant::now() < deadline, "no socket");
        thread::sleep(Duration::from_millis(5));
    }
    wait_for("not attached", &router, |r| r["hook"]["attached"] == true);
    fifo.write_all(b"INSTANCE \"web\" BACKUP 100\n").expect("written");
    wait_for("not BACKUP", &router, |r| web(r)["vrrp"] == "BACKUP");
    refused(&router, claim("web"), "group web is BACKUP, not MASTER, on this router: claim on the router that is");
    refused(&router, claim("mail"), "group mail has no aws-vipa node: `show aws-vipa status` lists");
    refused(&router, claim("bad"), "group bad is skipped because of an error: check `show aws-vipa group bad`");

    ip("address add 10.99.0.100/32 dev eth0");
    fifo.write_all(b"INSTANCE \"web\" MASTER 200\n").expect("written");
    cloud.wait_for_owner(VIP, "eni-0a000000000000001", WITHIN).expect("claimed");
    let before = cloud.requests().len();
    let (text, result) = force(&router, claim("web"));
    result.expect("claimed");
    assert!(text.starts_with("Group web: MASTER\n10.99.0.100      claimed ") && text.contains(", request"), "{text}");
    let requests = cloud.requests();
    assert!(requests[before..].iter().any(|r| r.action == "AssignPrivateIpAddresses"), "{cloud}");

    let denied = cloud.add_fault(Fault::on(On::claims()).deny());
    let (text, result) = force(&router, claim("web"));
    let error = result.expect_err("denied").to_string();
    assert!(error.starts_with("1 of 1 not claimed; `show aws-vipa group web`"), "{error}");
    assert!(text.contains("claim failed") && text.contains("UnauthorizedOperation"), "{text}");
    assert!(text.contains("\naws ec2 assign-private-ip-addresses --region eu-west-1 --endpoint-url http"), "{text}");
    cloud.remove_fault(denied);

    let minutes = 5.try_into().expect("in range");
    let (text, result) = force(&router, Force::Pause { group: group("web"), minutes });
    result.expect("paused");
    assert!(
        text.starts_with("Group web is paused until ") && text.contains("(4m 59s)") || text.contains("(5m 0s)"),
        "{text}"
    );
    refused(&router, claim("web"), "group web is paused: `force aws-vipa resume web` first");
    assert_eq!(web(&report(&router))["addresses"][0]["verdict"], "PAUSED");

    // The pause and the history survive a restart of the agent.
    stop(agent);
    let agent = start(&router.paths);
    let status = wait_for("no agent after the restart", &router, |r| r["agent"].is_object());
    assert!(web(&status)["paused_until"].is_string(), "{status:#}");
    let kinds = |status: &Value| -> Vec<String> {
        let records = status["history"].as_array().expect("a history").iter();
        records.map(|r| r["kind"].as_str().expect("a kind").to_owned()).collect()
    };
    let all = kinds(&status);
    assert_eq!(all.iter().filter(|k| *k == "forced").count(), 2, "{all:?}");
    for kind in ["transition", "claim"] {
        assert!(all.iter().filter(|k| *k == kind).count() >= 2, "{kind}: {all:?}");
    }
    assert_eq!(all.last().map(String::as_str), Some("started"), "{all:?}");
    let mut out = Vec::new();
    ShowGroup { group: "web".to_owned() }
        .run(&router.paths, &Imds::at(&nowhere()), Access::Granted, &mut out)
        .expect("printed");
    let text = String::from_utf8(out).expect("UTF-8");
    for expected in [
        "\nClaims       PAUSED until ",
        "web: BACKUP -> MASTER, keepalived: MASTER",
        "10.99.0.100 claimed in",
        "10.99.0.100 NOT CLAIMED after",
        "web: claim forced by an operator",
    ] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    let (text, result) = force(&router, Force::Resume { group: group("web") });
    result.expect("resumed");
    assert!(text.starts_with("Pause of group web ended: "), "{text}");
    assert!(web(&report(&router))["paused_until"].is_null());
    refused(&router, Force::Resume { group: group("web") }, "group web is not paused");
    let unknown = ShowGroup { group: "mail".to_owned() }.run(
        &router.paths,
        &Imds::at(&nowhere()),
        Access::Granted,
        &mut Vec::new(),
    );
    let unknown = unknown.expect_err("no such group").to_string();
    assert_eq!(unknown, "group mail has no aws-vipa node; groups with one: a b, bad, web");
    // A group that is skipped because of its name.
    let mut out = Vec::new();
    ShowGroup { group: "a b".to_owned() }
        .run(&router.paths, &Imds::at(&nowhere()), Access::Granted, &mut out)
        .expect("printed");
    let text = String::from_utf8(out).expect("UTF-8");
    assert!(text.contains("none: nothing is moved, see below") && !text.contains("BACKUP -> MASTER"), "{text}");
    stop(agent);
}
