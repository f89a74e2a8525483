//! `show status`: what it prints, pinned in tests/status, and the command itself.
//!
//! `BLESS=1` writes the pinned files anew.

mod examples;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::{env, fs};

use examples::clock;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use vipa_core::claim::{
    BootInstant, Cause, EniElsewhere, EniUnknown, FailedClaim, GroupFacts, LastOwner, NotRead, Obstacle,
    PrimaryAddress, Reason, ResourceFacts,
};
use vipa_core::keepalived::groups::{self, AdvertiseInterval, Groups, VirtualAddress};
use vipa_core::model::assignment::Problem;
use vipa_core::model::calls::Outcomes;
use vipa_core::model::config::{Config, ElasticIpConfig, Global, GroupConfig, RouteConfig, SkippedGroup};
use vipa_core::model::counters::Counters;
use vipa_core::model::credentials::CredentialFacts;
use vipa_core::model::ec2::{self, CallError, ErrorClass, NoCredentials, Owners, Taker};
use vipa_core::model::history::{Outcome, Record, RecordKind};
use vipa_core::model::ids::{AllocationId, EniId, GroupName, InstanceId, InterfaceName, Region, RequestId};
use vipa_core::model::proof::{OutdatedBy, ProofAnswer};
use vipa_core::model::resource::{ElasticIp, Kind, NotTakeable, Resource, Route};
use vipa_core::model::verdict::{Verdict, Who};
use vipa_core::model::vrrp::{NotifyState, VrrpState};
use vipa_core::report::command::{Target, claim_command};
use vipa_core::report::force;
use vipa_core::report::group::group as group_text;
use vipa_core::report::history::history;
use vipa_core::report::model::{
    AddressReport, AgentReport, CallsReport, ClaimReport, Ec2Report, ElasticIpReport, FailedCall, FileErrorKind,
    GroupReport, HookReport, LocalAddressReport, OwnerReport, Report, ResourceReport, RouteReport,
};
use vipa_core::report::offline::{self, Observations};
use vipa_core::report::proof::{self, Finding, ProofReport, ProveReport, Subject};
use vipa_core::report::status::table;
use vipa_core::report::{live, metrics, reasons, remedies};
use vipa_core::vyos::input::Input;
use vipa_core::vyos::verify::{HostState, verify};

const OURS: &str = "eni-0123456789abcdef0";
const THEIRS: &str = "eni-0fedcba9876543210";

fn now() -> Timestamp {
    "2026-11-22T11:03:05Z".parse().expect("a time")
}

fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

fn eni(id: &str) -> EniId {
    EniId::try_from(id).expect("an ENI")
}

fn region() -> Region {
    Region::try_from("eu-central-1").expect("a region")
}

fn request() -> Option<RequestId> {
    Some(RequestId::try_from("59dbff89-35bd-4eac-99ed-be587e12a9f7").expect("a request"))
}

fn report(groups: Vec<GroupReport>) -> Report {
    Report {
        format: 1,
        generated_at: now(),
        agent: Some(AgentReport {
            version: "0.1.0".to_owned(),
            pid: 812,
            since: ago(183_785),
            file_error: None,
            file_error_kind: None,
        }),
        agent_error: None,
        not_answered: Vec::new(),
        hook: HookReport {
            attached: Some(true),
            since: Some(ago(183_784)),
            last_notify_event_at: Some(ago(7_385)),
            last_activity_at: Some(ago(1)),
            fifo_full_count: 0,
        },
        ec2: Ec2Report {
            instance: Some(InstanceId::try_from("i-0123456789abcdef0").expect("an instance")),
            region: Some(region()),
            endpoint_url: None,
            credentials: "instance role router".to_owned(),
            credentials_loaded_at: Some(ago(3_720)),
            credentials_expire_at: Some(ago(-17_820)),
            credentials_error: None,
            last_success_at: Some(ago(4)),
            last_error: None,
            clock_skew: Some(0),
            proofs: Vec::new(),
            calls: Vec::new(),
        },
        groups,
        history: Vec::new(),
    }
}

fn group(name: &str, vrrp: VrrpState, addresses: Vec<AddressReport>) -> GroupReport {
    GroupReport {
        name: name.to_owned(),
        vrrp,
        vrrp_since: Some(ago(7_385)),
        vrrp_reason: None,
        disabled: false,
        paused_until: None,
        pause_not_saved: None,
        errors: Vec::new(),
        addresses,
        not_assigned: Vec::new(),
        routes: Vec::new(),
        elastic_ips: Vec::new(),
    }
}

/// An address of a MASTER that has it.
fn held(last: u8) -> AddressReport {
    AddressReport {
        address: Ipv4Addr::new(10, 99, 0, last),
        interface: InterfaceName::try_from("eth0").expect("an interface"),
        eni: Some(eni(OURS)),
        local: Some(true),
        local_since: Some(ago(7_385)),
        owner: owner(Who::ThisRouter),
        elastic_ip: None,
        verdict: Verdict::Ok,
        reason: None,
        reason_code: None,
        last_claim: Some(ClaimReport {
            eni: Some(eni(OURS)),
            at: ago(7_385),
            duration_ms: Some(142),
            request_id: request(),
            error: None,
        }),
        last_failure: None,
        assign_permission_proven_at: Some(ago(7_385)),
        command: None,
    }
}

/// An address of a BACKUP, which the other router has.
fn stood_by(last: u8) -> AddressReport {
    AddressReport {
        local: Some(false),
        owner: owner(Who::OtherRouter),
        verdict: Verdict::StandbyReady,
        last_claim: None,
        ..held(last)
    }
}

/// What is known of a route or an Elastic IP of a MASTER that has it.
fn held_state() -> ResourceReport {
    let AddressReport { interface, eni, owner, verdict, reason, reason_code, last_claim, last_failure, .. } = held(100);
    let permission_proven_at = None;
    ResourceReport {
        interface,
        eni,
        owner,
        permission_proven_at,
        verdict,
        reason,
        reason_code,
        last_claim,
        last_failure,
    }
}

