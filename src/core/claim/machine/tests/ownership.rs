//! B6 and B7: looking at who owns an address, taking it back, and two that take it from each other.

use std::net::Ipv4Addr;

use super::harness::{Act, Fault, Harness, PEER, THIRD_PARTY, config, eni, group, ms, run, secs, vip};
use crate::claim::resource::Phase;
use crate::claim::{Action, BootInstant, Cause, Event, LogEvent};
use crate::keepalived::groups::Groups;
use crate::model::ec2::{ErrorClass, Taker};
use crate::model::vrrp::{NotifyState, VrrpState};

fn phase(harness: &Harness) -> &Phase {
    &harness.machine.resources[&vip(1).into()].phase
}

/// Lets time pass, and takes the address away whenever it is ours.
fn run_with_a_third_party_that_takes_it(harness: &mut Harness, seconds: u64) {
    for _ in 0..seconds * 10 {
        harness.run(ms(100));
        if !harness.ours().is_empty() {
            harness.give(vip(1), THIRD_PARTY);
        }
    }
}

/// Gives the address to a third party each time that its ownership is verified, until so many ownership losses are logged; a
/// read follows at once.
fn losses(harness: &mut Harness, count: usize) {
    let begin = harness.now;
    let deadline = harness.now + secs(1_800);
    while harness.ownership_loss_times(begin).len() < count {
        assert!(harness.now < deadline, "{:?} after {:?}", harness.ownership_loss_times(begin), phase(harness));
        if *phase(harness) == (Phase::Assigned { verified: true, mismatch: None }) && !harness.ours().is_empty() {
            harness.give(vip(1), THIRD_PARTY);
            harness.tell(Event::ReadNow);
        }
        harness.run(ms(50));
    }
}

fn contested(harness: &Harness, since: BootInstant) -> Vec<u64> {
    let log_events = harness.log_events(since).into_iter();
    log_events.filter(|(_, log)| matches!(log, LogEvent::Contested { .. })).map(|(when, _)| when).collect()
}

fn over(harness: &Harness, since: BootInstant) -> Vec<u64> {
    let log_events = harness.log_events(since).into_iter();
    log_events.filter(|(_, log)| matches!(log, LogEvent::ContestedEnded { .. })).map(|(when, _)| when).collect()
}

/// A held address that has just become contested.
fn while_contested() -> Harness {
    let mut harness = Harness::held();
    let begin = harness.now;
    losses(&mut harness, 4);
    assert_eq!(contested(&harness, begin).len(), 1);
    harness
}

// ── B6 ──

#[test]
fn an_acknowledged_claim_is_looked_at_after_one_three_and_ten_seconds_and_then_every_interval() {
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(200));
    let reads = harness.read_times(begin);
    for confirmation in [1_050, 3_050, 10_050] {
        assert!(reads.contains(&confirmation), "{confirmation} of {reads:?}");
    }
    let regular: Vec<u64> = reads.into_iter().filter(|when| *when > 11_000).collect();
    assert!(regular.len() >= 6, "{regular:?}");
    // The interval runs from one answer to the next read.
    assert!(regular.windows(2).all(|pair| pair[1] - pair[0] == 30_020), "{regular:?}");
    assert_eq!(harness.claim_times(begin), [0]);
}

/// EC2's answer may list nothing of what it has assigned.
#[test]
fn a_claim_whose_answer_lists_nothing_is_read_at_once_and_not_repeated() {
    let mut harness = Harness::one();
    harness.ec2.lists_nothing = true;
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(100));
    assert_eq!(harness.read_times(begin)[..2], [50, 1_050]);
    assert_eq!(harness.claim_times(begin), [0]);
    assert_eq!(*phase(&harness), Phase::Assigned { verified: true, mismatch: None });
    // Where the read shows the past, the rules for an acknowledged claim hold.
    harness.backup("a");
    harness.give(vip(1), PEER);
    harness.run(secs(100));
    harness.ec2.stale = secs(15);
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(100));
    assert_eq!(harness.claim_times(begin).len(), 2, "{:?}", harness.claim_times(begin));
    assert_eq!(*phase(&harness), Phase::Assigned { verified: true, mismatch: None });
}

