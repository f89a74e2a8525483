//! B1 to B5: when claims go out, how they are tried again, what goes in one, and when they stop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use fastrand::Rng;

use super::harness::{
    Act, ETH0, ETH1, Fault, Harness, PEER, config, eni, error, group, interface, line, ms, owner, run, secs, vip,
    wanted,
};
use crate::claim::machine::Channel;
use crate::claim::resource::Phase;
use crate::claim::{Action, BootInstant, Cause, ClaimRequest, Event, LogEvent};
use crate::keepalived::groups::{Groups, VirtualAddress};
use crate::model::config::{Config, GroupConfig};
use crate::model::credentials::CredentialsChange;
use crate::model::ec2::ErrorClass;
use crate::model::resource::Resource;
use crate::model::verdict::Verdict;
use crate::model::vrrp::{NotifyState, VrrpState};

/// Groups `g000` and so on, one address each, on eth0.
fn many(count: u8) -> (Vec<String>, Groups) {
    let names: Vec<String> = (0..count).map(|n| format!("g{n:03}")).collect();
    let groups = names.iter().zip(0..).map(|(name, n)| run(name, "eth0", n, &[vip(n)])).collect();
    (names, Groups { groups })
}

fn many_settled(count: u8) -> (Vec<String>, Harness) {
    let (names, groups) = many(count);
    let names_of: Vec<&str> = names.iter().map(String::as_str).collect();
    let harness = Harness::settled(config(&names_of), groups);
    (names, harness)
}

fn gaps(times: &[u64]) -> Vec<u64> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn unknown_because(harness: &Harness, since: BootInstant) -> Vec<Cause> {
    harness
        .log_events(since)
        .into_iter()
        .filter_map(|(_, log)| match log {
            LogEvent::Transition { to: VrrpState::Unknown, cause, .. } => Some(cause),
            _ => None,
        })
        .collect()
}

// ── B1 ──

#[test]
fn a_master_line_claims_before_anything_else_is_done() {
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.master("a");
    assert_eq!(harness.claims_since(begin), [(0, vec![vip(1)])]);
    let first = harness.done.iter().find(|(_, action)| !matches!(action, Action::Log(_)));
    assert!(matches!(first, Some((_, Action::Claim { .. }))), "{first:?}");
    harness.run(ms(50));
    assert_eq!(harness.ours(), [vip(1)].into());
}

#[test]
fn a_claim_names_the_notify_event_that_has_caused_it_whenever_it_is_sent() {
    let (names, mut harness) = many_settled(2);
    let begin = harness.now;
    harness.ec2.claims = vec![Fault::None, Fault::Fails(ErrorClass::Throttled)];
    harness.master(&names[0]);
    harness.run(ms(5));
    harness.master(&names[1]);
    harness.run(secs(2));
    let claims = harness.notified_since(begin);
    let [first, delayed, retry] = &claims[..] else { panic!("{claims:?}") };
    assert_eq!(*first, (0, vec![(vip(0), 0)]));
    assert_eq!(*delayed, (20, vec![(vip(1), 5)]), "it shares the ENI with the first, and is sent later");
    assert_eq!(retry.1, [(vip(1), 5)]);

    // A claim that a read causes names none.
    harness.run(secs(100));
    let begin = harness.now;
    harness.give(vip(0), PEER);
    harness.run(secs(60));
    let claims = harness.notified_since(begin);
    assert!(!claims.is_empty() && claims.iter().all(|(_, notified)| notified.is_empty()), "{claims:?}");
}

#[test]
fn a_claim_that_waits_names_the_first_notify_event_and_one_after_it_the_next() {
    let mut harness = Harness::new(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
    harness.imds = Err(ErrorClass::Transient);
    harness.start_agent();
    harness.backup("a");
    harness.run(secs(10));
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(3));
    harness.says("a", NotifyState::Master);
    assert_eq!(harness.notified_since(begin), [], "the ENI is not known");
    harness.imds = Ok(());
    harness.run(secs(7));
    let claims = harness.notified_since(begin);
    let [(when, notified)] = &claims[..] else { panic!("{claims:?}") };
    assert!((3_000..10_000).contains(when), "{claims:?}");
    assert_eq!(*notified, [(vip(1), 0)]);
    harness.says("a", NotifyState::Master);
    assert_eq!(harness.notified_since(begin)[1], (10_000, vec![(vip(1), 10_000)]));
    harness.backup("a");
    harness.run(secs(1));
    harness.master("a");
    assert_eq!(harness.notified_since(begin)[2], (11_000, vec![(vip(1), 11_000)]));
}

#[test]
fn a_claim_names_the_notify_event_after_the_last_claim_which_failed() {
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.ec2.claims = vec![Fault::Fails(ErrorClass::Throttled); 2];
    harness.master("a");
    harness.run(ms(500));
    harness.says("a", NotifyState::Master);
    let claims = harness.notified_since(begin);
    let [first, retry, last] = &claims[..] else { panic!("{claims:?}") };
    assert_eq!(*first, (0, vec![(vip(1), 0)]));
    assert_eq!(retry.1, [(vip(1), 0)]);
    assert_eq!(*last, (500, vec![(vip(1), 500)]));
}

#[test]
fn rx_lower_pri_claims_after_ten_seconds_without_one() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.says("a", NotifyState::MasterRxLowerPri);
    assert_eq!(harness.claim_times(begin), [0], "the first one");
    harness.run(secs(10));
    harness.says("a", NotifyState::MasterRxLowerPri);
    assert_eq!(harness.claim_times(begin), [0], "the last one was ten seconds ago");
    assert!(harness.read_times(begin).contains(&10_000), "it asks for a read: {:?}", harness.read_times(begin));
    harness.run(ms(10_001));
    harness.says("a", NotifyState::MasterRxLowerPri);
    assert_eq!(harness.claim_times(begin), [0, 20_001], "the last one was longer ago");
}

