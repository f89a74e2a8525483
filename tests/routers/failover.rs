//! The main job: the address follows the master.

use std::time::{Duration, Instant};

use lab::{Cut, GROUP, Lab, VIP};

use crate::BINARY;

/// An advertisement interval of 1 s: the standby waits for three, and for a skew of its priority (RFC 5798, 6.1).
const ELECTION: Duration = Duration::from_secs(4);

/// What a busy machine may need beyond that.
const SLACK: Duration = Duration::from_secs(6);

#[test]
fn first_election() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let claims = lab.claims(None);
        assert_eq!(claims.len(), 1, "{claims:#?}");
        assert!(claims[0].claims(VIP) && claims[0].allow_reassignment, "{claims:#?}");
        assert_eq!(claims[0].network_interfaces, [lab.r1.enis[0].clone()]);
        assert_eq!(lab.r1.shown(GROUP, VIP).vrrp(), "MASTER");
        assert_eq!(lab.r2.shown(GROUP, VIP).vrrp(), "BACKUP");
    });
}

#[test]
fn master_loses_power() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let cut = Instant::now();
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        let claims = lab.claims(Some(&lab.r2));
        assert_eq!(claims.len(), 1, "{claims:#?}");
        assert!(claims[0].arrived - cut < ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.claims(Some(&lab.r1)).len(), 1);
    });
}

#[test]
fn link_cut_both_ways_and_healed() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.cut(Cut::Both);
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.heal();
        lab.wait_for_owner(VIP, &lab.r1, SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
    });
}
