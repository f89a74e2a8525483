//! A third party takes the address, or reads are outdated.

use std::time::{Duration, Instant};

use lab::simulator::StaleReads;
use lab::{GROUP, Lab, THIRD_PARTY, VIP};
use vyos_aws_vipa::control::Request;
use vyos_aws_vipa::control::client::Client;

use crate::{BINARY, ELECTION, SLACK, preempted, without_copies};

/// Texts of the log.
const TAKEN: &str = "ownership lost";
const CONTESTED: &str = "contested: ";

/// The longest time until a loss is detected: a verify-interval of 5 s, and a recheck 2 s later.
pub const SEEN: Duration = Duration::from_secs(7);

#[test]
fn loss_to_a_third_party_is_rechecked_and_undone() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        // Until the reads that confirm the claim are over.
        lab.watch("one claim", Duration::from_secs(11), |lab| lab.claims(None).len() == 1);
        let before = lab.reads(&lab.r1).len();
        lab.simulator.steal(VIP, THIRD_PARTY[0]).expect("stolen");
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "DRIFT", SEEN + SLACK);
        lab.wait_for_owner(VIP, &lab.r1, SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        let (claims, reads) = (lab.claims(None), lab.reads(&lab.r1).split_off(before));
        assert_eq!(claims.len(), 2, "{claims:#?}");
        assert_eq!(claims[1].network_interfaces, [lab.r1.enis[0].clone()]);
        let disagreeing: Vec<Instant> = reads.iter().map(|r| r.arrived).filter(|at| *at < claims[1].arrived).collect();
        assert!(disagreeing.len() >= 2, "{reads:#?}");
        assert!(claims[1].arrived - disagreeing[0] >= Duration::from_secs(1), "{reads:#?}");
        assert_eq!((lab.r1.logged(&[TAKEN]), lab.r1.logged(&[TAKEN, THIRD_PARTY[0]])), (1, 1));
        assert_eq!(lab.r2.shown(GROUP, VIP).verdict(), "STANDBY-READY");
    });
}

#[test]
fn third_party_that_takes_it_again_and_again_makes_it_contested() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        for loss in 1..=4 {
            steal(lab, loss);
            if loss < 4 {
                lab.wait_for_owner(VIP, &lab.r1, SLACK);
                lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
            }
        }
        // A moment after the line of the loss.
        let contested = |lab: &Lab| lab.r1.logged(&[CONTESTED, THIRD_PARTY[0], "i-0a0000000000000"]);
        lab.wait("it is contested", SLACK, |lab| contested(lab) == 1);
        let rests = |lab: &Lab, claims: usize| {
            // The back-off is 75 s at first, with a jitter of a half.
            lab.watch("no claim", Duration::from_secs(10), |lab| lab.claims(None).len() == claims);
            assert_eq!(lab.simulator.owner(VIP).expect("an owner"), *THIRD_PARTY[0]);
        };
        rests(lab, 4);
        let shown = lab.r1.shown(GROUP, VIP);
        assert_eq!(shown.verdict(), "CONTESTED");
        let reason = shown.address["reason"].as_str().unwrap_or_default();
        let third_party = lab.r1.instance.replace("01", "03");
        assert!(reason.contains(THIRD_PARTY[0]) && reason.contains(&third_party), "{reason}");

        let socket = lab.r1.path("/run/vyos-aws-vipa-agent/agent.sock");
        let mut agent = Client::connect(&socket, SLACK).expect("the agent listens");
        let group = GROUP.try_into().expect("a group name");
        agent.call::<serde_json::Value>(&Request::Claim { group }).expect("claimed by force");
        assert_eq!(lab.simulator.owner(VIP).expect("an owner"), *lab.r1.enis[0]);
        lab.wait("a read that confirms it", SLACK, |lab| {
            lab.r1.shown(GROUP, VIP).address["owner"]["who"] == "this-router"
        });
        assert_eq!(lab.r1.shown(GROUP, VIP).verdict(), "CONTESTED", "one good read is no peace");
        steal(lab, 5);
        rests(lab, 5);

        lab.r1.set([format!("set high-availability vrrp group {GROUP} priority 50").as_str()]);
        lab.r1.commit();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "STANDBY-READY", SLACK);
        lab.r1.set([format!("set high-availability vrrp group {GROUP} priority 200").as_str()]);
        lab.r1.commit();
        lab.wait_for_owner(VIP, &lab.r1, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        preempted(lab, 6, 1);
        assert_eq!(lab.r1.logged(&[CONTESTED]), 1);
    });
}

/// Takes the address, and waits until router 1 has detected that many losses.
pub fn steal(lab: &Lab, loss: usize) {
    lab.simulator.steal(VIP, THIRD_PARTY[0]).expect("stolen");
    lab.wait("the loss is seen", SEEN + SLACK, |lab| lab.r1.logged(&[TAKEN]) == loss);
}

#[test]
fn address_without_an_owner_is_no_loss() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        for release in 1..=5 {
            lab.simulator.release(VIP).expect("released");
            lab.wait_for_owner(VIP, &lab.r1, SEEN + SLACK);
            assert_eq!(lab.claims(None).len(), 1 + release);
            lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        }
        assert_eq!((lab.r1.logged(&[TAKEN]), lab.r1.logged(&[CONTESTED])), (0, 0));
        assert_eq!(lab.r2.shown(GROUP, VIP).verdict(), "STANDBY-READY");
    });
}

#[test]
fn reads_that_are_a_minute_old() {
    let world = lab::world().stale_reads(Duration::from_secs(60));
    lab::scenario_in(world, BINARY, |lab: &mut Lab| {
        fail_over_with_stale_reads(lab);
        assert_eq!(lab.r2.logged(&[TAKEN]), 0);
        let claims = without_copies(lab.claims(Some(&lab.r2)));
        let claims: Vec<Instant> = claims.iter().map(|claim| claim.arrived).collect();
        let apart = claims.windows(2).map(|pair| pair[1] - pair[0]).min();
        assert!(apart.is_none_or(|apart| apart > Duration::from_millis(9_500)), "{:#?}", lab.claims(Some(&lab.r2)));
    });
}

#[test]
fn reads_of_any_age_up_to_a_minute() {
    let mut world = lab::world();
    world.stale_reads = StaleReads::UpToMs(60_000);
    lab::scenario_in(world, BINARY, |lab: &mut Lab| fail_over_with_stale_reads(lab));
}

/// Router 2 takes over, and for a minute reads show the address on router 1, or on no ENI.
fn fail_over_with_stale_reads(lab: &mut Lab) {
    lab.set_global("verify-interval 5");
    lab.commit_pair();
    lab.wait_for_owner(VIP, &lab.r1, ELECTION + SLACK);
    lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
    lab.r1.power_off();
    lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
    lab.watch("not contested", Duration::from_secs(65), |lab| lab.r2.logged(&[CONTESTED]) == 0);
    lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
    assert_eq!(lab.simulator.owner(VIP).expect("an owner"), *lab.r2.enis[0]);
    let claims = lab.claims(Some(&lab.r2));
    assert!(claims.len() <= 7, "more than one in 10 s: {claims:#?}");
}
