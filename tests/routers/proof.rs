//! `force aws-vipa prove`: what EC2's answers show, and that nothing moves.

use std::time::Duration;

use lab::simulator::{Fault, On, Request};
use lab::{GROUP, Lab, Router, VIP};

use crate::credentials::{FILE, KEYS, NOTICED, SECRET, replace_keys};
use crate::{BINARY, ELECTION, SLACK};

/// The output of `force prove`, with its blanks as one, and whether it succeeded.
fn prove(router: &Router) -> (bool, String) {
    let output = router.command("vyos-aws-vipa").args(["force", "prove"]).output().expect("force prove");
    (output.status.success(), lab::said(&output).split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The line of `show check` about the permission.
fn check(router: &Router) -> String {
    let output = router.command("vyos-aws-vipa").args(["show", "check"]).output().expect("show check");
    let said = lab::said(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, about) = said.split_once(" IAM: claim ").unwrap_or_else(|| panic!("{said}"));
    about.split_once(" OK Address ").map_or(about, |(line, _)| line).to_owned()
}

#[test]
fn a_proof_moves_nothing_and_shows_what_ec2_permits() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let (eni, primary) = (lab.r2.enis[0].clone(), lab.r2.primaries[0]);
        let before = lab.simulator.moves().len();
        let is_proof = |r: &&Request| r.action == "AssignPrivateIpAddresses" && r.addresses == [primary];
        let proofs = |lab: &Lab| lab.simulator.requests().iter().filter(is_proof).cloned().collect::<Vec<Request>>();
        assert!(check(&lab.r2).contains("not proven yet"), "{}", check(&lab.r2));
        assert_eq!(proofs(lab).len(), 0, "it never runs by itself");

        // The simulator refuses to assign a primary address, after it has accepted the caller.
        let (succeeded, said) = prove(&lab.r2);
        assert!(succeeded && said.contains("ALLOWED ec2:AssignPrivateIpAddresses"), "{said}");
        assert!(said.contains("InvalidParameterValue") && said.contains(&*eni), "{said}");
        let [proof] = &proofs(lab)[..] else { panic!("{}", lab.simulator) };
        assert!(!proof.allow_reassignment && proof.network_interfaces == [eni.clone()], "{proof:#?}");
        let line = check(&lab.r2);
        assert!(line.contains(" proven ") && line.contains("s ago by `force aws-vipa prove`"), "{line}");

        let throttled = lab.simulator.add_fault(Fault::on(On::claims()).throttle());
        let (succeeded, said) = prove(&lab.r2);
        assert!(!succeeded && said.contains("INCONCLUSIVE") && said.contains("RequestLimitExceeded"), "{said}");
        assert!(said.contains("run `force aws-vipa prove` again") && said.contains("1 of 1 not proved"), "{said}");
        lab.simulator.remove_fault(throttled);
        let status = lab.r2.status();
        assert_eq!(status["ec2"]["proofs"][0]["allowed"], true, "what was shown before stays: {status:#}");

        let denied = lab.simulator.add_fault(Fault::on(On::claims()).deny());
        let (succeeded, said) = prove(&lab.r2);
        assert!(!succeeded && said.contains("DENIED") && said.contains("UnauthorizedOperation"), "{said}");
        assert!(said.contains("ec2:AssignPrivateIpAddresses") && said.contains("iam-policy"), "{said}");
        lab.simulator.remove_fault(denied);
        let line = check(&lab.r2);
        assert!(line.contains("denied") && line.contains("UnauthorizedOperation"), "{line}");
        assert_eq!(lab.r2.logged(&["EC2 denies the permission to claim"]), 1);
        let shown = lab.r2.shown(GROUP, VIP);
        assert_eq!(shown.verdict(), "STANDBY-NOT-READY");
        let reason = shown.address["reason"].as_str().unwrap_or_default().to_owned();
        assert!(
            reason.contains("`force aws-vipa prove` has shown") && reason.contains("UnauthorizedOperation"),
            "{reason}"
        );

        // If EC2 judged the parameters first, a role without the permission would get this answer.
        let first = lab.simulator.add_fault(Fault::on(On::claims()).error(400, "InvalidParameterValue"));
        let (succeeded, said) = prove(&lab.r2);
        assert!(succeeded && said.contains("ALLOWED"), "{said}");
        lab.simulator.remove_fault(first);
        assert_eq!(lab.r2.shown(GROUP, VIP).verdict(), "STANDBY-READY");

        // The proof survives a restart of the agent.
        lab.r2.systemctl(&["restart", "vyos-aws-vipa.service"]);
        let is_kept = |lab: &Lab| lab.r2.status()["ec2"]["proofs"][0]["allowed"] == true;
        lab.wait("the proof", Duration::from_secs(20), is_kept);
        // The file is read before IMDS, and the agent can ask about the ENI only then.
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);

        let asked = proofs(lab).len();
        lab.simulator.detach_network_interface(&eni).expect("detached");
        let (succeeded, said) = prove(&lab.r2);
        assert!(!succeeded && said.contains("NOT ASKED") && said.contains("attached to no instance"), "{said}");
        assert_eq!(proofs(lab).len(), asked, "EC2 is not asked about an ENI that is elsewhere");
        assert_eq!(lab.simulator.moves().len(), before, "nothing moves: {}", lab.simulator);
        assert_eq!(lab.simulator.owner(VIP).expect("an owner"), *lab.r1.enis[0]);
    });
}

