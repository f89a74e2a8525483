//! What happens at the exact instant of a bound.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::harness::{ETH0, Harness, PEER, THIRD_PARTY, eni, error, ms, network_interface, owner, secs, vip};
use crate::claim::machine::{Channel, ClaimInFlight, ReadInFlight};
use crate::claim::resource::{Mismatch, Phase, Precondition, ResourceState};
use crate::claim::{Action, BootInstant, Cause, ClaimId, ClaimRequest, Event, LogEvent, ReadId, ReadRequest};
use crate::model::config::ElasticIpConfig;
use crate::model::credentials::CredentialsChange;
use crate::model::ec2::ErrorClass;
use crate::model::ids::AllocationId;
use crate::model::resource::{Holder, Kind, Resource, Route};
use crate::model::verdict::Verdict;
use crate::model::vrrp::VrrpState;

const VERIFIED: Phase = Phase::Assigned { verified: true, mismatch: None };

fn address(harness: &mut Harness) -> &mut ResourceState {
    harness.machine.resources.get_mut(&vip(1).into()).expect("the address")
}

/// Ends a read that began at `began`, and returns the phase of the address.
fn phase_after_read(harness: &mut Harness, began: BootInstant, result: Result<&str, ErrorClass>) -> Phase {
    let id = ReadId(u64::MAX);
    let (resources, enis) = (vec![vip(1).into()], Vec::new());
    let read = ReadInFlight { began, kind: Kind::Address, resources, enis, is_periodic: false };
    harness.machine.reads.insert(id, read);
    let owners = |id: &str| BTreeMap::from([(vip(1).into(), Holder::Eni(owner(id)))]).into();
    harness.machine.read(harness.now, id, result.map(owners).map_err(error));
    address(harness).phase.clone()
}

#[test]
fn a_list_of_local_addresses_that_does_not_come_is_requested_again_after_exactly_a_second() {
    let mut harness = Harness::held();
    let now = harness.now;
    harness.machine.local_read_requested = Some(now);
    assert_eq!(harness.machine.next_deadline(now), Some(now + secs(1)));
}

#[test]
fn a_claim_that_waits_for_a_list_of_local_addresses_requests_it_again_after_exactly_a_second() {
    let requested = |age: Duration| {
        let mut harness = Harness::held();
        let now = harness.now;
        address(&mut harness).claim_now(now);
        let precondition = Precondition { liveness_after: now - secs(1), local_read: None };
        address(&mut harness).attempt.precondition = Some(precondition);
        harness.machine.liveness = Some(now);
        harness.machine.local_read_requested = Some(now - age);
        harness.tell(Event::Tick);
        harness.done.iter().any(|(_, action)| *action == Action::ReadLocalAddresses)
    };
    assert_eq!([requested(secs(1) - ms(1)), requested(secs(1))], [false, true]);
}

/// What EC2 did not decide is retried with the back-off that it has.
#[test]
fn other_credentials_bring_forward_what_was_refused_and_nothing_else() {
    let due_after = |permanent: Option<ErrorClass>| {
        let mut harness = Harness::held();
        let now = harness.now;
        address(&mut harness).phase = Phase::Pending { due: now + secs(2) };
        address(&mut harness).rejection.permanent = permanent.map(error);
        harness.machine.credentials_changed(now, CredentialsChange::Others);
        address(&mut harness).phase.due().map(|due| now.until(due))
    };
    assert_eq!(due_after(None), Some(secs(2)));
    assert_eq!(due_after(Some(ErrorClass::Denied)), Some(secs(0)));
}

/// A standby's own ENI is described with the periodic reads only.
#[test]
fn a_read_after_a_claim_names_the_peer_only_until_its_owner_is_known() {
    let peer = Ipv4Addr::new(10, 0, 0, 2);
    let read_after_claim = |is_known: bool| {
        let mut harness = Harness::one();
        if is_known {
            harness.give_to(peer, owner(PEER));
        }
        harness.tell(Event::ReadNow);
        harness.run(secs(1));
        let begin = harness.now;
        harness.master("a");
        harness.run(secs(5));
        harness.reads_since(begin).remove(0).1
    };
    let vpc = || network_interface(ETH0).vpc;
    let read = |addresses: Vec<Ipv4Addr>| ReadRequest::Addresses { vpc: vpc(), addresses, enis: Vec::new() };
    assert_eq!(read_after_claim(false), read(vec![peer, vip(1)]));
    assert_eq!(read_after_claim(true), read(vec![vip(1)]));
}

#[test]
fn a_periodic_read_waits_for_the_one_of_its_kind_alone() {
    let is_sent = |in_flight: Kind| {
        let mut harness = Harness::held();
        let now = harness.now;
        let read = ReadInFlight { began: now, kind: in_flight, resources: vec![], enis: vec![], is_periodic: true };
        harness.machine.reads.insert(ReadId(u64::MAX), read);
        harness.machine.verifications[Kind::Address].due = Some(now);
        harness.tell(Event::Tick);
        !harness.reads_since(now).is_empty()
    };
    assert_eq!([is_sent(Kind::Address), is_sent(Kind::Route)], [false, true]);
}

