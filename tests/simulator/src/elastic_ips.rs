//! Elastic IPs: their associations with private addresses over time, EC2's rules for changes, and the actions that read and
//! change them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::cloud::{ApiError, Cloud, View, WorldError, insert_new, text, was};
use crate::ec2::{Call, attached_to};
use crate::ids::{AllocationId, AssociationId, EniId, VpcId};
use crate::log::{AssociatedWith, AssociationMove, Cause, Moment};
use crate::simulator::{Simulator, Timeout};
use crate::wire::xml::Xml;
use crate::world;

pub(crate) struct ElasticIp {
    public: Ipv4Addr,
    /// Its account, if that differs from the world's.
    account: Option<String>,
    managed: bool,
    history: Vec<Held>,
}

/// An association of an Elastic IP, and since when it exists.
struct Held {
    since: Option<Instant>,
    association: Option<Association>,
}

/// It stays with the private address if that moves to another interface.
#[derive(Clone)]
struct Association {
    id: AssociationId,
    vpc: VpcId,
    private: Ipv4Addr,
}

/// An Elastic IP as a read of its private address shows it.
pub(crate) struct Shown {
    pub(crate) allocation: AllocationId,
    pub(crate) association: AssociationId,
    pub(crate) public: Ipv4Addr,
}

impl ElasticIp {
    fn association(&self) -> Option<&Association> {
        self.history.last()?.association.as_ref()
    }
}

impl Cloud {
    /// Adds an Elastic IP, with its first association since `since`.
    pub(crate) fn add_elastic_ip(
        &mut self,
        since: Option<Instant>,
        elastic_ip: &world::ElasticIp,
    ) -> Result<(), String> {
        let world::ElasticIp { id, public, network_interface, private, account, managed } = elastic_ip.clone();
        let id: AllocationId = id.parse().map_err(text)?;
        if self.elastic_ips.values().any(|other| other.public == public) {
            return Err(format!("{public} is there twice"));
        }
        let association = match network_interface {
            None if private.is_some() => return Err("it has a private address and no network interface".to_owned()),
            None => None,
            Some(eni) => {
                let (eni, found) = self.eni(&eni).map_err(text)?;
                let (vpc, private) = (self.vpc_of(found).map_err(text)?.clone(), private.unwrap_or(found.primary));
                if self.owner(&vpc, private) != Some(&eni) {
                    return Err(format!("{private} is not an address of {eni}"));
                }
                if let Some((other, _)) = self.elastic_ip_of(&vpc, private) {
                    return Err(format!("{private} has {other} already"));
                }
                Some(Association { id: self.new_association_id(), vpc, private })
            }
        };
        let history = vec![Held { since, association }];
        insert_new(&mut self.elastic_ips, id, ElasticIp { public, account, managed, history })
    }

