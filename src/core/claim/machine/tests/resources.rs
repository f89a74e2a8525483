//! B20 to B22: routes and Elastic IPs, together with the addresses of a group.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::harness::{
    ETH0, ETH1, Fault, Harness, PEER, THIRD_PARTY, clock, eni, error, group, ms, network_interface, run, secs, vip,
    wanted,
};
use crate::claim::machine::{Channel, ClaimInFlight};
use crate::claim::resource::Phase;
use crate::claim::{Action, BootInstant, ClaimId, ClaimRequest, DryRunRequest, Event, LogEvent};
use crate::keepalived::groups::Groups;
use crate::model::config::{Config, ElasticIpConfig, GroupConfig, RouteConfig};
use crate::model::credentials::CredentialsChange;
use crate::model::ec2::{ErrorClass, Interface, Taker};
use crate::model::ids::{AllocationId, RouteTableId};
use crate::model::resource::{Holder, Kind, NotTakeable, Prefix, Resource, Route};
use crate::model::verdict::Verdict;
use crate::report::live;

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn table(n: u32) -> RouteTableId {
    format!("rtb-{n:08x}").try_into().expect("a route table")
}

fn allocation(n: u32) -> AllocationId {
    format!("eipalloc-{n:08x}").try_into().expect("an allocation")
}

/// The default route of a table.
fn route(n: u32) -> Resource {
    Resource::Route(Route { table: table(n), destination: prefix("0.0.0.0/0") })
}

fn elastic_ip(n: u32) -> Resource {
    Resource::ElasticIp(allocation(n))
}

/// Group `a` with the default routes of tables 1 to `routes` and with Elastic IPs 1 to `elastic_ips`.
fn configured(routes: u32, elastic_ips: u32) -> GroupConfig {
    let mut group = wanted("a");
    if routes > 0 {
        let tables: BTreeSet<RouteTableId> = (1..=routes).map(table).collect();
        group.routes.push(RouteConfig { destination: prefix("0.0.0.0/0"), tables, interface: None });
    }
    group.elastic_ips = (1..=elastic_ips)
        .map(|n| ElasticIpConfig { allocation: allocation(n), private_address: None, interface: None })
        .collect();
    group
}

/// A standby that has read that the peer has everything.
fn standby(group: GroupConfig) -> Harness {
    let mut harness = before_the_first_read(group);
    harness.run(secs(10));
    harness.done.clear();
    harness
}

