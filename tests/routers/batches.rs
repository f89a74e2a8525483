//! Many addresses at once, good and bad, on one network interface and on two.

use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lab::simulator::{Batch, Fault, On, Request, World};
use lab::{GROUP, Lab, Router, VIP};

use crate::{BINARY, ELECTION, SLACK};

/// How long the API takes in the scenarios with many groups.
const CALL: Duration = Duration::from_millis(300);

/// An address in no subnet of the VPC.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 1);

/// The primary address of the third party.
const PRIMARY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 13);

fn world() -> World {
    lab::world().stale_reads(Duration::ZERO)
}

#[test]
fn address_outside_the_subnet_holds_back_no_other() {
    lab::scenario_in(world(), BINARY, |lab: &mut Lab| one_bad_address(lab, OUTSIDE, "must be in the ENI's subnet"));
}

#[test]
fn primary_address_of_another_holds_back_no_other() {
    lab::scenario_in(world().batch(Batch::OthersMove), BINARY, |lab: &mut Lab| {
        one_bad_address(lab, PRIMARY, "choose another address for the group")
    });
}

/// Eight addresses of one group, one of which cannot be assigned. The status gives the reason and the `remedy`.
fn one_bad_address(lab: &mut Lab, bad: Ipv4Addr, remedy: &str) {
    let good: Vec<Ipv4Addr> = (100..107).map(|n| Ipv4Addr::new(10, 99, 0, n)).collect();
    commit_group(lab, good.iter().copied().chain([bad]));
    for address in &good {
        lab.wait_for_owner(*address, &lab.r1, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, *address, "OK", SLACK);
    }
    lab.wait_for_verdict(&lab.r1, GROUP, bad, "DRIFT", SLACK);
    let shown = lab.r1.shown(GROUP, bad);
    let reason = shown.address["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("InvalidParameterValue") && reason.contains(remedy), "{reason}");
    let command = shown.address["command"].as_str().unwrap_or_default();
    assert!(command.ends_with(&format!("--private-ip-addresses {bad}")), "{command}");
    // All, both halves, and three times the halves of the half with the bad address.
    let all_at_once = |claims: &[Request]| claims.len() == 7;
    lab.watch("no claim of the bad one within a minute", Duration::from_secs(5), |lab| all_at_once(&lab.claims(None)));
    let claims = lab.claims(None);
    let sizes: Vec<usize> = claims.iter().filter(|c| c.claims(bad)).map(|c| c.addresses.len()).collect();
    assert_eq!(sizes, [8, 4, 2, 1], "{claims:#?}");
    assert_ne!(lab.simulator.owner(bad).as_ref(), Some(&lab.r1.enis[0].parse().expect("an ENI")));
}

#[test]
fn more_addresses_than_the_interface_has_room_for() {
    let mut world = world();
    for instance in &mut world.instances {
        instance.network_interfaces[0].address_limit = 5;
    }
    lab::scenario_in(world, BINARY, |lab: &mut Lab| {
        let addresses: Vec<Ipv4Addr> = (100..106).map(|n| Ipv4Addr::new(10, 99, 0, n)).collect();
        commit_group(lab, addresses.iter().copied());
        let owned = |lab: &Lab| addresses.iter().filter(|a| lab.simulator.owner(**a).is_some()).count();
        lab.wait("four are claimed", ELECTION + SLACK, |lab| owned(lab) == 4);
        lab.wait("two are refused", SLACK, |lab| (verdicts(&lab.r1, "OK"), verdicts(&lab.r1, "DRIFT")) == (4, 2));
        assert!(lab.r1.call(&["vyos-aws-vipa", "show", "status"]).contains("PrivateIpAddressLimitExceeded"));
        let claims = lab.claims(None).len();
        assert!(claims <= 11, "{}", lab.simulator);
        lab.watch("they rest", Duration::from_secs(5), |lab| lab.claims(None).len() == claims);
    });
}

/// One group of both routers with these addresses.
fn commit_group(lab: &mut Lab, addresses: impl Iterator<Item = Ipv4Addr> + Clone) {
    for (router, priority) in [(&mut lab.r1, 200), (&mut lab.r2, 100)] {
        for address in addresses.clone() {
            router.set_group(GROUP, 10, &format!("{address}/24"), priority);
        }
        router.commit();
    }
}

#[test]
fn elastic_ip_follows() {
    let public = Ipv4Addr::new(203, 0, 113, 10);
    let mut world = world();
    let interface = &mut world.instances[0].network_interfaces[0];
    *interface = interface.clone().secondary(VIP).elastic_ip(VIP, public);
    lab::scenario_in(world, BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let holds =
            |lab: &Lab, eni: &str| lab.simulator.elastic_ip(public).is_some_and(|(e, ip)| e == *eni && ip == VIP);
        assert!(holds(lab, &lab.r1.enis[0]), "{:?}", lab.simulator.elastic_ip(public));
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        assert!(holds(lab, &lab.r2.enis[0]), "{:?}", lab.simulator.elastic_ip(public));
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 1);
        let others = lab.simulator.requests().into_iter().filter(|r| r.action.contains("Address"));
        assert!(others.into_iter().all(|r| r.action == "AssignPrivateIpAddresses"), "{}", lab.simulator);
    });
}

