//! Both routers are MASTER for some time: the address ends up on the one that remains MASTER.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::{Cut, GROUP, Lab, Signal, VIP};

use crate::agent::O_NONBLOCK;
use crate::{BINARY, ELECTION, SLACK, without_copies};

const QUICK: &str = "set high-availability vrrp global-parameters aws-vipa verify-interval 5";

/// How long the master may be without its address after a split-brain, with that interval (B7).
const HEALED: Duration = Duration::from_secs(5 + 5);

fn ends_well(lab: &Lab, within: Duration) {
    lab.wait_for_owner(VIP, &lab.r1, within);
    lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
    lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
    assert_eq!(lab.r1.shown(GROUP, VIP).vrrp(), "MASTER");
    assert_eq!(lab.r2.shown(GROUP, VIP).vrrp(), "BACKUP");
}

/// The link is cut for five seconds. Which advertisement comes first afterwards is random.
#[test]
fn link_cut_both_ways_for_five_seconds() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        let began = Instant::now();
        lab.cut(Cut::Both);
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.wait("five seconds", Duration::from_secs(6), |_| began.elapsed() >= Duration::from_secs(5));
        lab.heal();
        // At the latest by a regular read, and a second one with the same result.
        ends_well(lab, Duration::from_secs(33) + SLACK);
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 1);
    });
}

/// The true master hears the other one first: MASTER_RX_LOWER_PRI makes it claim at once.
#[test]
fn healed_so_that_the_master_hears_the_other_one() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        // There is no regular read in this time, and the reads that confirm the first claim are over.
        lab.set_global("verify-interval 300");
        lab.bring_up();
        lab.watch("one claim", Duration::from_secs(11), |lab| lab.claims(None).len() == 1);
        let reads = lab.reads(&lab.r1).len();
        let acknowledged = lab.r1.logged(&["claim acknowledged"]);
        lab.cut(Cut::Both);
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.cut(Cut::From(1));
        // The next advertisement of r2 is at most a second away.
        lab.wait_for_owner(VIP, &lab.r1, Duration::from_secs(2) + SLACK);
        let claimed = lab.claims(Some(&lab.r1))[1].arrived;
        let before = lab.reads(&lab.r1).iter().filter(|read| read.arrived < claimed).count();
        assert_eq!(before, reads, "found by the notify event alone: {}", lab.simulator);
        lab.heal();
        ends_well(lab, SLACK);
        assert!(lab.r1.logged(&["claim acknowledged"]) > acknowledged);
        assert_eq!(lab.r1.logged(&["ownership lost"]), 0, "the owner was not read");
        let claims = lab.claims(None);
        assert!(claims.len() <= 4, "{claims:#?}");
    });
}

/// The other one hears the true master first and becomes BACKUP. The master gets no event, and its regular read detects
/// it.
#[test]
fn healed_so_that_the_master_hears_nothing() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.set([QUICK]);
        lab.r1.commit();
        lab.cut(Cut::Both);
        lab.wait_for_owner(VIP, &lab.r2, ELECTION + SLACK);
        lab.cut(Cut::From(2));
        lab.wait("BACKUP on r2", ELECTION + SLACK, |lab| lab.r2.shown(GROUP, VIP).vrrp() == "BACKUP");
        lab.heal();
        ends_well(lab, Duration::from_secs(5 + 2) + SLACK);
        assert_eq!(lab.claims(Some(&lab.r2)).len(), 1);
        assert_eq!(lab.claims(Some(&lab.r1)).len(), 2);
    });
}

/// The standby does not hear the master for a minute, but the master hears the standby: keepalived writes
/// MASTER_RX_LOWER_PRI once a second. The requests must stay within the API's limits.
#[test]
fn one_direction_cut_for_a_minute() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.bring_up();
        lab.r1.set([QUICK]);
        lab.r1.commit();
        // VyOS's own FIFO gets the same lines as ours, and has no other reader here.
        let fifo = lab.r1.path("/run/keepalived/keepalived_notify_fifo");
        let mut fifo = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(fifo).expect("keepalived made it");
        waiting(&mut fifo);
        let before = [lab.claims(Some(&lab.r1)).len(), lab.claims(Some(&lab.r2)).len()];
        let claims = |lab: &Lab| [&lab.r1, &lab.r2].map(|router| lab.claims(Some(router)).len());
        lab.cut(Cut::From(1));
        lab.wait("r2 claims", ELECTION + SLACK, |lab| claims(lab)[1] > before[1]);
        // One at once, and then at most one in ten seconds.
        lab.watch("few claims", Duration::from_secs(60), |lab| {
            claims(lab).iter().zip(before).all(|(claims, before)| *claims <= before + 8)
        });
        assert!(claims(lab)[0] > before[0], "{}", lab.simulator);
        let lines = waiting(&mut fifo);
        assert!(lines.matches("MASTER_RX_LOWER_PRI").count() >= 30, "within a minute: {lines}");
        assert_eq!(lab.r1.logged(&["MASTER_RX_LOWER_PRI"]), 0, "no transition: it has been MASTER all the time");
        lab.heal();
        lab.wait("BACKUP on r2", ELECTION + SLACK, |lab| lab.r2.shown(GROUP, VIP).vrrp() == "BACKUP");
        // CONTESTED ends with its cause.
        lab.wait_for_owner(VIP, &lab.r1, HEALED + SLACK);
    });
}

