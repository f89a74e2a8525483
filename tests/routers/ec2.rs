//! EC2 answers late, not at all, with errors or invalid, or is unreachable.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lab::simulator::{Effect, Fault, On, Request, Throttling};
use lab::{EC2, GROUP, Lab, THIRD_PARTY, VIP};

use crate::{BINARY, ELECTION, SLACK, preempted};

#[test]
fn claims_that_time_out_get_more_time_and_a_read_beside_the_retry() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("request-timeout 1");
        lab.bring_up();
        let before = lab.reads(&lab.r2).len();
        lab.simulator.add_fault(Fault::on(On::claims().network_interface(&lab.r2.enis[0])).hang().times(5));
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + Duration::from_secs(9) + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        let mut claims = arrivals(&lab.claims(Some(&lab.r2)));
        assert_eq!(claims.len(), 6, "{}", lab.simulator);
        // Within the attempts of 2 and 4 s, the request is sent once more after a second.
        for again in [4, 2] {
            let gap = claims[again] - claims[again - 1];
            assert!(gap > Duration::from_millis(900) && gap < Duration::from_secs(1) + SLACK, "{gap:?}");
            claims.remove(again);
        }
        let reads = arrivals(&lab.reads(&lab.r2).split_off(before));
        for (bound, pair) in [1_000, 2_000, 4_000].into_iter().zip(claims.windows(2)) {
            let gap = pair[1] - pair[0];
            // The next attempt may start with a new connection, which the last one did not need.
            assert!(
                gap > Duration::from_millis(bound * 9 / 10) && gap < Duration::from_millis(bound) + SLACK,
                "{gap:?}"
            );
            let beside = |at: &Instant| *at > pair[0] && *at < pair[1] + Duration::from_secs(1);
            assert!(reads.iter().any(beside), "no read beside the retry: {}", lab.simulator);
        }
    });
}

#[test]
fn warm_connection_that_is_black_holed() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        // All of its connections: a second one may be open, because two reads were in flight at once.
        let peers = lab.simulator.requests().into_iter().map(|request| request.peer);
        let warm: BTreeSet<_> = peers.filter(|peer| peer.ip() == lab.r2.primaries[0]).collect();
        lab::black_hole(warm.clone());
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        let [claim] = &lab.claims(Some(&lab.r2))[..] else { panic!("{}", lab.simulator) };
        assert!(!warm.contains(&claim.peer), "{claim}");
        assert_eq!(lab.r2.logged(&["request to EC2 sent again on a new connection", "not acknowledged by TCP"]), 1);
        assert_eq!(lab.r2.logged(&["claim failed"]), 0, "together they are one attempt");
    });
}

#[test]
fn claim_that_is_performed_and_not_answered_is_found_out() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("request-timeout 1");
        lab.bring_up();
        // Every later claim fails: only the read detects the owner.
        let claims = || On::claims().network_interface(&lab.r2.enis[0]);
        lab.simulator.add_fault(Fault::on(claims()).hang().performed().times(1));
        lab.simulator.add_fault(Fault::on(claims()).error(503, "Unavailable"));
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        let claims = lab.claims(Some(&lab.r2));
        assert!(claims.len() <= 2, "the read goes out beside the retry: {claims:#?}");
        assert!(codes(&claims).iter().all(|code| *code != "Success"), "{claims:#?}");
        assert_eq!(lab.r2.logged(&["claim acknowledged"]), 0);
        assert_eq!(lab.r2.logged(&["ownership lost"]), 0);
    });
}

#[test]
fn claim_of_the_old_master_that_lands_late_is_undone() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        let late = Duration::from_secs(25);
        lab.simulator.add_fault(Fault::on(On::claims().network_interface(&lab.r1.enis[0])).delay_before(late).times(1));
        lab.bring_up();
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        lab.wait_for_owner(VIP, &lab.r1, late);
        lab.wait_for_owner(VIP, &lab.r2, Duration::from_secs(7) + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        assert_eq!((lab.claims(Some(&lab.r1)).len(), lab.claims(Some(&lab.r2)).len()), (2, 2), "{}", lab.simulator);
        assert_eq!(lab.r2.logged(&["ownership lost", &lab.r1.enis[0]]), 1);
        assert_eq!(lab.r2.logged(&["contested"]), 0);
    });
}

#[test]
fn throttled_claims_go_on() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.simulator.add_fault(Fault::on(On::claims().network_interface(&lab.r2.enis[0])).throttle().times(5));
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + Duration::from_secs(8) + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        let claims = lab.claims(Some(&lab.r2));
        assert_eq!(codes(&claims), [&["RequestLimitExceeded"; 5] as &[_], &["Success"]].concat());
        backs_off(&claims);
    });
}

