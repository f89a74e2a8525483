//! B11: what a standby does to be able to take over.

use super::world::{World, config, ms, run, secs, vip};
use crate::claim::{Event, Moment, Note, NotifyState};
use crate::keepalived::groups::Groups;
use crate::ownership::ErrorClass;

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