#[test]
fn a_minute_of_stale_reads_is_no_ownership_loss_and_leads_to_a_claim_every_ten_seconds() {
    let mut harness = Harness::one();
    harness.ec2.stale = secs(60);
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(300));
    let claims = harness.claim_times(begin);
    assert!((5..=7).contains(&claims.len()), "{claims:?}");
    // A read comes early enough to see keepalived, which is active once a second, in the ten seconds.
    assert!(claims.windows(2).all(|pair| pair[1] - pair[0] == 10_000), "{claims:?}");
    assert!(claims.iter().all(|when| *when <= 60_100), "{claims:?}");
    assert_eq!(harness.ownership_loss_times(begin), [0_u64; 0]);
    assert_eq!(*phase(&harness), Phase::Assigned { verified: true, mismatch: None });
}

#[test]
fn a_read_that_comes_too_early_for_another_claim_is_followed_by_one_that_does_not() {
    let mut harness = Harness::one();
    // The third confirmation goes out with another read, a moment before ten seconds are over.
    harness.ec2.claim_delay = ms(2);
    harness.ec2.read_delay = ms(2);
    let begin = harness.now;
    harness.master("a");
    harness.run(ms(100));
    harness.give(vip(1), PEER);
    harness.run(ms(9_820));
    harness.tell(Event::ReadNow);
    harness.run(secs(3));
    let claims = harness.claim_times(begin);
    assert_eq!(claims.len(), 2, "{claims:?}");
    assert!((10_000..12_000).contains(&claims[1]), "{claims:?}");
}

#[test]
fn claiming_again_does_not_renew_the_minute() {
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.master("a");
    run_with_a_third_party_that_takes_it(&mut harness, 75);
    let losses = harness.ownership_loss_times(begin);
    assert!(losses.first().is_some_and(|first| (60_050..75_000).contains(first)), "{losses:?}");
    assert!(harness.claim_times(begin).len() >= 6, "claimed again in the minute: {:?}", harness.claim_times(begin));
}

#[test]
fn a_master_line_renews_the_minute() {
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.master("a");
    run_with_a_third_party_that_takes_it(&mut harness, 50);
    harness.says("a", NotifyState::Master);
    run_with_a_third_party_that_takes_it(&mut harness, 59);
    assert_eq!(harness.ownership_loss_times(begin), [0_u64; 0]);
    run_with_a_third_party_that_takes_it(&mut harness, 16);
    assert!(!harness.ownership_loss_times(begin).is_empty());
}

#[test]
fn two_reads_that_name_another_owner_are_an_ownership_loss_and_the_address_is_claimed_back() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.give(vip(1), THIRD_PARTY);
    harness.run(secs(40));
    let reads = harness.read_times(begin);
    let [first, second] = [reads[0], reads[1]];
    assert!(first <= 30_020, "{reads:?}");
    assert!((first + 20 + 1_000..=first + 20 + 2_000).contains(&second), "{reads:?}");
    assert_eq!(harness.ownership_loss_times(begin), [second + 20]);
    assert_eq!(harness.claim_times(begin), [second + 20]);
    let by = harness.log_events(begin).into_iter().find_map(|(_, log)| match log {
        LogEvent::OwnershipLost { by, .. } => Some(by.eni.to_string()),
        _ => None,
    });
    assert_eq!(by.as_deref(), Some(THIRD_PARTY));
    let before_the_claim = harness.done.iter().rev().skip_while(|(_, a)| !matches!(a, Action::Claim { .. }));
    let look = before_the_claim.map(|(_, a)| a).find(|a| matches!(a, Action::ReadLocalAddresses | Action::Read { .. }));
    assert_eq!(look, Some(&Action::ReadLocalAddresses), "the interface is looked at right before");
}

