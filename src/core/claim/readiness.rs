//! What stands between a standby and a failover, and what a person should know before one: all that the regular reads
//! show anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::Machine;
use super::address::Address;
use super::event::LogEvent;
use super::group::Group;
use super::reason::{EniElsewhere, Explanation, Obstacle, PrimaryAddress, Refusal};
use crate::model::ec2::{CallError, ErrorClass, Failure, Owner, Owners};
use crate::model::ids::{EniId, InstanceId};
use crate::model::verdict::Who;
use crate::model::vrrp::VrrpState;

/// Where EC2 says that an ENI is attached which takes addresses.
#[derive(Debug)]
pub(super) struct Attachment {
    /// The instance; absent: it is attached to none.
    to: Option<InstanceId>,
    /// The last regular read that could have shown it has done so.
    is_current: bool,
    /// That it is not this instance has been noted.
    is_logged: bool,
}

/// The ENIs that take addresses, as far as reads have shown them.
pub(super) type Attachments = BTreeMap<EniId, Attachment>;

impl Machine {
    /// What prevents a standby from taking over a group: not known yet; nothing; or this.
    pub(super) fn obstacle(&self, group: &Group) -> Option<Option<Obstacle>> {
        let addresses = group.addresses.iter().filter_map(|ip| Some((*ip, self.addresses.get(ip)?)));
        let obstacles: Vec<Option<Option<Obstacle>>> =
            addresses.map(|(ip, address)| self.obstacle_of(ip, address)).collect();
        match obstacles.iter().flatten().flatten().next() {
            Some(obstacle) => Some(Some(obstacle.clone().lasting())),
            None if obstacles.is_empty() || obstacles.contains(&None) => None,
            None => Some(None),
        }
    }

    /// The same for one address.
    pub(super) fn obstacle_of(&self, ip: Ipv4Addr, address: &Address) -> Option<Option<Obstacle>> {
        let is_resolved = self.interface_enis.get(&address.interface)?.eni.is_some();
        let unknown = self.eni_unknown(&address.interface).filter(|_| !is_resolved).map(Obstacle::EniUnknown);
        let obstacle = unknown
            .or_else(|| self.verification.error.clone().map(Obstacle::ReadFailed))
            .or_else(|| primary(ip, address).map(Obstacle::Primary))
            .or_else(|| self.eni_elsewhere(address).map(Obstacle::EniElsewhere))
            .or_else(|| {
                let refusal = refusal(ip, address, address.rejection.permanent.as_ref()?);
                let at = address.last_claim.as_ref().and_then(|c| c.answer.as_ref()).map(|(when, _)| *when);
                Some(Obstacle::LastClaimRefused { at, refusal })
            });
        if obstacle.is_none() {
            address.owner_read.as_ref()?;
        }
        Some(obstacle)
    }

    /// That the ENI which the address belongs on is not attached to this instance, if EC2 reported that.
    pub(super) fn eni_elsewhere(&self, address: &Address) -> Option<EniElsewhere> {
        let eni = address.eni.as_ref()?;
        let (this, attachment) = (self.instance.clone()?, self.not_here(eni)?);
        let attached_to = attachment.to.clone();
        Some(EniElsewhere { eni: eni.clone(), this, attached_to, is_configured: address.configured_eni.is_some() })
    }

    fn not_here(&self, eni: &EniId) -> Option<&Attachment> {
        let ours = self.instance.as_ref()?;
        self.attachments.get(eni).filter(|a| a.is_current && a.to.as_ref() != Some(ours))
    }