/// The same on a standby, while the other router has it.
fn stood_by_state() -> ResourceReport {
    ResourceReport {
        owner: owner(Who::OtherRouter),
        permission_proven_at: Some(ago(7_200)),
        verdict: Verdict::StandbyReady,
        last_claim: None,
        ..held_state()
    }
}

fn route(table: u8, destination: &str) -> Route {
    let table = format!("rtb-0123456789abcde{table:02x}").try_into().expect("a route table");
    Route { table, destination: destination.parse().expect("a prefix") }
}

fn allocation(n: u8) -> AllocationId {
    AllocationId::try_from(format!("eipalloc-0123456789abcde{n:02x}")).expect("an allocation")
}

fn owner(who: Who) -> Option<OwnerReport> {
    let (eni, instance) = match who {
        Who::ThisRouter => (Some(OURS), Some("i-0123456789abcdef0")),
        Who::ThisRouterOtherEni => (Some("eni-0aaaaaaaaaaaaaaaa"), Some("i-0123456789abcdef0")),
        Who::OtherRouter => (Some(THEIRS), Some("i-0fedcba9876543210")),
        Who::ThirdParty => (Some("eni-0bad0bad0bad0bad0"), Some("i-0bad0bad0bad0bad0")),
        Who::Unknown => (Some("eni-0bad0bad0bad0bad0"), None),
        Who::Unassigned => (None, None),
    };
    let instance = instance.map(|i| InstanceId::try_from(i).expect("an instance"));
    Some(OwnerReport { at: ago(4), who, eni: eni.map(self::eni), instance, instead_of_eni: None })
}

/// The failure of a call two seconds ago.
fn failed(error: &CallError) -> FailedCall {
    FailedCall::new(ago(2), error)
}

fn because(reason: &str) -> Option<String> {
    Some(reason.to_owned())
}

/// A reason for an address as the program prints it.
fn why(reason: Reason) -> Option<String> {
    why_of(Kind::Address, reason)
}

fn why_of(kind: Kind, reason: Reason) -> Option<String> {
    Some(reasons::reason(kind, &reason, clock))
}

/// Its code, as the agent reports it.
fn code(reason: &Reason) -> Option<String> {
    Some(reasons::code(reason).to_owned())
}

/// What `clock` shows as that long before [`now`].
fn instant(seconds: i64) -> BootInstant {
    let booted = clock(BootInstant::default());
    BootInstant::after_boot(ago(seconds).duration_since(booted).try_into().expect("after the boot"))
}

/// An owner, as the claim machine has it.
fn owned_by(who: Who) -> Option<ec2::Owner> {
    let OwnerReport { eni, instance, .. } = owner(who)?;
    Some(ec2::Owner { eni: eni?, instance, primary: false })
}

/// Compares what is printed for a report, and the report itself as JSON, with the files of that name.
#[track_caller]
fn pinned(name: &str, report: &Report) {
    let json = serde_json::to_string_pretty(report).expect("JSON") + "\n";
    same(&format!("{name}.json"), &json);
    // No report that is read brings a command line for root to paste.
    let mut read = report.clone();
    read.groups.iter_mut().flat_map(|g| &mut g.addresses).for_each(|a| a.command = None);
    assert_eq!(serde_json::from_str::<Report>(&json).expect("a report"), read);
    pinned_text(name, report);
}

#[track_caller]
fn pinned_text(name: &str, report: &Report) {
    fits(name, &table(report));
}

/// Compares a text with the file of that name, and sees that a terminal of 80 columns can show it.
#[track_caller]
fn fits(name: &str, text: &str) {
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    for line in text.lines().filter(|l| !l.trim_start().starts_with("aws ec2 ")) {
        assert!(line.chars().count() <= 80 && line.trim_end() == line, "{line:?}");
    }
    same(&format!("{name}.txt"), text);
}

#[track_caller]
fn same(file: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/status").join(file);
    if env::var_os("BLESS").is_some() {
        fs::write(&path, text).expect("the pinned file is written");
    }
    let pinned = fs::read_to_string(&path).unwrap_or_default();
    assert!(pinned == text, "{file} is not what is printed now (BLESS=1 takes it over):\n{text}");
}

#[test]
fn all_is_well() {
    let web = group("web", VrrpState::Master, vec![held(100), held(101)]);
    let db = group("db", VrrpState::Backup, vec![stood_by(110)]);
    pinned("ok", &report(vec![db, web]));
}

/// What EC2 says to a claim without the right to it, and what the agent adds.
const DENIED: &str =
    "You are not authorized to perform this operation.; allow ec2:AssignPrivateIpAddresses to instance role router";
/// What the agent says of a call that EC2 has not answered.
const TIMEOUT: &str = "no answer from https://ec2.eu-central-1.amazonaws.com within 3s";
/// What the agent says of IMDS that has not answered.
const NO_IMDS: &str = "IMDS at http://169.254.169.254 did not answer: check the route to 169.254.169.254, and the hop limit in the instance's metadata options";
/// What stands in the way where the credentials file is not there.
const MISSING: &str = "file /config/aws/credentials, profile default: No such file or directory (os error 2)";

fn missing() -> CallError {
    CallError::new(NoCredentials::File.into(), MISSING)
}

/// A failed claim of an address that the owner does not explain.
fn failed_claim(error: CallError) -> FailedClaim {
    failed_claim_of(Kind::Address, error)
}

fn failed_claim_of(kind: Kind, error: CallError) -> FailedClaim {
    FailedClaim { kind, error, explanation: None }
}

fn timeout() -> CallError {
    CallError::new(ec2::Failure::Timeout, TIMEOUT)
}

/// A claim without the permission for it.
fn denied(message: &str) -> CallError {
    let code = "UnauthorizedOperation".try_into().expect("a code");
    let failure = ec2::Failure::Api { code, class: ErrorClass::Denied };
    CallError { failure, message: message.to_owned(), request_id: request() }
}