#[test]
fn the_second_look_does_not_wait_for_the_interval() {
    let mut harness = Harness::one();
    harness.config.global.verify_interval = 300.try_into().expect("an interval");
    harness.tell(Event::Config(harness.config.clone()));
    harness.master("a");
    harness.run(secs(100));
    let begin = harness.now;
    harness.give(vip(1), THIRD_PARTY);
    harness.run(secs(310));
    let reads = harness.read_times(begin);
    assert!((1_020..=2_020).contains(&(reads[1] - reads[0])), "{reads:?}");
    assert_eq!(harness.ours(), [vip(1)].into());
}

#[test]
fn a_read_asked_for_meanwhile_is_no_second_look() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.give(vip(1), THIRD_PARTY);
    harness.tell(Event::ReadNow);
    for _ in 0..9 {
        harness.run(ms(110));
        harness.tell(Event::ReadNow);
    }
    assert_eq!(harness.ownership_loss_times(begin), [0_u64; 0], "reads at {:?}", harness.read_times(begin));
    harness.run(secs(2));
    assert_eq!(harness.ownership_loss_times(begin).len(), 1);
}

#[test]
fn two_reads_that_name_no_owner_lead_to_a_claim_and_are_no_ownership_loss() {
    for (first, second) in [(None, None), (None, Some(THIRD_PARTY)), (Some(THIRD_PARTY), None)] {
        let mut harness = Harness::held();
        let begin = harness.now;
        let own = |harness: &mut Harness, id: Option<&str>| match id {
            Some(id) => harness.give(vip(1), id),
            None => harness.unassign(vip(1)),
        };
        own(&mut harness, first);
        harness.tell(Event::ReadNow);
        harness.run(ms(500));
        own(&mut harness, second);
        harness.run(secs(2));
        assert_eq!(harness.claim_times(begin).len(), 1, "{first:?} {second:?}");
        assert_eq!(harness.ownership_loss_times(begin), [0_u64; 0], "{first:?} {second:?}");
        assert_eq!(harness.ours(), [vip(1)].into());
    }
}

#[test]
fn one_read_that_disagrees_is_nothing_if_the_next_agrees() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.give(vip(1), THIRD_PARTY);
    harness.tell(Event::ReadNow);
    harness.run(ms(100));
    harness.give(vip(1), "eni-0000000a");
    harness.run(secs(60));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    assert_eq!(*phase(&harness), Phase::Assigned { verified: true, mismatch: None });
}

#[test]
fn a_second_look_that_fails_is_tried_again() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.give(vip(1), THIRD_PARTY);
    harness.tell(Event::ReadNow);
    harness.run(ms(100));
    harness.ec2.read_refuses = Some(ErrorClass::Throttled);
    harness.run(secs(16));
    assert_eq!(harness.claim_times(begin), [0_u64; 0], "one read is not enough");
    let waits: Vec<u64> = harness.read_times(begin).windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The first failure is made good as soon: with the shortest interval there is no time for more before the bound of B7.
    assert!(waits.len() >= 4, "{waits:?}");
    for (wait, shortest) in waits.iter().zip([1_100, 1_100, 2_200, 4_400]) {
        assert!((shortest..2 * shortest).contains(wait), "ever less often: {waits:?}");
    }
    harness.ec2.read_refuses = None;
    harness.run(secs(16));
    assert_eq!(harness.ownership_loss_times(begin).len(), 1);
}

#[test]
fn a_frozen_router_does_not_take_the_address_back() {
    let mut harness = Harness::held();
    harness.child_frozen = true;
    harness.run(secs(5));
    let begin = harness.now;
    harness.give(vip(1), PEER);
    harness.tell(Event::ReadNow);
    harness.run(secs(60));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    let unknown: Vec<u64> = harness
        .log_events(begin)
        .iter()
        .filter(|(_, n)| matches!(n, LogEvent::Transition { to: VrrpState::Unknown, cause: Cause::NoLiveness, .. }))
        .map(|(when, _)| *when)
        .collect();
    // The second look after 1 to 2 s, and two seconds of patience.
    assert!(unknown.len() == 1 && (3_000..=4_100).contains(&unknown[0]), "{unknown:?}");
    // It thaws, and learns that it is not the master any more.
    harness.child_frozen = false;
    harness.backup("a");
    harness.run(secs(60));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
}