/// The same just before the agent starts.
fn before_the_first_read(group: GroupConfig) -> Harness {
    let config = Config { groups: vec![group], ..Config::default() };
    let mut harness = Harness::new(config, Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
    for route in &harness.config.groups[0].routes.clone() {
        for table in &route.tables {
            harness.give(Resource::Route(Route { table: table.clone(), destination: route.destination }), PEER);
        }
    }
    for elastic_ip in &harness.config.groups[0].elastic_ips.clone() {
        harness.associate(Resource::ElasticIp(elastic_ip.allocation.clone()), PEER, Ipv4Addr::new(10, 0, 0, 2));
    }
    harness.start_agent();
    harness.backup("a");
    harness
}

/// A master that has had everything for a while.
fn master(group: GroupConfig) -> Harness {
    let mut harness = standby(group);
    harness.master("a");
    harness.run(secs(100));
    harness.done.clear();
    harness
}

/// What was claimed since, one request each, and when.
fn claimed(harness: &Harness, since: BootInstant) -> Vec<(u64, Vec<Resource>)> {
    harness.requests_since(since).into_iter().map(|(when, request)| (when, request.resources())).collect()
}

fn times_of(harness: &Harness, since: BootInstant, kind: Kind) -> Vec<u64> {
    let of_kind = |(when, request): (u64, ClaimRequest)| (request.kind() == kind).then_some(when);
    harness.requests_since(since).into_iter().filter_map(of_kind).collect()
}

/// The verdicts of the routes and the Elastic IPs, with their reasons.
fn shown(harness: &Harness) -> Vec<(Verdict, Option<String>)> {
    let group = live::groups(harness.machine.facts(harness.now), clock).remove(0);
    let routes = group.routes.into_iter().map(|route| route.state);
    let all = routes.chain(group.elastic_ips.into_iter().map(|elastic_ip| elastic_ip.state));
    all.map(|state| (state.verdict, state.reason)).collect()
}

/// The addresses that are never assigned, and whether each is on its interface.
fn not_assigned(harness: &Harness) -> Vec<(Ipv4Addr, Option<bool>)> {
    let group = live::groups(harness.machine.facts(harness.now), clock).remove(0);
    assert!(group.addresses.is_empty(), "{:?}", group.addresses);
    group.not_assigned.into_iter().map(|address| (address.address, address.local)).collect()
}

// ── B20: routes and Elastic IPs behave as addresses do ──

#[test]
fn a_move_begins_with_all_kinds_at_once_and_the_addresses_first() {
    let mut harness = standby(configured(2, 2));
    let begin = harness.now;
    harness.master("a");
    let all = [vec![vip(1).into()], vec![route(1)], vec![elastic_ip(1)], vec![route(2)], vec![elastic_ip(2)]];
    assert_eq!(claimed(&harness, begin), all.map(|resources| (0, resources)));
    harness.run(secs(20));
    assert_eq!(harness.our_resources().len(), 5, "{:?}", harness.our_resources());
    assert_eq!(claimed(&harness, begin).len(), 5, "once each: {:?}", claimed(&harness, begin));
    assert_eq!(shown(&harness), vec![(Verdict::Ok, None); 4]);
}

#[test]
fn an_elastic_ip_goes_to_the_private_address_that_is_configured_or_to_the_primary_one() {
    let mut group = configured(0, 2);
    group.elastic_ips[1].private_address = Some(vip(1));
    let mut harness = standby(group);
    harness.master("a");
    harness.run(secs(1));
    let requests: Vec<ClaimRequest> = harness.requests_since(BootInstant::default()).into_iter().map(|r| r.1).collect();
    let request = |n, private_address| ClaimRequest::ElasticIp {
        allocation: allocation(n),
        eni: eni(ETH0),
        private_address: Some(private_address),
    };
    assert_eq!(requests[1..], [request(1, network_interface(ETH0).primary), request(2, vip(1))]);
    // Another address of the right ENI is a wrong association.
    harness.run(secs(100));
    let begin = harness.now;
    harness.associate(elastic_ip(2), ETH0, Ipv4Addr::new(10, 0, 0, 9));
    harness.run(secs(60));
    assert_eq!(claimed(&harness, begin).len(), 1, "{:?}", claimed(&harness, begin));
    assert_eq!(harness.ownership_loss_times(begin), [0_u64; 0], "nobody has taken it");
}

#[test]
fn a_group_without_addresses_is_known_to_be_master_by_its_address_all_the_same() {
    let mut harness = standby(GroupConfig { no_address: true, ..configured(1, 0) });
    let begin = harness.now;
    harness.master("a");
    assert_eq!(claimed(&harness, begin), [(0, vec![route(1)])]);
    harness.run(secs(60));
    assert_eq!(not_assigned(&harness), [(vip(1), Some(true))]);
    // A new agent has read no notify event.
    harness.kill_agent();
    harness.give(route(1), PEER);
    let begin = harness.now;
    harness.start_agent();
    harness.run(secs(10));
    assert_eq!(claimed(&harness, begin).len(), 1, "{:?}", claimed(&harness, begin));
    assert_eq!(harness.owner(route(1)), Some(ETH0));
    // Without the address on the interface, nothing is claimed.
    harness.kill_agent();
    harness.give(route(1), PEER);
    harness.backup("a");
    let begin = harness.now;
    harness.start_agent();
    harness.run(secs(120));
    assert_eq!(claimed(&harness, begin), []);
}

#[test]
fn an_overlay_address_is_moved_by_its_route_and_never_assigned() {
    let mut group = wanted("a");
    let destination = prefix("10.0.1.1/32");
    group.routes.push(RouteConfig { destination, tables: [table(1)].into(), interface: None });
    let mut harness = standby(group);
    let begin = harness.now;
    harness.master("a");
    let route = Resource::Route(Route { table: table(1), destination });
    assert_eq!(claimed(&harness, begin), [(0, vec![route])]);
    harness.run(secs(100));
    assert_eq!(shown(&harness), [(Verdict::Ok, None)]);
    assert_eq!(not_assigned(&harness), [(vip(1), Some(true))]);
    // Without the address the traffic that the route brings is lost.
    harness.local.clear();
    harness.look_around();
    harness.run(secs(4));
    let (verdict, reason) = shown(&harness).remove(0);
    assert_eq!(verdict, Verdict::Drift);
    assert!(reason.expect("a reason").contains("the group's address has not been on eth0"));
    assert_eq!(not_assigned(&harness), [(vip(1), Some(false))]);
}

#[test]
fn an_address_outside_the_subnet_without_a_route_to_it_is_not_ready() {
    let outside = Ipv4Addr::new(192, 0, 2, 1);
    let route = |destination: &str| RouteConfig {
        destination: prefix(destination),
        tables: [table(1)].into(),
        interface: None,
    };
    let verdicts = |config: GroupConfig| {
        let config = Config { groups: vec![config], ..Config::default() };
        let mut harness = Harness::settled(config, Groups { groups: vec![run("a", "eth0", 10, &[outside])] });
        harness.run(secs(40));
        let group = live::groups(harness.machine.facts(harness.now), clock).remove(0);
        let addresses = group.addresses.into_iter().map(|address| (address.verdict, address.reason));
        addresses.chain(shown(&harness)).collect::<Vec<_>>()
    };
    let not_ready = |(verdict, reason): &(Verdict, Option<String>)| {
        let names_it =
            reason.as_ref().is_some_and(|reason| reason.contains("192.0.2.1 is not in 10.0.0.0/16, the subnet"));
        *verdict == Verdict::StandbyNotReady && names_it
    };
    let group = |no_address, routes| GroupConfig { no_address, routes, ..configured(0, 1) };
    for (group, expected) in [
        (wanted("a"), [true].as_slice()),
        // An address that is assigned all the same, whatever leads to it.
        (GroupConfig { routes: vec![route("192.0.2.0/24")], ..wanted("a") }, &[true, false]),
        // Without an address to assign, what is moved with it is of no use.
        (group(true, vec![]), &[true]),
        (group(true, vec![route("198.51.100.0/24")]), &[true, true]),
        (group(true, vec![route("192.0.2.0/24")]), &[false, false]),
        (group(false, vec![route("192.0.2.1/32")]), &[false, false]),
    ] {
        let found = verdicts(group.clone());
        assert_eq!(found.iter().map(not_ready).collect::<Vec<_>>(), expected, "{group:?}: {found:#?}");
        let ready = found.iter().filter(|one| !not_ready(one)).all(|(verdict, _)| *verdict == Verdict::StandbyReady);
        assert!(ready, "{group:?}: {found:#?}");
    }
}

#[test]
fn nothing_is_claimed_after_backup_and_a_waiting_claim_is_dropped() {
    let mut harness = standby(configured(1, 1));
    harness.ec2.refuses = Some(ErrorClass::Throttled);
    harness.master("a");
    harness.run(secs(2));
    harness.backup("a");
    let begin = harness.now;
    harness.run(secs(120));
    assert_eq!(claimed(&harness, begin), []);
}

#[test]
fn a_route_that_a_third_party_takes_is_taken_back_after_two_reads_and_too_often_is_contested() {
    let mut harness = master(configured(1, 1));
    for (n, resource) in [route(1), elastic_ip(1)].into_iter().enumerate() {
        let begin = harness.now;
        match &resource {
            Resource::ElasticIp(_) => harness.associate(resource.clone(), THIRD_PARTY, Ipv4Addr::new(10, 0, 0, 7)),
            _ => harness.give(resource.clone(), THIRD_PARTY),
        }
        harness.run(secs(35));
        let lost = harness.log_events(begin).into_iter().filter_map(|(_, log)| match log {
            LogEvent::OwnershipLost { resource, by, taker, .. } => Some((resource, by.eni, taker)),
            _ => None,
        });
        assert_eq!(lost.collect::<Vec<_>>(), [(resource.clone(), eni(THIRD_PARTY), Taker::ThirdParty)], "{n}");
        assert_eq!(claimed(&harness, begin).len(), 1, "{:?}", claimed(&harness, begin));
        assert_eq!(harness.owner(resource), Some(ETH0));
    }
    for _ in 0..6 {
        harness.give(route(1), THIRD_PARTY);
        harness.run(secs(40));
    }
    assert_eq!(shown(&harness)[0].0, Verdict::Contested);
    assert_eq!(shown(&harness)[1].0, Verdict::Ok, "the other one is not concerned");
}

#[test]
fn what_the_configuration_no_longer_names_is_neither_read_nor_claimed() {
    for (after, kept, removed) in
        [(configured(1, 2), route(1), route(2)), (configured(2, 1), elastic_ip(1), elastic_ip(2))]
    {
        let mut harness = master(configured(2, 2));
        harness.config.groups[0] = after;
        harness.tell(Event::Config(harness.config.clone()));
        harness.run(secs(60));
        assert_eq!(harness.owner(removed.clone()), Some(ETH0), "it stays where it is");
        let begin = harness.now;
        match &removed {
            Resource::ElasticIp(_) => harness.associate(removed.clone(), THIRD_PARTY, Ipv4Addr::new(10, 0, 0, 7)),
            _ => harness.give(removed.clone(), THIRD_PARTY),
        }
        harness.run(secs(120));
        assert_eq!(claimed(&harness, begin), [], "{removed}");
        let reads = harness.reads_since(begin).into_iter().map(|(_, read)| read.resources());
        let reads: Vec<Vec<Resource>> = reads.filter(|read| read.contains(&kept) || read.contains(&removed)).collect();
        assert!(reads.len() >= 3 && reads.iter().all(|read| !read.contains(&removed)), "{removed}: {reads:?}");
        assert_eq!(harness.log_events(begin), [], "{removed}");
        assert_eq!(shown(&harness), vec![(Verdict::Ok, None); 3], "{removed}");
    }
}

#[test]
fn a_refused_route_does_not_hold_back_an_address() {
    let mut harness = standby(configured(1, 0));
    harness.ec2.bad = [route(1)].into();
    for class in [ErrorClass::Denied, ErrorClass::BadResource, ErrorClass::Throttled, ErrorClass::Transient] {
        harness.ec2.bad_class = class;
        let begin = harness.now;
        harness.master("a");
        harness.run(secs(20));
        assert_eq!(harness.claims_since(begin), [(0, vec![vip(1)])], "{class:?}");
        assert_eq!(harness.reported().map(|address| address.verdict), Some(Verdict::Ok), "{class:?}");
        assert_ne!(shown(&harness)[0].0, Verdict::Ok, "{class:?}");
        harness.give(vip(1), PEER);
        harness.backup("a");
        harness.run(secs(200));
    }
}

// ── B21 ──

#[test]
fn a_route_that_was_never_read_is_read_before_it_is_claimed() {
    let mut harness = before_the_first_read(configured(1, 0));
    harness.ec2.read_delay = ms(400);
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(5));
    let claims = claimed(&harness, begin);
    assert_eq!(claims[0].1, [vip(1).into()], "{claims:?}");
    let [when] = times_of(&harness, begin, Kind::Route)[..] else { panic!("{claims:?}") };
    assert!((100..800).contains(&when), "after the read: {claims:?}");
}