#[test]
fn a_claim_is_refused() {
    let region = region();
    let target = Target { region: &region, endpoint_url: None };
    let command = |last| Some(claim_command(&eni(OURS), [address(last)], target));
    let denied = denied(DENIED);
    let refused = AddressReport {
        owner: owner(Who::OtherRouter),
        verdict: Verdict::Drift,
        reason: why(Reason::Refused(failed_claim(denied.clone()))),
        last_claim: Some(ClaimReport {
            eni: None,
            at: ago(2),
            duration_ms: Some(131),
            request_id: request(),
            error: Some(failed(&denied)),
        }),
        last_failure: Some(failed(&denied)),
        assign_permission_proven_at: None,
        command: command(100),
        ..held(100)
    };
    let again = AddressReport {
        owner: None,
        verdict: Verdict::Claiming,
        reason: why(Reason::Retrying { failure: failed_claim(timeout()), allowed_at: None }),
        last_claim: Some(ClaimReport { eni: None, at: ago(1), duration_ms: None, request_id: None, error: None }),
        last_failure: Some(failed(&timeout())),
        command: command(101),
        ..held(101)
    };
    let sent = AddressReport {
        owner: None,
        verdict: Verdict::Claiming,
        last_claim: Some(ClaimReport { eni: None, at: ago(0), duration_ms: None, request_id: None, error: None }),
        ..held(102)
    };
    pinned("claiming", &report(vec![group("web", VrrpState::Master, vec![refused, again, sent])]));
}

/// A failover would work, and takes the address from somebody.
#[test]
fn a_standby_whose_address_is_held_by_another() {
    let third_party = owned_by(Who::ThirdParty).expect("an owner");
    let primary = PrimaryAddress { address: address(111), owner: ec2::Owner { primary: true, ..third_party.clone() } };
    let misplaced = EniElsewhere {
        eni: eni(THEIRS),
        this: InstanceId::try_from("i-0123456789abcdef0").expect("an instance"),
        attached_to: InstanceId::try_from("i-0fedcba9876543210").ok(),
        is_configured: true,
    };
    let not_ready = |last, who, obstacle| {
        let reason = Reason::NotReady(obstacle);
        AddressReport {
            owner: owner(who),
            verdict: Verdict::StandbyNotReady,
            reason_code: code(&reason),
            reason: why(reason),
            ..stood_by(last)
        }
    };
    let addresses = vec![
        AddressReport {
            owner: owner(Who::ThirdParty),
            reason: why(Reason::HeldByThirdParty(third_party)),
            ..stood_by(110)
        },
        not_ready(111, Who::ThirdParty, Obstacle::Primary(primary)),
        AddressReport { eni: Some(eni(THEIRS)), ..not_ready(112, Who::OtherRouter, Obstacle::EniElsewhere(misplaced)) },
    ];
    pinned("held-by-another", &report(vec![group("web", VrrpState::Backup, addresses)]));
}

#[test]
fn the_address_is_with_someone_else() {
    let drift = |last, who| AddressReport {
        owner: owner(who),
        verdict: Verdict::Drift,
        reason: why(Reason::Mismatch { owner: owned_by(who), error: None }),
        ..held(last)
    };
    let addresses = vec![
        drift(100, Who::OtherRouter),
        drift(101, Who::ThisRouterOtherEni),
        drift(102, Who::ThirdParty),
        drift(103, Who::Unassigned),
    ];
    pinned("drift", &report(vec![group("web", VrrpState::Master, addresses)]));
}

#[test]
fn another_takes_it_again_and_again() {
    let contested = AddressReport {
        owner: owner(Who::ThirdParty),
        verdict: Verdict::Contested,
        reason: why(Reason::ContestedWithThirdParty {
            group: group_name("web"),
            owner: LastOwner::Other(owned_by(Who::ThirdParty).expect("an owner")),
        }),
        ..held(100)
    };
    pinned("contested", &report(vec![group("web", VrrpState::Master, vec![contested, held(101)])]));
}

#[test]
fn a_person_has_paused_the_group() {
    let paused = |last| AddressReport {
        verdict: Verdict::Paused,
        reason: why(Reason::Paused(group_name("w$(eb)"))),
        ..held(last)
    };
    let web = GroupReport {
        paused_until: Some(ago(-1_615)),
        pause_not_saved: because(
            "cannot write /var/lib/vyos-aws-vipa/pauses.json: No space left on device (os error 28)",
        ),
        ..group("w$(eb)", VrrpState::Master, vec![paused(100), paused(101)])
    };
    pinned("paused", &report(vec![web]));
}

#[test]
fn a_standby_that_could_not_take_over() {
    let not_ready = |last| AddressReport {
        verdict: Verdict::StandbyNotReady,
        reason: why(Reason::NotReady(Obstacle::ReadFailed(missing()))),
        assign_permission_proven_at: None,
        ..stood_by(last)
    };
    let fault = AddressReport {
        address: Ipv4Addr::new(192, 168, 100, 192),
        reason: why(Reason::VrrpDown(VrrpState::Fault)),
        ..not_ready(192)
    };
    let mut report = report(vec![
        group("db", VrrpState::Backup, vec![not_ready(100), not_ready(101)]),
        group("web", VrrpState::Fault, vec![fault]),
    ]);
    report.ec2.credentials = "file /config/aws/credentials, profile default".to_owned();
    report.ec2.credentials_error = Some(remedies::credentials_error(&missing()));
    report.ec2.credentials_loaded_at = None;
    report.ec2.credentials_expire_at = None;
    pinned("standby", &report);
}

#[test]
fn keepalived_is_gone() {
    let unknown = |last| AddressReport {
        verdict: Verdict::Unknown,
        reason: why(Reason::VrrpUnknown(Cause::NoWriter)),
        ..held(last)
    };
    let mut web = group("web", VrrpState::Unknown, vec![unknown(100), unknown(101)]);
    web.vrrp_reason = because(reasons::cause(Cause::NoWriter));
    let mut report = report(vec![web]);
    report.hook.attached = Some(false);
    report.hook.since = Some(ago(7));
    report.hook.fifo_full_count = 3;
    pinned("unknown", &report);
}

