//! The command `show check`: with the simulator, and one fault at a time.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use simulator::{Fault, On, Service, Simulator, World};
use vipa_core::keepalived::groups::{AdvertiseInterval, Groups, RunningGroup, VirtualAddress};
use vipa_core::model::assignment::{Plan, PlannedResource};
use vipa_core::model::config::{Config, ElasticIpConfig, Global, RouteConfig, SkippedGroup};
use vipa_core::model::credentials::CredentialFacts;
use vipa_core::model::ec2::{self, CallError, Eni, ErrorClass, Failure, Instance, Interface, Owner};
use vipa_core::model::ids::{EniId, InterfaceName};
use vipa_core::model::path::{self, LocalNetwork, Path};
use vipa_core::model::proof::{OutdatedBy, ProofAnswer};
use vipa_core::model::resource::{Holder, NotTakeable, Resource, Route};
use vipa_core::report::check::{self, AwsState, CheckResult, Step};
use vipa_core::report::model::{FailedCall, Report};
use vipa_core::report::proof::ProofReport;
use vipa_core::report::remedies::{ENABLE_IMDS, WAY_TO_IMDS};
use vyos_aws_vipa::aws::Imds;
use vyos_aws_vipa::commands::show_check::{ShowCheckError, run};
use vyos_aws_vipa::control::Access;
use vyos_aws_vipa::fs::json_file;

use crate::router::{Router, inside, nowhere};

const OURS: &str = "eni-0a000000000000001";
const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
const DESCRIBE: &str = "ec2:DescribeNetworkInterfaces";
/// Two zones: the overlay address, the route tables, the Elastic IP, and the other routers' ENIs.
const OVERLAY: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);
const TABLES: [&str; 2] = ["rtb-0a000000000000001", "rtb-0a000000000000002"];
const ELASTIC_IP: &str = "eipalloc-0a000000000000001";
const PEER: &str = "eni-0a000000000000002";
const THIRD_PARTY: &str = "eni-0a000000000000003";

/// A router without faults, and the simulated AWS that it calls.
struct Place {
    router: Router,
    cloud: Simulator,
    imds: String,
    attached: Option<fs::File>,
}

impl Place {
    fn new(world: World) -> Self {
        let cloud = Simulator::start(world.stale_reads(Duration::ZERO)).expect("a simulator");
        let any = "127.0.0.1:0".parse().expect("an address");
        let ec2 = cloud.serve_ec2_tls(any, None, &["127.0.0.1"]).expect("EC2").url();
        let imds = cloud.serve_imds("i-0a000000000000001", any, None).expect("IMDS").url();
        cloud.steal(VIP, OURS).expect("assigned");
        let router = Router::calling(&ec2, VIP.octets(), "eth0");
        let ca = router.directory.path().join("ca.pem");
        fs::write(&ca, cloud.ca_pem()).expect("written");
        let place = Self { attached: Some(router.keepalived()), router, cloud, imds };
        place.configure(|config| config.global.ca_certificate_file = Some(ca));
        place
    }

    fn configure(&self, change: impl FnOnce(&mut Config)) {
        let mut config: Config = json_file::read(&self.router.paths.config).expect("read");
        change(&mut config);
        json_file::write(&self.router.paths.config, 0o644, &config).expect("written");
    }

    /// The output and the result. `agent` is the agent's report; without it, the agent is down.
    fn walk(&self, agent: Option<Value>) -> (String, Result<(), ShowCheckError>) {
        let agent = agent.map(|report| {
            let answer = format!("{}\n", json!({"format": 1, "ok": report}));
            self.router.agent(vec![Some(answer.into_bytes())])
        });
        let mut out = Vec::new();
        let start = Instant::now();
        let result = run(&self.router.paths, &Imds::at(&self.imds), Access::Granted, &mut out);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        agent.map(|agent| agent.join().expect("no panic"));
        let _ = fs::remove_file(&self.router.paths.socket);
        (String::from_utf8(out).expect("UTF-8"), result)
    }

