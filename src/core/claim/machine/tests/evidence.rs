//! B8 to B10, B13, B18 and B19: what is known without a line, and what changes under the machine's feet.

use super::world::{
    Act, ETH0, Fault, PEER, THIEF, World, config, eni, group, interface, line, ms, network_interface, run, secs, vip,
    wanted,
};
use crate::claim::{Action, Cause, Event, Misplaced, Moment, Note};
use crate::keepalived::groups::Groups;
use crate::model::config::{Config, GroupConfig};
use crate::model::ec2::ErrorClass;
use crate::model::vrrp::{NotifyState, VrrpState};

fn one_group() -> Groups {
    Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] }
}

/// The agent is not running, keepalived is MASTER, and nobody reads the lines.
fn before_the_start() -> World {
    let mut world = World::new(config(&["a"]), one_group());
    world.master("a");
    world.run(secs(10));
    world
}

fn transitions(world: &World, since: Moment) -> Vec<(VrrpState, Cause)> {
    let notes = world.notes(since).into_iter();
    notes
        .filter_map(|(_, n)| if let Note::Transition { to, cause, .. } = n { Some((to, cause)) } else { None })
        .collect()
}

// ── B8 ──

#[test]
fn two_seconds_without_a_writer_mean_unknown_and_no_claim() {
    let mut world = World::held();
    let begin = world.now;
    world.kill_keepalived();
    world.run(ms(1_999));
    assert_eq!(transitions(&world, begin), []);
    world.run(ms(1));
    assert_eq!(transitions(&world, begin), [(VrrpState::Unknown, Cause::NoWriter)]);
    world.give(vip(1), PEER);
    world.run(secs(200));
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
    assert!(world.local.contains(&vip(1)), "the address stays on the interface all the while");
}

#[test]
fn a_gap_of_less_than_two_seconds_is_nothing() {
    let mut world = World::held();
    let begin = world.now;
    world.tell(Event::Writer(false));
    world.run(ms(1_999));
    world.tell(Event::Writer(true));
    world.run(secs(60));
    assert_eq!(transitions(&world, begin), []);
    world.says("a", NotifyState::Master);
    assert_eq!(world.claim_times(begin).len(), 1);
}

#[test]
fn keepalived_that_starts_again_clears_its_old_address_and_nothing_is_claimed() {
    let mut world = World::held();
    world.kill_keepalived();
    world.run(secs(30));
    world.give(vip(1), PEER);
    let begin = world.now;
    world.start_keepalived();
    world.run(secs(60));
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
    world.master("a");
    assert_eq!(world.claim_times(begin).len(), 1);
}

#[test]
fn when_the_writer_is_back_life_from_before_does_not_count() {
    let mut world = World::held();
    world.tell(Event::Writer(false));
    world.run(secs(10));
    world.give(vip(1), PEER);
    let begin = world.now;
    world.child_frozen = true;
    world.tell(Event::Writer(true));
    world.tell(Event::Life { after: begin - ms(1) });
    world.run(secs(10));
    assert_eq!(transitions(&world, begin), []);
    world.child_frozen = false;
    world.run(secs(5));
    assert_eq!(transitions(&world, begin), [(VrrpState::Master, Cause::Evidence)]);
    assert_eq!(world.claim_times(begin).len(), 1);
}

// ── B9 ──

#[test]
fn an_agent_that_starts_late_claims_what_is_not_ours() {
    let mut world = before_the_start();
    let begin = world.now;
    world.start_agent();
    world.run(secs(5));
    let [read, claim] = [world.read_times(begin), world.claim_times(begin)];
    assert_eq!(claim.len(), 1);
    assert!(read.iter().any(|read| read + 20 == claim[0]), "read {read:?}, claimed {claim:?}");
    assert_eq!(world.ours(), [vip(1)].into());
    assert_eq!(transitions(&world, begin), [(VrrpState::Master, Cause::Evidence)]);
}

#[test]
fn an_agent_that_starts_late_leaves_alone_what_is_ours() {
    let mut world = before_the_start();
    world.give(vip(1), ETH0);
    let begin = world.now;
    world.start_agent();
    world.run(secs(100));
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
}

#[test]
fn at_the_start_keepalived_must_be_alive() {
    let mut world = before_the_start();
    world.child_frozen = true;
    let begin = world.now;
    world.start_agent();
    world.run(secs(100));
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
    assert_eq!(transitions(&world, begin), []);
    world.child_frozen = false;
    world.run(secs(3));
    assert_eq!(world.claim_times(begin).len(), 1);
}

#[test]
fn keepalived_may_have_little_to_do() {
    let mut world = before_the_start();
    world.beat = secs(10);
    world.start_agent();
    world.run(secs(25));
    assert_eq!(world.ours(), [vip(1)].into());
    world.give(vip(1), THIEF);
    world.run(secs(120));
    assert_eq!(world.ours(), [vip(1)].into());
}

/// One group that advertises so often, and keepalived does nothing else.
fn advertising(interval: u64) -> Groups {
    let mut groups = one_group();
    groups.groups[0].advertise_interval = (interval * 1_000).try_into().expect("an interval");
    groups
}

