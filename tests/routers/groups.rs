//! Groups and addresses that are added, removed and changed while the router is MASTER.

use std::net::Ipv4Addr;
use std::time::Duration;

use lab::{GROUP, Lab, Signal, THIRD_PARTY, VIP};

use crate::{BINARY, ELECTION, SLACK};

const SECOND: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 101);
const QUICK: &str = "set high-availability vrrp global-parameters aws-vipa verify-interval 5";

/// One router is enough: it is MASTER, and a third party takes addresses that it no longer manages.
fn alone(lab: &mut Lab) {
    lab.r1.set_group(GROUP, 10, "10.99.0.100/24", 200);
    lab.r1.set([QUICK]);
    lab.r1.commit();
    lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", ELECTION + SLACK);
}

/// A third party takes the address, and keeps it for longer than any read needs to detect that.
fn is_not_looked_after(lab: &Lab, address: Ipv4Addr) {
    let before = lab.claims(None).len();
    lab.simulator.steal(address, THIRD_PARTY[0]).expect("taken");
    lab.watch("it stays there", Duration::from_secs(9), |lab| {
        lab.simulator.owner(address).is_some_and(|o| o == *THIRD_PARTY[0])
    });
    let claims = lab.claims(None);
    assert_eq!(claims.len(), before, "{claims:#?}");
}

/// keepalived writes nothing when a MASTER is renamed.
#[test]
fn renamed() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        alone(lab);
        lab.r1.set(["delete high-availability vrrp group vyos-aws"]);
        lab.r1.set_group("renamed", 10, "10.99.0.100/24", 200);
        lab.r1.commit();
        lab.wait_for_verdict(&lab.r1, "renamed", VIP, "OK", ELECTION + SLACK);
        assert_eq!(lab.r1.shown("renamed", VIP).vrrp(), "MASTER");
        assert!(lab.r1.shown(GROUP, VIP).group.is_null(), "the old name is gone");
        assert_eq!(lab.claims(None).len(), 1, "it is ours: no claim");
        // And it is managed under its new name.
        lab.simulator.steal(VIP, THIRD_PARTY[0]).expect("taken");
        lab.wait_for_owner(VIP, &lab.r1, Duration::from_secs(8) + SLACK);
    });
}

/// With a virtual MAC keepalived adds the address to an interface of its own, which is evidence too.
#[test]
fn on_a_virtual_mac() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.r1.set_group(GROUP, 10, "10.99.0.100/24", 200);
        lab.r1.set([QUICK, "set high-availability vrrp group vyos-aws rfc3768-compatibility"]);
        lab.r1.commit();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", ELECTION + SLACK);
        let shown = lab.r1.call(&["ip", "-brief", "address", "show", "dev", "eth0v10v4"]);
        assert!(shown.contains("10.99.0.100/24"), "{shown}");
        assert_eq!(lab.r1.shown(GROUP, VIP).address["local"], true);
        lab.r1.kill(Signal::KILL, "vyos-aws-vipa");
        lab.r1.start_agent();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        lab.simulator.steal(VIP, THIRD_PARTY[0]).expect("taken");
        lab.wait_for_owner(VIP, &lab.r1, Duration::from_secs(8) + SLACK);
    });
}

/// The owner script is not called for an interface that is committed later, and keepalived does not add the address
/// there.
#[test]
fn on_another_interface_of_a_standby() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        lab.r2.call(&["ip", "address", "add", "10.99.0.100/32", "dev", "lo"]);
        lab.r2.kill(Signal::KILL, "vyos-aws-vipa");
        lab.r2.start_agent();
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
        let shown = lab.r2.shown(GROUP, VIP);
        assert_eq!((shown.vrrp(), &shown.address["local"]), ("BACKUP", &false.into()));
        lab.watch("it stays where it is", Duration::from_secs(6), |lab| {
            lab.simulator.owner(VIP).is_some_and(|o| o == *lab.r1.enis[0])
        });
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 0);
    });
}

#[test]
fn removed() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        alone(lab);
        lab.r1.set_group("second", 11, "10.99.0.101/24", 200);
        lab.r1.commit();
        lab.wait_for_verdict(&lab.r1, "second", SECOND, "OK", ELECTION + SLACK);
        lab.r1.set(["delete high-availability vrrp group vyos-aws"]);
        lab.r1.commit();
        lab.wait("the group is gone", SLACK, |lab| lab.r1.shown(GROUP, VIP).group.is_null());
        is_not_looked_after(lab, VIP);
        assert_eq!(lab.r1.shown("second", SECOND).verdict(), "OK");
    });
}

/// `aws-vipa disable`, and its removal.
#[test]
fn disabled_and_enabled_again() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        alone(lab);
        lab.r1.set(["set high-availability vrrp group vyos-aws aws-vipa disable"]);
        lab.r1.commit();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "DISABLED", SLACK);
        is_not_looked_after(lab, VIP);
        lab.r1.set(["delete high-availability vrrp group vyos-aws aws-vipa disable"]);
        lab.r1.commit();
        lab.wait_for_owner(VIP, &lab.r1, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
    });
}

