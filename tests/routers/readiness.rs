//! A standby reports that it could not take over, before it has to.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::simulator::{Fault, On, World};
use lab::{GROUP, Lab, Router, THIRD_PARTY, VIP};
use serde_json::{Value, json};

use crate::{BINARY, ELECTION, SLACK};

/// The shortest time between two reads of a standby, and the longest with its jitter.
const INTERVAL: Duration = Duration::from_secs(15);
pub const LONGEST: Duration = Duration::from_secs(18);

/// The agent writes its metrics every 15 s at most, after it has collected changes for a second.
const WRITTEN: Duration = Duration::from_secs(16);

#[test]
fn standby_that_cannot_reach_ec2() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        lab.r2.call(&["ip", "route", "add", "unreachable", "10.99.0.1/32"]);
        not_ready(
            lab,
            "read-failed",
            &[
                "check the route, security groups (also the VPC endpoint's), the firewall and DNS on the way to EC2's endpoint",
            ],
        );
        ready_again_and_takes_over(lab, |lab| {
            lab.r2.call(&["ip", "route", "delete", "unreachable", "10.99.0.1/32"]);
        });
    });
}

#[test]
fn standby_that_may_not_read() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        let reads = On::action("DescribeNetworkInterfaces").instance(&lab.r2.instance);
        let denial = lab.simulator.add_fault(Fault::on(reads).deny());
        not_ready(
            lab,
            "read-failed",
            &["UnauthorizedOperation", "allow ec2:DescribeNetworkInterfaces to instance role router"],
        );
        ready_again_and_takes_over(lab, |lab| lab.simulator.remove_fault(denial));
    });
}

#[test]
fn standby_whose_keys_are_over() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        let instance = lab.r2.instance.clone();
        lab.simulator.expire_access_key(&lab.simulator.role_access_key(&instance).expect("a role"));
        not_ready(lab, "read-failed", &["RequestExpired", "read again, no new credentials"]);
        ready_again_and_takes_over(lab, |lab| {
            lab.simulator.rotate_credentials(&instance, Duration::from_secs(3_600)).expect("a role");
        });
    });
}

/// The step of `show check` that fails on router 2, and what it says.
pub fn check_fails(lab: &Lab, step: &str, words: &str) {
    let output = lab.r2.command("vyos-aws-vipa").args(["show", "check"]).output().expect("run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // A step begins at the left margin, and each cell is wrapped within its column.
    let mut steps: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        let words = line.split_whitespace();
        match steps.last_mut().filter(|_| line.starts_with(' ')) {
            Some(step) => step.extend(words),
            None => steps.push(words.collect()),
        }
    }
    let is_it = |cells: &Vec<&str>| {
        let cells = cells.join(" ");
        cells.strip_prefix(&format!("FAIL {step} ")).is_some_and(|said| said.contains(words))
    };
    assert!(!output.status.success() && steps.iter().any(is_it), "FAIL {step}: {words}:\n{text}");
}

/// The ENI of router 2 has no room for another address, because of a prefix.
pub fn full_eni() -> World {
    let mut world = lab::world().stale_reads(Duration::ZERO);
    let own = &mut world.instances[1].network_interfaces[0];
    *own = own.clone().address_limit(3).secondary(Ipv4Addr::new(10, 99, 0, 60)).prefix("10.99.0.208/28");
    world
}

#[test]
fn standby_whose_eni_is_full() {
    lab::scenario_in(full_eni(), BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.commit_pair();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", ELECTION + SLACK);
        let full =
            "has 2 addresses and 1 prefix, which counts as an address, and may get 1 more; a m5.4xlarge allows 3";
        not_ready(lab, "no-room", &[full, "use a larger instance type, or unassign addresses"]);
        check_fails(lab, "Address limit", full);
        ready_again_and_takes_over(lab, |lab| lab.simulator.unassign_prefixes(&lab.r2.enis[0]).expect("an ENI"));
    });
}

#[test]
fn standby_with_source_destination_check() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        // As VyOS does.
        lab.r2.call(&["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]);
        lab.simulator.set_source_dest_check(&lab.r2.enis[0], true).expect("an ENI");
        let on = format!("the source/destination check is on for {}", lab.r2.enis[0]);
        not_ready(lab, "source-dest-check", &[&on, "--no-source-dest-check`"]);
        check_fails(lab, "Src/dest check", &on);
        ready_again_and_takes_over(lab, |lab| {
            lab.simulator.set_source_dest_check(&lab.r2.enis[0], false).expect("an ENI");
        });
    });
}