#[test]
fn a_group_that_advertises_seldom_is_not_taken_for_dead() {
    for interval in [1, 3, 5, 10, 60, 255] {
        let mut world = World::new(config(&["a"]), advertising(interval));
        world.beat = secs(interval);
        world.start_agent();
        world.backup("a");
        world.run(secs(10));
        // What fails is tried again, with hardly a sign of life.
        world.ec2.claims = vec![Fault::Fails(ErrorClass::Transient), Fault::Fails(ErrorClass::Denied)];
        let begin = world.now;
        world.master("a");
        world.run(secs(100));
        assert_eq!(world.ours(), [vip(1)].into(), "every {interval} s");
        // And what is taken away is taken back with the next one.
        for other in [PEER, THIEF] {
            world.give(vip(1), other);
            world.run(secs(40 + 2 * interval));
            assert_eq!(world.ours(), [vip(1)].into(), "every {interval} s");
        }
        let unknown = transitions(&world, begin).iter().filter(|(to, _)| *to == VrrpState::Unknown).count();
        assert_eq!(unknown, 0, "every {interval} s: {:?}", transitions(&world, begin));
    }
}

#[test]
fn a_group_that_advertises_seldom_and_hangs_is_taken_for_dead() {
    let mut world = World::new(config(&["a"]), advertising(10));
    world.beat = secs(10);
    world.start_agent();
    world.backup("a");
    world.run(secs(10));
    world.master("a");
    world.run(secs(100));
    let begin = world.now;
    world.child_frozen = true;
    world.give(vip(1), PEER);
    world.run(secs(120));
    assert_eq!(transitions(&world, begin), [(VrrpState::Unknown, Cause::NoLife)]);
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
}

#[test]
fn a_group_in_fault_has_no_timer_and_does_not_hang() {
    let mut world = World::one();
    world.becomes("a", NotifyState::Fault);
    world.run(secs(60));
    // Nothing tells the new agent of the line that the old one read.
    let begin = world.now;
    world.kill_agent();
    world.start_agent();
    world.run(secs(10));
    assert_eq!(transitions(&world, begin), [(VrrpState::Fault, Cause::Quiet)]);
    let address = world.reported().expect("the address");
    assert_eq!(address.verdict.to_string(), "STANDBY-NOT-READY");
    let looks = world.looks;
    // So it is after whatever else makes it doubtful.
    let begin = world.now;
    world.tell(Event::PipeFull);
    world.run(secs(10));
    assert_eq!(transitions(&world, begin), [(VrrpState::Unknown, Cause::PipeFull), (VrrpState::Fault, Cause::Quiet)]);
    assert!(world.looks <= looks + 40, "{} looks", world.looks - looks);
    let begin = world.now;
    world.master("a");
    assert_eq!(world.claim_times(begin), [0]);
}

#[test]
fn keepalived_that_is_stopped_is_not_in_fault() {
    for is_local in [false, true] {
        let mut world = World::one();
        if is_local {
            world.master("a");
            world.run(secs(60));
        }
        let begin = world.now;
        world.child_frozen = true;
        world.tell(Event::PipeFull);
        world.run(secs(600));
        assert_eq!(transitions(&world, begin), [(VrrpState::Unknown, Cause::PipeFull)], "local: {is_local}");
    }
    // Nor is one that sleeps while its address is here.
    let mut world = World::held();
    let begin = world.now;
    world.beat = secs(10_000);
    world.tell(Event::PipeFull);
    world.run(secs(600));
    assert_eq!(transitions(&world, begin), [(VrrpState::Unknown, Cause::PipeFull)]);
}

