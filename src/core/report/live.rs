//! The groups of the status report, from what the claim machine knows.

use jiff::Timestamp;

use super::model::{AddressReport, ClaimReport, FailedCall, GroupReport, OwnerReport};
use super::reasons;
use crate::claim::{AddressFacts, BootInstant, GroupFacts, LastClaim};

/// The groups of the report. `clock` gives the time of day of an instant. What the agent has in state files is absent.
pub fn groups(facts: Vec<GroupFacts>, clock: impl Fn(BootInstant) -> Timestamp) -> Vec<GroupReport> {
    facts.into_iter().map(|facts| group(facts, &clock)).collect()
}

fn group(facts: GroupFacts, clock: &impl Fn(BootInstant) -> Timestamp) -> GroupReport {
    GroupReport {
        name: facts.name.to_string(),
        vrrp: facts.vrrp,
        vrrp_since: Some(clock(facts.since)),
        vrrp_reason: facts.unknown_because.map(|cause| reasons::cause(cause).to_owned()),
        disabled: facts.disabled,
        paused_until: facts.paused_until.map(clock),
        pause_not_saved: None,
        errors: facts.problems.iter().map(reasons::problem).collect(),
        addresses: facts.addresses.into_iter().map(|facts| address(facts, clock)).collect(),
    }
}

fn address(facts: AddressFacts, clock: &impl Fn(BootInstant) -> Timestamp) -> AddressReport {
    AddressReport {
        address: facts.address,
        interface: facts.interface,
        eni: facts.eni,
        local: Some(facts.is_local),
        local_since: facts.local_since.map(clock),
        owner: facts.owner.map(|(read, who)| {
            let (eni, instance) = read.owner.map(|owner| (owner.eni, owner.instance)).unzip();
            OwnerReport { at: clock(read.at), who, eni, instance: instance.flatten() }
        }),
        verdict: facts.verdict,
        reason: facts.reason.map(|reason| reasons::reason(&reason, clock)),
        last_claim: facts.last_claim.map(|last| claim(last, clock)),
        last_failure: facts.last_failure.map(|(at, error)| FailedCall::new(clock(at), &error)),
        assign_permission_proven_at: None,
        command: None,
    }
}

fn claim(LastClaim { eni, began, answer }: LastClaim, clock: &impl Fn(BootInstant) -> Timestamp) -> ClaimReport {
    let at = clock(began);
    let pending = ClaimReport { eni: Some(eni), at, duration_ms: None, request_id: None, error: None };
    let Some((ended, result)) = answer else {
        return pending;
    };
    let duration_ms = Some(began.until(ended).as_millis() as u64);
    match result {
        Ok(request_id) => ClaimReport { duration_ms, request_id, ..pending },
        Err(error) => {
            let failed = FailedCall::new(clock(ended), &error);
            ClaimReport { duration_ms, request_id: error.request_id, error: Some(failed), ..pending }
        }
    }
}