#[test]
fn lasting_rx_lower_pri_claims_what_another_has_at_most_every_ten_seconds() {
    let mut harness = Harness::held();
    let begin = harness.now;
    for _ in 0..60 {
        harness.says("a", NotifyState::MasterRxLowerPri);
        harness.run(ms(400));
        harness.give(vip(1), PEER);
        harness.run(ms(600));
    }
    let claims = harness.claim_times(begin);
    assert_eq!(claims[0], 0);
    assert!((5..=7).contains(&claims.len()), "{claims:?}");
    assert!(gaps(&claims).iter().all(|gap| *gap >= 10_000), "{claims:?}");
    assert_eq!(harness.ownership_loss_times(begin), [0_u64; 0], "the line says it before two reads could");
}

#[test]
fn rx_lower_pri_needs_one_read_to_claim_what_another_has_also_after_a_verified_claim() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.says("a", NotifyState::MasterRxLowerPri);
    harness.run(secs(6));
    assert_eq!(harness.machine.resources[&vip(1).into()].phase, Phase::Assigned { verified: true, mismatch: None });
    harness.give(vip(1), PEER);
    harness.says("a", NotifyState::MasterRxLowerPri);
    harness.run(secs(20));
    assert_eq!(harness.claim_times(begin), [0, 10_000]);
    assert_eq!(harness.ownership_loss_times(begin), [0_u64; 0]);
}

#[test]
fn lasting_rx_lower_pri_alone_claims_nothing() {
    let mut harness = Harness::held();
    harness.says("a", NotifyState::MasterRxLowerPri);
    let begin = harness.now + ms(1);
    for _ in 0..60 {
        harness.run(secs(1));
        harness.says("a", NotifyState::MasterRxLowerPri);
    }
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    let reads = harness.read_times(begin);
    assert!((12..=18).contains(&reads.len()), "one in five seconds, and the regular ones: {reads:?}");
}

#[test]
fn a_storm_of_transitions_is_bounded() {
    let mut harness = Harness::one();
    harness.ec2.claim_delay = ms(10);
    let begin = harness.now;
    for _ in 0..3_600 {
        harness.master("a");
        harness.run(ms(50));
        harness.backup("a");
        harness.run(ms(50));
    }
    let claims = harness.claim_times(begin);
    // The first ones go at once, and then they are ever further apart.
    assert_eq!(claims[..5], [0, 100, 200, 300, 500]);
    // Twenty are free, and 360 s are worth 150 more.
    assert!((120..=170).contains(&claims.len()), "{}", claims.len());
    let of_last_minute = claims.iter().filter(|when| **when >= 300_000).count();
    assert!((20..=26).contains(&of_last_minute), "{of_last_minute}");
}

#[test]
fn a_claim_beyond_the_allowance_goes_out_as_soon_as_it_may() {
    let mut harness = Harness::one();
    harness.ec2.claim_delay = ms(1);
    let begin = harness.now;
    for _ in 0..25 {
        harness.backup("a");
        harness.run(ms(2));
        harness.master("a");
        harness.run(ms(400));
    }
    harness.run(secs(10));
    let claims = harness.claim_times(begin);
    // Twenty, and one more for each 2.4 s since the first; the last one is not lost.
    let allowed_at = |n: usize| claims[0] + (n.saturating_sub(19) as u64) * 2_400;
    assert!(claims.iter().enumerate().all(|(n, when)| *when >= allowed_at(n)), "{claims:?}");
    assert!(claims.len() >= 23 && claims.last() == Some(&allowed_at(claims.len() - 1)), "{claims:?}");
}

// ── B2 ──

#[test]
fn retries_begin_within_a_fifth_of_a_second_and_never_wait_longer_than_five() {
    for class in [ErrorClass::Transient, ErrorClass::Throttled, ErrorClass::Refused] {
        let mut harness = Harness::one();
        harness.ec2.refuses = Some(class);
        let begin = harness.now;
        harness.master("a");
        harness.run(secs(120));
        // The answer takes 50 ms.
        let waits: Vec<u64> = gaps(&harness.claim_times(begin)).into_iter().map(|gap| gap - 50).collect();
        for (n, wait) in waits.iter().enumerate() {
            let bound = (200 << n.min(10)).min(5_000);
            assert!((bound / 2..=bound).contains(wait), "{class:?}: wait {n} of {waits:?}");
        }
        assert!(waits.len() > 25, "{class:?}: {waits:?}");
        harness.ec2.refuses = None;
        harness.run(secs(6));
        assert_eq!(harness.ours(), [vip(1)].into(), "{class:?}");
    }
}

#[test]
fn a_claim_that_timed_out_and_landed_is_found_by_the_read_beside_the_retry() {
    let mut harness = Harness::one();
    harness.ec2.claims = vec![Fault::LandsUnanswered];
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(60));
    assert_eq!(harness.claim_times(begin), [0]);
    assert!(harness.read_times(begin).contains(&3_000), "{:?}", harness.read_times(begin));
}

#[test]
fn a_read_that_fails_is_not_repeated_for_an_address_that_is_claimed_without_it() {
    let mut harness = Harness::one();
    harness.ec2.refuses = Some(ErrorClass::Throttled);
    harness.ec2.read_refuses = Some(ErrorClass::Transient);
    let begin = harness.now;
    harness.master("a");
    harness.tell(Event::ReadNow);
    harness.run(secs(60));
    assert!(harness.claim_times(begin).len() > 10);
    assert!(harness.read_times(begin).len() <= 3, "the regular ones: {:?}", harness.read_times(begin));
}