#[test]
fn ec2_does_not_answer() {
    let old = Some(OwnerReport { at: ago(754), ..owner(Who::ThisRouter).expect("an owner") });
    let error = timeout();
    let unread = AddressReport {
        owner: old,
        verdict: Verdict::Unknown,
        reason: why(Reason::NotVerifiedLately { at: instant(754), error: Some(error.clone()) }),
        ..held(100)
    };
    let mut report = report(vec![group("web", VrrpState::Master, vec![unread])]);
    let agent = report.agent.as_mut().expect("an agent");
    agent.file_error_kind = Some(FileErrorKind::UsingPrevious);
    agent.file_error =
        because("/run/vyos-aws-vipa/groups.json does not have the expected content: expected value at line 1 column 1");
    report.not_answered = vec![reasons::not_read(&NotRead::Failed(error))];
    report.ec2.endpoint_url = because("https://vpce-0123456789abcdef0-abcdefgh.ec2.eu-central-1.vpce.amazonaws.com");
    report.ec2.last_success_at = Some(ago(754));
    report.ec2.last_error = Some(failed(&timeout()));
    report.ec2.credentials_expire_at = Some(ago(61));
    report.ec2.clock_skew = Some(-312);
    pinned("ec2-unreachable", &report);
}

/// Routes and Elastic IPs: of a MASTER, and of a standby with `no-address`.
fn across_zones() -> Vec<GroupReport> {
    let takes = |table, destination, state| RouteReport { route: route(table, destination), state };
    let elastic_ip = |n, private_address, state| ElasticIpReport {
        allocation: allocation(n),
        public_address: (n != 3).then_some(Ipv4Addr::new(203, 0, 113, n)),
        private_address: Some(private_address),
        state,
    };
    let retrying = Reason::Retrying { failure: failed_claim_of(Kind::Route, timeout()), allowed_at: None };
    let timed_out = ResourceReport {
        owner: owner(Who::OtherRouter),
        verdict: Verdict::Claiming,
        reason_code: code(&retrying),
        reason: why_of(Kind::Route, retrying),
        last_claim: Some(ClaimReport {
            eni: Some(eni(OURS)),
            at: ago(1),
            duration_ms: None,
            request_id: None,
            error: None,
        }),
        last_failure: Some(failed(&timeout())),
        ..held_state()
    };
    let gateway = NotTakeable::LeadsTo("igw-0123456789abcdef0".to_owned());
    let leads_to = Some("igw-0123456789abcdef0".to_owned());
    let gateway = ResourceReport {
        owner: owner(Who::Unassigned).map(|owner| OwnerReport { instead_of_eni: leads_to, ..owner }),
        verdict: Verdict::Drift,
        reason: why_of(Kind::Route, Reason::NotTakeable(gateway)),
        last_claim: None,
        ..held_state()
    };
    let managed = ResourceReport {
        owner: owner(Who::Unassigned)
            .map(|owner| OwnerReport { instead_of_eni: Some("managed by nlb".to_owned()), ..owner }),
        verdict: Verdict::Drift,
        reason: why_of(Kind::ElasticIp, Reason::NotTakeable(NotTakeable::ManagedBy("nlb".to_owned()))),
        last_claim: None,
        ..held_state()
    };
    let error = denied("You are not authorized to perform this operation.");
    let claim = ClaimReport {
        eni: Some(eni(OURS)),
        at: ago(2),
        duration_ms: Some(131),
        request_id: request(),
        error: Some(failed(&error)),
    };
    let refused = |kind| ResourceReport {
        owner: owner(Who::OtherRouter),
        verdict: Verdict::Drift,
        reason: why_of(kind, Reason::Refused(failed_claim_of(kind, error.clone()))),
        last_claim: Some(claim.clone()),
        last_failure: Some(failed(&error)),
        ..held_state()
    };
    let kind = Kind::ElasticIp;
    let obstacle =
        Obstacle::LastClaimRefused { at: Some(instant(1_800)), failure: failed_claim_of(kind, error.clone()) };
    let obstacle = Reason::NotReady(obstacle);
    let not_ready = ResourceReport {
        verdict: Verdict::StandbyNotReady,
        reason_code: code(&obstacle),
        reason: why_of(kind, obstacle),
        ..stood_by_state()
    };
    let elastic_ip_of = ElasticIp { allocation: allocation(1), public_address: Ipv4Addr::new(203, 0, 113, 1) };
    let with_elastic_ip = AddressReport { elastic_ip: Some(elastic_ip_of), ..held(100) };
    let not_assigned = |address, local| LocalAddressReport {
        address,
        interface: InterfaceName::try_from("eth0").expect("an interface"),
        local: Some(local),
        local_since: Some(ago(7_385)),
    };
    let edge = GroupReport {
        not_assigned: vec![not_assigned(Ipv4Addr::new(192, 0, 2, 10), true)],
        routes: vec![
            takes(1, "192.0.2.10/32", held_state()),
            takes(2, "192.0.2.10/32", timed_out),
            takes(2, "0.0.0.0/0", gateway),
            takes(2, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128", refused(Kind::Route)),
        ],
        elastic_ips: vec![
            elastic_ip(1, address(100), held_state()),
            elastic_ip(3, address(11), refused(kind)),
            elastic_ip(4, address(12), managed),
        ],
        ..group("edge", VrrpState::Master, vec![with_elastic_ip])
    };
    let nat = GroupReport {
        not_assigned: vec![not_assigned(address(120), false)],
        routes: vec![takes(3, "10.20.0.0/16", stood_by_state())],
        elastic_ips: vec![elastic_ip(2, Ipv4Addr::new(10, 99, 1, 11), not_ready)],
        ..group("nat", VrrpState::Backup, Vec::new())
    };
    vec![edge, nat]
}

#[test]
fn routes_and_elastic_ips_follow_the_master() {
    let mut report = report(across_zones());
    report.ec2.proofs = vec![
        ProofReport {
            eni: eni(OURS),
            answer: ProofAnswer {
                at: ago(3 * 86_400),
                allowed: true,
                code: "InvalidParameterValue".try_into().ok(),
                message: None,
                request_id: request(),
            },
            outdated_by: Some(OutdatedBy::Credentials),
        },
        ProofReport {
            eni: eni(THEIRS),
            answer: ProofAnswer {
                at: ago(60),
                allowed: false,
                code: "UnauthorizedOperation".try_into().ok(),
                message: Some("You are not authorized to perform this operation.".to_owned()),
                request_id: None,
            },
            outdated_by: None,
        },
    ];
    let calls = |operation: &str, outcomes| CallsReport { operation: operation.to_owned(), outcomes };
    report.ec2.calls = vec![
        calls("AssignPrivateIpAddresses", Outcomes { succeeded: 2, ..Outcomes::default() }),
        calls("ReplaceRoute", Outcomes { succeeded: 9, throttled: 3, refused: 1, failed: 4, sent_again: 2 }),
    ];
    pinned("across-zones", &report);
    for name in ["edge", "nat"] {
        fits(&format!("group-{name}"), &group_text(&report.only(&group_name(name)).expect(name)));
    }
}

/// What is well is summarised, what is not is named, and the addresses are easy to find.
#[test]
fn two_hundred_routes_and_fifty_elastic_ips() {
    let destination = |n: u8| format!("10.{n}.0.0/16");
    let lost = |n: u8| {
        let reason = Reason::Mismatch { owner: owned_by(Who::ThirdParty), error: None };
        let reason = why_of(Kind::Route, reason);
        match n {
            20..40 => ResourceReport { owner: owner(Who::ThirdParty), verdict: Verdict::Drift, reason, ..held_state() },
            _ => held_state(),
        }
    };
    let routes =
        (0..100).flat_map(|n| [1, 2].map(|table| RouteReport { route: route(table, &destination(n)), state: lost(n) }));
    let elastic_ip = |n| ElasticIpReport {
        allocation: allocation(n),
        public_address: Some(Ipv4Addr::new(203, 0, 113, n)),
        private_address: Some(address(n)),
        state: ResourceReport { last_claim: None, ..held_state() },
    };
    let edge = GroupReport {
        routes: routes.collect(),
        elastic_ips: (1..=50).map(elastic_ip).collect(),
        ..group("edge", VrrpState::Master, vec![held(100)])
    };
    let web = group("web", VrrpState::Master, vec![held(101)]);
    let report = report(vec![edge, web]);
    pinned_text("many-routes", &report);
    fits("group-many-routes", &group_text(&report.only(&group_name("edge")).expect("edge")));
}

#[test]
fn groups_that_nothing_is_moved_for() {
    let none = |name: &str, aws_vipa: Value| offline::skipped_group(&skipped(name, &aws_vipa));
    let disabled = AddressReport { verdict: Verdict::Disabled, last_claim: None, ..held(100) };
    let disabled = GroupReport { disabled: true, ..group("off", VrrpState::Master, vec![disabled]) };
    pinned(
        "skipped",
        &report(vec![
            none("", json!({})),
            none("bad name\u{1b}[2J\u{202e}\n#{", json!({ "address": ["10.99.0.7"] })),
            disabled,
        ]),
    );
}

#[test]
fn nothing_is_configured_to_be_moved() {
    pinned("no-group", &report(Vec::new()));
}

#[test]
fn names_that_are_long_and_wide() {
    let long = "a-group-name-that-somebody-made-of-all-words-that-came-to-mind-".repeat(5);
    let wide = AddressReport {
        address: Ipv4Addr::new(255, 255, 255, 255),
        interface: InterfaceName::try_from("a-15-bytes-name").expect("an interface"),
        verdict: Verdict::StandbyNotReady,
        reason: why(Reason::ReadinessUnknown),
        owner: Some(OwnerReport { at: ago(754_321), ..owner(Who::ThisRouterOtherEni).expect("an owner") }),
        ..stood_by(0)
    };
    pinned(
        "long-names",
        &report(vec![
            group(&long[..255], VrrpState::Backup, vec![wide]),
            group("中央路由器", VrrpState::Master, vec![held(100)]),
        ]),
    );
}

#[test]
fn fifty_groups() {
    let groups = (0..50).map(|i| match i {
        17 => {
            let claiming = AddressReport { verdict: Verdict::Claiming, owner: owner(Who::OtherRouter), ..held(i) };
            group(&format!("g{i:02}"), VrrpState::Master, vec![claiming])
        }
        _ if i % 2 == 0 => group(&format!("g{i:02}"), VrrpState::Backup, vec![stood_by(i)]),
        _ => group(&format!("g{i:02}"), VrrpState::Master, vec![held(i)]),
    });
    pinned_text("fifty-groups", &report(groups.collect()));
}

/// A group that verification skips when VyOS loads the configuration, with these children of its node `aws-vipa`.
fn skipped(name: &str, aws_vipa: &Value) -> SkippedGroup {
    let group = json!({ "interface": "eth0", "vrid": "1", "address": { "10.99.0.100/24": {} }, "aws-vipa": aws_vipa });
    let input = json!({
        "format": 1,
        "boot": true,
        "proposed": { "vrrp": { "group": { name: group } } },
        "effective": {},
        "interface-addresses": {},
    });
    let input = Input::parse(input.to_string().as_bytes()).expect("the owner's input");
    verify(&input, &HostState { interfaces: BTreeMap::new(), mode: &|_| Ok(None) }).config.skipped.remove(0)
}

/// A router whose agent is down: what EC2 and the kernel say of `web`, `db`, `mail` and `gone`.
fn config() -> Config {
    let group = |name: &str| GroupConfig::new(GroupName::try_from(name).expect("a group"));
    let Route { table, destination } = route(1, "192.0.2.10/32");
    let web = GroupConfig {
        routes: vec![RouteConfig { destination, tables: BTreeSet::from([table]), interface: None }],
        elastic_ips: vec![ElasticIpConfig {
            allocation: allocation(1),
            private_address: Some(address(100)),
            interface: None,
        }],
        ..group("web")
    };
    Config {
        global: Global { credentials_file: Some("/config/aws/credentials".into()), ..Global::default() },
        groups: vec![web, group("db"), group("mail"), group("gone")],
        skipped: vec![skipped("a b", &json!({}))],
        interface_addresses: BTreeSet::new(),
    }
}

fn facts() -> Observations {
    let group = |name: &str, last: u8| groups::RunningGroup {
        name: GroupName::try_from(name).expect("a group"),
        interface: InterfaceName::try_from("eth0").expect("an interface"),
        vrid: last,
        priority: 200,
        advertise_interval: AdvertiseInterval::default(),
        peers: vec![Ipv4Addr::new(10, 99, 0, 2)],
        addresses: vec![VirtualAddress { address: Ipv4Addr::new(10, 99, 0, last), interface: None }],
    };
    let mut web = group("web", 100);
    web.addresses.push(VirtualAddress { address: Ipv4Addr::new(192, 0, 2, 10), interface: None });
    let owns = |last: u8, who: Who, primary| {
        let owner = owner(who).expect("an owner");
        let eni = owner.eni.expect("an ENI");
        (Ipv4Addr::new(10, 99, 0, last), ec2::Owner { eni, instance: owner.instance, primary })
    };
    let owners = Owners::from([
        owns(2, Who::OtherRouter, true),
        owns(100, Who::ThisRouter, false),
        owns(101, Who::OtherRouter, false),
        owns(102, Who::OtherRouter, false),
    ]);
    Observations {
        now: now(),
        agent_error: "the agent is not running (/run/vyos-aws-vipa-agent/agent.sock: Connection refused (os error 111)); nothing is claimed. `restart aws-vipa` (`sudo systemctl restart vyos-aws-vipa`) starts it; `show log aws-vipa` shows why it stopped".to_owned(),
        not_answered: Vec::new(),
        groups: Some(Groups { groups: vec![web, group("db", 101), group("mail", 102)] }),
        local: Some(
            [100, 102]
                .map(|n| (Ipv4Addr::new(10, 99, 0, n), BTreeSet::from(["eth0".try_into().expect("an interface")])))
                .into(),
        ),
        attached: Some(true),
        instance: Some(InstanceId::try_from("i-0123456789abcdef0").expect("an instance")),
        region: Some(region()),
        credentials: Some(CredentialFacts {
            source: "file /config/aws/credentials, profile default".to_owned(),
            access_key_id: Some("AKIAVIPAEXAMPLE00001".to_owned()),
            loaded_at: Some(ago(0)),
            expires_at: None,
            error: None,
        }),
        enis: BTreeMap::from([(InterfaceName::try_from("eth0").expect("an interface"), eni(OURS))]),
        owners: Some((ago(0), owners)),
        ec2_error: None,
    }
}

#[test]
fn the_agent_is_down() {
    pinned("agent-down", &offline::report(&config(), &facts()));
}

#[test]
fn the_agent_is_down_and_nothing_else_answers() {
    let alone = Observations {
        not_answered: vec![
            format!("cannot read the instance id from IMDS: {}", CallError::new(ec2::Failure::Timeout, NO_IMDS)),
            "EC2 not called: no region configured, and none from IMDS".to_owned(),
            "the kernel refuses the list of addresses: Operation not permitted (os error 1)".to_owned(),
        ],
        local: None,
        attached: None,
        instance: None,
        region: None,
        credentials: None,
        enis: BTreeMap::new(),
        owners: None,
        ec2_error: None,
        ..facts()
    };
    pinned("alone", &offline::report(&config(), &alone));
    let no_groups = offline::report(&config(), &Observations { groups: None, ..facts() });
    assert!(no_groups.groups.iter().all(|g| g.addresses.is_empty() && g.errors.len() == 1), "{no_groups:?}");
}

fn group_name(name: &str) -> GroupName {
    GroupName::try_from(name).expect("a group")
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, last)
}