#[test]
fn a_route_that_cannot_be_read_is_never_claimed_and_an_elastic_ip_after_three_seconds() {
    for class in [ErrorClass::Denied, ErrorClass::Transient, ErrorClass::TimedOut] {
        let mut harness = before_the_first_read(configured(1, 1));
        harness.ec2.read_refuses = Some(class);
        let begin = harness.now;
        harness.master("a");
        harness.run(secs(300));
        assert_eq!(times_of(&harness, begin, Kind::Route), [0_u64; 0], "{class:?}");
        let associated = times_of(&harness, begin, Kind::ElasticIp);
        assert!(associated.first().is_some_and(|when| (3_000..3_200).contains(when)), "{class:?}: {associated:?}");
        let reads = harness.read_times(begin).len();
        assert!(reads <= 400, "{class:?}: {reads} reads in five minutes");
        if class != ErrorClass::Denied {
            assert!(reads >= 60, "{class:?}: {reads} reads in five minutes");
        }
        let (verdict, reason) = shown(&harness).remove(0);
        assert_ne!(verdict, Verdict::Ok);
        assert!(reason.expect("a reason").contains("ownership check failed"), "{class:?}");
        harness.ec2.read_refuses = None;
        harness.run(secs(70));
        assert_eq!(times_of(&harness, begin, Kind::Route).len(), 1, "{class:?}: once it can be read");
    }
}

#[test]
fn a_route_that_an_agent_which_starts_late_may_not_read_is_read_about_once_a_minute() {
    let mut harness = master(GroupConfig { no_address: true, ..configured(1, 0) });
    harness.kill_agent();
    harness.ec2.read_refuses = Some(ErrorClass::Denied);
    let begin = harness.now;
    harness.start_agent();
    harness.run(secs(300));
    assert!(matches!(harness.machine.resources[&route(1)].phase, Phase::CheckOwner { .. }));
    let reads = harness.reads_since(begin).into_iter().filter(|(_, read)| read.kind() == Kind::Route).count();
    // The regular ones among them.
    assert!((10..=20).contains(&reads), "{:?}", harness.read_times(begin));
}

#[test]
fn an_elastic_ip_that_cannot_be_read_is_claimed_again_only_while_keepalived_is_active() {
    let mut harness = before_the_first_read(configured(0, 1));
    harness.ec2.refuses = Some(ErrorClass::TimedOut);
    harness.ec2.read_refuses = Some(ErrorClass::TimedOut);
    harness.master("a");
    harness.run(secs(5));
    harness.child_frozen = true;
    harness.run(secs(3));
    let begin = harness.now;
    harness.run(secs(60));
    assert_eq!(times_of(&harness, begin, Kind::ElasticIp), [0_u64; 0]);
    harness.child_frozen = false;
    harness.run(secs(60));
    assert!(!times_of(&harness, begin, Kind::ElasticIp).is_empty(), "and goes on");
}

#[test]
fn a_route_that_leads_to_a_gateway_does_not_make_its_group_unknown() {
    let mut harness = standby(configured(1, 0));
    harness.show(route(1), Some(Holder::NotTakeable(NotTakeable::LeadsTo("igw-0000000a".to_owned()))));
    harness.run(secs(60));
    harness.master("a");
    harness.run(secs(60));
    let begin = harness.now;
    harness.child_frozen = true;
    harness.run(secs(5));
    harness.child_frozen = false;
    harness.run(secs(20));
    let logs = harness.done.iter().filter(|(when, _)| *when >= begin);
    let is_transition = |action: &&Action| matches!(action, Action::Log(LogEvent::Transition { .. }));
    assert_eq!(logs.map(|(_, action)| action).find(is_transition), None);
}

#[test]
fn a_route_that_leads_to_a_gateway_is_never_taken() {
    let gateway = NotTakeable::LeadsTo("igw-0000000a".to_owned());
    let mut harness = standby(configured(1, 0));
    harness.show(route(1), Some(Holder::NotTakeable(gateway.clone())));
    harness.run(secs(60));
    let (verdict, reason) = shown(&harness).remove(0);
    assert_eq!(verdict, Verdict::StandbyNotReady);
    assert!(reason.expect("a reason").contains("leads to igw-0000000a"));
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(300));
    assert_eq!(times_of(&harness, begin, Kind::Route), [0_u64; 0]);
    assert_eq!(shown(&harness)[0].0, Verdict::Drift);
    // An operator deletes it in EC2.
    harness.unassign(route(1));
    harness.run(secs(31));
    assert_eq!(times_of(&harness, begin, Kind::Route).len(), 1);
    assert_eq!(shown(&harness)[0].0, Verdict::Ok);
    // While this router has it, a third party makes it lead to the gateway.
    let begin = harness.now;
    harness.run(secs(60));
    harness.show(route(1), Some(Holder::NotTakeable(gateway.clone())));
    harness.run(secs(300));
    assert_eq!(times_of(&harness, begin, Kind::Route), [0_u64; 0]);
    let logged = harness.log_events(begin).into_iter().filter(|(_, log)| {
        *log == LogEvent::NotTakeable { group: group("a"), resource: route(1), why: gateway.clone() }
    });
    assert_eq!(logged.count(), 1);
}

