//! Reloads, restarts and failures of keepalived.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs};

use jiff::Timestamp;
use lab::{Cut, GROUP, Lab, Signal, THIRD_PARTY, VIP};

use crate::{BINARY, ELECTION, SLACK, preempted};

/// r2 has the address, and r1 does not claim it.
fn stays_with_r2(lab: &Lab, during: Duration) {
    let before = lab.claims(Some(&lab.r1)).len();
    lab.watch("r2 has the address", during, |lab| lab.simulator.owner(VIP).is_some_and(|o| o == *lab.r2.enis[0]));
    let claims = lab.claims(Some(&lab.r1));
    assert_eq!(claims.len(), before, "{claims:#?}");
}

/// The routers run the keepalived that scripts/test names, or else the one that is installed.
#[test]
fn version_that_is_tested() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let root = env::var_os(lab::KEEPALIVED_ROOT).unwrap_or_else(|| "/".into());
        let expected = fs::metadata(Path::new(&root).join("usr/sbin/keepalived")).expect("the program");
        let pid = lab.r1.main_pid("keepalived").expect("keepalived runs");
        let found = fs::metadata(format!("/proc/{}/exe", pid.as_raw_nonzero())).expect("its program");
        assert_eq!((found.dev(), found.ino()), (expected.dev(), expected.ino()));
    });
}

/// A reload in which the group stays MASTER writes no notify event, and needs no action.
#[test]
fn reload() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let attached = lab.r1.status()["hook"]["attached"].clone();
        assert_eq!(attached, true);
        for _ in 0..3 {
            lab.r1.systemctl(&["reload", "keepalived.service"]);
            lab.watch("MASTER and OK", Duration::from_secs(1), |lab| {
                let shown = lab.r1.shown(GROUP, VIP);
                shown.vrrp() == "MASTER" && shown.verdict() == "OK"
            });
        }
        assert_eq!(lab.claims(None).len(), 1);
        assert_eq!(lab.r1.status()["hook"]["attached"], true);
        let said = |lab: &Lab| ["hook attached", "hook not attached"].map(|text| lab.r1.logged(&[text]));
        assert_eq!(said(lab), [1, 0], "a reload is no news");
        // A gap of two seconds is logged.
        lab.r1.systemctl(&["stop", "keepalived.service"]);
        lab.wait("it is said", Duration::from_secs(2) + SLACK, |lab| said(lab) == [1, 1]);
        lab.r1.systemctl(&["start", "keepalived.service"]);
        lab.wait("it is taken back", SLACK, |lab| said(lab) == [2, 1]);
    });
}

/// STOP: the other router takes over, and the address returns with the higher priority.
#[test]
fn restart() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.systemctl(&["restart", "keepalived.service"]);
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_owner(VIP, &lab.r1, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
        preempted(lab, 2, 1);
    });
}

/// keepalived exits at a reload of a file without a valid instance: no notify event, and the address stays on the
/// interface.
#[test]
fn reload_of_an_invalid_configuration_while_master() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let conf = lab.r1.read("/run/keepalived/keepalived.conf");
        let invalid = conf.replace("virtual_router_id 10", "virtual_router_id 999");
        assert_ne!(conf, invalid);
        lab.r1.write("/run/keepalived/keepalived.conf", &invalid);
        lab.r1.systemctl(&["reload", "keepalived.service"]);
        lab.wait("keepalived ends", SLACK, |lab| lab.r1.main_pid("keepalived").is_none());
        assert!(lab.r1.has_local(VIP), "left behind");
        // keepalived has no such group any more.
        lab.wait("UNKNOWN", SLACK, |lab| lab.r1.shown(GROUP, VIP).vrrp() == "UNKNOWN");
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        stays_with_r2(lab, Duration::from_secs(5));
        assert_eq!(lab.r1.status()["hook"]["attached"], false);
        lab.r1.write("/run/keepalived/keepalived.conf", &conf);
        lab.r1.systemctl(&["start", "keepalived.service"]);
        lab.wait_for_owner(VIP, &lab.r1, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
    });
}

/// SIGKILL of the whole process group: the address that is left on the interface is no evidence.
#[test]
fn killed_with_its_address_left_behind() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.set(["set high-availability vrrp group vyos-aws no-preempt"]);
        lab.r1.commit();
        lab.r1.kill_keepalived_group();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "UNKNOWN", SLACK);
        assert!(lab.r1.has_local(VIP), "left behind");
        stays_with_r2(lab, Duration::from_secs(5));
        // The new one removes the address shortly after it has opened the FIFO.
        lab.r1.systemctl(&["start", "keepalived.service"]);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "STANDBY-READY", ELECTION + SLACK);
        stays_with_r2(lab, 2 * ELECTION);
        assert_eq!(lab.r1.shown(GROUP, VIP).vrrp(), "BACKUP");
    });
}

/// A frozen router must not take the address back from the healthy one. When it thaws it is still MASTER, hears the
/// other one, and writes a notify event.
#[test]
fn vrrp_child_frozen_for_a_minute() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.set(["set high-availability vrrp global-parameters aws-vipa verify-interval 5"]);
        lab.r1.commit();
        lab.r1.signal_vrrp(Signal::STOP);
        let frozen = Instant::now();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "UNKNOWN", Duration::from_secs(15) + SLACK);
        assert!(lab.r1.has_local(VIP));
        stays_with_r2(lab, Duration::from_secs(60).saturating_sub(frozen.elapsed()));
        lab.r1.signal_vrrp(Signal::CONT);
        lab.wait_for_owner(VIP, &lab.r1, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
    });
}