#[test]
fn keepalived_is_looked_at_seldom_where_nothing_comes_of_it() {
    type Case = (&'static str, fn() -> World, usize);
    let cases: [Case; 6] = [
        (
            "claimed, and it cannot be read",
            || {
                let mut world = World::one();
                world.ec2.read_refuses = Some(ErrorClass::Denied);
                world.master("a");
                world
            },
            60,
        ),
        (
            "not allowed to claim",
            || {
                let mut world = World::one();
                world.ec2.refuses = Some(ErrorClass::Denied);
                world.master("a");
                world
            },
            1_600,
        ),
        (
            "its ENI is not known",
            || {
                let mut world = World::new(config(&["a"]), one_group());
                world.imds = Err(ErrorClass::Transient);
                world.start_agent();
                world.master("a");
                world
            },
            1_300,
        ),
        (
            "EC2 does not answer",
            || {
                let mut world = World::one();
                world.ec2.claim_delay = secs(100);
                world.master("a");
                world
            },
            1_300,
        ),
        (
            "hanging",
            || {
                let mut world = World::held();
                world.child_frozen = true;
                world.tell(Event::PipeFull);
                world
            },
            420,
        ),
        (
            "not on any interface",
            || {
                let mut world = World::held();
                world.tell(Event::PipeFull);
                world.run(secs(2));
                world.give(vip(1), THIEF);
                world.local.clear();
                world.look_around();
                world
            },
            600,
        ),
    ];
    for (what, make, most) in cases {
        let mut world = make();
        let before = world.looks;
        world.run(secs(600));
        let looks = world.looks - before;
        assert!(looks <= most, "{what}: {looks} looks in ten minutes");
    }
}

#[test]
fn a_claim_goes_ahead_where_reading_is_not_allowed() {
    for beat in [1, 10] {
        let mut world = before_the_start();
        world.beat = secs(beat);
        world.ec2.read_refuses = Some(ErrorClass::Denied);
        world.start_agent();
        world.run(secs(25));
        assert_eq!(world.ours(), [vip(1)].into(), "a sign of life every {beat} s");
    }
}

#[test]
fn what_may_be_ours_is_not_claimed_because_one_read_fails() {
    for class in [ErrorClass::Throttled, ErrorClass::Transient, ErrorClass::TimedOut] {
        let mut world = World::held();
        world.kill_agent();
        world.start_agent();
        let begin = world.now;
        world.ec2.read_refuses = Some(class);
        world.run(ms(3_500));
        world.ec2.read_refuses = None;
        world.run(secs(30));
        assert_eq!(world.claim_times(begin), [0_u64; 0], "{class:?}: reads at {:?}", world.read_times(begin));
    }
    let mut world = before_the_start();
    world.ec2.read_refuses = Some(ErrorClass::Throttled);
    world.start_agent();
    world.run(secs(25));
    assert_eq!(world.ours(), [vip(1)].into(), "and not for ever");
}

#[test]
fn an_address_on_another_interface_is_no_evidence() {
    let mut world = World::new(config(&["a"]), one_group());
    world.elsewhere = [(vip(1), [interface("dum0")].into())].into();
    world.start_agent();
    world.run(secs(60));
    assert_eq!(transitions(&world, Moment::default()), [(VrrpState::Backup, Cause::Evidence)]);
    assert_eq!(world.claim_times(Moment::default()), [0_u64; 0], "the other router has it");
    let begin = world.now;
    world.master("a");
    assert_eq!(world.claim_times(begin), [0]);
    world.run(secs(60));
    // Taken away by EC2 and by keepalived, whose line is still to come: what is left of it is on the other interface.
    world.give(vip(1), PEER);
    world.local.clear();
    world.look_around();
    let begin = world.now;
    world.run(secs(60));
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
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
        let mut world = World::new(config(&["a"]), one_group());
        world.write(waited.iter().map(|state| line("a", *state)).collect());
        world.local.extend(is_local.then_some(vip(1)));
        world.run(secs(10));
        let begin = world.now;
        world.start_agent();
        assert_eq!(world.claim_times(begin), [0_u64; 0], "{waited:?}: nothing at once");
        world.run(secs(5));
        assert_eq!(transitions(&world, begin), [(state, Cause::Evidence)], "{waited:?}, local {is_local}");
        assert_eq!(world.claim_times(begin).len(), usize::from(is_local), "{waited:?}, local {is_local}");
    }
}

#[test]
fn what_a_full_pipe_held_is_discarded() {
    let mut world = World::held();
    let begin = world.now;
    world.local.clear();
    world.look_around();
    // The line that says BACKUP was lost, and so were those that say why.
    world.tell(Event::Backlog { lines: vec![line("a", NotifyState::Fault)], was_full: true });
    world.give(vip(1), PEER);
    world.run(secs(60));
    assert_eq!(
        transitions(&world, begin),
        [(VrrpState::Unknown, Cause::PipeFull), (VrrpState::Backup, Cause::Evidence)]
    );
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
}

#[test]
fn a_pipe_found_full_makes_everything_doubtful() {
    let mut world = World::held();
    let begin = world.now;
    world.tell(Event::PipeFull);
    world.run(secs(3));
    assert_eq!(
        transitions(&world, begin),
        [(VrrpState::Unknown, Cause::PipeFull), (VrrpState::Master, Cause::Evidence)]
    );
    assert_eq!(world.claim_times(begin), [0_u64; 0], "it is ours");
}

#[test]
fn a_left_over_address_that_goes_right_before_the_claim_is_not_claimed() {
    let mut world = before_the_start();
    world.ec2.read_delay = ms(500);
    let begin = world.now;
    world.start_agent();
    while !transitions(&world, begin).contains(&(VrrpState::Master, Cause::Evidence)) {
        world.run(ms(10));
    }
    // The kernel's news of it has not been read yet.
    world.local.clear();
    world.run(secs(5));
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
    assert!(world.notes(begin).iter().any(|(_, n)| matches!(n, Note::NotLocal { .. })));
}

#[test]
fn an_address_that_is_there_without_vrrp_is_no_evidence() {
    let mut primary = run("a", "eth0", 10, &[network_interface(ETH0).primary]);
    primary.peers.clear();
    let mut outside = World::new(config(&["a"]), one_group());
    outside.config.interface_addresses.insert(vip(1));
    for mut world in [World::new(config(&["a"]), Groups { groups: vec![primary] }), outside] {
        world.local.extend([vip(1), network_interface(ETH0).primary]);
        let begin = world.now;
        world.start_agent();
        world.run(secs(60));
        assert_eq!(transitions(&world, begin), [(VrrpState::Backup, Cause::Evidence)]);
        assert_eq!(world.claim_times(begin), [0_u64; 0]);
        // A line is another matter.
        world.says("a", NotifyState::Master);
        assert_eq!(world.claim_times(begin).len(), 1);
    }
}