#[test]
fn token_bucket_that_is_nearly_empty() {
    let throttling = Throttling { mutating_burst: 1.0, mutating_per_second: 0.5, ..Throttling::default() };
    let world = lab::world().stale_reads(Duration::ZERO).throttling(Some(throttling));
    lab::scenario_in(world, BINARY, |lab: &mut Lab| {
        for (router, priority) in [(&mut lab.r1, 200), (&mut lab.r2, 100)] {
            for n in 1..=10 {
                router.set_group(&format!("g{n}"), n, &format!("10.99.0.{}/24", 100 + n), priority);
            }
            router.commit();
        }
        for n in 1..=10 {
            lab.wait_for_owner([10, 99, 0, 100 + n].into(), &lab.r1, ELECTION + Duration::from_secs(10) + SLACK);
        }
        for n in 1..=10 {
            lab.wait_for_verdict(&lab.r1, &format!("g{n}"), [10, 99, 0, 100 + n].into(), "OK", SLACK);
        }
        let claims = lab.claims(Some(&lab.r1));
        // At most one for each group at first, and then one for all of them, less and less often.
        assert!(claims.len() <= 18, "{claims:#?}");
        assert!(codes(&claims).iter().all(|code| ["Success", "RequestLimitExceeded"].contains(code)), "{claims:#?}");
        assert!(lab.claims(Some(&lab.r2)).is_empty());
    });
}

#[test]
fn denied_claims_rest_a_minute_and_say_what_is_missing() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        let denial = lab.simulator.add_fault(Fault::on(On::claims().network_interface(&lab.r1.enis[0])).deny());
        lab.commit_pair();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "DRIFT", ELECTION + SLACK);
        let shown = lab.r1.shown(GROUP, VIP);
        let reason = shown.address["reason"].as_str().unwrap_or_default();
        let missing = "allow ec2:AssignPrivateIpAddresses to instance role router";
        assert!(reason.contains("UnauthorizedOperation") && reason.contains(missing), "{reason}");
        let command = format!(
            "aws ec2 assign-private-ip-addresses --region eu-west-1 --network-interface-id {} --allow-reassignment \
             --private-ip-addresses {VIP}",
            lab.r1.enis[0]
        );
        assert_eq!(shown.address["command"], command);
        assert!(lab.r1.call(&["vyos-aws-vipa", "show", "status"]).contains(&command));
        assert_eq!(lab.claims(None).len(), 1, "{}", lab.simulator);

        // Less than a minute later, but a MASTER event ends the wait.
        lab.r1.systemctl(&["restart", "keepalived.service"]);
        lab.wait("a claim at the new MASTER event", 2 * ELECTION + SLACK, |lab| lab.claims(Some(&lab.r1)).len() >= 2);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
        preempted(lab, 2, 1);
        let claims = lab.claims(Some(&lab.r1)).len();
        lab.watch("no claim", Duration::from_secs(50), |lab| lab.claims(Some(&lab.r1)).len() == claims);
        lab.wait("a claim after a minute", Duration::from_secs(10) + SLACK, |lab| {
            lab.claims(Some(&lab.r1)).len() == claims + 1
        });
        assert_eq!(lab.r1.logged(&["claim refused", "UnauthorizedOperation"]), 1, "said once");

        lab.simulator.remove_fault(denial);
        lab.r1.systemctl(&["restart", "keepalived.service"]);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", 2 * ELECTION + SLACK);
        preempted(lab, claims + 2, 2);
    });
}

#[test]
fn answers_that_are_errors_or_rubbish() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        let effects = || {
            let error = |status, code: &str| Effect::Error { status, code: code.to_owned() };
            [
                error(500, "InternalError"),
                Effect::Drop,
                Effect::NotXml,
                error(503, "Unavailable"),
                Effect::Truncated,
                Effect::Huge(8 << 20),
            ]
        };
        for effect in effects() {
            lab.simulator.add_fault(Fault::on(On::claims().network_interface(&lab.r1.enis[0])).effect(effect).times(1));
        }
        lab.commit_pair();
        lab.wait_for_owner(VIP, &lab.r1, ELECTION + Duration::from_secs(14) + SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        let claims = lab.claims(None);
        let expected = ["InternalError", "dropped", "NotXml", "Unavailable", "Truncated", "Huge", "Success"];
        assert_eq!(codes(&claims), expected);
        backs_off(&claims);

        // Failed reads are no evidence of an owner.
        let mut faults = effects().len();
        for effect in effects() {
            let reads = On::action("DescribeNetworkInterfaces").instance(&lab.r1.instance);
            lab.simulator.add_fault(Fault::on(reads).effect(effect).times(1));
        }
        while faults > 0 {
            lab.wait("another read", Duration::from_secs(5) + SLACK, |lab| lab.simulator.faults().len() < faults);
            faults = lab.simulator.faults().len();
            lab.wait("it is shown", SLACK, |lab| !lab.r1.status()["ec2"]["last_error"].is_null());
        }
        lab.wait("a read that succeeds", Duration::from_secs(5) + SLACK, |lab| {
            lab.r1.status()["ec2"]["last_error"].is_null()
        });
        assert_eq!(lab.r1.shown(GROUP, VIP).verdict(), "OK");
        assert_eq!((lab.claims(None).len(), lab.r1.logged(&["panicked"])), (7, 0));
    });
}