#[test]
fn a_claim_that_landed_although_its_answer_was_cut_off_is_found_by_the_read_beside_the_retry() {
    let mut harness = Harness::one();
    harness.ec2.claims = vec![Fault::LandsCutOff];
    harness.ec2.read_delay = ms(20);
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(60));
    assert_eq!(harness.claim_times(begin), [0]);
    assert_eq!(harness.read_times(begin)[0], 50, "{:?}", harness.read_times(begin));
}

#[test]
fn a_read_of_the_mastership_before_does_not_end_the_retries() {
    for class in [ErrorClass::Transient, ErrorClass::TimedOut] {
        let mut harness = Harness::held();
        harness.ec2.stale = secs(60);
        harness.backup("a");
        harness.give(vip(1), PEER);
        harness.run(secs(30));
        harness.ec2.claims = vec![Fault::Fails(class)];
        let begin = harness.now;
        harness.master("a");
        harness.run(secs(4));
        assert_eq!(harness.claim_times(begin).len(), 2, "{class:?}: reads at {:?}", harness.read_times(begin));
        assert_eq!(harness.ours(), [vip(1)].into(), "{class:?}");
    }
}

#[test]
fn successive_time_outs_double_the_bound_up_to_thirty_seconds() {
    let mut harness = Harness::one();
    harness.ec2.refuses = Some(ErrorClass::TimedOut);
    harness.master("a");
    harness.run(secs(180));
    let bounds = |harness: &Harness| -> Vec<u64> {
        let claims = harness.done.iter().filter_map(|(_, action)| match action {
            Action::Claim { timeout, .. } => Some(timeout.as_secs()),
            _ => None,
        });
        claims.collect()
    };
    assert_eq!(bounds(&harness)[..6], [3, 6, 12, 24, 30, 30]);
    harness.ec2.refuses = None;
    harness.run(secs(40));
    assert_eq!(harness.ours(), [vip(1)].into());
    harness.done.clear();
    harness.backup("a");
    harness.master("a");
    assert_eq!(bounds(&harness), [3], "an answer ends it");
}

#[test]
fn time_outs_of_an_outage_before_do_not_lengthen_the_first_attempt_of_a_new_master() {
    for is_new in [true, false] {
        let mut harness = Harness::one();
        harness.ec2.refuses = Some(ErrorClass::TimedOut);
        harness.master("a");
        harness.run(secs(60));
        if is_new {
            harness.backup("a");
            harness.ec2.refuses = None;
            harness.run(secs(60));
        }
        harness.done.clear();
        // Elected again, or anew.
        harness.master("a");
        let bound = harness.done.iter().find_map(|(_, action)| match action {
            Action::Claim { timeout, .. } => Some(*timeout),
            _ => None,
        });
        assert_eq!(bound, Some(secs(3)), "after BACKUP: {is_new}");
    }
}

#[test]
fn permanent_errors_are_tried_again_every_minute() {
    for class in [ErrorClass::Denied, ErrorClass::BadResource] {
        let mut harness = Harness::one();
        harness.ec2.refuses = Some(class);
        let begin = harness.now;
        harness.master("a");
        harness.run(secs(130));
        assert_eq!(harness.claim_times(begin), [0, 60_050, 120_100], "{class:?}");
    }
}

#[test]
fn an_error_that_may_be_mended_gets_one_more_attempt_at_once() {
    for class in [ErrorClass::Clock, ErrorClass::NoSuchInterface] {
        let mut harness = Harness::one();
        harness.ec2.refuses = Some(class);
        let begin = harness.now;
        harness.master("a");
        harness.run(secs(70));
        let claims = harness.claim_times(begin);
        assert_eq!(claims.len(), 3, "{class:?}: {claims:?}");
        assert!((150..=250).contains(&claims[1]), "{class:?}: {claims:?}");
        assert_eq!(claims[2] - claims[1], 60_050, "{class:?}: {claims:?}");
        let asked =
            harness.done.iter().any(|(when, a)| begin.until(*when) == ms(50) && matches!(a, Action::Resolve(_)));
        assert_eq!(asked, class == ErrorClass::NoSuchInterface, "{class:?}");
    }
}

#[test]
fn what_a_person_changes_ends_the_wait_after_a_permanent_error() {
    let ends: [(&str, Act); 4] = [
        ("configuration", |w| w.tell(Event::Config(w.config.clone()))),
        ("credentials", |w| w.tell(Event::Credentials(CredentialsChange::Others))),
        ("line", |w| w.says("a", NotifyState::Master)),
        ("force", |w| w.tell(Event::Force(group("a")))),
    ];
    for (what, end) in ends {
        let mut harness = Harness::one();
        harness.ec2.refuses = Some(ErrorClass::Denied);
        let begin = harness.now;
        harness.master("a");
        harness.run(secs(20));
        harness.ec2.refuses = None;
        end(&mut harness);
        harness.run(ms(50));
        assert_eq!(harness.claim_times(begin), [0, 20_000], "{what}");
        assert_eq!(harness.ours(), [vip(1)].into(), "{what}");
    }
}

#[test]
fn no_retry_more_than_three_seconds_after_the_last_sign_of_life() {
    let mut harness = Harness::one();
    harness.ec2.refuses = Some(ErrorClass::Transient);
    let begin = harness.now;
    harness.master("a");
    harness.run(ms(1_100));
    harness.child_frozen = true;
    harness.run(secs(60));
    // keepalived was last seen active in the first 1.1 s, and liveness counts for three seconds.
    assert!(harness.claim_times(begin).iter().all(|when| *when <= 4_100), "{:?}", harness.claim_times(begin));
    assert_eq!(unknown_because(&harness, begin), [Cause::NoLiveness]);
    let thawed = harness.now;
    harness.ec2.refuses = None;
    harness.child_frozen = false;
    harness.run(secs(3));
    assert_eq!(harness.claim_times(thawed).len(), 1, "{:?}", harness.claim_times(thawed));
    assert!(harness.read_times(thawed)[0] < harness.claim_times(thawed)[0], "who owns it is read first");
    assert_eq!(harness.ours(), [vip(1)].into());
}