#[test]
fn a_lost_master_line_is_found_out_a_second_after_the_address_came() {
    let mut world = World::new(config(&["a"]), one_group());
    world.start_agent();
    world.run(secs(10));
    let begin = world.now;
    world.local.insert(vip(1));
    world.look_around();
    world.run(ms(999));
    assert_eq!(transitions(&world, begin), []);
    world.run(secs(3));
    assert_eq!(transitions(&world, begin), [(VrrpState::Unknown, Cause::NoLine), (VrrpState::Master, Cause::Evidence)]);
    assert_eq!(world.ours(), [vip(1)].into());
}

#[test]
fn a_master_line_that_another_reader_took_is_made_good() {
    use NotifyState::{Backup, Fault, Stop};
    for said in [Backup, Fault, Stop] {
        let mut world = World::one();
        world.becomes("a", said);
        world.run(secs(10));
        let begin = world.now;
        world.becomes_unheard("a", NotifyState::Master);
        world.run(ms(999));
        assert_eq!(transitions(&world, begin), [], "{said:?}");
        world.run(secs(3));
        let expected = [(VrrpState::Unknown, Cause::NoLine), (VrrpState::Master, Cause::Evidence)];
        assert_eq!(transitions(&world, begin), expected, "{said:?}");
        assert_eq!(world.ours(), [vip(1)].into(), "{said:?}");
        // The line that says the contrary is heard.
        let begin = world.now;
        world.backup("a");
        world.run(secs(60));
        let expected = [(VrrpState::Backup, Cause::Line(Backup))];
        assert_eq!((&transitions(&world, begin)[..], world.claim_times(begin)), (&expected[..], vec![]), "{said:?}");
    }
}

#[test]
fn what_a_person_puts_on_a_standby_s_interface_is_no_mastership() {
    // By a line, and by evidence.
    for restarts in [false, true] {
        let mut world = World::one();
        if restarts {
            world.kill_agent();
            world.start_agent();
            world.run(secs(10));
        }
        let begin = world.now;
        world.by_hand(vip(1), true);
        world.run(secs(60));
        assert_eq!(transitions(&world, begin), [], "restarted: {restarts}");
        let shown = world.reported().expect("the address");
        assert_eq!(shown.verdict.to_string(), "DRIFT");
        assert!(shown.reason.is_some_and(|why| why.contains("VRRP is BACKUP here, and the address is on eth0")));
        // Whatever makes the state doubtful.
        world.tell(Event::PipeFull);
        world.run(secs(60));
        assert_eq!(
            transitions(&world, begin),
            [(VrrpState::Unknown, Cause::PipeFull), (VrrpState::Backup, Cause::Evidence)]
        );
        assert_eq!(world.claim_times(begin), [0_u64; 0], "restarted: {restarts}");
        // keepalived takes it for its own when it becomes MASTER, and so it is evidence from then on.
        world.master("a");
        world.run(secs(60));
        let begin = world.now;
        world.tell(Event::PipeFull);
        world.give(vip(1), PEER);
        world.run(secs(10));
        assert_eq!(
            transitions(&world, begin),
            [(VrrpState::Unknown, Cause::PipeFull), (VrrpState::Master, Cause::Evidence)]
        );
        assert_eq!(world.ours(), [vip(1)].into());
    }
}

#[test]
fn a_line_that_came_after_a_stall_says_who_has_an_address_that_a_person_put_there() {
    let mut world = World::one();
    world.by_hand(vip(1), true);
    world.run(secs(10));
    let begin = world.now;
    world.freeze(secs(5));
    world.run(secs(5));
    // The other router has gone: nothing takes this back.
    world.master("a");
    world.run(secs(10));
    assert_eq!(world.ours(), [vip(1)].into(), "{:?}", transitions(&world, begin));
}

#[test]
fn what_a_person_puts_there_after_a_lost_backup_line_is_no_mastership() {
    let mut world = World::held();
    world.becomes_unheard("a", NotifyState::Backup);
    world.run(secs(5));
    world.give(vip(1), PEER);
    let begin = world.now;
    world.by_hand(vip(1), true);
    world.run(secs(2));
    world.tell(Event::PipeFull);
    world.run(secs(60));
    assert_eq!(
        transitions(&world, begin),
        [(VrrpState::Unknown, Cause::PipeFull), (VrrpState::Backup, Cause::Evidence)]
    );
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
}

#[test]
fn an_address_that_keepalived_puts_back_is_not_taken_for_the_person_s_before_it() {
    let mut world = World::one();
    world.by_hand(vip(1), true);
    world.run(secs(5));
    let disabled = Config { groups: vec![GroupConfig { disable: true, ..wanted("a") }], ..Config::default() };
    world.tell(Event::Config(disabled));
    world.master("a");
    world.run(secs(5));
    let begin = world.now;
    // keepalived gives up, is elected again, and puts it there itself; what it said is forgotten with the group.
    world.by_hand(vip(1), false);
    world.tell(Event::Config(config(&["a"])));
    world.run(secs(30));
    let lines =
        [(VrrpState::Backup, Cause::Line(NotifyState::Backup)), (VrrpState::Master, Cause::Line(NotifyState::Master))];
    assert_eq!(transitions(&world, begin), [lines[0], lines[1], (VrrpState::Master, Cause::Evidence)]);
    assert_eq!(world.ours(), [vip(1)].into());
}

