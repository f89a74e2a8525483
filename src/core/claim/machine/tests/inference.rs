//! B8 to B10, B13, B18 and B19: what is known without a line, and what changes under the machine's feet.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::harness::{
    Act, ETH0, Fault, Harness, PEER, THIRD_PARTY, config, eni, group, interface, line, ms, network_interface, run,
    secs, vip, wanted,
};
use crate::claim::machine::inference::liveness_max_age;
use crate::claim::{Action, BootInstant, Cause, Event, LogEvent, Misplaced, PutBy, RequestRefusal};
use crate::keepalived::groups::Groups;
use crate::model::config::{Config, GroupConfig};
use crate::model::ec2::ErrorClass;
use crate::model::vrrp::{NotifyState, VrrpState};

fn one_group() -> Groups {
    Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] }
}

/// The agent is not running, keepalived is MASTER, and nobody reads the lines.
fn before_the_start() -> Harness {
    let mut harness = Harness::new(config(&["a"]), one_group());
    harness.master("a");
    harness.run(secs(10));
    harness
}

fn transitions(harness: &Harness, since: BootInstant) -> Vec<(VrrpState, Cause)> {
    let log_events = harness.log_events(since).into_iter();
    log_events
        .filter_map(|(_, n)| if let LogEvent::Transition { to, cause, .. } = n { Some((to, cause)) } else { None })
        .collect()
}

/// A group becomes UNKNOWN, and the addresses then show this state.
fn inferred_after(why: Cause, state: VrrpState) -> [(VrrpState, Cause); 2] {
    [(VrrpState::Unknown, why), (state, Cause::Inferred)]
}

fn placements(harness: &Harness, since: BootInstant) -> Vec<(Ipv4Addr, Option<Misplaced>)> {
    let of =
        |(_, log)| if let LogEvent::Placement { address, wrong, .. } = log { Some((address, wrong)) } else { None };
    harness.log_events(since).into_iter().filter_map(of).collect()
}

// ── B8 ──

#[test]
fn two_seconds_without_a_writer_mean_unknown_and_no_claim() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.kill_keepalived();
    harness.run(ms(1_999));
    assert_eq!(transitions(&harness, begin), []);
    harness.run(ms(1));
    assert_eq!(transitions(&harness, begin), [(VrrpState::Unknown, Cause::NoWriter)]);
    harness.give(vip(1), PEER);
    harness.run(secs(200));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    assert!(harness.local.contains(&vip(1)), "the address stays on the interface all the while");
}

#[test]
fn a_gap_of_less_than_two_seconds_is_nothing() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.tell(Event::Writer(false));
    harness.run(ms(1_999));
    harness.tell(Event::Writer(true));
    harness.run(secs(60));
    assert_eq!(transitions(&harness, begin), []);
    harness.says("a", NotifyState::Master);
    assert_eq!(harness.claim_times(begin).len(), 1);
}

#[test]
fn keepalived_that_starts_again_clears_its_old_address_and_nothing_is_claimed() {
    let mut harness = Harness::held();
    harness.kill_keepalived();
    harness.run(secs(30));
    harness.give(vip(1), PEER);
    let begin = harness.now;
    harness.start_keepalived();
    harness.run(secs(60));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    harness.master("a");
    assert_eq!(harness.claim_times(begin).len(), 1);
}

#[test]
fn when_the_writer_is_back_life_from_before_does_not_count() {
    let mut harness = Harness::held();
    harness.tell(Event::Writer(false));
    harness.run(secs(10));
    harness.give(vip(1), PEER);
    let begin = harness.now;
    harness.child_frozen = true;
    harness.tell(Event::Writer(true));
    harness.tell(Event::Liveness { after: begin - ms(1) });
    harness.run(secs(10));
    assert_eq!(transitions(&harness, begin), []);
    harness.child_frozen = false;
    harness.run(secs(5));
    assert_eq!(transitions(&harness, begin), [(VrrpState::Master, Cause::Inferred)]);
    assert_eq!(harness.claim_times(begin).len(), 1);
}

// ── B9 ──

#[test]
fn an_agent_that_starts_late_claims_what_is_not_ours() {
    let mut harness = before_the_start();
    let begin = harness.now;
    harness.start_agent();
    harness.run(secs(5));
    let [read, claim] = [harness.read_times(begin), harness.claim_times(begin)];
    assert_eq!(claim.len(), 1);
    assert!(read.iter().any(|read| read + 20 == claim[0]), "read {read:?}, claimed {claim:?}");
    assert_eq!(harness.ours(), [vip(1)].into());
    assert_eq!(transitions(&harness, begin), [(VrrpState::Master, Cause::Inferred)]);
}

#[test]
fn an_agent_that_starts_late_leaves_alone_what_is_ours() {
    let mut harness = before_the_start();
    harness.give(vip(1), ETH0);
    let begin = harness.now;
    harness.start_agent();
    harness.run(secs(100));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
}

#[test]
fn at_the_start_keepalived_must_be_alive() {
    let mut harness = before_the_start();
    harness.child_frozen = true;
    let begin = harness.now;
    harness.start_agent();
    harness.run(secs(100));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    assert_eq!(transitions(&harness, begin), []);
    harness.child_frozen = false;
    harness.run(secs(3));
    assert_eq!(harness.claim_times(begin).len(), 1);
}

#[test]
fn keepalived_may_have_little_to_do() {
    let mut harness = before_the_start();
    harness.beat = secs(10);
    harness.start_agent();
    harness.run(secs(25));
    assert_eq!(harness.ours(), [vip(1)].into());
    harness.give(vip(1), THIRD_PARTY);
    harness.run(secs(120));
    assert_eq!(harness.ours(), [vip(1)].into());
}

/// One group that advertises once in so many seconds.
fn advertising(interval: u64) -> Groups {
    let mut groups = one_group();
    groups.groups[0].advertise_interval = (interval * 1_000).try_into().expect("an interval");
    groups
}

#[test]
fn a_group_that_advertises_seldom_is_not_taken_for_dead() {
    for interval in [1, 3, 5, 10, 60, 255] {
        let mut harness = Harness::new(config(&["a"]), advertising(interval));
        harness.beat = secs(interval);
        harness.start_agent();
        harness.backup("a");
        harness.run(secs(10));
        // A failed claim is retried with hardly any keepalived activity.
        harness.ec2.claims = vec![Fault::Fails(ErrorClass::Transient), Fault::Fails(ErrorClass::Denied)];
        let begin = harness.now;
        harness.master("a");
        harness.run(secs(100));
        assert_eq!(harness.ours(), [vip(1)].into(), "every {interval} s");
        // And what is taken away is taken back with the next one.
        for other in [PEER, THIRD_PARTY] {
            harness.give(vip(1), other);
            harness.run(secs(40 + 2 * interval));
            assert_eq!(harness.ours(), [vip(1)].into(), "every {interval} s");
        }
        let unknown = transitions(&harness, begin).iter().filter(|(to, _)| *to == VrrpState::Unknown).count();
        assert_eq!(unknown, 0, "every {interval} s: {:?}", transitions(&harness, begin));
    }
}

#[test]
fn a_group_that_advertises_seldom_and_hangs_is_taken_for_dead() {
    let mut harness = Harness::new(config(&["a"]), advertising(10));
    harness.beat = secs(10);
    harness.start_agent();
    harness.backup("a");
    harness.run(secs(10));
    harness.master("a");
    harness.run(secs(100));
    let begin = harness.now;
    harness.child_frozen = true;
    harness.give(vip(1), PEER);
    harness.run(secs(120));
    assert_eq!(transitions(&harness, begin), [(VrrpState::Unknown, Cause::NoLiveness)]);
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
}

#[test]
fn a_group_in_fault_has_no_timer_and_does_not_hang() {
    let mut harness = Harness::one();
    harness.becomes("a", NotifyState::Fault);
    harness.run(secs(60));
    // Nothing tells the new agent of the line that the old one read.
    let begin = harness.now;
    harness.kill_agent();
    harness.start_agent();
    harness.run(secs(10));
    assert_eq!(transitions(&harness, begin), [(VrrpState::Fault, Cause::NoTimer)]);
    let address = harness.reported().expect("the address");
    assert_eq!(address.verdict.to_string(), "STANDBY-NOT-READY");
    let reason = address.reason.expect("a reason");
    assert!(reason.contains("keepalived has no timer set"), "{reason}");
    let samples = harness.samples;
    // So it is after whatever else makes it doubtful.
    let begin = harness.now;
    harness.tell(Event::FifoFull);
    harness.run(secs(10));
    assert_eq!(
        transitions(&harness, begin),
        [(VrrpState::Unknown, Cause::FifoFull), (VrrpState::Fault, Cause::NoTimer)]
    );
    assert!(harness.samples <= samples + 50, "{} looks", harness.samples - samples);
    let begin = harness.now;
    harness.master("a");
    assert_eq!(harness.claim_times(begin), [0]);
}