#[test]
fn a_first_attempt_that_had_to_wait_needs_life_as_well() {
    let mut harness = Harness::new(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
    harness.imds = Err(ErrorClass::Transient);
    harness.start_agent();
    harness.run(secs(3));
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(1));
    harness.child_frozen = true;
    harness.run(secs(30));
    harness.imds = Ok(());
    harness.run(secs(10));
    assert_eq!(harness.claim_times(begin), [0_u64; 0], "the other router may have taken over long ago");
    harness.child_frozen = false;
    harness.run(secs(3));
    assert_eq!(harness.ours(), [vip(1)].into());
}

#[test]
fn a_timer_that_fires_more_than_two_seconds_late_claims_nothing() {
    for (late, claims) in [(secs(2), true), (secs(2) + ms(1), false)] {
        let mut harness = Harness::one();
        harness.ec2.claims = vec![Fault::Fails(ErrorClass::Transient)];
        harness.master("a");
        harness.run(ms(50));
        let due = harness.machine.deadline().expect("the retry");
        let actions = harness.machine.handle(due + late, Event::Tick);
        let claimed = actions.iter().any(|a| matches!(a, Action::Claim { .. }));
        let invalidated = actions.iter().any(|a| {
            matches!(a, Action::Log(LogEvent::Transition { to: VrrpState::Unknown, cause: Cause::Stalled, .. }))
        });
        assert_eq!((claimed, invalidated), (claims, !claims), "{late:?}: {actions:?}");
    }
}

#[test]
fn a_router_that_thaws_does_not_steal() {
    let mut harness = Harness::one();
    harness.ec2.refuses = Some(ErrorClass::Transient);
    harness.master("a");
    harness.run(ms(100));
    harness.ec2.refuses = None;
    harness.freeze(secs(60));
    harness.run(secs(60));
    let thawed = harness.now;
    // keepalived hears the other router within a few milliseconds.
    harness.run(ms(5));
    harness.backup("a");
    harness.run(secs(120));
    assert_eq!(harness.claim_times(thawed), [0_u64; 0]);
    assert_eq!(harness.owner(vip(1)), Some(PEER));
}

#[test]
fn lines_that_waited_while_this_router_was_stalled_are_of_the_past() {
    let mut harness = Harness::held();
    harness.backup("a");
    harness.run(ms(10));
    let due = harness.machine.deadline().expect("a deadline");
    let now = due + secs(3);
    let actions = harness.machine.handle(now, Event::Notify(vec![line("a", NotifyState::Master)]));
    assert!(!actions.iter().any(|a| matches!(a, Action::Claim { .. })), "{actions:?}");
}

#[test]
fn a_standby_that_was_frozen_between_two_timers_claims_nothing_on_a_stale_line() {
    // Whichever comes first: the timer that was due in the stall, or the line; and the other router is heard at once, or only
    // with its next advertisement.
    for (asleep, stale, tick_first) in [
        (secs(5), ms(1), false),
        (secs(5), ms(1), true),
        (secs(5), ms(990), true),
        (secs(10), ms(990), false),
        (secs(20), ms(500), true),
        (secs(3_600), ms(990), true),
    ] {
        let mut harness = Harness::one();
        harness.run(secs(1));
        harness.stale = Some(stale);
        harness.freeze(asleep);
        if tick_first {
            harness.run(asleep - ms(1));
            harness.tell(Event::Tick);
            harness.run(ms(1));
        }
        let begin = harness.now;
        harness.run(secs(60) + asleep);
        assert_eq!(harness.claim_times(begin), [0_u64; 0], "asleep for {asleep:?}, stale for {stale:?}");
        assert_eq!(harness.owner(vip(1)), Some(PEER));
        // And it is a standby as before.
        let begin = harness.now;
        harness.master("a");
        assert_eq!(harness.claim_times(begin), [0]);
    }
}

#[test]
fn a_standby_that_the_other_router_left_alone_in_a_stall_claims_a_moment_after_it() {
    let mut harness = Harness::one();
    harness.run(secs(1));
    harness.freeze(secs(60));
    harness.run(secs(60));
    let begin = harness.now;
    harness.run(ms(2));
    harness.master("a");
    harness.run(secs(4));
    let claims = harness.claim_times(begin);
    assert!(claims.len() == 1 && claims[0] < 3_000, "{claims:?}");
    assert_eq!(harness.ours(), [vip(1)].into());
}

// ── B3 ──

#[test]
fn whatever_ends_mastership_drops_what_waits() {
    for state in [NotifyState::Backup, NotifyState::Fault, NotifyState::Stop, NotifyState::Deleted] {
        let mut harness = Harness::one();
        harness.ec2.refuses = Some(ErrorClass::Transient);
        harness.master("a");
        harness.run(ms(60));
        let begin = harness.now;
        harness.ec2.refuses = None;
        harness.becomes("a", state);
        harness.run(secs(600));
        assert_eq!(harness.claim_times(begin), [0_u64; 0], "{state:?}");
        assert_eq!(harness.owner(vip(1)), Some(PEER), "{state:?}");
    }
}

#[test]
fn of_lines_that_are_read_together_the_last_one_decides() {
    use NotifyState::{Backup, Master};
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.write(vec![line("a", Master), line("a", Backup)]);
    harness.run(secs(60));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    harness.write(vec![line("a", Backup), line("a", Master)]);
    assert_eq!(harness.claim_times(begin), [60_000]);
}