#[test]
fn life_before_the_read_that_disagreed_is_not_enough() {
    let mut harness = Harness::held();
    harness.give(vip(1), PEER);
    let begin = harness.now;
    harness.tell(Event::ReadNow);
    harness.run(ms(20));
    // The read is answered; keepalived did something right before, and freezes now.
    harness.tell(Event::Liveness { after: begin + ms(19) });
    harness.child_frozen = true;
    harness.run(secs(10));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
}

#[test]
fn an_address_that_is_not_on_the_interface_is_not_taken_back() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.local.clear();
    harness.look_around();
    harness.give(vip(1), THIRD_PARTY);
    harness.tell(Event::ReadNow);
    harness.run(secs(100));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    let log_events = harness.log_events(begin);
    assert_eq!(log_events.iter().filter(|(_, n)| matches!(n, LogEvent::NotLocal { .. })).count(), 1, "{log_events:?}");
    // It comes back while the group is MASTER: who owns it is read, and then it is claimed.
    harness.local.insert(vip(1));
    harness.look_around();
    harness.run(secs(3));
    assert_eq!(harness.claim_times(begin).len(), 1);
    assert_eq!(harness.ours(), [vip(1)].into());
}

// ── B7 ──

#[test]
fn the_fourth_ownership_loss_in_five_minutes_makes_it_contested_and_claims_wait() {
    let mut harness = Harness::held();
    let begin = harness.now;
    losses(&mut harness, 3);
    assert_eq!(contested(&harness, begin), [0_u64; 0]);
    losses(&mut harness, 1);
    assert_eq!(contested(&harness, begin).len(), 1);
    let stolen = harness.now;
    run_with_a_third_party_that_takes_it(&mut harness, 1_000);
    let claims = harness.claim_times(stolen);
    assert!((37_000..=113_000).contains(&claims[0]), "75 s, half as long or half as long again: {claims:?}");
    let waits: Vec<u64> = claims.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The wait after that is 150 s and the next ones 300 s, give or take a half; until a loss is seen takes some time.
    assert!(waits.iter().all(|wait| (75_000..=490_000).contains(wait)), "{waits:?}");
    assert!(waits.len() >= 2, "{claims:?}");
}

#[test]
fn the_router_that_outranks_the_other_waits_half_a_minute_at_most() {
    let mut harness = while_contested();
    harness.says("a", NotifyState::MasterRxLowerPri);
    let begin = harness.now;
    for _ in 0..300 {
        harness.run(secs(1));
        harness.says("a", NotifyState::MasterRxLowerPri);
        if !harness.ours().is_empty() {
            harness.give(vip(1), THIRD_PARTY);
        }
    }
    let claims = harness.claim_times(begin);
    let waits: Vec<u64> = claims.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.iter().all(|wait| (5_000..=47_000).contains(wait)), "{waits:?}");
    assert!(waits.iter().skip(4).all(|wait| *wait >= 30_000), "the cap: {waits:?}");
    assert!(claims.len() >= 7, "{claims:?}");
}

#[test]
fn a_line_or_a_person_ends_the_wait_while_contested() {
    let ends: [(&str, Act); 3] = [
        ("MASTER", |w| w.says("a", NotifyState::Master)),
        ("the first MASTER_RX_LOWER_PRI", |w| w.says("a", NotifyState::MasterRxLowerPri)),
        ("force", |w| w.tell(Event::Force(group("a")))),
    ];
    for (what, end) in ends {
        let mut harness = while_contested();
        harness.run(secs(20));
        let begin = harness.now;
        end(&mut harness);
        assert_eq!(harness.claim_times(begin), [0], "{what}");
        assert!(
            harness.machine.resources[&vip(1).into()].flap_damping.contested_by().is_some(),
            "{what} does not end CONTESTED"
        );
    }
}