#[test]
fn standby_whose_eni_is_attached_elsewhere() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        let (eni, other) = (lab.r2.enis[0].clone(), "i-0a000000000000003");
        lab.simulator.detach_network_interface(&eni).expect("an ENI");
        not_ready(lab, "eni-elsewhere", &[&format!("{eni} is attached to no instance, and traffic is lost")]);
        check_fails(lab, "ENI in EC2", "is attached to no instance");
        lab.simulator.attach_network_interface(&eni, other, 2).expect("attached");
        not_ready(
            lab,
            "eni-elsewhere",
            &[&format!("{eni} is attached to {other}, not to this instance {}", lab.r2.instance)],
        );
        check_fails(lab, "ENI in EC2", &format!("is attached to {other}, not to this instance"));
        ready_again_and_takes_over(lab, |lab| {
            lab.simulator.detach_network_interface(&eni).expect("an ENI");
            lab.simulator.attach_network_interface(&eni, &lab.r2.instance, 0).expect("attached");
        });
    });
}

#[test]
fn standby_whose_eni_was_deleted() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        let eni = lab.r2.enis[0].clone();
        lab.simulator.detach_network_interface(&eni).expect("an ENI");
        not_ready(lab, "eni-elsewhere", &[&format!("{eni} is attached to no instance")]);
        lab.simulator.delete_network_interface(&eni).expect("an ENI");
        not_ready(
            lab,
            "no-such-eni",
            &[&format!("EC2 has no {eni} in this account and region: check `aws-vipa region`")],
        );
        check_fails(lab, "ENI in EC2", &format!("EC2 has no {eni} in this account and region"));
        assert_eq!(lab.r2.logged(&["standby ready"]), 0);
    });
}

#[test]
fn standby_for_the_primary_address_of_a_third_party() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        let primary = lab.simulator.private_addresses(THIRD_PARTY[0]).expect("an ENI")[0];
        for (router, priority) in [(&mut lab.r1, 200), (&mut lab.r2, 100)] {
            router.set_group(GROUP, 10, &format!("{primary}/24"), priority);
            router.commit();
        }
        let reason = format!("{primary} is the primary address of {}", THIRD_PARTY[0]);
        let shown = |lab: &Lab| lab.r2.shown(GROUP, primary);
        lab.wait(&reason, LONGEST + SLACK, |lab| {
            let shown = shown(lab);
            let why = shown.address["reason"].as_str().unwrap_or_default().to_owned();
            shown.verdict() == "STANDBY-NOT-READY" && why.starts_with(&reason)
        });
        assert_eq!(lab.r2.logged(&["standby not ready", &reason]), 1);
        exports(lab, "address", &primary.to_string(), "primary-address");
        check_fails(lab, "Address", &reason);
        lab.simulator.delete_network_interface(THIRD_PARTY[0]).expect("an ENI");
        lab.wait_for_verdict(&lab.r2, GROUP, primary, "STANDBY-READY", LONGEST + SLACK);
        lab.r1.power_off();
        lab.wait_for_owner(primary, &lab.r2, ELECTION + SLACK);
    });
}

/// The kernel sends the packets of router 2 to EC2 by another route, until it is deleted.
fn depends_on(lab: &mut Lab, route: &[&str], words: &str) {
    let ec2 = "10.99.0.1/32";
    let said = lab.r2.logged(&["standby ready"]);
    lab.r2.call(&[&["ip", "route", "add", ec2], route].concat());
    not_ready(lab, "dependent-path", &["packets to EC2 (10.99.0.1)", words]);
    check_fails(lab, "Path", words);
    lab.r2.call(&["ip", "route", "delete", ec2]);
    lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", LONGEST + SLACK);
    assert_eq!(lab.r2.logged(&["standby ready"]), said + 1);
}

/// Through the master everything works, and for as long as it lives.
#[test]
fn standby_whose_way_to_ec2_leads_by_the_other_router() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        // Router 1 forwards, as VyOS does, and no redirect shows router 2 the direct path.
        for file in ["ip_forward", "conf/all/send_redirects", "conf/eth0/send_redirects"] {
            let on = u8::from(file == "ip_forward");
            lab.r1.call(&["sh", "-c", &format!("echo {on} >/proc/sys/net/ipv4/{file}")]);
        }
        lab.bring_up();
        depends_on(lab, &["via", "10.99.0.100"], "go through the virtual address 10.99.0.100");
        depends_on(lab, &["via", "10.99.0.11"], "go through 10.99.0.11, the other router of a group");
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
    });
}