#[test]
fn a_denial_counts_until_the_keys_are_others_or_a_claim_succeeds() {
    let world = lab::world().stale_reads(Duration::ZERO).access_key(KEYS[1], SECRET);
    lab::scenario_in(world, BINARY, |lab: &mut Lab| {
        lab.bring_up();
        replace_keys(&lab.r2, KEYS[0], SECRET);
        let file = format!("set high-availability vrrp global-parameters aws-vipa credentials-file {FILE}");
        lab.r2.set([file.as_str()]);
        lab.r2.commit();
        let denied = lab.simulator.add_fault(Fault::on(On::claims()).deny());
        let (_, said) = prove(&lab.r2);
        assert!(said.contains("DENIED"), "{said}");
        lab.simulator.remove_fault(denied);
        let not_ready = |lab: &Lab, when: &str| {
            lab.wait(when, NOTICED, |lab| {
                let shown = lab.r2.shown(GROUP, VIP);
                let reason = shown.address["reason"].as_str().unwrap_or_default().to_owned();
                shown.verdict() == "STANDBY-NOT-READY" && reason.contains("`force aws-vipa prove` has shown")
            });
        };
        let restart = |lab: &Lab| {
            let old = lab.r2.main_pid("vyos-aws-vipa").expect("an agent");
            lab.r2.systemctl(&["restart", "vyos-aws-vipa.service"]);
            assert_ne!(lab.r2.main_pid("vyos-aws-vipa"), Some(old));
        };
        not_ready(lab, "the denial counts");
        restart(lab);
        not_ready(lab, "it counts after a restart of the agent");

        replace_keys(&lab.r2, KEYS[1], SECRET);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", NOTICED);
        assert_eq!(lab.r2.status()["ec2"]["proofs"][0]["outdated_by"], "credentials");
        // Neither a restart nor another configuration makes it count while the credentials are loaded.
        let counted = |lab: &Lab| lab.r2.logged(&["standby not ready", "`force aws-vipa prove` has shown"]);
        let before = counted(lab);
        restart(lab);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
        let loads = |lab: &Lab| lab.r2.logged(&["credentials for EC2 read"]);
        let loads_before = loads(lab);
        lab.r2.set(["set high-availability vrrp global-parameters aws-vipa verify-interval 10"]);
        lab.r2.commit();
        lab.wait("the credentials of the new configuration", NOTICED, |lab| loads(lab) > loads_before);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
        assert_eq!(counted(lab), before, "{}", lab.r2.agent_log());
        replace_keys(&lab.r2, KEYS[0], SECRET);
        not_ready(lab, "the keys that were denied are back");

        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        let forgotten = |lab: &Lab| lab.r2.status()["ec2"]["proofs"].is_null();
        assert!(forgotten(lab), "EC2 has accepted a claim: {:#}", lab.r2.status());
        restart(lab);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", ELECTION + SLACK);
        assert!(forgotten(lab), "{:#}", lab.r2.status());
    });
}