/// Everything that can stand in the history, of the groups `web` and `db`.
fn records() -> Vec<Record> {
    let theirs = || {
        let owner = owner(Who::OtherRouter).expect("an owner");
        ec2::Owner { eni: eni(THEIRS), instance: owner.instance, primary: false }
    };
    let transition = |from, to, cause| RecordKind::Transition { from, to, cause: reasons::cause(cause).to_owned() };
    let claim = |previous, outcome| RecordKind::Claim { eni: eni(OURS), previous, duration_ms: 142, outcome };
    let done = || Outcome::Acknowledged { request_id: request() };
    let at = |seconds| ago(seconds) + SignedDuration::from_millis(142);
    let web = || group_name("web");
    let eth1 = InterfaceName::try_from("eth1").expect("an interface");
    let timed_out = CallError::new(ec2::Failure::Timeout, NO_IMDS);
    let refused = denied("You are not authorized to perform this operation.");
    let refused = Record::new(at(5_000), claim(None, Outcome::Failed { error: refused }));
    let ours = ec2::Owner { eni: eni(OURS), instance: None, primary: false };
    let nobodys = ec2::Owner { instance: None, ..theirs() };
    vec![
        Record::new(at(7_400), RecordKind::Started { version: "0.1.0".to_owned() }),
        Record::new(at(7_385), transition(VrrpState::Backup, VrrpState::Master, Cause::Notify(NotifyState::Master)))
            .of_group(web()),
        Record::new(at(7_384), claim(Some(theirs()), done())).about([address(100), address(101)]),
        Record::new(at(7_000), transition(VrrpState::Unknown, VrrpState::Backup, Cause::Notify(NotifyState::Backup)))
            .of_group(group_name("db")),
        Record::new(at(6_000), RecordKind::Readiness { obstacle: Some("no credentials".to_owned()) })
            .of_group(group_name("db")),
        Record::new(at(5_900), RecordKind::Readiness { obstacle: None }).of_group(group_name("db")),
        Record { since: Some(ago(5_600)), times: 11, ..refused }.about((100..150).map(address)),
        Record::new(at(4_000), RecordKind::OwnershipLost { by: theirs(), taker: Taker::Peer })
            .of_group(web())
            .about([address(100)]),
        Record::new(at(3_900), claim(Some(ours), done())).about([address(100)]),
        Record::new(at(3_800), RecordKind::Contested { by: nobodys, taker: Taker::ThirdParty })
            .of_group(web())
            .about([address(100)]),
        Record::new(at(3_000), RecordKind::ContestedEnded { taker: Taker::ThirdParty })
            .of_group(web())
            .about([address(100)]),
        Record::new(at(2_000), RecordKind::NotLocal).of_group(web()).about([address(101)]),
        Record::new(at(1_900), RecordKind::Unresolved { interface: eth1, error: timed_out }),
        Record::new(at(1_800), claim(Some(theirs()), done())).about([Resource::Route(route(1, "192.0.2.10/32"))]),
        Record::new(at(1_799), claim(Some(theirs()), done())).about([Resource::ElasticIp(allocation(1))]),
        Record::new(at(1_700), RecordKind::NotTakeable { why: reasons::not_takeable(&NotTakeable::Propagated) })
            .of_group(web())
            .about([Resource::Route(route(2, "0.0.0.0/0"))]),
        Record::new(at(1_600), RecordKind::NotLocal)
            .of_group(web())
            .about([Resource::Route(route(1, "192.0.2.10/32"))]),
        Record::new(at(1_500), transition(VrrpState::Master, VrrpState::Master, Cause::Paused)).of_group(web()),
        Record::new(at(1_000), RecordKind::Forced).of_group(web()),
    ]
}