#[test]
fn a_group_in_fault_stays_backup_only_while_keepalived_has_a_timer() {
    for (interval, latest) in [(1, 6), (10, 42)] {
        let mut harness = Harness::settled(config(&["a"]), advertising(interval));
        harness.becomes("a", NotifyState::Fault);
        harness.run(secs(60));
        harness.kill_agent();
        harness.start_agent();
        harness.run(ms(730));
        // Something in the network changes, and keepalived looks at it.
        let begin = harness.now;
        harness.last_beat = harness.now;
        harness.run(secs(2));
        assert_eq!(transitions(&harness, begin), [(VrrpState::Backup, Cause::Inferred)], "{interval:?}");
        let begin = harness.now;
        harness.run(secs(60));
        assert_eq!(transitions(&harness, begin), [(VrrpState::Fault, Cause::NoTimer)], "{interval:?}");
        let (at, _) = harness.log_events(begin)[0];
        assert!(at <= (latest + 4) * 1_000, "{interval:?}: after {at} ms");
    }
    // Between two advertisements that are as far apart as BACKUP bears, it is not in FAULT.
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.kill_agent();
    harness.beat = ms(3_900);
    harness.start_agent();
    harness.run(secs(600));
    assert!(
        !transitions(&harness, begin).iter().any(|(to, _)| *to == VrrpState::Fault),
        "{:?}",
        transitions(&harness, begin)
    );
}

#[test]
fn only_a_line_of_a_new_group_shows_that_keepalived_runs_the_new_groups() {
    let groups = |vrid, more: &[&str]| {
        let more = more.iter().map(|name| run(name, "eth0", 90, &[vip(9)]));
        Groups { groups: [run("a", "eth0", vrid, &[vip(1)])].into_iter().chain(more).collect() }
    };
    let mut harness = Harness::settled(config(&["a"]), groups(10, &["without-node"]));
    let begin = harness.now;
    harness.tell(Event::Groups(groups(11, &["without-node", "new"])));
    harness.tell(Event::Notify(vec![line("without-node", NotifyState::Backup)]));
    assert_eq!(transitions(&harness, begin), []);
    harness.tell(Event::Notify(vec![line("new", NotifyState::Backup)]));
    assert_eq!(
        transitions(&harness, begin),
        [(VrrpState::Backup, Cause::Inferred)],
        "with another vrid, it is a new group"
    );
}

/// A new agent that has to infer the state, while keepalived sleeps for longer than any timer.
fn in_fault_without_a_notify_event() -> Harness {
    let mut harness = Harness::one();
    let begin = harness.now;
    restarted_asleep(&mut harness);
    assert_eq!(transitions(&harness, begin), [(VrrpState::Fault, Cause::NoTimer)]);
    let address = harness.reported().expect("the address");
    assert_eq!(address.verdict.to_string(), "STANDBY-NOT-READY");
    harness
}

/// The agent is restarted, and has to infer the state while keepalived sleeps for longer than any timer.
fn restarted_asleep(harness: &mut Harness) {
    harness.kill_agent();
    harness.beat = secs(10_000);
    harness.start_agent();
    harness.run(secs(10));
}

/// Groups a and b, both in FAULT since before the agent started.
fn both_in_fault() -> Harness {
    let groups = Groups { groups: vec![run("a", "eth0", 10, &[vip(1)]), run("b", "eth0", 11, &[vip(2)])] };
    let mut harness = Harness::settled(config(&["a", "b"]), groups);
    harness.all_become(&[("a", NotifyState::Fault), ("b", NotifyState::Fault)]);
    restarted_asleep(&mut harness);
    harness
}

#[test]
fn a_keepalived_that_has_a_timer_again_is_no_longer_in_fault() {
    for interval in [1, 10] {
        let mut harness = in_fault_without_a_notify_event();
        harness.tell(Event::Groups(advertising(interval)));
        let begin = harness.now;
        harness.beat = secs(interval);
        harness.last_beat = harness.now;
        harness.run(secs(interval * 5 + 5));
        assert_eq!(transitions(&harness, begin), [(VrrpState::Backup, Cause::Inferred)], "{interval:?}");
        harness.run(secs(60));
        assert_eq!(harness.reported().expect("the address").verdict.to_string(), "STANDBY-READY", "{interval:?}");
    }
}

#[test]
fn groups_that_seemed_in_fault_together_return_together() {
    let mut slow = run("b", "eth0", 11, &[vip(2)]);
    slow.advertise_interval = 10_000.try_into().expect("an interval");
    let groups = Groups { groups: vec![run("a", "eth0", 10, &[vip(1)]), slow] };
    let mut harness = Harness::settled(config(&["a", "b"]), groups);
    restarted_asleep(&mut harness);
    harness.run(secs(50));
    let begin = harness.now;
    // A sleep that group a alone does not bear.
    for _ in 0..10 {
        harness.last_beat = harness.now;
        harness.run(secs(30));
    }
    assert_eq!(transitions(&harness, begin), []);
    let begin = harness.now;
    harness.beat = secs(1);
    harness.last_beat = harness.now;
    harness.run(secs(12));
    let backup = (VrrpState::Backup, Cause::Inferred);
    assert_eq!(transitions(&harness, begin), [backup, backup]);
}

#[test]
fn a_keepalived_that_wakes_up_once_is_still_in_fault() {
    let mut harness = in_fault_without_a_notify_event();
    let begin = harness.now;
    // As a change in the network does it, now and then.
    for _ in 0..10 {
        harness.last_beat = harness.now;
        harness.run(secs(30));
    }
    assert_eq!(transitions(&harness, begin), []);
}

#[test]
fn a_script_that_keepalived_starts_and_awaits_ends_no_fault() {
    let mut harness = in_fault_without_a_notify_event();
    let begin = harness.now;
    // `health-check interval 60`, and each run takes three seconds.
    for _ in 0..10 {
        for pause in [3, 57] {
            harness.last_beat = harness.now;
            harness.run(secs(pause));
        }
    }
    assert_eq!(transitions(&harness, begin), []);
}

/// Both groups are in FAULT when the agent starts, and one returns.
#[test]
fn the_timer_of_another_group_ends_no_fault() {
    let mut harness = both_in_fault();
    let begin = harness.now;
    harness.becomes("a", NotifyState::Backup);
    harness.beat = secs(1);
    harness.last_beat = harness.now;
    harness.run(secs(60));
    let backup = (VrrpState::Backup, Cause::Notify(NotifyState::Backup));
    assert_eq!(transitions(&harness, begin), [backup]);
    // It is in FAULT again, and something wakes keepalived once: that other timer says nothing about now.
    harness.becomes("a", NotifyState::Fault);
    harness.beat = secs(10_000);
    harness.run(secs(60));
    harness.last_beat = harness.now;
    harness.run(secs(60));
    let fault = (VrrpState::Fault, Cause::Notify(NotifyState::Fault));
    assert_eq!(transitions(&harness, begin), [backup, fault]);
}

/// Both groups are in FAULT when the agent starts, and keepalived wakes up just before one returns for a minute.
#[test]
fn what_was_seen_before_the_timer_of_another_group_ends_no_fault() {
    let mut harness = both_in_fault();
    harness.last_beat = harness.now;
    harness.run(secs(3));
    harness.becomes("a", NotifyState::Backup);
    harness.beat = secs(1);
    harness.last_beat = harness.now;
    harness.run(secs(60));
    let begin = harness.now;
    harness.becomes("a", NotifyState::Fault);
    harness.beat = secs(10_000);
    harness.run(secs(1));
    harness.last_beat = harness.now;
    harness.run(secs(60));
    assert_eq!(transitions(&harness, begin), [(VrrpState::Fault, Cause::Notify(NotifyState::Fault))]);
}

#[test]
fn the_timer_of_a_group_without_a_node_ends_no_fault() {
    let groups = Groups { groups: vec![run("a", "eth0", 10, &[vip(1)]), run("without-node", "eth1", 11, &[vip(9)])] };
    let mut harness = Harness::settled(config(&["a"]), groups);
    harness.becomes("a", NotifyState::Fault);
    restarted_asleep(&mut harness);
    assert_eq!(harness.reported().expect("the address").verdict.to_string(), "STANDBY-NOT-READY");
    let begin = harness.now;
    harness.beat = secs(1);
    harness.last_beat = harness.now;
    harness.run(secs(60));
    assert_eq!(transitions(&harness, begin), []);
}