#[test]
fn a_transition_seen_in_parts_is_no_lost_line() {
    // The interface and the line come from different sources, in either order.
    let mut world = World::held();
    let begin = world.now;
    world.says("a", NotifyState::Backup);
    world.run(ms(50));
    world.local.clear();
    world.look_around();
    world.give(vip(1), PEER);
    world.run(secs(60));
    assert_eq!(transitions(&world, begin), [(VrrpState::Backup, Cause::Line(NotifyState::Backup))]);
    // A mastership of two moments: its address is gone before anybody knows who put it there.
    let begin = world.now;
    world.becomes_unheard("a", NotifyState::Master);
    world.run(ms(900));
    world.becomes_unheard("a", NotifyState::Backup);
    world.run(secs(60));
    assert_eq!((transitions(&world, begin), world.claim_times(begin)), (vec![], vec![]));
    // The address stays behind, as after SIGKILL, and the line that came last is older than nothing.
    world.master("a");
    world.run(secs(60));
    let begin = world.now;
    world.says("a", NotifyState::Backup);
    world.give(vip(1), PEER);
    world.run(secs(60));
    assert_eq!(transitions(&world, begin), [(VrrpState::Backup, Cause::Line(NotifyState::Backup))]);
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
}

#[test]
fn a_master_without_its_address_is_not_ok() {
    let verdict = |world: &World| world.reported().map(|a| (a.verdict.to_string(), a.reason.unwrap_or_default()));
    let mut world = World::held();
    let begin = world.now;
    world.local.clear();
    world.look_around();
    world.run(ms(2_999));
    assert_eq!(verdict(&world), Some(("OK".to_owned(), String::new())));
    world.run(ms(1));
    let (shown, why) = verdict(&world).expect("the address");
    assert!(shown == "DRIFT" && why.contains("not on eth0 since") && why.contains("`restart vrrp`"), "{shown}: {why}");
    world.run(secs(600));
    // Said once, and nothing is given up for it.
    let places = |world: &World| -> Vec<Option<Misplaced>> {
        let notes = world.notes(begin).into_iter();
        notes.filter_map(|(_, n)| if let Note::Place { wrong, .. } = n { Some(wrong) } else { None }).collect()
    };
    assert_eq!(places(&world), [Some(Misplaced::Missing)]);
    assert_eq!((transitions(&world, begin), world.claim_times(begin)), (vec![], vec![]));
    assert_eq!(world.ours(), [vip(1)].into());
    world.local.insert(vip(1));
    world.look_around();
    assert_eq!(verdict(&world), Some(("OK".to_owned(), String::new())));
    assert_eq!(places(&world), [Some(Misplaced::Missing), None]);
}

#[test]
fn the_interface_is_not_said_to_agree_where_nobody_can_tell() {
    let whys: [(&str, Act); 4] = [
        ("not known", |w| w.tell(Event::PipeFull)),
        ("paused", |w| {
            let until = w.now + secs(600);
            w.tell(Event::Pause { group: group("a"), until });
        }),
        ("another has it", |w| w.give(vip(1), THIEF)),
        ("the group goes", |w| w.reload(Groups { groups: vec![] })),
    ];
    for (what, happens) in whys {
        let mut world = World::held();
        let begin = world.now;
        world.child_frozen = true;
        world.local.clear();
        world.look_around();
        world.run(secs(3));
        happens(&mut world);
        world.run(secs(100));
        let agrees = |w: &World| w.notes(begin).iter().any(|(_, n)| matches!(n, Note::Place { wrong: None, .. }));
        assert!(!agrees(&world), "{what}: {:?}", world.notes(begin));
    }
}

#[test]
fn an_address_that_appears_a_moment_before_its_line_is_claimed_by_the_line() {
    let mut world = World::new(config(&["a"]), one_group());
    world.start_agent();
    world.run(secs(10));
    let begin = world.now;
    world.local.insert(vip(1));
    world.look_around();
    world.run(ms(1));
    world.says("a", NotifyState::Master);
    world.run(secs(10));
    assert_eq!(transitions(&world, begin), [(VrrpState::Master, Cause::Line(NotifyState::Master))]);
    assert_eq!(world.claim_times(begin), [1]);
}

#[test]
fn repeated_rx_lower_pri_names_master_in_whatever_state() {
    let mut world = World::held();
    world.says("a", NotifyState::MasterRxLowerPri);
    world.run(secs(2));
    // A line that is of the past by now makes it doubtful; the next one says it again.
    let begin = world.now;
    world.tell(Event::PipeFull);
    world.give(vip(1), PEER);
    world.says("a", NotifyState::MasterRxLowerPri);
    assert_eq!(world.claim_times(begin), [0_u64; 0], "one of a series: who owns it is read first");
    world.run(secs(1));
    let said = Cause::Line(NotifyState::MasterRxLowerPri);
    assert_eq!(transitions(&world, begin), [(VrrpState::Unknown, Cause::PipeFull), (VrrpState::Master, said)]);
    assert_eq!(world.claim_times(begin), [20]);
}

#[test]
fn a_read_from_before_the_doubt_does_not_decide() {
    let mut world = World::held();
    world.ec2.read_delay = ms(2_200);
    let begin = world.now;
    world.tell(Event::ReadNow);
    world.run(ms(1_100));
    // The address was still ours when EC2 looked; the answer is on its way when the peer takes over.
    world.give(vip(1), PEER);
    world.tell(Event::PipeFull);
    world.run(ms(950));
    assert_eq!(transitions(&world, begin).last(), Some(&(VrrpState::Master, Cause::Evidence)));
    world.run(secs(3));
    assert_eq!(world.claim_times(begin).len(), 1, "the read of the adoption itself decides");
}

