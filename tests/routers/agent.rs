//! Restarts of the agent lose nothing.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use jiff::Timestamp;
use lab::simulator::{Fault, On};
use lab::{Cut, GROUP, Lab, Router, Signal, THIRD_PARTY, VIP};

use crate::ownership_loss::{SEEN, steal};
use crate::{BINARY, ELECTION, SLACK};

fn kill_and_start(router: &Router) {
    router.kill(Signal::KILL, "vyos-aws-vipa");
    router.start_agent();
}

#[test]
fn killed_while_the_address_is_held() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let permissions = "/var/lib/vyos-aws-vipa/permissions.json";
        lab.wait("the proof is kept", SLACK, |lab| lab.r1.read(permissions).contains(&lab.r1.enis[0]));
        kill_and_start(&lab.r1);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.r1.shown(GROUP, VIP).vrrp(), "MASTER");
        assert_eq!(lab.claims(None).len(), 1, "it is ours: no claim");
        assert!(lab.r1.shown(GROUP, VIP).address["assign_permission_proven_at"].is_string(), "and is remembered");
    });
}

#[test]
fn killed_while_standby() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        kill_and_start(&lab.r2);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 0);
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
    });
}

#[test]
fn killed_while_claiming() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let fault = lab.simulator.add_fault(Fault::on(On::claims()).error(503, "Unavailable"));
        lab.r1.power_off();
        lab.wait("r2 claims in vain", ELECTION + SLACK, |lab| lab.claims(Some(&lab.r2)).len() >= 2);
        kill_and_start(&lab.r2);
        let before = lab.claims(Some(&lab.r2)).len();
        lab.wait("the new agent claims too", SLACK, |lab| lab.claims(Some(&lab.r2)).len() > before);
        lab.simulator.remove_fault(fault);
        lab.wait_for_owner(VIP, &lab.r2, SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
    });
}

#[test]
fn killed_while_in_fault() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.set_cable(false);
        lab.wait("FAULT", SLACK, |lab| lab.r1.shown(GROUP, VIP).vrrp() == "FAULT");
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        let before = lab.claims(Some(&lab.r1)).len();
        kill_and_start(&lab.r1);
        lab.wait("it answers", SLACK, |lab| lab.r1.status()["agent"].is_object());
        lab.watch("r2 keeps it", Duration::from_secs(4), |lab| {
            lab.simulator.owner(VIP).is_some_and(|o| o == *lab.r2.enis[0])
        });
        assert_eq!(lab.claims(Some(&lab.r1)).len(), before);
        lab.r1.set_cable(true);
        lab.wait_for_owner(VIP, &lab.r1, 2 * ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
    });
}

/// A pause survives the agent: the new one leaves the address to a third party until an operator resumes the group.
#[test]
fn killed_while_paused() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        lab.r1.call(&["vyos-aws-vipa", "force", "pause", GROUP]);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "PAUSED", SLACK);
        kill_and_start(&lab.r1);
        lab.wait("the new agent has the group, and knows its state", SLACK, |lab| {
            let shown = lab.r1.shown(GROUP, VIP);
            lab.r1.status()["agent"].is_object() && (shown.vrrp(), shown.verdict()) == ("MASTER", "PAUSED")
        });
        lab.simulator.steal(VIP, THIRD_PARTY[0]).expect("stolen");
        // Every 15 s as on a standby, with a jitter of up to a fifth.
        lab.wait("the loss is read", Duration::from_secs(18) + SLACK, |lab| {
            lab.r1.shown(GROUP, VIP).address["owner"]["eni"] == THIRD_PARTY[0]
        });
        lab.watch("the third party keeps it", SEEN, |lab| {
            lab.simulator.owner(VIP).is_some_and(|o| o == *THIRD_PARTY[0])
                && lab.r1.shown(GROUP, VIP).verdict() == "PAUSED"
        });
        assert_eq!(lab.claims(None).len(), 1, "{:#?}", lab.claims(None));
        lab.r1.call(&["vyos-aws-vipa", "force", "resume", GROUP]);
        lab.wait_for_owner(VIP, &lab.r1, SEEN + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.claims(None).len(), 2, "{:#?}", lab.claims(None));
    });
}