/// EC2 refuses to create it, and a dry run does not show that: it answers only whether the call is allowed.
#[test]
fn a_route_within_the_vpc_s_ranges_is_not_ready_and_never_claimed() {
    let within = NotTakeable::WithinVpc(prefix("10.0.0.0/16"));
    let mut group = configured(1, 0);
    let destination = prefix("10.0.7.1/32");
    let inside = Resource::Route(Route { table: table(1), destination });
    group.routes.push(RouteConfig { destination, tables: [table(1)].into(), interface: None });
    let mut harness = standby(group);
    harness.show(inside.clone(), Some(Holder::NotTakeable(within.clone())));
    let begin = harness.now;
    harness.run(secs(60));
    assert_eq!(readiness(&harness, begin), [false]);
    let [ready, (verdict, reason)] = &shown(&harness)[..] else { panic!("{:?}", shown(&harness)) };
    assert_eq!((ready.0, *verdict), (Verdict::StandbyReady, Verdict::StandbyNotReady));
    let reason = reason.as_ref().expect("a reason");
    assert!(reason.contains("within 10.0.0.0/16, a range of the VPC"), "{reason}");
    harness.master("a");
    harness.run(secs(300));
    assert_eq!(claimed(&harness, begin), [(60_000, vec![vip(1).into()]), (60_000, vec![route(1)])]);
    assert_eq!(shown(&harness)[1].0, Verdict::Drift);
    // An operator takes it out of the configuration.
    harness.config.groups[0].routes.pop();
    harness.tell(Event::Config(harness.config.clone()));
    harness.run(secs(60));
    assert_eq!(shown(&harness), [(Verdict::Ok, None)]);
}

#[test]
fn an_association_that_is_right_is_not_repeated() {
    let mut harness = master(configured(0, 1));
    for _ in 0..5 {
        let begin = harness.now;
        harness.backup("a");
        harness.run(ms(300));
        harness.master("a");
        harness.run(secs(30));
        assert_eq!(times_of(&harness, begin, Kind::ElasticIp), [0_u64; 0]);
        assert_eq!(times_of(&harness, begin, Kind::Address), [300]);
        assert_eq!(shown(&harness), [(Verdict::Ok, None)]);
    }
    // What the peer took meanwhile is claimed as soon as that is read.
    let begin = harness.now;
    harness.backup("a");
    harness.associate(elastic_ip(1), PEER, Ipv4Addr::new(10, 0, 0, 2));
    harness.run(ms(300));
    harness.master("a");
    harness.run(secs(30));
    assert_eq!(times_of(&harness, begin, Kind::ElasticIp), [320]);
}

#[test]
fn an_association_that_is_right_counts_as_a_response() {
    let mut harness = master(GroupConfig { no_address: true, ..configured(0, 1) });
    harness.backup("a");
    harness.run(ms(300));
    let begin = harness.now;
    harness.master("a");
    let has_responses = |harness: &Harness, since| harness.machine.has_responses(&group("a"), since);
    assert!(!has_responses(&harness, begin), "not read yet");
    harness.run(ms(20));
    assert!(has_responses(&harness, begin) && has_responses(&harness, begin + ms(20)));
    assert!(!has_responses(&harness, begin + ms(21)));
    assert_eq!(claimed(&harness, begin), []);
}

/// IMDS and the kernel may answer later than EC2: before, a read cannot show whether this router has the resource.
#[test]
fn nothing_that_is_right_is_claimed_when_the_eni_is_known_after_the_read() {
    let restarted = || {
        let mut harness = master(configured(1, 1));
        harness.kill_agent();
        harness.imds = Err(ErrorClass::Transient);
        harness.start_agent();
        harness.run(secs(5));
        harness
    };
    let mut harness = restarted();
    let begin = harness.now;
    harness.imds = Ok(());
    harness.run(secs(30));
    assert_eq!(claimed(&harness, begin), []);
    assert_eq!(shown(&harness), vec![(Verdict::Ok, None); 2]);

    // After a notify event the address and the route are claimed in any case.
    let known_after_notify_event = |happens_before: fn(&mut Harness)| {
        let mut harness = restarted();
        harness.backup("a");
        happens_before(&mut harness);
        harness.run(ms(300));
        harness.master("a");
        harness.run(secs(5));
        let begin = harness.now;
        harness.imds = Ok(());
        harness.run(secs(30));
        (harness, begin)
    };
    let (harness, begin) = known_after_notify_event(|_| {});
    let all: Vec<Vec<Resource>> = claimed(&harness, begin).into_iter().map(|(_, resources)| resources).collect();
    assert_eq!(all, [vec![vip(1).into()], vec![route(1)]]);
    assert_eq!(shown(&harness), vec![(Verdict::Ok, None); 2]);

    // What the peer has is claimed, after a notify event as soon as the ENI is known.
    let (harness, begin) =
        known_after_notify_event(|harness| harness.associate(elastic_ip(1), PEER, Ipv4Addr::new(10, 0, 0, 2)));
    assert_eq!(times_of(&harness, begin, Kind::ElasticIp), times_of(&harness, begin, Kind::Address));
    let mut harness = restarted();
    harness.associate(elastic_ip(1), PEER, Ipv4Addr::new(10, 0, 0, 2));
    harness.give(route(1), PEER);
    harness.imds = Ok(());
    harness.run(secs(30));
    assert_eq!(harness.our_resources().len(), 3, "{:?}", harness.our_resources());
}

#[test]
fn an_association_whose_answer_was_lost_is_read_before_it_is_repeated() {
    for fault in [Fault::LandsUnanswered, Fault::LandsCutOff] {
        let mut harness = standby(GroupConfig { no_address: true, ..configured(0, 1) });
        harness.ec2.claims = vec![fault];
        let begin = harness.now;
        harness.master("a");
        harness.run(secs(60));
        assert_eq!(times_of(&harness, begin, Kind::ElasticIp), [0], "{fault:?}");
        assert_eq!(shown(&harness), [(Verdict::Ok, None)], "{fault:?}");
    }
}

#[test]
fn an_association_waits_for_its_private_address_and_is_repeated_soon_if_it_comes_too_early() {
    let mut group = configured(0, 1);
    group.elastic_ips[0].private_address = Some(vip(1));
    let mut harness = standby(group);
    harness.ec2.claim_delay = ms(200);
    harness.ec2.bad = [elastic_ip(1)].into();
    let begin = harness.now;
    harness.master("a");
    harness.run(ms(600));
    harness.ec2.bad.clear();
    harness.run(secs(3));
    let times = times_of(&harness, begin, Kind::ElasticIp);
    assert!(times.len() >= 2 && times[0] == 200 && (500..700).contains(&times[1]), "{times:?}");
    assert_eq!(harness.owner(elastic_ip(1)), Some(ETH0));
}

#[test]
fn an_elastic_ip_that_moves_along_with_its_address_is_not_associated_again() {
    let mut group = configured(0, 2);
    group.elastic_ips[0].private_address = Some(vip(1));
    let mut harness = standby(group);
    harness.ec2.claim_delay = ms(200);
    harness.associate(elastic_ip(1), PEER, vip(1));
    harness.run(secs(60));
    let begin = harness.now;
    harness.master("a");
    harness.run(ms(300));
    harness.associate(elastic_ip(1), ETH0, vip(1));
    harness.run(secs(60));
    let associated: Vec<Vec<Resource>> = claimed(&harness, begin).into_iter().map(|(_, resources)| resources).collect();
    assert_eq!(associated, [vec![vip(1).into()], vec![elastic_ip(2)]]);
    assert_eq!(shown(&harness), vec![(Verdict::Ok, None); 2]);
    // One that has not moved along is claimed.
    harness.backup("a");
    harness.give(vip(1), PEER);
    harness.associate(elastic_ip(1), PEER, vip(1));
    harness.run(secs(100));
    let begin = harness.now;
    harness.master("a");
    harness.run(ms(300));
    // A read that comes too early does not count.
    harness.tell(Event::ReadNow);
    harness.run(secs(10));
    let times = times_of(&harness, begin, Kind::ElasticIp);
    assert!(times.len() == 1 && times[0] >= 1_200 && times[0] < 5_000, "{times:?}");
    assert_eq!(harness.owner(elastic_ip(1)), Some(ETH0));
}