/// keepalived respawns a killed VRRP child, and cleans up.
#[test]
fn vrrp_child_killed() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.signal_vrrp(Signal::KILL);
        lab.wait("its address is gone", SLACK, |lab| !lab.r1.has_local(VIP));
        lab.wait("MASTER again", 2 * ELECTION + SLACK, |lab| lab.r1.has_local(VIP));
        // If the other router has become MASTER in the same moment, its claim may be the last one: the next one comes 10 s later.
        let again = Duration::from_secs(10) + SLACK;
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", again);
        assert_eq!(lab.simulator.owner(VIP).expect("an owner"), *lab.r1.enis[0]);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", 2 * ELECTION + SLACK);
    });
}

/// While nothing waits for keepalived's liveness, the status shows when it was last alive.
#[test]
fn signs_of_life_in_quiet_times() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let begin = Timestamp::now();
        lab.wait("keepalived activity 15 s later", Duration::from_secs(30) + SLACK, |lab| {
            let last = [&lab.r1, &lab.r2].map(|router| router.status()["hook"]["last_activity_at"].clone());
            let last = last.map(|at| at.as_str().and_then(|at| at.parse::<Timestamp>().ok()));
            last.iter().all(|at| at.is_some_and(|at| at.as_second() >= begin.as_second() + 15))
        });
    });
}

/// With an interval of 5 s keepalived is idle for as long, which is no sign that it hangs.
#[test]
fn seldom_advertisements() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.r1.set_group(GROUP, 10, "10.99.0.100/24", 200);
        lab.r1.set([
            "set high-availability vrrp group vyos-aws advertise-interval 5",
            "set high-availability vrrp global-parameters aws-vipa verify-interval 5",
        ]);
        lab.r1.commit();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", 5 * ELECTION + SLACK);
        lab.r1.kill(Signal::KILL, "vyos-aws-vipa");
        lab.r1.start_agent();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", Duration::from_secs(5) + SLACK);
        for _ in 0..2 {
            lab.simulator.steal(VIP, THIRD_PARTY[0]).expect("taken");
            lab.wait_for_owner(VIP, &lab.r1, Duration::from_secs(5 + 2 + 5) + SLACK);
            lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        }
        assert_eq!(lab.r1.logged(&["transition", "no keepalived activity"]), 0);
    });
}

/// In FAULT keepalived has no timer; an agent that starts then sees neither a notify event nor activity.
#[test]
fn in_fault_when_the_agent_starts() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r2.set_cable(false);
        lab.wait("FAULT by a notify event", SLACK, |lab| lab.r2.shown(GROUP, VIP).vrrp() == "FAULT");
        lab.r2.kill(Signal::KILL, "vyos-aws-vipa");
        lab.r2.start_agent();
        // A change in the network may wake keepalived meanwhile: the group then is BACKUP for as long as BACKUP may sleep.
        let longest = SLACK + Duration::from_secs(10);
        lab.wait("FAULT without one", longest, |lab| lab.r2.shown(GROUP, VIP).vrrp() == "FAULT");
        assert_eq!(lab.r2.shown(GROUP, VIP).verdict(), "STANDBY-NOT-READY");
        assert_eq!(lab.r2.logged(&["transition", "to=FAULT", "keepalived has no timer set"]), 1);
        lab.r2.set_cable(true);
        lab.wait("BACKUP by a notify event", ELECTION + SLACK, |lab| lab.r2.shown(GROUP, VIP).vrrp() == "BACKUP");
    });
}

/// A standby was suspended and missed advertisements meanwhile: its keepalived finds its timer expired, and is MASTER
/// until the next advertisement.
#[test]
fn standby_paused() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let pids =
            [lab.r2.vrrp_pid(), lab.r2.main_pid("vyos-aws-vipa")].map(|pid| pid.expect("a process").as_raw_pid());
        let [vrrp, agent] = pids.map(|pid| pid.to_string());
        let signal = |name: &str| lab.r2.call(&["kill", name, &vrrp, &agent]);
        let is_r1_s = |lab: &Lab| lab.simulator.owner(VIP).is_some_and(|o| o == *lab.r1.enis[0]);
        let stale = |lab: &Lab| lab.r2.read("/run/lab/keepalived.service.log").matches("Entering MASTER STATE").count();
        for _ in 0..3 {
            signal("-STOP");
            lab.cut(Cut::Both);
            lab.watch("r1 has the address", ELECTION + Duration::from_secs(2), is_r1_s);
            lab.heal();
            signal("-CONT");
            lab.watch("r1 keeps it", ELECTION, is_r1_s);
        }
        // A run in which an advertisement arrived before it resumed is inconclusive.
        assert!(stale(lab) > 0, "its timer never ran out");
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 0);
        lab.wait("BACKUP again", SLACK, |lab| lab.r2.shown(GROUP, VIP).vrrp() == "BACKUP");
    });
}