#[test]
fn what_has_happened() {
    let web = group("web", VrrpState::Master, vec![held(100), held(101)]);
    let db = AddressReport { interface: InterfaceName::try_from("eth1").expect("an interface"), ..stood_by(110) };
    let report = Report { history: records(), ..report(vec![group("db", VrrpState::Backup, vec![db]), web]) };
    fits("history", &history(&report));
    same("history.json", &(serde_json::to_string_pretty(&report.history).expect("JSON") + "\n"));
    let json = serde_json::to_string(&report).expect("JSON");
    assert_eq!(serde_json::from_str::<Report>(&json).expect("a report"), report);

    fits("group-web", &group_text(&report.only(&group_name("web")).expect("web")));
    let db = report.only(&group_name("db")).expect("db");
    fits("group-db", &group_text(&db));
    assert_eq!(db.history.len(), 5, "of its own, of its address in a batch, of its interface: {:?}", db.history);
    assert_eq!(report.only(&group_name("mail")), None);
}

#[test]
fn what_has_happened_is_known_to_the_agent_alone() {
    let mut report = report(vec![group("web", VrrpState::Master, vec![held(100)])]);
    assert_eq!(history(&report), "History: no events yet.\n");
    report.agent = None;
    assert_eq!(history(&report), "History: only available from the agent.\n");
}