    /// The Elastic IPs that were associated at that time, by private address.
    pub(crate) fn elastic_ips_at(&self, moment: Option<Instant>) -> BTreeMap<(&VpcId, Ipv4Addr), Shown> {
        let shown = |(id, elastic_ip): (&AllocationId, &'_ ElasticIp)| (id.clone(), elastic_ip.public);
        self.elastic_ips
            .iter()
            .filter_map(|entry| {
                let held = entry.1.history.iter().rev().find(|held| was(held.since, moment))?;
                let Association { id, vpc, private } = held.association.as_ref()?;
                let (allocation, public) = shown(entry);
                Some(((vpc, *private), Shown { allocation, association: id.clone(), public }))
            })
            .collect()
    }

    /// The Elastic IP that is associated with a private address now.
    fn elastic_ip_of(&self, vpc: &VpcId, private: Ipv4Addr) -> Option<(&AllocationId, &Association)> {
        self.elastic_ips.iter().find_map(|(id, elastic_ip)| {
            let association = elastic_ip.association()?;
            (association.vpc == *vpc && association.private == private).then_some((id, association))
        })
    }

    /// The Elastic IP with that id, or EC2's error for an unknown one.
    fn elastic_ip(&self, id: &str) -> Result<(AllocationId, &ElasticIp), ApiError> {
        let missing = || {
            let message = format!("The allocation ID '{id}' does not exist");
            ApiError::new(400, "InvalidAllocationID.NotFound", message)
        };
        let id: AllocationId = id.parse().map_err(|_| missing())?;
        let found = self.elastic_ips.get(&id).ok_or_else(missing)?;
        Ok((id, found))
    }

    /// The same for an action that changes it, with EC2's errors for Elastic IPs that the caller may not change.
    fn own_elastic_ip(&self, id: &str) -> Result<(AllocationId, &ElasticIp), ApiError> {
        let failure = |message: String| Err(ApiError::new(400, "AuthFailure", message));
        match self.elastic_ip(id)? {
            (_, ElasticIp { account: Some(_), .. }) => failure(format!("The address '{id}' does not belong to you.")),
            (_, ElasticIp { managed: true, .. }) => {
                failure("You do not have permission to access the specified resource.".to_owned())
            }
            found => Ok(found),
        }
    }

    fn new_association_id(&mut self) -> AssociationId {
        loop {
            let text = format!("eipassoc-{:017x}", u128::from(self.random()) & 0xf_ffff_ffff_ffff_ffff);
            if let Ok(id) = text.parse() {
                return id;
            }
        }
    }

    /// The current association of an Elastic IP.
    fn associated_with(&self, elastic_ip: &ElasticIp) -> Option<AssociatedWith> {
        let Association { vpc, private, .. } = elastic_ip.association()?;
        let network_interface = self.owner(vpc, *private)?.clone();
        Some(AssociatedWith { network_interface, private_address: *private })
    }

    /// Associates an Elastic IP with a private address of an interface.
    fn associate(
        &mut self,
        now: Moment,
        allocation: &str,
        eni: &str,
        private: Option<Ipv4Addr>,
        allow_reassociation: bool,
        cause: &Cause,
    ) -> Result<AssociationId, ApiError> {
        let (id, elastic_ip) = self.own_elastic_ip(allocation)?;
        let (eni, found) = self.eni(eni)?;
        let (vpc, private) = (self.vpc_of(found)?.clone(), private.unwrap_or(found.primary));
        let lag = Duration::from_millis(self.world.association_lag_ms);
        let fresh =
            self.owned_since(&vpc, private).is_some_and(|since| now.instant.saturating_duration_since(since) < lag);
        if self.owner(&vpc, private) != Some(&eni) || fresh {
            return Err(ApiError::value(format!("The address '{private}' is not assigned to interface '{eni}'")));
        }
        let already = |resource: &str, association: &AssociationId| {
            let message = format!("resource {resource} is already associated with associate-id {association}");
            ApiError::new(400, "Resource.AlreadyAssociated", message)
        };
        if let Some(association) = elastic_ip.association() {
            if association.vpc == vpc && association.private == private {
                return Ok(association.id.clone());
            }
            if !allow_reassociation {
                return Err(already(allocation, &association.id));
            }
        }
        if let Some((other, association)) = self.elastic_ip_of(&vpc, private) {
            if !allow_reassociation {
                return Err(already(eni.as_ref(), &association.id));
            }
            let other = other.clone();
            self.hold(now, &other, None, cause);
        }
        let association = Association { id: self.new_association_id(), vpc, private };
        let new = association.id.clone();
        self.hold(now, &id, Some(association), cause);
        Ok(new)
    }

    /// Ends an association. One that has ended is no error.
    fn disassociate(&mut self, now: Moment, association: &str, cause: &Cause) -> Result<(), ApiError> {
        let allocation = self.allocation_of(association)?;
        let (id, elastic_ip) = self.own_elastic_ip(allocation.as_ref())?;
        if elastic_ip.association().is_some_and(|current| current.id == association) {
            self.hold(now, &id, None, cause);
        }
        Ok(())
    }

    /// The Elastic IP that has or had the association.
    fn allocation_of(&self, association: &str) -> Result<AllocationId, ApiError> {
        let had = |elastic_ip: &ElasticIp| {
            elastic_ip.history.iter().filter_map(|held| held.association.as_ref()).any(|held| held.id == association)
        };
        let found = self.elastic_ips.iter().find(|(_, elastic_ip)| had(elastic_ip));
        found.map(|(id, _)| id.clone()).ok_or_else(|| {
            let message = format!("The association ID '{association}' does not exist");
            ApiError::new(400, "InvalidAssociationID.NotFound", message)
        })
    }

    fn hold(&mut self, now: Moment, id: &AllocationId, association: Option<Association>, cause: &Cause) {
        let Some(elastic_ip) = self.elastic_ips.get(id) else {
            return;
        };
        let from = self.associated_with(elastic_ip);
        if let Some(elastic_ip) = self.elastic_ips.get_mut(id) {
            elastic_ip.history.push(Held { since: Some(now.instant), association });
        }
        let to = self.elastic_ips.get(id).and_then(|elastic_ip| self.associated_with(elastic_ip));
        self.record(now, id.clone(), from, to, cause);
    }

    /// Updates the Elastic IP of a private address that has just moved: it moves along, or is disassociated if the address was
    /// unassigned.
    pub(crate) fn move_along(
        &mut self,
        now: Moment,
        (vpc, private): (&VpcId, Ipv4Addr),
        from: Option<&EniId>,
        to: Option<&EniId>,
        cause: &Cause,
    ) {
        let Some(id) = self.elastic_ip_of(vpc, private).map(|(id, _)| id.clone()) else {
            return;
        };
        if let Some(elastic_ip) = self.elastic_ips.get_mut(&id).filter(|_| to.is_none()) {
            elastic_ip.history.push(Held { since: Some(now.instant), association: None });
        }
        let place = |eni: &EniId| AssociatedWith { network_interface: eni.clone(), private_address: private };
        self.record(now, id, from.map(place), to.map(place), cause);
    }

    fn record(
        &mut self,
        now: Moment,
        allocation: AllocationId,
        from: Option<AssociatedWith>,
        to: Option<AssociatedWith>,
        cause: &Cause,
    ) {
        let cause = cause.clone();
        let (at, wall) = (now.instant, now.wall);
        self.journal.associations.push(AssociationMove { at, wall, allocation, from, to, cause });
    }
}

impl Call {
    /// The Elastic IPs that the request names.
    pub(crate) fn allocations(&self) -> Vec<String> {
        self.named("AllocationId", "allocation-id")
    }