#[test]
fn after_a_line_the_waits_while_contested_begin_anew() {
    let mut harness = while_contested();
    run_with_a_third_party_that_takes_it(&mut harness, 1_500);
    let begin = harness.now;
    harness.says("a", NotifyState::Master);
    run_with_a_third_party_that_takes_it(&mut harness, 150);
    let claims = harness.claim_times(begin);
    // Ten seconds after the line, 75 s give or take a half; the wait before the line was 150 s at least.
    assert!(claims.len() >= 2 && claims[0] == 0 && claims[1] <= 127_000, "{claims:?}");
}

#[test]
fn contested_ends_after_fifteen_minutes_of_confirmed_ownership() {
    let mut harness = while_contested();
    let begin = harness.now;
    while *phase(&harness) != (Phase::Assigned { verified: true, mismatch: None }) {
        harness.run(ms(10));
    }
    let verified = begin.until(harness.now).as_millis() as u64;
    harness.run(secs(15 * 60) - ms(20));
    assert_eq!(over(&harness, begin), [0_u64; 0]);
    harness.run(ms(20));
    let ended = over(&harness, begin);
    assert!(ended.len() == 1 && (verified + 899_980..=verified + 900_000).contains(&ended[0]), "{ended:?}");
    // The next loss is the first one again.
    let begin = harness.now;
    losses(&mut harness, 3);
    assert_eq!(contested(&harness, begin).len(), 0);
}

#[test]
fn contested_ends_with_backup() {
    for state in [NotifyState::Backup, NotifyState::Fault] {
        let mut harness = while_contested();
        let begin = harness.now;
        harness.becomes("a", state);
        assert_eq!(over(&harness, begin), [0], "{state:?}");
        harness.run(secs(5));
        harness.master("a");
        assert_eq!(harness.claim_times(begin), [5_000], "{state:?}");
        assert!(harness.machine.resources[&vip(1).into()].flap_damping.contested_by().is_none(), "{state:?}");
    }
}

#[test]
fn a_restart_of_the_agent_does_not_end_contested() {
    let mut harness = while_contested();
    let begin = harness.now;
    harness.kill_agent();
    harness.run(secs(1));
    harness.start_agent();
    assert!(harness.machine.resources[&vip(1).into()].flap_damping.contested_by().is_some());
    harness.run(secs(36));
    assert_eq!(harness.claim_times(begin), [0_u64; 0], "the wait begins anew");
    harness.run(secs(100));
    assert_eq!(harness.claim_times(begin).len(), 1);
    assert_eq!(over(&harness, begin), [0_u64; 0]);
    harness.run(secs(15 * 60));
    assert_eq!(over(&harness, begin).len(), 1, "fifteen minutes of peace end it");
}

#[test]
fn after_a_restart_only_the_address_that_was_contested_is_contested() {
    let (first, group) = (vip(0), run("a", "eth0", 10, &[vip(0), vip(1)]));
    let mut harness = Harness::settled(config(&["a"]), Groups { groups: vec![group] });
    harness.master("a");
    harness.run(secs(100));
    losses(&mut harness, 4);
    harness.kill_agent();
    harness.start_agent();
    let contested_by = |ip: Ipv4Addr| harness.machine.resources[&ip.into()].flap_damping.contested_by();
    assert_eq!((contested_by(first), contested_by(vip(1))), (None, Some(Taker::ThirdParty)));
}

#[test]
fn a_master_line_that_waited_in_the_pipe_does_not_end_contested() {
    let mut harness = while_contested();
    harness.kill_agent();
    harness.says("a", NotifyState::Master);
    harness.start_agent();
    assert!(harness.machine.resources[&vip(1).into()].flap_damping.contested_by().is_some());
}

#[test]
fn ownership_losses_before_a_restart_of_the_agent_count() {
    let mut harness = Harness::held();
    let begin = harness.now;
    losses(&mut harness, 3);
    harness.kill_agent();
    harness.run(secs(1));
    harness.start_agent();
    assert_eq!(contested(&harness, begin), [0_u64; 0]);
    losses(&mut harness, 1);
    assert_eq!(contested(&harness, begin).len(), 1);
}

