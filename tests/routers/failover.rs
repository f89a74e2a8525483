//! Failover: the address follows the master.

use std::fs;
use std::time::{Duration, Instant};

use lab::{GROUP, Lab, Router, VIP};
use serde_json::Value;

use crate::{BINARY, ELECTION, SLACK, preempted};

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

/// An empty /run, the hook, keepalived, MASTER, and only then `commit`: the agent gets no notify event.
#[test]
fn boot_in_the_order_of_vyos() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        let deadline = ELECTION + SLACK;
        let outputs = lab.r1.boot(|r1| {
            assert!(!r1.read("/run/keepalived/keepalived.conf").contains("vyos-aws-vipa"), "nothing is configured yet");
            let began = Instant::now();
            while !r1.has_local(VIP) {
                assert!(began.elapsed() < deadline, "not MASTER within {deadline:?}");
            }
        });
        assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
        lab.wait_for_owner(VIP, &lab.r1, SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.claims(Some(&lab.r1)).len(), 2, "one before the boot, one after");
        assert_eq!(lab.r1.systemctl_calls("restart keepalived.service"), 0);
    });
}

#[test]
fn switched_on_for_a_group_that_is_master_already() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.r1.set_group(GROUP, 10, "10.99.0.100/24", 200);
        lab.r1.set([
            "delete high-availability vrrp group vyos-aws aws-vipa",
            "delete high-availability vrrp global-parameters aws-vipa",
        ]);
        assert_eq!(lab.r1.commit(), Vec::<String>::new(), "nothing of ours is set");
        lab.wait("MASTER", ELECTION + SLACK, |lab| lab.r1.has_local(VIP));
        let reloads = lab.r1.systemctl_calls("reload keepalived.service");
        lab.r1.set([
            "set high-availability vrrp group vyos-aws aws-vipa",
            "set high-availability vrrp global-parameters aws-vipa ca-certificate-file /run/lab/ca.pem",
        ]);
        lab.r1.commit();
        lab.wait_for_owner(VIP, &lab.r1, SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.claims(None).len(), 1);
        assert_eq!(lab.r1.systemctl_calls("reload keepalived.service") - reloads, 1, "one reload");
        assert!(lab.r1.has_local(VIP), "and still MASTER");
    });
}

/// SIGKILL of keepalived's process group and of the agent, and the link cut.
#[test]
fn master_loses_power() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let off = Instant::now();
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        let claims = lab.claims(Some(&lab.r2));
        assert_eq!(claims.len(), 1, "{claims:#?}");
        assert!(claims[0].arrived - off < ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.claims(Some(&lab.r1)).len(), 1, "its first one");
    });
}

/// The longest time until a standby has read the owners again.
const CONFIRMED: Duration = Duration::from_secs(40);

/// The timelines of the last failovers of the router's group.
fn timeline(router: &Router) -> Value {
    let text = router.call(&["vyos-aws-vipa", "show", "failover", "--json"]);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    report["groups"][0].clone()
}

/// A lower priority on the master, and a higher one again.
#[test]
fn planned_failover_and_back() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.set(["set high-availability vrrp group vyos-aws priority 50"]);
        assert_eq!(lab.r1.commit(), Vec::<String>::new(), "VyOS does not call us for this");
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "STANDBY-READY", SLACK);
        let claims = (lab.claims(Some(&lab.r1)), lab.claims(Some(&lab.r2)));
        assert_eq!((claims.0.len(), claims.1.len()), (1, 1));
        let is_relieved = |lab: &Lab| timeline(&lab.r1)["left_master"]["kinds"][0]["confirmed"] == 1;
        lab.wait("a read that shows who has it now", CONFIRMED, is_relieved);
        let (r1, r2) = (timeline(&lab.r1), timeline(&lab.r2));
        let moved = &r2["became_master"]["resources"][0];
        assert_eq!(r2["became_master"]["cause"], "keepalived: MASTER", "{r2:#}");
        assert_eq!(moved["acknowledged"]["request_id"], *claims.1[0].request_id, "{r2:#}");
        let ms = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{r2:#}"));
        let times =
            [&moved["requested_ms"], &moved["acknowledged"]["ended_ms"], &moved["confirmed"]["ended_ms"]].map(ms);
        assert!(times.is_sorted() && times[0] < 1_000, "{r2:#}");
        let (relieved, ours) = (&r1["left_master"]["resources"][0]["confirmed"], lab.r2.enis[0].clone());
        assert!(relieved["eni"] == *ours && moved["confirmed"]["eni"] == *ours, "{r1:#} {r2:#}");
        lab.r1.set(["set high-availability vrrp group vyos-aws priority 200"]);
        lab.r1.commit();
        lab.wait_for_owner(VIP, &lab.r1, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
        preempted(lab, 2, 1);
    });
}