    pub(crate) fn associate_address(
        &self,
        cloud: &mut Cloud,
        now: Moment,
        cause: &Cause,
        request_id: &str,
    ) -> Result<String, ApiError> {
        self.only(&[
            "AllocationId",
            "InstanceId",
            "NetworkInterfaceId",
            "PrivateIpAddress",
            "AllowReassociation",
            "DryRun",
        ])?;
        let allocation = self.parameters.get("AllocationId").ok_or_else(|| ApiError::missing("AllocationId"))?;
        cloud.own_elastic_ip(allocation)?;
        let eni = match (self.parameters.get("NetworkInterfaceId"), self.parameters.get("InstanceId")) {
            (Some(eni), None) => cloud.eni(eni)?.0,
            (None, Some(instance)) => self.only_interface(cloud, instance)?,
            (None, None) => return Err(ApiError::missing("NetworkInterfaceId")),
            (Some(_), Some(_)) => {
                let message = "You may specify an instance or a network interface, but not both";
                return Err(ApiError::new(400, "InvalidParameterCombination", message));
            }
        };
        let private = match self.parameters.get("PrivateIpAddress") {
            None => None,
            Some(text) => {
                let wrong = |_| ApiError::value(format!("Invalid value '{text}' for privateIpAddress"));
                Some(text.parse().map_err(wrong)?)
            }
        };
        let allow = self.flag("AllowReassociation")?;
        self.refuse_dry_run()?;
        let association = cloud.associate(now, allocation, eni.as_ref(), private, allow, cause)?;
        Ok(self.answer(request_id, |xml| {
            xml.text("return", true);
            xml.text("associationId", association);
        }))
    }