#[test]
fn a_group_that_is_not_well() {
    let denied = failed(&denied(DENIED));
    let paused = |last| AddressReport {
        verdict: Verdict::Paused,
        reason: why(Reason::Paused(group_name("w$(eb)"))),
        ..held(last)
    };
    let refused = AddressReport {
        owner: owner(Who::ThirdParty),
        last_claim: Some(ClaimReport {
            eni: None,
            at: ago(2),
            duration_ms: Some(131),
            request_id: request(),
            error: Some(denied),
        }),
        assign_permission_proven_at: None,
        ..paused(100)
    };
    let unknown = AddressReport {
        eni: None,
        local: None,
        owner: None,
        last_claim: None,
        assign_permission_proven_at: None,
        ..paused(101)
    };
    let unattached = OwnerReport { instance: None, ..owner(Who::ThirdParty).expect("an owner") };
    let unattached = AddressReport { owner: Some(unattached), local: Some(false), ..paused(102) };
    let nobodys = AddressReport { owner: owner(Who::Unassigned), ..paused(103) };
    let mut web = group("w$(eb)", VrrpState::Unknown, vec![refused, unknown, unattached, nobodys]);
    web.vrrp_reason = because(reasons::cause(Cause::NoLiveness));
    web.paused_until = Some(ago(-1_615));
    web.errors = vec![reasons::problem(&Problem::NotHeld(Ipv4Addr::new(10, 99, 0, 7)))];
    let web = report(vec![web]);
    fits("group-ill", &group_text(&web));
    let none = GroupReport {
        vrrp_since: None,
        errors: vec![reasons::problem(&Problem::NotRun)],
        ..group("none", VrrpState::Unknown, Vec::new())
    };
    fits("group-none", &group_text(&report(vec![none])));
}

#[test]
fn what_a_person_forced() {
    let now = now();
    let claimed = |last| AddressReport {
        last_claim: Some(ClaimReport {
            eni: None,
            at: ago(0),
            duration_ms: Some(87),
            request_id: request(),
            error: None,
        }),
        ..held(last)
    };
    let all = group("web", VrrpState::Master, vec![claimed(100), claimed(101)]);
    fits("force-claimed", &force::claimed(&all, now));
    assert_eq!(force::missing(&all).0, 0);

    let error = Some(failed(&denied(DENIED)));
    let with = |last, claim, reason: Option<&str>| AddressReport {
        last_claim: claim,
        reason: reason.map(str::to_owned),
        ..held(last)
    };
    let refused = ClaimReport { eni: None, at: ago(1), duration_ms: Some(131), request_id: request(), error };
    let region = region();
    let command = Some(claim_command(&eni(OURS), [address(101)], Target { region: &region, endpoint_url: None }));
    let advice = format!("UnauthorizedOperation: {DENIED}");
    let unknown_eni = Reason::EniUnknown(EniUnknown {
        interface: InterfaceName::try_from("eth0").expect("an interface"),
        error: CallError::new(ec2::Failure::Timeout, "IMDS did not answer"),
    });
    let some = vec![
        claimed(100),
        AddressReport { command, ..with(101, Some(refused.clone()), Some(&advice)) },
        with(102, Some(refused), None),
        with(103, None, why(unknown_eni).as_deref()),
        with(104, Some(ClaimReport { eni: None, at: ago(5), duration_ms: None, request_id: None, error: None }), None),
    ];
    let some = group("a;b", VrrpState::Master, some);
    fits("force-not-claimed", &force::claimed(&some, now));
    assert_eq!(force::missing(&some).0, 4);
    fits("force-nothing", &force::claimed(&group("web", VrrpState::Master, Vec::new()), now));

    let paused = GroupReport { paused_until: Some(ago(-1_800)), ..group("a;b", VrrpState::Master, vec![held(100)]) };
    fits("force-paused", &force::paused(&paused, now));
    fits("force-resumed", &force::resumed(&group("web", VrrpState::Unknown, vec![held(100)])));
    fits("force-resumed-backup", &force::resumed(&group("web", VrrpState::Backup, vec![stood_by(100)])));
}