#[test]
fn adopting_while_a_claim_is_in_flight_waits_for_its_answer() {
    let mut world = World::one();
    world.ec2.claim_delay = ms(2_500);
    let begin = world.now;
    world.master("a");
    world.run(ms(100));
    world.tell(Event::PipeFull);
    world.run(secs(10));
    let before = world.read_times(begin).into_iter().filter(|when| *when < 2_500).count();
    assert!(before <= 2, "no read after another: {:?}", world.read_times(begin));
    assert_eq!(world.claim_times(begin), [0], "it was performed");
    assert_eq!(world.ours(), [vip(1)].into());
}

#[test]
fn adopting_does_not_wait_for_a_claim_that_hangs() {
    let mut world = World::one();
    world.ec2.refuses = Some(ErrorClass::TimedOut);
    world.master("a");
    // The bound of an attempt has doubled twice.
    world.run(secs(11));
    let sent = world.claim_times(Moment::default()).last().copied().expect("a claim");
    world.ec2.refuses = None;
    let begin = world.now;
    assert!(begin.since_boot() < ms(sent) + secs(4), "the third one is under way");
    world.tell(Event::PipeFull);
    world.run(secs(5));
    assert_eq!(world.ours(), [vip(1)].into(), "claims at {:?}", world.claim_times(begin));
}

// ── B10 ──

#[test]
fn new_groups_count_when_keepalived_has_reloaded() {
    let two = Groups { groups: vec![run("a", "eth0", 10, &[vip(1)]), run("b", "eth0", 11, &[vip(2)])] };
    let counts = |world: &World| world.machine.knows(&group("b")) && world.machine.addresses.contains_key(&vip(2));
    let reloads: [(&str, u64, Act); 4] = [
        ("HUP", 100, |w| w.tell(Event::Hup)),
        ("an address of it appears", 100, |w| {
            w.local.insert(vip(2));
            w.look_around();
        }),
        ("a line of it", 100, |w| w.tell(Event::Lines(vec![line("b", NotifyState::Backup)]))),
        ("two seconds", 2_000, |w| w.run(ms(0))),
    ];
    for (what, after, reload) in reloads {
        let mut world = World::one();
        world.config = config(&["a", "b"]);
        world.tell(Event::Config(world.config.clone()));
        world.tell(Event::Groups(two.clone()));
        world.run(ms(after - 1));
        assert!(!counts(&world), "before {what}");
        world.run(ms(1));
        reload(&mut world);
        assert!(counts(&world), "{what}");
    }
}

#[test]
fn the_first_line_of_a_new_group_claims_at_once() {
    let mut world = World::one();
    world.config = config(&["a", "b"]);
    world.tell(Event::Config(world.config.clone()));
    world.groups = Groups { groups: vec![run("a", "eth0", 10, &[vip(1)]), run("b", "eth0", 11, &[vip(2)])] };
    world.tell(Event::Groups(world.groups.clone()));
    let begin = world.now;
    world.write(vec![line("b", NotifyState::Master)]);
    assert_eq!(world.claims_since(begin), [(0, vec![vip(2)])]);
}

#[test]
fn the_address_of_a_group_that_was_there_before_does_not_make_new_ones_count() {
    let two = Groups { groups: vec![run("a", "eth0", 10, &[vip(1)]), run("z", "eth0", 11, &[vip(2)])] };
    let mut world = World::settled(config(&["a"]), two.clone());
    let three = Groups { groups: [two.groups, vec![run("b", "eth0", 12, &[vip(3)])]].concat() };
    world.config = config(&["a", "b"]);
    world.tell(Event::Config(world.config.clone()));
    world.tell(Event::Groups(three));
    // z has no aws-vipa node.
    world.local.insert(vip(2));
    world.look_around();
    assert!(!world.machine.addresses.contains_key(&vip(3)));
}

#[test]
fn a_group_that_goes_is_not_claimed_for_any_more() {
    let mut world = World::one();
    world.ec2.refuses = Some(ErrorClass::Transient);
    world.master("a");
    world.run(secs(1));
    world.ec2.refuses = None;
    let begin = world.now;
    world.config = config(&[]);
    world.tell(Event::Config(world.config.clone()));
    world.run(secs(60));
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
}

#[test]
fn a_group_renamed_while_master_keeps_its_address_without_a_claim() {
    let mut world = World::held();
    let begin = world.now;
    let renamed = Groups { groups: vec![run("new", "eth0", 10, &[vip(1)])] };
    world.tell(Event::Groups(renamed.clone()));
    world.groups = renamed;
    world.config = config(&["new"]);
    world.tell(Event::Hup);
    world.tell(Event::Config(world.config.clone()));
    world.run(secs(5));
    assert_eq!(transitions(&world, begin), [(VrrpState::Master, Cause::Evidence)]);
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
    world.give(vip(1), THIEF);
    world.run(secs(40));
    assert_eq!(world.claim_times(begin).len(), 1, "it is looked after under its new name");
}