    pub(crate) fn disassociate_address(
        &self,
        cloud: &mut Cloud,
        now: Moment,
        cause: &Cause,
        request_id: &str,
    ) -> Result<String, ApiError> {
        self.only(&["AssociationId", "DryRun"])?;
        let association = self.parameters.get("AssociationId").ok_or_else(|| ApiError::missing("AssociationId"))?;
        cloud.own_elastic_ip(cloud.allocation_of(association)?.as_ref())?;
        self.refuse_dry_run()?;
        cloud.disassociate(now, association, cause)?;
        Ok(self.answer(request_id, |xml| {
            xml.text("return", true);
        }))
    }

    /// All Elastic IPs of the account: this action has no pages.
    pub(crate) fn describe_addresses(
        &self,
        cloud: &mut Cloud,
        now: Moment,
        request_id: &str,
    ) -> Result<String, ApiError> {
        self.only(&["PublicIp", "AllocationId", "Filter", "DryRun"])?;
        let moment = cloud.moment_read(now.instant);
        let view = cloud.view(moment);
        let publics = self.parameters.list("PublicIp");
        let named = self.parameters.list("AllocationId");
        let own = || cloud.elastic_ips.iter().filter(|(_, elastic_ip)| elastic_ip.account.is_none());
        for id in &named {
            if !own().any(|(own, _)| own == id.as_str()) {
                let message = format!("The allocation ID '{id}' does not exist");
                return Err(ApiError::new(400, "InvalidAllocationID.NotFound", message));
            }
        }
        for public in &publics {
            if !own().any(|(_, elastic_ip)| elastic_ip.public.to_string() == *public) {
                let message = format!("Address '{public}' not found.");
                return Err(ApiError::new(400, "InvalidAddress.NotFound", message));
            }
        }
        let wanted = |id: &AllocationId, elastic_ip: &ElasticIp| {
            named.is_empty() && publics.is_empty()
                || named.contains(&id.to_string())
                || publics.contains(&elastic_ip.public.to_string())
        };
        let candidates = own().filter(|(id, elastic_ip)| wanted(id, elastic_ip)).map(|(id, _)| id);
        let found =
            self.select(cloud.world.filter_value_limit, candidates, |id, name| values(cloud, &view, id, name))?;
        self.refuse_dry_run()?;
        Ok(self.answer(request_id, |xml| {
            xml.items("addressesSet", found, |xml, id| {
                if let Some(elastic_ip) = cloud.elastic_ips.get(id) {
                    write(xml, cloud, &view, id, elastic_ip);
                }
            });
        }))
    }
}

/// The values of an Elastic IP for a filter; `None` if there is no such filter.
fn values(cloud: &Cloud, view: &View, id: &AllocationId, name: &str) -> Option<Vec<String>> {
    let elastic_ip = cloud.elastic_ips.get(id)?;
    let place = view.elastic_ip(id);
    Some(match name {
        "allocation-id" => vec![id.to_string()],
        "association-id" => place.iter().map(|(_, _, shown)| shown.association.to_string()).collect(),
        "instance-id" => {
            place.iter().filter_map(|(eni, ..)| attached_to(cloud, eni)).map(ToString::to_string).collect()
        }
        "network-border-group" => vec![cloud.world.region.clone()],
        "network-interface-id" => place.iter().map(|(eni, ..)| eni.to_string()).collect(),
        "network-interface-owner-id" => place.iter().map(|_| cloud.world.account.clone()).collect(),
        "private-ip-address" => place.iter().map(|(_, private, _)| private.to_string()).collect(),
        "public-ip" => vec![elastic_ip.public.to_string()],
        _ => return None,
    })
}

fn write(xml: &mut Xml, cloud: &Cloud, view: &View, id: &AllocationId, elastic_ip: &ElasticIp) {
    xml.text("publicIp", elastic_ip.public);
    xml.text("allocationId", id);
    xml.text("domain", "vpc");
    if let Some((eni, private, shown)) = view.elastic_ip(id) {
        xml.optional("instanceId", attached_to(cloud, eni));
        xml.text("associationId", &shown.association);
        xml.text("networkInterfaceId", eni);
        xml.text("networkInterfaceOwnerId", &cloud.world.account);
        xml.text("privateIpAddress", private);
    }
    xml.items("tagSet", [(); 0], |_, ()| {});
    xml.text("publicIpv4Pool", "amazon");
    xml.text("networkBorderGroup", &cloud.world.region);
    if elastic_ip.managed {
        xml.text("serviceManaged", "nlb");
    }
}

impl Simulator {
    /// Adds an Elastic IP.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add_elastic_ip(&self, elastic_ip: &world::ElasticIp) -> Result<(), WorldError> {
        self.shared().change(|state| {
            let added = state.cloud.add_elastic_ip(Some(Instant::now()), elastic_ip);
            added.map_err(|fault| WorldError(vec![format!("elastic ip {}: {fault}", elastic_ip.id)]))
        })
    }