// ── B4 ──

#[test]
fn fifty_groups_take_two_requests_and_little_more_than_one_calls_time() {
    let (names, mut harness) = many_settled(50);
    harness.ec2.claim_delay = ms(300);
    let begin = harness.now;
    // keepalived writes their lines over about 4 ms; the first read holds two of them.
    for (n, chunk) in names.chunks(12).enumerate() {
        let states: Vec<(&str, NotifyState)> = chunk.iter().map(|g| (g.as_str(), NotifyState::Master)).collect();
        let (first, rest) = states.split_at(if n == 0 { 2 } else { 0 });
        harness.all_become(first);
        harness.all_become(rest);
        harness.run(ms(1));
    }
    harness.run(ms(385));
    let claims = harness.claims_since(begin);
    assert_eq!(claims.iter().map(|(when, ips)| (*when, ips.len())).collect::<Vec<_>>(), [(0, 2), (20, 48)]);
    assert_eq!(harness.ours().len(), 50, "within 1.3 calls' time");
    harness.run(secs(100));
    assert_eq!(harness.claims_since(begin).len(), 2);
}

#[test]
fn two_hundred_groups_take_three_requests_at_most() {
    let (names, mut harness) = many_settled(200);
    harness.ec2.claim_delay = ms(300);
    let begin = harness.now;
    for chunk in names.chunks(7) {
        harness.all_become(&chunk.iter().map(|g| (g.as_str(), NotifyState::Master)).collect::<Vec<_>>());
        harness.run(ms(1));
    }
    harness.run(secs(60));
    let claims = harness.claims_since(begin);
    assert!(claims.len() <= 3, "{claims:?}");
    assert_eq!(claims.iter().map(|(_, ips)| ips.len()).sum::<usize>(), 200, "none is lost, none goes twice");
    assert_eq!(harness.ours().len(), 200);
}

#[test]
fn the_third_claim_waits_for_an_answer() {
    let (names, mut harness) = many_settled(3);
    harness.ec2.claim_delay = ms(300);
    let begin = harness.now;
    for name in &names {
        harness.master(name);
        harness.run(ms(9));
    }
    harness.run(secs(1));
    assert_eq!(harness.claims_since(begin), [(0, vec![vip(0)]), (20, vec![vip(1), vip(2)])]);
    harness.run(secs(10));
    let begin = harness.now;
    for name in &names {
        harness.says(name, NotifyState::Master);
        harness.run(ms(45));
    }
    harness.run(secs(1));
    assert_eq!(harness.claims_since(begin), [(0, vec![vip(0)]), (45, vec![vip(1)]), (300, vec![vip(2)])]);
}

#[test]
fn a_line_is_claimed_for_at_once_whatever_is_in_flight() {
    let again: [(&str, Act); 4] = [
        ("BACKUP and MASTER", |w| w.all_become(&[("a", NotifyState::Backup), ("a", NotifyState::Master)])),
        ("MASTER once more", |w| w.says("a", NotifyState::Master)),
        ("MASTER_RX_LOWER_PRI", |w| w.says("a", NotifyState::MasterRxLowerPri)),
        ("force", |w| w.tell(Event::Force(group("a")))),
    ];
    for (what, again) in again {
        let mut harness = Harness::one();
        // The address is claimed by a request that is lost; a router between goes down with it.
        harness.ec2.claims = vec![Fault::Fails(ErrorClass::TimedOut); 4];
        harness.master("a");
        harness.run(secs(60));
        harness.says("a", NotifyState::Master);
        harness.ec2.claims = vec![Fault::Fails(ErrorClass::TimedOut)];
        harness.run(secs(20));
        harness.ec2.claims = vec![Fault::Fails(ErrorClass::TimedOut)];
        harness.says("a", NotifyState::Master);
        harness.run(ms(500));
        let begin = harness.now;
        again(&mut harness);
        harness.run(secs(2));
        assert_eq!(harness.claim_times(begin)[0], 0, "{what}");
        assert_eq!(harness.ours(), [vip(1)].into(), "{what}");
    }
}

#[test]
fn what_hangs_from_before_a_line_of_another_group_holds_it_up_for_a_moment_at_most() {
    let (names, mut harness) = many_settled(3);
    harness.ec2.claims = vec![Fault::Fails(ErrorClass::TimedOut), Fault::Fails(ErrorClass::TimedOut)];
    harness.master(&names[0]);
    harness.run(ms(100));
    harness.master(&names[1]);
    harness.run(ms(500));
    let begin = harness.now;
    harness.master(&names[2]);
    assert_eq!(harness.claims_since(begin), [(0, vec![vip(2)])]);
    harness.run(ms(60));
    assert_eq!(harness.ours(), [vip(2)].into());
}

#[test]
fn three_claims_are_in_flight_at_most() {
    let mut harness = Harness::one();
    harness.ec2.refuses = Some(ErrorClass::TimedOut);
    let begin = harness.now;
    for _ in 0..20 {
        harness.backup("a");
        harness.master("a");
        harness.run(ms(500));
    }
    let claims = harness.claim_times(begin);
    assert_eq!(claims[..3], [0, 500, 1_000]);
    // Each is given up after 3 s; three are under way at any time.
    assert!(claims.windows(4).all(|four| four[3] - four[0] >= 3_000), "{claims:?}");
}