#[test]
fn an_address_added_while_master_is_claimed() {
    let mut world = World::held();
    let begin = world.now;
    world.give(vip(2), PEER);
    world.groups = Groups { groups: vec![run("a", "eth0", 10, &[vip(1), vip(2)])] };
    world.tell(Event::Groups(world.groups.clone()));
    world.tell(Event::Hup);
    world.run(ms(5));
    world.local.insert(vip(2));
    world.look_around();
    world.run(secs(5));
    assert_eq!(world.claims_since(begin).iter().map(|(_, ips)| ips.clone()).collect::<Vec<_>>(), [vec![vip(2)]]);
    assert_eq!(world.ours(), [vip(1), vip(2)].into());
}

#[test]
fn an_address_that_moves_to_another_group_goes_by_that_one() {
    let [a, b] = [("a", 10), ("b", 11)].map(|(name, vrid)| move |ips: &[_]| run(name, "eth0", vrid, ips));
    let mut world = World::settled(config(&["a", "b"]), Groups { groups: vec![a(&[vip(1), vip(2)]), b(&[vip(3)])] });
    world.master("a");
    world.run(secs(60));
    let begin = world.now;
    world.groups = Groups { groups: vec![a(&[vip(1)]), b(&[vip(2), vip(3)])] };
    world.tell(Event::Groups(world.groups.clone()));
    world.tell(Event::Hup);
    world.local.remove(&vip(2));
    world.look_around();
    world.give(vip(2), PEER);
    world.run(secs(100));
    assert_eq!(world.claim_times(begin), [0_u64; 0], "b is BACKUP");
    world.master("b");
    assert_eq!(world.claims_since(begin), [(100_000, vec![vip(2), vip(3)])]);
}

#[test]
fn a_group_switched_off_is_left_alone_and_found_out_when_it_is_switched_on() {
    let mut world = World::held();
    let begin = world.now;
    world.config.groups = vec![GroupConfig { disable: true, ..wanted("a") }];
    world.tell(Event::Config(world.config.clone()));
    world.give(vip(1), PEER);
    world.says("a", NotifyState::Master);
    world.run(secs(100));
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
    world.config = config(&["a"]);
    world.tell(Event::Config(world.config.clone()));
    world.run(secs(3));
    assert_eq!(world.claim_times(begin).len(), 1);
}

// ── B13 ──

#[test]
fn an_agent_killed_at_any_moment_ends_in_the_same_state() {
    for moment in [0, 1, 10, 49, 50, 500, 1_060, 1_500, 3_060, 11_000, 31_000] {
        for down in [1, 2_000, 20_000] {
            let mut world = World::one();
            world.master("a");
            world.run(ms(moment));
            world.kill_agent();
            world.run(ms(down));
            let begin = world.now;
            let was_ours = world.ours() == [vip(1)].into();
            world.start_agent();
            world.run(secs(120));
            assert_eq!(world.ours(), [vip(1)].into(), "killed after {moment} ms for {down} ms");
            let claims = world.claim_times(begin);
            // A claim that was on its way may still land.
            assert!(claims.len() <= usize::from(!was_ours), "killed after {moment} ms for {down} ms: {claims:?}");
        }
    }
}

#[test]
fn master_and_backup_while_the_agent_is_down_claim_nothing() {
    for was_full in [false, true] {
        let mut world = World::one();
        world.kill_agent();
        world.master("a");
        world.run(secs(5));
        world.backup("a");
        world.run(secs(5));
        let begin = world.now;
        world.start_agent();
        if was_full {
            world.tell(Event::Backlog { lines: vec![line("a", NotifyState::Master)], was_full });
        }
        world.run(secs(120));
        assert_eq!(world.claim_times(begin), [0_u64; 0], "full: {was_full}");
    }
}

// ── B18 ──

#[test]
fn an_eni_that_cannot_be_found_out_is_asked_for_until_it_can_and_the_claim_follows() {
    let mut world = World::new(config(&["a"]), one_group());
    world.imds = Err(ErrorClass::Transient);
    world.start_agent();
    let begin = world.now;
    world.run(ms(500));
    world.master("a");
    world.run(secs(60));
    let asked: Vec<u64> = world
        .done
        .iter()
        .filter(|(_, a)| matches!(a, Action::Resolve(_)))
        .map(|(when, _)| begin.until(*when).as_millis() as u64)
        .collect();
    assert!(asked[1] - asked[0] <= 201 && asked.len() >= 14, "{asked:?}");
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] <= 5_001), "{asked:?}");
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
    let notes = world.notes(begin);
    assert_eq!(notes.iter().filter(|(_, n)| matches!(n, Note::Unresolved { .. })).count(), 1, "said once: {notes:?}");
    world.imds = Ok(());
    let begin = world.now;
    while world.claim_times(begin).is_empty() && world.now < begin + secs(6) {
        world.run(ms(1));
    }
    let resolve = world.done.iter().find(|(when, a)| *when >= begin && matches!(a, Action::Resolve(_)));
    assert_eq!(resolve.map(|(when, _)| world.claim_times(*when)), Some(vec![1]), "as soon as the ENI is known");
}

