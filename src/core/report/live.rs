//! The groups of the status report, from what the claim machine knows.

use jiff::Timestamp;

use super::model::{
    AddressReport, ClaimReport, ElasticIpReport, FailedCall, GroupReport, LocalAddressReport, OwnerReport,
    ResourceReport, RouteReport,
};
use super::reasons;
use crate::claim::{BootInstant, GroupFacts, LastClaim, LocalAddressFacts, ResourceFacts};
use crate::model::resource::Resource;

/// The groups of the report. `clock` gives the time of day of an instant. What the agent has in state files is absent.
pub fn groups(facts: Vec<GroupFacts>, clock: impl Fn(BootInstant) -> Timestamp) -> Vec<GroupReport> {
    facts.into_iter().map(|facts| group(facts, &clock)).collect()
}

fn group(facts: GroupFacts, clock: &impl Fn(BootInstant) -> Timestamp) -> GroupReport {
    let mut group = GroupReport {
        name: facts.name.to_string(),
        vrrp: facts.vrrp,
        vrrp_since: Some(clock(facts.since)),
        vrrp_reason: facts.unknown_because.map(|cause| reasons::cause(cause).to_owned()),
        disabled: facts.disabled,
        paused_until: facts.paused_until.map(clock),
        pause_not_saved: None,
        errors: facts.problems.iter().map(reasons::problem).collect(),
        addresses: Vec::new(),
        not_assigned: facts.not_assigned.into_iter().map(|facts| not_assigned(facts, clock)).collect(),
        routes: Vec::new(),
        elastic_ips: Vec::new(),
    };
    for facts in facts.resources {
        let (is_local, local_since, private_address) = (facts.is_local, facts.local_since, facts.private_address);
        let id = facts.resource.clone();
        let read = facts.owner.as_ref().map(|(read, _)| (read.elastic_ip.clone(), read.public_address));
        let (elastic_ip, public_address) = read.unwrap_or_default();
        let state = resource(facts, clock);
        match id {
            Resource::Address(address) => group.addresses.push(AddressReport {
                address,
                interface: state.interface,
                eni: state.eni,
                local: Some(is_local),
                local_since: local_since.map(clock),
                owner: state.owner,
                elastic_ip,
                verdict: state.verdict,
                reason: state.reason,
                reason_code: state.reason_code,
                last_claim: state.last_claim,
                last_failure: state.last_failure,
                assign_permission_proven_at: None,
                command: None,
            }),
            Resource::Route(route) => group.routes.push(RouteReport { route, state }),
            Resource::ElasticIp(allocation) => {
                group.elastic_ips.push(ElasticIpReport { allocation, public_address, private_address, state });
            }
        }
    }
    group
}

fn not_assigned(facts: LocalAddressFacts, clock: &impl Fn(BootInstant) -> Timestamp) -> LocalAddressReport {
    let LocalAddressFacts { address, interface, is_local, since } = facts;
    LocalAddressReport { address, interface, local: Some(is_local), local_since: since.map(clock) }
}

fn resource(facts: ResourceFacts, clock: &impl Fn(BootInstant) -> Timestamp) -> ResourceReport {
    ResourceReport {
        interface: facts.interface,
        eni: facts.eni,
        owner: facts.owner.map(|(read, who)| {
            let instead_of_eni = reasons::instead_of_eni(&read);
            let (eni, instance) = read.owner.map(|owner| (owner.eni, owner.instance)).unzip();
            OwnerReport { at: clock(read.at), who, eni, instance: instance.flatten(), instead_of_eni }
        }),
        permission_proven_at: facts.permission_proven.map(clock),
        verdict: facts.verdict,
        reason_code: facts.reason.as_ref().map(|reason| reasons::code(reason).to_owned()),
        reason: facts.reason.map(|reason| reasons::reason(facts.resource.kind(), &reason, clock)),
        last_claim: facts.last_claim.map(|last| claim(last, clock)),
        last_failure: facts.last_failure.map(|(at, error)| FailedCall::new(clock(at), &error)),
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
