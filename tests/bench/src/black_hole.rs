//! A claim whose warm connection is dead: packets on it are lost, as after a NAT gateway has dropped its state or an
//! endpoint's zone has failed, and neither end has noticed.

use std::collections::BTreeSet;
use std::time::Duration;

use lab::{GROUP, Lab, THIRD_PARTY, VIP};

use crate::notified::Notifier;
use crate::peers::claim_of;
use crate::spread::Spread;

/// From keepalived's line to the arrival of the claim over another connection, so many times.
///
/// # Panics
/// If anything fails.
pub fn measure(lab: &mut Lab, rounds: usize) -> Spread {
    lab.r1.set_group(GROUP, 10, &format!("{VIP}/24"), 200);
    let mut notifier = Notifier::commit(&lab.r1);
    notifier.restart(&lab.r1);
    let times: Vec<Duration> = (0..rounds)
        .map(|_| {
            notifier.stand_by(&lab.r1, &[GROUP.to_owned()]);
            lab.simulator.steal(VIP, THIRD_PARTY[0]).expect("a third party's");
            let warm: BTreeSet<_> = lab.simulator.requests().iter().map(|request| request.peer).collect();
            lab::black_hole(warm.iter().copied());
            let from = lab.simulator.next_number();
            let began = notifier.notify(GROUP, "MASTER");
            let claim = claim_of(&lab.simulator, VIP, from);
            let claim = claim.unwrap_or_else(|error| panic!("{error}\n{}", lab.r1.agent_log()));
            assert!(!warm.contains(&claim.peer), "{claim}");
            claim.arrived - began
        })
        .collect();
    Spread::of(&times)
}