#[test]
fn a_fault_that_a_notify_event_gave_ends_with_another_event() {
    let mut harness = both_in_fault();
    harness.says("a", NotifyState::Fault);
    harness.tell(Event::FifoFull);
    harness.run(secs(10));
    let begin = harness.now;
    // keepalived is active all the time, as with `health-check interval 1`.
    for _ in 0..9 {
        harness.last_beat = harness.now;
        harness.run(secs(1));
    }
    let names = |(_, event)| if let LogEvent::Transition { group, .. } = event { Some(group) } else { None };
    let changed: Vec<_> = harness.log_events(begin).into_iter().filter_map(names).collect();
    assert_eq!(changed, [group("b")], "{:?}", transitions(&harness, begin));
}

#[test]
fn a_group_that_was_stopped_and_has_no_timer_is_still_stopped() {
    let mut harness = Harness::one();
    harness.kill_agent();
    harness.becomes("a", NotifyState::Stop);
    harness.beat = secs(10_000);
    let begin = harness.now;
    harness.start_agent();
    harness.run(secs(10));
    assert_eq!(transitions(&harness, begin), [(VrrpState::Stop, Cause::NoTimer)]);
}

#[test]
fn keepalived_that_is_stopped_is_not_in_fault() {
    for is_local in [false, true] {
        let mut harness = Harness::one();
        if is_local {
            harness.master("a");
            harness.run(secs(60));
        }
        let begin = harness.now;
        harness.child_frozen = true;
        harness.tell(Event::FifoFull);
        harness.run(secs(600));
        assert_eq!(transitions(&harness, begin), [(VrrpState::Unknown, Cause::FifoFull)], "local: {is_local}");
    }
    // Nor is one that sleeps while its address is here.
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.beat = secs(10_000);
    harness.tell(Event::FifoFull);
    harness.run(secs(600));
    assert_eq!(transitions(&harness, begin), [(VrrpState::Unknown, Cause::FifoFull)]);
}

#[test]
fn keepalived_is_looked_at_seldom_where_nothing_comes_of_it() {
    type Case = (&'static str, fn() -> Harness, usize);
    let cases: [Case; 6] = [
        (
            "claimed, and it cannot be read",
            || {
                let mut harness = Harness::one();
                harness.ec2.read_refuses = Some(ErrorClass::Denied);
                harness.master("a");
                harness
            },
            60,
        ),
        (
            "not allowed to claim",
            || {
                let mut harness = Harness::one();
                harness.ec2.refuses = Some(ErrorClass::Denied);
                harness.master("a");
                harness
            },
            1_600,
        ),
        (
            "its ENI is not known",
            || {
                let mut harness = Harness::new(config(&["a"]), one_group());
                harness.imds = Err(ErrorClass::Transient);
                harness.start_agent();
                harness.master("a");
                harness
            },
            1_300,
        ),
        (
            "EC2 does not answer",
            || {
                let mut harness = Harness::one();
                harness.ec2.claim_delay = secs(100);
                harness.master("a");
                harness
            },
            1_300,
        ),
        (
            "hanging",
            || {
                let mut harness = Harness::held();
                harness.child_frozen = true;
                harness.tell(Event::FifoFull);
                harness
            },
            420,
        ),
        (
            "not on any interface",
            || {
                let mut harness = Harness::held();
                harness.tell(Event::FifoFull);
                harness.run(secs(2));
                harness.give(vip(1), THIRD_PARTY);
                harness.local.clear();
                harness.look_around();
                harness
            },
            600,
        ),
    ];
    for (what, make, most) in cases {
        let mut harness = make();
        let before = harness.samples;
        harness.run(secs(600));
        let samples = harness.samples - before;
        assert!(samples <= most, "{what}: {samples} looks in ten minutes");
    }
}

#[test]
fn a_claim_goes_ahead_where_reading_is_not_allowed() {
    for beat in [1, 10] {
        let mut harness = before_the_start();
        harness.beat = secs(beat);
        harness.ec2.read_refuses = Some(ErrorClass::Denied);
        harness.start_agent();
        harness.run(secs(25));
        assert_eq!(harness.ours(), [vip(1)].into(), "keepalived is active every {beat} s");
    }
}

#[test]
fn what_may_be_ours_is_not_claimed_because_one_read_fails() {
    for class in [ErrorClass::Throttled, ErrorClass::Transient, ErrorClass::TimedOut] {
        let mut harness = Harness::held();
        harness.kill_agent();
        harness.start_agent();
        let begin = harness.now;
        harness.ec2.read_refuses = Some(class);
        harness.run(ms(3_500));
        harness.ec2.read_refuses = None;
        harness.run(secs(30));
        assert_eq!(harness.claim_times(begin), [0_u64; 0], "{class:?}: reads at {:?}", harness.read_times(begin));
    }
    let mut harness = before_the_start();
    harness.ec2.read_refuses = Some(ErrorClass::Throttled);
    harness.start_agent();
    harness.run(secs(25));
    assert_eq!(harness.ours(), [vip(1)].into(), "and not for ever");
}

#[test]
fn an_address_on_another_interface_is_no_evidence() {
    let mut harness = Harness::new(config(&["a"]), one_group());
    harness.elsewhere = [(vip(1), [interface("dum0")].into())].into();
    harness.start_agent();
    harness.run(secs(60));
    assert_eq!(transitions(&harness, BootInstant::default()), [(VrrpState::Backup, Cause::Inferred)]);
    assert_eq!(harness.claim_times(BootInstant::default()), [0_u64; 0], "the other router has it");
    let begin = harness.now;
    harness.master("a");
    assert_eq!(harness.claim_times(begin), [0]);
    harness.run(secs(60));
    // Taken away by EC2 and by keepalived, whose line is still to come: what is left of it is on the other interface.
    harness.give(vip(1), PEER);
    harness.local.clear();
    harness.look_around();
    let begin = harness.now;
    harness.run(secs(60));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
}

#[test]
fn of_what_waited_in_the_pipe_the_interface_says_what_is_true() {
    use NotifyState::{Backup, Fault, Master, MasterRxLowerPri, Stop};
    for (waited, is_local, state) in [
        (vec![Master], false, VrrpState::Backup),
        (vec![Backup, Master], false, VrrpState::Backup),
        (vec![MasterRxLowerPri], false, VrrpState::Backup),
        (vec![Master, Backup], true, VrrpState::Master),
        (vec![Fault], true, VrrpState::Master),
        (vec![Master, Fault], false, VrrpState::Fault),
        (vec![Master, Stop], false, VrrpState::Stop),
        (vec![Fault, Backup], false, VrrpState::Backup),
        (vec![], true, VrrpState::Master),
    ] {
        let mut harness = Harness::new(config(&["a"]), one_group());
        harness.write(waited.iter().map(|state| line("a", *state)).collect());
        harness.local.extend(is_local.then_some(vip(1)));
        harness.run(secs(10));
        let begin = harness.now;
        harness.start_agent();
        assert_eq!(harness.claim_times(begin), [0_u64; 0], "{waited:?}: nothing at once");
        harness.run(secs(5));
        assert_eq!(transitions(&harness, begin), [(state, Cause::Inferred)], "{waited:?}, local {is_local}");
        assert_eq!(harness.claim_times(begin).len(), usize::from(is_local), "{waited:?}, local {is_local}");
    }
}

#[test]
fn what_a_full_pipe_held_is_discarded() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.local.clear();
    harness.look_around();
    // The line that says BACKUP was lost, and so were those that say why.
    harness.tell(Event::Backlog { lines: vec![line("a", NotifyState::Fault)], was_full: true });
    harness.give(vip(1), PEER);
    harness.run(secs(60));
    assert_eq!(transitions(&harness, begin), inferred_after(Cause::FifoFull, VrrpState::Backup));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
}

#[test]
fn a_pipe_found_full_invalidates_every_state() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.tell(Event::FifoFull);
    harness.run(secs(3));
    assert_eq!(transitions(&harness, begin), inferred_after(Cause::FifoFull, VrrpState::Master));
    assert_eq!(harness.claim_times(begin), [0_u64; 0], "it is ours");
}

#[test]
fn a_left_over_address_that_goes_right_before_the_claim_is_not_claimed() {
    let mut harness = before_the_start();
    harness.ec2.read_delay = ms(500);
    let begin = harness.now;
    harness.start_agent();
    while !transitions(&harness, begin).contains(&(VrrpState::Master, Cause::Inferred)) {
        harness.run(ms(10));
    }
    // The kernel's news of it has not been read yet.
    harness.local.clear();
    harness.run(secs(5));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    assert!(harness.log_events(begin).iter().any(|(_, n)| matches!(n, LogEvent::NotLocal { .. })));
}

