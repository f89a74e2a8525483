//! `show failover`: the timelines as text and as JSON, pinned in tests/failover.
//!
//! `BLESS=1` writes the pinned files anew.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use vipa_core::model::ec2::{CallError, ErrorClass, Failure, Owner};
use vipa_core::model::failover::{Failovers, Transition};
use vipa_core::model::ids::{EniId, ErrorCode, GroupName, InstanceId, RequestId};
use vipa_core::model::pause::Now;
use vipa_core::model::resource::{Resource, Route};
use vipa_core::model::verdict::Verdict;
use vipa_core::model::vrrp::VrrpState;
use vipa_core::report::failover::{FailoverReport, failover, group};
use vipa_core::report::model::GroupReport;

/// What these failovers happen to: when, by the boot clock in milliseconds, and the groups.
struct Router {
    failovers: Failovers,
    groups: Vec<GroupReport>,
}

fn now() -> Timestamp {
    "2026-11-22T11:03:05Z".parse().expect("a time")
}

/// A time by both clocks.
fn at(ms: u64) -> Now {
    let begin = now() - SignedDuration::from_secs(185) + SignedDuration::from_millis(142);
    Now { wall: begin + SignedDuration::from_millis(ms as i64), boot: "x".to_owned(), since_boot: ms_(ms + 1_000_000) }
}

