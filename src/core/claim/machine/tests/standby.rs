//! B11: what a standby does to be able to take over.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::harness::{
    Act, ETH0, Fault, Harness, PEER, THIRD_PARTY, clock, config, eni, error, group, interface, ms, owner, run, secs,
    vip, wanted,
};
use crate::claim::{Action, BootInstant, Event, Inspection, LogEvent, drops_packets};
use crate::keepalived::groups::Groups;
use crate::model::config::{Config, GroupConfig};
use crate::model::credentials::CredentialsChange;
use crate::model::ec2::{ErrorClass, Interface, Owner};
use crate::model::ids::EniId;
use crate::model::path::{Path, Service};
use crate::model::resource::Kind;
use crate::model::verdict::{Verdict, Who};
use crate::model::vrrp::NotifyState;
use crate::report::reasons;

fn gaps(harness: &Harness, since: BootInstant) -> Vec<u64> {
    harness.read_times(since).windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn readiness(harness: &Harness, since: BootInstant) -> Vec<Option<String>> {
    let log_events = harness.log_events(since).into_iter();
    log_events
        .filter_map(|(_, n)| if let LogEvent::Readiness { obstacle, .. } = n { Some(obstacle) } else { None })
        .map(|obstacle| obstacle.map(|obstacle| reasons::obstacle(&obstacle, clock)))
        .collect()
}

fn with_interval(seconds: u16) -> Harness {
    let mut harness = Harness::one();
    harness.config.global.verify_interval = seconds.try_into().expect("an interval");
    harness.tell(Event::Config(harness.config.clone()));
    harness.run(secs(1));
    harness
}

#[test]
fn a_standby_reads_once_per_interval_with_jitter() {
    let mut harness = with_interval(30);
    let begin = harness.now;
    harness.run(secs(3_600));
    let gaps = gaps(&harness, begin);
    assert!(gaps.iter().all(|gap| (24_000..=36_100).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().max() > gaps.iter().min(), "jitter: {gaps:?}");
    assert!((100..=150).contains(&gaps.len()), "{}", gaps.len());
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
}

#[test]
fn a_standby_never_reads_more_than_once_in_fifteen_seconds() {
    for interval in [5, 15] {
        let mut harness = with_interval(interval);
        let begin = harness.now;
        harness.run(secs(1_800));
        let gaps = gaps(&harness, begin);
        assert!(gaps.iter().all(|gap| (15_000..=18_100).contains(gap)), "{interval}: {gaps:?}");
    }
    // A master goes by the interval alone.
    let mut harness = with_interval(5);
    harness.master("a");
    harness.run(secs(60));
    let begin = harness.now;
    harness.run(secs(60));
    assert!(gaps(&harness, begin).iter().all(|gap| *gap == 5_020), "{:?}", gaps(&harness, begin));
}

#[test]
fn changed_credentials_are_tried_within_fifteen_seconds() {
    for is_master in [false, true] {
        let mut harness = with_interval(300);
        if is_master {
            harness.master("a");
        }
        harness.run(secs(60));
        let begin = harness.now;
        harness.tell(Event::Credentials(CredentialsChange::Others));
        harness.run(secs(15));
        assert_eq!(harness.read_times(begin).len(), 1, "MASTER: {is_master}");
        harness.run(secs(200));
        assert_eq!(harness.read_times(begin).len(), 1, "MASTER: {is_master}");
    }
}

/// The agent looks for changed credentials and verifies in the same rhythm: both often come in one moment.
#[test]
fn a_read_in_flight_does_not_put_off_the_try_of_changed_credentials() {
    for (interval, is_master) in [(300, true), (300, false), (5, false)] {
        let mut harness = with_interval(interval);
        if is_master {
            harness.master("a");
        }
        harness.run(secs(60));
        let begin = harness.now;
        harness.tell(Event::ReadNow);
        assert_eq!(harness.read_times(begin).len(), 1);
        harness.tell(Event::Credentials(CredentialsChange::Others));
        harness.run(secs(15));
        assert_eq!(harness.read_times(begin).len(), 2, "interval {interval}, MASTER: {is_master}");
    }
}

#[test]
fn the_interval_doubles_while_ec2_says_too_many_requests() {
    let mut harness = with_interval(30);
    harness.ec2.read_refuses = Some(ErrorClass::Throttled);
    let begin = harness.now;
    harness.run(secs(3_000));
    let throttled = gaps(&harness, begin);
    for (n, gap) in throttled.iter().enumerate() {
        let mean = 30_000 << (n + 1).min(4);
        assert!((mean * 8 / 10..=mean * 12 / 10 + 100).contains(gap), "{n} of {throttled:?}");
    }
    assert!(throttled.len() >= 5, "{throttled:?}");
    harness.ec2.read_refuses = None;
    harness.run(secs(600));
    let begin = harness.now;
    harness.run(secs(600));
    assert!(gaps(&harness, begin).iter().all(|gap| *gap <= 36_100), "{:?}", gaps(&harness, begin));
}

#[test]
fn other_errors_do_not_slow_a_standby_down() {
    let mut harness = with_interval(30);
    harness.ec2.read_refuses = Some(ErrorClass::Denied);
    let begin = harness.now;
    harness.run(secs(600));
    assert!(gaps(&harness, begin).iter().all(|gap| *gap <= 36_100), "{:?}", gaps(&harness, begin));
}

/// The clock by which requests are signed is corrected after the first such answer.
#[test]
fn a_read_that_fails_because_of_the_clock_is_repeated_once_at_once() {
    let mut harness = Harness::one();
    harness.ec2.read_refuses = Some(ErrorClass::Clock);
    let begin = harness.now;
    harness.run(secs(100));
    let at_once = |harness: &Harness, since| gaps(harness, since).into_iter().filter(|gap| *gap < 1_000).count();
    assert_eq!(at_once(&harness, begin), 1, "{:?}", harness.read_times(begin));
    // Another failure in between: the clock may be off again.
    harness.ec2.read_refuses = Some(ErrorClass::Denied);
    harness.run(secs(40));
    harness.ec2.read_refuses = Some(ErrorClass::Clock);
    harness.run(secs(100));
    assert_eq!(at_once(&harness, begin), 2, "{:?}", harness.read_times(begin));
}

#[test]
fn one_read_serves_all_groups_and_the_peers() {
    let groups = (0..40).map(|n| run(&format!("g{n}"), "eth0", n, &[vip(n)])).collect();
    let names: Vec<String> = (0..40).map(|n| format!("g{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut harness = Harness::settled(config(&names), Groups { groups });
    let begin = harness.now;
    harness.run(secs(40));
    assert_eq!(harness.read_times(begin).len(), 1, "{:?}", harness.read_times(begin));
    let addresses = harness.done.iter().find_map(|(_, action)| match action {
        crate::claim::Action::Read { request, .. } => Some(request.resources().len()),
        _ => None,
    });
    assert_eq!(addresses, Some(42), "forty, that of the other router, and the primary one of the ENI");
}

#[test]
fn a_standby_that_could_not_take_over_says_so_once_and_says_when_it_can_again() {
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.run(secs(100));
    assert_eq!(readiness(&harness, begin), [], "that all is well is nothing new");
    harness.ec2.read_refuses = Some(ErrorClass::Denied);
    harness.run(secs(200));
    let logged = readiness(&harness, begin);
    assert!(logged.len() == 1 && logged[0].as_ref().is_some_and(|why| why.contains("IAM policy")), "{logged:?}");
    harness.ec2.read_refuses = None;
    harness.run(secs(100));
    assert_eq!(readiness(&harness, begin).last(), Some(&None));
    let begin = harness.now;
    harness.tell(Event::Writer(false));
    harness.run(ms(1));
    harness.tell(Event::Writer(true));
    assert_eq!(readiness(&harness, begin), [], "a reload is nothing to speak of");
}

#[test]
fn a_refusal_before_it_stood_by_counts_until_something_has_changed() {
    let mut harness = Harness::one();
    harness.ec2.refuses = Some(ErrorClass::Denied);
    harness.master("a");
    harness.run(secs(5));
    let begin = harness.now;
    harness.backup("a");
    harness.run(secs(60));
    let logged = readiness(&harness, begin);
    assert!(
        logged.len() == 1
            && logged[0].as_ref().is_some_and(|why| why.contains("the last claim from this router failed"))
    );
    harness.ec2.refuses = None;
    harness.tell(Event::Credentials(CredentialsChange::Others));
    harness.run(secs(60));
    assert_eq!(readiness(&harness, begin).last(), Some(&None), "there are other credentials");
}

#[test]
fn new_keys_of_a_role_permit_what_the_old_ones_did() {
    for (code, class, ends) in [
        ("UnauthorizedOperation", ErrorClass::Denied, false),
        ("InvalidParameterValue", ErrorClass::BadResource, false),
        ("ExpiredToken", ErrorClass::Denied, true),
        ("RequestExpired", ErrorClass::Clock, true),
    ] {
        let mut harness = Harness::one();
        (harness.ec2.bad, harness.ec2.bad_class) = ([vip(1).into()].into(), class);
        harness.ec2.bad_code = Some(code);
        harness.master("a");
        harness.run(secs(5));
        harness.backup("a");
        harness.run(secs(20));
        assert_eq!(shown(&harness).0, Verdict::StandbyNotReady, "{code}");
        let begin = harness.now;
        harness.tell(Event::Credentials(CredentialsChange::NewKeys));
        harness.run(secs(20));
        let verdict = if ends { Verdict::StandbyReady } else { Verdict::StandbyNotReady };
        assert_eq!(shown(&harness).0, verdict, "{code}");
        assert_eq!(harness.read_times(begin).len(), 1, "{code}: they are tried");
        // A master may as well try.
        harness.master("a");
        harness.run(secs(5));
        let begin = harness.now;
        harness.tell(Event::Credentials(CredentialsChange::NewKeys));
        assert_eq!(harness.claim_times(begin), [0], "{code}");
    }
}

#[test]
fn an_eni_that_is_not_known_keeps_a_standby_from_being_ready() {
    let mut harness = Harness::new(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
    harness.imds = Err(ErrorClass::Transient);
    let begin = harness.now;
    harness.start_agent();
    harness.becomes("a", NotifyState::Backup);
    harness.run(secs(10));
    let logged = readiness(&harness, begin);
    assert!(logged.len() == 1 && logged[0].as_ref().is_some_and(|why| why.contains("eth0")), "{logged:?}");
    harness.imds = Ok(());
    harness.ec2.read_delay = secs(2);
    let deadline = harness.now + secs(10);
    while harness.machine.interface_enis[&interface("eth0")].eni.is_none() {
        assert!(harness.now < deadline, "not resolved");
        harness.run(ms(10));
    }
    harness.run(secs(1));
    assert_eq!(readiness(&harness, begin), logged, "the owner was not read yet");
    harness.run(secs(10));
    assert_eq!(readiness(&harness, begin).last(), Some(&None));
}

#[test]
fn flapping_does_not_make_a_standby_read_more_often() {
    let mut harness = with_interval(30);
    let begin = harness.now;
    for _ in 0..100 {
        harness.backup("a");
        harness.run(ms(100));
    }
    assert!(harness.read_times(begin).len() <= 1, "{:?}", harness.read_times(begin));
}

// ── what the regular reads show anyway ──

const US: &str = "i-0000000a";
const OTHER: &str = "i-0000000b";
const SOMEBODY: &str = "i-0000000c";
const OTHERS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// An ENI of an instance.
fn of(id: &str, instance: &str) -> Owner {
    Owner { instance: Some(instance.try_into().expect("an id")), ..owner(id) }
}

/// This instance and the other router's are known, and the other router has the address.
fn with_instances(configured: Option<&str>) -> Harness {
    let group = GroupConfig { network_interface_id: configured.map(eni), ..wanted("a") };
    let config = Config { groups: vec![group], ..Config::default() };
    let mut harness = Harness::new(config, Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
    harness.instances = [(ETH0, US), (PEER, OTHER)].map(|(id, at)| (eni(id), at.try_into().expect("an id"))).into();
    harness.give_to(OTHERS_ADDRESS, Owner { primary: true, ..of(PEER, OTHER) });
    harness.give_to(vip(1), of(PEER, OTHER));
    harness.start_agent();
    harness.tell(Event::Instance(US.try_into().expect("an id")));
    harness.backup("a");
    harness.run(secs(10));
    harness
}

fn shown(harness: &Harness) -> (Verdict, Option<String>) {
    harness.reported().map(|a| (a.verdict, a.reason)).expect("the address")
}

#[test]
fn the_primary_address_of_another_interface_keeps_a_standby_from_being_ready() {
    let mut harness = with_instances(None);
    assert_eq!(shown(&harness), (Verdict::StandbyReady, None));
    let begin = harness.now;
    harness.give_to(vip(1), Owner { primary: true, ..of(THIRD_PARTY, SOMEBODY) });
    harness.run(secs(60));
    let why = format!(
        "10.0.1.1 is the primary address of {THIRD_PARTY} of {SOMEBODY}, which EC2 never moves: choose another address for the group"
    );
    assert_eq!(shown(&harness), (Verdict::StandbyNotReady, Some(why.clone())));
    assert_eq!(readiness(&harness, begin), [Some(why.clone())]);
    // A claim is refused, and says why.
    harness.ec2.bad = [vip(1).into()].into();
    harness.master("a");
    harness.run(secs(2));
    let (verdict, reason) = shown(&harness);
    assert!(verdict == Verdict::Drift && reason.is_some_and(|reason| reason.contains(&why)), "{verdict}");
    harness.backup("a");
    harness.give_to(vip(1), of(PEER, OTHER));
    harness.ec2.bad.clear();
    harness.tell(Event::Credentials(CredentialsChange::Others));
    harness.run(secs(60));
    assert_eq!(readiness(&harness, begin).last(), Some(&None));
}

/// network-interface-id names the other router's ENI: the configuration was copied.
#[test]
fn an_interface_of_another_instance_is_not_ours() {
    let mut harness = with_instances(Some(PEER));
    let why = format!(
        "{PEER} is attached to {OTHER}, not to this instance {US}, and traffic goes there: correct `aws-vipa network-interface-id`"
    );
    assert_eq!(shown(&harness), (Verdict::StandbyNotReady, Some(why.clone())));
    assert_eq!(readiness(&harness, BootInstant::default()), [Some(why.clone())]);
    let log_events = |harness: &Harness| {
        let log_events = harness.log_events(BootInstant::default()).into_iter();
        log_events.filter(|(_, log)| matches!(log, LogEvent::EniElsewhere { instance: Some(_), .. })).count()
    };
    assert_eq!(log_events(&harness), 1);
    // The claim is what the operator has configured. That EC2 confirms it does not make it right.
    harness.master("a");
    harness.run(secs(60));
    assert_eq!(shown(&harness), (Verdict::Drift, Some(why)));
    let owner = harness.reported().and_then(|a| a.owner).expect("an owner");
    assert_eq!(owner.who, Who::OtherRouter);
    assert_eq!(log_events(&harness), 1, "said once");
    // It is attached here.
    harness.give_to(vip(1), of(PEER, US));
    harness.give_to(OTHERS_ADDRESS, of("eni-0000000f", OTHER));
    harness.run(secs(60));
    assert_eq!(shown(&harness), (Verdict::Ok, None));
}

#[test]
fn an_interface_of_no_instance_is_not_ours() {
    let mut harness = with_instances(None);
    harness.master("a");
    harness.run(secs(60));
    assert_eq!(shown(&harness), (Verdict::Ok, None));
    harness.give_to(vip(1), owner(ETH0));
    harness.run(secs(60));
    let (verdict, reason) = shown(&harness);
    assert_eq!(verdict, Verdict::Drift);
    assert!(
        reason.is_some_and(|reason| reason.contains("eni-0000000a is attached to no instance, and traffic is lost"))
    );
}

#[test]
fn what_is_not_known_of_an_interface_is_no_obstacle() {
    let mut harness = with_instances(Some(PEER));
    // Another ENI of the other router has its address, and the virtual one: what is configured is not shown any more.
    harness.give_to(OTHERS_ADDRESS, of("eni-0000000f", OTHER));
    harness.give_to(vip(1), of("eni-0000000f", OTHER));
    harness.run(secs(60));
    assert_eq!(shown(&harness), (Verdict::StandbyReady, None));
    // EC2 describes it, and has no such ENI.
    harness.ec2.has_no_others = true;
    harness.tell(Event::Credentials(CredentialsChange::Others));
    harness.run(secs(60));
    assert_eq!(shown(&harness), (Verdict::StandbyNotReady, Some(no_such_eni(PEER))));
}

fn no_such_eni(id: &str) -> String {
    format!(
        "EC2 has no {id} in this account and region: correct `aws-vipa network-interface-id`; if it is right, check `aws-vipa region` and the account of the credentials"
    )
}

/// How EC2 describes the ENI of eth0, with these addresses beside its primary one.
fn described(secondary: &[Ipv4Addr]) -> Interface {
    let primary = Ipv4Addr::new(10, 0, 0, 1);
    Interface {
        subnet: "subnet-0000000a".try_into().expect("a subnet"),
        instance: Some(US.try_into().expect("an id")),
        source_dest_check: Some(false),
        primary: Some(primary),
        addresses: secondary.iter().copied().chain([primary]).collect(),
        prefixes: 0,
    }
}

/// A standby whose ENI EC2 describes like that.
fn described_as(limit: Option<usize>, interface: Interface) -> Harness {
    let mut harness = Harness::new(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[vip(1), vip(2)])] });
    harness.ec2.limit = limit;
    harness.ec2.interfaces.insert(eni(ETH0), interface);
    harness.start_agent();
    harness.tell(Event::Instance(US.try_into().expect("an id")));
    harness.backup("a");
    harness.run(secs(10));
    harness
}

/// The verdicts of both addresses, and the reason for the first.
fn both(harness: &Harness) -> ([Verdict; 2], Option<String>) {
    let resources = harness.machine.facts(harness.now).remove(0).resources;
    let reason = resources[0].reason.as_ref().map(|reason| reasons::reason(Kind::Address, reason, clock));
    ([resources[0].verdict, resources[1].verdict], reason)
}

const READY: [Verdict; 2] = [Verdict::StandbyReady; 2];
const NOT_READY: [Verdict; 2] = [Verdict::StandbyNotReady; 2];

#[test]
fn a_full_eni_keeps_a_standby_from_being_ready() {
    // The primary address, a prefix, and two virtual addresses to come.
    let with_prefix = |prefixes| Interface { prefixes, ..described(&[]) };
    let mut harness = described_as(Some(4), with_prefix(1));
    assert_eq!(both(&harness), (READY, None));
    let begin = harness.now;
    harness.ec2.interfaces.insert(eni(ETH0), with_prefix(2));
    harness.run(secs(60));
    let why = "eni-0000000a has 1 address and 2 prefixes, each of which counts as an address, and may get 2 more; a m5.large \
               allows 4: use a larger instance type, or unassign addresses";
    assert_eq!(both(&harness), (NOT_READY, Some(why.to_owned())));
    assert_eq!(readiness(&harness, begin), [Some(why.to_owned())]);
    // It is still full, and that is no news.
    harness.ec2.interfaces.insert(eni(ETH0), Interface { prefixes: 1, ..described(&[vip(9)]) });
    harness.run(secs(60));
    assert_eq!(both(&harness).0, NOT_READY);
    assert_eq!(readiness(&harness, begin).len(), 1);
    // What is on it already needs no room.
    harness.ec2.interfaces.insert(eni(ETH0), Interface { prefixes: 2, ..described(&[vip(1)]) });
    harness.run(secs(60));
    assert_eq!(both(&harness).0, [Verdict::StandbyReady, Verdict::StandbyNotReady]);
    harness.ec2.interfaces.insert(eni(ETH0), with_prefix(0));
    harness.run(secs(60));
    assert_eq!(both(&harness), (READY, None));
    assert_eq!(readiness(&harness, begin).last(), Some(&None));
}

#[test]
fn a_claim_that_was_refused_for_want_of_room_is_no_obstacle_once_there_is_room() {
    let full = || Interface { prefixes: 2, ..described(&[]) };
    for limit in [Some(4), None] {
        let mut harness = described_as(limit, full());
        harness.ec2.bad = [vip(1).into(), vip(2).into()].into();
        harness.ec2.bad_code = Some("PrivateIpAddressLimitExceeded");
        harness.master("a");
        harness.run(secs(20));
        harness.backup("a");
        harness.run(secs(60));
        assert_eq!(both(&harness).0, NOT_READY);
        harness.ec2.interfaces.insert(eni(ETH0), described(&[]));
        harness.run(secs(60));
        let verdicts = if limit.is_some() { READY } else { NOT_READY };
        assert_eq!(both(&harness).0, verdicts, "only the limit shows that: {limit:?}");
    }
}

#[test]
fn room_that_is_not_known_is_no_obstacle() {
    let full = Interface { prefixes: 99, ..described(&[]) };
    let mut harness = described_as(None, full.clone());
    assert_eq!(both(&harness), (READY, None));
    // A read no longer shows the ENI.
    let mut shown = described_as(Some(4), full);
    assert_eq!(both(&shown).0, NOT_READY);
    shown.ec2.interfaces.clear();
    shown.run(secs(60));
    assert_eq!(both(&shown), (READY, None));
    // New credentials may read the limit.
    harness.ec2.limit = Some(4);
    harness.run(secs(3_600));
    assert_eq!(both(&harness), (READY, None), "a refusal lasts a day");
    harness.tell(Event::Credentials(CredentialsChange::Others));
    harness.run(secs(30));
    assert_eq!(both(&harness).0, NOT_READY);
}

/// The calls that need a call of their own.
fn inspections(harness: &Harness, since: BootInstant) -> Vec<(u64, bool, Vec<EniId>)> {
    let all = harness.done.iter().filter_map(|(when, action)| match action {
        Action::Inspect { wants_limit, enis, .. } if *when >= since => {
            Some((since.until(*when).as_secs(), *wants_limit, enis.clone()))
        }
        _ => None,
    });
    all.collect()
}

#[test]
fn the_limit_is_read_once_and_after_a_refusal_once_a_day() {
    let mut harness = described_as(Some(9), described(&[]));
    let start = BootInstant::default();
    let limits = |harness: &Harness, since| inspections(harness, since).len();
    assert_eq!(limits(&harness, start), 1);
    harness.tell(Event::Credentials(CredentialsChange::Others));
    harness.tell(Event::Config(harness.config.clone()));
    harness.run(secs(100_000));
    assert_eq!(limits(&harness, start), 1, "it cannot change while the instance runs");

    let mut harness = described_as(None, described(&[]));
    let begin = harness.now;
    assert_eq!(limits(&harness, start), 1);
    harness.run(secs(3 * 86_400));
    let times: Vec<u64> = inspections(&harness, begin).into_iter().map(|(at, ..)| at / 3_600).collect();
    assert!((2..=3).contains(&times.len()) && times[0] >= 21, "{times:?}");
    let begin = harness.now;
    harness.tell(Event::Config(harness.config.clone()));
    harness.run(secs(1));
    assert_eq!(limits(&harness, begin), 1, "a change");
}

#[test]
fn a_denied_proof_keeps_a_standby_from_being_ready() {
    let denied = |of| Event::Denials([(eni(of), error(ErrorClass::Denied))].into());
    let not_ready = |harness: &Harness| shown(harness).0 == Verdict::StandbyNotReady;
    for over in ["it counts no longer", "claim"] {
        let mut harness = described_as(Some(4), described(&[]));
        assert!(!not_ready(&harness));
        harness.tell(denied(PEER));
        assert!(!not_ready(&harness), "it is about another ENI");
        let begin = harness.now;
        harness.tell(denied(ETH0));
        let (_, reason) = shown(&harness);
        assert!(not_ready(&harness) && reason.expect("a reason").contains("`force aws-vipa prove` has shown"));
        let is_obstacle = |log: &LogEvent| matches!(log, LogEvent::Readiness { obstacle: Some(_), .. });
        assert!(harness.log_events(begin).iter().any(|(_, log)| is_obstacle(log)));
        harness.run(secs(100));
        assert!(not_ready(&harness), "reads show nothing of it");
        // The agent tells which denials count: here, neither other credentials nor new keys of a role, every few hours, end it.
        harness.tell(Event::Credentials(CredentialsChange::Others));
        harness.tell(Event::Credentials(CredentialsChange::NewKeys));
        harness.tell(Event::Config(harness.config.clone()));
        assert!(not_ready(&harness), "neither do other keys, nor a commit");
        if over == "claim" {
            harness.master("a");
            harness.run(secs(20));
            harness.backup("a");
        } else {
            harness.tell(Event::Denials(BTreeMap::new()));
        }
        assert!(!not_ready(&harness), "{over}: {:?}", shown(&harness));
    }
}

/// A claim of one group shows the permission for all that are on the ENI, also if the answer comes after BACKUP.
#[test]
fn an_accepted_claim_ends_the_denial_for_every_group_on_the_eni() {
    let mut harness = Harness::settled(
        config(&["a", "b"]),
        Groups { groups: vec![run("a", "eth0", 10, &[vip(1)]), run("b", "eth0", 11, &[vip(2)])] },
    );
    harness.tell(Event::Denials([(eni(ETH0), error(ErrorClass::Denied))].into()));
    assert_eq!(shown(&harness).0, Verdict::StandbyNotReady);
    harness.ec2.claims = vec![Fault::Fails(ErrorClass::Throttled)];
    harness.master("b");
    harness.backup("b");
    harness.run(secs(20));
    assert_eq!(shown(&harness).0, Verdict::StandbyNotReady, "a claim that failed shows nothing");
    harness.master("b");
    harness.backup("b");
    harness.run(secs(20));
    assert_eq!(shown(&harness).0, Verdict::StandbyReady);
    // The denial of a claim of the other group, too.
    (harness.ec2.bad, harness.ec2.bad_class) = ([vip(1).into()].into(), ErrorClass::Denied);
    harness.master("a");
    harness.run(secs(5));
    harness.backup("a");
    harness.ec2.bad.clear();
    harness.run(secs(20));
    assert_eq!(shown(&harness).0, Verdict::StandbyNotReady);
    harness.master("b");
    harness.backup("b");
    harness.run(secs(20));
    assert_eq!(shown(&harness).0, Verdict::StandbyReady);
}

#[test]
fn a_master_inspects_nothing() {
    let mut harness = Harness::new(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
    harness.start_agent();
    harness.master("a");
    harness.run(secs(600));
    assert_eq!(inspections(&harness, BootInstant::default()), []);
    harness.backup("a");
    harness.run(secs(1));
    assert_eq!(inspections(&harness, BootInstant::default()).len(), 1);
}

fn path_to(destination: Ipv4Addr, gateway: Option<Ipv4Addr>, source: Ipv4Addr) -> Option<Path> {
    Some(Path { destination, gateway, source: Some(source) })
}

const ENDPOINTS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// A standby with these paths to EC2, and a good one to IMDS; and what a regular read shows then.
fn with_paths(paths: &[Option<Path>]) -> (Harness, Verdict, Option<String>) {
    let mut harness = with_instances(None);
    harness.network.paths = paths.iter().map(|path| (Service::Ec2, *path)).collect();
    let imds = path_to(Ipv4Addr::new(169, 254, 169, 254), Some(Ipv4Addr::new(10, 0, 0, 254)), OWN);
    harness.network.paths.push((Service::Imds, imds));
    harness.run(secs(60));
    let (verdict, reason) = shown(&harness);
    (harness, verdict, reason)
}

#[test]
fn a_path_that_depends_on_the_other_router_keeps_a_standby_from_being_ready() {
    let gateway = Some(Ipv4Addr::new(10, 0, 0, 254));
    for (path, words) in [
        (
            path_to(ENDPOINTS[0], Some(vip(1)), OWN),
            "packets to EC2 (192.0.2.1) go through the virtual address 10.0.1.1",
        ),
        (
            path_to(ENDPOINTS[0], Some(OTHERS_ADDRESS), OWN),
            "packets to EC2 (192.0.2.1) go through 10.0.0.2, the other router",
        ),
        (path_to(OTHERS_ADDRESS, None, OWN), "packets to EC2 (10.0.0.2) go through 10.0.0.2, the other router"),
        (
            path_to(ENDPOINTS[0], gateway, vip(1)),
            "packets to EC2 (192.0.2.1) have the virtual address 10.0.1.1 as their source",
        ),
    ] {
        let (mut harness, verdict, reason) = with_paths(&[path]);
        assert_eq!(verdict, Verdict::StandbyNotReady, "{words}");
        assert!(reason.as_ref().is_some_and(|reason| reason.starts_with(words)), "{reason:?}");
        let begin = harness.now;
        // Another address of the endpoint is no news.
        harness.network.paths[0].1 = path.map(|path| Path {
            destination: if path.gateway.is_some() { ENDPOINTS[1] } else { path.destination },
            ..path
        });
        harness.run(secs(60));
        assert_eq!(readiness(&harness, begin), [], "{words}");
        harness.network.paths[0].1 = path_to(ENDPOINTS[0], gateway, OWN);
        harness.run(secs(60));
        assert_eq!(shown(&harness), (Verdict::StandbyReady, None), "{words}");
        assert_eq!(readiness(&harness, begin), [None], "{words}");
    }
}

#[test]
fn a_path_to_imds_through_the_other_router_is_one_too() {
    let mut harness = with_instances(None);
    harness.network.paths =
        vec![(Service::Imds, path_to(Ipv4Addr::new(169, 254, 169, 254), Some(OTHERS_ADDRESS), OWN))];
    harness.run(secs(60));
    let (verdict, reason) = shown(&harness);
    assert_eq!(verdict, Verdict::StandbyNotReady);
    let words = "packets to IMDS (169.254.169.254) go through 10.0.0.2, the other router";
    assert!(reason.as_ref().is_some_and(|reason| reason.starts_with(words)), "{reason:?}");
}

/// While this router was master, the packets to EC2 had the virtual address as their source.
#[test]
fn a_virtual_source_address_is_no_obstacle_for_the_master_that_was() {
    let with_source = |source| vec![(Service::Ec2, path_to(ENDPOINTS[0], Some(Ipv4Addr::new(10, 0, 0, 254)), source))];
    let mut harness = with_interval(300);
    harness.network.paths = with_source(vip(1));
    harness.master("a");
    harness.run(secs(400));
    harness.network.paths = with_source(OWN);
    let begin = harness.now;
    harness.backup("a");
    assert_eq!(readiness(&harness, begin), []);
    harness.run(ms(300));
    assert_eq!(shown(&harness), (Verdict::StandbyReady, None));
    // It stays as it is where the kernel shows it still.
    harness.master("a");
    harness.network.paths = with_source(vip(1));
    harness.run(secs(1));
    harness.backup("a");
    harness.run(secs(1));
    assert_eq!(shown(&harness).0, Verdict::StandbyNotReady);
    let logged = readiness(&harness, begin);
    assert!(logged.len() == 1 && logged[0].is_some(), "{logged:?}");
}

#[test]
fn transitions_of_many_groups_share_the_reads_of_the_network() {
    let groups = (0..200).map(|n| run(&format!("g{n}"), "eth0", n, &[vip(n)])).collect();
    let names: Vec<String> = (0..200).map(|n| format!("g{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut harness = Harness::settled(config(&names), Groups { groups });
    harness.run(secs(30));
    let reads = |harness: &Harness, since| {
        let all = harness.done.iter().filter(|(when, action)| *when >= since && *action == Action::ReadNetwork);
        all.map(|(when, _)| since.until(*when).as_millis() as u64).collect::<Vec<_>>()
    };
    let begin = harness.now;
    let states: Vec<_> = names.iter().map(|name| (*name, NotifyState::Master)).collect();
    harness.all_become(&states);
    harness.run(ms(900));
    let together = reads(&harness, begin);
    assert!((1..=3).contains(&together.len()), "{together:?}");
    harness.run(secs(30));
    let begin = harness.now;
    for name in names {
        harness.backup(name);
        harness.run(ms(2));
    }
    harness.run(ms(500));
    let spread = reads(&harness, begin);
    assert!((2..=6).contains(&spread.len()), "{spread:?}");
    assert!(spread.last().is_some_and(|last| *last >= 400 + 198), "after the last one: {spread:?}");
}

#[test]
fn a_path_that_may_depend_on_nothing_is_no_obstacle() {
    let by_peer = path_to(ENDPOINTS[0], Some(OTHERS_ADDRESS), OWN);
    let independent = path_to(ENDPOINTS[1], Some(Ipv4Addr::new(10, 0, 0, 254)), OWN);
    for paths in [&[][..], &[None], &[by_peer, None], &[by_peer, independent], &[independent]] {
        let (_, verdict, reason) = with_paths(paths);
        assert_eq!((verdict, reason), (Verdict::StandbyReady, None), "{paths:?}");
    }
}

/// A master has other things to say, and nothing changes back and forth.
#[test]
fn a_path_that_depends_on_the_other_router_does_not_hold_back_a_master() {
    let (mut harness, ..) = with_paths(&[path_to(ENDPOINTS[0], Some(OTHERS_ADDRESS), OWN)]);
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(300));
    assert_eq!(shown(&harness), (Verdict::Ok, None));
    assert_eq!(harness.claim_times(begin).len(), 1);
    assert_eq!(readiness(&harness, begin), []);
}

#[test]
fn the_check_of_a_router_that_does_not_forward_drops_only_what_a_route_leads_to() {
    let with = || Interface { source_dest_check: Some(true), ..described(&[]) };
    for (forwards, verdicts) in [(Some(true), NOT_READY), (Some(false), READY), (None, READY)] {
        let mut harness = described_as(None, with());
        harness.network.forwards = forwards;
        harness.run(secs(60));
        assert_eq!(both(&harness).0, verdicts, "{forwards:?}");
    }
    for gets_route in [false, true] {
        assert_eq!(drops_packets(&with(), Some(false), gets_route), Some(gets_route));
        assert_eq!(drops_packets(&with(), None, gets_route), gets_route.then_some(true));
        assert_eq!(drops_packets(&described(&[]), Some(true), gets_route), Some(false));
    }
}

#[test]
fn the_source_destination_check_keeps_a_standby_from_being_ready() {
    let with = |check| Interface { source_dest_check: check, ..described(&[]) };
    let mut harness = described_as(None, with(None));
    assert_eq!(both(&harness), (READY, None), "unknown");
    let begin = harness.now;
    harness.ec2.interfaces.insert(eni(ETH0), with(Some(true)));
    harness.run(secs(60));
    let (verdicts, reason) = both(&harness);
    assert_eq!(verdicts, NOT_READY);
    let words = "the source/destination check is on for eni-0000000a, and EC2 drops packets that are not from or to its addresses";
    assert!(reason.as_ref().is_some_and(|reason| reason.starts_with(words)), "{reason:?}");
    assert_eq!(readiness(&harness, begin), [reason]);
    harness.ec2.interfaces.insert(eni(ETH0), with(Some(false)));
    harness.run(secs(60));
    assert_eq!(both(&harness), (READY, None));
    assert_eq!(readiness(&harness, begin).last(), Some(&None));
}

/// A standby's own ENI has none of the virtual addresses: it shows by its primary address.
#[test]
fn a_standby_whose_eni_went_elsewhere_is_not_ready() {
    let mut harness = described_as(None, described(&[]));
    let begin = harness.now;
    for (instance, words) in [
        (None, "eni-0000000a is attached to no instance, and traffic is lost"),
        (Some(SOMEBODY), "eni-0000000a is attached to i-0000000c, not to this instance i-0000000a"),
    ] {
        let instance = instance.map(|id| id.try_into().expect("an id"));
        harness.ec2.interfaces.insert(eni(ETH0), Interface { instance, ..described(&[]) });
        harness.run(secs(60));
        let (verdicts, reason) = both(&harness);
        assert!(verdicts == NOT_READY && reason.as_ref().is_some_and(|reason| reason.contains(words)), "{reason:?}");
    }
    harness.ec2.interfaces.insert(eni(ETH0), described(&[]));
    harness.run(secs(60));
    assert_eq!(both(&harness), (READY, None));
    assert_eq!(readiness(&harness, begin).len(), 3);
}

/// `network-interface-id` names an ENI that no interface of this router has, and that is no owner: only its id leads to it.
#[test]
fn a_configured_eni_is_described_by_its_id_once_and_then_by_its_address() {
    let group = GroupConfig { network_interface_id: Some(eni("eni-0000000f")), ..wanted("a") };
    let config = Config { groups: vec![group], ..Config::default() };
    let mut harness = Harness::new(config, Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
    let primary = Ipv4Addr::new(10, 0, 0, 9);
    let there = |instance: &str| Interface {
        instance: Some(instance.try_into().expect("an id")),
        primary: Some(primary),
        addresses: [primary].into(),
        ..described(&[])
    };
    harness.ec2.limit = Some(9);
    harness.ec2.interfaces.insert(eni("eni-0000000f"), there(SOMEBODY));
    harness.start_agent();
    harness.tell(Event::Instance(US.try_into().expect("an id")));
    harness.backup("a");
    harness.run(secs(10));
    let (verdict, reason) = shown(&harness);
    let words = "eni-0000000f is attached to i-0000000c, not to this instance i-0000000a";
    assert_eq!(verdict, Verdict::StandbyNotReady);
    assert!(reason.as_ref().is_some_and(|reason| reason.starts_with(words)), "{reason:?}");
    harness.ec2.interfaces.insert(eni("eni-0000000f"), there(US));
    harness.run(secs(60));
    assert_eq!(shown(&harness), (Verdict::StandbyReady, None));
    let inspected: Vec<Vec<EniId>> =
        inspections(&harness, BootInstant::default()).into_iter().map(|(.., enis)| enis).collect();
    assert_eq!(inspected, [[eni("eni-0000000f")]]);
}

#[test]
fn what_ec2_showed_of_an_eni_that_gets_no_resource_any_more_is_forgotten() {
    let mut harness = described_as(Some(9), described(&[]));
    assert!(harness.machine.enis.contains_key(&eni(ETH0)));
    let group = GroupConfig { network_interface_id: Some(eni("eni-0000000f")), ..wanted("a") };
    harness.tell(Event::Config(Config { groups: vec![group], ..Config::default() }));
    harness.run(secs(60));
    assert!(!harness.machine.enis.contains_key(&eni(ETH0)));
}

/// Groups `a` and `b` with an ENI each that `network-interface-id` names. EC2 has only these ENIs.
fn with_configured(enis: [&str; 2], interfaces: &[(&str, Interface)]) -> Harness {
    let groups = ["a", "b"]
        .iter()
        .zip(enis)
        .map(|(name, id)| GroupConfig { network_interface_id: Some(eni(id)), ..wanted(name) });
    let config = Config { groups: groups.collect(), ..Config::default() };
    let groups = vec![run("a", "eth0", 10, &[vip(1)]), run("b", "eth0", 11, &[vip(2)])];
    let mut harness = Harness::new(config, Groups { groups });
    harness.ec2.has_no_others = true;
    harness.ec2.interfaces.extend(interfaces.iter().map(|(id, interface)| (eni(id), interface.clone())));
    harness.start_agent();
    harness.tell(Event::Instance(US.try_into().expect("an id")));
    harness.backup("a");
    harness.backup("b");
    harness.run(secs(5));
    harness
}

const CONFIGURED: [&str; 2] = ["eni-0000000e", "eni-0000000f"];

/// An ENI of this instance with this primary address.
fn configured_eni(last: u8) -> Interface {
    let primary = Ipv4Addr::new(10, 0, 0, last);
    Interface { primary: Some(primary), addresses: [primary].into(), ..described(&[]) }
}

/// The verdict and the reason of the address of each group.
fn each(harness: &Harness) -> Vec<(Verdict, Option<String>)> {
    let groups = harness.machine.facts(harness.now).into_iter();
    let resources = groups.flat_map(|group| group.resources);
    let text = |reason: &_| reasons::reason(Kind::Address, reason, clock);
    resources.map(|resource| (resource.verdict, resource.reason.as_ref().map(text))).collect()
}

#[test]
fn an_eni_that_ec2_does_not_have_keeps_the_standby_of_its_groups_from_being_ready() {
    let [good, bad] = CONFIGURED;
    let mut harness = with_configured(CONFIGURED, &[(good, configured_eni(9))]);
    let not_ready = (Verdict::StandbyNotReady, Some(no_such_eni(bad)));
    assert_eq!(each(&harness), [(Verdict::StandbyReady, None), not_ready.clone()]);
    assert_eq!(readiness(&harness, BootInstant::default()), [Some(no_such_eni(bad))]);
    // It alone is looked up again, less and less often.
    let begin = harness.now;
    harness.run(secs(3 * 3_600));
    let inspected = inspections(&harness, begin);
    assert!((18..=30).contains(&inspected.len()), "{inspected:?}");
    assert!(inspected.iter().all(|(.., enis)| enis == &[eni(bad)]), "{inspected:?}");
    assert_eq!(each(&harness)[1], not_ready);
    assert_eq!(readiness(&harness, begin), [], "said once");
    harness.ec2.interfaces.insert(eni(bad), configured_eni(10));
    harness.run(secs(13 * 60));
    assert_eq!(each(&harness), vec![(Verdict::StandbyReady, None); 2]);
    assert_eq!(readiness(&harness, begin), [None]);
    let neither = with_configured(CONFIGURED, &[]);
    assert_eq!(each(&neither), CONFIGURED.map(|id| (Verdict::StandbyNotReady, Some(no_such_eni(id)))));
}

/// EC2 shows a new ENI only after some seconds.
#[test]
fn an_eni_that_ec2_has_only_just_made_becomes_ready_by_itself() {
    let [good, new] = CONFIGURED;
    let mut harness = with_configured(CONFIGURED, &[(good, configured_eni(9))]);
    assert_eq!(each(&harness)[1].0, Verdict::StandbyNotReady);
    harness.ec2.interfaces.insert(eni(new), configured_eni(10));
    harness.run(secs(12));
    assert_eq!(each(&harness), vec![(Verdict::StandbyReady, None); 2]);
}

#[test]
fn an_eni_that_is_detached_and_then_deleted_does_not_become_ready() {
    let [good, bad] = CONFIGURED;
    let interfaces = [(good, configured_eni(9)), (bad, configured_eni(10))];
    let mut harness = with_configured(CONFIGURED, &interfaces);
    assert_eq!(each(&harness), vec![(Verdict::StandbyReady, None); 2]);
    let begin = harness.now;
    harness.ec2.interfaces.insert(eni(bad), Interface { instance: None, ..configured_eni(10) });
    harness.run(secs(60));
    harness.ec2.interfaces.remove(&eni(bad));
    harness.run(secs(60));
    assert_eq!(each(&harness), [(Verdict::StandbyReady, None), (Verdict::StandbyNotReady, Some(no_such_eni(bad)))]);
    let logged = readiness(&harness, begin);
    let detached = logged[0].as_ref().is_some_and(|why| why.contains("is attached to no instance"));
    assert!(logged.len() == 2 && detached && logged[1] == Some(no_such_eni(bad)), "{logged:?}");
}

#[test]
fn enis_that_an_inspection_could_not_show_are_inspected_again_soon() {
    for (class, times) in [(ErrorClass::Transient, 2..=4), (ErrorClass::Denied, 1..=1)] {
        let mut harness = described_as(None, described(&[]));
        harness.ec2.inspections_fail = class;
        harness.ec2.interfaces.clear();
        let begin = harness.now;
        harness.run(secs(90));
        let inspected = inspections(&harness, begin);
        assert!(times.contains(&inspected.len()), "{class:?}: {inspected:?}");
        let eni_alone = |(_, wants_limit, enis): &(u64, bool, Vec<EniId>)| !wants_limit && *enis == [eni(ETH0)];
        assert!(inspected.iter().all(eni_alone), "the limit was refused, and is not due: {inspected:?}");
    }
}

/// IMDS may still show an interface that is gone.
#[test]
fn an_eni_that_imds_shows_and_ec2_does_not_have_is_not_ready() {
    let mut harness = described_as(Some(9), described(&[]));
    harness.ec2.has_no_others = true;
    let begin = harness.now;
    harness.ec2.interfaces.clear();
    harness.run(secs(60));
    let why = "EC2 has no eni-0000000a in this account and region: check `aws-vipa region`, the account of the credentials, \
               and which network interfaces are attached to this instance";
    assert_eq!(both(&harness), (NOT_READY, Some(why.to_owned())));
    // The regular read shows it again.
    harness.ec2.interfaces.insert(eni(ETH0), described(&[]));
    harness.run(secs(36));
    assert_eq!(both(&harness), (READY, None));
    assert_eq!(readiness(&harness, begin), [Some(why.to_owned()), None]);
}

/// A failure that may pass leaves what was known as it is.
#[test]
fn an_inspection_that_fails_says_nothing_of_an_eni() {
    let mut harness = described_as(Some(9), Interface { instance: None, ..described(&[]) });
    let begin = harness.now;
    assert_eq!(both(&harness).0, NOT_READY);
    let no_answer = || Inspection { limit: None, interfaces: Some(Err(error(ErrorClass::TimedOut))) };
    harness.ec2.interfaces.clear();
    harness.tell(Event::ReadNow);
    harness.run(harness.ec2.read_delay);
    assert_eq!(inspections(&harness, begin).len(), 1);
    harness.tell(Event::Inspected(no_answer()));
    assert_eq!(both(&harness).0, NOT_READY);
    assert_eq!(readiness(&harness, begin), []);
}

#[test]
fn an_address_that_aws_reserves_keeps_a_standby_from_being_ready() {
    let last = Ipv4Addr::new(10, 0, 255, 255);
    let harness = Harness::settled(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[last, vip(1)])] });
    let resources = harness.machine.facts(harness.now).remove(0).resources;
    let reserved = resources.iter().find(|r| r.resource == last.into()).expect("the address");
    let reason = reserved.reason.as_ref().map(|reason| reasons::reason(Kind::Address, reason, clock));
    assert_eq!(reserved.verdict, Verdict::StandbyNotReady);
    let words = "10.0.255.255 is reserved by AWS in 10.0.0.0/16: choose another address for the group";
    assert_eq!(reason.as_deref(), Some(words));
    let others = resources.iter().filter(|r| r.resource != last.into());
    assert!(others.into_iter().all(|r| r.verdict == Verdict::StandbyReady));
}

#[test]
fn a_standby_names_the_holder_of_an_address_that_no_router_of_the_group_has() {
    let mut harness = with_instances(None);
    let begin = harness.now;
    harness.give_to(vip(1), of(THIRD_PARTY, SOMEBODY));
    harness.run(secs(200));
    let (verdict, reason) = shown(&harness);
    assert_eq!(verdict, Verdict::StandbyReady, "a failover would take it");
    let held =
        format!("assigned to {THIRD_PARTY} of {SOMEBODY}, which is not one of the group's routers: a failover takes");
    assert!(reason.as_ref().is_some_and(|reason| reason.starts_with(&held)), "{reason:?}");
    let log_events = harness.log_events(begin).into_iter();
    let logged: Vec<_> =
        log_events.filter(|(_, log)| matches!(log, LogEvent::ForeignHolder { .. })).map(|(_, log)| log).collect();
    assert_eq!(
        logged,
        [LogEvent::ForeignHolder { resources: vec![vip(1).into()], by: of(THIRD_PARTY, SOMEBODY) }],
        "said once"
    );
    assert_eq!(readiness(&harness, begin), []);
    harness.give_to(vip(1), of(PEER, OTHER));
    harness.run(secs(60));
    assert_eq!(shown(&harness), (Verdict::StandbyReady, None));
}

#[test]
fn neither_a_master_nor_a_paused_standby_logs_a_holder() {
    let acts: [(&str, Act); 2] = [
        ("MASTER", |harness| harness.master("a")),
        ("paused", |harness| {
            let until = harness.now + secs(600);
            harness.tell(Event::Pause { group: group("a"), until });
        }),
    ];
    for (name, act) in acts {
        let mut harness = with_instances(None);
        act(&mut harness);
        harness.run(secs(100));
        let begin = harness.now;
        harness.give_to(vip(1), of(THIRD_PARTY, SOMEBODY));
        harness.run(secs(60));
        let log_events = harness.log_events(begin);
        assert!(!log_events.iter().any(|(_, log)| matches!(log, LogEvent::ForeignHolder { .. })), "{name}");
    }
}

/// The holder may be the other router.
#[test]
fn a_holder_is_no_third_party_while_the_other_router_is_not_known() {
    let unknown: [(&str, Act); 3] = [
        ("never shown", |harness| {
            harness.unassign(OTHERS_ADDRESS);
            harness.kill_agent();
            harness.start_agent();
            harness.tell(Event::Instance(US.try_into().expect("an id")));
            harness.backup("a");
        }),
        ("shown without its instance", |harness| harness.give_to(OTHERS_ADDRESS, owner(PEER))),
        ("not configured", |harness| {
            let mut groups = harness.groups.clone();
            groups.groups[0].peers.clear();
            harness.reload(groups);
        }),
    ];
    for (what, act) in unknown {
        let mut harness = with_instances(None);
        let begin = harness.now;
        act(&mut harness);
        harness.give_to(vip(1), of(THIRD_PARTY, SOMEBODY));
        harness.run(secs(200));
        assert_eq!(shown(&harness), (Verdict::StandbyReady, None), "{what}");
        assert!(
            !harness.log_events(begin).iter().any(|(_, log)| matches!(log, LogEvent::ForeignHolder { .. })),
            "{what}"
        );
    }
}

/// An address of another account in a shared VPC shows in no read.
#[test]
fn an_address_that_is_refused_while_it_has_no_owner_may_be_of_another_account() {
    let mut harness = with_instances(None);
    harness.unassign(vip(1));
    harness.run(secs(60));
    harness.ec2.bad = [vip(1).into()].into();
    harness.master("a");
    let hint = "in a shared VPC, one of another account may have it; ask the VPC's owner";
    for class in [ErrorClass::BadResource, ErrorClass::Refused] {
        harness.ec2.bad_class = class;
        harness.says("a", NotifyState::Master);
        harness.run(secs(2));
        let (verdict, reason) = shown(&harness);
        assert!(reason.as_ref().is_some_and(|reason| reason.contains(hint)), "{class:?}: {verdict} {reason:?}");
    }
    harness.ec2.bad_class = ErrorClass::Denied;
    harness.says("a", NotifyState::Master);
    harness.run(secs(2));
    assert!(shown(&harness).1.is_some_and(|reason| !reason.contains(hint)), "the reason is known");
}

#[test]
fn one_bad_address_leaves_the_others_of_its_group_ready() {
    let config = config(&["a"]);
    let mut harness = Harness::settled(config, Groups { groups: vec![run("a", "eth0", 10, &[vip(1), vip(2)])] });
    harness.give_to(vip(2), Owner { primary: true, ..owner(THIRD_PARTY) });
    harness.run(secs(60));
    let verdicts = harness.machine.facts(harness.now).remove(0).resources;
    let verdicts: Vec<Verdict> = verdicts.iter().map(|a| a.verdict).collect();
    assert_eq!(verdicts, [Verdict::StandbyReady, Verdict::StandbyNotReady]);
}

#[test]
fn a_read_that_is_asked_for_in_the_moment_in_which_another_ends_is_sent() {
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.tell(Event::ReadNow);
    harness.run(ms(19));
    harness.now = begin + harness.ec2.read_delay;
    harness.tell(Event::ReadNow);
    harness.run(ms(1));
    assert_eq!(harness.read_times(begin), [0, 20]);
}