#[test]
fn a_claim_that_a_line_has_caused_needs_no_local_address() {
    let mut harness = Harness::new(config(&["a"]), one_group());
    harness.imds = Err(ErrorClass::Transient);
    harness.start_agent();
    harness.run(ms(500));
    let begin = harness.now;
    harness.says("a", NotifyState::Master);
    // As the claim of another group may have requested.
    harness.tell(Event::LocalAddresses { addresses: BTreeMap::new(), requested: true });
    harness.imds = Ok(());
    harness.run(secs(5));
    assert_eq!(harness.claim_times(begin).len(), 1);
}

#[test]
fn an_address_that_is_there_without_vrrp_is_no_evidence() {
    let mut primary = run("a", "eth0", 10, &[network_interface(ETH0).primary]);
    primary.peers.clear();
    let mut outside = Harness::new(config(&["a"]), one_group());
    outside.config.interface_addresses.insert(vip(1));
    for mut harness in [Harness::new(config(&["a"]), Groups { groups: vec![primary] }), outside] {
        harness.local.extend([vip(1), network_interface(ETH0).primary]);
        let begin = harness.now;
        harness.start_agent();
        harness.run(secs(60));
        assert_eq!(transitions(&harness, begin), [(VrrpState::Backup, Cause::Inferred)]);
        assert_eq!(harness.claim_times(begin), [0_u64; 0]);
        // A line is another matter.
        harness.says("a", NotifyState::Master);
        assert_eq!(harness.claim_times(begin).len(), 1);
    }
}

#[test]
fn a_lost_master_line_is_found_out_a_second_after_the_address_came() {
    let mut harness = Harness::new(config(&["a"]), one_group());
    harness.start_agent();
    harness.run(secs(10));
    let begin = harness.now;
    harness.local.insert(vip(1));
    harness.look_around();
    harness.run(ms(999));
    assert_eq!(transitions(&harness, begin), []);
    harness.run(secs(3));
    assert_eq!(transitions(&harness, begin), inferred_after(Cause::NoNotifyEvent, VrrpState::Master));
    assert_eq!(harness.ours(), [vip(1)].into());
}

#[test]
fn a_master_line_that_another_reader_took_is_made_good() {
    use NotifyState::{Backup, Fault, Stop};
    for notified in [Backup, Fault, Stop] {
        let mut harness = Harness::one();
        harness.becomes("a", notified);
        harness.run(secs(10));
        let begin = harness.now;
        harness.becomes_unheard("a", NotifyState::Master);
        harness.run(ms(999));
        assert_eq!(transitions(&harness, begin), [], "{notified:?}");
        harness.run(secs(3));
        let expected = inferred_after(Cause::NoNotifyEvent, VrrpState::Master);
        assert_eq!(transitions(&harness, begin), expected, "{notified:?}");
        assert_eq!(harness.ours(), [vip(1)].into(), "{notified:?}");
        // The line that says the contrary is heard.
        let begin = harness.now;
        harness.backup("a");
        harness.run(secs(60));
        let expected = [(VrrpState::Backup, Cause::Notify(Backup))];
        assert_eq!(
            (&transitions(&harness, begin)[..], harness.claim_times(begin)),
            (&expected[..], vec![]),
            "{notified:?}"
        );
    }
}

#[test]
fn a_master_line_may_come_until_a_second_after_its_address_however_soon_the_process_is_known() {
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.becomes_unheard("a", NotifyState::Master);
    harness.tell(Event::PutBy([(vip(1), [(interface("eth0"), PutBy::Process)].into())].into()));
    harness.run(ms(999));
    assert_eq!(transitions(&harness, begin), []);
    harness.run(ms(1));
    assert_eq!(transitions(&harness, begin), [(VrrpState::Unknown, Cause::NoNotifyEvent)]);
}

#[test]
fn an_address_that_an_unknown_process_put_there_contradicts_no_line() {
    let mut harness = Harness::one();
    let begin = harness.now;
    // Notifications were lost: only the list of all addresses has it.
    harness.local.insert(vip(1));
    let addresses = [(vip(1), [interface("eth0")].into())].into();
    harness.tell(Event::LocalAddresses { addresses, requested: false });
    harness.run(secs(60));
    assert_eq!(transitions(&harness, begin), []);
}

#[test]
fn what_a_person_put_there_is_known_whatever_else_changes_on_the_interfaces() {
    let mut harness = Harness::one();
    harness.by_hand(vip(1), true);
    harness.run(secs(2));
    let begin = harness.now;
    harness.elsewhere = [(vip(9), [interface("eth0")].into())].into();
    harness.look_around();
    harness.tell(Event::FifoFull);
    harness.run(secs(5));
    assert_eq!(transitions(&harness, begin), inferred_after(Cause::FifoFull, VrrpState::Backup));
}

/// The line and the address come from different sources, in either order.
#[test]
fn what_a_person_puts_there_up_to_a_second_after_the_master_line_is_taken_for_what_keepalived_found() {
    for (after, state) in [(1_000, VrrpState::Master), (1_001, VrrpState::Backup)] {
        let mut harness = Harness::one();
        harness.says("a", NotifyState::Master);
        harness.run(ms(after));
        harness.by_hand(vip(1), true);
        harness.run(secs(5));
        let begin = harness.now;
        harness.tell(Event::FifoFull);
        harness.run(secs(5));
        assert_eq!(
            transitions(&harness, begin),
            [(VrrpState::Unknown, Cause::FifoFull), (state, Cause::Inferred)],
            "{after} ms"
        );
    }
}

#[test]
fn what_a_person_puts_on_a_standby_s_interface_is_no_mastership() {
    // By a line, and by evidence.
    for restarts in [false, true] {
        let mut harness = Harness::one();
        if restarts {
            harness.kill_agent();
            harness.start_agent();
            harness.run(secs(10));
        }
        let begin = harness.now;
        harness.by_hand(vip(1), true);
        harness.run(secs(60));
        assert_eq!(transitions(&harness, begin), [], "restarted: {restarts}");
        let shown = harness.reported().expect("the address");
        assert_eq!(shown.verdict.to_string(), "DRIFT");
        assert!(shown.reason.is_some_and(|why| why.contains("VRRP is BACKUP here, but the address is on eth0")));
        // Whatever makes the state doubtful.
        harness.tell(Event::FifoFull);
        harness.run(secs(60));
        assert_eq!(transitions(&harness, begin), inferred_after(Cause::FifoFull, VrrpState::Backup));
        assert_eq!(harness.claim_times(begin), [0_u64; 0], "restarted: {restarts}");
        // keepalived takes it for its own when it becomes MASTER, and so it is evidence from then on.
        harness.master("a");
        harness.run(secs(60));
        let begin = harness.now;
        harness.tell(Event::FifoFull);
        harness.give(vip(1), PEER);
        harness.run(secs(10));
        assert_eq!(transitions(&harness, begin), inferred_after(Cause::FifoFull, VrrpState::Master));
        assert_eq!(harness.ours(), [vip(1)].into());
    }
}

#[test]
fn a_line_that_came_after_a_stall_says_who_has_an_address_that_a_person_put_there() {
    let mut harness = Harness::one();
    harness.by_hand(vip(1), true);
    harness.run(secs(10));
    let begin = harness.now;
    harness.freeze(secs(5));
    harness.run(secs(5));
    // The other router has gone: nothing takes this back.
    harness.master("a");
    harness.run(secs(10));
    assert_eq!(harness.ours(), [vip(1)].into(), "{:?}", transitions(&harness, begin));
}

#[test]
fn what_a_person_puts_there_after_a_lost_backup_line_is_no_mastership() {
    let mut harness = Harness::held();
    harness.becomes_unheard("a", NotifyState::Backup);
    harness.run(secs(5));
    harness.give(vip(1), PEER);
    let begin = harness.now;
    harness.by_hand(vip(1), true);
    harness.run(secs(2));
    harness.tell(Event::FifoFull);
    harness.run(secs(60));
    assert_eq!(transitions(&harness, begin), inferred_after(Cause::FifoFull, VrrpState::Backup));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
}