#[test]
fn a_configured_eni_is_claimed_for_without_the_metadata_service() {
    let mut world = World::new(config(&["a"]), one_group());
    world.config.groups[0].network_interface_id = Some(eni(THIEF));
    world.imds = Err(ErrorClass::Transient);
    world.start_agent();
    world.run(secs(1));
    world.master("a");
    let claim = world.done.iter().find_map(|(_, action)| match action {
        Action::Claim { eni, .. } => Some(eni.to_string()),
        _ => None,
    });
    assert_eq!(claim.as_deref(), Some(THIEF));
    // The same by evidence: without a VPC nothing can be read, so it is claimed without.
    world.run(secs(5));
    world.done.clear();
    let begin = world.now;
    world.tell(Event::PipeFull);
    world.run(secs(4));
    assert_eq!(world.claim_times(begin).len(), 1);
}

#[test]
fn another_eni_behind_the_interface_is_claimed_for() {
    let mut world = World::held();
    let begin = world.now;
    world.enis.insert(interface("eth0"), eni("eni-0000000e"));
    // The ENI is asked for anew with every regular read.
    world.run(secs(35));
    assert_eq!(world.claim_times(begin).len(), 1);
    assert_eq!(world.owner(vip(1)), Some("eni-0000000e"));
    assert_eq!(world.theft_times(begin), [0_u64; 0]);
}

#[test]
fn an_eni_that_is_gone_is_asked_for_again_and_the_claim_follows() {
    let mut world = World::one();
    world.ec2.claims = vec![Fault::Fails(ErrorClass::NoSuchInterface)];
    world.enis.insert(interface("eth0"), eni("eni-0000000e"));
    let begin = world.now;
    world.master("a");
    world.run(secs(5));
    assert_eq!(world.claim_times(begin), [0, 51], "as soon as the other ENI is known");
    assert_eq!(world.owner(vip(1)), Some("eni-0000000e"));
}

// ── B19 ──

#[test]
fn a_paused_group_claims_nothing_until_the_pause_ends() {
    let mut world = World::held();
    let begin = world.now;
    world.tell(Event::Pause { group: group("a"), until: begin + secs(1_800) });
    world.give(vip(1), PEER);
    world.says("a", NotifyState::Master);
    world.says("a", NotifyState::MasterRxLowerPri);
    world.run(secs(100));
    let refused = world.machine.refuses_force(&group("a")).unwrap_or_default();
    assert!(refused.contains("force aws-vipa resume a"), "{refused:?}");
    world.tell(Event::Force(group("a")));
    world.run(secs(1_800 - 101));
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
    world.run(secs(4));
    assert_eq!(world.claim_times(begin).len(), 1, "the interface says MASTER");
    assert!(transitions(&world, begin).contains(&(VrrpState::Unknown, Cause::PauseOver)));
}

#[test]
fn a_person_ends_a_pause() {
    let mut world = World::held();
    let begin = world.now;
    world.tell(Event::Pause { group: group("a"), until: begin + secs(1_800) });
    world.give(vip(1), PEER);
    world.run(secs(60));
    world.tell(Event::Resume(group("a")));
    assert_eq!(world.claim_times(begin), [0_u64; 0], "a return from UNKNOWN");
    world.run(secs(3));
    assert_eq!(world.claim_times(begin).len(), 1);
    assert_eq!(world.machine.refuses_force(&group("a")), None);
}

#[test]
fn after_a_full_pipe_a_fault_may_be_over() {
    let mut world = World::one();
    world.becomes("a", NotifyState::Fault);
    world.tell(Event::PipeFull);
    world.run(secs(5));
    assert_eq!(
        world.machine.groups[&group("a")].belief.vrrp(),
        VrrpState::Backup,
        "the line that was lost may have said so"
    );
}

#[test]
fn a_pause_from_before_the_start_holds_for_a_group_that_comes_later() {
    let mut world = before_the_start();
    world.start_agent();
    // As the agent does: pauses first, then the files.
    let begin = world.now;
    world.machine = crate::claim::Machine::new(world.now, 1);
    world.judge.started(begin);
    world.tell(Event::Pause { group: group("a"), until: begin + secs(600) });
    world.look_around();
    world.tell(Event::Config(world.config.clone()));
    world.tell(Event::Groups(world.groups.clone()));
    world.tell(Event::Writer(true));
    world.run(secs(599));
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
    world.run(secs(5));
    assert_eq!(world.claim_times(begin).len(), 1);
}

#[test]
fn force_is_refused_where_it_would_do_nothing() {
    let mut world = World::one();
    let refusal = |world: &World, name| world.machine.refuses_force(&group(name)).unwrap_or_default();
    assert!(refusal(&world, "a").contains("not MASTER"), "{:?}", refusal(&world, "a"));
    assert!(refusal(&world, "x").contains("no aws-vipa node"), "{:?}", refusal(&world, "x"));
    let begin = world.now;
    world.tell(Event::Force(group("a")));
    world.run(secs(10));
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
    world.tell(Event::Pause { group: group("a"), until: world.now + secs(60) });
    assert!(refusal(&world, "a").contains("force aws-vipa resume a"), "{:?}", refusal(&world, "a"));
    world.tell(Event::Resume(group("a")));
    world.config.groups = vec![GroupConfig { disable: true, ..wanted("a") }];
    world.tell(Event::Config(world.config.clone()));
    assert!(refusal(&world, "a").contains("disable"), "{:?}", refusal(&world, "a"));
}