#[test]
fn a_stale_read_of_an_elastic_ip_does_not_suppress_its_claim_for_long_and_is_no_ownership_loss() {
    let mut harness = standby(GroupConfig { no_address: true, ..configured(0, 1) });
    harness.master("a");
    harness.run(secs(100));
    harness.backup("a");
    harness.associate(elastic_ip(1), PEER, Ipv4Addr::new(10, 0, 0, 2));
    harness.ec2.stale = secs(30);
    harness.run(secs(5));
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(100));
    let times = times_of(&harness, begin, Kind::ElasticIp);
    assert!(!times.is_empty() && times[0] <= 40_000, "{times:?}");
    assert_eq!(harness.ownership_loss_times(begin), [0_u64; 0]);
    assert_eq!(harness.owner(elastic_ip(1)), Some(ETH0));
    assert_eq!(shown(&harness), [(Verdict::Ok, None)]);
}

#[test]
fn routes_are_claimed_soon_after_ec2_has_recovered() {
    let mut harness = standby(configured(50, 0));
    harness.ec2.claim_delay = ms(300);
    harness.ec2.bad = (1..=50).map(route).collect();
    harness.ec2.bad_class = ErrorClass::Transient;
    harness.master("a");
    harness.run(secs(15));
    harness.ec2.bad.clear();
    let begin = harness.now;
    harness.run(secs(20));
    assert_eq!(harness.our_resources().len(), 51, "{:?}", times_of(&harness, begin, Kind::Route));
}

#[test]
fn calls_that_time_out_together_count_once() {
    let mut harness = standby(GroupConfig { no_address: true, ..configured(16, 0) });
    harness.ec2.claims = vec![Fault::Fails(ErrorClass::TimedOut); 16];
    harness.master("a");
    harness.run(secs(10));
    let timeouts = harness.done.iter().filter_map(|(_, action)| match action {
        Action::Claim { request: ClaimRequest::Route { .. }, timeout, .. } => Some(*timeout),
        _ => None,
    });
    let timeouts: BTreeSet<Duration> = timeouts.collect();
    assert_eq!(timeouts, [3, 6, 12].map(secs).into());
}

#[test]
fn elastic_ips_do_not_wait_for_routes() {
    let mut harness = standby(configured(50, 6));
    harness.ec2.claim_delay = ms(300);
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(20));
    let times = times_of(&harness, begin, Kind::ElasticIp);
    assert!(times.iter().filter(|at| **at == 0).count() >= 2 && times[5] <= 1_000, "{times:?}");
    // 7 calls' time for 50 routes, and one more for the Elastic IPs.
    let last = times_of(&harness, begin, Kind::Route).into_iter().max();
    assert!(last <= Some(7 * 300), "{last:?}");
}

// ── B22 and B25: a standby proves its permission by dry runs ──

/// What dry runs were sent for since, and when.
fn dry_runs(harness: &Harness, since: BootInstant) -> Vec<(u64, Resource)> {
    harness.dry_runs_since(since).into_iter().map(|(when, request)| (when, request.resource())).collect()
}

fn proven(harness: &Harness) -> Vec<bool> {
    let facts = harness.machine.facts(harness.now).remove(0);
    let others = facts.resources.iter().filter(|facts| facts.resource.kind() != Kind::Address);
    others.map(|facts| facts.permission_proven.is_some()).collect()
}

/// The readiness that was logged since.
fn readiness(harness: &Harness, since: BootInstant) -> Vec<bool> {
    let of = |(_, log)| match log {
        LogEvent::Readiness { obstacle, .. } => Some(obstacle.is_none()),
        _ => None,
    };
    harness.log_events(since).into_iter().filter_map(of).collect()
}

#[test]
fn a_standby_proves_its_permission_at_start_after_a_change_and_once_a_day() {
    let mut harness = before_the_first_read(configured(2, 2));
    let begin = harness.now;
    harness.run(secs(20));
    let all = BTreeSet::from([route(1), route(2), elastic_ip(1), elastic_ip(2)]);
    let sent = dry_runs(&harness, begin);
    assert_eq!(sent.iter().map(|(_, resource)| resource.clone()).collect::<BTreeSet<_>>(), all);
    assert_eq!(sent.len(), 4, "{sent:?}");
    assert!(sent.windows(2).all(|pair| pair[0].0 + 1_000 <= pair[1].0), "spread out: {sent:?}");
    assert_eq!(proven(&harness), [true; 4]);
    assert_eq!(claimed(&harness, begin), [], "a dry run is no claim");
    let facts = harness.machine.facts(harness.now).remove(0);
    assert!(facts.resources.iter().all(|facts| facts.last_claim.is_none() && facts.last_failure.is_none()));
    for change in [Event::Credentials(CredentialsChange::Others), Event::Config(harness.config.clone())] {
        let begin = harness.now;
        harness.tell(change);
        harness.run(secs(20));
        assert_eq!(dry_runs(&harness, begin).len(), 4);
    }
    let begin = harness.now;
    harness.run(secs(21 * 3_600));
    assert_eq!(dry_runs(&harness, begin), []);
    harness.run(secs(6 * 3_600));
    let sent = dry_runs(&harness, begin);
    assert_eq!((sent.len(), sent.into_iter().map(|(_, r)| r).collect::<BTreeSet<_>>()), (4, all));
}

#[test]
fn a_standby_whose_dry_run_is_refused_is_not_ready_until_one_succeeds() {
    for class in [ErrorClass::Denied, ErrorClass::BadResource, ErrorClass::NoSuchInterface, ErrorClass::Refused] {
        let mut harness = before_the_first_read(configured(3, 1));
        harness.ec2.dry_runs_fail = [(route(2), class), (route(3), class)].into();
        let begin = harness.now;
        harness.run(secs(20));
        let verdicts: Vec<Verdict> = shown(&harness).into_iter().map(|(verdict, _)| verdict).collect();
        let (ready, not_ready) = (Verdict::StandbyReady, Verdict::StandbyNotReady);
        assert_eq!(verdicts, [ready, not_ready, not_ready, ready], "{class:?}");
        assert_eq!(proven(&harness), [true, false, false, true]);
        let reason = shown(&harness)[1].1.clone().expect("a reason");
        let words = format!("refuse the claim, as a dry run has shown: {class:?}: ");
        assert!(reason.contains(&words), "{reason}");
        assert_eq!(shown(&harness)[2].1, Some(reason), "the status shows one text for all");
        assert_eq!(readiness(&harness, begin), [false], "{class:?}: once for all");
        // It is as ready as before for what the dry run does not concern, and a change of the IAM policy is seen.
        harness.ec2.dry_runs_fail.clear();
        harness.run(secs(11 * 60 + 10));
        assert_eq!(shown(&harness), vec![(ready, None); 4], "{class:?}");
        assert_eq!(readiness(&harness, begin), [false, true], "{class:?}");
        let repeated: Vec<u64> = dry_runs(&harness, begin).into_iter().skip(4).map(|(when, _)| when / 60_000).collect();
        assert!(repeated.len() == 2 && repeated.iter().all(|minute| (9..=11).contains(minute)), "{repeated:?}");
    }
}

