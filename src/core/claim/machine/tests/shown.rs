//! What the status report says of an address, beside the verdicts and reasons that `table.txt` has for its states.

use super::world::{ETH0, ETH1, Fault, PEER, World, clock, config, eni, interface, run, secs, vip, wanted};
use crate::claim::Event;
use crate::claim::address::Phase;
use crate::keepalived::groups::Groups;
use crate::model::config::{Config, GroupConfig};
use crate::model::ec2::ErrorClass;
use crate::model::vrrp::NotifyState;
use crate::report::model::{AddressReport, Verdict};

impl World {
    /// What the report says of the address.
    pub fn reported(&self) -> Option<AddressReport> {
        let groups = self.machine.report(self.now, clock);
        groups.into_iter().flat_map(|g| g.addresses).find(|a| a.address == vip(1))
    }

    #[track_caller]
    fn shows(&self, verdict: Verdict, parts: &[&str]) -> AddressReport {
        let shown = self.reported().expect("the address");
        let reason = shown.reason.clone().unwrap_or_default();
        assert_eq!(shown.verdict, verdict, "{reason}");
        assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
        assert_eq!(reason.is_empty(), parts.is_empty(), "{reason}");
        shown
    }
}

/// EC2 hangs: nearly all the time the next attempt is in flight.
#[test]
fn a_claim_that_failed_is_told_while_the_next_one_is_in_flight() {
    let mut world = World::one();
    world.ec2.claims = vec![Fault::Fails(ErrorClass::TimedOut); 2];
    world.master("a");
    world.run(secs(1));
    let shown = world.shows(Verdict::Claiming, &[]);
    assert_eq!(shown.last_failure, None);
    world.run(secs(4));
    assert!(matches!(world.machine.addresses[&vip(1)].phase, Phase::InFlight(_)));
    let shown = world.shows(Verdict::Claiming, &["TimedOut", "the route, the firewall and DNS"]);
    assert_eq!(shown.last_claim.and_then(|c| c.error), None, "it is not answered yet");
    assert_eq!(shown.last_failure.map(|f| f.code), Some("TimedOut".to_owned()));
    world.run(secs(30));
    assert_eq!(world.shows(Verdict::Ok, &[]).last_failure, None, "one has succeeded");
}

#[test]
fn who_wants_nothing_any_more_has_no_claim_that_failed() {
    let mut world = World::one();
    world.ec2.refuses = Some(ErrorClass::Transient);
    world.master("a");
    world.run(secs(3));
    assert!(world.shows(Verdict::Claiming, &["Transient"]).last_failure.is_some());
    world.says("a", NotifyState::Backup);
    world.run(secs(3));
    assert_eq!(world.reported().expect("the address").last_failure, None);
}

/// No bare OK while nobody looks.
#[test]
fn a_master_that_cannot_read_says_so() {
    let mut world = World::one();
    world.ec2.read_refuses = Some(ErrorClass::Denied);
    world.master("a");
    world.run(secs(20));
    world.shows(Verdict::Claiming, &["no read has confirmed it yet; the last read failed: Denied", "the IAM policy"]);
    world.ec2.read_refuses = None;
    world.run(secs(30));
    world.shows(Verdict::Ok, &[]);
    world.ec2.read_refuses = Some(ErrorClass::Denied);
    world.run(secs(30));
    world.shows(Verdict::Ok, &[]);
    let seen = world.reported().and_then(|a| a.owner).expect("an owner").at.strftime("%F %T UTC").to_string();
    world.run(secs(60));
    world.shows(Verdict::Unknown, &["EC2 last said at", &seen, " that it is ours; the last read failed: Denied"]);
    world.ec2.read_refuses = None;
    world.run(secs(31));
    world.shows(Verdict::Ok, &[]);
}

#[test]
fn a_standby_that_was_refused_says_when_and_that_it_does_not_try() {
    let mut world = World::one();
    world.ec2.refuses = Some(ErrorClass::Denied);
    world.master("a");
    world.run(secs(5));
    world.shows(Verdict::Drift, &["Denied", "tried again every minute"]);
    world.becomes("a", NotifyState::Backup);
    world.run(secs(60));
    let shown = world.shows(
        Verdict::StandbyNotReady,
        &["the last claim from here failed at 1970-01-01 00:00:10 UTC: Denied", "a standby claims nothing"],
    );
    assert_eq!((shown.last_failure, shown.reason.filter(|r| r.contains("tried again"))), (None, None));
}

#[test]
fn a_claim_that_ends_well_after_backup_proves_the_right() {
    let mut world = World::one();
    world.ec2.refuses = Some(ErrorClass::Denied);
    world.master("a");
    world.run(secs(5));
    world.ec2.refuses = None;
    world.says("a", NotifyState::Master);
    world.backup("a");
    world.run(secs(1));
    world.shows(Verdict::StandbyReady, &[]);
}

