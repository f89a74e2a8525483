//! What prevents a standby from taking over, and what an operator should know before a failover: what the regular reads show
//! anyway, and what dry runs and inspections show.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::event::LogEvent;
use super::event::ReadAnswer;
use super::group::Group;
use super::obstacles::{
    DependentPath, EniElsewhere, NoPrivateAddress, NoRoom, NoSuchEni, PrimaryAddress, Room, Unassignable, drops_packets,
};
use super::reason::{Explanation, FailedClaim, Obstacle};
use super::resource::ResourceState;
use super::{BootInstant, Machine};
use crate::model::ec2::{CallError, ErrorClass, Interface, Owner};
use crate::model::ids::{EniId, ErrorCode, InstanceId};
use crate::model::resource::{Holder, Kind, Resource};
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

/// The ENIs that get resources and that EC2 did not show where it was to describe them; with [`NoSuchEni`], once an inspection
/// has not shown them either.
pub(super) type UnseenEnis = BTreeMap<EniId, Option<NoSuchEni>>;

/// An ENI that gets resources, as EC2 describes it.
#[derive(Debug)]
pub(super) struct DescribedEni {
    pub interface: Interface,
    /// That it has no room for the virtual addresses that move to it. It is decided with each description: there can be as many
    /// addresses as events in a second.
    pub no_room: Option<NoRoom>,
    /// Routes move to it.
    pub gets_route: bool,
}

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
        // The read after the transition shows whether the path still depends on it.
        if self.dependent_path.is_some() && self.may_have_other_paths() {
            return None;
        }
        let is_resolved = self.interface_enis.get(interface)?.eni.is_some();
        let unknown = || self.eni_unknown(interface).filter(|_| !is_resolved).map(Obstacle::EniUnknown);
        let path = self.dependent_path.map(Obstacle::DependentPath);
        let obstacle = path
            .or_else(unknown)
            .or_else(|| self.verifications[id.kind()].error.clone().map(Obstacle::ReadFailed))
            .or_else(|| primary(id, resource).map(Obstacle::Primary))
            .or_else(|| self.unassignable(id, resource))
            .or_else(|| {
                let why = resource.not_takeable()?.clone();
                Some(Obstacle::NotTakeable { resource: id.clone(), why })
            })
            .or_else(|| self.unseen.get(resource.eni.as_ref()?)?.clone().map(Obstacle::NoSuchEni))
            .or_else(|| self.eni_elsewhere(resource).map(Obstacle::EniElsewhere))
            .or_else(|| self.no_private_address(resource).map(Obstacle::NoPrivateAddress))
            .or_else(|| self.no_room(id, resource).map(Obstacle::NoRoom))
            .or_else(|| self.source_dest_check(resource).map(Obstacle::SourceDestCheck))
            .or_else(|| {
                let failure = failed_claim(id, resource, resource.rejection.permanent.as_ref()?);
                let at = resource.last_claim.as_ref().and_then(|c| c.answer.as_ref()).map(|(when, _)| *when);
                Some(Obstacle::LastClaimRefused { at, failure })
            })
            .or_else(|| {
                let denied = || self.denials.get(resource.eni.as_ref()?).filter(|_| id.kind() == Kind::Address);
                let error = resource.permission.refused.as_ref().or_else(denied)?.clone();
                Some(Obstacle::DryRunRefused { resource: id.clone(), error })
            });
        if obstacle.is_none() {
            resource.owner_read.as_ref()?;
        }
        Some(obstacle)
    }

    /// That AWS reserves the address; or that it, or a virtual address without which a route or an Elastic IP is of no use, is
    /// outside the subnet of the ENI and is moved by no route.
    fn unassignable(&self, id: &Resource, resource: &ResourceState) -> Option<Obstacle> {
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
        let IpNet::V4(subnet) = block.net() else { return None };
        addresses.into_iter().find_map(|address| match Unassignable::of(address, subnet)? {
            Unassignable::OutsideSubnet => Some(Obstacle::OutsideSubnet { address, block }),
            Unassignable::Reserved => id.address().map(|address| Obstacle::Reserved { address, block }),
        })
    }

    fn no_private_address(&self, resource: &ResourceState) -> Option<NoPrivateAddress> {
        let (address, eni) = (resource.planned.private_address?, resource.eni.as_ref()?);
        let moving = self.resources.get(&Resource::Address(address)).filter(|moving| moving.eni.as_ref() == Some(eni));
        let moves = moving.is_some_and(|moving| self.is_enabled(moving));
        NoPrivateAddress::of(address, eni, &self.enis.get(eni)?.interface, moves)
    }

    /// Whether the resource's group is enabled.
    pub(super) fn is_enabled(&self, resource: &ResourceState) -> bool {
        self.groups.get(&resource.group).is_some_and(|group| !group.disabled)
    }

    fn no_room(&self, id: &Resource, resource: &ResourceState) -> Option<NoRoom> {
        let (address, described) = (id.address()?, self.enis.get(resource.eni.as_ref()?)?);
        described.no_room.clone().filter(|_| !described.interface.addresses.contains(&address))
    }

    /// Whether EC2 shows that the ENI has room for the virtual addresses that move to it.
    pub(super) fn shows_room(&self, resource: &ResourceState) -> bool {
        let described = resource.eni.as_ref().and_then(|eni| self.enis.get(eni));
        self.address_limit.is_some() && described.is_some_and(|described| described.no_room.is_none())
    }

    fn source_dest_check(&self, resource: &ResourceState) -> Option<EniId> {
        let eni = resource.eni.as_ref()?;
        let described = self.enis.get(eni)?;
        let drops = drops_packets(&described.interface, self.network.forwards, described.gets_route);
        (drops == Some(true)).then(|| eni.clone())
    }

    /// Decides what the paths to EC2 and IMDS depend on.
    pub(super) fn update_network(&mut self) {
        self.dependent_path = DependentPath::of(&self.network, &self.keepalived);
    }

    /// Decides what moves to the described ENIs, and whether they have room for it.
    pub(super) fn update_enis(&mut self) {
        let mut moving: BTreeMap<&EniId, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        let mut routed: BTreeSet<&EniId> = BTreeSet::new();
        for (id, resource) in self.resources.iter().filter(|(_, resource)| self.is_enabled(resource)) {
            let Some(eni) = &resource.eni else { continue };
            match id {
                Resource::Address(address) => _ = moving.entry(eni).or_default().insert(*address),
                Resource::Route(_) => _ = routed.insert(eni),
                Resource::ElasticIp(_) => {}
            }
        }
        for (eni, described) in &mut self.enis {
            described.gets_route = routed.contains(eni);
            let room = Room::of(&described.interface, moving.get(eni).unwrap_or(&BTreeSet::new()));
            let limit = self.address_limit.as_ref().filter(|limit| !room.fits(limit.addresses));
            described.no_room = limit.map(|limit| NoRoom { eni: eni.clone(), room, limit: limit.clone() });
        }
    }

    /// The primary address of the ENI that the resource belongs on, once IMDS or EC2 has shown it.
    pub(super) fn primary_of(&self, eni: &EniId, resource: &ResourceState) -> Option<Ipv4Addr> {
        let behind = self.interface_enis.get(&resource.planned.interface)?.eni.as_ref();
        let described = || self.enis.get(eni)?.interface.primary;
        behind.filter(|behind| behind.id == *eni).map(|behind| behind.primary).or_else(described)
    }

    /// That the ENI which the resource belongs on is not attached to this instance, if EC2 reported that.
    pub(super) fn eni_elsewhere(&self, resource: &ResourceState) -> Option<EniElsewhere> {
        let (eni, this) = (resource.eni.as_ref()?, self.instance.as_ref()?);
        let attachment = self.attachments.get(eni).filter(|attachment| attachment.is_current)?;
        EniElsewhere::of(eni, attachment.to.as_ref(), this, resource.planned.eni.is_some())
    }

    /// Records the ENIs that get resources, as a read of these resources shows them. `described` are the ENIs that it was to
    /// describe.
    pub(super) fn learn_enis(
        &mut self,
        now: BootInstant,
        read: &[Resource],
        described: &[EniId],
        is_regular: bool,
        answer: &mut ReadAnswer,
    ) {
        let targets: BTreeSet<EniId> = self.resources.values().filter_map(|r| r.eni.clone()).collect();
        self.attachments.retain(|eni, _| targets.contains(eni));
        let owners = answer.holders.values().filter_map(Holder::owner).map(|owner| &owner.eni);
        let shown: BTreeSet<&EniId> = owners.chain(answer.interfaces.keys()).collect();
        self.unseen.retain(|eni, _| targets.contains(eni) && !shown.contains(eni));
        for eni in described.iter().filter(|eni| targets.contains(*eni) && !shown.contains(eni)) {
            if !self.unseen.contains_key(eni) {
                self.unseen.insert(eni.clone(), None);
                self.inspection.request_enis(now);
            }
        }
        // What is known of one that is not shown stays until the inspection.
        let is_kept = |eni: &EniId| !described.contains(eni) || self.unseen.contains_key(eni);
        self.enis.retain(|eni, _| targets.contains(eni) && is_kept(eni));
        for eni in read.iter().filter(|_| is_regular).filter_map(|id| self.resources.get(id)?.eni.as_ref()) {
            // A read for which it is not described shows it only if it is an owner.
            if !self.enis.contains_key(eni)
                && let Some(attachment) = self.attachments.get_mut(eni)
            {
                attachment.is_current = false;
            }
        }
        let owners = answer.holders.values().filter_map(Holder::owner).map(|owner| (&owner.eni, &owner.instance));
        let owners = owners.filter(|(eni, _)| !self.enis.contains_key(*eni));
        let interfaces = answer.interfaces.iter().map(|(eni, interface)| (eni, &interface.instance));
        for (eni, instance) in owners.chain(interfaces).filter(|(eni, _)| targets.contains(*eni)) {
            let new = || Attachment { to: instance.clone(), is_current: true, is_logged: false };
            let attachment = self.attachments.entry(eni.clone()).or_insert_with(new);
            if attachment.to == *instance {
                attachment.is_current = true;
            } else {
                *attachment = new();
            }
        }
        for (eni, interface) in mem::take(&mut answer.interfaces) {
            if targets.contains(&eni) {
                self.enis.insert(eni, DescribedEni { interface, no_room: None, gets_route: false });
            }
        }
        if !described.is_empty() {
            self.update_enis();
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
        (who == Who::ThirdParty && !others.is_empty()).then_some(holder)
    }
}

/// That the address is the primary address of an ENI, by the last read.
fn primary(id: &Resource, resource: &ResourceState) -> Option<PrimaryAddress> {
    PrimaryAddress::of(id.address()?, resource.owner_read.as_ref()?.owner.as_ref())
}

/// A failed claim, and what the owner explains of it.
pub(super) fn failed_claim(id: &Resource, resource: &ResourceState, error: &CallError) -> FailedClaim {
    let is_about_the_address = id.address().is_some()
        && matches!(error.class(), ErrorClass::BadResource | ErrorClass::Refused)
        && !error.failure.has_code(ErrorCode::is_no_room);
    let is_free = resource.owner_read.as_ref().is_some_and(|owner_read| owner_read.owner.is_none());
    let explanation = match primary(id, resource) {
        _ if !is_about_the_address => None,
        Some(primary) => Some(Explanation::Primary(primary)),
        None => is_free.then_some(Explanation::Unassigned),
    };
    FailedClaim { kind: id.kind(), error: error.clone(), explanation }
}
