//! What the state machine knows, for the status report: values, without any text. Times are the machine's own.

#![allow(missing_docs, reason = "the names and types of most fields say it all")]

use std::net::Ipv4Addr;

use super::event::Misplaced;
use super::group::{Group, GroupState};
use super::readiness::failed_claim;
use super::reason::{EniUnknown, LastOwner, NotRead, Reason};
use super::resource::{GRACE_PERIOD, LastClaim, OwnerRead, Phase, ResourceState};
use super::{BootInstant, Cause, Machine};
use crate::model::assignment::Problem;
use crate::model::ec2::{CallError, Owner, Taker};
use crate::model::ids::{EniId, GroupName, InterfaceName};
use crate::model::resource::Resource;
use crate::model::verdict::{Verdict, Who};
use crate::model::vrrp::VrrpState;

/// What is known about a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupFacts {
    pub name: GroupName,
    /// UNKNOWN also if keepalived does not run the group.
    pub vrrp: VrrpState,
    /// When the group came into this VRRP state.
    pub since: BootInstant,
    /// Why the state is UNKNOWN.
    pub unknown_because: Option<Cause>,
    /// Whether the configuration disables the group.
    pub disabled: bool,
    /// Until when the group is paused.
    pub paused_until: Option<BootInstant>,
    /// Why the group, or some of what it moves, is not moved.
    pub problems: Vec<Problem>,
    /// What it moves: addresses first, then routes and Elastic IPs.
    pub resources: Vec<ResourceFacts>,
    /// The virtual addresses that are never assigned to an ENI, and show only whether the group is MASTER.
    pub not_assigned: Vec<LocalAddressFacts>,
}

/// What is known about a virtual address that is not assigned to an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAddressFacts {
    pub address: Ipv4Addr,
    /// The interface that keepalived adds it to.
    pub interface: InterfaceName,
    /// Whether it is there.
    pub is_local: bool,
    /// When it was last added or removed, as far as the agent has seen it.
    pub since: Option<BootInstant>,
}

/// What is known about a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceFacts {
    pub resource: Resource,
    /// The interface whose ENI the resource belongs on.
    pub interface: InterfaceName,
    /// That ENI, once it is known.
    pub eni: Option<EniId>,
    /// The private address of that ENI that an Elastic IP belongs on, once it is known.
    pub private_address: Option<Ipv4Addr>,
    /// Whether the group's address that counts for the resource is on a local interface.
    pub is_local: bool,
    /// When that began, for an address; absent for routes and Elastic IPs.
    pub local_since: Option<BootInstant>,
    /// The last read of the owner, and who that is.
    pub owner: Option<(OwnerRead, Who)>,
    /// When a dry run or a claim last proved the permission to claim a route or an Elastic IP, unless one was refused since.
    pub permission_proven: Option<BootInstant>,
    pub verdict: Verdict,
    /// Why the verdict is not OK; a warning if it is STANDBY-READY.
    pub reason: Option<Reason>,
    pub last_claim: Option<LastClaim>,
    /// When the last claim failed, and why, unless a later one has succeeded.
    pub last_failure: Option<(BootInstant, CallError)>,
}

impl Machine {
    /// What is known about each group.
    pub fn facts(&self, now: BootInstant) -> Vec<GroupFacts> {
        self.groups
            .iter()
            .map(|(name, group)| GroupFacts {
                name: name.clone(),
                vrrp: if group.vrid.is_some() { group.state.vrrp() } else { VrrpState::Unknown },
                since: group.since,
                unknown_because: match &group.state {
                    GroupState::Unknown { why, .. } => Some(*why),
                    GroupState::Known { .. } => None,
                },
                disabled: group.disabled,
                paused_until: group.paused_until,
                problems: group.problems.clone(),
                resources: group
                    .resources
                    .iter()
                    .filter_map(|id| Some((id, self.resources.get(id)?)))
                    .map(|(id, resource)| self.resource_facts(now, group, id, resource))
                    .collect(),
                not_assigned: self.not_assigned(group),
            })
            .collect()
    }

    fn not_assigned(&self, group: &Group) -> Vec<LocalAddressFacts> {
        let not_assigned = group.addresses.iter().filter(|ip| !self.resources.contains_key(&Resource::Address(**ip)));
        let known = not_assigned.filter_map(|ip| Some((*ip, self.evidence.get(ip)?)));
        known
            .map(|(address, local)| LocalAddressFacts {
                address,
                interface: local.held_on.clone(),
                is_local: self.is_local(address),
                since: local.since,
            })
            .collect()
    }

    /// What this package moves for the group.
    pub fn resources_of_group(&self, group: &GroupName) -> &[Resource] {
        self.groups.get(group).map_or(&[], |group| &group.resources)
    }

    /// Whether a claim of the resource is wanted: its group is MASTER, not disabled and not paused.
    pub fn wants(&self, resource: &Resource) -> bool {
        let group = self.resources.get(resource).and_then(|state| self.groups.get(&state.group));
        group.is_some_and(|group| group.acts() && group.state.vrrp() == VrrpState::Master)
    }