#[test]
fn an_address_that_keepalived_puts_back_is_not_taken_for_the_person_s_before_it() {
    let mut harness = Harness::one();
    harness.by_hand(vip(1), true);
    harness.run(secs(5));
    let disabled = Config { groups: vec![GroupConfig { disable: true, ..wanted("a") }], ..Config::default() };
    harness.tell(Event::Config(disabled));
    harness.master("a");
    harness.run(secs(5));
    let begin = harness.now;
    // keepalived gives up, is elected again, and puts it there itself; what it said is forgotten with the group.
    harness.by_hand(vip(1), false);
    harness.tell(Event::Config(config(&["a"])));
    harness.run(secs(30));
    let lines = [
        (VrrpState::Backup, Cause::Notify(NotifyState::Backup)),
        (VrrpState::Master, Cause::Notify(NotifyState::Master)),
    ];
    assert_eq!(transitions(&harness, begin), [lines[0], lines[1], (VrrpState::Master, Cause::Inferred)]);
    assert_eq!(harness.ours(), [vip(1)].into());
}

#[test]
fn a_transition_seen_in_parts_is_no_lost_line() {
    // The interface and the line come from different sources, in either order.
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.says("a", NotifyState::Backup);
    harness.run(ms(50));
    harness.local.clear();
    harness.look_around();
    harness.give(vip(1), PEER);
    harness.run(secs(60));
    assert_eq!(transitions(&harness, begin), [(VrrpState::Backup, Cause::Notify(NotifyState::Backup))]);
    // A mastership of two moments: its address is gone before anybody knows who put it there.
    let begin = harness.now;
    harness.becomes_unheard("a", NotifyState::Master);
    harness.run(ms(900));
    harness.becomes_unheard("a", NotifyState::Backup);
    harness.run(secs(60));
    assert_eq!((transitions(&harness, begin), harness.claim_times(begin)), (vec![], vec![]));
    // The address stays behind, as after SIGKILL, and the line that came last is older than nothing.
    harness.master("a");
    harness.run(secs(60));
    let begin = harness.now;
    harness.says("a", NotifyState::Backup);
    harness.give(vip(1), PEER);
    harness.run(secs(60));
    assert_eq!(transitions(&harness, begin), [(VrrpState::Backup, Cause::Notify(NotifyState::Backup))]);
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
}

#[test]
fn a_master_without_its_address_is_not_ok() {
    let verdict = |harness: &Harness| harness.reported().map(|a| (a.verdict.to_string(), a.reason.unwrap_or_default()));
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.local.clear();
    harness.look_around();
    harness.run(ms(2_999));
    assert_eq!(verdict(&harness), Some(("OK".to_owned(), String::new())));
    harness.run(ms(1));
    let (shown, why) = verdict(&harness).expect("the address");
    assert!(
        shown == "DRIFT" && why.contains("has not been on eth0 since") && why.contains("`restart vrrp`"),
        "{shown}: {why}"
    );
    harness.run(secs(600));
    // Said once, also when the configuration is read again, and nothing is given up for it.
    harness.tell(Event::Config(harness.config.clone()));
    harness.run(secs(60));
    assert_eq!(placements(&harness, begin), [(vip(1), Some(Misplaced::Missing))]);
    assert_eq!((transitions(&harness, begin), harness.claim_times(begin)), (vec![], vec![]));
    assert_eq!(harness.ours(), [vip(1)].into());
    harness.local.insert(vip(1));
    harness.look_around();
    assert_eq!(verdict(&harness), Some(("OK".to_owned(), String::new())));
    assert_eq!(placements(&harness, begin), [(vip(1), Some(Misplaced::Missing)), (vip(1), None)]);
}

#[test]
fn a_standby_s_interface_agrees_again_once_the_person_s_address_has_gone() {
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.by_hand(vip(1), true);
    harness.run(secs(5));
    assert_eq!(placements(&harness, begin), [(vip(1), Some(Misplaced::Unexpected))]);
    harness.by_hand(vip(1), false);
    assert_eq!(placements(&harness, begin), [(vip(1), Some(Misplaced::Unexpected)), (vip(1), None)]);
}

#[test]
fn the_interface_is_not_reported_to_agree_where_that_is_unknown() {
    let whys: [(&str, Act); 4] = [
        ("not known", |w| w.tell(Event::FifoFull)),
        ("paused", |w| {
            let until = w.now + secs(600);
            w.tell(Event::Pause { group: group("a"), until });
        }),
        ("another has it", |w| w.give(vip(1), THIRD_PARTY)),
        ("the group goes", |w| w.reload(Groups { groups: vec![] })),
    ];
    for (what, happens) in whys {
        let mut harness = Harness::held();
        let begin = harness.now;
        harness.child_frozen = true;
        harness.local.clear();
        harness.look_around();
        harness.run(secs(3));
        happens(&mut harness);
        harness.run(secs(100));
        let agrees =
            |w: &Harness| w.log_events(begin).iter().any(|(_, n)| matches!(n, LogEvent::Placement { wrong: None, .. }));
        assert!(!agrees(&harness), "{what}: {:?}", harness.log_events(begin));
    }
}

#[test]
fn an_address_that_appears_a_moment_before_its_line_is_claimed_by_the_line() {
    let mut harness = Harness::new(config(&["a"]), one_group());
    harness.start_agent();
    harness.run(secs(10));
    let begin = harness.now;
    harness.local.insert(vip(1));
    harness.look_around();
    harness.run(ms(1));
    harness.says("a", NotifyState::Master);
    harness.run(secs(10));
    assert_eq!(transitions(&harness, begin), [(VrrpState::Master, Cause::Notify(NotifyState::Master))]);
    assert_eq!(harness.claim_times(begin), [1]);
}

/// keepalived becomes MASTER before the agent knows the state, adds the address, and is then interrupted for that long.
fn interrupted_before_its_line(pause: Duration) -> (Harness, BootInstant) {
    let mut harness = Harness::new(config(&["a"]), one_group());
    harness.start_agent();
    let begin = harness.now;
    harness.local.insert(vip(1));
    harness.look_around();
    harness.tell(Event::Liveness { after: begin });
    // Something else changes on the interfaces, and the same address comes to another one.
    harness.elsewhere = [(vip(9), [interface("eth0")].into()), (vip(1), [interface("lo")].into())].into();
    harness.look_around();
    harness.run(pause);
    (harness, begin)
}

#[test]
fn an_address_that_appears_in_an_unknown_state_is_claimed_once_however_late_its_line_is() {
    for pause in [1, 50, 500, 999] {
        let (mut harness, begin) = interrupted_before_its_line(ms(pause));
        assert_eq!((transitions(&harness, begin), harness.claim_times(begin)), (vec![], vec![]), "{pause} ms");
        harness.says("a", NotifyState::Master);
        harness.run(secs(10));
        let expected = [(VrrpState::Master, Cause::Notify(NotifyState::Master))];
        assert_eq!(
            (&transitions(&harness, begin)[..], harness.claim_times(begin)),
            (&expected[..], vec![pause]),
            "{pause} ms"
        );
    }
}

#[test]
fn an_address_that_appears_in_an_unknown_state_is_claimed_a_second_later_without_a_line() {
    let (mut harness, begin) = interrupted_before_its_line(ms(999));
    harness.run(secs(2));
    assert_eq!(transitions(&harness, begin), [(VrrpState::Master, Cause::Inferred)]);
    let claims = harness.claim_times(begin);
    assert!(claims.len() == 1 && (1_000..1_100).contains(&claims[0]), "{claims:?}");
}

#[test]
fn an_address_that_an_unknown_process_put_there_in_an_unknown_state_counts_after_five_seconds() {
    let mut harness = Harness::one();
    harness.tell(Event::FifoFull);
    harness.run(ms(1));
    let begin = harness.now;
    // The process is never known.
    harness.local.insert(vip(1));
    let addresses = [(vip(1), [interface("eth0")].into())].into();
    harness.tell(Event::LocalAddresses { addresses, requested: false });
    harness.tell(Event::Liveness { after: begin });
    harness.run(ms(4_999));
    assert_eq!(transitions(&harness, begin), []);
    harness.run(ms(1));
    assert_eq!(transitions(&harness, begin), [(VrrpState::Master, Cause::Inferred)]);
}

#[test]
fn what_a_person_puts_there_in_an_unknown_state_is_no_mastership() {
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.tell(Event::FifoFull);
    harness.by_hand(vip(1), true);
    harness.tell(Event::Liveness { after: harness.now });
    harness.run(secs(60));
    assert_eq!(transitions(&harness, begin), inferred_after(Cause::FifoFull, VrrpState::Backup));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
}