    /// Takes note of where the ENIs that take addresses are attached, as a read of these addresses shows.
    pub(super) fn learn_attachments(&mut self, read: &[Ipv4Addr], is_regular: bool, owners: &Owners) {
        let targets: BTreeSet<&EniId> = self.addresses.values().filter_map(|a| a.eni.as_ref()).collect();
        self.attachments.retain(|eni, _| targets.contains(eni));
        for eni in read.iter().filter(|_| is_regular).filter_map(|ip| self.addresses.get(ip)?.eni.as_ref()) {
            if let Some(attachment) = self.attachments.get_mut(eni) {
                attachment.is_current = false;
            }
        }
        for owner in owners.values().filter(|owner| targets.contains(&owner.eni)) {
            let new = || Attachment { to: owner.instance.clone(), is_current: true, is_logged: false };
            let attachment = self.attachments.entry(owner.eni.clone()).or_insert_with(new);
            if attachment.to == owner.instance {
                attachment.is_current = true;
            } else {
                *attachment = new();
            }
        }
    }

    /// Notes, once each, the ENIs that take addresses and are not attached to this instance.
    pub(super) fn log_attachments(&mut self) {
        let Some(ours) = &self.instance else {
            return;
        };
        let mut log_events = Vec::new();
        for (eni, attachment) in &mut self.attachments {
            if attachment.is_current && !attachment.is_logged && attachment.to.as_ref() != Some(ours) {
                attachment.is_logged = true;
                log_events.push(LogEvent::EniElsewhere { eni: eni.clone(), instance: attachment.to.clone() });
            }
        }
        log_events.into_iter().for_each(|log| self.log(log));
    }

    /// Notes, once each, who holds addresses of standbys that neither router has.
    pub(super) fn log_holders(&mut self) {
        let mut held: BTreeMap<EniId, (Owner, Vec<Ipv4Addr>)> = BTreeMap::new();
        let standbys = self.groups.values().filter(|g| g.acts() && g.state.vrrp() == VrrpState::Backup);
        for (group, ip) in standbys.flat_map(|group| group.addresses.iter().map(move |ip| (group, ip))) {
            if let Some(address) = self.addresses.get(ip)
                && let Some(holder) = self.holder(group, address)
                && address.holder_logged.as_ref() != Some(&holder.eni)
            {
                held.entry(holder.eni.clone()).or_insert_with(|| (holder.clone(), Vec::new())).1.push(*ip);
            }
        }
        for (eni, (by, addresses)) in held {
            for ip in &addresses {
                if let Some(address) = self.addresses.get_mut(ip) {
                    address.holder_logged = Some(eni.clone());
                }
            }
            self.log(LogEvent::ForeignHolder { addresses, by });
        }
    }

    /// Who holds an address that none of the group's routers has. Nobody is meant while it is not known which instances all
    /// of the others are: it may be one of them.
    pub(super) fn holder<'a>(&self, group: &Group, address: &'a Address) -> Option<&'a Owner> {
        let holder = address.owner_read.as_ref()?.owner.as_ref()?;
        let others: BTreeSet<InstanceId> =
            group.peers.iter().map(|peer| self.peers.get(peer)?.instance.clone()).collect::<Option<_>>()?;
        let who = Who::of(Some(holder), address.eni.as_ref(), self.instance.as_ref(), &others);
        (who == Who::Stranger && !others.is_empty()).then_some(holder)
    }
}

/// That the address is the primary address of an ENI, by the last read.
fn primary(ip: Ipv4Addr, address: &Address) -> Option<PrimaryAddress> {
    let owner = address.owner_read.as_ref()?.owner.clone().filter(|owner| owner.primary)?;
    Some(PrimaryAddress { address: ip, owner })
}

/// A failed claim, and what the owner explains of it.
pub(super) fn refusal(ip: Ipv4Addr, address: &Address, error: &CallError) -> Refusal {
    let is_about_the_address = matches!(error.class(), ErrorClass::BadAddress | ErrorClass::Refused)
        && !matches!(&error.failure, Failure::Api { code, .. } if code.is_no_room());
    let is_free = address.owner_read.as_ref().is_some_and(|owner_read| owner_read.owner.is_none());
    let explanation = match primary(ip, address) {
        _ if !is_about_the_address => None,
        Some(primary) => Some(Explanation::Primary(primary)),
        None => is_free.then_some(Explanation::Unassigned),
    };
    Refusal { error: error.clone(), explanation }
}
