//! What stands between a standby and a failover, and what a person should know before one: all that the regular reads
//! show anyway, and what dry runs show.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::Machine;
use super::event::LogEvent;
use super::group::Group;
use super::reason::{EniElsewhere, Explanation, Obstacle, PrimaryAddress, Refusal};
use super::resource::ResourceState;
use crate::model::ec2::{CallError, ErrorClass, Failure, Owner};
use crate::model::ids::{EniId, InstanceId};
use crate::model::resource::{Holder, Resource};
use crate::model::verdict::Who;
use crate::model::vrrp::VrrpState;

/// Where an ENI that gets resources is attached, as EC2 shows it.
#[derive(Debug)]
pub(super) struct Attachment {
    /// The instance; absent: it is attached to none.
    to: Option<InstanceId>,
    /// The last regular read that could have shown it has done so.
    is_current: bool,
    /// That it is not this instance has been noted.
    is_logged: bool,
}

/// The ENIs that get resources, as far as reads have shown them.
pub(super) type Attachments = BTreeMap<EniId, Attachment>;

impl Machine {
    /// What prevents a standby from taking over a group: not known yet; nothing; or this.
    pub(super) fn obstacle(&self, group: &Group) -> Option<Option<Obstacle>> {
        let resources = group.resources.iter().filter_map(|id| Some((id, self.resources.get(id)?)));
        let obstacles: Vec<Option<Option<Obstacle>>> =
            resources.map(|(id, resource)| self.obstacle_of(id, resource)).collect();
        match obstacles.iter().flatten().flatten().next() {
            Some(obstacle) => Some(Some(obstacle.clone().lasting())),
            None if obstacles.is_empty() || obstacles.contains(&None) => None,
            None => Some(None),
        }
    }

    /// The same for one resource.
    pub(super) fn obstacle_of(&self, id: &Resource, resource: &ResourceState) -> Option<Option<Obstacle>> {
        let interface = &resource.planned.interface;
        let is_resolved = self.interface_enis.get(interface)?.eni.is_some();
        let unknown = self.eni_unknown(interface).filter(|_| !is_resolved).map(Obstacle::EniUnknown);
        let obstacle = unknown
            .or_else(|| self.verifications[id.kind()].error.clone().map(Obstacle::ReadFailed))
            .or_else(|| primary(id, resource).map(Obstacle::Primary))
            .or_else(|| self.outside_subnet(id, resource))
            .or_else(|| {
                let why = resource.not_takeable()?.clone();
                Some(Obstacle::NotTakeable { resource: id.clone(), why })
            })
            .or_else(|| self.eni_elsewhere(resource).map(Obstacle::EniElsewhere))
            .or_else(|| {
                let refusal = refusal(id, resource, resource.rejection.permanent.as_ref()?);
                let at = resource.last_claim.as_ref().and_then(|c| c.answer.as_ref()).map(|(when, _)| *when);
                Some(Obstacle::LastClaimRefused { at, refusal })
            })
            .or_else(|| {
                let error = resource.permission.refused.clone()?;
                Some(Obstacle::DryRunRefused { resource: id.clone(), error })
            });
        if obstacle.is_none() {
            resource.owner_read.as_ref()?;
        }
        Some(obstacle)
    }

    /// That the address, or a virtual address without which a route or an Elastic IP is of no use, is outside the subnet of
    /// the ENI and is moved by no route.
    fn outside_subnet(&self, id: &Resource, resource: &ResourceState) -> Option<Obstacle> {
        let behind = self.interface_enis.get(&resource.planned.interface)?.eni.as_ref()?;
        let block = behind.block.filter(|_| resource.eni.as_ref() == Some(&behind.id))?;
        let resources = self.groups.get(&resource.group).map(|group| group.resources.as_slice()).unwrap_or_default();
        let has_route = |address: Ipv4Addr| {
            resources.iter().any(|id| matches!(id, Resource::Route(route) if route.destination.contains(address)))
        };
        let addresses = match id {
            Resource::Address(address) => vec![*address],
            Resource::Route(_) | Resource::ElasticIp(_) => {
                let addresses = self.evidence_of(id, resource).into_iter();
                addresses.filter(|address| !has_route(*address)).collect()
            }
        };
        let address = addresses.into_iter().find(|address| !block.contains(*address))?;
        Some(Obstacle::OutsideSubnet { address, block })
    }