/// Reads of addresses, and those that decide on a claim, wait for no other read.
#[test]
fn only_reads_that_verify_claims_of_routes_are_a_second_apart() {
    let next_read = |id: Resource, phase: Phase| {
        let mut harness = Harness::held();
        let now = harness.now;
        for kind in Kind::ALL {
            harness.machine.verifications[kind].began = Some(now - ms(100));
        }
        let mut resource = harness.machine.resources.remove(&vip(1).into()).expect("the address");
        resource.checks.reads = [now].into();
        resource.phase = phase;
        now.until(harness.machine.next_read(&id, &resource).expect("a read"))
    };
    let route = || {
        let destination = "0.0.0.0/0".parse().expect("a prefix");
        Resource::Route(Route { table: "rtb-00000001".to_owned().try_into().expect("a table"), destination })
    };
    let undecided = || Phase::CheckOwner { since: BootInstant::default() };
    assert_eq!(next_read(route(), VERIFIED), ms(900));
    assert_eq!(next_read(route(), undecided()), ms(0));
    assert_eq!(next_read(vip(1).into(), VERIFIED), ms(0));
}

/// The address is in CheckOwner, and a claim of that age is in flight from before.
fn with_outdated_claim(age: Duration) -> Harness {
    let mut harness = Harness::held();
    let now = harness.now;
    address(&mut harness).phase = Phase::CheckOwner { since: now - ms(20) };
    let request = ClaimRequest::Addresses { eni: eni(ETH0), addresses: vec![vip(1)] };
    let (channel, resources) = (Channel::Addresses(eni(ETH0)), request.resources());
    let claim = ClaimInFlight { channel, request, began: now - age, resources };
    harness.machine.claims.insert(ClaimId(u64::MAX), claim);
    harness
}

/// In CheckOwner, a claim in flight from before makes reads meaningless for three seconds.
#[test]
fn an_outdated_claim_in_flight_no_longer_delays_the_owner_check_after_exactly_three_seconds() {
    let phase_with_claim = |age: Duration| {
        let mut harness = with_outdated_claim(age);
        let began = harness.now - ms(10);
        phase_after_read(&mut harness, began, Ok(ETH0))
    };
    assert!(matches!(phase_with_claim(secs(3) - ms(1)), Phase::CheckOwner { .. }));
    assert_eq!(phase_with_claim(secs(3)), VERIFIED);
}

#[test]
fn a_read_that_began_before_an_outdated_claim_ended_does_not_check_the_owner() {
    let mut harness = with_outdated_claim(secs(1));
    let now = harness.now;
    harness.machine.claimed(now, ClaimId(u64::MAX), Err(error(ErrorClass::Transient)));
    assert_eq!(phase_after_read(&mut harness, now - ms(1), Ok(ETH0)), Phase::CheckOwner { since: now });
    assert_eq!(*address(&mut harness).checks.reads, [now]);
    assert_eq!(phase_after_read(&mut harness, now, Ok(ETH0)), VERIFIED);
}

#[test]
fn a_refused_association_is_permanent_from_exactly_a_minute_after_its_private_address_was_claimed_on() {
    let is_permanent = |age: Duration| {
        let mut harness = Harness::held();
        let (allocation, private_address) = (AllocationId::try_from("eipalloc-00000001").expect("an id"), Some(vip(1)));
        let elastic_ip = ElasticIpConfig { allocation: allocation.clone(), private_address, interface: None };
        harness.config.groups[0].elastic_ips.push(elastic_ip);
        harness.tell(Event::Config(harness.config.clone()));
        harness.run(secs(60));
        let now = harness.now;
        let last_claim = address(&mut harness).last_claim.as_mut().expect("a claim");
        last_claim.answer.as_mut().expect("an answer").0 = now - age;
        let request = ClaimRequest::ElasticIp { allocation, eni: eni(ETH0), private_address };
        let resources = request.resources();
        let claim = ClaimInFlight { channel: Channel::ElasticIps, request, began: now, resources: resources.clone() };
        harness.machine.claim_failed(now, &claim, &resources, &error(ErrorClass::BadResource));
        harness.machine.resources[&resources[0]].rejection.permanent.is_some()
    };
    assert!(!is_permanent(secs(60) - ms(1)));
    assert!(is_permanent(secs(60)));
}

#[test]
fn of_two_reads_that_began_at_the_same_instant_the_later_response_counts() {
    let mut harness = Harness::held();
    let began = harness.now - ms(10);
    assert_eq!(phase_after_read(&mut harness, began, Ok(ETH0)), VERIFIED);
    let phase = phase_after_read(&mut harness, began, Ok(THIRD_PARTY));
    assert!(matches!(phase, Phase::Assigned { mismatch: Some(_), .. }), "{phase:?}");
    let phase = phase_after_read(&mut harness, began - ms(1), Ok(ETH0));
    assert!(matches!(phase, Phase::Assigned { mismatch: Some(_), .. }), "an earlier read: {phase:?}");
}