/// EC2 names the resource in the message: only another code, or another kind of resource, is news.
#[test]
fn a_refused_dry_run_of_another_kind_is_logged_with_the_same_code_too() {
    let mut harness = before_the_first_read(configured(1, 1));
    harness.ec2.dry_runs_fail = [(route(1), ErrorClass::Denied), (elastic_ip(1), ErrorClass::Denied)].into();
    let begin = harness.now;
    harness.run(secs(20));
    assert_eq!(readiness(&harness, begin), [false], "once for both");
    let begin = harness.now;
    harness.ec2.dry_runs_fail.remove(&route(1));
    harness.run(secs(11 * 60 + 10));
    assert_eq!(proven(&harness), [true, false]);
    assert_eq!(readiness(&harness, begin), [false]);
}

#[test]
fn a_dry_run_that_ec2_does_not_decide_is_repeated_less_and_less_and_makes_no_standby_unready() {
    for class in [ErrorClass::TimedOut, ErrorClass::Throttled, ErrorClass::Transient, ErrorClass::Clock] {
        let mut harness = before_the_first_read(configured(1, 1));
        harness.ec2.dry_runs_fail = [(route(1), class), (elastic_ip(1), class)].into();
        let begin = harness.now;
        harness.run(secs(3_600));
        assert_eq!(shown(&harness), vec![(Verdict::StandbyReady, None); 2], "{class:?}");
        assert_eq!(readiness(&harness, begin), [false; 0], "{class:?}");
        assert_eq!(proven(&harness), [false; 2]);
        let sent = dry_runs(&harness, begin).len();
        assert!((16..=32).contains(&sent), "{class:?}: {sent} in an hour");
        harness.ec2.dry_runs_fail.clear();
        harness.run(secs(13 * 60));
        assert_eq!(proven(&harness), [true; 2], "{class:?}");
    }
}

#[test]
fn what_a_claim_would_not_take_and_what_cannot_be_read_needs_no_dry_run() {
    let mut harness = before_the_first_read(configured(2, 1));
    harness.show(route(1), Some(Holder::NotTakeable(NotTakeable::NoSuchTable)));
    harness.show(elastic_ip(1), Some(Holder::NotTakeable(NotTakeable::NoSuchAllocation)));
    let begin = harness.now;
    harness.run(secs(60));
    let sent: Vec<Resource> = dry_runs(&harness, begin).into_iter().map(|(_, resource)| resource).collect();
    assert_eq!(sent, [route(2)]);
    let (verdict, reason) = shown(&harness).remove(0);
    assert_eq!(verdict, Verdict::StandbyNotReady);
    assert!(reason.expect("a reason").contains("no such route table"));
    // As soon as a read shows the table.
    harness.give(route(1), PEER);
    let begin = harness.now;
    harness.run(secs(60));
    assert_eq!(dry_runs(&harness, begin).len(), 1);

    let mut harness = before_the_first_read(configured(1, 1));
    harness.ec2.read_refuses = Some(ErrorClass::Denied);
    let begin = harness.now;
    harness.run(secs(600));
    assert_eq!(dry_runs(&harness, begin), []);
}

#[test]
fn a_route_that_is_absent_needs_the_permission_to_create_it() {
    let creates = |harness: &Harness, since| -> Vec<bool> {
        let of = |(_, request)| match request {
            DryRunRequest::Route { creates, .. } => Some(creates),
            DryRunRequest::ElasticIp { .. } => None,
        };
        harness.dry_runs_since(since).into_iter().filter_map(of).collect()
    };
    let mut harness = before_the_first_read(configured(1, 0));
    for (holder, expected) in [
        (Some(Holder::Blackhole), &[false][..]),
        // It was deleted.
        (None, &[true]),
        // CreateRoute is proven.
        (Some(Holder::Blackhole), &[]),
        (None, &[]),
    ] {
        let begin = harness.now;
        harness.show(route(1), holder.clone());
        harness.run(secs(60));
        assert_eq!(creates(&harness, begin), expected, "{holder:?}");
        assert_eq!(proven(&harness), [true]);
        assert_eq!(shown(&harness), [(Verdict::StandbyReady, None)]);
    }
}

#[test]
fn a_dry_run_names_no_private_address_that_the_group_moves() {
    let mut group = configured(0, 2);
    group.elastic_ips[0].private_address = Some(vip(1));
    group.elastic_ips[1].private_address = Some(Ipv4Addr::new(10, 0, 0, 77));
    let mut harness = before_the_first_read(group);
    let begin = harness.now;
    harness.run(secs(20));
    let request =
        |n, private_address| DryRunRequest::ElasticIp { allocation: allocation(n), eni: eni(ETH0), private_address };
    let sent: Vec<DryRunRequest> = harness.dry_runs_since(begin).into_iter().map(|(_, request)| request).collect();
    assert_eq!(sent, [request(1, None), request(2, Some(Ipv4Addr::new(10, 0, 0, 77)))]);
}

/// The value differs between the routers, and a dry run does not show that the ENI lacks it.
#[test]
fn an_elastic_ip_for_a_private_address_that_the_eni_does_not_have_is_not_ready() {
    let unmoved = Ipv4Addr::new(10, 0, 0, 77);
    let mut group = configured(0, 4);
    for (n, address) in [unmoved, vip(1), vip(2)].into_iter().enumerate() {
        group.elastic_ips[n].private_address = Some(address);
    }
    let mut harness = before_the_first_read(group);
    // The address of a group that is disabled is not moved.
    let off = GroupConfig { disable: true, ..wanted("b") };
    harness.config.groups.push(off);
    harness.tell(Event::Config(harness.config.clone()));
    harness.reload(Groups { groups: vec![run("a", "eth0", 10, &[vip(1)]), run("b", "eth0", 11, &[vip(2)])] });
    let primary = network_interface(ETH0).primary;
    let mut interface = Interface {
        subnet: network_interface(ETH0).subnet,
        instance: None,
        source_dest_check: Some(false),
        primary: Some(primary),
        addresses: [primary].into(),
        prefixes: 0,
    };
    harness.ec2.interfaces.insert(eni(ETH0), interface.clone());
    let begin = harness.now;
    harness.run(secs(60));
    let (ready, not_ready) = (Verdict::StandbyReady, Verdict::StandbyNotReady);
    let verdicts = |harness: &Harness| shown(harness).into_iter().map(|(verdict, _)| verdict).collect::<Vec<_>>();
    assert_eq!(verdicts(&harness), [not_ready, ready, not_ready, ready], "{:#?}", shown(&harness));
    let reason = shown(&harness)[0].1.clone().expect("a reason");
    assert!(reason.contains("eni-0000000a does not have 10.0.0.77"), "{reason}");
    // An operator assigns one, and the other is moved.
    interface.addresses.insert(unmoved);
    harness.ec2.interfaces.insert(eni(ETH0), interface);
    harness.config.groups[1].disable = false;
    harness.tell(Event::Config(harness.config.clone()));
    harness.run(secs(60));
    assert_eq!(verdicts(&harness), [ready; 4], "{:#?}", shown(&harness));
    assert_eq!(readiness(&harness, begin), [false, true]);
    assert_eq!(claimed(&harness, begin), []);
}