/// Paused while the clock was far ahead: the new agent ends the pause after the longest time that an operator can
/// request.
#[test]
fn killed_while_paused_for_too_long() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.kill(Signal::KILL, "vyos-aws-vipa");
        let pauses = lab.r1.path("/var/lib/vyos-aws-vipa/pauses.json");
        let pause = r#"{"until":"2100-01-01T00:00:00Z","boot":"another","at":0,"minutes":1440}"#;
        let text = format!("{{\"format\":1,\"groups\":{{\"{GROUP}\":{pause}}}}}");
        std::fs::write(pauses, text).expect("written");
        lab.r1.start_agent();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "PAUSED", SLACK);
        let group = lab.r1.shown(GROUP, VIP).group;
        let until: Timestamp = group["paused_until"].as_str().and_then(|t| t.parse().ok()).expect("a time");
        let minutes = until.duration_since(Timestamp::now()).as_mins();
        assert!((1_430..=1_440).contains(&minutes), "{minutes}");
    });
}

/// The new agent tries once what EC2 denies, and then waits as the old one did.
#[test]
fn killed_while_refused() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        let denial = lab.simulator.add_fault(Fault::on(On::claims().network_interface(&lab.r1.enis[0])).deny());
        lab.commit_pair();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "DRIFT", ELECTION + SLACK);
        assert_eq!(lab.claims(None).len(), 1, "{}", lab.simulator);
        kill_and_start(&lab.r1);
        lab.wait("the new agent is refused too", SLACK, |lab| lab.claims(None).len() == 2);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "DRIFT", SLACK);
        assert!(lab.r1.shown(GROUP, VIP).address["command"].is_string());
        lab.watch("it rests", Duration::from_secs(5), |lab| lab.claims(None).len() == 2);
        lab.simulator.remove_fault(denial);
        lab.r1.call(&["vyos-aws-vipa", "force", "claim", GROUP]);
        lab.wait_for_owner(VIP, &lab.r1, SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
    });
}

/// A disabled group stays disabled, whichever router has its address.
#[test]
fn killed_while_disabled() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.set([format!("set high-availability vrrp group {GROUP} aws-vipa disable").as_str()]);
        lab.r1.commit();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "DISABLED", SLACK);
        kill_and_start(&lab.r1);
        lab.wait("the new agent has the group", SLACK, |lab| {
            lab.r1.status()["agent"].is_object() && lab.r1.shown(GROUP, VIP).verdict() == "DISABLED"
        });
        lab.simulator.steal(VIP, THIRD_PARTY[0]).expect("stolen");
        lab.r1.systemctl(&["restart", "keepalived.service"]);
        lab.wait("MASTER again", 2 * ELECTION + SLACK, |lab| lab.r1.has_local(VIP));
        lab.watch("no claim", Duration::from_secs(5), |lab| lab.claims(Some(&lab.r1)).len() == 1);
        lab.r1.set([format!("delete high-availability vrrp group {GROUP} aws-vipa disable").as_str()]);
        lab.r1.commit();
        lab.wait_for_owner(VIP, &lab.r1, SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
    });
}

/// keepalived is killed, then the agent: the new agent does not take the address that is left on the interface as
/// evidence.
#[test]
fn killed_while_unknown() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.kill_keepalived_group();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "UNKNOWN", SLACK);
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        kill_and_start(&lab.r1);
        lab.wait("the new agent has the group", SLACK, |lab| {
            lab.r1.status()["agent"].is_object() && lab.r1.shown(GROUP, VIP).verdict() == "UNKNOWN"
        });
        assert!(lab.r1.has_local(VIP), "left behind");
        lab.watch("UNKNOWN, and r2 keeps it", Duration::from_secs(5), |lab| {
            let shown = lab.r1.shown(GROUP, VIP);
            (shown.vrrp(), shown.verdict()) == ("UNKNOWN", "UNKNOWN")
                && lab.simulator.owner(VIP).is_some_and(|o| o == *lab.r2.enis[0])
        });
        assert_eq!(lab.claims(Some(&lab.r1)).len(), 1, "{:#?}", lab.claims(Some(&lab.r1)));
        lab.r1.systemctl(&["start", "keepalived.service"]);
        lab.wait_for_owner(VIP, &lab.r1, 2 * ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
    });
}