#[test]
fn after_its_master_line_an_address_that_appears_in_an_unknown_state_counts_at_once() {
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.tell(Event::Backlog { lines: vec![line("a", NotifyState::Master)], was_full: false });
    harness.run(ms(100));
    harness.local.insert(vip(1));
    harness.look_around();
    harness.tell(Event::Liveness { after: begin });
    harness.run(ms(200));
    assert_eq!(transitions(&harness, begin), inferred_after(Cause::New, VrrpState::Master));
    assert_eq!(harness.claim_times(begin).len(), 1);
}

#[test]
fn an_address_that_comes_and_goes_on_another_interface_delays_nothing() {
    let mut harness = before_the_start();
    harness.start_agent();
    harness.run(secs(10));
    let begin = harness.now;
    harness.tell(Event::FifoFull);
    for other in ["lo", "dum0"].repeat(20) {
        harness.elsewhere = [(vip(1), [interface(other)].into())].into();
        harness.look_around();
        harness.run(ms(50));
    }
    let expected = inferred_after(Cause::FifoFull, VrrpState::Master);
    assert_eq!(transitions(&harness, begin), expected);
}

#[test]
fn one_address_that_has_been_there_for_long_is_enough() {
    let groups = Groups { groups: vec![run("a", "eth0", 10, &[vip(1), vip(2)])] };
    let mut harness = Harness::new(config(&["a"]), groups);
    harness.local.insert(vip(1));
    harness.start_agent();
    harness.run(secs(10));
    let begin = harness.now;
    harness.tell(Event::FifoFull);
    harness.local.insert(vip(2));
    harness.look_around();
    harness.tell(Event::Liveness { after: begin });
    let expected = inferred_after(Cause::FifoFull, VrrpState::Master);
    assert_eq!(transitions(&harness, begin), expected);
}

#[test]
fn a_backup_line_after_what_a_person_put_there_makes_it_no_mastership() {
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.by_hand(vip(1), true);
    harness.run(ms(200));
    harness.says("a", NotifyState::Backup);
    harness.run(ms(100));
    harness.tell(Event::FifoFull);
    harness.tell(Event::Liveness { after: harness.now });
    harness.run(secs(60));
    let expected = inferred_after(Cause::FifoFull, VrrpState::Backup);
    assert_eq!((&transitions(&harness, begin)[..], harness.claim_times(begin)), (&expected[..], vec![]));
}

#[test]
fn an_address_that_was_just_added_in_fault_leaves_no_group_in_fault() {
    for is_known in [true, false] {
        let groups = Groups { groups: vec![run("a", "eth0", 10, &[vip(1)]), run("b", "eth0", 11, &[vip(2)])] };
        let mut harness = Harness::settled(config(&["a", "b"]), groups);
        restarted_asleep(&mut harness);
        let begin = harness.now;
        harness.beat = secs(1);
        harness.last_beat = harness.now;
        harness.run(ms(5_500));
        harness.local.insert(vip(2));
        if is_known {
            harness.look_around();
        } else {
            let addresses = [(vip(2), [interface("eth0")].into())].into();
            harness.tell(Event::LocalAddresses { addresses, requested: false });
        }
        harness.run(ms(if is_known { 999 } else { 4_999 }));
        let until_then = [(VrrpState::Backup, Cause::Inferred), (VrrpState::Unknown, Cause::ActiveAgain)];
        assert_eq!(transitions(&harness, begin), until_then, "known: {is_known}");
        harness.run(secs(1));
        let expected = [&until_then[..], &[(VrrpState::Master, Cause::Inferred)]].concat();
        assert_eq!(transitions(&harness, begin), expected, "known: {is_known}");
    }
}

#[test]
fn an_address_that_comes_to_its_other_interface_as_well_is_not_new() {
    let mut harness = before_the_start();
    harness.start_agent();
    harness.run(secs(10));
    let begin = harness.now;
    harness.tell(Event::FifoFull);
    // The interface of rfc3768-compatibility.
    harness.elsewhere = [(vip(1), [interface("eth0v10v4")].into())].into();
    harness.look_around();
    harness.tell(Event::Liveness { after: begin });
    let expected = inferred_after(Cause::FifoFull, VrrpState::Master);
    assert_eq!(transitions(&harness, begin), expected);
}

#[test]
fn what_a_person_puts_there_in_fault_is_no_mastership() {
    let mut harness = in_fault_without_a_notify_event();
    // keepalived has a timer again, and when that is noticed the address has just been added.
    let begin = harness.now;
    harness.tell(Event::Liveness { after: begin });
    harness.run(ms(5_500));
    harness.by_hand(vip(1), true);
    harness.run(ms(500));
    harness.tell(Event::Liveness { after: harness.now });
    assert_eq!(transitions(&harness, begin), [(VrrpState::Unknown, Cause::ActiveAgain)]);
    harness.run(secs(60));
    assert_eq!(harness.claim_times(begin), [0_u64; 0], "{:?}", transitions(&harness, begin));
}

#[test]
fn repeated_rx_lower_pri_names_master_in_whatever_state() {
    let mut harness = Harness::held();
    harness.says("a", NotifyState::MasterRxLowerPri);
    harness.run(secs(2));
    // A line that is of the past by now makes it doubtful; the next one says it again.
    let begin = harness.now;
    harness.tell(Event::FifoFull);
    harness.give(vip(1), PEER);
    harness.says("a", NotifyState::MasterRxLowerPri);
    assert_eq!(harness.claim_times(begin), [0_u64; 0], "one of a series: who owns it is read first");
    harness.run(secs(1));
    let cause = Cause::Notify(NotifyState::MasterRxLowerPri);
    assert_eq!(transitions(&harness, begin), [(VrrpState::Unknown, Cause::FifoFull), (VrrpState::Master, cause)]);
    assert_eq!(harness.claim_times(begin), [20]);
}

#[test]
fn a_read_from_before_the_state_was_invalidated_does_not_decide() {
    let mut harness = Harness::held();
    harness.ec2.read_delay = ms(2_200);
    let begin = harness.now;
    harness.tell(Event::ReadNow);
    harness.run(ms(1_100));
    // The address was still ours when EC2 looked; the answer is on its way when the peer takes over.
    harness.give(vip(1), PEER);
    harness.tell(Event::FifoFull);
    harness.run(ms(950));
    assert_eq!(transitions(&harness, begin).last(), Some(&(VrrpState::Master, Cause::Inferred)));
    harness.run(secs(3));
    assert_eq!(harness.claim_times(begin).len(), 1, "the read of the adoption itself decides");
}

#[test]
fn adopting_while_a_claim_is_in_flight_waits_for_its_answer() {
    let mut harness = Harness::one();
    harness.ec2.claim_delay = ms(2_500);
    let begin = harness.now;
    harness.master("a");
    harness.run(ms(100));
    harness.tell(Event::FifoFull);
    harness.run(secs(10));
    let before = harness.read_times(begin).into_iter().filter(|when| *when < 2_500).count();
    assert!(before <= 2, "no read after another: {:?}", harness.read_times(begin));
    assert_eq!(harness.claim_times(begin), [0], "it was performed");
    assert_eq!(harness.ours(), [vip(1)].into());
}

#[test]
fn adopting_does_not_wait_for_a_claim_that_hangs() {
    let mut harness = Harness::one();
    harness.ec2.refuses = Some(ErrorClass::TimedOut);
    harness.master("a");
    // The bound of an attempt has doubled twice.
    harness.run(secs(11));
    let sent = harness.claim_times(BootInstant::default()).last().copied().expect("a claim");
    harness.ec2.refuses = None;
    let begin = harness.now;
    assert!(begin.since_boot() < ms(sent) + secs(4), "the third one is under way");
    harness.tell(Event::FifoFull);
    harness.run(secs(5));
    assert_eq!(harness.ours(), [vip(1)].into(), "claims at {:?}", harness.claim_times(begin));
}

// ── B10 ──

#[test]
fn new_groups_count_when_keepalived_has_reloaded() {
    let two = Groups { groups: vec![run("a", "eth0", 10, &[vip(1)]), run("b", "eth0", 11, &[vip(2)])] };
    let counts = |harness: &Harness| {
        harness.machine.has_group(&group("b")) && harness.machine.resources.contains_key(&vip(2).into())
    };
    let reloads: [(&str, u64, Act); 4] = [
        ("HUP", 100, |w| w.tell(Event::Hup)),
        ("an address of it appears", 100, |w| {
            w.local.insert(vip(2));
            w.look_around();
        }),
        ("a line of it", 100, |w| w.tell(Event::Notify(vec![line("b", NotifyState::Backup)]))),
        ("two seconds", 2_000, |w| w.run(ms(0))),
    ];
    for (what, after, reload) in reloads {
        let mut harness = Harness::one();
        harness.config = config(&["a", "b"]);
        harness.tell(Event::Config(harness.config.clone()));
        harness.tell(Event::Groups(two.clone()));
        harness.run(ms(after - 1));
        assert!(!counts(&harness), "before {what}");
        harness.run(ms(1));
        reload(&mut harness);
        assert!(counts(&harness), "{what}");
    }
}