#[test]
fn a_read_that_began_exactly_a_second_after_the_mismatch_is_a_recheck() {
    let phase_after_recheck = |delay: Duration| {
        let mut harness = Harness::held();
        let began = harness.now - ms(10);
        let mismatch = Mismatch { since: began - delay, owner: Some(owner(THIRD_PARTY)), failed: 0 };
        address(&mut harness).phase = Phase::Assigned { verified: true, mismatch: Some(mismatch) };
        phase_after_read(&mut harness, began, Ok(THIRD_PARTY))
    };
    assert!(matches!(phase_after_recheck(secs(1) - ms(1)), Phase::Assigned { mismatch: Some(_), .. }));
    assert!(matches!(phase_after_recheck(secs(1)), Phase::Pending { .. }));
}

#[test]
fn a_failed_recheck_adds_no_read_where_one_is_due_at_the_same_instant() {
    let reads_after_failure = |later: Duration| {
        let mut harness = Harness::held();
        let now = harness.now;
        let interval = harness.machine.config.global.verify_interval.duration();
        // After so many failures the delay is the whole interval.
        let mismatch = Mismatch { since: now - secs(600), owner: Some(owner(THIRD_PARTY)), failed: 8 };
        address(&mut harness).phase = Phase::Assigned { verified: true, mismatch: Some(mismatch) };
        address(&mut harness).checks.reads = [now + interval + later].into();
        phase_after_read(&mut harness, now - ms(10), Err(ErrorClass::Transient));
        address(&mut harness).checks.reads.len()
    };
    assert_eq!(reads_after_failure(Duration::ZERO), 1);
    assert_eq!(reads_after_failure(ms(1)), 2);
}

/// At an advertisement interval of one second, liveness may be three seconds old for a retry.
#[test]
fn a_retry_shares_no_request_once_liveness_is_exactly_too_old() {
    let piggybacked = |age: Duration| {
        let mut harness = Harness::held();
        let now = harness.now;
        address(&mut harness).phase = Phase::Pending { due: now + secs(1) };
        address(&mut harness).attempt.failed = 1;
        harness.machine.liveness = Some(now - age);
        harness.machine.piggybacked(now, &eni(ETH0))
    };
    assert_eq!(piggybacked(secs(3) - ms(1)), [vip(1).into()]);
    assert!(piggybacked(secs(3)).is_empty());
}

#[test]
fn a_retry_that_the_rate_limit_delays_ends_at_the_instant_at_which_liveness_is_too_old() {
    let mut harness = Harness::held();
    harness.child_frozen = true;
    let begin = harness.now;
    for _ in 0..40 {
        harness.machine.channel(&Channel::Addresses(eni(ETH0))).rate_limiter.take(begin, true);
    }
    address(&mut harness).claim_now(begin);
    address(&mut harness).attempt.failed = 2;
    harness.machine.liveness = Some(begin);
    harness.tell(Event::Tick);
    harness.run(secs(10));
    let ended = |(when, log)| match log {
        LogEvent::Transition { to, cause, .. } => Some((when, to, cause)),
        _ => None,
    };
    let ended: Vec<_> = harness.log_events(begin).into_iter().filter_map(ended).collect();
    assert_eq!(ended, [(3_000, VrrpState::Unknown, Cause::NoLiveness)]);
}

/// At the default interval of 30 seconds and the default timeout of three.
#[test]
fn a_verification_confirms_the_owner_for_exactly_twice_the_interval_and_the_timeout() {
    let mut harness = Harness::held();
    harness.ec2.read_refuses = Some(ErrorClass::Denied);
    let read = address(&mut harness).owner_read.as_ref().expect("a read").at;
    harness.run(harness.now.until(read + secs(66)));
    assert_eq!(harness.reported().map(|address| address.verdict), Some(Verdict::Ok));
    harness.run(ms(1));
    assert_eq!(harness.reported().map(|address| address.verdict), Some(Verdict::Unknown));
}

#[test]
fn the_rate_limit_of_an_eni_without_addresses_is_kept_while_it_is_in_use() {
    let mut harness = Harness::held();
    let (now, other) = (harness.now, Channel::Addresses(eni("eni-0000000e")));
    harness.machine.channel(&other).rate_limiter.take(now, false);
    harness.tell(Event::ReadNow);
    assert!(harness.machine.channels.contains_key(&other));
    harness.run(secs(3));
    harness.tell(Event::ReadNow);
    assert!(!harness.machine.channels.contains_key(&other));
    assert!(harness.machine.channels.contains_key(&Channel::Addresses(eni(ETH0))), "it has an address");
}