/// A returning master preempts.
#[test]
fn preempt() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.r1.boot(|_| ());
        lab.wait_for_owner(VIP, &lab.r1, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
        preempted(lab, 2, 1);
    });
}

/// With no-preempt it does not.
#[test]
fn no_preempt() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        // Not before it is MASTER: a reload begins its wait anew, and the other router could be the first.
        lab.r1.set(["set high-availability vrrp group vyos-aws no-preempt"]);
        lab.r1.commit();
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.r1.boot(|_| ());
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "STANDBY-READY", ELECTION + SLACK);
        let claims = lab.claims(Some(&lab.r1)).len();
        lab.watch("r2 keeps it", 2 * ELECTION, |lab| lab.simulator.owner(VIP).is_some_and(|o| o == *lab.r2.enis[0]));
        assert_eq!(lab.claims(Some(&lab.r1)).len(), claims);
        assert_eq!(lab.r1.shown(GROUP, VIP).vrrp(), "BACKUP");
    });
}

/// Another process reads the FIFO, and gets the MASTER event in place of the agent.
#[test]
fn the_line_is_read_by_another() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        // Which of two readers gets an event is random, so the agent is stopped, for too short a time to count as a stall.
        let agent = lab.r2.main_pid("vyos-aws-vipa").expect("the agent").as_raw_pid().to_string();
        let signal = |name: &str| lab.r2.call(&["kill", name, &agent]);
        let taken = fs::File::create(lab.r2.path("/run/lab/read-by-another")).expect("a file");
        signal("-STOP");
        let stopped = Instant::now();
        let mut other =
            lab.r2.command("cat").arg("/run/vyos-aws-vipa/notify.fifo").stdout(taken).spawn().expect("cat(1)");
        lab.r1.systemctl(&["stop", "keepalived.service"]);
        lab.wait("the other process has read the event", ELECTION + SLACK, |lab| {
            lab.r2.read("/run/lab/read-by-another").contains("MASTER")
        });
        other.kill().expect("killed");
        other.wait().expect("waited");
        signal("-CONT");
        println!("the agent did not read for {:?}", stopped.elapsed());
        lab.wait_for_owner(VIP, &lab.r2, Duration::from_secs(3) + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.r2.logged(&["transition", "cause=\"keepalived: MASTER\""]), 0, "the agent got no event");
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 1);
    });
}

/// An operator adds the address to the standby's interface.
#[test]
fn the_address_is_added_by_hand() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r2.call(&["ip", "address", "add", "10.99.0.100/24", "dev", "eth0"]);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "DRIFT", Duration::from_secs(3) + SLACK);
        let shown = lab.r2.shown(GROUP, VIP);
        let reason = shown.address["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("VRRP is BACKUP here, but the address is on eth0"), "{shown:#?}");
        lab.watch("r1 keeps it", Duration::from_secs(3), |lab| {
            lab.simulator.owner(VIP).is_some_and(|o| o == *lab.r1.enis[0])
        });
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 0);
        lab.r2.call(&["ip", "address", "delete", "10.99.0.100/24", "dev", "eth0"]);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
        assert_eq!(lab.r2.logged(&["not MASTER, but the address is on its interface"]), 1);
    });
}