#[test]
fn fifty_groups_move_at_once() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        let addresses = many_groups(lab, 50);
        let (before, log) = (lab.claims(Some(&lab.r2)).len(), lab.r2.agent_log().len());
        // It resigns from all groups at once, so that router 2 becomes their master at once.
        lab.r1.systemctl(&["stop", "keepalived.service"]);
        wait_for_owners(lab, &addresses, 2, ELECTION + SLACK);
        let claims = lab.claims(Some(&lab.r2)).split_off(before);
        let lines = masters(&lab.r2, log);
        assert!(lines.len() >= 50, "groups that are MASTER: {}", lines.len());
        few(&claims, &lines);
        assert_eq!(claims.iter().map(|c| c.addresses.len()).sum::<usize>(), 50, "{claims:#?}");
        // Waiting addresses are sent at the end of a call at the latest.
        let waited = claims[claims.len() - 1].arrived_wall.duration_since(lines[49]);
        assert!(waited < SignedDuration::try_from(CALL + Duration::from_secs(1)).expect("short"), "{waited:?}");
    });
}

#[test]
fn two_hundred_groups_move_there_and_back() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        let addresses = many_groups(lab, 200);
        for (owner, verb) in [(2, "stop"), (1, "start")] {
            let (router, other) = if owner == 1 { (&lab.r1, &lab.r2) } else { (&lab.r2, &lab.r1) };
            let before = [router, other].map(|router| (lab.claims(Some(router)).len(), router.agent_log().len()));
            lab.r1.systemctl(&[verb, "keepalived.service"]);
            wait_for_owners(lab, &addresses, owner, ELECTION + 3 * SLACK);
            let [claims, others] = [(router, before[0].0), (other, before[1].0)]
                .map(|(router, before)| lab.claims(Some(router)).split_off(before));
            // A busy machine loses advertisements: a group may become MASTER and BACKUP, and each event counts.
            let lines = masters(router, before[0].1);
            let of_others = masters(other, before[1].1).len();
            assert!(lines.len() >= addresses.len(), "lines that said MASTER: {}", lines.len());
            assert!(others.len() <= of_others, "{of_others} lines said MASTER: {others:#?}");
            // Once more if keepalived has heard the other router after its MASTER event: MASTER_RX_LOWER_PRI.
            let times = |address| claims.iter().filter(|claim| claim.claims(address)).count();
            let most = 2 * (1 + lines.len() - addresses.len() + of_others);
            assert!(addresses.iter().all(|address| (1..=most).contains(&times(*address))), "{claims:#?}");
            // One for the first of them, and one a second for all others.
            let log = router.agent_log().split_off(before[0].1);
            let written: Vec<&str> = log.lines().filter(|line| line.contains("transition")).collect();
            assert!(written.len() <= 20, "{written:#?}");
            few(&claims, &lines);
            for router in [&lab.r1, &lab.r2] {
                let lost = router.status()["hook"]["fifo_full_count"].clone();
                assert_eq!((lost, router.logged(&["panicked"])), (0.into(), 0));
            }
        }
        lab.wait("200 are OK", SLACK, |lab| verdicts(&lab.r1, "OK") == 200);
    });
}

/// When the agent read lines that made a group MASTER, the earliest first. A group that was MASTER before and is again,
/// according to the log from this place on, counts once more.
fn masters(router: &Router, from: usize) -> Vec<Timestamp> {
    let status = router.status();
    let groups = status["groups"].as_array().expect("groups").iter().filter(|group| group["vrrp"] == "MASTER");
    let mut times: Vec<Timestamp> = groups.filter_map(|group| group["vrrp_since"].as_str()?.parse().ok()).collect();
    times.sort_unstable();
    let log = router.agent_log().split_off(from);
    let lines = log.lines().filter(|line| line.contains("transition") && line.contains("keepalived: MASTER\""));
    // After a stall of the machine the status has the time at which the state was inferred again.
    if let (Some(first), Some(line)) = (times.first_mut(), lines.clone().next()) {
        let time: Option<Timestamp> = line.split_once(' ').and_then(|(time, _)| time.parse().ok());
        *first = time.expect("a line of the log begins with its time").min(*first);
    }
    // `group=a, b, 5 more from=…`
    let named = lines.filter_map(|line| Some(line.split_once("group=")?.1.split_once(" from=")?.0));
    let count = |name: &str| name.strip_suffix(" more").and_then(|more| more.parse().ok()).unwrap_or(1_usize);
    let written: usize = named.flat_map(|names| names.split(", ")).map(count).sum();
    let last = times.last().copied().unwrap_or(Timestamp::UNIX_EPOCH);
    times.resize(times.len().max(written), last);
    times
}

