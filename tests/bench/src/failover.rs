//! The whole failover with the real keepalived: the master loses power, and the address is the other router's in EC2.
//!
//! keepalived writes each line to two FIFOs, one after the other: VyOS's own, which is read here to tell what part of the
//! time was VRRP's, and the agent's.

use std::fs::{File, OpenOptions};
use std::hint;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::{GROUP, Lab, Router, VIP};
use nix::libc::O_NONBLOCK;
use serde::{Deserialize, Serialize};

use crate::peers::claim_of;
use crate::spread::{Spread, millis};

/// VRRP's election, and what a busy machine may need beyond it.
const PATIENCE: Duration = Duration::from_secs(30);

/// So long no standby becomes master after the power cut: it waits for three intervals and a bit from the last advertisement,
/// which may be one of them old.
const SILENCE: Duration = Duration::from_secs(2);

/// Between two advertisements of the master.
const ADVERTISE: Duration = Duration::from_secs(1);

/// One failover, in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Round {
    /// From the power cut to the address on the other router in EC2.
    pub whole: f64,
    /// From the power cut to keepalived's MASTER line.
    pub vrrp: f64,
    /// From the line to the arrival of the claim at EC2: the agent's part.
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
    /// From the power cut to keepalived's MASTER line.
    pub vrrp: Spread,
    /// From the line to the arrival of the claim at EC2.
    pub agent: Spread,
    /// Each of them.
    pub rounds: Vec<Round>,
    /// Rounds that do not count: this process read the line only after the claim had arrived, so that nothing is known of
    /// the parts.
    pub late: usize,
}

/// Measures so many failovers in a lab.
///
/// # Panics
/// If anything fails, or if most lines were read late.
pub fn measure(lab: &mut Lab, rounds: usize) -> Failover {
    lab.bring_up();
    let (mut measured, mut late) = (Vec::new(), 0);
    while measured.len() < rounds {
        if measured.len() + late > 0 {
            // The first router takes its address back, and another failover can follow.
            lab.r1.boot(|_| ());
            lab.wait_for_owner(VIP, &lab.r1, PATIENCE);
            lab.wait_for_verdict(&lab.r1, GROUP, VIP, "OK", PATIENCE);
            lab.wait_for_verdict(&lab.r2, GROUP, VIP, "STANDBY-READY", PATIENCE);
        }
        let mut lines = Lines::of(&lab.r2);
        // What came before took about the same time in each round, from an advertisement on: the cuts are spread evenly
        // over the time between two.
        sleep(ADVERTISE * measured.len() as u32 / rounds as u32);
        let from = lab.simulator.next_number();
        let off = Instant::now();
        lab.r1.power_off();
        let line = lines.master(off);
        let moved = lab.simulator.wait_for_owner(VIP, &lab.r2.enis[0], PATIENCE);
        let moved = moved.unwrap_or_else(|error| panic!("{error}")).expect("a move").at;
        let claim = claim_of(&lab.simulator, VIP, from).unwrap_or_else(|error| panic!("{error}"));
        if line >= claim.arrived {
            late += 1;
            assert!(late <= rounds, "{late} lines were read after their claims: this machine is too busy to measure");
            continue;
        }
        let open = |request: &lab::simulator::Request| request.connection == claim.connection && request.arrived < line;
        measured.push(Round {
            whole: millis(moved - off),
            vrrp: millis(line - off),
            agent: millis(claim.arrived - line),
            ec2: millis(moved - claim.arrived),
            warm: lab.simulator.requests().iter().any(open),
        });
    }
    let spread = |of: fn(&Round) -> f64| Spread::of_millis(measured.iter().map(of));
    Failover {
        whole: spread(|round| round.whole),
        vrrp: spread(|round| round.vrrp),
        agent: spread(|round| round.agent),
        rounds: measured,
        late,
    }
}

/// The lines of VyOS's FIFO.
struct Lines {
    fifo: File,
    read: String,
}

impl Lines {
    fn of(router: &Router) -> Self {
        let path = router.path("/run/keepalived/keepalived_notify_fifo");
        let fifo = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(&path);
        Self { fifo: fifo.unwrap_or_else(|error| panic!("{}: {error}", path.display())), read: String::new() }
    }

    /// When the group became MASTER, after that moment. It looks without a pause from the moment on at which it may come: a
    /// reader that sleeps is woken no sooner than the agent is.
    fn master(&mut self, after: Instant) -> Instant {
        let begins = format!("INSTANCE \"{GROUP}\" MASTER ");
        self.look();
        self.read.clear();
        sleep((after + SILENCE).saturating_duration_since(Instant::now()));
        while !self.read.lines().any(|line| line.starts_with(&begins)) {
            assert!(after.elapsed() < PATIENCE, "no MASTER line within {PATIENCE:?}, but {:?}", self.read);
            self.look();
            hint::spin_loop();
        }
        Instant::now()
    }

    fn look(&mut self) {
        let mut buffer = [0; 4096];
        match self.fifo.read(&mut buffer) {
            Ok(count) => self.read.push_str(&String::from_utf8_lossy(&buffer[..count])),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "VyOS's FIFO: {error}"),
        }
    }
}