#[test]
fn the_first_line_of_a_new_group_claims_at_once() {
    let mut harness = Harness::one();
    harness.config = config(&["a", "b"]);
    harness.tell(Event::Config(harness.config.clone()));
    harness.groups = Groups { groups: vec![run("a", "eth0", 10, &[vip(1)]), run("b", "eth0", 11, &[vip(2)])] };
    harness.tell(Event::Groups(harness.groups.clone()));
    let begin = harness.now;
    harness.write(vec![line("b", NotifyState::Master)]);
    assert_eq!(harness.claims_since(begin), [(0, vec![vip(2)])]);
}

#[test]
fn the_address_of_a_group_that_was_there_before_does_not_make_new_ones_count() {
    let two = Groups { groups: vec![run("a", "eth0", 10, &[vip(1)]), run("z", "eth0", 11, &[vip(2)])] };
    let mut harness = Harness::settled(config(&["a"]), two.clone());
    let three = Groups { groups: [two.groups, vec![run("b", "eth0", 12, &[vip(3)])]].concat() };
    harness.config = config(&["a", "b"]);
    harness.tell(Event::Config(harness.config.clone()));
    harness.tell(Event::Groups(three));
    // z has no aws-vipa node.
    harness.local.insert(vip(2));
    harness.look_around();
    assert!(!harness.machine.resources.contains_key(&vip(3).into()));
}

#[test]
fn the_line_of_a_group_that_was_there_before_does_not_make_new_ones_count() {
    let [a, z] = [run("a", "eth0", 10, &[vip(1)]), run("z", "eth0", 11, &[vip(2)])];
    let mut harness = Harness::settled(config(&["a", "b"]), Groups { groups: vec![a.clone(), z] });
    harness.tell(Event::Groups(Groups { groups: vec![a, run("b", "eth0", 12, &[vip(3)])] }));
    // z has no aws-vipa node, and goes.
    for old in ["a", "z"] {
        harness.says(old, NotifyState::Backup);
        assert!(!harness.machine.resources.contains_key(&vip(3).into()), "{old}");
    }
}

#[test]
fn a_group_that_goes_is_not_claimed_for_any_more() {
    let mut harness = Harness::one();
    harness.ec2.refuses = Some(ErrorClass::Transient);
    harness.master("a");
    harness.run(secs(1));
    harness.ec2.refuses = None;
    let begin = harness.now;
    harness.config = config(&[]);
    harness.tell(Event::Config(harness.config.clone()));
    harness.run(secs(60));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
}

#[test]
fn a_group_renamed_while_master_keeps_its_address_without_a_claim() {
    let mut harness = Harness::held();
    let begin = harness.now;
    let renamed = Groups { groups: vec![run("new", "eth0", 10, &[vip(1)])] };
    harness.tell(Event::Groups(renamed.clone()));
    harness.groups = renamed;
    harness.config = config(&["new"]);
    harness.tell(Event::Hup);
    harness.tell(Event::Config(harness.config.clone()));
    harness.run(secs(5));
    assert_eq!(transitions(&harness, begin), [(VrrpState::Master, Cause::Inferred)]);
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    harness.give(vip(1), THIRD_PARTY);
    harness.run(secs(40));
    assert_eq!(harness.claim_times(begin).len(), 1, "it is looked after under its new name");
}

#[test]
fn an_address_added_while_master_is_claimed() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.give(vip(2), PEER);
    harness.groups = Groups { groups: vec![run("a", "eth0", 10, &[vip(1), vip(2)])] };
    harness.tell(Event::Groups(harness.groups.clone()));
    harness.tell(Event::Hup);
    harness.run(ms(5));
    harness.local.insert(vip(2));
    harness.look_around();
    harness.run(secs(5));
    assert_eq!(harness.claims_since(begin).iter().map(|(_, ips)| ips.clone()).collect::<Vec<_>>(), [vec![vip(2)]]);
    assert_eq!(harness.ours(), [vip(1), vip(2)].into());
}

#[test]
fn each_address_is_evidence_of_itself_alone() {
    let both = [vip(1), vip(2)];
    let mut harness = Harness::settled(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &both)] });
    harness.master("a");
    harness.run(secs(60));
    harness.local.remove(&vip(2));
    harness.look_around();
    harness.run(secs(2));
    let begin = harness.now;
    both.into_iter().for_each(|ip| harness.give(ip, PEER));
    harness.tell(Event::FifoFull);
    harness.run(secs(60));
    assert!(transitions(&harness, begin).contains(&(VrrpState::Master, Cause::Inferred)));
    assert_eq!(harness.ours(), [vip(1)].into());
}

#[test]
fn an_address_that_moves_from_a_standby_to_a_master_is_where_it_belongs() {
    let [a, b] = [("a", 10), ("b", 11)].map(|(name, vrid)| move |ips: &[_]| run(name, "eth0", vrid, ips));
    let mut harness =
        Harness::settled(config(&["a", "b"]), Groups { groups: vec![a(&[vip(1)]), b(&[vip(2), vip(3)])] });
    harness.master("a");
    harness.run(secs(60));
    let begin = harness.now;
    harness.groups = Groups { groups: vec![a(&[vip(1), vip(2)]), b(&[vip(3)])] };
    harness.tell(Event::Groups(harness.groups.clone()));
    harness.tell(Event::Hup);
    harness.local.insert(vip(2));
    harness.look_around();
    harness.run(secs(60));
    assert_eq!(harness.ours(), [vip(1), vip(2)].into());
    assert_eq!(placements(&harness, begin), []);
}

#[test]
fn an_address_that_moves_to_another_group_goes_by_that_one() {
    let [a, b] = [("a", 10), ("b", 11)].map(|(name, vrid)| move |ips: &[_]| run(name, "eth0", vrid, ips));
    let mut harness =
        Harness::settled(config(&["a", "b"]), Groups { groups: vec![a(&[vip(1), vip(2)]), b(&[vip(3)])] });
    harness.master("a");
    harness.run(secs(60));
    let begin = harness.now;
    harness.groups = Groups { groups: vec![a(&[vip(1)]), b(&[vip(2), vip(3)])] };
    harness.tell(Event::Groups(harness.groups.clone()));
    harness.tell(Event::Hup);
    harness.local.remove(&vip(2));
    harness.look_around();
    harness.give(vip(2), PEER);
    harness.run(secs(100));
    assert_eq!(harness.claim_times(begin), [0_u64; 0], "b is BACKUP");
    harness.master("b");
    assert_eq!(harness.claims_since(begin), [(100_000, vec![vip(2), vip(3)])]);
}

#[test]
fn a_group_switched_off_is_left_alone_and_found_out_when_it_is_switched_on() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.config.groups = vec![GroupConfig { disable: true, ..wanted("a") }];
    harness.tell(Event::Config(harness.config.clone()));
    harness.give(vip(1), PEER);
    harness.says("a", NotifyState::Master);
    harness.run(secs(100));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    harness.config = config(&["a"]);
    harness.tell(Event::Config(harness.config.clone()));
    harness.run(secs(3));
    assert_eq!(harness.claim_times(begin).len(), 1);
}

// ── B13 ──

#[test]
fn an_agent_killed_at_any_moment_ends_in_the_same_state() {
    for moment in [0, 1, 10, 49, 50, 500, 1_060, 1_500, 3_060, 11_000, 31_000] {
        for down in [1, 2_000, 20_000] {
            let mut harness = Harness::one();
            harness.master("a");
            harness.run(ms(moment));
            harness.kill_agent();
            harness.run(ms(down));
            let begin = harness.now;
            let was_ours = harness.ours() == [vip(1)].into();
            harness.start_agent();
            harness.run(secs(120));
            assert_eq!(harness.ours(), [vip(1)].into(), "killed after {moment} ms for {down} ms");
            let claims = harness.claim_times(begin);
            // A claim that was on its way may still land.
            assert!(claims.len() <= usize::from(!was_ours), "killed after {moment} ms for {down} ms: {claims:?}");
        }
    }
}