/// Another address of the group: keepalived writes nothing.
#[test]
fn address_added_and_removed() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        alone(lab);
        lab.r1.set(["set high-availability vrrp group vyos-aws address 10.99.0.101/24"]);
        assert_eq!(lab.r1.commit(), Vec::<String>::new(), "VyOS does not call us for this");
        lab.wait_for_owner(SECOND, &lab.r1, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, SECOND, "OK", SLACK);
        assert_eq!(lab.claims(None).len(), 2);
        assert!(!lab.claims(None)[1].claims(VIP), "the other one is ours already");
        lab.r1.set(["delete high-availability vrrp group vyos-aws address 10.99.0.100/24"]);
        lab.r1.commit();
        lab.wait("the address is gone", SLACK, |lab| lab.r1.shown(GROUP, VIP).address.is_null());
        is_not_looked_after(lab, VIP);
        assert_eq!(lab.r1.shown(GROUP, SECOND).verdict(), "OK");
    });
}

/// `aws-vipa address` selects some of the group's addresses.
#[test]
fn only_the_chosen_address_is_moved() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.r1.set_group(GROUP, 10, "10.99.0.100/24", 200);
        lab.r1.set([
            "set high-availability vrrp group vyos-aws address 10.99.0.101/24",
            "set high-availability vrrp group vyos-aws aws-vipa address 10.99.0.101",
            QUICK,
        ]);
        lab.r1.commit();
        lab.wait_for_verdict(&lab.r1, GROUP, SECOND, "OK", ELECTION + SLACK);
        assert!(lab.r1.has_local(VIP), "keepalived has it");
        is_not_looked_after(lab, VIP);
        assert_eq!(lab.simulator.owner(SECOND).expect("an owner"), *lab.r1.enis[0]);
    });
}

/// Names that VyOS accepts and keepalived can handle.
#[test]
fn names_that_a_shell_would_not_survive() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        let names = ["odd$(id)", "semi;colon", "back\\slash", "@~(tilde", "-dash", "ünï"];
        for (n, name) in names.iter().enumerate() {
            let address = format!("10.99.0.{}/24", 110 + n);
            lab.r1.set_group(name, 20 + n as u8, &address, 200);
        }
        lab.r1.commit();
        for (n, name) in names.iter().enumerate() {
            let address = Ipv4Addr::new(10, 99, 0, 110 + n as u8);
            lab.wait_for_owner(address, &lab.r1, ELECTION + SLACK);
            lab.wait_for_verdict(&lab.r1, name, address, "OK", SLACK);
        }
    });
}

/// An address on its own, untracked interface: keepalived does not notice that it is removed, and stays MASTER.
#[test]
fn missing_while_master() {
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 100);
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.r1.set_group(GROUP, 10, "10.99.0.100/24", 200);
        lab.r1.set([QUICK, "set high-availability vrrp group vyos-aws excluded-address 10.99.1.100/24 interface eth1"]);
        lab.r1.commit();
        let conf = lab.r1.read("/run/keepalived/keepalived.conf");
        let untracked = conf.replace("10.99.1.100/24 dev eth1", "10.99.1.100/24 dev eth1 no_track");
        assert_ne!(conf, untracked);
        lab.r1.write("/run/keepalived/keepalived.conf", &untracked);
        lab.r1.systemctl(&["restart", "keepalived.service"]);
        for address in [VIP, OTHER] {
            lab.wait_for_verdict(&lab.r1, GROUP, address, "OK", ELECTION + SLACK);
        }
        let claims = lab.claims(None).len();
        lab.r1.call(&["ip", "address", "delete", "10.99.1.100/24", "dev", "eth1"]);
        lab.wait_for_verdict(&lab.r1, GROUP, OTHER, "DRIFT", Duration::from_secs(3) + SLACK);
        let shown = lab.r1.shown(GROUP, OTHER);
        let reason = shown.address["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("has not been on eth1 since"), "{shown:#?}");
        assert_eq!((shown.vrrp(), lab.r1.shown(GROUP, VIP).verdict()), ("MASTER", "OK"));
        assert_eq!(lab.r1.logged(&["MASTER, but the address is missing from its interface", "10.99.1.100"]), 1);
        assert_eq!(lab.claims(None).len(), claims, "nothing is given up, and nothing is claimed for it");
        // The remedy.
        lab.r1.systemctl(&["restart", "keepalived.service"]);
        lab.wait_for_verdict(&lab.r1, GROUP, OTHER, "OK", ELECTION + SLACK);
        assert_eq!(lab.r1.logged(&["interface and VRRP state agree again", "10.99.1.100"]), 1);
    });
}

/// keepalived hangs and its address is removed: keepalived cannot add it again.
#[test]
fn missing_while_keepalived_hangs() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        alone(lab);
        lab.r1.signal_vrrp(Signal::STOP);
        lab.r1.call(&["ip", "address", "delete", "10.99.0.100/24", "dev", "eth0"]);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "DRIFT", Duration::from_secs(3) + SLACK);
        lab.r1.signal_vrrp(Signal::CONT);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", ELECTION + SLACK);
    });
}
