//! What the state machine knows, for the status report: values, without any text. Times are the machine's own.

use std::net::Ipv4Addr;

use super::address::{Address, GRACE_PERIOD, LastClaim, OwnerRead, Phase};
use super::event::Misplaced;
use super::group::{Group, GroupState};
use super::readiness::refusal;
use super::reason::{EniUnknown, LastOwner, NotRead, Reason};
use super::{BootInstant, Cause, Machine};
use crate::model::assignment::Problem;
use crate::model::ec2::{CallError, Owner, Taker};
use crate::model::ids::{EniId, GroupName, InterfaceName};
use crate::model::verdict::{Verdict, Who};
use crate::model::vrrp::VrrpState;

/// What is known about a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupFacts {
    /// Its name.
    pub name: GroupName,
    /// Its VRRP state.
    pub vrrp: VrrpState,
    /// Since when.
    pub since: BootInstant,
    /// Why the state is UNKNOWN.
    pub unknown_because: Option<Cause>,
    /// Whether the configuration disables the group.
    pub disabled: bool,
    /// Until when the group is paused.
    pub paused_until: Option<BootInstant>,
    /// Why the group, or some of its addresses, are not moved.
    pub problems: Vec<Problem>,
    /// Its addresses.
    pub addresses: Vec<AddressFacts>,
}

