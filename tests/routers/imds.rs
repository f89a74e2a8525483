//! The instance metadata service is unavailable.

use std::time::Duration;

use lab::simulator::{Effect, Fault, On};
use lab::{GROUP, Lab, VIP};

use crate::{BINARY, ELECTION, SLACK, preempted};

#[test]
fn gone_at_the_start_and_back() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.imds.iter().for_each(|imds| imds.stop());
        // One refuses connections, the other accepts and never answers.
        lab.imds[1].mute(true);
        lab.imds[1].start().expect("listening");
        lab.commit_pair();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "CLAIMING", ELECTION + SLACK);
        let unknown = "the network interface (ENI) of eth0 is unknown";
        let shown = lab.r1.shown(GROUP, VIP);
        let reason = shown.address["reason"].as_str().unwrap_or_default();
        assert!(shown.vrrp() == "MASTER" && reason.contains(unknown) && reason.contains("IMDS"), "{shown:#?}");
        lab.wait("router 2 says that it could not take over", SLACK, |lab| {
            let reason = lab.r2.shown(GROUP, VIP).address["reason"].clone();
            reason.as_str().is_some_and(|reason| reason.contains(unknown))
        });
        assert_eq!(lab.r2.shown(GROUP, VIP).verdict(), "STANDBY-NOT-READY");
        assert_eq!(lab.r2.logged(&["standby not ready", unknown]), 1);
        // Until the waits between attempts have reached their maximum.
        lab.watch("no request", Duration::from_secs(8), |lab| lab.simulator.requests().is_empty());
        lab.imds[1].mute(false);
        lab.imds[0].start().expect("listening");
        lab.wait_for_owner(VIP, &lab.r1, Duration::from_secs(5) + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", Duration::from_secs(8) + SLACK);
        assert_eq!(lab.claims(None).len(), 1, "{}", lab.simulator);
    });
}

#[test]
fn answers_that_are_errors_or_rubbish() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        let error = Effect::Error { status: 500, code: String::new() };
        for (what, effects) in [
            ("instance-id", vec![Effect::Drop, Effect::Huge(8 << 20)]),
            ("network/interfaces/macs/", vec![Effect::NotXml, error, Effect::Truncated, Effect::Hang]),
            ("iam/security-credentials/", vec![Effect::NotXml, Effect::Truncated]),
        ] {
            let path = On::imds_path(&format!("/latest/meta-data/{what}")).listener(lab.imds[0].number());
            for effect in effects {
                lab.simulator.add_fault(Fault::on(path.clone()).effect(effect).times(1));
            }
        }
        lab.commit_pair();
        lab.wait_for_owner(VIP, &lab.r1, Duration::from_secs(30) + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.claims(None).len(), 1, "{}", lab.simulator);
        assert_eq!((lab.simulator.faults(), lab.r1.logged(&["panicked"])), (vec![], 0));
    });
}

#[test]
fn gone_after_a_reboot_and_not_back() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("credentials-file /run/lab/credentials");
        let keys = "[default]\naws_access_key_id=AKIAVIPAEXAMPLE00001\naws_secret_access_key=vipa-example-secret\n";
        for router in [&lab.r1, &lab.r2] {
            router.write("/run/lab/credentials", keys);
        }
        lab.bring_up();
        let eni = lab.r1.enis[0].clone();
        lab.wait("the ENI is kept", SLACK, |lab| lab.r1.read("/var/lib/vyos-aws-vipa/eni-cache.json").contains(&eni));
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.imds[0].stop();
        let asked = lab.simulator.imds_requests().len();
        lab.r1.boot(|_| ());
        lab.wait_for_owner(VIP, &lab.r1, ELECTION + 2 * SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        let from_first = |request: &&lab::simulator::Request| request.listener == lab.imds[0].number();
        assert_eq!(lab.simulator.imds_requests()[asked..].iter().filter(from_first).count(), 0);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
        preempted(lab, 2, 1);
        let claims = lab.claims(Some(&lab.r1)).len();

        // The cache is valid for this instance alone: an image of its disk may run on another one.
        lab.r1.write("/run/lab/virtual/dmi/id/board_asset_tag", "i-0a000000000000009\n");
        lab.simulator.release(VIP).expect("released");
        lab.r1.systemctl(&["restart", "vyos-aws-vipa.service"]);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "CLAIMING", SLACK);
        lab.watch("no claim", Duration::from_secs(5), |lab| lab.claims(Some(&lab.r1)).len() == claims);
        lab.imds[0].start().expect("listening");
        lab.wait_for_owner(VIP, &lab.r1, Duration::from_secs(5) + SLACK);
    });
}

/// IMDS may omit an interface after a reboot or a live migration.
#[test]
fn leaves_out_the_interface_after_a_restart() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let eni = lab.r1.enis[0].clone();
        lab.wait("the ENI is kept", SLACK, |lab| lab.r1.read("/var/lib/vyos-aws-vipa/eni-cache.json").contains(&eni));
        let interfaces = On::imds_path("/latest/meta-data/network/interfaces/macs/").listener(lab.imds[0].number());
        lab.simulator.add_fault(Fault::on(interfaces).error(404, ""));
        lab.simulator.release(VIP).expect("released");
        lab.r1.systemctl(&["restart", "vyos-aws-vipa.service"]);
        lab.wait_for_owner(VIP, &lab.r1, Duration::from_secs(5) + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
    });
}

#[test]
fn gone_while_running() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.imds.iter().for_each(|imds| imds.stop());
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 1, "{}", lab.simulator);
    });
}