#[test]
fn connections_without_an_answer() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("request-timeout 1");
        lab.bring_up();
        // Warm connections are closed; new ones are accepted and never answered.
        lab.ec2.stop();
        lab.ec2.mute(true);
        lab.ec2.start().expect("listening");
        lab.r1.power_off();
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "CLAIMING", ELECTION + SLACK);
        lab.wait("a claim that timed out", SLACK, |lab| {
            lab.r2.shown(GROUP, VIP).address["last_claim"]["error"]["code"] == "Timeout"
        });
        assert_eq!(lab.simulator.owner(VIP).expect("an owner"), *lab.r1.enis[0]);
        lab.ec2.mute(false);
        // An attempt on such a connection lasts up to its bound.
        lab.wait_for_owner(VIP, &lab.r2, Duration::from_secs(9) + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 1, "{}", lab.simulator);
    });
}

#[test]
fn connections_refused_for_a_while() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.ec2.stop();
        lab.r1.power_off();
        lab.wait("a claim that found no connection", ELECTION + SLACK, |lab| {
            let shown = lab.r2.shown(GROUP, VIP);
            shown.verdict() == "CLAIMING" && shown.address["last_claim"]["error"]["code"] == "Connection"
        });
        // Until the back-off has reached its maximum.
        lab.watch("CLAIMING", Duration::from_secs(8), |lab| lab.r2.logged(&["claim failed, will retry"]) == 1);
        lab.ec2.start().expect("listening");
        lab.wait_for_owner(VIP, &lab.r2, Duration::from_secs(5) + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 1, "{}", lab.simulator);
    });
}

#[test]
fn name_of_the_end_point_gone() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        // The warm connection needs no name.
        lab.r2.set_dns(None);
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 1);
        // Without one, the last known address of the endpoint is used.
        lab.ec2.stop();
        lab.ec2.start().expect("listening");
        lab.r2.systemctl(&["restart", "keepalived.service"]);
        lab.wait("a claim at the last known address", 2 * ELECTION + SLACK, |lab| lab.claims(Some(&lab.r2)).len() == 2);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        // An agent that has just started knows none: each attempt resolves the name again.
        lab.r2.systemctl(&["restart", "vyos-aws-vipa.service"]);
        lab.r2.systemctl(&["restart", "keepalived.service"]);
        lab.wait("a claim that found no name", 2 * ELECTION + SLACK, |lab| {
            let shown = lab.r2.shown(GROUP, VIP);
            shown.verdict() == "CLAIMING" && shown.address["last_claim"]["error"]["code"] == "Connection"
        });
        // If the address is still ours, the read beside a retry may detect that first.
        lab.simulator.steal(VIP, THIRD_PARTY[0]).expect("taken");
        lab.r2.set_dns(Some(EC2));
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", Duration::from_secs(6) + SLACK);
        assert_eq!(lab.simulator.owner(VIP).expect("an owner"), *lab.r2.enis[0]);
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 3, "{}", lab.simulator);
    });
}

#[test]
fn clock_far_from_ec2s() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.simulator.set_clock_ahead(3_600);
        lab.bring_up();
        // What each router sends before its first answer is rejected; then it signs with EC2's time.
        for router in [&lab.r1, &lab.r2] {
            let refused = lab.simulator.requests().into_iter().filter(|r| !r.succeeded());
            let of_it = refused.filter(|r| r.instance.as_ref().is_some_and(|id| id.to_string() == router.instance));
            let mut actions: Vec<String> = of_it.map(|r| r.action).collect();
            actions.sort();
            let once = ["DescribeInstanceTypes", "DescribeNetworkInterfaces"];
            assert!(actions == once || actions == once[1..] || actions == once[..1], "{actions:?}: {}", lab.simulator);
        }
        let ahead = lab.r1.status()["ec2"]["clock_skew"].as_i64().unwrap_or_default();
        assert!((3_590..3_610).contains(&ahead), "{ahead}");
        let shown = lab.r1.call(&["vyos-aws-vipa", "show", "status"]);
        assert!(shown.contains(&format!("CLOCK IS {ahead} s behind EC2's")), "{shown}");
        lab.simulator.set_clock_ahead(-3_600);
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        let claims = lab.claims(Some(&lab.r2));
        assert!(claims.len() <= 2, "{claims:#?}");
        assert!(lab.r2.logged(&["clock differs from EC2's"]) == 2, "once for each change");
    });
}