#[test]
fn what_was_in_flight_before_a_line_decides_nothing_after_it() {
    let mut harness = Harness::one();
    harness.ec2.claims = vec![Fault::Fails(ErrorClass::TimedOut)];
    harness.master("a");
    harness.run(secs(2));
    harness.backup("a");
    harness.run(ms(100));
    harness.ec2.refuses = Some(ErrorClass::Transient);
    let begin = harness.now;
    harness.master("a");
    // The claim of before is given up while the new mastership is between two attempts.
    harness.run(secs(5));
    let claims = harness.claim_times(begin);
    assert!(claims.len() >= 4 && claims[1] <= 250, "{claims:?}");
    let bounds = harness.done.iter().filter_map(|(when, action)| match action {
        Action::Claim { timeout, .. } if *when >= begin => Some(*timeout),
        _ => None,
    });
    assert!(bounds.into_iter().all(|bound| bound == secs(3)), "the time-out of before lengthens no attempt");
    // It may have been performed: a read goes out.
    assert!(harness.read_times(begin).contains(&900), "{:?}", harness.read_times(begin));
}

#[test]
fn reads_are_judged_although_a_claim_of_before_hangs() {
    let mut harness = Harness::one();
    harness.ec2.claims = vec![Fault::Fails(ErrorClass::TimedOut)];
    harness.master("a");
    harness.run(ms(100));
    harness.backup("a");
    harness.run(ms(100));
    let begin = harness.now;
    harness.master("a");
    harness.run(ms(1_200));
    assert_eq!(harness.claim_times(begin), [0]);
    assert_eq!(harness.machine.resources[&vip(1).into()].phase, Phase::Assigned { verified: true, mismatch: None });
}

#[test]
fn an_address_is_claimed_again_if_the_peer_had_it_meanwhile() {
    let mut harness = Harness::one();
    harness.ec2.claim_delay = ms(1_000);
    let begin = harness.now;
    harness.master("a");
    harness.run(ms(100));
    harness.backup("a");
    // The peer's claim lands after the first one of this router.
    harness.run(ms(500));
    harness.give(vip(1), PEER);
    harness.run(ms(100));
    harness.master("a");
    harness.run(secs(5));
    assert_eq!(harness.claim_times(begin), [0, 700]);
    assert_eq!(harness.ours(), [vip(1)].into());
}

/// The lines of so many groups over a second, evenly or at random, and what a call takes.
fn spread_over_a_second(count: u8, at_random: bool, call: u64) -> (BootInstant, Vec<u64>, Harness) {
    let (names, mut harness) = many_settled(count);
    harness.ec2.claim_delay = ms(call);
    let mut rng = Rng::with_seed(u64::from(count));
    let mut times: Vec<u64> = (0..u64::from(count))
        .map(|n| if at_random { rng.u64(0..1_000_000) } else { n * 1_000_000 / u64::from(count) })
        .collect();
    times.sort_unstable();
    let begin = harness.now;
    for (name, at) in names.iter().zip(&times) {
        harness.run(Duration::from_micros(*at) - begin.until(harness.now));
        harness.master(name);
    }
    harness.run(secs(3));
    (begin, times.into_iter().map(|micros| micros / 1_000).collect(), harness)
}

#[test]
fn groups_whose_lines_are_spread_over_a_second_share_requests() {
    for (count, at_random, call) in [10, 40, 100, 200]
        .into_iter()
        .flat_map(|count| [false, true].map(|at_random| (count, at_random)))
        .flat_map(|(count, at_random)| [1, 300].map(|call| (count, at_random, call)))
    {
        let (begin, lines, harness) = spread_over_a_second(count, at_random, call);
        let what = format!("{count} groups, at random: {at_random}, {call} ms a call");
        let claims = harness.claims_since(begin);
        assert!(claims.len() <= 8, "{what}: {claims:?}");
        assert_eq!(harness.ours().len(), usize::from(count), "{what}");
        for (n, line) in lines.iter().enumerate() {
            let claimed = claims.iter().find(|(_, ips)| ips.contains(&vip(n as u8))).map(|(when, _)| *when);
            let waited = claimed.map(|when| when - line);
            // A call more where two are in flight already.
            assert!(waited.is_some_and(|waited| waited <= 400 + call), "{what}: {n} of {line} at {claimed:?}");
        }
    }
}

/// Without the VPC no owner can be read, although the ENI is configured.
#[test]
fn an_owner_is_left_unread_only_if_imds_has_failed_and_never_answered() {
    let claims = |is_known: bool, has_failed: bool| {
        let mut harness = Harness::held();
        let now = harness.now;
        let interface_eni = harness.machine.interface_enis.get_mut(&interface("eth0")).expect("the interface");
        interface_eni.eni.take_if(|_| !is_known);
        interface_eni.error = has_failed.then(|| error(ErrorClass::Transient));
        let address = harness.machine.resources.get_mut(&vip(1).into()).expect("the address");
        address.phase = Phase::CheckOwner { since: now };
        harness.machine.adopt_unread(now);
        !matches!(harness.machine.resources[&vip(1).into()].phase, Phase::CheckOwner { .. })
    };
    let all = [(true, true), (true, false), (false, true), (false, false)];
    assert_eq!(all.map(|(is_known, has_failed)| claims(is_known, has_failed)), [false, false, true, false]);
}

#[test]
fn failovers_soon_after_one_another_are_no_slower() {
    let (begin, _, mut harness) = spread_over_a_second(40, false, 1);
    let names: Vec<String> = (0..40).map(|n| format!("g{n:03}")).collect();
    for _ in 0..3 {
        let backup: Vec<(&str, NotifyState)> = names.iter().map(|n| (n.as_str(), NotifyState::Backup)).collect();
        harness.all_become(&backup);
        harness.run(secs(5));
        let again = harness.now;
        for (n, name) in names.iter().enumerate() {
            harness.run(ms(25 * n as u64) - again.until(harness.now));
            harness.master(name);
        }
        harness.run(ms(500));
        assert_eq!(
            harness.ours().len(),
            40,
            "{:?} after {:?}",
            harness.claims_since(again),
            harness.claims_since(begin)
        );
        assert_eq!(harness.claim_times(again)[0], 0, "the first one goes at once");
        assert!(harness.claims_since(again).len() <= 8, "{:?}", harness.claims_since(again));
    }
}