    /// The current association of the Elastic IP.
    ///
    /// # Errors
    /// It does not exist.
    pub fn association(&self, allocation: impl AsRef<str>) -> Result<Option<AssociatedWith>, ApiError> {
        let state = self.shared().state();
        let (_, elastic_ip) = state.cloud.elastic_ip(allocation.as_ref())?;
        Ok(state.cloud.associated_with(elastic_ip))
    }

    /// The private address that an Elastic IP is associated with, and its interface.
    pub fn elastic_ip(&self, public: Ipv4Addr) -> Option<(EniId, Ipv4Addr)> {
        let state = self.shared().state();
        let found = state.cloud.elastic_ips.values().find(|elastic_ip| elastic_ip.public == public)?;
        let place = state.cloud.associated_with(found)?;
        Some((place.network_interface, place.private_address))
    }

    /// All associations, disassociations and moves along with a private address so far.
    pub fn association_moves(&self) -> Vec<AssociationMove> {
        self.shared().state().cloud.journal.associations.clone()
    }

    /// A third party associates the Elastic IP with a private address of an interface, by default the primary one, by EC2's
    /// rules.
    ///
    /// # Errors
    /// EC2's own.
    pub fn steal_association(
        &self,
        allocation: impl AsRef<str>,
        eni: impl AsRef<str>,
        private: Option<Ipv4Addr>,
    ) -> Result<(), ApiError> {
        self.shared().change(|state| {
            let (allocation, eni) = (allocation.as_ref(), eni.as_ref());
            state.cloud.associate(Moment::now(), allocation, eni, private, true, &Cause::ThirdParty).map(|_| ())
        })
    }

    /// A third party disassociates the Elastic IP.
    ///
    /// # Errors
    /// EC2's own, or it is not associated.
    pub fn release_association(&self, allocation: impl AsRef<str>) -> Result<(), ApiError> {
        self.shared().change(|state| {
            let (id, elastic_ip) = state.cloud.own_elastic_ip(allocation.as_ref())?;
            let association = elastic_ip.association().map(|association| association.id.to_string());
            let association = association.ok_or_else(|| ApiError::value(format!("{id} is associated with nothing")))?;
            state.cloud.disassociate(Moment::now(), &association, &Cause::ThirdParty)
        })
    }

    /// A third party releases the Elastic IP: it no longer exists.
    ///
    /// # Errors
    /// EC2's own.
    pub fn delete_elastic_ip(&self, allocation: impl AsRef<str>) -> Result<(), ApiError> {
        self.shared().change(|state| {
            let (id, elastic_ip) = state.cloud.own_elastic_ip(allocation.as_ref())?;
            if elastic_ip.association().is_some() {
                state.cloud.hold(Moment::now(), &id, None, &Cause::ThirdParty);
            }
            state.cloud.elastic_ips.remove(&id);
            Ok(())
        })
    }

    /// Waits until the Elastic IP is associated with an address of the interface. Returns its last move there, or `None` if it
    /// has been there from the start.
    ///
    /// # Errors
    /// It was not within the time.
    pub fn wait_for_association(
        &self,
        allocation: impl AsRef<str>,
        eni: impl AsRef<str>,
        within: Duration,
    ) -> Result<Option<AssociationMove>, Timeout> {
        let (allocation, eni) = (allocation.as_ref(), eni.as_ref());
        self.wait_for(&format!("{allocation} is associated with {eni}"), within, |simulator| {
            let place = simulator.association(allocation).ok()??;
            (place.network_interface == *eni)
                .then(|| simulator.association_moves().into_iter().rev().find(|moved| moved.allocation == *allocation))
        })
    }
}
