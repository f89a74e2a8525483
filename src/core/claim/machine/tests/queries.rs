//! What the agent asks the machine between events.

use super::harness::{Harness, config, group, ms, run, secs, vip};
use crate::claim::Event;
use crate::keepalived::groups::Groups;
use crate::model::ids::InstanceId;

#[test]
fn a_group_is_paused_from_the_command_to_the_end_of_the_pause() {
    let mut harness = Harness::one();
    assert!(harness.machine.has_group(&group("a")) && !harness.machine.has_group(&group("b")));
    assert!(!harness.machine.is_paused(&group("a")));
    let until = harness.now + secs(60);
    harness.tell(Event::Pause { group: group("a"), until });
    assert!(harness.machine.is_paused(&group("a")));
    assert!(!harness.machine.is_paused(&group("b")), "an unknown group");
    harness.run(secs(61));
    assert!(!harness.machine.is_paused(&group("a")));
}

#[test]
fn a_group_has_responses_once_every_claim_since_a_moment_has_ended() {
    let groups = Groups { groups: vec![run("a", "eth0", 10, &[vip(1)]), run("b", "eth0", 11, &[vip(2)])] };
    let mut harness = Harness::settled(config(&["a", "b"]), groups);
    let before = harness.now;
    harness.run(secs(1));
    let asked = harness.now;
    let (a, b) = (group("a"), group("b"));
    harness.master("a");
    assert!(!harness.machine.has_responses(&a, asked), "in flight");
    assert!(
        harness.machine.claimed_since(&vip(1).into(), asked) && harness.machine.claimed_since(&vip(1).into(), before)
    );
    assert!(!harness.machine.claimed_since(&vip(2).into(), before), "the other group");
    harness.run(ms(100));
    assert!(harness.machine.has_responses(&a, asked) && harness.machine.has_responses(&a, before));
    assert!(!harness.machine.has_responses(&b, before));
    assert!(
        !harness.machine.has_responses(&a, asked + ms(1))
            && !harness.machine.claimed_since(&vip(1).into(), asked + ms(1))
    );
}

#[test]
fn the_instance_is_the_one_that_imds_named() {
    let mut harness = Harness::one();
    assert_eq!(harness.machine.instance(), None);
    let instance = InstanceId::try_from("i-0123456789abcdef0").expect("an instance");
    harness.tell(Event::Instance(instance.clone()));
    assert_eq!(harness.machine.instance(), Some(&instance));
}

#[test]
fn an_address_that_moves_to_another_group_keeps_its_owner_and_its_last_claim() {
    let mut harness = Harness::held();
    let before = &harness.machine.resources[&vip(1).into()];
    let (owner_read, last_claim) = (before.owner_read.clone(), before.last_claim.clone());
    assert!(owner_read.is_some() && last_claim.is_some());
    harness.tell(Event::Config(config(&["a", "b"])));
    harness.reload(Groups { groups: vec![run("b", "eth0", 10, &[vip(1)])] });
    let after = &harness.machine.resources[&vip(1).into()];
    assert_eq!(after.group, group("b"));
    assert_eq!((&after.owner_read, &after.last_claim), (&owner_read, &last_claim));
}