proptest! {
    /// Whatever stands in names and messages, nothing but text and line ends reaches the terminal.
    #[test]
    fn any_text_is_printed_as_text(name in any::<String>(), reason in any::<String>(), long in "[a-z漢\u{301}\u{1f468}\u{200d} ]{0,400}") {
        let region = region();
        let command = claim_command(&eni(OURS), [address(1)], Target { region: &region, endpoint_url: Some(&reason) });
        let address = AddressReport { reason: Some(reason.clone()), command: Some(command), verdict: Verdict::Drift, ..held(1) };
        let mut group = group(&name, VrrpState::Unknown, vec![address]);
        group.vrrp_reason = Some(long);
        group.errors = vec![reason.clone(), name.clone()];
        let mut report = report(vec![group]);
        report.agent = None;
        report.agent_error = Some(reason);
        report.not_answered = vec![name];
        let text = table(&report);
        let unsafe_character = |c: char| {
            (c.is_control() && c != '\n') || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        prop_assert!(!text.contains(unsafe_character), "{:?}", text);
        prop_assert!(text.contains("DRIFT"), "{}", text);
    }
}

/// Each reason has a text of one line. Causes, and refusals of a request, all have different ones.
#[test]
fn what_a_proof_has_shown() {
    let of_eni = || Subject::Eni(eni(OURS));
    let of = |resource: Resource| Subject::Resource(resource);
    let no_table = || {
        let code = "InvalidRouteTableID.NotFound".try_into().expect("a code");
        CallError::new(ec2::Failure::Api { code, class: ErrorClass::BadResource }, "The routeTable ID does not exist")
    };
    let throttled = || {
        let code = "RequestLimitExceeded".try_into().expect("a code");
        CallError::new(ec2::Failure::Api { code, class: ErrorClass::Throttled }, "Request limit exceeded.")
    };
    let findings = vec![
        (of_eni(), Finding::Allowed { code: "InvalidParameterValue".try_into().ok() }),
        (of_eni(), Finding::Allowed { code: None }),
        (of_eni(), Finding::Denied { error: denied("You are not authorized to perform this operation.") }),
        (of_eni(), Finding::Inconclusive { error: throttled() }),
        (of_eni(), Finding::Inconclusive { error: timeout() }),
        (of_eni(), Finding::NotAttached { instance: InstanceId::try_from("i-0fedcba9876543210").ok() }),
        (of_eni(), Finding::NotAttached { instance: None }),
        (of_eni(), Finding::NoSuchEni),
        (of(Resource::Route(route(0, "192.0.2.0/24"))), Finding::of_dry_run(Ok(()))),
        (of(Resource::Route(route(1, "192.0.2.0/24"))), Finding::of_dry_run(Err(no_table()))),
        (of(Resource::ElasticIp(allocation(0))), Finding::of_dry_run(Err(denied("You are not authorized.")))),
        (of(Resource::ElasticIp(allocation(1))), Finding::of_dry_run(Err(throttled()))),
    ];
    fits("force-proved", &proof::table(&ProveReport { findings, skipped: 180, not_saved: None }));
}

#[test]
fn every_reason_has_a_text_of_its_own() {
    let texts = examples::texts();
    assert!(texts.iter().all(|text| !text.is_empty() && !text.contains('\n') && !text.contains("  ")), "{texts:#?}");
    let causes: BTreeSet<&str> = examples::causes().into_iter().map(reasons::cause).collect();
    assert_eq!(causes.len(), examples::causes().len());
    let codes = examples::reasons_of_verdicts();
    let is_word = |code: &str| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    assert!(codes.iter().map(reasons::code).all(is_word), "{codes:#?}");
    let requests = examples::request_refusals();
    let refusals: BTreeSet<String> =
        requests.iter().map(|refusal| reasons::refused(&group_name("web"), refusal)).collect();
    assert_eq!(refusals.len(), requests.len());
    assert!(refusals.iter().all(|text| text.contains("group web")), "{refusals:#?}");
}

/// Every reason of a verdict, the obstacles of a standby among them, for each kind of resource.
#[test]
fn every_reason_is_a_label_of_the_metrics_under_its_documented_code() {
    let documentation = include_str!("../../../docs/reference/status-json.md");
    let resources: [Resource; 3] = [
        Ipv4Addr::new(10, 99, 0, 100).into(),
        Resource::Route(route(0, "192.0.2.0/24")),
        Resource::ElasticIp(allocation(0)),
    ];
    for reason in examples::reasons_of_verdicts() {
        let facts = |resource: &Resource| ResourceFacts {
            resource: resource.clone(),
            interface: InterfaceName::try_from("eth0").expect("an interface"),
            eni: None,
            private_address: None,
            is_local: false,
            local_since: None,
            owner: None,
            permission_proven: None,
            verdict: Verdict::StandbyNotReady,
            reason: Some(reason.clone()),
            last_claim: None,
            last_failure: None,
        };
        let group = GroupFacts {
            name: group_name("web"),
            vrrp: VrrpState::Backup,
            since: BootInstant::default(),
            unknown_because: None,
            disabled: false,
            paused_until: None,
            problems: Vec::new(),
            resources: resources.iter().map(facts).collect(),
            not_assigned: Vec::new(),
        };
        let text = metrics::render(&report(live::groups(vec![group], clock)), &Counters::default());
        let code = reasons::code(&reason);
        assert!(documentation.contains(&format!("\n| `{code}` | ")), "{code} has no row");
        for (kind, resource) in ["address", "route", "elastic-ip"].iter().zip(&resources) {
            let labels = format!(r#"group="web",kind="{kind}",resource="{resource}",reason="{code}""#);
            let line = format!("vyos_aws_vipa_resource_reason{{{labels}}} 1");
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
    }
}