#[test]
fn master_and_backup_while_the_agent_is_down_claim_nothing() {
    for was_full in [false, true] {
        let mut harness = Harness::one();
        harness.kill_agent();
        harness.master("a");
        harness.run(secs(5));
        harness.backup("a");
        harness.run(secs(5));
        let begin = harness.now;
        harness.start_agent();
        if was_full {
            harness.tell(Event::Backlog { lines: vec![line("a", NotifyState::Master)], was_full });
        }
        harness.run(secs(120));
        assert_eq!(harness.claim_times(begin), [0_u64; 0], "full: {was_full}");
    }
}

// ── B18 ──

#[test]
fn an_eni_that_cannot_be_found_out_is_asked_for_until_it_can_and_the_claim_follows() {
    let mut harness = Harness::new(config(&["a"]), one_group());
    harness.imds = Err(ErrorClass::Transient);
    harness.start_agent();
    let begin = harness.now;
    harness.run(ms(500));
    harness.master("a");
    harness.run(secs(60));
    let asked: Vec<u64> = harness
        .done
        .iter()
        .filter(|(_, a)| matches!(a, Action::Resolve(_)))
        .map(|(when, _)| begin.until(*when).as_millis() as u64)
        .collect();
    assert!(asked[1] - asked[0] <= 201 && asked.len() >= 14, "{asked:?}");
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] <= 5_001), "{asked:?}");
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    let log_events = harness.log_events(begin);
    assert_eq!(
        log_events.iter().filter(|(_, n)| matches!(n, LogEvent::Unresolved { .. })).count(),
        1,
        "said once: {log_events:?}"
    );
    harness.imds = Ok(());
    let begin = harness.now;
    while harness.claim_times(begin).is_empty() && harness.now < begin + secs(6) {
        harness.run(ms(1));
    }
    let resolve = harness.done.iter().find(|(when, a)| *when >= begin && matches!(a, Action::Resolve(_)));
    assert_eq!(resolve.map(|(when, _)| harness.claim_times(*when)), Some(vec![1]), "as soon as the ENI is known");
}

#[test]
fn a_configured_eni_is_claimed_for_without_the_metadata_service() {
    let mut harness = Harness::new(config(&["a"]), one_group());
    harness.config.groups[0].network_interface_id = Some(eni(THIRD_PARTY));
    harness.imds = Err(ErrorClass::Transient);
    harness.start_agent();
    harness.run(secs(1));
    harness.master("a");
    let claim = harness.done.iter().find_map(|(_, action)| match action {
        Action::Claim { request, .. } => Some(request.eni().to_string()),
        _ => None,
    });
    assert_eq!(claim.as_deref(), Some(THIRD_PARTY));
    // The same by evidence: without a VPC nothing can be read, so it is claimed without.
    harness.run(secs(5));
    harness.done.clear();
    let begin = harness.now;
    harness.tell(Event::FifoFull);
    harness.run(secs(4));
    assert_eq!(harness.claim_times(begin).len(), 1);
}

#[test]
fn another_eni_behind_the_interface_is_claimed_for() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.enis.insert(interface("eth0"), eni("eni-0000000e"));
    // The ENI is asked for anew with every regular read.
    harness.run(secs(35));
    assert_eq!(harness.claim_times(begin).len(), 1);
    assert_eq!(harness.owner(vip(1)), Some("eni-0000000e"));
    assert_eq!(harness.ownership_loss_times(begin), [0_u64; 0]);
}

#[test]
fn an_eni_that_is_gone_is_asked_for_again_and_the_claim_follows() {
    let mut harness = Harness::one();
    harness.ec2.claims = vec![Fault::Fails(ErrorClass::NoSuchInterface)];
    harness.enis.insert(interface("eth0"), eni("eni-0000000e"));
    let begin = harness.now;
    harness.master("a");
    harness.run(secs(5));
    assert_eq!(harness.claim_times(begin), [0, 51], "as soon as the other ENI is known");
    assert_eq!(harness.owner(vip(1)), Some("eni-0000000e"));
}

// ── B19 ──

#[test]
fn a_paused_group_claims_nothing_until_the_pause_ends() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.tell(Event::Pause { group: group("a"), until: begin + secs(1_800) });
    harness.give(vip(1), PEER);
    harness.says("a", NotifyState::Master);
    harness.says("a", NotifyState::MasterRxLowerPri);
    harness.run(secs(100));
    assert_eq!(harness.machine.refuses_force(&group("a")), Some(RequestRefusal::Paused));
    harness.tell(Event::Force(group("a")));
    harness.run(secs(1_800 - 101));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    harness.run(secs(4));
    assert_eq!(harness.claim_times(begin).len(), 1, "the interface says MASTER");
    assert!(transitions(&harness, begin).contains(&(VrrpState::Unknown, Cause::PauseEnded)));
}

#[test]
fn a_person_ends_a_pause() {
    let mut harness = Harness::held();
    let begin = harness.now;
    harness.tell(Event::Pause { group: group("a"), until: begin + secs(1_800) });
    harness.give(vip(1), PEER);
    harness.run(secs(60));
    harness.tell(Event::Resume(group("a")));
    assert_eq!(harness.claim_times(begin), [0_u64; 0], "a return from UNKNOWN");
    harness.run(secs(3));
    assert_eq!(harness.claim_times(begin).len(), 1);
    assert_eq!(harness.machine.refuses_force(&group("a")), None);
}

#[test]
fn after_a_full_pipe_a_fault_may_be_over() {
    let mut harness = Harness::one();
    harness.becomes("a", NotifyState::Fault);
    harness.tell(Event::FifoFull);
    harness.run(secs(5));
    assert_eq!(
        harness.machine.groups[&group("a")].state.vrrp(),
        VrrpState::Backup,
        "the line that was lost may have said so"
    );
}

#[test]
fn a_pause_from_before_the_start_holds_for_a_group_that_comes_later() {
    let mut harness = before_the_start();
    harness.start_agent();
    // As the agent does: pauses first, then the files.
    let begin = harness.now;
    harness.machine = crate::claim::Machine::new(harness.now, 1);
    harness.invariants.started(begin);
    harness.tell(Event::Pause { group: group("a"), until: begin + secs(600) });
    harness.look_around();
    harness.tell(Event::Config(harness.config.clone()));
    harness.tell(Event::Groups(harness.groups.clone()));
    harness.tell(Event::Writer(true));
    harness.run(secs(599));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    harness.run(secs(5));
    assert_eq!(harness.claim_times(begin).len(), 1);
}

#[test]
fn force_is_refused_where_it_would_do_nothing() {
    let mut harness = Harness::one();
    let refusal = |harness: &Harness, name| harness.machine.refuses_force(&group(name));
    assert_eq!(refusal(&harness, "a"), Some(RequestRefusal::NotMaster(VrrpState::Backup)));
    assert_eq!(refusal(&harness, "x"), Some(RequestRefusal::NoNode));
    let begin = harness.now;
    harness.tell(Event::Force(group("a")));
    harness.run(secs(10));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    harness.tell(Event::Pause { group: group("a"), until: harness.now + secs(60) });
    assert_eq!(refusal(&harness, "a"), Some(RequestRefusal::Paused));
    harness.tell(Event::Resume(group("a")));
    harness.config.groups = vec![GroupConfig { disable: true, ..wanted("a") }];
    harness.tell(Event::Config(harness.config.clone()));
    assert_eq!(refusal(&harness, "a"), Some(RequestRefusal::Disabled));
}

#[test]
fn a_sign_of_life_counts_until_it_has_its_maximum_age() {
    let harness = Harness::one();
    let address = &harness.machine.resources[&vip(1).into()];
    let end = harness.machine.liveness.expect("a line was read") + liveness_max_age(secs(1));
    assert!(harness.machine.has_liveness(end - ms(1), address));
    assert!(!harness.machine.has_liveness(end, address));
}

/// The line is as new as the address: it says what the group is.
#[test]
fn a_line_in_the_moment_in_which_the_address_appears_decides() {
    let mut harness = Harness::one();
    let begin = harness.now;
    harness.becomes_unheard("a", NotifyState::Master);
    harness.says("a", NotifyState::Backup);
    harness.run(secs(2));
    assert_eq!(transitions(&harness, begin), []);
}

#[test]
fn a_master_line_is_accepted_from_an_advertisement_interval_and_half_a_second_after_a_stall_on() {
    for (after, claims) in [(1_499, vec![]), (1_500, vec![0])] {
        let mut harness = Harness::one();
        harness.freeze(secs(10));
        harness.run(secs(10));
        harness.run(ms(1_000));
        let stalled = harness.machine.stalled.expect("it was seen");
        harness.run(stalled.until(stalled + ms(after)) - stalled.until(harness.now));
        let begin = harness.now;
        harness.master("a");
        assert_eq!(harness.claim_times(begin), claims, "{after} ms");
    }
}