fn ms_(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn name(group: &str) -> GroupName {
    GroupName::try_from(group).expect("a name")
}

fn address(last: u8) -> Resource {
    Ipv4Addr::new(10, 99, 0, last).into()
}

fn route(n: u8) -> Resource {
    let table = "rtb-0123456789abcde00".try_into().expect("a route table");
    Resource::Route(Route { table, destination: format!("10.{n}.0.0/16").parse().expect("a prefix") })
}

fn elastic_ip(n: u8) -> Resource {
    Resource::ElasticIp(format!("eipalloc-0123456789abcde{n:02x}").try_into().expect("an id"))
}

fn ours() -> Owner {
    let eni = EniId::try_from("eni-0123456789abcdef0").expect("an id");
    Owner { eni, instance: InstanceId::try_from("i-0123456789abcdef0").ok(), primary: false }
}

fn theirs() -> Owner {
    let eni = EniId::try_from("eni-0fedcba9876543210").expect("an id");
    Owner { eni, instance: InstanceId::try_from("i-0fedcba9876543210").ok(), primary: false }
}

/// EC2's request id of that number.
fn request(n: u32) -> Option<RequestId> {
    RequestId::try_from(format!("59dbff89-35bd-4eac-99ed-be587e12{n:04x}")).ok()
}

fn error(code: &str, class: ErrorClass, n: u32) -> CallError {
    let failure = Failure::of(ErrorCode::try_from(code).expect("a code"), class);
    CallError {
        request_id: request(n).filter(|_| class != ErrorClass::TimedOut),
        ..CallError::new(failure, "a message")
    }
}

impl Router {
    fn new() -> Self {
        Self { failovers: Failovers::default(), groups: Vec::new() }
    }

    /// Adds a group with what it moves, and the state of each now.
    fn group(&mut self, name: &str, vrrp: VrrpState, now: &[(Resource, Verdict, Option<&str>)]) {
        let state = |verdict: &Verdict, reason: &Option<&str>| json!({ "interface": "eth0", "eni": null, "owner": null, "verdict": verdict, "reason": reason, "last_claim": null });
        let of = |chosen: fn(&Resource) -> bool| -> Vec<serde_json::Value> {
            let chosen = now.iter().filter(|(resource, ..)| chosen(resource));
            chosen
                .map(|(resource, verdict, reason)| {
                    let mut value = state(verdict, reason);
                    let fields = serde_json::to_value(resource).expect("JSON");
                    fields.as_object().expect("fields").iter().for_each(|(name, field)| value[name] = field.clone());
                    value
                })
                .collect()
        };
        let group = json!({
            "name": name, "vrrp": vrrp, "vrrp_since": null, "vrrp_reason": null, "disabled": false,
            "paused_until": null, "errors": [],
            "addresses": of(|r| matches!(r, Resource::Address(_))),
            "routes": of(|r| matches!(r, Resource::Route(_))),
            "elastic_ips": of(|r| matches!(r, Resource::ElasticIp(_))),
        });
        self.groups.push(serde_json::from_value(group).expect("a group"));
    }

    /// The group is now in another state, and moves the resources.
    fn changes(&mut self, group: &str, ms: u64, states: [VrrpState; 2], cause: &str, resources: &[Resource]) {
        let [from, to] = states;
        let transition = Transition { from, to, cause };
        assert!(self.failovers.transition(&at(ms), &name(group), transition, || resources.to_vec()));
    }

    fn becomes_master(&mut self, group: &str, resources: &[Resource]) {
        self.changes(group, 0, [VrrpState::Backup, VrrpState::Master], "keepalived: MASTER", resources);
    }

    /// A request for these that begins and ends at these times, in milliseconds.
    fn claims(&mut self, group: &str, resources: &[Resource], times: [u64; 2], result: Result<u32, &CallError>) {
        let [began, ended] = times;
        for resource in resources {
            self.failovers.requested(&at(began), &name(group), resource);
            let id = result.ok().and_then(request);
            let result = result.map(|_| id.as_ref());
            assert!(self.failovers.claimed(&at(ended), ms_(ended - began), &name(group), resource, result));
        }
    }

    /// A read that shows the owner.
    fn reads(&mut self, group: &str, resources: &[Resource], ms: u64, owner: &Owner, id: u32) {
        for resource in resources {
            let at = at(ms).since_boot;
            assert!(self.failovers.confirmed("x", at, &name(group), resource, owner, request(id).as_ref()));
        }
    }

    fn report(&self) -> FailoverReport {
        let groups = self.groups.iter().map(|of| group(of, self.failovers.of(&name(&of.name)))).collect();
        FailoverReport { format: 1, generated_at: now(), groups }
    }
}

#[track_caller]
fn pinned(file: &str, report: &FailoverReport) {
    let json = serde_json::to_string_pretty(report).expect("JSON") + "\n";
    assert_eq!(serde_json::from_str::<FailoverReport>(&json).expect("a report"), *report);
    pinned_text(file, report);
    same(&format!("{file}.json"), &json);
}

#[track_caller]
fn pinned_text(file: &str, report: &FailoverReport) {
    let text = failover(report);
    for line in text.lines() {
        assert!(line.chars().count() <= 80 && line.trim_end() == line, "{line:?}");
    }
    same(&format!("{file}.txt"), &text);
}

#[track_caller]
fn same(file: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/failover").join(file);
    if env::var_os("BLESS").is_some() {
        fs::write(&path, text).expect("the pinned file is written");
    }
    let pinned = fs::read_to_string(&path).unwrap_or_default();
    assert!(pinned == text, "{file} is not what is printed now (BLESS=1 takes it over):\n{text}");
}

#[test]
fn an_address_that_is_throttled_at_first() {
    let mut router = Router::new();
    router.group("web", VrrpState::Master, &[(address(100), Verdict::Ok, None)]);
    router.becomes_master("web", &[address(100)]);
    router.claims("web", &[address(100)], [0, 312], Err(&error("RequestLimitExceeded", ErrorClass::Throttled, 1)));
    router.claims("web", &[address(100)], [471, 3_471], Err(&error("Timeout", ErrorClass::TimedOut, 2)));
    router.claims("web", &[address(100)], [3_502, 3_644], Ok(3));
    router.reads("web", &[address(100)], 4_651, &ours(), 4);
    pinned("address", &router.report());
}

/// Of the routes three are refused, and every tenth is throttled at first.
#[test]
fn two_hundred_routes_with_addresses_and_elastic_ips() {
    let routes: Vec<Resource> = (0..200).map(route).collect();
    let addresses = [address(100), address(101)];
    let elastic_ips = [elastic_ip(0), elastic_ip(1)];
    let all: Vec<Resource> = addresses.iter().chain(&routes).chain(&elastic_ips).cloned().collect();
    let why =
        "EC2 refuses the claim: UnauthorizedOperation. Attach the policy that `generate aws-vipa iam-policy` prints";
    let refused = |n: usize| n % 80 == 7;
    let mut now: Vec<(Resource, Verdict, Option<&str>)> = Vec::new();
    for (n, resource) in all.iter().enumerate() {
        let is_refused = matches!(resource, Resource::Route(_)) && refused(n - 2);
        now.push((resource.clone(), if is_refused { Verdict::Drift } else { Verdict::Ok }, is_refused.then_some(why)));
    }
    let mut router = Router::new();
    router.group("edge", VrrpState::Master, &now);
    router.becomes_master("edge", &all);
    router.claims("edge", &addresses, [0, 298], Ok(1));
    for (n, resource) in elastic_ips.iter().enumerate() {
        router.claims("edge", std::slice::from_ref(resource), [1, 350 + n as u64], Ok(2 + n as u32));
    }
    for (n, resource) in routes.iter().enumerate() {
        let (n, id) = (n as u64, 100 + n as u32);
        let mut began = 1 + 40 * n;
        let resource = std::slice::from_ref(resource);
        if n % 10 == 0 {
            let throttled = error("RequestLimitExceeded", ErrorClass::Throttled, id + 1_000);
            router.claims("edge", resource, [began, began + 20], Err(&throttled));
            began += 8_000;
        }
        if refused(n as usize) {
            let denied = error("UnauthorizedOperation", ErrorClass::Denied, id);
            router.claims("edge", resource, [began, began + 90], Err(&denied));
        } else {
            router.claims("edge", resource, [began, began + 280 + n % 7], Ok(id));
        }
    }
    router.reads("edge", &addresses, 1_310, &ours(), 4);
    router.reads("edge", &elastic_ips, 1_402, &ours(), 5);
    for (n, resource) in routes.iter().enumerate().filter(|(n, _)| !refused(*n)) {
        let round = n as u64 / 25;
        router.reads("edge", std::slice::from_ref(resource), 1_000 * (10 + round), &ours(), 50 + round as u32);
    }
    pinned_text("many-routes", &router.report());
    let size = serde_json::to_string(&router.failovers).expect("JSON").len();
    assert!(size < 100_000, "{size} bytes on disk");
}

#[test]
fn a_router_that_was_relieved_and_one_that_is_not_yet() {
    let mut router = Router::new();
    let standby = |resource| (resource, Verdict::StandbyReady, None);
    router.group("db", VrrpState::Backup, &[standby(address(102))]);
    router.group("web", VrrpState::Fault, &[(address(100), Verdict::StandbyNotReady, Some("eth1 is down"))]);
    router.group("dmz", VrrpState::Backup, &[standby(address(104))]);
    router.becomes_master("db", &[address(102)]);
    router.claims("db", &[address(102)], [0, 140], Ok(1));
    router.reads("db", &[address(102)], 1_150, &ours(), 2);
    let states = [VrrpState::Master, VrrpState::Backup];
    router.changes("db", 60_000, states, "keepalived: BACKUP", &[address(102)]);
    router.reads("db", &[address(102)], 75_031, &theirs(), 3);
    router.becomes_master("web", &[address(100)]);
    router.claims("web", &[address(100)], [0, 140], Ok(4));
    let states = [VrrpState::Master, VrrpState::Fault];
    router.changes("web", 500, states, "keepalived: FAULT", &[address(100)]);
    pinned("left", &router.report());
    let only = router.report().only(&name("db")).expect("the group");
    assert_eq!((only.groups.len(), &*only.groups[0].name), (1, "db"));
    assert!(router.report().only(&name("mail")).is_none());
}

#[test]
fn an_address_a_route_and_an_elastic_ip_there_and_back() {
    let mut router = Router::new();
    let all = [address(100), route(0), elastic_ip(0)];
    router.group("nat", VrrpState::Backup, &all.clone().map(|resource| (resource, Verdict::StandbyReady, None)));
    router.becomes_master("nat", &all);
    for (n, resource) in all.iter().enumerate() {
        let (n, id) = (n as u64, n as u32);
        let resource = std::slice::from_ref(resource);
        if n == 1 {
            let invalid = error("InvalidRouteTableID.NotFound", ErrorClass::BadResource, 40);
            router.claims("nat", resource, [1, 77], Err(&invalid));
        }
        router.claims("nat", resource, [100 * n, 100 * n + 140], Ok(10 + id));
        router.reads("nat", resource, 1_200 + n, &ours(), 20 + id);
    }
    let states = [VrrpState::Master, VrrpState::Backup];
    router.changes("nat", 90_000, states, "keepalived: BACKUP", &all);
    for (n, resource) in all.iter().enumerate() {
        router.reads("nat", std::slice::from_ref(resource), 105_200 + n as u64, &theirs(), 30 + n as u32);
    }
    pinned("every-kind", &router.report());
}

#[test]
fn a_claim_without_an_answer_so_far() {
    let mut router = Router::new();
    let why = "A claim is in flight.";
    router.group(
        "web",
        VrrpState::Master,
        &[(address(100), Verdict::Claiming, Some(why)), (address(101), Verdict::Claiming, None)],
    );
    let resources = [address(100), address(101)];
    let states = [VrrpState::Unknown, VrrpState::Master];
    router.changes("web", 0, states, "inferred from the local addresses", &resources);
    for resource in &resources {
        assert!(router.failovers.requested(&at(1_204), &name("web"), resource));
    }
    pinned("unanswered", &router.report());
}

#[test]
fn the_headings_of_a_group_with_a_long_name_take_a_line_each() {
    let name = "virtual-addresses-of-the-public-services-in-availability-zone-a";
    let mut router = Router::new();
    router.group(name, VrrpState::Backup, &[(address(100), Verdict::StandbyReady, None)]);
    router.becomes_master(name, &[address(100)]);
    router.changes(name, 90_000, [VrrpState::Master, VrrpState::Backup], "keepalived: BACKUP", &[address(100)]);
    let text = failover(&router.report());
    let headings: Vec<&str> = text.lines().filter(|line| line.starts_with(char::is_alphabetic)).collect();
    let expected = [
        &*format!("Group {name}"),
        "Became MASTER at 2026-11-22 11:00:00.142 UTC, 3m 4s ago",
        "Left MASTER at 2026-11-22 11:01:30.142 UTC, 1m 34s ago",
    ];
    assert_eq!(headings, expected, "{text}");
}

#[test]
fn groups_without_a_failover() {
    let mut router = Router::new();
    pinned_text("no-group", &router.report());
    router.group("web", VrrpState::Backup, &[(address(100), Verdict::StandbyReady, None)]);
    pinned_text("none", &router.report());
    router.group("a b", VrrpState::Backup, &[]);
    // Its name is no valid one, so it has no failovers.
    let report = router.groups.iter().map(|of| group(of, None)).collect();
    pinned_text("none-of-two", &FailoverReport { format: 1, generated_at: now(), groups: report });
}