/// In EC2, IMDS answers on the link; here each router has its address. The packets of router 2 are dropped, because router 1
/// would answer them as another instance.
#[test]
fn standby_whose_way_to_imds_leads_by_the_other_router() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        let said = lab.r2.logged(&["standby ready"]);
        lab.r2.call(&["nft", "add table ip imds"]);
        lab.r2.call(&["nft", "add chain ip imds out { type filter hook output priority 0; }"]);
        lab.r2.call(&["nft", "add rule ip imds out oifname eth0 ip daddr 169.254.169.254 drop"]);
        lab.r2.call(&["ip", "address", "delete", "169.254.169.254/32", "dev", "lo"]);
        for (via, words) in [
            ("10.99.0.11", "go through 10.99.0.11, the other router of a group"),
            ("10.99.0.100", "go through the virtual address 10.99.0.100"),
        ] {
            lab.r2.call(&["ip", "route", "replace", "169.254.169.254/32", "via", via]);
            not_ready(lab, "dependent-path", &["packets to IMDS (169.254.169.254)", words]);
            check_fails(lab, "Path", words);
        }
        lab.r2.call(&["ip", "route", "delete", "169.254.169.254/32"]);
        lab.r2.call(&["ip", "address", "add", "169.254.169.254/32", "dev", "lo"]);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", LONGEST + SLACK);
        assert_eq!(lab.r2.logged(&["standby ready"]), said + 1);
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
    });
}

/// Router 2 is the master of another group, and has its address.
#[test]
fn standby_whose_source_address_is_a_virtual_one() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        for (router, priority) in [(&mut lab.r1, 100), (&mut lab.r2, 200)] {
            router.set_group("other", 20, "10.99.0.101/24", priority);
            router.commit();
        }
        lab.bring_up();
        lab.wait_for_verdict(&lab.r2, "other", Ipv4Addr::new(10, 99, 0, 101), "OK", ELECTION + SLACK);
        depends_on(lab, &["dev", "eth0", "src", "10.99.0.101"], "have the virtual address 10.99.0.101 as their source");
    });
}

/// A master that may not read cannot detect losses. It logs that once, and does not report OK.
#[test]
fn master_that_may_not_read() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        let reads = On::action("DescribeNetworkInterfaces").instance(&lab.r1.instance);
        let denial = lab.simulator.add_fault(Fault::on(reads).deny());
        // Two intervals after the last successful read.
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "UNKNOWN", Duration::from_secs(15) + SLACK);
        let reason = lab.r1.shown(GROUP, VIP).address["reason"].as_str().unwrap_or_default().to_owned();
        let missing = "allow ec2:DescribeNetworkInterfaces to instance role router";
        assert!(reason.contains("EC2 last confirmed at") && reason.contains(missing), "{reason}");
        assert_eq!(lab.r1.logged(&["ownership check denied", "UnauthorizedOperation", missing]), 1, "said once");
        lab.simulator.remove_fault(denial);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", Duration::from_secs(5) + SLACK);
        assert_eq!(lab.r1.logged(&["ownership checks succeed again"]), 1);
        assert_eq!(lab.claims(None).len(), 1, "{}", lab.simulator);
    });
}

/// A fresh report that EC2 does not answer is not answered with older data as if that were fresh.
#[test]
fn fresh_status_while_ec2_hangs() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("request-timeout 2");
        lab.bring_up();
        let ask = |lab: &Lab| -> Value {
            let text = lab.r1.call(&["vyos-aws-vipa", "show", "status", "--json", "--fresh"]);
            serde_json::from_str(&text).expect("JSON")
        };
        assert_eq!(ask(lab)["not_answered"], json!([]));
        let reads = On::action("DescribeNetworkInterfaces").instance(&lab.r1.instance);
        let hang = lab.simulator.add_fault(Fault::on(reads).hang());
        // Requests within a second share one read.
        lab.wait("EC2 is asked anew", SLACK, |lab| ask(lab)["not_answered"] != json!([]));
        let report = ask(lab);
        let why = report["not_answered"][0].as_str().unwrap_or_default();
        assert!(why.contains("Timeout") && why.contains("The owners below are from an earlier check"), "{report:#}");
        assert!(report["agent"].is_object());
        lab.simulator.remove_fault(hang);
        lab.wait("EC2 answers anew", SLACK, |lab| ask(lab)["not_answered"] == json!([]));
        // The command gives up before the agent does.
        lab.set_global("request-timeout 20");
        lab.r1.commit();
        lab.wait("20 s", SLACK, |lab| lab.r1.logged(&["configuration loaded"]) >= 2);
        let reads = On::action("DescribeNetworkInterfaces").instance(&lab.r1.instance);
        lab.simulator.add_fault(Fault::on(reads).hang());
        lab.wait("EC2 is asked anew", SLACK, |lab| ask(lab)["not_answered"] != json!([]));
        let start = Instant::now();
        let report = ask(lab);
        let why = report["not_answered"][0].as_str().unwrap_or_default();
        assert!(why.contains("EC2 did not answer the agent within 3."), "{report:#}");
        assert!(start.elapsed() < Duration::from_secs(4) + SLACK, "{:?}", start.elapsed());
    });
}