#[test]
fn contested_ends_with_a_backup_while_no_agent_ran() {
    let mut harness = while_contested();
    harness.kill_agent();
    harness.backup("a");
    harness.run(secs(1));
    harness.master("a");
    harness.start_agent();
    assert!(harness.machine.resources[&vip(1).into()].flap_damping.contested_by().is_none());
    let begin = harness.now;
    harness.run(secs(5));
    assert_eq!(harness.claim_times(begin).len(), 1);
}

#[test]
fn while_contested_retries_wait_as_long() {
    let mut harness = while_contested();
    harness.says("a", NotifyState::Master);
    harness.run(secs(60));
    harness.ec2.refuses = Some(ErrorClass::Transient);
    let begin = harness.now;
    harness.says("a", NotifyState::Master);
    harness.give(vip(1), THIRD_PARTY);
    harness.run(secs(600));
    let claims = harness.claim_times(begin);
    assert_eq!(claims[0], 0);
    assert!(claims[1] >= 37_500, "{claims:?}");
    assert!(claims.len() <= 7, "{claims:?}");
}

#[test]
fn an_invalidated_state_while_contested_does_not_shorten_the_wait() {
    let mut harness = while_contested();
    let begin = harness.now;
    harness.tell(Event::FifoFull);
    harness.run(secs(36));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    harness.run(secs(300));
    assert!(!harness.claim_times(begin).is_empty());
}

#[test]
fn an_address_of_another_group_is_not_contested() {
    let groups = Groups { groups: vec![run("a", "eth0", 10, &[vip(1)]), run("b", "eth0", 11, &[vip(2)])] };
    let mut harness = Harness::settled(config(&["a", "b"]), groups);
    harness.all_become(&[("a", NotifyState::Master), ("b", NotifyState::Master)]);
    harness.run(secs(100));
    losses(&mut harness, 4);
    let begin = harness.now;
    harness.unassign(vip(2));
    harness.ec2.claims = vec![Fault::Fails(ErrorClass::Transient)];
    harness.tell(Event::ReadNow);
    harness.run(secs(5));
    assert_eq!(harness.claims_since(begin).len(), 2, "a failure and a retry");
    assert_eq!(harness.ours(), [vip(2)].into());
}

#[test]
fn reads_that_fail_are_noted_each_time_and_so_is_their_end() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.ec2.read_refuses = Some(ErrorClass::Denied);
    harness.run(secs(100));
    harness.ec2.read_refuses = None;
    harness.run(secs(100));
    let failed = harness.log_events(begin).into_iter().filter_map(|(_, log)| match log {
        LogEvent::Read { error, .. } => Some(error.map(|e| e.class())),
        _ => None,
    });
    let failed: Vec<_> = failed.collect();
    let (last, before) = failed.split_last().expect("a note at least");
    // One each 30 s.
    assert!((3..=4).contains(&before.len()), "{failed:?}");
    assert!(before.iter().all(|class| *class == Some(ErrorClass::Denied)) && last.is_none(), "{failed:?}");
}

// ── contested with the peer; how it ends is held by `split_brain` ──

/// Lets time pass, and takes the address away for `by` whenever it is ours; a read is asked for at once.
fn run_with(harness: &mut Harness, by: &'static str, seconds: u64) {
    for _ in 0..seconds * 10 {
        harness.run(ms(100));
        if !harness.ours().is_empty() {
            harness.give(vip(1), by);
            harness.tell(Event::ReadNow);
        }
    }
}

/// As [`Harness::held`], with an interval of 5 s, and a read that has shown whose the peer's address is.
fn held_beside_the_peer() -> Harness {
    let mut harness = Harness::held();
    harness.give(Ipv4Addr::new(10, 0, 0, 2), PEER);
    harness.config.global.verify_interval = 5.try_into().expect("an interval");
    harness.tell(Event::Config(harness.config.clone()));
    harness.run(secs(10));
    harness
}