#[test]
fn two_hundred_dry_runs_are_spread_out_and_give_way_to_claims() {
    let mut harness = before_the_first_read(configured(200, 0));
    let begin = harness.now;
    harness.run(secs(100));
    let sent = dry_runs(&harness, begin);
    assert!((95..=100).contains(&sent.len()), "one a second: {}", sent.len());
    let begin = harness.now;
    harness.master("a");
    assert_eq!(claimed(&harness, begin).len(), 1 + 8, "at once");
    harness.run(secs(40));
    assert_eq!(times_of(&harness, begin, Kind::Route).len(), 200);
    assert_eq!(dry_runs(&harness, begin), [], "a master needs none");
    assert_eq!(proven(&harness), [true; 200], "a claim is a proof");
    let begin = harness.now;
    harness.backup("a");
    harness.run(secs(3_600));
    assert_eq!(dry_runs(&harness, begin), []);
}

/// A token of routes is back after 0.2 seconds.
#[test]
fn a_dry_run_waits_until_the_tokens_that_claims_have_used_are_back() {
    let mut harness = standby(configured(10, 0));
    let begin = harness.now;
    harness.master("a");
    harness.run(ms(500));
    assert_eq!(times_of(&harness, begin, Kind::Route).len(), 10);
    harness.backup("a");
    let begin = harness.now;
    harness.tell(Event::Credentials(CredentialsChange::Others));
    harness.run(secs(20));
    assert_eq!(dry_runs(&harness, begin)[0].0, 1_500);
}

#[test]
fn a_claim_that_was_denied_is_no_obstacle_after_a_dry_run_that_succeeds() {
    let mut harness = standby(configured(1, 0));
    harness.ec2.bad = [route(1)].into();
    harness.ec2.bad_class = ErrorClass::Denied;
    harness.ec2.dry_runs_fail = [(route(1), ErrorClass::Denied)].into();
    harness.master("a");
    harness.run(secs(20));
    harness.backup("a");
    let begin = harness.now;
    harness.run(secs(20));
    let (verdict, reason) = shown(&harness).remove(0);
    assert_eq!(verdict, Verdict::StandbyNotReady);
    assert!(reason.expect("a reason").contains("as a dry run has shown"));
    harness.ec2.bad.clear();
    harness.ec2.dry_runs_fail.clear();
    harness.run(secs(12 * 60));
    assert_eq!(shown(&harness), [(Verdict::StandbyReady, None)]);
    assert_eq!(claimed(&harness, begin), []);
}

#[test]
fn a_claim_that_fails_after_backup_proves_no_permission() {
    let mut harness = before_the_first_read(configured(1, 1));
    harness.ec2.dry_runs_fail = [(route(1), ErrorClass::Denied), (elastic_ip(1), ErrorClass::Denied)].into();
    harness.run(secs(20));
    harness.ec2.refuses = Some(ErrorClass::Denied);
    harness.master("a");
    harness.backup("a");
    harness.run(secs(1));
    assert_eq!(proven(&harness), [false; 2]);
    harness.ec2.refuses = None;
    harness.master("a");
    harness.backup("a");
    harness.run(secs(1));
    assert_eq!(proven(&harness), [true; 2], "an acknowledged one does");
}

/// A standby whose last claim found the table full, and that its dry run allows.
fn with_full_table() -> Harness {
    let mut harness = standby(configured(1, 0));
    harness.unassign(route(1));
    harness.ec2.bad = [route(1)].into();
    harness.ec2.bad_code = Some("RouteLimitExceeded");
    harness.master("a");
    harness.run(secs(20));
    harness.backup("a");
    harness.run(secs(3_600));
    let (verdict, reason) = shown(&harness).remove(0);
    assert_eq!(verdict, Verdict::StandbyNotReady);
    let reason = reason.expect("a reason");
    assert!(reason.contains("RouteLimitExceeded") && reason.contains("or a day has passed"), "{reason}");
    harness
}

#[test]
fn a_table_that_was_full_is_no_obstacle_once_it_has_the_route() {
    let mut harness = with_full_table();
    let begin = harness.now;
    harness.give(route(1), PEER);
    harness.run(secs(60));
    assert_eq!(shown(&harness), [(Verdict::StandbyReady, None)]);
    assert_eq!(readiness(&harness, begin), [true]);
}

#[test]
fn a_table_that_was_full_is_no_obstacle_after_a_day() {
    let mut harness = with_full_table();
    let begin = harness.now;
    harness.run(secs(20 * 3_600));
    assert_eq!(shown(&harness)[0].0, Verdict::StandbyNotReady, "no dry run shows the room");
    harness.run(secs(8 * 3_600));
    assert_eq!(shown(&harness), [(Verdict::StandbyReady, None)]);
    assert_eq!(readiness(&harness, begin), [true]);
}

/// B25.
#[test]
fn the_answer_to_an_operator_s_dry_run_counts_at_once() {
    let mut harness = standby(configured(1, 0));
    let begin = harness.now;
    let Resource::Route(of) = route(1) else { unreachable!("a route") };
    let request = |eni_id, creates| DryRunRequest::Route { route: of.clone(), eni: eni(eni_id), creates };
    for outdated in [request(ETH1, false), request(ETH0, true)] {
        harness.tell(Event::DryRunByOperator { request: outdated, result: Err(error(ErrorClass::Denied)) });
        assert_eq!(shown(&harness)[0].0, Verdict::StandbyReady, "a claim would make other calls");
    }
    let answer = |result| Event::DryRunByOperator { request: request(ETH0, false), result };
    harness.tell(answer(Err(error(ErrorClass::Denied))));
    assert_eq!((shown(&harness)[0].0, proven(&harness)), (Verdict::StandbyNotReady, vec![false]));
    harness.tell(answer(Err(error(ErrorClass::Throttled))));
    assert_eq!(shown(&harness)[0].0, Verdict::StandbyNotReady, "EC2 did not decide it");
    harness.tell(answer(Ok(())));
    assert_eq!((shown(&harness)[0].0, proven(&harness)), (Verdict::StandbyReady, vec![true]));
    assert_eq!(readiness(&harness, begin), [false, true]);
    assert_eq!(dry_runs(&harness, begin), [], "it is not repeated");
}

