//! `show failover`: with a running agent and the simulator.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use simulator::{Fault, On, Request, Simulator};
use vyos_aws_vipa::commands::show_failover::{ShowFailover, ShowFailoverError};

use crate::router::{Router, VIP, inside, ip, router_1, start, stop};

const R1: &str = "eni-0a000000000000001";
const R2: &str = "eni-0a000000000000002";
const WITHIN: Duration = Duration::from_secs(20);

fn show(router: &Router, json: bool, group: Option<&str>) -> Result<String, ShowFailoverError> {
    let mut out = Vec::new();
    ShowFailover { json, group: group.map(str::to_owned) }.run(&router.paths, &mut out)?;
    Ok(String::from_utf8(out).expect("UTF-8"))
}

/// The timelines of the group `web`, once they are as expected.
#[track_caller]
fn wait_for(what: &str, router: &Router, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + WITHIN;
    loop {
        let shown = show(router, true, Some("web")).map(|text| serde_json::from_str::<Value>(&text).expect("JSON"));
        if let Ok(shown) = &shown
            && is_so(&shown["groups"][0])
        {
            return shown["groups"][0].clone();
        }
        assert!(Instant::now() < deadline, "{what}: {shown:#?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The request ids that EC2 gave these calls.
fn ids(cloud: &Simulator, is_one: impl Fn(&Request) -> bool) -> Vec<String> {
    cloud.requests().iter().filter(|request| is_one(request)).map(|request| request.request_id.clone()).collect()
}

fn claims(cloud: &Simulator) -> Vec<String> {
    ids(cloud, |request| request.action == "AssignPrivateIpAddresses")
}

#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_timeline_has_what_ec2_answered_and_survives_a_restart() {
    if !inside("failover::a_timeline_has_what_ec2_answered_and_survives_a_restart") {
        return;
    }
    let (cloud, router) = router_1();
    cloud.steal(VIP, R2).expect("assigned");
    fs::create_dir(&router.paths.state).expect("a directory");
    let mut fifo = router.keepalived();
    let error = show(&router, false, None).expect_err("no agent").to_string();
    assert!(error.starts_with("the agent is not running") && error.contains("`restart aws-vipa`"), "{error}");

    let agent = start(&router.paths);
    wait_for("no agent with the group", &router, |web| web["now"][0]["address"] == "10.99.0.100");
    fifo.write_all(b"INSTANCE \"web\" BACKUP 100\n").expect("written");
    wait_for("not BACKUP", &router, |web| web["vrrp"] == "BACKUP");
    assert_eq!(show(&router, false, None).expect("shown"), "Group web: no failover recorded by this router.\n");
    let error = show(&router, false, Some("mail")).expect_err("no such group").to_string();
    assert_eq!(error, "group mail has no aws-vipa node; groups with one: web");

    cloud.add_fault(Fault::on(On::claims()).times(1).error(503, "RequestLimitExceeded"));
    ip("address add 10.99.0.100/32 dev eth0");
    let before = cloud.requests().len();
    fifo.write_all(b"INSTANCE \"web\" MASTER 200\n").expect("written");
    let web = wait_for("not confirmed", &router, |web| {
        web["became_master"]["kinds"][0]["confirmed"] == 1 && web["now"][0]["verdict"] == "OK"
    });
    let moved = &web["became_master"]["resources"][0];
    let requests = cloud.requests().split_off(before);
    let sent = claims(&cloud);
    assert_eq!(sent.len(), 2, "{cloud}");
    assert_eq!((&moved["address"], &moved["attempts"]), (&"10.99.0.100".into(), &2.into()), "{web:#}");
    assert_eq!(moved["failures"][0]["request_id"], *sent[0], "{web:#}");
    assert_eq!(moved["failures"][0]["class"], "throttled", "{web:#}");
    assert_eq!(moved["acknowledged"]["request_id"], *sent[1], "{web:#}");
    let read = moved["confirmed"]["request_id"].as_str().expect("an id");
    let is_that_read = |r: &Request| r.request_id == read && r.action == "DescribeNetworkInterfaces";
    assert!(requests.iter().any(is_that_read), "{web:#} {cloud}");
    assert_eq!(moved["confirmed"]["eni"], R1);
    let ms = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{web:#}"));
    let times = [
        ms(&moved["requested_ms"]),
        ms(&moved["failures"][0]["began_ms"]),
        ms(&moved["failures"][0]["ended_ms"]),
        ms(&moved["acknowledged"]["began_ms"]),
        ms(&moved["acknowledged"]["ended_ms"]),
        ms(&moved["confirmed"]["ended_ms"]),
    ];
    assert!(times.is_sorted() && times[0] < 1_000, "{times:?}");
    let text = show(&router, false, None).expect("shown");
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "Group web Became MASTER at ",
        "BACKUP -> MASTER, keepalived: MASTER",
        "last advertisement heard: not reported by keepalived",
        "request sent: 10.99.0.100",
        &format!("RequestLimitExceeded (throttled); request {}", sent[0]),
        &format!("request {}", sent[1]),
        &format!("confirmed by a read; request {read}"),
        "now State MASTER: 1 OK",
    ] {
        assert!(joined.contains(expected), "{expected}: {text}");
    }

    // A restart of the agent is no failover.
    stop(agent);
    let agent = start(&router.paths);
    let after = wait_for("not started", &router, |web| web["vrrp"] == "UNKNOWN");
    assert_eq!(after["became_master"], web["became_master"]);
    // The second event comes while the claim for the first is in flight, and has to wait for its own.
    let before = claims(&cloud).len();
    cloud.add_fault(Fault::on(On::claims()).times(2).delay_before(Duration::from_millis(200)));
    for event in 1..=2 {
        fifo.write_all(b"INSTANCE \"web\" MASTER 200\n").expect("written");
        eventually("a claim", || claims(&cloud).len() == before + event);
    }
    let after = wait_for("not MASTER again", &router, |web| web["now"][0]["verdict"] == "OK");
    assert_eq!(after["became_master"], web["became_master"]);
    let both = "\nvyos_aws_vipa_notify_to_request_seconds_count 2\n";
    eventually("both are measured", || fs::read_to_string(&router.paths.metrics).is_ok_and(|text| text.contains(both)));

    fifo.write_all(b"INSTANCE \"web\" BACKUP 100\n").expect("written");
    ip("address del 10.99.0.100/32 dev eth0");
    wait_for("not BACKUP", &router, |web| web["left_master"]["to"] == "BACKUP");
    cloud.steal(VIP, R2).expect("assigned");
    let web = wait_for("not seen there", &router, |web| web["left_master"]["kinds"][0]["confirmed"] == 1);
    assert_eq!(web["left_master"]["resources"][0]["confirmed"]["eni"], R2);
    assert_eq!(web["became_master"], after["became_master"]);
    let read = web["left_master"]["resources"][0]["confirmed"]["request_id"].as_str().expect("an id");
    assert_eq!(ids(&cloud, |r| r.request_id == read && r.succeeded()).len(), 1, "{cloud}");
    let text = show(&router, false, Some("web")).expect("shown");
    assert!(text.contains("\nLeft MASTER at ") && text.contains("\n    now  State"), "{text}");
    stop(agent);
}
