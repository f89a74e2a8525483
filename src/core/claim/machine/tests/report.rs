//! What the status report says of an address, beside the verdicts and reasons that `table.txt` has for its states.

use std::net::Ipv4Addr;

use super::harness::{
    ETH0, ETH1, Fault, Harness, PEER, clock, config, eni, interface, ms, owner, run, secs, vip, wanted,
};
use crate::claim::Event;
use crate::claim::resource::Phase;
use crate::keepalived::groups::Groups;
use crate::model::config::{Config, GroupConfig};
use crate::model::ec2::ErrorClass;
use crate::model::ids::AllocationId;
use crate::model::resource::{ElasticIp, Holder};
use crate::model::verdict::Verdict;
use crate::model::vrrp::NotifyState;
use crate::report::model::AddressReport;
use crate::report::{live, reasons};

impl Harness {
    /// What the report says of the address.
    pub fn reported(&self) -> Option<AddressReport> {
        let groups = live::groups(self.machine.facts(self.now), clock);
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

/// It moves along with the address: the regular reads of both routers show it.
#[test]
fn the_elastic_ip_of_an_address_is_shown_whoever_has_it() {
    let allocation = AllocationId::try_from("eipalloc-00000001").expect("an id");
    let elastic_ip = ElasticIp { allocation, public_address: Ipv4Addr::new(203, 0, 113, 1) };
    let with = |id| Some(Holder::WithElasticIp { owner: owner(id), elastic_ip: elastic_ip.clone() });
    let mut harness = Harness::one();
    let shown = |harness: &Harness| harness.reported().and_then(|address| address.elastic_ip);
    assert_eq!(shown(&harness), None);
    harness.show(vip(1), with(PEER));
    harness.run(secs(100));
    assert_eq!(shown(&harness), Some(elastic_ip.clone()), "on a standby");
    harness.master("a");
    harness.run(secs(1));
    harness.show(vip(1), with(ETH0));
    harness.run(secs(100));
    assert_eq!(shown(&harness), Some(elastic_ip.clone()), "on the master");
    assert_eq!(harness.reported().map(|address| address.verdict), Some(Verdict::Ok));
    harness.give(vip(1), ETH0);
    harness.run(secs(100));
    assert_eq!(shown(&harness), None, "it was disassociated");
}

/// EC2 hangs: nearly all the time the next attempt is in flight.
#[test]
fn a_claim_that_failed_is_reported_while_the_next_one_is_in_flight() {
    let mut harness = Harness::one();
    harness.ec2.claims = vec![Fault::Fails(ErrorClass::TimedOut); 2];
    harness.master("a");
    harness.run(secs(1));
    let shown = harness.shows(Verdict::Claiming, &[]);
    assert_eq!(shown.last_failure, None);
    harness.run(secs(4));
    assert!(matches!(harness.machine.resources[&vip(1).into()].phase, Phase::InFlight(_)));
    let shown = harness.shows(
        Verdict::Claiming,
        &["TimedOut", "check the route, security groups (also the VPC endpoint's), the firewall and DNS"],
    );
    assert_eq!(shown.last_claim.and_then(|c| c.error), None, "it is not answered yet");
    assert_eq!(shown.last_failure.map(|f| f.code), Some("TimedOut".to_owned()));
    harness.run(secs(30));
    assert_eq!(harness.shows(Verdict::Ok, &[]).last_failure, None, "one has succeeded");
}

#[test]
fn who_wants_nothing_any_more_has_no_claim_that_failed() {
    let mut harness = Harness::one();
    harness.ec2.refuses = Some(ErrorClass::Transient);
    harness.master("a");
    harness.run(secs(3));
    assert!(harness.shows(Verdict::Claiming, &["Transient"]).last_failure.is_some());
    harness.says("a", NotifyState::Backup);
    harness.run(secs(3));
    assert_eq!(harness.reported().expect("the address").last_failure, None);
}

/// No bare OK while nobody looks.
#[test]
fn a_master_that_cannot_read_says_so() {
    let mut harness = Harness::one();
    harness.ec2.read_refuses = Some(ErrorClass::Denied);
    harness.master("a");
    harness.run(secs(20));
    harness.shows(
        Verdict::Claiming,
        &["not confirmed by an ownership check yet; the last ownership check failed: Denied", "the IAM policy"],
    );
    harness.ec2.read_refuses = None;
    harness.run(secs(30));
    harness.shows(Verdict::Ok, &[]);
    harness.ec2.read_refuses = Some(ErrorClass::Denied);
    harness.run(secs(30));
    harness.shows(Verdict::Ok, &[]);
    let owner_read = harness.reported().and_then(|a| a.owner).expect("an owner").at.strftime("%F %T UTC").to_string();
    harness.run(secs(60));
    harness.shows(
        Verdict::Unknown,
        &["EC2 last confirmed at ", &owner_read, " that this router has it; the last ownership check failed: Denied"],
    );
    harness.ec2.read_refuses = None;
    harness.run(secs(31));
    harness.shows(Verdict::Ok, &[]);
}

#[test]
fn a_standby_that_was_refused_says_when_and_that_it_does_not_try() {
    let mut harness = Harness::one();
    harness.ec2.refuses = Some(ErrorClass::Denied);
    harness.master("a");
    harness.run(secs(5));
    harness.shows(Verdict::Drift, &["Denied", "retried every minute"]);
    harness.becomes("a", NotifyState::Backup);
    harness.run(secs(60));
    let shown = harness.shows(
        Verdict::StandbyNotReady,
        &["the last claim from this router failed at 1970-01-01 00:00:10 UTC: Denied", "a standby does not retry"],
    );
    assert_eq!((shown.last_failure, shown.reason.filter(|r| r.contains("retried"))), (None, None));
}

#[test]
fn a_claim_that_ends_well_after_backup_proves_the_right() {
    let mut harness = Harness::one();
    harness.ec2.refuses = Some(ErrorClass::Denied);
    harness.master("a");
    harness.run(secs(5));
    harness.ec2.refuses = None;
    harness.says("a", NotifyState::Master);
    harness.backup("a");
    harness.run(secs(1));
    harness.shows(Verdict::StandbyReady, &[]);
}

#[test]
fn a_standby_that_was_not_asked_about_yet_is_not_ready() {
    let mut harness = Harness::new(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
    harness.start_agent();
    harness.becomes("a", NotifyState::Backup);
    harness.shows(Verdict::StandbyNotReady, &["readiness not checked yet"]);
    harness.run(secs(5));
    harness.shows(Verdict::StandbyReady, &[]);
}

/// The new master has a minute to claim it.
#[test]
fn a_standby_that_still_has_the_address_is_drift() {
    let mut harness = Harness::held();
    harness.becomes("a", NotifyState::Backup);
    harness.run(secs(60));
    harness.shows(Verdict::StandbyReady, &[]);
    harness.run(ms(1));
    harness.shows(Verdict::Drift, &["EC2 still delivers the address's traffic to this router"]);
    harness.give(vip(1), PEER);
    harness.run(secs(40));
    harness.shows(Verdict::StandbyReady, &[]);
}

#[test]
fn what_a_question_was_not_answered_for_is_reported() {
    let mut harness = Harness::held();
    let not_read = |harness: &Harness, since| harness.machine.not_read_since(since).map(|why| reasons::not_read(&why));
    let ask = |harness: &mut Harness| {
        let asked = harness.now;
        harness.tell(Event::ReadNow);
        assert!(not_read(harness, asked).is_some_and(|why| why.contains("EC2 has not answered yet")));
        harness.run(secs(5));
        not_read(harness, asked)
    };
    assert_eq!(ask(&mut harness), None);
    harness.ec2.read_refuses = Some(ErrorClass::Denied);
    assert!(ask(&mut harness).is_some_and(|why| why.contains("check failed: Denied") && why.contains("IAM policy")));

    let mut harness = Harness::new(config(&["a"]), Groups { groups: vec![run("a", "eth0", 10, &[vip(1)])] });
    harness.imds = Err(ErrorClass::Transient);
    harness.start_agent();
    let asked = harness.now;
    harness.tell(Event::ReadNow);
    assert!(not_read(&harness, asked).is_some_and(|why| why.contains("IMDS has not reported")));
    harness.run(secs(5));
    assert!(not_read(&harness, asked).is_some_and(|why| why.contains("(ENI) of eth0 is unknown: Transient")));

    let disabled = GroupConfig { disable: true, ..wanted("a") };
    for groups in [vec![], vec![disabled]] {
        let mut harness = Harness::held();
        assert!(!harness.machine.has_nothing_to_read());
        harness.tell(Event::Config(Config { groups, ..Config::default() }));
        assert!(harness.machine.has_nothing_to_read() && harness.machine.not_read_since(harness.now).is_none());
    }
}

#[test]
fn an_address_that_keepalived_moves_to_another_interface_has_to_be_seen_there() {
    let mut harness = Harness::held();
    let on_eth0 = GroupConfig { interface: Some(interface("eth0")), ..wanted("a") };
    harness.tell(Event::Config(Config { groups: vec![on_eth0], ..Config::default() }));
    harness.child_frozen = true;
    let mut groups = harness.groups.clone();
    groups.groups[0].addresses[0].interface = Some(interface("eth1"));
    harness.tell(Event::Groups(groups.clone()));
    harness.tell(Event::Hup);
    harness.run(secs(1));
    harness.shows(Verdict::Unknown, &["is on no local interface"]);
    harness.groups = groups;
    harness.look_around();
    harness.run(secs(1));
    harness.shows(Verdict::Unknown, &["waiting for keepalived activity"]);
    harness.child_frozen = false;
    harness.run(secs(10));
    harness.shows(Verdict::Ok, &[]);
}

#[test]
fn a_claim_that_the_rate_limit_delays_says_when_it_is_sent() {
    let mut harness = Harness::one();
    harness.storm();
    harness
        .shows(Verdict::Claiming, &["rate limit for claims of this network interface (ENI) reached: next claim at "]);
}

#[test]
fn who_takes_it_while_contested_is_not_looked_for_here() {
    let mut harness = Harness::contested();
    harness.shows(Verdict::Contested, &["this router has it now. `show aws-vipa group a` shows who took it"]);
    harness.lose_ownership();
    harness.shows(Verdict::Contested, &["last seen on eni-0000000d of no instance. Stop what claims it there"]);
}

/// What has happened to an address is not forgotten because another ENI takes it.
#[test]
fn a_claim_is_remembered_when_the_network_interface_id_is_set_and_deleted() {
    let mut harness = Harness::held();
    let claimed = harness.reported().and_then(|a| a.last_claim).expect("a claim");
    assert_eq!(claimed.eni, Some(eni(ETH0)));
    let configured = |id: &str| GroupConfig { network_interface_id: Some(eni(id)), ..wanted("a") };
    let of = |group| Config { groups: vec![group], ..Config::default() };
    let begin = harness.now;
    for config in [of(configured(ETH0)), of(wanted("a"))] {
        harness.tell(Event::Config(config));
        assert_eq!(harness.shows(Verdict::Ok, &[]).last_claim, Some(claimed.clone()), "the ENI is the same");
    }
    harness.run(secs(60));
    assert_eq!(harness.claim_times(begin), [0_u64; 0]);
    harness.tell(Event::Config(of(configured(ETH1))));
    assert_eq!(harness.reported().and_then(|a| a.last_claim), Some(claimed), "the other one has not been claimed for");
    harness.run(secs(30));
    assert_eq!(harness.shows(Verdict::Ok, &[]).last_claim.and_then(|c| c.eni), Some(eni(ETH1)));
    assert_eq!(harness.owner(vip(1)), Some(ETH1));
}

#[test]
fn contested_goes_on_when_another_network_interface_takes_the_address() {
    let mut harness = Harness::contested();
    let configured = GroupConfig { network_interface_id: Some(eni(ETH1)), ..wanted("a") };
    harness.tell(Event::Config(Config { groups: vec![configured], ..Config::default() }));
    assert_eq!(harness.reported().map(|a| a.verdict), Some(Verdict::Contested));
    harness.run(secs(30));
    assert_eq!(harness.reported().map(|a| a.verdict), Some(Verdict::Contested));
}

#[test]
fn a_claim_is_remembered_when_another_group_has_the_address() {
    let mut harness = Harness::held();
    let claimed = harness.reported().and_then(|a| a.last_claim);
    harness.tell(Event::Config(config(&["a", "b"])));
    harness.reload(Groups { groups: vec![run("b", "eth0", 11, &[vip(1)])] });
    assert!(claimed.is_some());
    assert_eq!(harness.reported().and_then(|a| a.last_claim), claimed);
}

/// What EC2 refused for one ENI says nothing of another.
#[test]
fn a_standby_that_was_refused_for_another_network_interface_is_not_held_back() {
    let mut harness = Harness::one();
    harness.ec2.refuses = Some(ErrorClass::NoSuchInterface);
    harness.master("a");
    harness.run(secs(5));
    harness.backup("a");
    harness.run(secs(60));
    harness.shows(Verdict::StandbyNotReady, &["the last claim from this router failed"]);
    harness.enis.insert(interface("eth0"), eni("eni-0000000e"));
    harness.run(secs(60));
    harness.shows(Verdict::StandbyReady, &[]);
}