/// B25.
#[test]
fn an_operator_can_have_proved_what_enabled_groups_move() {
    let mut harness = standby(configured(1, 1));
    let (enis, dry_runs) = harness.machine.to_prove();
    assert_eq!(enis, [eni(ETH0)].into());
    let resources: Vec<Resource> = dry_runs.iter().map(DryRunRequest::resource).collect();
    assert_eq!(resources, [route(1), elastic_ip(1)]);
    // Only while no claim is in flight, which has the right of way.
    assert!(!harness.machine.is_claiming());
    harness.master("a");
    assert!(harness.machine.is_claiming());
    harness.run(secs(10));
    assert!(!harness.machine.is_claiming());
    harness.config.groups[0].disable = true;
    harness.tell(Event::Config(harness.config.clone()));
    assert_eq!(harness.machine.to_prove(), (BTreeSet::new(), Vec::new()));
}

// ── Numbers to hold ──

#[test]
fn fifty_routes_move_within_eight_calls_time_and_never_more_than_eight_at_once() {
    let mut harness = standby(configured(50, 0));
    harness.ec2.claim_delay = ms(300);
    let begin = harness.now;
    harness.master("a");
    harness.run(ms(2_400));
    let times = times_of(&harness, begin, Kind::Route);
    assert_eq!(times.len(), 50, "{times:?}");
    assert_eq!(harness.our_resources().len(), 51);
    for when in &times {
        let at_once = times.iter().filter(|other| (*when..when + 300).contains(other)).count();
        assert!(at_once <= 8, "{at_once} in flight at {when}: {times:?}");
    }
    assert_eq!(harness.claims_since(begin), [(0, vec![vip(1)])]);
}

#[test]
fn two_hundred_routes_stay_within_ec2_s_token_bucket_and_move_nevertheless() {
    let mut harness = standby(configured(200, 0));
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(40));
    let times = times_of(&harness, begin, Kind::Route);
    assert_eq!((times.len(), harness.our_resources().len()), (200, 201), "{times:?}");
    for (n, when) in times.iter().enumerate() {
        let before = times[..n].iter().rev().take_while(|other| when - **other < 10_000).count();
        assert!(before < 50 + 50, "more than fifty and five a second before {when}");
    }
    assert!(times[199] <= 30_500, "{}", times[199]);
}

#[test]
fn claims_that_are_acknowledged_one_by_one_share_the_reads_that_verify_them() {
    let mut harness = standby(configured(200, 0));
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(31));
    let reads = harness.reads_since(begin).into_iter().filter(|(_, read)| read.kind() == Kind::Route);
    let times: Vec<u64> = reads.map(|(when, _)| when).collect();
    assert!((30..=33).contains(&times.len()), "one a second: {times:?}");
    // The last route was claimed after 30.2 s, and the first read that shows it follows in two seconds.
    harness.run(ms(1_300));
    assert_eq!(shown(&harness), vec![(Verdict::Ok, None); 200]);
}

/// At the default interval of 30 seconds.
#[test]
fn what_is_due_within_half_an_interval_is_read_together() {
    let kinds_read = |later: Duration| {
        let mut harness = master(configured(1, 0));
        let begin = harness.now;
        harness.machine.verifications[Kind::Address].due = Some(begin + later);
        harness.machine.verifications[Kind::Route].due = Some(begin);
        harness.tell(Event::Tick);
        harness.reads_since(begin).into_iter().map(|(_, read)| read.kind()).collect::<Vec<_>>()
    };
    assert_eq!(kinds_read(secs(15)), [Kind::Address, Kind::Route]);
    assert_eq!(kinds_read(secs(15) + ms(1)), [Kind::Route]);
}

#[test]
fn one_read_of_each_kind_in_an_interval() {
    let mut harness = master(configured(50, 20));
    let begin = harness.now;
    harness.run(secs(61));
    for kind in Kind::ALL {
        let reads = harness.reads_since(begin).into_iter().filter(|(_, read)| read.kind() == kind).count();
        assert_eq!(reads, 2, "{kind:?}");
    }
}

/// Puts claims of other routes in flight, which began then.
fn routes_in_flight(harness: &mut Harness, count: u32, began: BootInstant) {
    for n in 0..count {
        let route = Route { table: table(1_000 + n), destination: prefix("0.0.0.0/0") };
        let request = ClaimRequest::Route { route, eni: eni(ETH0) };
        let (channel, resources) = (Channel::of(Kind::Route, &eni(ETH0)), request.resources());
        let claim = ClaimInFlight { channel, request, began, resources };
        harness.machine.claims.insert(ClaimId(u64::MAX - u64::from(n)), claim);
    }
}

#[test]
fn routes_leave_two_of_eight_claims_to_elastic_ips_that_wait() {
    let sent = |in_flight: u32, elastic_ips: u32| {
        let mut harness = standby(GroupConfig { no_address: true, ..configured(1, elastic_ips) });
        let begin = harness.now;
        routes_in_flight(&mut harness, in_flight, begin);
        harness.master("a");
        times_of(&harness, begin, Kind::Route).len()
    };
    assert_eq!([sent(5, 1), sent(6, 1), sent(7, 0), sent(8, 0)], [1, 0, 1, 0]);
}

/// Those of before the notify event of a first attempt.
#[test]
fn at_most_sixteen_claims_are_in_flight_with_outdated_ones() {
    let sent = |outdated: u32| {
        let mut harness = standby(GroupConfig { no_address: true, ..configured(1, 0) });
        let begin = harness.now;
        routes_in_flight(&mut harness, outdated, begin - secs(1));
        harness.master("a");
        times_of(&harness, begin, Kind::Route).len()
    };
    assert_eq!([sent(15), sent(16)], [1, 0]);
}

#[test]
fn dead_requests_of_before_a_failover_do_not_block_the_next_one() {
    let mut harness = standby(GroupConfig { no_address: true, ..configured(8, 0) });
    harness.ec2.claims = vec![Fault::Fails(ErrorClass::TimedOut); 8];
    harness.master("a");
    harness.run(ms(500));
    harness.backup("a");
    harness.run(ms(100));
    let begin = harness.now;
    harness.master("a");
    assert_eq!(times_of(&harness, begin, Kind::Route), [0; 8]);
    harness.run(secs(20));
    assert_eq!(harness.our_resources().len(), 8);
    assert_eq!(shown(&harness), vec![(Verdict::Ok, None); 8]);
}

#[test]
fn routes_that_all_fail_are_not_retried_more_often_than_addresses_would_be() {
    let mut harness = standby(configured(50, 0));
    harness.ec2.bad = (1..=50).map(route).collect();
    harness.ec2.bad_class = ErrorClass::Transient;
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(3_600));
    let times = times_of(&harness, begin, Kind::Route);
    // Fifty first attempts and fifty first retries are free.
    assert!(times.len() <= 100 + 20 + 1_500, "{} in an hour", times.len());
    assert!(times.len() >= 1_000, "and go on: {}", times.len());
}

#[test]
fn a_standby_reads_routes_as_seldom_as_addresses() {
    let mut harness = standby(configured(1, 1));
    let begin = harness.now;
    harness.run(secs(300));
    for kind in Kind::ALL {
        let reads = harness.reads_since(begin).into_iter().filter(|(_, read)| read.kind() == kind).count();
        assert!((8..=13).contains(&reads), "{kind:?}: {reads}");
    }
    assert_eq!(shown(&harness), vec![(Verdict::StandbyReady, None); 2]);
}