    /// Asserts that these steps, and no others, are not OK, with these texts.
    #[track_caller]
    fn finds(&self, agent: Option<Value>, faults: &[(&str, &str, &str)]) {
        let (text, result) = self.walk(agent);
        let steps = steps(&text);
        let found: Vec<_> = steps.iter().filter(|s| s.0 != "OK").map(|s| (s.0.as_str(), s.1.as_str())).collect();
        let expected: Vec<_> = faults.iter().map(|(outcome, what, _)| (*outcome, *what)).collect();
        assert_eq!(found, expected, "{text}");
        for (_, what, words) in faults {
            assert!(steps.iter().any(|s| s.1 == *what && s.2.contains(words)), "{what}: {words}\n{text}");
        }
        let failed = faults.iter().filter(|a| a.0 == "FAIL").count();
        match result {
            Ok(()) => assert_eq!(failed, 0, "{text}"),
            Err(error @ ShowCheckError::Failed(_)) => {
                assert!(
                    error.to_string().starts_with(&format!("{failed} of {} checks failed", steps.len())),
                    "{error}"
                );
            }
            Err(error) => panic!("{error}"),
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}

/// The steps of a printed check: outcome, subject and finding.
fn steps(text: &str) -> Vec<(String, String, String)> {
    let mut steps: Vec<(String, String, String)> = Vec::new();
    for line in text.lines().skip(2).take_while(|line| !line.is_empty()) {
        let part = |from: usize, to: usize| line.get(from..to.min(line.len())).unwrap_or_default().trim().to_owned();
        let (outcome, what, found) = (part(0, 9), part(9, 25), part(25, usize::MAX));
        match steps.last_mut() {
            Some(last) if outcome.is_empty() => last.2 = format!("{} {found}", last.2),
            _ => steps.push((outcome, what, found)),
        }
    }
    steps
}

/// The report of an agent that claimed the address.
fn proven() -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/status/ok.json");
    let text = fs::read_to_string(path).expect("a pinned report");
    serde_json::from_str(&text.replace("eni-0123456789abcdef0", OURS)).expect("JSON")
}

#[test]
fn all_is_well() {
    if !inside("show_check::all_is_well") {
        return;
    }
    let place = Place::new(World::two_routers());
    place.finds(Some(proven()), &[]);
    let (text, result) = place.walk(Some(proven()));
    result.expect("nothing failed");
    for expected in [
        "keepalived runs 1 group with 1 address to move",
        "this is i-0a000000000000001 in eu-west-1a",
        "eth0 is eni-0a000000000000001 in",
        "and its certificate is\n                         trusted",
        "access key AKIAVIPAEXAMPLE00001",
        "ec2:DescribeNetworkInterfaces is allowed",
        "\n17 checks: 17 OK\n",
    ] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    let actions: Vec<String> = place.cloud.requests().into_iter().map(|r| r.action).collect();
    assert!(actions.iter().all(|a| a.starts_with("Describe")), "a call may have changed something: {actions:?}");

    // An instance's role, and an agent that has never claimed.
    place.configure(|config| config.global.credentials_file = None);
    let mut report = proven();
    report["groups"] = json!([]);
    place.finds(Some(report), &[("UNKNOWN", "IAM: claim", "not proven yet. Run `force aws-vipa prove`")]);
    assert!(place.walk(Some(proven())).0.contains("instance role router of account 123456789012,"));
}

/// The agent's report after a claim that was refused with this code.
fn refused(code: &str) -> Value {
    let mut report = proven();
    let error =
        json!({"at": "2026-11-22T11:03:03Z", "class": "denied", "code": code, "message": "no", "request_id": null});
    report["groups"][1]["addresses"][0]["last_claim"]["error"] = error;
    report
}

#[test]
fn the_hook_the_agent_or_a_group_has_a_fault() {
    if !inside("show_check::the_hook_the_agent_or_a_group_has_a_fault") {
        return;
    }
    let mut place = Place::new(World::two_routers());
    place.finds(
        None,
        &[("FAIL", "Agent", "`restart aws-vipa`"), ("UNKNOWN", "IAM: claim", "only available from the agent")],
    );
    let mut old = proven();
    old["agent"]["file_error"] = json!("config.json does not have the expected content");
    place.finds(Some(old), &[("FAIL", "Agent", "running with an old configuration: config.json does not")]);
    // The agent may be unable to read a file that root can read.
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/status/ec2-unreachable.json");
    let unreachable: Value = serde_json::from_str(&fs::read_to_string(path).expect("a pinned report")).expect("JSON");
    let mut blind = proven();
    blind["ec2"]["last_error"] = unreachable["ec2"]["last_error"].clone();
    blind["generated_at"] = unreachable["generated_at"].clone();
    // This failure may have ended with the next call.
    place.finds(Some(blind.clone()), &[("UNKNOWN", "Agent", "ago: Timeout: no answer from https://ec2.eu-central-1")]);
    blind["ec2"]["last_error"]["code"] = json!("TLS");
    blind["ec2"]["last_error"]["class"] = json!("transient");
    place.finds(Some(blind), &[("FAIL", "Agent", "read the file of `aws-vipa ca-certificate-file`")]);
    let mut keyless = proven();
    keyless["ec2"]["credentials_error"] = json!("the instance has no role");
    place.finds(Some(keyless), &[("FAIL", "Agent", "cannot load credentials: the instance has no role")]);
    place.attached = None;
    place.finds(Some(proven()), &[("FAIL", "Hook", "`sudo systemctl reload keepalived`")]);
    place.attached = Some(place.router.keepalived());
    let skipped = SkippedGroup { name: "a b".to_owned(), errors: vec!["keepalived cannot carry its name".to_owned()] };
    place.configure(|config| config.skipped.push(skipped));
    place.finds(Some(proven()), &[("FAIL", "Groups", "'a b': keepalived cannot carry its name")]);
    place.configure(|config| config.skipped.clear());
    let denied = ("FAIL", "IAM: claim", "was denied: UnauthorizedOperation: no. `generate aws-vipa iam-policy`");
    place.finds(Some(refused("UnauthorizedOperation")), &[denied]);
    // A claim for another group on the same ENI was accepted after it.
    let mut allowed = refused("UnauthorizedOperation");
    allowed["groups"][1]["addresses"][0]["assign_permission_proven_at"] = json!("2026-11-22T11:03:04Z");
    place.finds(Some(allowed.clone()), &[]);
    // And one for a third group was denied after that.
    let mut again = allowed["groups"][1]["addresses"][0].clone();
    again["last_claim"]["error"]["at"] = json!("2026-11-22T11:03:05Z");
    allowed["groups"][1]["addresses"].as_array_mut().expect("a list").push(again);
    place.finds(Some(allowed), &[denied]);
    // A retry in flight does not hide it.
    let mut retried = refused("UnauthorizedOperation");
    let address = &mut retried["groups"][1]["addresses"][0];
    address["last_failure"] = address["last_claim"]["error"].take();
    address["last_claim"]["duration_ms"] = Value::Null;
    place.finds(Some(retried), &[denied]);
    // All addresses are there: it is over.
    place.finds(Some(refused("PrivateIpAddressLimitExceeded")), &[]);
    fs::remove_file(&place.router.paths.groups).expect("removed");
    place.finds(Some(proven()), &[("FAIL", "Groups", "groups.json is missing")]);
}

#[test]
fn imds_is_down() {
    if !inside("show_check::imds_is_down") {
        return;
    }
    let place = Place::new(World::two_routers());
    place.cloud.refuse_connections(Service::Imds);
    let unreachable = [
        ("FAIL", "IMDS", "no connection to IMDS at http://127.0.0.1:"),
        ("UNKNOWN", "ENI", "eth0: Connection:"),
        ("UNKNOWN", "Address", "10.99.0.100: IMDS does not return the CIDR block"),
        ("UNKNOWN", "ENI in EC2", "the id of this instance is unknown"),
    ];
    place.finds(Some(proven()), &unreachable);
    // Without an answer, the command ends after its time limit.
    place.cloud.accept_connections(Service::Imds).expect("accepted");
    place.cloud.add_fault(Fault::on(On::any()).hang());
    let silent = [
        ("FAIL", "IMDS", "Timeout"),
        ("UNKNOWN", "ENI", "The agent uses eni-0a000000000000001 from an earlier"),
        ("FAIL", "TLS", "Timeout: no answer from https://127.0.0.1:"),
        ("UNKNOWN", "Clock", "no answer"),
        ("UNKNOWN", "IAM: read", "not checked: Timeout"),
        ("UNKNOWN", "Address", "unknown"),
    ];
    let unread = ["ENI in EC2", "Address limit", "Src/dest check"].map(|what| ("UNKNOWN", what, "no answer from EC2"));
    place.finds(Some(proven()), &[&silent[..], &unread].concat());
    // Nobody knows the region.
    place.configure(|config| config.global = Global::default());
    let mut agent = proven();
    agent["ec2"]["region"] = Value::Null;
    let lost = [
        ("FAIL", "IMDS", "Timeout"),
        ("UNKNOWN", "ENI", "The agent uses eni-0a000000000000001 from an earlier"),
        ("FAIL", "Region", "aws-vipa region`"),
        ("UNKNOWN", "Address", "unknown"),
    ];
    place.finds(Some(agent), &[&lost[..], &unread].concat());
}

#[test]
fn the_path_to_ec2_has_a_fault() {
    if !inside("show_check::the_path_to_ec2_has_a_fault") {
        return;
    }
    let place = Place::new(World::two_routers());
    let unreached = |first: &[(&'static str, &'static str, &'static str)], code: &'static str| {
        let rest = [
            ("UNKNOWN", "Clock", "no answer"),
            ("UNKNOWN", "IAM: read", code),
            ("UNKNOWN", "ENI in EC2", "no answer from EC2"),
            ("UNKNOWN", "Address limit", "no answer from EC2"),
            ("UNKNOWN", "Src/dest check", "no answer from EC2"),
        ];
        [first, &rest].concat()
    };
    let trusted: Config = json_file::read(&place.router.paths.config).expect("read");
    place.configure(|config| config.global.ca_certificate_file = None);
    let tls = ("FAIL", "TLS", "UnknownIssuer; if its authority is to be trusted");
    place.finds(Some(proven()), &unreached(&[tls], "not checked: TLS"));
    place.configure(|config| {
        *config = trusted.clone();
        config.global.endpoint_url = Some("https://ec2.does-not-resolve.invalid".to_owned());
    });
    let gone = [
        ("FAIL", "DNS", "cannot resolve ec2.does-not-resolve.invalid"),
        ("FAIL", "TLS", "no connection to https://ec2.does-not-resolve.invalid"),
    ];
    place.finds(Some(proven()), &unreached(&gone, "not checked: Connection"));
    place.configure(|config| config.global.endpoint_url = Some(nowhere()));
    let refused = [("FAIL", "Endpoint", "no connection to http://127.0.0.1:")];
    place.finds(Some(proven()), &unreached(&refused, "not checked: Connection"));
    let imds = place.imds.clone();
    place.configure(|config| config.global.endpoint_url = Some(imds));
    let (text, _) = place.walk(Some(proven()));
    assert!(text.contains("FAIL     Endpoint        Answer:"), "{text}");
}

#[test]
fn the_credentials_the_clock_or_the_permissions_have_a_fault() {
    if !inside("show_check::the_credentials_the_clock_or_the_permissions_have_a_fault") {
        return;
    }
    let place = Place::new(World::two_routers());
    let unread = [
        ("UNKNOWN", "ENI in EC2", "no answer from EC2"),
        ("UNKNOWN", "Address limit", "no answer from EC2"),
        ("UNKNOWN", "Src/dest check", "no answer from EC2"),
    ];
    let denied = ("FAIL", "IAM: read", "allow ec2:DescribeNetworkInterfaces to file");
    let fault = place.cloud.add_fault(Fault::on(On::ec2().access_key("AKIAVIPAEXAMPLE00001")).deny());
    place.finds(Some(proven()), &[&[denied], &unread[..]].concat());
    place.cloud.remove_fault(fault);
    // The agent uses its copy, whatever the file contains.
    let keys = "[default]\naws_access_key_id = AKIAVIPAEXAMPLE00001\naws_secret_access_key = wrong\n";
    place.router.copy_credentials(&json!({ "text": keys }));
    let wrong = ("FAIL", "IAM: read", "AuthFailure");
    place.finds(Some(proven()), &[&[wrong], &unread[..]].concat());
    let none = |words, code| [("FAIL", "Credentials", words), ("UNKNOWN", "IAM: read", code)];
    place.router.copy_credentials(&json!({ "unreadable": { "other": "No such file or directory (os error 2)" } }));
    place.finds(
        Some(proven()),
        &[&none("Correct the file, or `aws-vipa credentials-file`", "Credentials.File"), &unread[..]].concat(),
    );
    fs::remove_file(&place.router.paths.credentials).expect("removed");
    let remedy = "`systemctl status vyos-aws-vipa-credentials.service` shows why";
    place.finds(Some(proven()), &[&none(remedy, "Credentials.NotCopied"), &unread[..]].concat());

    for (ahead, words) in [(1_200, "behind EC2's"), (-1_200, "ahead of EC2's")] {
        let place = Place::new(World::two_routers().clock_ahead(ahead));
        let (text, result) = place.walk(Some(proven()));
        result.expect_err("a wrong clock");
        let steps = steps(&text);
        let clock = steps.iter().find(|s| s.1 == "Clock").unwrap_or_else(|| panic!("{text}"));
        assert!(clock.0 == "FAIL" && clock.2.contains(words) && clock.2.contains("`show ntp`"), "{text}");
    }
    Place::new(World::two_routers().clock_ahead(60)).finds(Some(proven()), &[]);
}

#[test]
fn an_eni_or_an_address_has_a_fault() {
    if !inside("show_check::an_eni_or_an_address_has_a_fault") {
        return;
    }
    let mut world = World::two_routers();
    world.instances[0].network_interfaces[0].source_dest_check = true;
    let place = Place::new(world);
    let on = ("FAIL", "Src/dest check", "--network-interface-id eni-0a000000000000001 --no-source-dest-check`");
    for (forwards, faults) in [("1", &[on][..]), ("0", &[])] {
        fs::write("/proc/sys/net/ipv4/ip_forward", forwards).expect("a setting of this namespace");
        place.finds(Some(proven()), faults);
    }

    for (address, words) in [
        ([10, 98, 0, 1], "10.98.0.1 is not in 10.99.0.0/24, the subnet of eni-0a000000000000001, and EC2"),
        ([10, 99, 0, 3], "10.99.0.3 is reserved by AWS"),
        ([10, 99, 0, 255], "10.99.0.255 is reserved by AWS"),
        ([10, 99, 0, 13], "10.99.0.13 is the primary address of eni-0a000000000000003"),
    ] {
        let mut place = Place::new(World::two_routers());
        let global = json_file::read::<Config>(&place.router.paths.config).expect("read").global;
        place.router = place.router.configured(global, address, "eth0");
        place.finds(Some(proven()), &[("FAIL", "Address", words)]);
    }
    let place = Place::new(World::two_routers());
    let named = |id: &str| Some(id.try_into().expect("an ENI"));
    place.configure(|config| config.groups[0].network_interface_id = named("eni-0a000000000000002"));
    let other = [
        ("UNKNOWN", "IAM: claim", "eni-0a000000000000002: ec2:AssignPrivateIpAddresses not proven yet"),
        ("FAIL", "ENI in EC2", "attached to i-0a000000000000002, not to this instance"),
    ];
    place.finds(Some(proven()), &other);
    place.configure(|config| config.groups[0].network_interface_id = named("eni-0bad0bad0bad0bad0"));
    let none = [
        ("UNKNOWN", "IAM: claim", "not proven yet"),
        ("UNKNOWN", "Address", "the subnet of eni-0bad0bad0bad0bad0 is unknown"),
        (
            "FAIL",
            "ENI in EC2",
            "EC2 has no eni-0bad0bad0bad0bad0 in this account and region: correct `aws-vipa network-interface-id`",
        ),
    ];
    place.finds(Some(proven()), &none);
}

#[test]
fn the_room_on_an_eni_is_shown_if_ec2_returns_it() {
    if !inside("show_check::the_room_on_an_eni_is_shown_if_ec2_returns_it") {
        return;
    }
    let with_room_for = |limit: usize| {
        let mut world = World::two_routers();
        world.instances[0].network_interfaces[0].address_limit = limit;
        let mut place = Place::new(world);
        let global = json_file::read::<Config>(&place.router.paths.config).expect("read").global;
        place.router = place.router.configured(global, [10, 99, 0, 50], "eth0");
        place
    };
    let place = with_room_for(3);
    let (text, _) = place.walk(Some(proven()));
    let room = steps(&text).into_iter().find(|step| step.1 == "Address limit").expect("a step");
    let words = "eni-0a000000000000001 has 2 addresses and may get 1 more; a m5.4xlarge allows 3";
    assert_eq!((room.0.as_str(), room.2.as_str()), ("OK", words), "{text}");
    place.cloud.add_fault(Fault::on(On::action("DescribeInstanceTypes")).deny());
    place.finds(Some(proven()), &[("UNKNOWN", "Address limit", "allow ec2:DescribeInstanceTypes to")]);
    // A refusal counts for a master, and for a standby that has not read the limit itself.
    let refused_as = |verdict: &str, code: &str| {
        let mut report = refused("PrivateIpAddressLimitExceeded");
        let address = &mut report["groups"][1]["addresses"][0];
        (address["verdict"], address["reason_code"]) = (json!(verdict), json!(code));
        Some(report)
    };
    let fault = ("FAIL", "Address limit", "the last claim was refused");
    place.finds(refused_as("STANDBY-NOT-READY", "read-failed"), &[fault]);
    let place = with_room_for(3);
    for (verdict, code, faults) in [
        ("DRIFT", "claim-refused", &[fault][..]),
        ("STANDBY-NOT-READY", "claim-refused", &[fault]),
        ("STANDBY-NOT-READY", "read-failed", &[]),
        ("STANDBY-READY", "held", &[]),
        ("PAUSED", "paused", &[]),
    ] {
        place.finds(refused_as(verdict, code), faults);
    }
    let full = "a m5.4xlarge allows 2: use a larger instance type";
    with_room_for(2).finds(Some(proven()), &[("FAIL", "Address limit", full)]);
}

fn route(destination: &str, tables: &[&str]) -> RouteConfig {
    RouteConfig {
        destination: destination.parse().expect("a prefix"),
        tables: tables.iter().map(|table| (*table).try_into().expect("a table")).collect(),
        interface: None,
    }
}

/// A router in the first of two zones: the routes of an overlay address, and an Elastic IP, lead to the other router.
fn across_zones() -> Place {
    let mut place = Place::new(World::two_zones().association_lag(Duration::ZERO));
    let global = json_file::read::<Config>(&place.router.paths.config).expect("read").global;
    place.router = place.router.configured(global, OVERLAY.octets(), "eth0");
    let mut groups: Groups = json_file::read(&place.router.paths.groups).expect("read");
    groups.groups[0].peers = vec![Ipv4Addr::new(10, 99, 1, 12)];
    json_file::write(&place.router.paths.groups, 0o644, &groups).expect("written");
    place.configure(|config| {
        config.groups[0].routes = vec![route("10.255.0.1/32", &TABLES)];
        let allocation = ELASTIC_IP.try_into().expect("an allocation");
        config.groups[0].elastic_ips = vec![ElasticIpConfig { allocation, private_address: None, interface: None }];
    });
    TABLES.iter().for_each(|table| place.cloud.steal_route(table, "10.255.0.1/32", PEER).expect("led"));
    place.cloud.steal_association(ELASTIC_IP, PEER, None).expect("associated");
    place
}

#[test]
fn a_failover_across_zones_would_work() {
    if !inside("show_check::a_failover_across_zones_would_work") {
        return;
    }
    let place = across_zones();
    let moves = (place.cloud.route_moves().len(), place.cloud.association_moves().len());
    place.finds(Some(proven()), &[]);
    let (text, result) = place.walk(Some(proven()));
    result.expect("nothing failed");
    let steps = steps(&text);
    let found = |what: &str| -> Vec<&str> { steps.iter().filter(|s| s.1 == what).map(|s| s.2.as_str()).collect() };
    assert_eq!(found("Groups"), ["keepalived runs 1 group with 2 routes, 1 Elastic IP to move"]);
    let read = ["ec2:DescribeNetworkInterfaces", "ec2:DescribeRouteTables", "ec2:DescribeAddresses"];
    assert_eq!(found("IAM: read"), read.map(|action| format!("{action} is allowed")));
    assert_eq!(found("IAM: claim"), [""; 0], "no address is claimed");
    let leads = "ec2:ReplaceRoute is allowed (dry run); leads to eni-0a000000000000002 of i-0a000000000000002";
    assert_eq!(found("Route"), TABLES.map(|table| format!("10.255.0.1/32 in {table}: {leads}")));
    let associated = "ec2:AssociateAddress is allowed (dry run); associated with 10.99.1.12 of eni-0a000000000000002 of i-0a000000000000002";
    assert_eq!(found("Elastic IP"), [format!("{ELASTIC_IP}: {associated}")]);
    assert_eq!(found("Overlay"), ["10.255.0.1: 2 route tables lead to eni-0a000000000000002"]);
    assert_eq!(found("Src/dest check"), ["off for eni-0a000000000000001"]);
    // It has made dry runs, and moved nothing.
    let requests = place.cloud.requests();
    assert!(requests.iter().all(|r| r.dry_run || r.action.starts_with("Describe")), "{}", place.cloud);
    assert_eq!(requests.iter().filter(|r| r.dry_run).count(), 2 * 3);
    assert_eq!((place.cloud.route_moves().len(), place.cloud.association_moves().len()), moves);
    // On the router that has it all.
    TABLES.iter().for_each(|table| place.cloud.steal_route(table, "10.255.0.1/32", OURS).expect("led"));
    place.cloud.steal_association(ELASTIC_IP, OURS, None).expect("associated");
    let (text, result) = place.walk(Some(proven()));
    result.expect("nothing failed");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("; leads to this router OK"), "{text}");
    assert!(text.contains("; associated with 10.99.0.11 of this router OK"), "{text}");
}

#[test]
fn a_route_or_an_elastic_ip_is_amiss() {
    if !inside("show_check::a_route_or_an_elastic_ip_is_amiss") {
        return;
    }
    let place = across_zones();
    let differ = |words| ("FAIL", "Overlay", words);
    // The table has no such route.
    place.cloud.delete_route(TABLES[1], "10.255.0.1/32").expect("deleted");
    let absent =
        "its routes differ: rtb-0a000000000000001 to eni-0a000000000000002, rtb-0a000000000000002 to no router";
    place.finds(Some(proven()), &[differ(absent)]);
    let text = place.walk(Some(proven())).0.split_whitespace().collect::<Vec<_>>().join(" ");
    let creates =
        "ec2:ReplaceRoute and ec2:CreateRoute are allowed (dry run); the table has no such route: a claim creates it";
    assert!(text.contains(creates), "{text}");
    // A policy forbids a call.
    for (action, what) in [("CreateRoute", "Route"), ("AssociateAddress", "Elastic IP")] {
        let fault = place.cloud.add_fault(Fault::on(On::action(action).dry_run(true)).deny());
        let words = format!("allow ec2:{action} to file ");
        let amiss = [("FAIL", what, words.as_str()), differ(absent)];
        place.finds(Some(proven()), &amiss);
        place.cloud.remove_fault(fault);
    }
    // It is not answered.
    let fault = place.cloud.add_fault(Fault::on(On::action("AssociateAddress")).throttle());
    let unanswered = ("UNKNOWN", "Elastic IP", "no answer to the dry run: RequestLimitExceeded");
    place.finds(Some(proven()), &[unanswered, differ(absent)]);
    place.cloud.remove_fault(fault);
    // A third party has the route, or it leads to a gateway.
    place.cloud.steal_route(TABLES[1], "10.255.0.1/32", THIRD_PARTY).expect("led");
    let taken =
        ("UNKNOWN", "Route", "eni-0a000000000000003 of i-0a000000000000003, which is not one of the group's routers");
    place.finds(Some(proven()), &[taken, differ("rtb-0a000000000000002 to eni-0a000000000000003")]);
    place.cloud.steal_route(TABLES[1], "10.255.0.1/32", "igw-0a000000000000001").expect("led");
    let gateway = ("FAIL", "Route", "the route leads to igw-0a000000000000001");
    place.finds(Some(proven()), &[gateway, differ("rtb-0a000000000000002 to no router")]);
    place.cloud.steal_route(TABLES[1], "10.255.0.1/32", PEER).expect("led");
    // EC2 permits the call, and refuses the route.
    place.configure(|config| config.groups[0].routes.push(route("10.99.7.1/32", &TABLES[..1])));
    let inside = ("FAIL", "Route", "within 10.99.0.0/16, a range of the VPC, where EC2 accepts only routes for whole");
    place.finds(Some(proven()), &[inside]);
    // What is configured does not exist.
    place.configure(|config| {
        config.groups[0].routes = vec![route("10.255.0.1/32", &[TABLES[0], "rtb-0bad0bad0bad0bad0"])];
    });
    let missing = ("FAIL", "Route", "there is no such route table");
    place.finds(Some(proven()), &[missing, differ("rtb-0bad0bad0bad0bad0 to no router")]);
    // The private address is that of the other router.
    let allocation = || ELASTIC_IP.try_into().expect("an allocation");
    let with = |private_address| ElasticIpConfig { allocation: allocation(), private_address, interface: None };
    let absent = ("FAIL", "Elastic IP", "eni-0a000000000000001 does not have 10.99.1.12, and no group moves it there");
    for (private_address, faults) in [([10, 99, 1, 12], &[absent][..]), ([10, 99, 0, 11], &[])] {
        place.configure(|config| {
            config.groups[0].routes = vec![route("10.255.0.1/32", &TABLES)];
            config.groups[0].elastic_ips = vec![with(Some(private_address.into()))];
        });
        place.finds(Some(proven()), faults);
    }
    // The Elastic IP cannot be read, or belongs to another account.
    place.configure(|config| config.groups[0].routes = vec![route("10.255.0.1/32", &TABLES)]);
    let fault = place.cloud.add_fault(Fault::on(On::action("DescribeAddresses")).deny());
    let unread =
        [("FAIL", "IAM: read", "allow ec2:DescribeAddresses to file"), ("UNKNOWN", "Elastic IP", "no answer from EC2")];
    place.finds(Some(proven()), &unread);
    place.cloud.remove_fault(fault);
    place.cloud.add_fault(Fault::on(On::action("AssociateAddress")).error(403, "AuthFailure"));
    let foreign = ("FAIL", "Elastic IP", "if the Elastic IP belongs to another account");
    place.finds(Some(proven()), &[foreign]);
}

#[test]
fn an_overlay_address_without_a_route_and_an_eni_that_drops_its_packets() {
    if !inside("show_check::an_overlay_address_without_a_route_and_an_eni_that_drops_its_packets") {
        return;
    }
    let place = across_zones();
    place.configure(|config| {
        config.groups[0].routes.clear();
        config.groups[0].no_address = true;
    });
    let no_route = ("FAIL", "Overlay", "no route leads to it. Set `aws-vipa route 10.255.0.1/32 route-table <rtb-…>`");
    place.finds(Some(proven()), &[no_route]);
    place.configure(|config| config.groups[0].no_address = false);
    let words = "for an overlay address set `aws-vipa route 10.255.0.1/32 route-table <rtb-…>`";
    place.finds(Some(proven()), &[("FAIL", "Address", words)]);
    // The route of a prefix that holds it is enough.
    place.configure(|config| {
        config.groups[0].no_address = true;
        config.groups[0].routes = vec![route("10.255.0.0/16", &TABLES)];
    });
    TABLES.iter().for_each(|table| place.cloud.steal_route(table, "10.255.0.0/16", PEER).expect("led"));
    place.finds(Some(proven()), &[]);

    place.cloud.set_source_dest_check(OURS, true).expect("switched");
    let on = ("FAIL", "Src/dest check", "is on for eni-0a000000000000001, and EC2 drops packets");
    place.finds(Some(proven()), &[on]);
}

#[test]
fn a_check_leaves_ec2_s_rate_limit_to_a_failover() {
    if !inside("show_check::a_check_leaves_ec2_s_rate_limit_to_a_failover") {
        return;
    }
    let place = across_zones();
    place.configure(|config| {
        config.groups[0].routes = (0..30).map(|n| route(&format!("10.255.{n}.1/32"), &TABLES[..1])).collect();
    });
    let mut report = proven();
    let at = "2026-11-22T09:00:00Z";
    let state = json!({
        "table": TABLES[0], "destination": "10.255.25.1/32", "interface": "eth0", "eni": OURS, "owner": null,
        "permission_proven_at": at, "verdict": "STANDBY-READY", "reason": null, "last_claim": null,
    });
    report["groups"][1]["routes"] = json!([state]);
    let (text, result) = place.walk(Some(report));
    result.expect("nothing failed");
    assert_eq!(place.cloud.requests().iter().filter(|r| r.dry_run && r.action == "ReplaceRoute").count(), 20);
    let steps = steps(&text);
    let outcomes = |outcome: &str| steps.iter().filter(|s| s.1 == "Route" && s.0 == outcome).count();
    assert_eq!((outcomes("OK"), outcomes("UNKNOWN")), (21, 9), "{text}");
    let found = |destination: &str| &steps.iter().find(|s| s.2.starts_with(destination)).expect("a step").2;
    assert!(found("10.255.25.1/32").contains("are allowed, as the agent proved 2026-11-22 09:00:00 UTC;"), "{text}");
    assert!(found("10.255.26.1/32").contains("not checked, to leave EC2's rate limit"), "{text}");
}

/// Compares with the file of that name in tests/status; `BLESS=1` rewrites it.
#[track_caller]
fn pinned(name: &str, steps: &[Step]) {
    let lines: String = steps.iter().map(Step::line).collect();
    let outcomes: Vec<CheckResult> = steps.iter().map(|s| s.result).collect();
    let text = format!("{}{lines}\n{}\n", check::heading(), check::summary(&outcomes));
    assert!(text.lines().all(|line| line.chars().count() <= 80 && line.trim_end() == line), "{text}");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/status").join(name);
    if env::var_os("BLESS").is_some() {
        fs::write(&path, &text).expect("the pinned file is written");
    }
    let pinned = fs::read_to_string(&path).unwrap_or_default();
    assert!(pinned == text, "{name} differs from what is printed now (BLESS=1 rewrites it):\n{text}");
}

#[test]
fn each_step_says_what_was_found_and_what_to_do() {
    let now: Timestamp = "2026-11-22T11:03:05Z".parse().expect("a time");
    let report = || serde_json::from_value::<Report>(proven()).expect("a report");
    let mut stale = report();
    stale.agent.as_mut().expect("an agent").file_error = Some("groups.json: unexpected end".to_owned());
    let error = |class, code: &str, message: &str| CallError {
        failure: ec2::Failure::of(code.try_into().expect("a code"), class),
        message: message.to_owned(),
        request_id: None,
    };
    let mut blind = report();
    let refused = CallError::new(
        ec2::Failure::Tls,
        "no connection to https://ec2.example: /config/aws/ca.pem: Permission denied",
    );
    blind.ec2.last_error = Some(FailedCall::new(blind.generated_at - SignedDuration::from_secs(3), &refused));
    let mut keyless = report();
    keyless.ec2.credentials_error = Some("the instance has no role".to_owned());
    let timeout =
        || error(ErrorClass::TimedOut, "Timeout", "no answer from https://ec2.eu-west-1.amazonaws.com within 3s");
    let tls = || {
        error(ErrorClass::Transient, "TLS", "no connection to https://ec2.example: invalid peer certificate: Expired")
    };
    let denied = || {
        let message = "You are not authorized to perform this operation.; allow ec2:DescribeNetworkInterfaces to instance role router";
        error(ErrorClass::Denied, "UnauthorizedOperation", message)
    };
    let unknown_key =
        || error(ErrorClass::Denied, "AuthFailure", "AWS was not able to validate the provided credentials");
    let instance = || Instance {
        id: "i-0a000000000000001".try_into().expect("an instance"),
        region: "eu-west-1".try_into().expect("a region"),
        availability_zone: "eu-west-1a".to_owned(),
    };
    let eth0: InterfaceName = "eth0".try_into().expect("an interface");
    let id = |id: &str| EniId::try_from(id).expect("an ENI");
    let subnet = || "subnet-0a000000000000001".try_into().expect("a subnet");
    let vpc = "vpc-0a000000000000001".try_into().expect("a VPC");
    let eni = Eni { id: id(OURS), subnet: subnet(), vpc, primary: Ipv4Addr::new(10, 99, 0, 11), block: None };
    let credentials = |expires_at| CredentialFacts {
        source: "instance role router".to_owned(),
        access_key_id: Some("ASIAVIPAEXAMPLE00001".to_owned()),
        loaded_at: Some(now),
        expires_at,
        error: None,
    };
    let proof = |allowed, outdated_by| ProofReport {
        eni: id(OURS),
        answer: ProofAnswer {
            at: now - SignedDuration::from_hours(75),
            allowed,
            code: if allowed { "InvalidParameterValue" } else { "UnauthorizedOperation" }.try_into().ok(),
            message: (!allowed).then(|| "You are not authorized to perform this operation.".to_owned()),
            request_id: None,
        },
        outdated_by,
    };
    let account = "123456789012".try_into().expect("an account");
    let seconds = SignedDuration::from_secs;
    let hour = Some(now + seconds(3_600));
    let config = Config::default();
    let no_groups = Err("/run/vyos-aws-vipa/groups.json is missing".to_owned());
    let steps: Vec<Step> = vec![
        check::hook(&Ok(true)),
        check::hook(&Ok(false)),
        check::hook(&Err("cannot list keepalived's open files: Permission denied; use sudo".to_owned())),
        check::agent(&Ok(report())),
        check::agent(&Ok(stale)),
        check::agent(&Ok(blind)),
        check::agent(&Ok(keyless)),
        check::agent(&Err("the agent is not running. `restart aws-vipa` starts it".to_owned())),
    ]
    .into_iter()
    .chain(check::configuration(&config, &no_groups))
    .chain(check::configuration(&config, &Ok(Plan::default())))
    .chain([
        check::imds(&Ok(instance())),
        check::imds(&Err(error(
            ErrorClass::TimedOut,
            "Timeout",
            &format!("IMDS at http://169.254.169.254 did not answer: {WAY_TO_IMDS}"),
        ))),
        check::imds(&Err(CallError::new(
            Failure::ImdsDisabled,
            format!("IMDS is disabled on this instance: {ENABLE_IMDS}"),
        ))),
        check::imds(&Err(CallError::new(
            Failure::InvalidResponse,
            "IMDS: there is no /latest/meta-data/instance-id (HTTP status 404)",
        ))),
        check::eni(&eth0, &Ok(eni.clone()), None),
        check::eni(&eth0, &Err("there is no interface eth0 on this router".to_owned()), None),
        check::eni(&eth0, &Err("IMDS names no ENI with its MAC address".to_owned()), Some(&id(OURS))),
        check::no_region(),
        check::name("ec2.example", &Ok((1..=6).map(|n| IpAddr::from([10, 99, 1, n])).collect())),
        check::name("10.99.1.1", &Err("unused".to_owned())),
        check::name("ec2.example", &Ok(Vec::new())),
        check::name("ec2.example", &Err("Name or service not known".to_owned())),
    ])
    .chain({
        let destination = Ipv4Addr::new(10, 99, 1, 1);
        let direct = Path { destination, gateway: None, source: Some(eni.primary) };
        let by = |gateway| Some(Path { gateway: Some(gateway), ..direct });
        let groups = Groups {
            groups: vec![RunningGroup {
                name: "web".try_into().expect("a name"),
                interface: eth0.clone(),
                vrid: 10,
                priority: 100,
                advertise_interval: AdvertiseInterval::default(),
                peers: vec![Ipv4Addr::new(10, 99, 0, 12)],
                addresses: vec![VirtualAddress { address: VIP, interface: None }],
            }],
        };
        let steps = |ec2: Option<Path>, imds: Option<Path>| {
            let paths = vec![(path::Service::Ec2, ec2), (path::Service::Imds, imds)];
            check::paths(&LocalNetwork { paths, ..LocalNetwork::default() }, &groups)
        };
        let over_ipv6 = LocalNetwork {
            ipv6_only: [path::Service::Ec2].into(),
            paths: vec![(path::Service::Ec2, None)],
            ..LocalNetwork::default()
        };
        let through = [Ipv4Addr::new(10, 99, 0, 1), Ipv4Addr::new(10, 99, 0, 12), VIP];
        let [good, by_peer, by_vip] = through.map(by);
        [
            steps(good, Some(direct)),
            steps(by_peer, None),
            steps(by_vip, Some(Path { source: Some(VIP), ..direct })),
            check::paths(&over_ipv6, &groups),
        ]
        .concat()
    })
    .chain([
        check::endpoint("https://ec2.example", &Ok(())),
        check::endpoint("http://ec2.example", &Ok(())),
        check::endpoint("http://[::1]:8080", &Ok(())),
        check::endpoint("https://ec2.example", &Err(tls())),
        check::endpoint("https://ec2.eu-west-1.amazonaws.com", &Err(timeout())),
        check::credentials(&Ok(credentials(hour)), Some(&account), now),
        check::credentials(&Ok(credentials(None)), None, now),
        check::credentials(&Ok(credentials(Some(now))), Some(&account), now),
        check::credentials(&Err(error(ErrorClass::Denied, "Credentials.Role", "the instance has no role")), None, now),
        check::clock(None, now),
        check::clock(Some(seconds(-29)), now),
        check::clock(Some(seconds(-31)), now),
        check::clock(Some(seconds(240)), now),
        check::clock(Some(seconds(251_606_421_471)), now),
        check::read_permission::<()>(DESCRIBE, &Ok(()), true),
        check::read_permission::<()>(DESCRIBE, &Err(denied()), true),
        check::read_permission::<()>(DESCRIBE, &Err(unknown_key()), true),
        check::read_permission::<()>(DESCRIBE, &Err(timeout()), false),
        check::assign_permission(&id(OURS), Some(&[]), None, now),
        check::assign_permission(&id(OURS), None, None, now),
        check::assign_permission(&id(OURS), Some(&[]), Some(&proof(true, None)), now),
        check::assign_permission(&id(OURS), Some(&[]), Some(&proof(false, None)), now),
        check::assign_permission(&id(OURS), Some(&[]), Some(&proof(true, Some(OutdatedBy::Credentials))), now),
        check::assign_permission(&id(OURS), Some(&[]), Some(&proof(false, Some(OutdatedBy::Credentials))), now),
    ])
    .chain(check::interface(&id(OURS), &[VIP].into(), &[], &AwsState::default()))
    .chain({
        let described = Interface {
            subnet: subnet(),
            instance: None,
            source_dest_check: None,
            primary: Some(eni.primary),
            addresses: [eni.primary].into(),
            prefixes: 0,
        };
        let cloud = AwsState {
            local: [(eth0.clone(), (eni.clone(), None))].into(),
            interfaces: Some([(id(OURS), described)].into()),
            ..AwsState::default()
        };
        let address = check::address(VIP, &[], Some(&id(OURS)), &cloud);
        [address].into_iter().chain(check::interface(&id(OURS), &[VIP].into(), &[], &cloud)).collect::<Vec<_>>()
    })
    .chain({
        // The owner is neither router; it may be the other router, which is unknown; it is this router's ENI elsewhere.
        let of = |eni: &str, instance: &str| Owner {
            eni: id(eni),
            instance: Some(instance.try_into().expect("an instance")),
            primary: false,
        };
        let peer = Ipv4Addr::new(10, 99, 0, 12);
        let place = || ec2::EniNetwork { block: "10.99.0.0/24".parse().expect("a block"), account: account.clone() };
        let cloud = |owners: &[(Ipv4Addr, Owner)]| AwsState {
            instance: Some(instance().id),
            local: [(eth0.clone(), (eni.clone(), Some(place())))].into(),
            owners: Some(owners.iter().cloned().collect()),
            ..AwsState::default()
        };
        let third_party = (VIP, of("eni-0a000000000000003", "i-0a000000000000003"));
        let known = cloud(&[third_party.clone(), (peer, of("eni-0a000000000000002", "i-0a000000000000002"))]);
        let elsewhere = cloud(&[(VIP, of(OURS, "i-0a000000000000002"))]);
        [
            check::address(VIP, &[peer], Some(&id(OURS)), &known),
            check::address(VIP, &[peer], Some(&id(OURS)), &cloud(&[third_party])),
            check::address(VIP, &[peer], Some(&id(OURS)), &elsewhere),
        ]
    })
    .chain({
        let table = TABLES[0].try_into().expect("a table");
        let id_of_route = Resource::Route(Route { table, destination: "10.255.0.1/32".parse().expect("a prefix") });
        let id_of_elastic_ip = Resource::ElasticIp(ELASTIC_IP.try_into().expect("an allocation"));
        let planned = |resource: &Resource| PlannedResource {
            resource: resource.clone(),
            interface: eth0.clone(),
            eni: None,
            private_address: None,
        };
        let other = Owner { eni: id(PEER), instance: "i-0a000000000000002".try_into().ok(), primary: false };
        let cloud = |holder: Option<Holder>, dry_run: Result<(), CallError>| {
            let of = |resource: &Resource| (resource.clone(), holder.clone());
            AwsState {
                holders: [of(&id_of_route), of(&id_of_elastic_ip)].into(),
                dry_runs: [&id_of_route, &id_of_elastic_ip].map(|resource| (resource.clone(), dry_run.clone())).into(),
                ..AwsState::default()
            }
        };
        let step =
            |resource: &Resource, cloud: &AwsState| check::resource(&planned(resource), &[], Some(&id(OURS)), cloud);
        let led = || Some(Holder::Eni(other.clone()));
        let associated = Holder::Association {
            owner: other.clone(),
            private_address: Ipv4Addr::new(10, 99, 1, 12),
            public_address: None,
        };
        let denied = || {
            let message =
                "You are not authorized to perform this operation.; allow ec2:ReplaceRoute to instance role router";
            Err(error(ErrorClass::Denied, "UnauthorizedOperation", message))
        };
        let no_value = || Err(error(ErrorClass::BadResource, "InvalidParameterValue", "invalid"));
        let unread = AwsState { holders: [(id_of_route.clone(), led())].into(), ..AwsState::default() };
        [
            step(&id_of_route, &cloud(None, Ok(()))),
            step(&id_of_route, &cloud(led(), Ok(()))),
            step(&id_of_route, &cloud(Some(Holder::Blackhole), Ok(()))),
            step(&id_of_route, &cloud(Some(Holder::NotTakeable(NotTakeable::Propagated)), Ok(()))),
            step(&id_of_route, &cloud(led(), denied())),
            step(&id_of_route, &cloud(led(), Err(timeout()))),
            step(&id_of_route, &unread),
            step(&id_of_elastic_ip, &unread),
            step(&id_of_elastic_ip, &cloud(None, Ok(()))),
            step(&id_of_elastic_ip, &cloud(Some(associated), Ok(()))),
            step(&id_of_elastic_ip, &cloud(None, no_value())),
        ]
    })
    .collect();
    pinned("check.txt", &steps);
}

#[test]
fn without_a_configuration_there_is_nothing_to_check() {
    let error =
        run(&Router::new().paths, &Imds::at(&nowhere()), Access::Granted, &mut Vec::new()).expect_err("nothing");
    assert!(error.to_string().contains("aws-vipa is not configured"), "{error}");
}
