//! B11: what a standby does to be able to take over.

use std::net::Ipv4Addr;

use super::world::{Act, ETH0, PEER, THIEF, World, clock, config, eni, ms, owner, run, secs, vip, wanted};
use crate::claim::{Event, Moment, Note};
use crate::keepalived::groups::Groups;
use crate::model::config::{Config, GroupConfig};
use crate::model::ec2::{ErrorClass, Owner};
use crate::model::vrrp::NotifyState;
use crate::report::model::{Verdict, Who};

fn gaps(world: &World, since: Moment) -> Vec<u64> {
    world.read_times(since).windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn readiness(world: &World, since: Moment) -> Vec<Option<String>> {
    let notes = world.notes(since).into_iter();
    notes.filter_map(|(_, n)| if let Note::Readiness { obstacle, .. } = n { Some(obstacle) } else { None }).collect()
}

fn with_interval(seconds: u16) -> World {
    let mut world = World::one();
    world.config.global.verify_interval = seconds.try_into().expect("an interval");
    world.tell(Event::Config(world.config.clone()));
    world.run(secs(1));
    world
}

#[test]
fn a_standby_reads_once_per_interval_with_jitter() {
    let mut world = with_interval(30);
    let begin = world.now;
    world.run(secs(3_600));
    let gaps = gaps(&world, begin);
    assert!(gaps.iter().all(|gap| (24_000..=36_100).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().max() > gaps.iter().min(), "jitter: {gaps:?}");
    assert!((100..=150).contains(&gaps.len()), "{}", gaps.len());
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
}

#[test]
fn a_standby_never_reads_more_than_once_in_fifteen_seconds() {
    for interval in [5, 15] {
        let mut world = with_interval(interval);
        let begin = world.now;
        world.run(secs(1_800));
        let gaps = gaps(&world, begin);
        assert!(gaps.iter().all(|gap| (15_000..=18_100).contains(gap)), "{interval}: {gaps:?}");
    }
    // A master goes by the interval alone.
    let mut world = with_interval(5);
    world.master("a");
    world.run(secs(60));
    let begin = world.now;
    world.run(secs(60));
    assert!(gaps(&world, begin).iter().all(|gap| *gap == 5_020), "{:?}", gaps(&world, begin));
}

#[test]
fn the_interval_doubles_while_ec2_says_too_many_requests() {
    let mut world = with_interval(30);
    world.ec2.read_refuses = Some(ErrorClass::Throttled);
    let begin = world.now;
    world.run(secs(3_000));
    let throttled = gaps(&world, begin);
    for (n, gap) in throttled.iter().enumerate() {
        let mean = 30_000 << (n + 1).min(4);
        assert!((mean * 8 / 10..=mean * 12 / 10 + 100).contains(gap), "{n} of {throttled:?}");
    }
    assert!(throttled.len() >= 5, "{throttled:?}");
    world.ec2.read_refuses = None;
    world.run(secs(600));
    let begin = world.now;
    world.run(secs(600));
    assert!(gaps(&world, begin).iter().all(|gap| *gap <= 36_100), "{:?}", gaps(&world, begin));
}

#[test]
fn other_errors_do_not_slow_a_standby_down() {
    let mut world = with_interval(30);
    world.ec2.read_refuses = Some(ErrorClass::Denied);
    let begin = world.now;
    world.run(secs(600));
    assert!(gaps(&world, begin).iter().all(|gap| *gap <= 36_100), "{:?}", gaps(&world, begin));
}

#[test]
fn one_read_serves_all_groups_and_the_peers() {
    let groups = (0..40).map(|n| run(&format!("g{n}"), "eth0", n, &[vip(n)])).collect();
    let names: Vec<String> = (0..40).map(|n| format!("g{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::settled(config(&names), Groups { groups });
    let begin = world.now;
    world.run(secs(40));
    assert_eq!(world.read_times(begin).len(), 1, "{:?}", world.read_times(begin));
    let addresses = world.done.iter().find_map(|(_, action)| match action {
        crate::claim::Action::Read { addresses, .. } => Some(addresses.len()),
        _ => None,
    });
    assert_eq!(addresses, Some(41), "forty, and that of the other router");
}

#[test]
fn a_standby_that_could_not_take_over_says_so_once_and_says_when_it_can_again() {
    let mut world = World::one();
    let begin = world.now;
    world.run(secs(100));
    assert_eq!(readiness(&world, begin), [], "that all is well is nothing new");
    world.ec2.read_refuses = Some(ErrorClass::Denied);
    world.run(secs(200));
    let said = readiness(&world, begin);
    assert!(said.len() == 1 && said[0].as_ref().is_some_and(|why| why.contains("IAM policy")), "{said:?}");
    world.ec2.read_refuses = None;
    world.run(secs(100));
    assert_eq!(readiness(&world, begin).last(), Some(&None));
    let begin = world.now;
    world.tell(Event::Writer(false));
    world.run(ms(1));
    world.tell(Event::Writer(true));
    assert_eq!(readiness(&world, begin), [], "a reload is nothing to speak of");
}

#[test]
fn a_refusal_before_it_stood_by_counts_until_something_has_changed() {
    let mut world = World::one();
    world.ec2.refuses = Some(ErrorClass::Denied);
    world.master("a");
    world.run(secs(5));
    let begin = world.now;
    world.backup("a");
    world.run(secs(60));
    let said = readiness(&world, begin);
    assert!(said.len() == 1 && said[0].as_ref().is_some_and(|why| why.contains("the last claim from here failed")));
    world.ec2.refuses = None;
    world.tell(Event::Credentials);
    world.run(secs(60));
    assert_eq!(readiness(&world, begin).last(), Some(&None), "there are other credentials");
}

#[test]
fn an_eni_that_is_not_known_keeps_a_standby_from_being_ready() {
    let mut world = World::new(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
    world.imds = Err(ErrorClass::Transient);
    let begin = world.now;
    world.start_agent();
    world.becomes("a", NotifyState::Backup);
    world.run(secs(10));
    let said = readiness(&world, begin);
    assert!(said.len() == 1 && said[0].as_ref().is_some_and(|why| why.contains("eth0")), "{said:?}");
    world.imds = Ok(());
    world.run(secs(10));
    assert_eq!(readiness(&world, begin).last(), Some(&None));
}

#[test]
fn flapping_does_not_make_a_standby_read_more_often() {
    let mut world = with_interval(30);
    let begin = world.now;
    for _ in 0..100 {
        world.backup("a");
        world.run(ms(100));
    }
    assert!(world.read_times(begin).len() <= 1, "{:?}", world.read_times(begin));
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
fn with_instances(configured: Option<&str>) -> World {
    let group = GroupConfig { network_interface_id: configured.map(eni), ..wanted("a") };
    let config = Config { groups: vec![group], ..Config::default() };
    let mut world = World::new(config, Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
    world.instances = [(ETH0, US), (PEER, OTHER)].map(|(id, at)| (eni(id), at.try_into().expect("an id"))).into();
    world.give_to(OTHERS_ADDRESS, Owner { primary: true, ..of(PEER, OTHER) });
    world.give_to(vip(1), of(PEER, OTHER));
    world.start_agent();
    world.tell(Event::Instance(US.try_into().expect("an id")));
    world.backup("a");
    world.run(secs(10));
    world
}

fn shown(world: &World) -> (Verdict, Option<String>) {
    world.reported().map(|a| (a.verdict, a.reason)).expect("the address")
}

#[test]
fn the_primary_address_of_another_interface_keeps_a_standby_from_being_ready() {
    let mut world = with_instances(None);
    assert_eq!(shown(&world), (Verdict::StandbyReady, None));
    let begin = world.now;
    world.give_to(vip(1), Owner { primary: true, ..of(THIEF, SOMEBODY) });
    world.run(secs(60));
    let why = format!(
        "10.0.1.1 is the primary address of {THIEF} of {SOMEBODY}, which EC2 never moves: choose another address for the group"
    );
    assert_eq!(shown(&world), (Verdict::StandbyNotReady, Some(why.clone())));
    assert_eq!(readiness(&world, begin), [Some(why.clone())]);
    // A claim is refused, and says why.
    world.ec2.bad = [vip(1)].into();
    world.master("a");
    world.run(secs(2));
    let (verdict, reason) = shown(&world);
    assert!(verdict == Verdict::Drift && reason.is_some_and(|reason| reason.contains(&why)), "{verdict}");
    world.backup("a");
    world.give_to(vip(1), of(PEER, OTHER));
    world.ec2.bad.clear();
    world.tell(Event::Credentials);
    world.run(secs(60));
    assert_eq!(readiness(&world, begin).last(), Some(&None));
}

/// network-interface-id names the other router's ENI: the configuration was copied.
#[test]
fn an_interface_of_another_instance_is_not_ours() {
    let mut world = with_instances(Some(PEER));
    let why = format!(
        "{PEER} is attached to {OTHER}, not to this instance {US}: packets go there; correct `aws-vipa network-interface-id`"
    );
    assert_eq!(shown(&world), (Verdict::StandbyNotReady, Some(why.clone())));
    assert_eq!(readiness(&world, Moment::default()), [Some(why.clone())]);
    let notes = |world: &World| {
        let notes = world.notes(Moment::default()).into_iter();
        notes.filter(|(_, note)| matches!(note, Note::Elsewhere { instance: Some(_), .. })).count()
    };
    assert_eq!(notes(&world), 1);
    // The claim is what the operator has configured. That EC2 confirms it does not make it right.
    world.master("a");
    world.run(secs(60));
    assert_eq!(shown(&world), (Verdict::Drift, Some(why)));
    let owner = world.reported().and_then(|a| a.owner).expect("an owner");
    assert_eq!(owner.who, Who::OtherRouter);
    assert_eq!(notes(&world), 1, "said once");
    // It is attached here.
    world.give_to(vip(1), of(PEER, US));
    world.give_to(OTHERS_ADDRESS, of("eni-0000000f", OTHER));
    world.run(secs(60));
    assert_eq!(shown(&world), (Verdict::Ok, None));
}

#[test]
fn an_interface_of_no_instance_is_not_ours() {
    let mut world = with_instances(None);
    world.master("a");
    world.run(secs(60));
    assert_eq!(shown(&world), (Verdict::Ok, None));
    world.give_to(vip(1), owner(ETH0));
    world.run(secs(60));
    let (verdict, reason) = shown(&world);
    assert_eq!(verdict, Verdict::Drift);
    assert!(
        reason.is_some_and(|reason| reason.contains("eni-0000000a is attached to no instance: packets go nowhere"))
    );
}

#[test]
fn what_is_not_known_of_an_interface_is_held_against_nobody() {
    let mut world = with_instances(Some(PEER));
    // Another ENI of the other router has its address, and the virtual one: what is configured is not shown any more.
    world.give_to(OTHERS_ADDRESS, of("eni-0000000f", OTHER));
    world.give_to(vip(1), of("eni-0000000f", OTHER));
    world.run(secs(60));
    assert_eq!(shown(&world), (Verdict::StandbyReady, None));
}

#[test]
fn a_standby_names_the_holder_of_an_address_that_no_router_of_the_group_has() {
    let mut world = with_instances(None);
    let begin = world.now;
    world.give_to(vip(1), of(THIEF, SOMEBODY));
    world.run(secs(200));
    let (verdict, reason) = shown(&world);
    assert_eq!(verdict, Verdict::StandbyReady, "a failover would take it");
    let held = format!("held by {THIEF} of {SOMEBODY}, which is none of the group's routers: a failover takes it from");
    assert!(reason.as_ref().is_some_and(|reason| reason.starts_with(&held)), "{reason:?}");
    let notes = world.notes(begin).into_iter();
    let said: Vec<_> = notes.filter(|(_, note)| matches!(note, Note::Holder { .. })).map(|(_, note)| note).collect();
    assert_eq!(said, [Note::Holder { addresses: vec![vip(1)], by: of(THIEF, SOMEBODY) }], "said once");
    assert_eq!(readiness(&world, begin), []);
    world.give_to(vip(1), of(PEER, OTHER));
    world.run(secs(60));
    assert_eq!(shown(&world), (Verdict::StandbyReady, None));
}

/// The holder may be the other router.
#[test]
fn a_holder_is_no_stranger_while_the_other_router_is_not_known() {
    let unknown: [(&str, Act); 3] = [
        ("never shown", |world| {
            world.unassign(OTHERS_ADDRESS);
            world.kill_agent();
            world.start_agent();
            world.tell(Event::Instance(US.try_into().expect("an id")));
            world.backup("a");
        }),
        ("shown without its instance", |world| world.give_to(OTHERS_ADDRESS, owner(PEER))),
        ("not configured", |world| {
            let mut groups = world.groups.clone();
            groups.groups[0].peers.clear();
            world.reload(groups);
        }),
    ];
    for (what, act) in unknown {
        let mut world = with_instances(None);
        let begin = world.now;
        act(&mut world);
        world.give_to(vip(1), of(THIEF, SOMEBODY));
        world.run(secs(200));
        assert_eq!(shown(&world), (Verdict::StandbyReady, None), "{what}");
        assert!(!world.notes(begin).iter().any(|(_, note)| matches!(note, Note::Holder { .. })), "{what}");
    }
}

/// An address of another account in a shared VPC shows in no read.
#[test]
fn an_address_that_is_refused_while_nobody_has_it_may_be_of_another_account() {
    let mut world = with_instances(None);
    world.unassign(vip(1));
    world.run(secs(60));
    world.ec2.bad = [vip(1)].into();
    world.master("a");
    let told = "in a VPC that is shared, one of another account may have it: ask the VPC's owner";
    for class in [ErrorClass::BadAddress, ErrorClass::Refused] {
        world.ec2.bad_class = class;
        world.says("a", NotifyState::Master);
        world.run(secs(2));
        let (verdict, reason) = shown(&world);
        assert!(reason.as_ref().is_some_and(|reason| reason.contains(told)), "{class:?}: {verdict} {reason:?}");
    }
    world.ec2.bad_class = ErrorClass::Denied;
    world.says("a", NotifyState::Master);
    world.run(secs(2));
    assert!(shown(&world).1.is_some_and(|reason| !reason.contains(told)), "the reason is known");
}

#[test]
fn one_bad_address_leaves_the_others_of_its_group_ready() {
    let config = config(&["a"]);
    let mut world = World::settled(config, Groups { groups: vec![run("a", "eth0", 10, &[vip(1), vip(2)])] });
    world.give_to(vip(2), Owner { primary: true, ..owner(THIEF) });
    world.run(secs(60));
    let verdicts = world.machine.report(world.now, clock).remove(0).addresses;
    let verdicts: Vec<Verdict> = verdicts.iter().map(|a| a.verdict).collect();
    assert_eq!(verdicts, [Verdict::StandbyReady, Verdict::StandbyNotReady]);
}