#[test]
fn each_eni_has_its_own_claims() {
    let mut c = run("c", "eth0", 12, &[vip(5)]);
    c.addresses.push(VirtualAddress { address: vip(6), interface: Some(interface("eth1")) });
    let mut harness = Harness::settled(config(&["c"]), Groups { groups: vec![c] });
    harness.master("c");
    let claims: BTreeMap<String, Vec<Ipv4Addr>> = harness
        .done
        .iter()
        .filter_map(|(_, action)| match action {
            Action::Claim { request: ClaimRequest::Addresses { eni, addresses }, .. } => {
                Some((eni.to_string(), addresses.clone()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(claims, [(ETH0.to_owned(), vec![vip(5)]), (ETH1.to_owned(), vec![vip(6)])].into());
}

#[test]
fn the_answer_to_a_read_that_began_before_a_claim_is_discarded() {
    let mut harness = Harness::held();
    harness.ec2.read_delay = ms(500);
    harness.give(vip(1), PEER);
    let begin = harness.now;
    harness.tell(Event::ReadNow);
    harness.run(ms(260));
    harness.says("a", NotifyState::Master);
    harness.run(ms(700));
    assert_eq!(harness.claim_times(begin), [260]);
    let owner_read = |harness: &Harness| {
        harness.machine.resources[&vip(1).into()].owner_read.as_ref().map(|owner_read| owner_read.began)
    };
    assert!(owner_read(&harness) < Some(begin), "the other owner is of the past");
    harness.ec2.read_delay = ms(20);
    harness.run(secs(60));
    assert_eq!(harness.claim_times(begin), [260]);
    assert_eq!(harness.ownership_loss_times(begin), [0_u64; 0]);
}

#[test]
fn a_read_that_began_before_a_claim_does_not_confirm_it() {
    let mut harness = Harness::held();
    harness.ec2.read_delay = ms(500);
    let begin = harness.now;
    harness.tell(Event::ReadNow);
    harness.run(ms(260));
    harness.says("a", NotifyState::Master);
    harness.run(ms(300));
    assert_eq!(harness.read_times(begin), [0]);
    let phase = &harness.machine.resources[&vip(1).into()].phase;
    assert_eq!(*phase, Phase::Assigned { verified: false, mismatch: None });
}

#[test]
fn a_read_beside_a_claim_in_flight_does_not_change_the_previous_owner_in_the_log() {
    let mut harness = Harness::one();
    harness.ec2.claim_delay = ms(400);
    let begin = harness.now;
    harness.master("a");
    harness.run(ms(300));
    assert_eq!(harness.ours(), [vip(1)].into(), "EC2 has performed the claim");
    harness.tell(Event::ReadNow);
    harness.run(ms(200));
    assert_eq!(harness.read_times(begin), [300]);
    let previous = harness.log_events(begin).into_iter().find_map(|(_, log)| match log {
        LogEvent::Claim { previous, .. } => Some(previous),
        _ => None,
    });
    assert_eq!(previous, Some(Some(owner(PEER))));
}

// ── B5 ──

#[test]
fn one_bad_address_does_not_hold_back_the_others() {
    let addresses: Vec<Ipv4Addr> = (0..32).map(vip).collect();
    let mut harness = Harness::settled(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &addresses)] });
    harness.ec2.bad = [vip(13).into()].into();
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(2));
    let good: BTreeSet<Ipv4Addr> = addresses.iter().copied().filter(|ip| *ip != vip(13)).collect();
    assert_eq!(harness.ours(), good);
    let claims = harness.claims_since(begin);
    assert_eq!(claims.len(), 11, "a bisection of 32: {claims:?}");
    harness.run(secs(120));
    let later = harness.claims_since(begin + secs(2));
    assert_eq!(later.len(), 2, "{later:?}");
    assert!(later.iter().all(|(_, ips)| *ips == [vip(13)]), "alone, every minute: {later:?}");
    // What was found bad goes alone even if all are claimed anew.
    let again = harness.now;
    harness.says("a", NotifyState::Master);
    harness.run(ms(40));
    let sizes: Vec<usize> = harness.claims_since(again).iter().map(|(_, ips)| ips.len()).collect();
    assert_eq!(sizes, [31, 1]);
    // A new configuration may have mended it.
    harness.ec2.bad.clear();
    harness.run(secs(3));
    let again = harness.now;
    harness.tell(Event::Config(harness.config.clone()));
    harness.run(secs(1));
    assert_eq!(harness.claims_since(again).iter().map(|(_, ips)| ips.clone()).collect::<Vec<_>>(), [vec![vip(13)]]);
    assert_eq!(harness.ours().len(), 32);
}

#[test]
fn addresses_that_are_refused_take_turns() {
    let addresses: Vec<Ipv4Addr> = (0..32).map(vip).collect();
    let mut harness = Harness::settled(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &addresses)] });
    harness.ec2.bad = addresses.iter().copied().filter(|ip| *ip != vip(31)).map(Resource::Address).collect();
    harness.ec2.bad_class = ErrorClass::Refused;
    harness.master("a");
    harness.run(secs(150));
    assert_eq!(harness.ours(), [vip(31)].into());
    let begin = harness.now;
    harness.run(secs(200));
    let mut tried: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
    for (_, ips) in harness.claims_since(begin) {
        assert_eq!(ips.len(), 1, "{ips:?}");
        *tried.entry(ips[0]).or_default() += 1;
    }
    assert_eq!(tried.len(), 31, "{tried:?}");
    assert!(tried.values().all(|times| (2..=3).contains(times)), "{tried:?}");
    harness.ec2.bad.clear();
    harness.run(secs(100));
    assert_eq!(harness.ours().len(), 32);
}

