//! What the agent asks the machine between events.

use super::harness::{ETH0, Harness, PEER, config, eni, group, ms, run, secs, vip};
use crate::claim::{BootInstant, Event};
use crate::keepalived::groups::Groups;
use crate::model::ids::{EniId, InstanceId};

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
fn a_resource_belongs_to_the_group_that_moves_it() {
    let harness = Harness::one();
    assert_eq!(harness.machine.resources_of_group(&group("a")), [vip(1).into()]);
    assert_eq!(harness.machine.resources_of_group(&group("b")), []);
    assert_eq!(harness.machine.group_of(&vip(1).into()), Some(&group("a")));
    assert_eq!(harness.machine.group_of(&vip(2).into()), None);
}

/// The ENI that a read has shown as the owner of the address since the group has become MASTER, or has ceased to be.
fn new_owner(harness: &Harness, is_master: bool, since: BootInstant) -> Option<(BootInstant, EniId)> {
    let shown = harness.machine.new_owner(&vip(1).into(), is_master, since);
    shown.map(|(read, owner)| (read, owner.eni.clone()))
}

#[test]
fn the_new_owner_after_backup_is_another_eni_in_a_read_that_began_since() {
    let mut harness = Harness::one();
    let new_owner = |harness: &Harness, since| new_owner(harness, false, since);
    let read = harness.machine.resources[&vip(1).into()].owner_read.clone().expect("a read");
    assert_eq!(new_owner(&harness, read.began), Some((read.at, eni(PEER))));
    assert_eq!(new_owner(&harness, read.began + ms(1)), None);
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(60));
    harness.backup("a");
    assert_eq!(harness.owner(vip(1)), Some(ETH0));
    assert_eq!(new_owner(&harness, begin), None, "no router has taken over yet");
    assert_eq!(harness.machine.new_owner(&vip(2).into(), false, begin), None, "an unknown resource");
}

#[test]
fn the_new_owner_after_master_is_this_router_in_a_verifying_read_that_ended_since() {
    let mut harness = Harness::one();
    let new_owner = |harness: &Harness, since| new_owner(harness, true, since);
    let begin = harness.now;
    harness.master("a");
    harness.run(ms(60));
    assert_eq!(new_owner(&harness, BootInstant::default()), None, "no read has verified the claim");
    harness.run(secs(60));
    let read = harness.machine.resources[&vip(1).into()].owner_read.clone().expect("a read");
    assert!(read.at > begin);
    assert_eq!(new_owner(&harness, read.at), Some((read.at, eni(ETH0))));
    assert_eq!(new_owner(&harness, read.at + ms(1)), None);
    harness.give(vip(1), PEER);
    harness.tell(Event::ReadNow);
    harness.run(ms(500));
    assert_eq!(new_owner(&harness, begin), None, "a mismatch");
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
