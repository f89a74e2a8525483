//! Both routers are MASTER for a while: the address ends with the one that stays it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::{Cut, GROUP, Lab, VIP};

use crate::{BINARY, ELECTION, SLACK};

const QUICK: &str = "set high-availability vrrp global-parameters aws-vipa verify-interval 5";

fn ends_well(lab: &Lab, within: Duration) {
    lab.wait_for_owner(VIP, &lab.r1, within);
    lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
    lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
    assert_eq!(lab.r1.shown(GROUP, VIP).vrrp(), "MASTER");
    assert_eq!(lab.r2.shown(GROUP, VIP).vrrp(), "BACKUP");
}

/// The link is cut for five seconds. Whose advertisement comes first after it is chance.
#[test]
fn link_cut_both_ways_for_five_seconds() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let began = Instant::now();
        lab.cut(Cut::Both);
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait("five seconds", Duration::from_secs(6), |_| began.elapsed() >= Duration::from_secs(5));
        lab.heal();
        // At the latest by a regular read, and by a second one that says the same.
        ends_well(lab, Duration::from_secs(33) + SLACK);
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 1);
    });
}

/// The true master hears the other one first: MASTER_RX_LOWER_PRI makes it claim at once.
#[test]
fn healed_so_that_the_master_hears_the_other_one() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.cut(Cut::Both);
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.heal();
        lab.cut(Cut::From(1));
        // The next advertisement of r2 is at most a second away.
        lab.wait_for_owner(VIP, &lab.r1, Duration::from_secs(2) + SLACK);
        lab.heal();
        ends_well(lab, SLACK);
        assert!(lab.r1.agent_log().contains("claim acknowledged"));
        let claims = lab.claims(None);
        assert!(claims.len() <= 4, "{claims:#?}");
    });
}

/// The other one hears the true master first, goes back, and the master is told nothing: its regular read finds out.
#[test]
fn healed_so_that_the_master_hears_nothing() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.set([QUICK]);
        lab.r1.commit();
        lab.cut(Cut::Both);
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.heal();
        lab.cut(Cut::From(2));
        lab.wait("BACKUP on r2", ELECTION + SLACK, |lab| lab.r2.shown(GROUP, VIP).vrrp() == "BACKUP");
        lab.heal();
        ends_well(lab, Duration::from_secs(5 + 2) + SLACK);
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 1);
        assert_eq!(lab.claims(Some(&lab.r1)).len(), 2);
    });
}

/// The standby does not hear the master any more, the master hears it, for a minute: keepalived writes
/// MASTER_RX_LOWER_PRI once a second. Neither router may burn through the API's limits.
#[test]
fn one_direction_cut_for_a_minute() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.set([QUICK]);
        lab.r1.commit();
        let before = [lab.claims(Some(&lab.r1)).len(), lab.claims(Some(&lab.r2)).len()];
        lab.cut(Cut::From(1));
        lab.wait("r2 claims", ELECTION + SLACK, |lab| lab.claims(Some(&lab.r2)).len() > before[1]);
        sleep(Duration::from_secs(60));
        let claims = [lab.claims(Some(&lab.r1)).len() - before[0], lab.claims(Some(&lab.r2)).len() - before[1]];
        // One at once, and then at most one in ten seconds.
        assert!((1..=8).contains(&claims[0]) && (1..=8).contains(&claims[1]), "{claims:?} claims\n{}", lab.simulator);
        let lines = lab.r1.agent_log().matches("MASTER_RX_LOWER_PRI").count();
        assert_eq!(lines, 0, "no transition: it has been MASTER all the time");
        lab.heal();
        lab.wait("BACKUP on r2", ELECTION + SLACK, |lab| lab.r2.shown(GROUP, VIP).vrrp() == "BACKUP");
        // In a contest the router that outranks the other waits 30 s at most.
        lab.wait_for_owner(VIP, &lab.r1, Duration::from_secs(30) + SLACK);
    });
}

/// A router of the highest priority says so, and then that it stops, ten times. With the priority next to it, r1 waits
/// its skew of four milliseconds alone before it is MASTER again (RFC 5798, 6.1).
#[test]
fn flapping() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.r1.set_group(GROUP, 10, "10.99.0.100/24", 254);
        lab.r1.commit();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", ELECTION + SLACK);
        let advertise = |priority: &str| {
            let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/routers/advertise.py");
            lab.r2.call(&["python3", program, "10.99.0.12", "10.99.0.11", "10", priority, "10.99.0.100"]);
        };
        let began = Instant::now();
        for _ in 0..10 {
            advertise("255");
            lab.wait("BACKUP", SLACK, |lab| !lab.r1.has_local(VIP));
            advertise("0");
            lab.wait("MASTER", SLACK, |lab| lab.r1.has_local(VIP));
        }
        let flapped = began.elapsed();
        // Two seconds on a machine with nothing else to do; the waits for each change are what bounds it.
        assert!(flapped < Duration::from_secs(30), "{flapped:?}");
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        let log = lab.r1.agent_log();
        assert_eq!(log.matches("cause=\"keepalived: MASTER\"").count(), 11, "in {flapped:?}:\n{log}");
        let claims = lab.claims(None);
        assert_eq!(claims.len(), 11, "one for each: {claims:#?}");
        assert_eq!(lab.simulator.owner(VIP).expect("an owner"), *lab.r1.enis[0]);
    });
}
