//! The whole failover with the real keepalived: the master loses power, and the address is the other router's in EC2.
//!
//! The agent's status tells when it had read the line. Its log would not do: it holds back the lines of transitions that
//! repeat. A reader of VyOS's own FIFO, which keepalived writes each line to first, would not do either: on two processors it
//! was woken up to 5 ms after the agent, whether it slept or looked without a pause.

use std::thread::sleep;
use std::time::Duration;

use jiff::Timestamp;
use lab::{GROUP, Lab, Router, VIP};
use serde::{Deserialize, Serialize};

use crate::peers::claim_of;
use crate::spread::Spread;

/// VRRP's election, and what a busy machine may need beyond it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two advertisements of the master.
const ADVERTISE: Duration = Duration::from_secs(1);

/// One failover, in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Round {
    /// From the power cut to the address on the other router in EC2.
    pub whole: f64,
    /// From the power cut until the agent had read keepalived's MASTER line.
    pub vrrp: f64,
    /// From there to the arrival of the claim at EC2: the agent's part.
    pub agent: f64,
    /// From the claim's arrival to the address on the other router: the simulator's part.
    pub ec2: f64,
    /// The claim came on a connection that was open before the line.
    pub warm: bool,
}

/// What was measured, with an advertisement interval of 1 s and priority 100 on the standby.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failover {
    /// From the power cut to the address on the other router in EC2.
    pub whole: Spread,
    /// From the power cut until the agent had read keepalived's MASTER line.
    pub vrrp: Spread,
    /// From there to the arrival of the claim at EC2.
    pub agent: Spread,
    /// Each of them.
    pub rounds: Vec<Round>,
}

/// Measures so many failovers in a lab.
///
/// # Panics
/// If anything fails.
pub fn measure(lab: &mut Lab, rounds: usize) -> Failover {
    lab.bring_up();
    let mut measured = Vec::new();
    for round in 0..rounds {
        if round > 0 {
            // The first router takes its address back, and another failover can follow.
            lab.r1.boot(|_| ());
            lab.wait_for_owner(VIP, &lab.r1, PATIENCE);
            lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", PATIENCE);
            lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", PATIENCE);
        }
        // What came before took about the same time in each round, from an advertisement on: the cuts are spread evenly
        // over the time between two.
        sleep(ADVERTISE * round as u32 / rounds as u32);
        let from = lab.simulator.next_number();
        let off = Timestamp::now();
        lab.r1.power_off();
        let moved = lab.simulator.wait_for_owner(VIP, &lab.r2.enis[0], PATIENCE);
        let moved = moved.unwrap_or_else(|error| panic!("{error}")).expect("a move");
        let claim = claim_of(&lab.simulator, VIP, from).unwrap_or_else(|error| panic!("{error}"));
        let line = became_master(&lab.r2, off);
        let open =
            |request: &lab::simulator::Request| request.connection == claim.connection && request.arrived_wall < line;
        measured.push(Round {
            whole: millis_between(off, moved.wall),
            vrrp: millis_between(off, line),
            agent: millis_between(line, claim.arrived_wall),
            ec2: millis_between(claim.arrived_wall, moved.wall),
            warm: lab.simulator.requests().iter().any(open),
        });
    }
    let spread = |of: fn(&Round) -> f64| Spread::of_millis(measured.iter().map(of));
    Failover {
        whole: spread(|round| round.whole),
        vrrp: spread(|round| round.vrrp),
        agent: spread(|round| round.agent),
        rounds: measured,
    }
}

/// Since when the router's agent takes its group for MASTER, which it did not do at `off`.
fn became_master(router: &Router, off: Timestamp) -> Timestamp {
    let group = router.shown(GROUP, VIP).group;
    let since = group["vrrp_since"].as_str().and_then(|time| time.parse().ok());
    let since = since.filter(|since| group["vrrp"] == "MASTER" && *since > off);
    since.unwrap_or_else(|| panic!("not MASTER since {off}: {group:#}\n{}", router.agent_log()))
}

fn millis_between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1e3
}