#[test]
fn contested_with_the_peer_is_shown_and_delays_nothing() {
    let mut harness = held_beside_the_peer();
    let begin = harness.now;
    run_with(&mut harness, PEER, 200);
    let by = harness.log_events(begin).into_iter().find_map(|(_, log)| match log {
        LogEvent::Contested { taker, .. } => Some(taker),
        _ => None,
    });
    assert_eq!(by, Some(Taker::Peer));
    let why = harness.reported().and_then(|a| a.reason).unwrap_or_default();
    assert!(why.contains("if `show vrrp` still shows MASTER on both, restore the VRRP link between them"), "{why}");
    let claims = harness.claim_times(begin);
    let waits: Vec<u64> = claims.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.iter().all(|wait| (10_000..=13_000).contains(wait)), "{waits:?}");
    // The peer stops, and it is no longer contested a minute after the read that confirms the last claim.
    let stops = harness.now;
    harness.run(secs(75));
    assert_eq!(harness.ours(), [vip(1)].into());
    assert_eq!(over(&harness, stops).len(), 1);
}

#[test]
fn whoever_has_the_address_now_decides_whether_a_claim_waits() {
    let mut harness = held_beside_the_peer();
    losses(&mut harness, 4);
    assert_eq!(harness.machine.resources[&vip(1).into()].flap_damping.contested_by(), Some(Taker::ThirdParty));
    harness.says("a", NotifyState::Master);
    harness.run(secs(80));
    let begin = harness.now;
    harness.give(vip(1), PEER);
    harness.run(secs(10));
    assert_eq!(harness.claim_times(begin).len(), 1, "{:?}", phase(&harness));
    harness.run(secs(80));
    let begin = harness.now;
    harness.give(vip(1), THIRD_PARTY);
    harness.run(secs(30));
    assert_eq!(harness.claim_times(begin), [0_u64; 0], "{:?}", phase(&harness));
}

#[test]
fn what_waits_because_of_a_third_party_does_not_once_the_peer_has_it() {
    let mut harness = held_beside_the_peer();
    losses(&mut harness, 4);
    let begin = harness.now;
    harness.run(secs(12));
    assert_eq!(harness.claim_times(begin), [0_u64; 0], "the third party has it: {:?}", phase(&harness));
    let begin = harness.now;
    harness.give(vip(1), PEER);
    harness.run(secs(10));
    assert_eq!(harness.claim_times(begin).len(), 1, "{:?}", phase(&harness));
    assert_eq!(harness.ours(), [vip(1)].into());
    // So does a retry.
    harness.says("a", NotifyState::Master);
    harness.run(secs(80));
    harness.ec2.refuses = Some(ErrorClass::Transient);
    harness.give(vip(1), THIRD_PARTY);
    harness.tell(Event::ReadNow);
    harness.run(secs(1));
    harness.says("a", NotifyState::Master);
    harness.run(secs(20));
    harness.ec2.refuses = None;
    let begin = harness.now;
    harness.run(secs(10));
    assert_eq!(harness.claim_times(begin), [0_u64; 0], "the third party has it: {:?}", phase(&harness));
    let begin = harness.now;
    harness.give(vip(1), PEER);
    harness.run(secs(10));
    assert_eq!(harness.claim_times(begin).len(), 1, "{:?}", phase(&harness));
}

#[test]
fn a_retry_does_not_wait_because_of_a_third_party_while_the_peer_has_the_address() {
    let mut harness = held_beside_the_peer();
    losses(&mut harness, 4);
    harness.ec2.refuses = Some(ErrorClass::Throttled);
    let begin = harness.now;
    harness.give(vip(1), PEER);
    while harness.claim_times(begin).is_empty() && begin.until(harness.now) < secs(10) {
        harness.run(ms(10));
    }
    // No other read shows it.
    harness.ec2.read_refuses = Some(ErrorClass::Denied);
    harness.run(secs(2));
    let claims = harness.claim_times(begin);
    assert!(claims.len() >= 4, "{claims:?}");
}