/// Both are MASTER long enough for the address to be contested. The routers take it from each other at a bounded rate,
/// and the true master has it soon after the link is back, whichever router hears the other first.
#[test]
fn link_cut_until_the_address_is_contested() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.set_global("verify-interval 5");
        lab.bring_up();
        lab.cut(Cut::Both);
        let began = Instant::now();
        let contested = |lab: &Lab| [&lab.r1, &lab.r2].map(|router| router.logged(&["contested: both routers"]));
        lab.wait("contested", Duration::from_secs(150), |lab| contested(lab).iter().any(|times| *times > 0));
        // The master gets no event: the other one hears it first, and becomes BACKUP.
        let healed = Instant::now();
        lab.cut(Cut::From(2));
        lab.wait("BACKUP on r2", ELECTION + SLACK, |lab| lab.r2.shown(GROUP, VIP).vrrp() == "BACKUP");
        lab.heal();
        lab.wait_for_owner(VIP, &lab.r1, HEALED + SLACK);
        lab.watch("it stays there", Duration::from_secs(12), |lab| {
            lab.simulator.owner(VIP).is_some_and(|owner| owner == *lab.r1.enis[0])
        });
        for router in [&lab.r1, &lab.r2] {
            // An advertisement that passes while the link changes causes a notify event, and a claim at once.
            let claims = without_copies(lab.claims(Some(router)));
            let claims = claims.into_iter().map(|claim| claim.arrived).filter(|at| *at < healed);
            let claims: Vec<Instant> = claims.collect();
            // The first one was caused by a notify event.
            let apart = claims[1..].windows(2).map(|pair| pair[1] - pair[0]).min();
            assert!(apart.is_none_or(|apart| apart > Duration::from_millis(9_500)), "{:#?}", lab.claims(Some(router)));
            let cut = healed - began;
            assert!(claims.len() >= 4, "{} in {cut:?}: {:#?}", claims.len(), lab.claims(Some(router)));
        }
        assert_eq!(lab.r2.logged(&["address no longer contested", "peer"]), contested(lab)[1], "BACKUP ends it");
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", Duration::from_secs(60) + SLACK);
        lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", SLACK);
    });
}

/// The content of a FIFO that was opened with O_NONBLOCK.
fn waiting(fifo: &mut File) -> String {
    let mut bytes = Vec::new();
    let end = fifo.read_to_end(&mut bytes).expect_err("keepalived holds it open");
    assert_eq!(end.kind(), ErrorKind::WouldBlock);
    String::from_utf8(bytes).expect("UTF-8")
}

/// How often a notify event made the group MASTER, according to the agent's log.
fn masterships(log: &str) -> u32 {
    let lines = log.lines().filter(|line| line.contains("cause=\"keepalived: MASTER\""));
    lines.map(|line| line.split_once(" times=").map_or(1, |(_, times)| times.trim().parse().expect("a count"))).sum()
}

/// A third router with the highest priority advertises and resigns, ten times. r1 has the next lower priority, and
/// waits only for its skew of four milliseconds before it is MASTER again (RFC 9568 and 5798, 6.1).
#[test]
fn flapping() {
    lab::scenario(BINARY, |lab: &mut Lab| {
        lab.r1.set_group(GROUP, 10, "10.99.0.100/24", 254);
        lab.r1.commit();
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", ELECTION + SLACK);
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/routers/advertise.py");
        let mut speaker = lab.r2.command("python3");
        speaker.args([program, "10.99.0.12", "10.99.0.11", "10", "10.99.0.100"]).stdin(Stdio::piped());
        let mut speaker = speaker.spawn().expect("python3");
        let mut priorities = speaker.stdin.take().expect("a pipe");
        let mut advertise = |priority: u8| writeln!(priorities, "{priority}").expect("python3 listens");
        for _ in 0..10 {
            advertise(255);
            lab.wait("BACKUP", SLACK, |lab| !lab.r1.has_local(VIP));
            advertise(0);
            lab.wait("MASTER", SLACK, |lab| lab.r1.has_local(VIP));
        }
        drop(priorities);
        assert!(speaker.wait().expect("python3 ends").success());
        lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", SLACK);
        // The log counts repetitions, and has those of the last minutes once the agent ends.
        lab.r1.kill(Signal::TERM, "vyos-aws-vipa");
        assert_eq!(masterships(&lab.r1.agent_log()), 11);
        let claims = lab.claims(None);
        // The first ones at once. Lines that follow faster than that share requests, and the last one gets its own.
        assert!((5..=11).contains(&claims.len()), "{claims:#?}");
        // Closer together than the ones that come once in 10 s.
        let apart = claims.windows(2).skip(1).map(|pair| pair[1].arrived - pair[0].arrived).max();
        assert!(apart < Some(Duration::from_secs(10)), "{apart:?}");
        assert_eq!(lab.simulator.owner(VIP).expect("an owner"), *lab.r1.enis[0]);
    });
}