    /// The group that moves the resource.
    pub fn group_of(&self, resource: &Resource) -> Option<&GroupName> {
        self.resources.get(resource).map(|state| &state.group)
    }

    /// The owner that the last read has shown, and when it ended, if that is the owner to expect after a transition at `since`: this
    /// router's ENI after one to MASTER, and else another one.
    pub fn new_owner(
        &self,
        resource: &Resource,
        became_master: bool,
        since: BootInstant,
    ) -> Option<(BootInstant, &Owner)> {
        let state = self.resources.get(resource)?;
        let read = state.owner_read.as_ref()?;
        let owner = read.owner.as_ref()?;
        let is_new = if became_master {
            matches!(state.phase, Phase::Assigned { verified: true, .. }) && state.is_ours(read) && read.at >= since
        } else {
            state.eni.as_ref() != Some(&owner.eni) && read.began >= since
        };
        is_new.then_some((read.at, owner))
    }

    /// Whether there is nothing to read the owner of.
    pub fn has_nothing_to_read(&self) -> bool {
        self.kinds_to_read().next().is_none()
    }

    /// Why no read that began at `since` or later has shown the owners, if none has.
    pub fn not_read_since(&self, since: BootInstant) -> Option<NotRead> {
        if self.has_read_since(since) {
            let error = self.kinds_to_read().find_map(|kind| self.verifications[kind].error.clone());
            return error.map(NotRead::Failed);
        }
        if self.interface_enis.values().any(|interface_eni| interface_eni.eni.is_some()) {
            return Some(NotRead::AwaitingEc2);
        }
        let unknown = self.interface_enis.keys().find_map(|interface| self.eni_unknown(interface));
        Some(unknown.map_or(NotRead::AwaitingImds, NotRead::EniUnknown))
    }

    fn resource_facts(
        &self,
        now: BootInstant,
        group: &Group,
        id: &Resource,
        resource: &ResourceState,
    ) -> ResourceFacts {
        let (verdict, reason) = self.verdict(now, group, id, resource);
        let owner = resource.owner_read.as_ref();
        ResourceFacts {
            resource: id.clone(),
            interface: resource.planned.interface.clone(),
            eni: resource.eni.clone(),
            private_address: resource.private_address,
            is_local: self.has_local_address(id),
            local_since: id.address().and_then(|ip| self.evidence.get(&ip)?.since),
            owner: owner.map(|read| (read.clone(), self.who(group, resource, read.owner.as_ref()))),
            permission_proven: resource.permission.proven,
            verdict,
            reason,
            last_claim: resource.last_claim.clone(),
            last_failure: resource.last_failure.clone(),
        }
    }

    fn who(&self, group: &Group, resource: &ResourceState, owner: Option<&Owner>) -> Who {
        let others = group.peers.iter().filter_map(|p| self.peers.get(p)?.instance.clone()).collect();
        Who::of(owner, resource.eni.as_ref(), self.instance.as_ref(), &others)
    }

    fn verdict(
        &self,
        now: BootInstant,
        group: &Group,
        id: &Resource,
        resource: &ResourceState,
    ) -> (Verdict, Option<Reason>) {
        if group.disabled {
            return (Verdict::Disabled, None);
        }
        if group.paused_until.is_some() {
            return (Verdict::Paused, Some(Reason::Paused(resource.group.clone())));
        }
        match &group.state {
            GroupState::Unknown { why, .. } => (Verdict::Unknown, Some(Reason::VrrpUnknown(*why))),
            GroupState::Known { vrrp: VrrpState::Master, .. } => self.master_verdict(now, id, resource),
            GroupState::Known { vrrp: vrrp @ (VrrpState::Fault | VrrpState::Stop), cause } => {
                let why = match cause {
                    Cause::NoTimer => Reason::NoTimer(*vrrp),
                    _ => Reason::VrrpDown(*vrrp),
                };
                (Verdict::StandbyNotReady, Some(why))
            }
            GroupState::Known { .. } => self.standby_verdict(now, group, id, resource),
        }
    }

    /// A contradiction between VRRP and the group's address that counts for the resource, and the interface of the address.
    fn misplaced_evidence(
        &self,
        now: BootInstant,
        id: &Resource,
        resource: &ResourceState,
    ) -> Option<(Misplaced, BootInstant, InterfaceName)> {
        self.evidence_of(id, resource).into_iter().find_map(|ip| {
            let address = self.evidence.get(&ip)?;
            let (misplaced, since) = self.stays_misplaced(now, ip, address)?;
            Some((misplaced, since, address.held_on.clone()))
        })
    }