#[test]
fn retries_do_not_delay_the_first_attempt_of_another_group() {
    let bad: Vec<Ipv4Addr> = (0..31).map(vip).collect();
    let groups = Groups { groups: vec![run("a", "eth0", 10, &bad), run("b", "eth0", 11, &[vip(100)])] };
    for class in [ErrorClass::Refused, ErrorClass::BadResource] {
        let mut harness = Harness::settled(config(&["a", "b"]), groups.clone());
        harness.ec2.bad = bad.iter().copied().map(Resource::Address).collect();
        harness.ec2.bad_class = class;
        harness.master("a");
        harness.run(secs(600));
        for _ in 0..5 {
            let begin = harness.now;
            harness.master("b");
            harness.run(secs(5));
            let claims = harness.claims_since(begin);
            let first = claims.iter().find(|(_, ips)| ips.contains(&vip(100)));
            // Two retries may be in flight.
            assert!(first.is_some_and(|(at, _)| *at <= 50), "{class:?}: {claims:?}");
            harness.backup("b");
            harness.give(vip(100), PEER);
        }
    }
}

#[test]
fn what_all_were_refused_for_keeps_none_apart_once_it_is_over() {
    let (names, mut harness) = many_settled(40);
    let all: Vec<(&str, NotifyState)> = names.iter().map(|name| (name.as_str(), NotifyState::Master)).collect();
    harness.ec2.refuses = Some(ErrorClass::Refused);
    harness.all_become(&all);
    harness.run(secs(300));
    assert_eq!(harness.ours(), BTreeSet::new());
    harness.ec2.refuses = None;
    let begin = harness.now;
    harness.run(secs(10));
    assert_eq!(harness.ours().len(), 40, "{:?}", harness.claims_since(begin));

    harness.ec2.refuses = Some(ErrorClass::Refused);
    harness.all_become(&all);
    harness.run(secs(300));
    let backup: Vec<(&str, NotifyState)> = names.iter().map(|name| (name.as_str(), NotifyState::Backup)).collect();
    harness.all_become(&backup);
    harness.ec2.refuses = None;
    harness.run(secs(60));
    let begin = harness.now;
    harness.all_become(&all);
    harness.run(secs(1));
    assert_eq!(harness.claims_since(begin).iter().map(|(_, ips)| ips.len()).collect::<Vec<_>>(), [40]);
}

/// network-interface-id is set, IMDS is silent, and EC2 fails: each claim that fails asks for a read, and none can be sent.
#[test]
fn reads_that_cannot_be_sent_do_not_pile_up() {
    let configured = GroupConfig { network_interface_id: Some(eni(ETH0)), ..wanted("a") };
    let config = Config { groups: vec![configured], ..Config::default() };
    let mut harness = Harness::new(config, Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
    harness.imds = Err(ErrorClass::Transient);
    harness.ec2.refuses = Some(ErrorClass::Transient);
    harness.start_agent();
    harness.master("a");
    harness.run(secs(3_600));
    assert!(harness.claim_times(BootInstant::default()).len() > 500);
    harness.imds = Ok(());
    harness.ec2.refuses = None;
    let begin = harness.now;
    harness.run(secs(30));
    assert_eq!(harness.reported().map(|a| a.verdict), Some(Verdict::Ok), "{:?}", harness.read_times(begin));
}

#[test]
fn network_interfaces_that_came_and_went_are_forgotten() {
    let mut harness = Harness::held();
    for n in 0..200 {
        harness.enis.insert(interface("eth0"), eni(&format!("eni-{n:08x}")));
        harness.run(secs(40));
    }
    assert!(harness.claim_times(BootInstant::default()).len() >= 200);
    assert!(harness.machine.channels.len() <= 3, "{:?}", harness.machine.channels.keys());
}

#[test]
fn retries_of_addresses_that_failed_apart_go_out_together() {
    let (names, mut harness) = many_settled(2);
    harness.ec2.refuses = Some(ErrorClass::Throttled);
    let begin = harness.now;
    harness.master(&names[0]);
    harness.run(ms(70));
    harness.master(&names[1]);
    harness.run(secs(3));
    let addresses: Vec<_> = harness.claims_since(begin).into_iter().map(|(_, addresses)| addresses).collect();
    assert_eq!(addresses[..2], [vec![vip(0)], vec![vip(1)]]);
    assert!(addresses.len() >= 5, "{addresses:?}");
    // Whichever is due first, the other one joins it.
    let together = |both: &Vec<Ipv4Addr>| *both == [vip(0), vip(1)] || *both == [vip(1), vip(0)];
    assert!(addresses[2..].iter().all(together), "{addresses:?}");
}

#[test]
fn a_line_that_finds_no_claim_left_is_claimed_for_when_there_is_one() {
    let mut harness = Harness::one();
    // No liveness event wakes the machine in between.
    harness.beat = secs(60);
    harness.master("a");
    harness.run(secs(1));
    harness.backup("a");
    let limiter = &mut harness.machine.channel(&Channel::Addresses(eni(ETH0))).rate_limiter;
    while limiter.next(harness.now) <= harness.now {
        limiter.take(harness.now, false);
    }
    let free = limiter.next(harness.now);
    harness.run(ms(1_000));
    let begin = harness.now;
    let allowed = begin.until(free).as_millis() as u64;
    assert!(allowed > 0 && allowed < 1_900, "{allowed}");
    harness.master("a");
    harness.run(ms(1_900));
    assert_eq!(harness.claim_times(begin), [allowed]);
}