/// Router 2 reports it at its next read, with the reason, and its metrics have the code, while router 1 has the address.
pub fn not_ready(lab: &Lab, code: &str, reasons: &[&str]) {
    lab.wait(&format!("not ready: {code}: {reasons:?}"), LONGEST + SLACK, |lab| {
        let shown = lab.r2.shown(GROUP, VIP);
        let reason = shown.address["reason"].as_str().unwrap_or_default().to_owned();
        let is_it = shown.address["reason_code"] == code && reasons.iter().all(|part| reason.contains(part));
        shown.verdict() == "STANDBY-NOT-READY" && is_it
    });
    let texts: Vec<&str> = reasons.iter().copied().chain(["standby not ready"]).collect();
    assert_eq!(lab.r2.logged(&texts), 1);
    exports(lab, "address", &VIP.to_string(), code);
    assert_eq!(lab.simulator.owner(VIP).expect("an owner"), *lab.r1.enis[0]);
}

/// Waits until the metrics of router 2 have the code as the reason for the verdict on the resource.
pub fn exports(lab: &Lab, kind: &str, resource: &str, code: &str) {
    let labels = format!("group=\"{GROUP}\",kind=\"{kind}\",resource=\"{resource}\",reason=\"{code}\"");
    let sample = format!("vyos_aws_vipa_resource_reason{{{labels}}} 1");
    let deadline = Instant::now() + WRITTEN + SLACK;
    loop {
        let metrics = lab.r2.read("/run/vyos-aws-vipa-agent/metrics.prom");
        if metrics.lines().any(|line| line == sample) {
            return;
        }
        assert!(Instant::now() < deadline, "no {sample} within {:?}: {metrics}", WRITTEN + SLACK);
        sleep(Duration::from_millis(50));
    }
}

/// The standby is ready once the obstacle is removed.
fn ready_again_and_takes_over(lab: &Lab, remove: impl FnOnce(&Lab)) {
    // It may have been logged before, at its start.
    let said = lab.r2.logged(&["standby ready"]);
    remove(lab);
    lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", LONGEST + SLACK);
    assert_eq!(lab.r2.logged(&["standby ready"]), said + 1);
    assert!(lab.claims(Some(&lab.r2)).is_empty());
    lab.r1.power_off();
    lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
    assert_eq!(lab.claims(Some(&lab.r2)).len(), 1, "{}", lab.simulator);
}

#[test]
fn reads_of_a_standby_and_of_a_master() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        // Without the reads that confirm the claim.
        lab.watch("one claim", Duration::from_secs(11), |lab| lab.claims(None).len() == 1);
        let before = [&lab.r1, &lab.r2].map(|router| lab.reads(router).len());
        lab.watch("one claim", Duration::from_secs(60), |lab| lab.claims(None).len() == 1);
        let master = gaps(lab, &lab.r1, before[0]);
        assert!((10..=12).contains(&master.len()), "{master:?}");
        assert!(master.iter().all(|gap| *gap > Duration::from_secs(4)), "{master:?}");
        let standby = gaps(lab, &lab.r2, before[1]);
        assert!((2..=4).contains(&standby.len()), "{standby:?}");
        assert!(standby.iter().all(|gap| *gap > INTERVAL - Duration::from_millis(500)), "{standby:?}");
    });
}

#[test]
fn standby_that_is_throttled_reads_less_often() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        let reads = On::action("DescribeNetworkInterfaces").instance(&lab.r2.instance);
        let before = lab.reads(&lab.r2).len();
        lab.simulator.add_fault(Fault::on(reads).throttle());
        not_ready(lab, "read-failed", &["RequestLimitExceeded"]);
        lab.wait("another read", 2 * LONGEST + SLACK, |lab| lab.reads(&lab.r2).len() == before + 2);
        let gap = gaps(lab, &lab.r2, before)[1];
        assert!(gap > 2 * INTERVAL * 8 / 10 - Duration::from_millis(500), "{gap:?}");
        assert_eq!(lab.r1.shown(GROUP, VIP).verdict(), "OK");
    });
}

/// The times between the reads of a router from that one on, the gap before it included.
fn gaps(lab: &Lab, router: &Router, from: usize) -> Vec<Duration> {
    let reads = lab.reads(router);
    reads[from - 1..].windows(2).map(|pair| pair[1].arrived - pair[0].arrived).collect()
}