/// CONTESTED survives the agent: the new one waits as long as the old one would, and an operator ends the wait.
#[test]
fn killed_while_contested() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        for loss in 1..=4 {
            lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
            steal(lab, loss);
            if loss < 4 {
                lab.wait_for_owner(VIP, &lab.r1, SLACK);
            }
        }
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "CONTESTED", SLACK);
        // State is written half a second after it has changed, each file by itself.
        let files = ["history.json", "ownership-losses.json"]
            .map(|file| lab.r1.path(&format!("/var/lib/vyos-aws-vipa/{file}")));
        lab.wait("it is on the disk that the address is contested", SLACK, |_| {
            files.iter().all(|file| std::fs::read_to_string(file).is_ok_and(|text| text.contains("contested")))
        });
        kill_and_start(&lab.r1);
        lab.wait("the new agent has the group", SLACK, |lab| {
            let shown = lab.r1.shown(GROUP, VIP);
            lab.r1.status()["agent"].is_object() && (shown.vrrp(), shown.verdict()) == ("MASTER", "CONTESTED")
        });
        lab.watch("no claim", Duration::from_secs(10), |lab| lab.claims(None).len() == 4);
        lab.r1.call(&["vyos-aws-vipa", "force", "claim", GROUP]);
        lab.wait_for_owner(VIP, &lab.r1, SLACK);
        assert_eq!(lab.r1.shown(GROUP, VIP).verdict(), "CONTESTED", "one claim is no peace");
        assert_eq!(lab.claims(None).len(), 5, "{:#?}", lab.claims(None));
    });
}

/// SIGTERM ends it at once, and the address stays assigned.
#[test]
fn stopped() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.kill(Signal::TERM, "vyos-aws-vipa");
        lab.watch("the address stays", Duration::from_secs(2), |lab| {
            lab.simulator.owner(VIP).is_some_and(|o| o == *lab.r1.enis[0])
        });
        assert_eq!(lab.claims(None).len(), 1);
        let said = lab.r1.call(&["vyos-aws-vipa", "show", "status"]);
        assert!(said.contains("the agent is not running"), "{said}");
        lab.r1.start_agent();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.claims(None).len(), 1);
    });
}

/// r2 becomes MASTER and BACKUP again while its agent is down: the content of the FIFO is outdated.
#[test]
fn master_and_backup_again_while_it_was_down() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r2.kill(Signal::KILL, "vyos-aws-vipa");
        lab.cut(Cut::Both);
        lab.wait("MASTER on r2", ELECTION + SLACK, |lab| lab.r2.has_local(VIP));
        lab.heal();
        lab.wait("BACKUP on r2", ELECTION + SLACK, |lab| !lab.r2.has_local(VIP));
        lab.r2.start_agent();
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
        no_claim_of_r2(lab);
    });
}

/// The same with a pipe so full that the BACKUP event was lost: the last event in it is MASTER.
#[test]
fn master_and_backup_again_with_a_full_pipe() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r2.kill(Signal::KILL, "vyos-aws-vipa");
        let fifo = lab.r2.path("/run/vyos-aws-vipa/notify.fifo");
        let mut pipe = OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(fifo).expect("keepalived reads");
        while pipe.write(b"INSTANCE \"vyos-aws\" MASTER 100\n").is_ok() {}
        drop(pipe);
        lab.cut(Cut::Both);
        lab.wait("MASTER on r2", ELECTION + SLACK, |lab| lab.r2.has_local(VIP));
        lab.heal();
        lab.wait("BACKUP on r2", ELECTION + SLACK, |lab| !lab.r2.has_local(VIP));
        lab.r2.start_agent();
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
        assert_eq!(lab.r2.status()["hook"]["fifo_full_count"], 1);
        no_claim_of_r2(lab);
    });
}

/// open(2): a write to a full pipe returns EAGAIN instead of waiting.
pub const O_NONBLOCK: i32 = 0o4000;

fn no_claim_of_r2(lab: &Lab) {
    lab.watch("r1 keeps it", Duration::from_secs(3), |lab| {
        lab.simulator.owner(VIP).is_some_and(|o| o == *lab.r1.enis[0])
    });
    let claims = lab.claims(Some(&lab.r2));
    assert!(claims.is_empty(), "{claims:#?}");
}