#[test]
fn network_interface_deleted() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        lab.simulator.delete_network_interface(&lab.r1.enis[0]).expect("deleted");
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "DRIFT", SLACK);
        lab.wait("it is asked once more, and no longer", Duration::from_secs(7) + SLACK, |lab| {
            let reason = lab.r1.shown(GROUP, VIP).address["reason"].clone();
            reason.as_str().is_some_and(|reason| reason.contains("InvalidNetworkInterfaceID.NotFound"))
        });
        lab.wait("both attempts", SLACK, |lab| lab.claims(None).len() == 3);
        lab.watch("no more claims", Duration::from_secs(8), |lab| lab.claims(None).len() == 3);
        assert_eq!(codes(&lab.claims(None))[1..], ["InvalidNetworkInterfaceID.NotFound"; 2]);
        assert_eq!(lab.r1.shown(GROUP, VIP).verdict(), "DRIFT");
        assert_eq!(lab.r2.shown(GROUP, VIP).verdict(), "STANDBY-READY");
    });
}

#[test]
fn network_interface_that_does_not_exist() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        let node = format!("high-availability vrrp group {GROUP} aws-vipa network-interface-id");
        lab.r1.set([format!("set {node} eni-0a00000000000beef").as_str()]);
        lab.commit_pair();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "DRIFT", ELECTION + SLACK);
        let reason = lab.r1.shown(GROUP, VIP).address["reason"].clone();
        assert!(reason.as_str().is_some_and(|r| r.contains("aws-vipa network-interface-id")), "{reason}");
        let named = |lab: &Lab| lab.claims(None).iter().filter(|c| c.network_interfaces[0].ends_with("beef")).count();
        lab.watch("no more claims", Duration::from_secs(5), |lab| named(lab) == 2);
        lab.r1.set([format!("set {node} {}", lab.r1.enis[0]).as_str()]);
        lab.r1.commit();
        lab.wait_for_owner(VIP, &lab.r1, SLACK);
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        assert_eq!((lab.claims(None).len(), named(lab)), (3, 2), "{}", lab.simulator);
    });
}

fn arrivals(requests: &[Request]) -> Vec<Instant> {
    requests.iter().map(|request| request.arrived).collect()
}

/// The results of these claims.
fn codes(requests: &[Request]) -> Vec<&str> {
    requests.iter().map(|request| request.code().unwrap_or("dropped")).collect()
}

/// The first retry comes within 0.2 s, and none later than 5 s.
fn backs_off(claims: &[Request]) {
    let gaps: Vec<Duration> = arrivals(claims).windows(2).map(|pair| pair[1] - pair[0]).collect();
    let late = Duration::from_secs(2);
    assert!(gaps[0] < Duration::from_millis(200) + late, "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap < Duration::from_secs(5) + late), "{gaps:?}");
    let sum: Duration = gaps.iter().sum();
    assert!(sum > Duration::from_secs(2), "no back-off: {gaps:?}");
}

/// EC2's answers to reads are never kept as a whole, so that the agent stays far below the memory limit of its unit.
#[test]
fn endless_answers_to_reads_leave_the_agent_small_and_claiming() {
    const ALLOWED_KIB: u64 = 48 * 1024;
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        // For all pages, on a busy machine.
        lab.set_global("request-timeout 20");
        lab.bring_up();
        let reads = || On::action("DescribeNetworkInterfaces").instance(&lab.r2.instance);
        for (interfaces, error) in [(1_000, "it is longer than"), (30, "more than 20 pages")] {
            lab.simulator.clear_faults();
            let endless = Effect::EndlessPages { interfaces, addresses: 50 };
            lab.simulator.add_fault(Fault::on(reads()).effect(endless));
            lab.wait("the read is refused", Duration::from_secs(40), |lab| {
                lab.r2.status()["ec2"]["last_error"]["message"].as_str().is_some_and(|message| message.contains(error))
            });
        }
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        let agent = lab.r2.main_pid("vyos-aws-vipa").expect("an agent");
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.as_raw_nonzero())).expect("its status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")?.trim().parse().ok());
        assert!(peak.is_some_and(|peak: u64| peak < ALLOWED_KIB), "{peak:?} KiB");
        println!("at most {peak:?} KiB resident");
    });
}

/// EC2's answer to a claim may omit the addresses that it has assigned.
#[test]
fn claims_that_are_answered_without_a_list() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.simulator.add_fault(Fault::on(On::claims()).effect(Effect::Bare).performed());
        lab.bring_up();
        assert_eq!(lab.claims(Some(&lab.r1)).len(), 1, "{}", lab.simulator);
        assert_eq!(lab.r1.logged(&["claim acknowledged", "unlisted"]), 1);
        lab.r1.power_off();
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "OK", SLACK);
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 1, "{}", lab.simulator);
    });
}
