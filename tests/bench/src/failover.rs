//! The whole failover with the real keepalived: the master loses power, and the address is the other router's in EC2.
//!
//! keepalived writes each line to two FIFOs, one after the other: VyOS's own, which is read here to tell what part of the
//! time was VRRP's, and the agent's.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lab::{GROUP, Lab, Router, VIP};
use serde::{Deserialize, Serialize};

use crate::spread::Spread;

/// VRRP's election, and what a busy machine may need beyond it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was measured, with an advertisement interval of 1 s and priority 100 on the standby.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failover {
    /// From the power cut to the address on the other router in EC2.
    pub whole: Spread,
    /// From the power cut to keepalived's MASTER line.
    pub vrrp: Spread,
    /// From the line to the address.
    pub agent: Spread,
}

/// Measures so many failovers in a lab.
///
/// # Panics
/// If anything fails.
pub fn measure(lab: &mut Lab, rounds: usize) -> Failover {
    lab.bring_up();
    let (mut whole, mut vrrp, mut agent) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        if round > 0 {
            // The first router takes its address back, and another failover can follow.
            lab.r1.boot(|_| ());
            lab.wait_for_owner(VIP, &lab.r1, PATIENCE);
            lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", PATIENCE);
            lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", PATIENCE);
        }
        let lines = read_lines(&lab.r2);
        let off = Instant::now();
        lab.r1.power_off();
        let line = master(&lines, off);
        let moved = lab.simulator.wait_for_owner(VIP, &lab.r2.enis[0], PATIENCE);
        let at = moved.unwrap_or_else(|error| panic!("{error}")).expect("a move").at;
        // A busy machine may wake this reader later than the agent: the line was there when the address moved.
        let line = line.min(at);
        whole.push(at - off);
        vrrp.push(line - off);
        agent.push(at - line);
    }
    Failover { whole: Spread::of(&whole), vrrp: Spread::of(&vrrp), agent: Spread::of(&agent) }
}

/// The lines of VyOS's FIFO with the times of their arrival, for as long as keepalived has it open.
fn read_lines(router: &Router) -> mpsc::Receiver<(Instant, String)> {
    let fifo = router.path("/run/keepalived/keepalived_notify_fifo");
    let file = File::open(&fifo).unwrap_or_else(|error| panic!("{}: {error}", fifo.display()));
    let (lines, received) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            if lines.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    });
    received
}

/// When the group became MASTER, after that moment.
fn master(lines: &mpsc::Receiver<(Instant, String)>, after: Instant) -> Instant {
    let begins = format!("INSTANCE \"{GROUP}\" MASTER ");
    loop {
        let (at, line) = lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no MASTER line: {error}"));
        if at > after && line.starts_with(&begins) {
            return at;
        }
    }
}