    fn standby_verdict(
        &self,
        now: BootInstant,
        group: &Group,
        id: &Resource,
        resource: &ResourceState,
    ) -> (Verdict, Option<Reason>) {
        let owner = resource.owner_read.as_ref().and_then(|read| read.owner.as_ref());
        match self.obstacle_of(id, resource) {
            None => return (Verdict::StandbyNotReady, Some(Reason::ReadinessUnknown)),
            Some(Some(obstacle)) => return (Verdict::StandbyNotReady, Some(Reason::NotReady(obstacle))),
            Some(None) => {}
        }
        if let Some((Misplaced::Unexpected, _, interface)) = self.misplaced_evidence(now, id, resource) {
            return (Verdict::Drift, Some(Reason::Unexpected { vrrp: group.state.vrrp(), interface }));
        }
        if group.since + GRACE_PERIOD < now && self.who(group, resource, owner) == Who::ThisRouter {
            return (Verdict::Drift, Some(Reason::NotTakenOver));
        }
        (Verdict::StandbyReady, self.holder(group, resource).cloned().map(Reason::HeldByThirdParty))
    }

    fn master_verdict(&self, now: BootInstant, id: &Resource, resource: &ResourceState) -> (Verdict, Option<Reason>) {
        if let Some(with) = resource.flap_damping.contested_by() {
            let owner = last_owner(resource);
            let why = match with {
                Taker::Peer => Reason::ContestedWithPeer(owner),
                Taker::ThirdParty => Reason::ContestedWithThirdParty { group: resource.group.clone(), owner },
            };
            return (Verdict::Contested, Some(why));
        }
        if let Some(why) = resource.not_takeable() {
            return (Verdict::Drift, Some(Reason::NotTakeable(why.clone())));
        }
        if let Some(error) = &resource.rejection.permanent {
            return (Verdict::Drift, Some(Reason::Refused(failed_claim(id, resource, error))));
        }
        if let Some((Misplaced::Missing, since, interface)) = self.misplaced_evidence(now, id, resource) {
            return (Verdict::Drift, Some(Reason::Missing { interface, since }));
        }
        let is_local = self.has_local_address(id);
        let error = || self.verifications[id.kind()].error.clone();
        match &resource.phase {
            Phase::Assigned { verified: true, mismatch: None } => {
                if let Some(elsewhere) = self.eni_elsewhere(resource) {
                    return (Verdict::Drift, Some(Reason::EniElsewhere(elsewhere)));
                }
                let at = resource.owner_read.as_ref().map(|owner_read| owner_read.at).unwrap_or_default();
                let global = &self.config.global;
                if at + (global.verify_interval.duration() + global.request_timeout.duration()) * 2 >= now {
                    return (Verdict::Ok, None);
                }
                (Verdict::Unknown, Some(Reason::NotVerifiedLately { at, error: error() }))
            }
            Phase::Assigned { verified: false, mismatch: None } => {
                (Verdict::Claiming, Some(Reason::NotVerified { error: error() }))
            }
            Phase::Assigned { mismatch: Some(mismatch), .. } => {
                (Verdict::Drift, Some(Reason::Mismatch { owner: mismatch.owner.clone(), error: error() }))
            }
            Phase::AwaitLocalAddress { .. } if !is_local => (Verdict::Unknown, Some(Reason::NotLocal)),
            Phase::AwaitLocalAddress { .. } => (Verdict::Unknown, Some(Reason::AwaitingLiveness)),
            Phase::CheckOwner { .. } => (Verdict::Claiming, Some(Reason::CheckingOwner { error: error() })),
            Phase::Pending { .. } if resource.awaits_read() => {
                (Verdict::Claiming, Some(Reason::CheckingOwner { error: error() }))
            }
            Phase::Pending { .. } | Phase::InFlight(_) => (Verdict::Claiming, self.waits_for(now, id, resource)),
            Phase::Idle => (Verdict::Unknown, None),
        }
    }

    /// What a pending claim waits for, if anything.
    fn waits_for(&self, now: BootInstant, id: &Resource, resource: &ResourceState) -> Option<Reason> {
        if resource.eni.is_none()
            && let Some(unknown) = self.eni_unknown(&resource.planned.interface)
        {
            return Some(Reason::EniUnknown(unknown));
        }
        let allowed_at = self.allowed_at(now, id, resource).filter(|at| resource.phase.due().is_some() && *at > now);
        if let Some((_, error)) = &resource.last_failure {
            return Some(Reason::Retrying { failure: failed_claim(id, resource, error), allowed_at });
        }
        match allowed_at {
            Some(allowed_at) => Some(Reason::RateLimited { allowed_at }),
            None => resource.attempt.precondition.as_ref().map(|_| Reason::AwaitingPrecondition),
        }
    }

    /// Why the ENI of the interface could not be resolved, if the last attempt has failed.
    pub(super) fn eni_unknown(&self, interface: &InterfaceName) -> Option<EniUnknown> {
        let error = self.interface_enis.get(interface)?.error.clone()?;
        Some(EniUnknown { interface: interface.clone(), error })
    }
}

fn last_owner(resource: &ResourceState) -> LastOwner {
    match &resource.owner_read {
        None => LastOwner::NotRead,
        Some(OwnerRead { owner: None, .. }) => LastOwner::Unassigned,
        Some(read) if resource.is_ours(read) => LastOwner::ThisRouter,
        Some(OwnerRead { owner: Some(owner), .. }) => LastOwner::Other(owner.clone()),
    }
}
