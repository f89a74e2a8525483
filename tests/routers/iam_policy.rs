//! The policy that `generate aws-vipa iam-policy` prints: EC2 denies every other action, and no router needs one.

use std::collections::BTreeSet;

use lab::simulator::{Fault, On, Service};
use lab::{GROUP, Lab, OVERLAY_ROUTE, ROUTE_TABLES, Router, VIP};
use serde_json::Value;

use crate::readiness::{LONGEST, check_fails, full_eni, not_ready};
use crate::zones::{one_subnet, routes_lead_to, set_all_kinds};
use crate::{BINARY, ELECTION, SLACK};

/// The actions of the policy that the router prints, as EC2 names them.
fn policy(router: &Router) -> BTreeSet<String> {
    let text = router.call(&["vyos-aws-vipa", "generate", "iam-policy"]);
    let policy: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let statements = policy["Statement"].as_array().expect("statements").iter();
    let actions = statements.flat_map(|statement| match &statement["Action"] {
        Value::Array(actions) => actions.clone(),
        action => vec![action.clone()],
    });
    let name =
        |action: Value| action.as_str().and_then(|text| text.strip_prefix("ec2:")).expect("an action").to_owned();
    actions.map(name).collect()
}

/// Commits the routers while EC2 is down, and has EC2 deny every action outside the policy that router 2 prints then.
fn bring_up(lab: &mut Lab, commit: impl FnOnce(&mut Lab)) -> BTreeSet<String> {
    lab.set_global("verify-interval 5");
    lab.ec2.stop();
    commit(lab);
    let policy = policy(&lab.r2);
    assert_eq!(policy, self::policy(&lab.r1));
    lab.simulator.add_fault(Fault::on(On::ec2().other_than(&policy)).deny());
    lab.ec2.start().expect("EC2");
    policy
}

/// What the routers have asked of EC2 so far: nothing outside the policy.
fn asked(lab: &Lab, policy: &BTreeSet<String>) -> BTreeSet<String> {
    let requests = lab.simulator.requests().into_iter().filter(|request| request.service == Service::Ec2);
    let asked: BTreeSet<String> = requests.map(|request| request.action).collect();
    let outside: Vec<&String> = asked.difference(policy).collect();
    assert!(outside.is_empty(), "{outside:?} not in {policy:?}: {}", lab.simulator);
    asked
}

/// Waits until router 1 has everything, and router 2 is ready to take over: by its second read, as the first one failed.
fn settled(lab: &Lab) {
    lab.wait_for_verdicts(&lab.r1, "OK", SLACK);
    lab.wait_for_verdicts(&lab.r2, "STANDBY-READY", LONGEST + SLACK);
}

/// `force prove` and `show check` of a standby.
fn check_and_prove(lab: &Lab) {
    for words in [["force", "prove"], ["show", "check"]] {
        let output = lab.r2.command("vyos-aws-vipa").args(words).output().expect("run");
        assert!(output.status.success(), "{words:?}: {}", lab::said(&output));
    }
}

#[test]
fn addresses_and_the_room_on_the_eni() {
    lab::scenario_in(full_eni(), BINARY, |lab: &mut Lab| {
        let policy = bring_up(lab, Lab::commit_pair);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", ELECTION + SLACK);
        let full = "may get 1 more; a m5.4xlarge allows 3";
        not_ready(lab, "no-room", &[full]);
        check_fails(lab, "Address limit", full);
        lab.simulator.unassign_prefixes(&lab.r2.enis[0]).expect("an ENI");
        settled(lab);
        check_and_prove(lab);
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
        assert_eq!(asked(lab, &policy), policy);
    });
}

#[test]
fn routes_alone() {
    lab::scenario_in(lab::two_zones(), BINARY, |lab: &mut Lab| {
        let policy = bring_up(lab, |lab| {
            let routes = ROUTE_TABLES.map(|table| format!("route {OVERLAY_ROUTE} route-table {table}"));
            lab.commit_overlay(&routes.each_ref().map(String::as_str));
        });
        routes_lead_to(lab, &lab.r1, ELECTION + SLACK);
        settled(lab);
        check_and_prove(lab);
        lab.r1.power_off();
        routes_lead_to(lab, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
        assert_eq!(asked(lab, &policy), policy);
    });
}

#[test]
fn address_route_and_elastic_ip() {
    lab::scenario_in(one_subnet(1), BINARY, |lab: &mut Lab| {
        let mut policy = bring_up(lab, |lab| {
            set_all_kinds(lab);
            lab.commit_pair();
        });
        lab.wait_for_owner(VIP, &lab.r1, ELECTION + SLACK);
        settled(lab);
        check_and_prove(lab);
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdicts(&lab.r2, "OK", SLACK);
        let asked = asked(lab, &policy);
        // The route exists.
        assert!(policy.remove("CreateRoute"), "{policy:?}");
        assert_eq!(asked, policy);
    });
}