/// Also where MASTER was inferred anew.
#[test]
fn claims_that_reads_cause_are_ten_seconds_apart_only_while_the_peer_has_the_address() {
    for (by, is_apart) in [(PEER, true), (THIRD_PARTY, false)] {
        let mut harness = held_beside_the_peer();
        let begin = harness.now;
        harness.give(vip(1), by);
        harness.tell(Event::ReadNow);
        harness.run(secs(4));
        assert_eq!(harness.ours(), [vip(1)].into(), "{by}");
        harness.give(vip(1), by);
        harness.tell(Event::FifoFull);
        harness.run(secs(20));
        let claims = harness.claim_times(begin);
        assert!(claims.len() == 2 && (claims[1] - claims[0] >= 10_000) == is_apart, "{by}: {claims:?}");
    }
}

#[test]
fn what_one_read_shows_with_the_peer_is_claimed_back_together() {
    let mut harness =
        Harness::settled(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[vip(1), vip(2)])] });
    harness.give(Ipv4Addr::new(10, 0, 0, 2), PEER);
    harness.master("a");
    harness.run(secs(100));
    let begin = harness.now;
    harness.give(vip(1), PEER);
    harness.tell(Event::ReadNow);
    harness.run(secs(4));
    assert_eq!(harness.ours(), [vip(1), vip(2)].into());
    harness.give(vip(1), PEER);
    harness.give(vip(2), PEER);
    harness.tell(Event::ReadNow);
    harness.run(secs(20));
    let claims = harness.claims_since(begin);
    let [(first, alone), (second, together)] = &claims[..] else { panic!("{claims:?}") };
    assert_eq!((alone, together), (&vec![vip(1)], &vec![vip(1), vip(2)]));
    assert!(second - first >= 10_000, "{claims:?}");
}

#[test]
fn another_eni_of_the_peer_s_instance_is_the_peer() {
    let mut harness = Harness::held();
    let other_eni = "eni-0000000f";
    for (id, instance) in [(PEER, "i-0000000b"), (other_eni, "i-0000000b"), (THIRD_PARTY, "i-0000000c")] {
        harness.instances.insert(eni(id), instance.try_into().expect("an id"));
    }
    harness.give(Ipv4Addr::new(10, 0, 0, 2), PEER);
    harness.run(secs(60));
    for (id, expected) in [(PEER, Taker::Peer), (other_eni, Taker::Peer), (THIRD_PARTY, Taker::ThirdParty)] {
        let begin = harness.now;
        harness.give(vip(1), id);
        harness.run(secs(60));
        let lost = harness.log_events(begin).into_iter().filter_map(|(_, log)| match log {
            LogEvent::OwnershipLost { taker, .. } => Some(taker),
            _ => None,
        });
        assert_eq!(lost.collect::<Vec<_>>(), [expected], "{id}");
    }
}

#[test]
fn a_restart_knows_the_peer_from_a_third_party() {
    let mut harness = held_beside_the_peer();
    run_with(&mut harness, PEER, 150);
    assert_eq!(harness.machine.resources[&vip(1).into()].flap_damping.contested_by(), Some(Taker::Peer));
    harness.kill_agent();
    harness.run(secs(1));
    harness.start_agent();
    assert_eq!(harness.machine.resources[&vip(1).into()].flap_damping.contested_by(), Some(Taker::Peer));
    let begin = harness.now;
    run_with(&mut harness, PEER, 60);
    assert!(harness.claim_times(begin).len() >= 4, "{:?}", harness.claim_times(begin));
}

#[test]
fn the_peer_is_known_by_the_read_that_shows_what_it_took() {
    let mut harness = held_beside_the_peer();
    losses(&mut harness, 4);
    assert_eq!(harness.machine.resources[&vip(1).into()].flap_damping.contested_by(), Some(Taker::ThirdParty));
    // Another instance has the peer's address now, and no regular read has told since.
    harness.give(Ipv4Addr::new(10, 0, 0, 2), "eni-0000000f");
    harness.says("a", NotifyState::Master);
    harness.run(secs(80));
    let begin = harness.now;
    harness.give(vip(1), "eni-0000000f");
    harness.run(secs(10));
    assert_eq!(harness.claim_times(begin).len(), 1, "{:?}", phase(&harness));
}