    /// That the ENI which the resource belongs on is not attached to this instance, if EC2 reported that.
    pub(super) fn eni_elsewhere(&self, resource: &ResourceState) -> Option<EniElsewhere> {
        let eni = resource.eni.as_ref()?;
        let (this, attachment) = (self.instance.clone()?, self.not_here(eni)?);
        let attached_to = attachment.to.clone();
        let is_configured = resource.planned.eni.is_some();
        Some(EniElsewhere { eni: eni.clone(), this, attached_to, is_configured })
    }

    fn not_here(&self, eni: &EniId) -> Option<&Attachment> {
        let ours = self.instance.as_ref()?;
        self.attachments.get(eni).filter(|a| a.is_current && a.to.as_ref() != Some(ours))
    }

    /// Records where the ENIs that get resources are attached, as a read of these resources shows.
    pub(super) fn learn_attachments(
        &mut self,
        read: &[Resource],
        is_regular: bool,
        holders: &BTreeMap<Resource, Holder>,
    ) {
        let targets: BTreeSet<&EniId> = self.resources.values().filter_map(|r| r.eni.as_ref()).collect();
        self.attachments.retain(|eni, _| targets.contains(eni));
        for eni in read.iter().filter(|_| is_regular).filter_map(|id| self.resources.get(id)?.eni.as_ref()) {
            if let Some(attachment) = self.attachments.get_mut(eni) {
                attachment.is_current = false;
            }
        }
        for owner in holders.values().filter_map(Holder::owner).filter(|owner| targets.contains(&owner.eni)) {
            let new = || Attachment { to: owner.instance.clone(), is_current: true, is_logged: false };
            let attachment = self.attachments.entry(owner.eni.clone()).or_insert_with(new);
            if attachment.to == owner.instance {
                attachment.is_current = true;
            } else {
                *attachment = new();
            }
        }
    }

    /// Logs, once each, the ENIs that get resources and are not attached to this instance.
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

    /// Logs, once each, the owners of resources of standbys that neither router has.
    pub(super) fn log_holders(&mut self) {
        let mut held: BTreeMap<EniId, (Owner, Vec<Resource>)> = BTreeMap::new();
        let standbys = self.groups.values().filter(|g| g.acts() && g.state.vrrp() == VrrpState::Backup);
        for (group, id) in standbys.flat_map(|group| group.resources.iter().map(move |id| (group, id))) {
            if let Some(resource) = self.resources.get(id)
                && let Some(holder) = self.holder(group, resource)
                && resource.holder_logged.as_ref() != Some(&holder.eni)
            {
                held.entry(holder.eni.clone()).or_insert_with(|| (holder.clone(), Vec::new())).1.push(id.clone());
            }
        }
        for (eni, (by, resources)) in held {
            for id in &resources {
                if let Some(resource) = self.resources.get_mut(id) {
                    resource.holder_logged = Some(eni.clone());
                }
            }
            self.log(LogEvent::ForeignHolder { resources, by });
        }
    }

    /// The owner of a resource, if it is none of the group's routers. Absent while the instance of any other router is
    /// unknown: that router may be the owner.
    pub(super) fn holder<'a>(&self, group: &Group, resource: &'a ResourceState) -> Option<&'a Owner> {
        let holder = resource.owner_read.as_ref()?.owner.as_ref()?;
        let others: BTreeSet<InstanceId> =
            group.peers.iter().map(|peer| self.peers.get(peer)?.instance.clone()).collect::<Option<_>>()?;
        let who = Who::of(Some(holder), resource.eni.as_ref(), self.instance.as_ref(), &others);
        (who == Who::Stranger && !others.is_empty()).then_some(holder)
    }
}

/// That the address is the primary address of an ENI, by the last read.
fn primary(id: &Resource, resource: &ResourceState) -> Option<PrimaryAddress> {
    let owner = resource.owner_read.as_ref()?.owner.clone().filter(|owner| owner.primary)?;
    Some(PrimaryAddress { address: id.address()?, owner })
}

/// A failed claim, and what the owner explains of it.
pub(super) fn refusal(id: &Resource, resource: &ResourceState, error: &CallError) -> Refusal {
    let is_about_the_address = id.address().is_some()
        && matches!(error.class(), ErrorClass::BadResource | ErrorClass::Refused)
        && !matches!(&error.failure, Failure::Api { code, .. } if code.is_no_room());
    let is_free = resource.owner_read.as_ref().is_some_and(|owner_read| owner_read.owner.is_none());
    let explanation = match primary(id, resource) {
        _ if !is_about_the_address => None,
        Some(primary) => Some(Explanation::Primary(primary)),
        None => is_free.then_some(Explanation::Unassigned),
    };
    Refusal { kind: id.kind(), error: error.clone(), explanation }
}