/// At most two are in flight at a time: the first, and what came meanwhile; then what came while these took their time.
/// So lines that arrive within one call cost three, and however they are spread, first attempts are soon 0.4 s apart. A
/// master that hears the other router once more claims once more.
fn few(claims: &[Request], lines: &[Timestamp]) {
    let spread = lines[lines.len() - 1].duration_since(lines[0]).unsigned_abs();
    let calls = spread.as_millis() / CALL.as_millis() + 1;
    let heard = claims.iter().map(|c| c.addresses.len()).sum::<usize>().saturating_sub(lines.len());
    let most = (2 * calls + 1).min(7 + spread.as_millis() / 400) + 2 * heard.min(4) as u128;
    assert!(claims.len() as u128 <= most, "{} for lines that took {spread:?}: {claims:#?}", claims.len());
}

/// The number of addresses with that verdict.
fn verdicts(router: &Router, verdict: &str) -> usize {
    let status = router.status();
    let groups = status["groups"].as_array().expect("groups").iter();
    groups.flat_map(|group| group["addresses"].as_array()).flatten().filter(|a| a["verdict"] == verdict).count()
}

/// That many groups of both routers, each with an address. Returns when router 1 has all of them and router 2 is ready
/// to take them over. From then on a call of EC2 takes some time.
fn many_groups(lab: &mut Lab, count: u8) -> Vec<Ipv4Addr> {
    let addresses: Vec<Ipv4Addr> = (0..count).map(|n| Ipv4Addr::new(10, 99, 0, 30 + n)).collect();
    for (router, priority) in [(&mut lab.r1, 200), (&mut lab.r2, 100)] {
        for (vrid, address) in (1..).zip(&addresses) {
            router.set_group(&format!("group-{vrid}"), vrid, &format!("{address}/24"), priority);
        }
        router.commit();
    }
    wait_for_owners(lab, &addresses, 1, ELECTION + 2 * SLACK);
    lab.wait("router 1 is sure", 2 * SLACK, |lab| verdicts(&lab.r1, "OK") == usize::from(count));
    lab.wait("router 2 is ready", 2 * SLACK, |lab| verdicts(&lab.r2, "STANDBY-READY") == usize::from(count));
    lab.simulator.add_fault(Fault::on(On::ec2()).delay_before(CALL));
    addresses
}

fn wait_for_owners(lab: &Lab, addresses: &[Ipv4Addr], router: u8, within: Duration) {
    let eni = if router == 1 { &lab.r1.enis[0] } else { &lab.r2.enis[0] };
    let missing = |lab: &Lab| addresses.iter().filter(|a| lab.simulator.owner(**a).is_none_or(|o| o != **eni)).count();
    lab.wait(&format!("router {router} has all addresses"), within, |lab| missing(lab) == 0);
}

#[test]
fn address_with_an_interface_of_its_own() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        let other = Ipv4Addr::new(10, 99, 1, 100);
        let own = format!("set high-availability vrrp group {GROUP} address {other}/24 interface eth1");
        for router in [&mut lab.r1, &mut lab.r2] {
            router.set([own.as_str()]);
        }
        lab.bring_up();
        let has = |lab: &Lab, eni: &str| lab.simulator.owner(other).is_some_and(|owner| owner == *eni);
        lab.wait("eth1 of router 1 has its address", SLACK, |lab| has(lab, &lab.r1.enis[1]));
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait("eth1 of router 2 has its address", SLACK, |lab| has(lab, &lab.r2.enis[1]));
        lab.wait_for_verdict(&lab.r2, GROUP, other, "OK", SLACK);
        for router in [&lab.r1, &lab.r2] {
            let mut claims: Vec<(Vec<String>, Vec<Ipv4Addr>)> =
                lab.claims(Some(router)).into_iter().map(|c| (c.network_interfaces, c.addresses)).collect();
            claims.sort();
            let expected = [(&router.enis[0], VIP), (&router.enis[1], other)];
            assert_eq!(claims, expected.map(|(eni, address)| (vec![eni.clone()], vec![address])));
        }
    });
}

#[test]
fn one_group_master_and_one_backup_on_one_interface() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        let [first, second] = [Ipv4Addr::new(10, 99, 0, 101), Ipv4Addr::new(10, 99, 0, 102)];
        for (router, priorities) in [(&mut lab.r1, [200, 100]), (&mut lab.r2, [100, 200])] {
            router.set_group("first", 11, "10.99.0.101/24", priorities[0]);
            router.set_group("second", 12, "10.99.0.102/24", priorities[1]);
            router.commit();
        }
        for (master, standby, group, address) in
            [(&lab.r1, &lab.r2, "first", first), (&lab.r2, &lab.r1, "second", second)]
        {
            lab.wait_for_owner(address, master, ELECTION + SLACK);
            lab.wait_for_verdict(master, group, address, "OK", SLACK);
            lab.wait_for_verdict(standby, group, address, "STANDBY-READY", SLACK);
        }
        let before = lab.claims(None).len();
        lab.r1.power_off();
        lab.wait_for_owner(first, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r2, "first", first, "OK", SLACK);
        assert_eq!(lab.simulator.owner(second).expect("an owner"), *lab.r2.enis[0]);
        let after = lab.claims(None).split_off(before);
        assert_eq!(after.iter().map(|c| c.addresses.clone()).collect::<Vec<_>>(), [vec![first]], "{after:#?}");
    });
}