/// What is known about an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressFacts {
    /// The address.
    pub address: Ipv4Addr,
    /// The interface whose ENI the address belongs on.
    pub interface: InterfaceName,
    /// That ENI, once it is known.
    pub eni: Option<EniId>,
    /// Whether the address is on a local interface.
    pub is_local: bool,
    /// Since when.
    pub local_since: Option<BootInstant>,
    /// The last read of the owner, and who that is.
    pub owner: Option<(OwnerRead, Who)>,
    /// The verdict.
    pub verdict: Verdict,
    /// Why the verdict is not OK; a warning if it is STANDBY-READY.
    pub reason: Option<Reason>,
    /// The last claim.
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
                addresses: group
                    .addresses
                    .iter()
                    .filter_map(|ip| Some((*ip, self.addresses.get(ip)?)))
                    .map(|(ip, address)| self.address_facts(now, group, ip, address))
                    .collect(),
            })
            .collect()
    }

    /// Whether there is nothing to read the owner of.
    pub fn has_nothing_to_read(&self) -> bool {
        self.addresses.values().all(|a| self.groups.get(&a.group).is_none_or(|g| g.disabled))
    }

    /// Why no read that began at `since` or later has shown the owners, if none has.
    pub fn not_read_since(&self, since: BootInstant) -> Option<NotRead> {
        if self.has_nothing_to_read() {
            return None;
        }
        if self.has_read_since(since) {
            return self.verification.error.clone().map(NotRead::Failed);
        }
        if self.interface_enis.values().any(|interface_eni| interface_eni.eni.is_some()) {
            return Some(NotRead::AwaitingEc2);
        }
        let unknown = self.interface_enis.keys().find_map(|interface| self.eni_unknown(interface));
        Some(unknown.map_or(NotRead::AwaitingImds, NotRead::EniUnknown))
    }

    fn address_facts(&self, now: BootInstant, group: &Group, ip: Ipv4Addr, address: &Address) -> AddressFacts {
        let (verdict, reason) = self.verdict(now, group, ip, address);
        let owner = address.owner_read.as_ref();
        AddressFacts {
            address: ip,
            interface: address.interface.clone(),
            eni: address.eni.clone(),
            is_local: self.is_local(ip),
            local_since: address.local_since,
            owner: owner.map(|read| (read.clone(), self.who(group, address, read.owner.as_ref()))),
            verdict,
            reason,
            last_claim: address.last_claim.clone(),
            last_failure: address.last_failure.clone(),
        }
    }

    fn who(&self, group: &Group, address: &Address, owner: Option<&Owner>) -> Who {
        let others = group.peers.iter().filter_map(|p| self.peers.get(p)?.instance.clone()).collect();
        Who::of(owner, address.eni.as_ref(), self.instance.as_ref(), &others)
    }

    fn verdict(&self, now: BootInstant, group: &Group, ip: Ipv4Addr, address: &Address) -> (Verdict, Option<Reason>) {
        if group.disabled {
            return (Verdict::Disabled, None);
        }
        if group.paused_until.is_some() {
            return (Verdict::Paused, Some(Reason::Paused(address.group.clone())));
        }
        match &group.state {
            GroupState::Unknown { why, .. } => (Verdict::Unknown, Some(Reason::VrrpUnknown(*why))),
            GroupState::Known { vrrp: VrrpState::Master, .. } => self.master_verdict(now, ip, address),
            GroupState::Known { vrrp: vrrp @ (VrrpState::Fault | VrrpState::Stop), cause } => {
                let why = match cause {
                    Cause::NoTimer => Reason::NoTimer(*vrrp),
                    _ => Reason::VrrpDown(*vrrp),
                };
                (Verdict::StandbyNotReady, Some(why))
            }
            GroupState::Known { .. } => self.standby_verdict(now, group, ip, address),
        }
    }

    fn standby_verdict(
        &self,
        now: BootInstant,
        group: &Group,
        ip: Ipv4Addr,
        address: &Address,
    ) -> (Verdict, Option<Reason>) {
        let owner = address.owner_read.as_ref().and_then(|read| read.owner.as_ref());
        match self.obstacle_of(ip, address) {
            None => (Verdict::StandbyNotReady, Some(Reason::ReadinessUnknown)),
            Some(Some(obstacle)) => (Verdict::StandbyNotReady, Some(Reason::NotReady(obstacle))),
            Some(None) if matches!(self.stays_misplaced(now, ip, address), Some((Misplaced::Unexpected, _))) => {
                let why = Reason::Unexpected { vrrp: group.state.vrrp(), interface: address.held_on.clone() };
                (Verdict::Drift, Some(why))
            }
            Some(None) if group.since + GRACE_PERIOD < now && self.who(group, address, owner) == Who::ThisRouter => {
                (Verdict::Drift, Some(Reason::NotTakenOver))
            }
            Some(None) => (Verdict::StandbyReady, self.holder(group, address).cloned().map(Reason::HeldByStranger)),
        }
    }

    fn master_verdict(&self, now: BootInstant, ip: Ipv4Addr, address: &Address) -> (Verdict, Option<Reason>) {
        if let Some(with) = address.flap_damping.contested_by() {
            let owner = last_owner(address);
            let why = match with {
                Taker::Peer => Reason::ContestedWithPeer(owner),
                Taker::Stranger => Reason::ContestedWithStranger { group: address.group.clone(), owner },
            };
            return (Verdict::Contested, Some(why));
        }
        if let Some(error) = &address.rejection.permanent {
            return (Verdict::Drift, Some(Reason::Refused(refusal(ip, address, error))));
        }
        if let Some((Misplaced::Missing, since)) = self.stays_misplaced(now, ip, address) {
            return (Verdict::Drift, Some(Reason::Missing { interface: address.held_on.clone(), since }));
        }
        let error = || self.verification.error.clone();
        match &address.phase {
            Phase::Assigned { verified: true, mismatch: None } => {
                if let Some(elsewhere) = self.eni_elsewhere(address) {
                    return (Verdict::Drift, Some(Reason::EniElsewhere(elsewhere)));
                }
                let at = address.owner_read.as_ref().map(|owner_read| owner_read.at).unwrap_or_default();
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
            Phase::AwaitLocalAddress { .. } if !self.is_local(ip) => (Verdict::Unknown, Some(Reason::NotLocal)),
            Phase::AwaitLocalAddress { .. } => (Verdict::Unknown, Some(Reason::AwaitingLiveness)),
            Phase::CheckOwner { .. } => (Verdict::Claiming, Some(Reason::CheckingOwner { error: error() })),
            Phase::Pending { .. } | Phase::InFlight(_) => (Verdict::Claiming, self.waits_for(now, ip, address)),
            Phase::Idle => (Verdict::Unknown, None),
        }
    }

    /// What a pending claim waits for, if anything.
    fn waits_for(&self, now: BootInstant, ip: Ipv4Addr, address: &Address) -> Option<Reason> {
        if address.eni.is_none()
            && let Some(unknown) = self.eni_unknown(&address.interface)
        {
            return Some(Reason::EniUnknown(unknown));
        }
        let allowed_at = self.allowed_at(now, address).filter(|at| address.phase.due().is_some() && *at > now);
        if let Some((_, error)) = &address.last_failure {
            return Some(Reason::Retrying { refusal: refusal(ip, address, error), allowed_at });
        }
        match allowed_at {
            Some(allowed_at) => Some(Reason::RateLimited { allowed_at }),
            None => address.attempt.precondition.as_ref().map(|_| Reason::AwaitingPrecondition),
        }
    }

    /// Why the ENI of the interface could not be resolved, if the last attempt has failed.
    pub(super) fn eni_unknown(&self, interface: &InterfaceName) -> Option<EniUnknown> {
        let error = self.interface_enis.get(interface)?.error.clone()?;
        Some(EniUnknown { interface: interface.clone(), error })
    }
}

fn last_owner(address: &Address) -> LastOwner {
    match &address.owner_read {
        None => LastOwner::NotRead,
        Some(OwnerRead { owner: None, .. }) => LastOwner::Unassigned,
        Some(OwnerRead { owner: Some(owner), .. }) if address.eni.as_ref() == Some(&owner.eni) => LastOwner::ThisRouter,
        Some(OwnerRead { owner: Some(owner), .. }) => LastOwner::Other(owner.clone()),
    }
}