#[test]
fn a_standby_that_was_not_asked_about_yet_is_not_ready() {
    let mut world = World::new(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
    world.start_agent();
    world.becomes("a", NotifyState::Backup);
    world.shows(Verdict::StandbyNotReady, &["readiness has not been read yet"]);
    world.run(secs(5));
    world.shows(Verdict::StandbyReady, &[]);
}

/// The new master has a minute to claim it.
#[test]
fn a_standby_that_still_has_the_address_is_drift() {
    let mut world = World::held();
    world.becomes("a", NotifyState::Backup);
    world.run(secs(59));
    world.shows(Verdict::StandbyReady, &[]);
    world.run(secs(2));
    world.shows(Verdict::Drift, &["EC2 still sends the address's packets here"]);
    world.give(vip(1), PEER);
    world.run(secs(40));
    world.shows(Verdict::StandbyReady, &[]);
}

#[test]
fn what_a_question_was_not_answered_for_is_told() {
    let mut world = World::held();
    let ask = |world: &mut World| {
        let asked = world.now;
        world.tell(Event::ReadNow);
        assert!(world.machine.unread_since(asked).is_some_and(|why| why.contains("EC2 has not answered yet")));
        world.run(secs(5));
        world.machine.unread_since(asked)
    };
    assert_eq!(ask(&mut world), None);
    world.ec2.read_refuses = Some(ErrorClass::Denied);
    assert!(ask(&mut world).is_some_and(|why| why.contains("the read failed: Denied") && why.contains("IAM policy")));

    let mut world = World::new(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
    world.imds = Err(ErrorClass::Transient);
    world.start_agent();
    let asked = world.now;
    world.tell(Event::ReadNow);
    assert!(world.machine.unread_since(asked).is_some_and(|why| why.contains("IMDS has not said yet")));
    world.run(secs(5));
    assert!(world.machine.unread_since(asked).is_some_and(|why| why.contains("(ENI) of eth0 is not known: Transient")));

    let disabled = GroupConfig { disable: true, ..wanted("a") };
    for groups in [vec![], vec![disabled]] {
        let mut world = World::held();
        assert!(!world.machine.has_nothing_to_read());
        world.tell(Event::Config(Config { groups, ..Config::default() }));
        assert!(world.machine.has_nothing_to_read() && world.machine.unread_since(world.now).is_none());
    }
}

#[test]
fn who_takes_it_in_a_contest_is_not_looked_for_here() {
    let mut world = World::contest();
    world.shows(Verdict::Contested, &["ours now; `show aws-vipa group a` tells who took it"]);
    world.rob_twice();
    world.shows(Verdict::Contested, &["last seen with eni-0000000d of no instance; find out what claims it there"]);
}

/// What has happened to an address is not forgotten because another ENI takes it.
#[test]
fn a_claim_is_remembered_when_the_network_interface_id_is_set_and_deleted() {
    let mut world = World::held();
    let claimed = world.reported().and_then(|a| a.last_claim).expect("a claim");
    assert_eq!(claimed.eni, Some(eni(ETH0)));
    let configured = |id: &str| GroupConfig { network_interface_id: Some(eni(id)), ..wanted("a") };
    let of = |group| Config { groups: vec![group], ..Config::default() };
    let begin = world.now;
    for config in [of(configured(ETH0)), of(wanted("a"))] {
        world.tell(Event::Config(config));
        assert_eq!(world.shows(Verdict::Ok, &[]).last_claim, Some(claimed.clone()), "the ENI is the same");
    }
    world.run(secs(60));
    assert_eq!(world.claim_times(begin), [0_u64; 0]);
    world.tell(Event::Config(of(configured(ETH1))));
    assert_eq!(world.reported().and_then(|a| a.last_claim), Some(claimed), "the other one has not been claimed for");
    world.run(secs(30));
    assert_eq!(world.shows(Verdict::Ok, &[]).last_claim.and_then(|c| c.eni), Some(eni(ETH1)));
    assert_eq!(world.owner(vip(1)), Some(ETH1));
}

#[test]
fn a_contest_goes_on_when_another_network_interface_takes_the_address() {
    let mut world = World::contest();
    let configured = GroupConfig { network_interface_id: Some(eni(ETH1)), ..wanted("a") };
    world.tell(Event::Config(Config { groups: vec![configured], ..Config::default() }));
    assert_eq!(world.reported().map(|a| a.verdict), Some(Verdict::Contested));
    world.run(secs(30));
    assert_eq!(world.reported().map(|a| a.verdict), Some(Verdict::Contested));
}

#[test]
fn a_claim_is_remembered_when_another_group_has_the_address() {
    let mut world = World::held();
    let claimed = world.reported().and_then(|a| a.last_claim);
    world.tell(Event::Config(config(&["a", "b"])));
    world.reload(Groups { groups: vec![run("b", "eth0", 11, &[vip(1)])] });
    assert!(claimed.is_some());
    assert_eq!(world.reported().and_then(|a| a.last_claim), claimed);
}

/// What EC2 refused for one ENI says nothing of another.
#[test]
fn a_standby_that_was_refused_for_another_network_interface_is_not_held_back() {
    let mut world = World::one();
    world.ec2.refuses = Some(ErrorClass::NoSuchInterface);
    world.master("a");
    world.run(secs(5));
    world.backup("a");
    world.run(secs(60));
    world.shows(Verdict::StandbyNotReady, &["the last claim from here failed"]);
    world.enis.insert(interface("eth0"), eni("eni-0000000e"));
    world.run(secs(60));
    world.shows(Verdict::StandbyReady, &[]);
}
