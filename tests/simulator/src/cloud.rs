//! The state of the simulated region: its resources, and the owners of its addresses over time.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::elastic_ips::{ElasticIp, Shown};
use crate::ids::{AllocationId, Cidr, EniId, InstanceId, RouteTableId, SubnetId, VpcId};
use crate::log::{Cause, Journal, Moment, Move};
use crate::route::Ipv6Cidr;
use crate::route_tables::RouteTable;
use crate::wire::sigv4::hex;
use crate::world::{self, Batch, ClaimAnswers, StaleReads, Throttling, World};

/// An error of the EC2 API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// EC2's error code.
    pub code: String,
    /// The message.
    pub message: String,
}

impl ApiError {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> ApiError {
        ApiError { status, code: code.to_owned(), message: message.into() }
    }

    pub(crate) fn value(message: impl Into<String>) -> ApiError {
        ApiError::new(400, "InvalidParameterValue", message)
    }

    pub(crate) fn missing(parameter: &str) -> ApiError {
        ApiError::new(400, "MissingParameter", format!("The request must contain the parameter {parameter}"))
    }
}

/// A [`World`] is not valid: all its faults, each with its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the world has faults:\n{}", .0.join("\n"))]
pub struct WorldError(pub Vec<String>);

pub(crate) struct Vpc {
    pub(crate) cidr: Cidr,
    pub(crate) ipv6_cidr: Option<Ipv6Cidr>,
}

pub(crate) struct Subnet {
    pub(crate) vpc: VpcId,
    pub(crate) cidr: Cidr,
    pub(crate) ipv6_cidr: Option<Ipv6Cidr>,
    pub(crate) zone: String,
}

pub(crate) struct Eni {
    pub(crate) mac: String,
    pub(crate) subnet: SubnetId,
    pub(crate) primary: Ipv4Addr,
    pub(crate) prefixes: Vec<Cidr>,
    pub(crate) source_dest_check: bool,
    pub(crate) attachment: Option<(InstanceId, usize)>,
    pub(crate) address_limit: usize,
}

pub(crate) struct Instance {
    pub(crate) role: Option<Role>,
    pub(crate) running: bool,
}

pub(crate) struct Role {
    pub(crate) name: String,
    /// The access key that IMDS returns now.
    pub(crate) key: String,
    pub(crate) updated: Timestamp,
}

pub(crate) struct Key {
    pub(crate) secret: Option<String>,
    pub(crate) session_token: Option<String>,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) instance: Option<InstanceId>,
}

/// An owner of an address, and since when it has it. `eni` is `None` while the address is unassigned.
struct Held {
    since: Option<Instant>,
    eni: Option<EniId>,
}

pub(crate) struct Cloud {
    pub(crate) world: World,
    pub(crate) vpcs: BTreeMap<VpcId, Vpc>,
    pub(crate) subnets: BTreeMap<SubnetId, Subnet>,
    pub(crate) enis: BTreeMap<EniId, Eni>,
    pub(crate) instances: BTreeMap<InstanceId, Instance>,
    pub(crate) route_tables: BTreeMap<RouteTableId, RouteTable>,
    /// The targets of routes that have been deleted, except for network interfaces.
    pub(crate) deleted_gateways: BTreeSet<String>,
    pub(crate) elastic_ips: BTreeMap<AllocationId, ElasticIp>,
    pub(crate) keys: BTreeMap<String, Key>,
    pub(crate) started: Timestamp,
    pub(crate) journal: Journal,
    addresses: BTreeMap<(VpcId, Ipv4Addr), Vec<Held>>,
    buckets: BTreeMap<String, (f64, Instant)>,
    random: u64,
}

/// A private address on an interface, with its Elastic IP.
pub(crate) struct Assigned {
    pub(crate) address: Ipv4Addr,
    pub(crate) elastic_ip: Option<Shown>,
}

/// The addresses of each interface, as one read shows them.
pub(crate) struct View(BTreeMap<EniId, Vec<Assigned>>);

impl View {
    /// The private addresses of an interface, the primary one first.
    pub(crate) fn of(&self, eni: &EniId) -> &[Assigned] {
        self.0.get(eni).map_or(&[], Vec::as_slice)
    }

    /// The interface and private address of an Elastic IP.
    pub(crate) fn elastic_ip(&self, id: &AllocationId) -> Option<(&EniId, Ipv4Addr, &Shown)> {
        self.0.iter().find_map(|(eni, addresses)| {
            addresses.iter().find_map(|assigned| {
                let shown = assigned.elastic_ip.as_ref().filter(|shown| shown.allocation == *id)?;
                Some((eni, assigned.address, shown))
            })
        })
    }
}

impl Cloud {
    /// Checks the world and builds its state. The error has all faults.
    pub(crate) fn build(world: World) -> Result<Cloud, WorldError> {
        let mut faults = Vec::new();
        let mut cloud = Cloud {
            vpcs: BTreeMap::new(),
            subnets: BTreeMap::new(),
            enis: BTreeMap::new(),
            instances: BTreeMap::new(),
            route_tables: BTreeMap::new(),
            deleted_gateways: BTreeSet::new(),
            elastic_ips: BTreeMap::new(),
            keys: BTreeMap::new(),
            started: Timestamp::now(),
            journal: Journal::default(),
            addresses: BTreeMap::new(),
            buckets: BTreeMap::new(),
            random: 0x9e37_79b9_7f4a_7c15,
            world: world.clone(),
        };
        for vpc in &world.vpcs {
            if let Err(fault) = cloud.add_vpc(vpc) {
                faults.push(format!("vpc {}: {fault}", vpc.id));
            }
        }
        for subnet in &world.subnets {
            if let Err(fault) = cloud.add_subnet(subnet) {
                faults.push(format!("subnet {}: {fault}", subnet.id));
            }
        }
        for instance in &world.instances {
            if let Err(fault) = cloud.add_instance(instance) {
                faults.push(format!("instance {}: {fault}", instance.id));
                continue;
            }
            for (index, interface) in instance.network_interfaces.iter().enumerate() {
                let attachment = instance.id.parse().ok().map(|id| (id, index));
                if let Err(fault) = cloud.add_interface(interface, attachment) {
                    faults.push(format!("instance {} network interface {}: {fault}", instance.id, interface.id));
                }
            }
        }
        for interface in &world.network_interfaces {
            if let Err(fault) = cloud.add_interface(interface, None) {
                faults.push(format!("network interface {}: {fault}", interface.id));
            }
        }
        for table in &world.route_tables {
            if let Err(fault) = cloud.add_route_table(table) {
                faults.push(format!("route table {}: {fault}", table.id));
            }
        }
        for elastic_ip in &world.elastic_ips {
            if let Err(fault) = cloud.add_elastic_ip(None, elastic_ip) {
                faults.push(format!("elastic ip {}: {fault}", elastic_ip.id));
            }
        }
        for key in &world.access_keys {
            let after = key.expires_after_seconds.map(|seconds| cloud.started + Duration::from_secs(seconds));
            cloud.keys.insert(
                key.id.clone(),
                Key {
                    secret: key.secret.clone(),
                    session_token: key.session_token.clone(),
                    expires: after,
                    instance: None,
                },
            );
        }
        match faults.is_empty() {
            true => Ok(cloud),
            false => Err(WorldError(faults)),
        }
    }

    fn add_vpc(&mut self, vpc: &world::Vpc) -> Result<(), String> {
        let cidr = vpc.cidr.parse().map_err(text)?;
        let ipv6_cidr = vpc.ipv6_cidr.as_deref().map(str::parse).transpose().map_err(text)?;
        insert_new(&mut self.vpcs, vpc.id.parse().map_err(text)?, Vpc { cidr, ipv6_cidr })
    }

    fn add_subnet(&mut self, subnet: &world::Subnet) -> Result<(), String> {
        let vpc: VpcId = subnet.vpc.parse().map_err(text)?;
        let cidr: Cidr = subnet.cidr.parse().map_err(text)?;
        let ipv6_cidr: Option<Ipv6Cidr> = subnet.ipv6_cidr.as_deref().map(str::parse).transpose().map_err(text)?;
        let outer = self.vpcs.get(&vpc).ok_or(format!("{vpc} does not exist"))?;
        if !outer.cidr.covers(cidr) {
            return Err(format!("{cidr} is not inside {vpc}'s {}", outer.cidr));
        }
        if let Some(cidr) = ipv6_cidr.filter(|cidr| !outer.ipv6_cidr.is_some_and(|outer| outer.covers(*cidr))) {
            return Err(format!("{cidr} is not inside an IPv6 block of {vpc}"));
        }
        for (id, other) in self.subnets.iter().filter(|(_, other)| other.vpc == vpc) {
            let ipv6 = other.ipv6_cidr.zip(ipv6_cidr);
            if other.cidr.covers(cidr)
                || cidr.covers(other.cidr)
                || ipv6.is_some_and(|(a, b)| a.covers(b) || b.covers(a))
            {
                return Err(format!("{cidr} overlaps {id}"));
            }
        }
        let zone = subnet.availability_zone.clone();
        let id = subnet.id.parse().map_err(text)?;
        insert_new(&mut self.subnets, id, Subnet { vpc, cidr, ipv6_cidr, zone })
    }

    fn add_instance(&mut self, instance: &world::Instance) -> Result<(), String> {
        let id: InstanceId = instance.id.parse().map_err(text)?;
        insert_new(&mut self.instances, id.clone(), Instance { role: None, running: true })?;
        if let Some(role) = &instance.role {
            self.give_role_key(&id, role, Duration::from_secs(self.world.role_keys.valid_seconds));
        }
        Ok(())
    }

    fn add_interface(
        &mut self,
        interface: &world::NetworkInterface,
        attachment: Option<(InstanceId, usize)>,
    ) -> Result<(), String> {
        let id: EniId = interface.id.parse().map_err(text)?;
        let subnet: SubnetId = interface.subnet.parse().map_err(text)?;
        let place = self.subnets.get(&subnet).ok_or(format!("{subnet} does not exist"))?;
        let (vpc, cidr) = (place.vpc.clone(), place.cidr);
        let prefixes: Result<Vec<Cidr>, _> =
            interface.prefixes.iter().map(|prefix| prefix.parse().map_err(text)).collect();
        let prefixes = prefixes?;
        if let Some(prefix) = prefixes.iter().find(|prefix| prefix.length() != 28 || !cidr.covers(**prefix)) {
            return Err(format!("{prefix} is not a prefix of 16 addresses in {cidr}"));
        }
        let count = 1 + interface.secondary.len() + prefixes.len();
        if count > interface.address_limit {
            return Err(format!("{count} addresses exceed its limit"));
        }
        let eni = Eni {
            mac: interface.mac.to_ascii_lowercase(),
            subnet,
            primary: interface.primary,
            prefixes,
            source_dest_check: interface.source_dest_check,
            attachment,
            address_limit: interface.address_limit,
        };
        insert_new(&mut self.enis, id.clone(), eni)?;
        for address in std::iter::once(&interface.primary).chain(&interface.secondary) {
            if !cidr.contains(*address) || cidr.reserves(*address) {
                return Err(format!("{address} is not usable in {cidr}"));
            }
            let held = vec![Held { since: None, eni: Some(id.clone()) }];
            insert_new(&mut self.addresses, (vpc.clone(), *address), held)
                .map_err(|_| format!("{address} is someone's already"))?;
        }
        for (private, public) in &interface.elastic_ips {
            let allocation = format!("eipalloc-{:017x}", u32::from(*public));
            self.add_elastic_ip(None, &world::ElasticIp::new(&allocation, *public).on(&interface.id, *private))?;
        }
        Ok(())
    }

    /// Makes a new key for an instance's role, which IMDS returns from now on.
    pub(crate) fn give_role_key(&mut self, id: &InstanceId, role: &str, valid: Duration) -> String {
        let key = format!("ASIA{:016X}", self.random());
        let secret = hex(&[self.random().to_be_bytes(), self.random().to_be_bytes()].concat());
        let session_token = format!("session-{:016x}", self.random());
        let now = Timestamp::now();
        self.keys.insert(
            key.clone(),
            Key {
                secret: Some(secret),
                session_token: Some(session_token),
                expires: Some(now + valid),
                instance: Some(id.clone()),
            },
        );
        if let Some(instance) = self.instances.get_mut(id) {
            instance.role = Some(Role { name: role.to_owned(), key: key.clone(), updated: now });
        }
        key
    }

    /// Makes a new key for an instance's role if the world renews keys and the present one is old enough.
    pub(crate) fn renew_role_key(&mut self, id: &InstanceId) {
        let world::RoleKeys { valid_seconds, renewed_seconds_before_expiry } = self.world.role_keys;
        let Some(role) = self.instances.get(id).and_then(|instance| instance.role.as_ref()) else {
            return;
        };
        let expires = self.keys.get(&role.key).and_then(|key| key.expires);
        let due = expires
            .zip(renewed_seconds_before_expiry)
            .is_some_and(|(expires, before)| Timestamp::now() + Duration::from_secs(before) >= expires);
        if due {
            let name = role.name.clone();
            self.give_role_key(id, &name, Duration::from_secs(valid_seconds));
        }
    }

    /// The next number of a sequence that is the same in each run (xorshift64).
    pub(crate) fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// The time whose state a read shows.
    pub(crate) fn moment_read(&mut self, now: Instant) -> Option<Instant> {
        let age = match self.world.stale_reads {
            StaleReads::ExactlyMs(age) => age,
            StaleReads::UpToMs(bound) => self.random() % (bound + 1),
        };
        now.checked_sub(Duration::from_millis(age))
    }

    /// The addresses of each interface at that time; `None` is before the start.
    pub(crate) fn view(&self, moment: Option<Instant>) -> View {
        let mut view: BTreeMap<EniId, Vec<Assigned>> = BTreeMap::new();
        let mut elastic_ips = self.elastic_ips_at(moment);
        for ((vpc, address), history) in &self.addresses {
            let seen = history.iter().rev().find(|held| was(held.since, moment));
            if let Some(Held { eni: Some(eni), .. }) = seen {
                let elastic_ip = elastic_ips.remove(&(vpc, *address));
                view.entry(eni.clone()).or_default().push(Assigned { address: *address, elastic_ip });
            }
        }
        for (eni, addresses) in &mut view {
            let primary = self.enis.get(eni).map(|eni| eni.primary);
            addresses.sort_by_key(|assigned| (Some(assigned.address) != primary, assigned.address));
        }
        View(view)
    }

    /// The current owner of an address of a VPC.
    pub(crate) fn owner(&self, vpc: &VpcId, address: Ipv4Addr) -> Option<&EniId> {
        self.addresses.get(&(vpc.clone(), address))?.last()?.eni.as_ref()
    }

    /// When the owner of an address got it; `None`: at the start.
    pub(crate) fn owned_since(&self, vpc: &VpcId, address: Ipv4Addr) -> Option<Instant> {
        self.addresses.get(&(vpc.clone(), address))?.last()?.since
    }

    /// The VPC of an interface.
    pub(crate) fn vpc_of(&self, eni: &Eni) -> Result<&VpcId, ApiError> {
        let subnet = self.subnets.get(&eni.subnet);
        subnet.map(|subnet| &subnet.vpc).ok_or(ApiError::new(500, "InternalError", "An internal error has occurred"))
    }

    /// The VPC of addresses that tests give without one: that of the first instance, or without instances the first VPC.
    pub(crate) fn home(&self) -> Option<VpcId> {
        let of_instance = |world: &World| {
            let interface = world.instances.first()?.network_interfaces.first()?;
            let subnet: SubnetId = interface.subnet.parse().ok()?;
            Some(self.subnets.get(&subnet)?.vpc.clone())
        };
        of_instance(&self.world).or_else(|| self.world.vpcs.first()?.id.parse().ok())
    }

    /// The interface with that id, or EC2's error for a malformed or unknown one.
    pub(crate) fn eni(&self, id: &str) -> Result<(EniId, &Eni), ApiError> {
        let id: EniId = id.parse().map_err(|_| {
            let message = format!("Invalid id: \"{id}\"");
            ApiError::new(400, "InvalidNetworkInterfaceID.Malformed", message)
        })?;
        match self.enis.get(&id) {
            Some(eni) => Ok((id, eni)),
            None => Err(ApiError::new(
                400,
                "InvalidNetworkInterfaceID.NotFound",
                format!("The networkInterface ID '{id}' does not exist"),
            )),
        }
    }

    /// The instance with that id, or EC2's error for a malformed or unknown one.
    pub(crate) fn instance(&self, id: &str) -> Result<InstanceId, ApiError> {
        let error = |code, message| Err(ApiError::new(400, code, message));
        match id.parse() {
            Err(_) => error("InvalidInstanceID.Malformed", format!("Invalid id: \"{id}\"")),
            Ok(id) if self.instances.contains_key(&id) => Ok(id),
            Ok(id) => error("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist")),
        }
    }

    /// Assigns addresses to an interface. In spite of an error, some may have moved: see [`Batch::OthersMove`].
    pub(crate) fn assign(
        &mut self,
        now: Moment,
        eni: &str,
        addresses: &[Ipv4Addr],
        allow_reassignment: bool,
        cause: &Cause,
    ) -> Result<(), ApiError> {
        let (id, eni) = self.eni(eni)?;
        let (vpc, subnet, limit) = (self.vpc_of(eni)?.clone(), &self.subnets[&eni.subnet], eni.address_limit);
        let cidr = subnet.cidr;
        let mut count = self.view(Some(now.instant)).of(&id).len() + eni.prefixes.len();
        let mut accepted = BTreeSet::new();
        let mut first_error = None;
        for address in addresses {
            let owner = self.owner(&vpc, *address);
            let checked = if !cidr.contains(*address) {
                Err(ApiError::value(format!("Address {address} does not fall within the subnet's address range")))
            } else if cidr.reserves(*address) {
                Err(ApiError::value(format!("Address {address} is in subnet's reserved address range")))
            } else if owner.is_some_and(|owner| self.is_primary(owner, *address)) {
                Err(ApiError::value(format!(
                    "Address {address} is the primary address of an interface and cannot be moved"
                )))
            } else if owner.is_some_and(|owner| *owner != id) && !allow_reassignment {
                Err(ApiError::value(format!("[{address}] is already assigned, but move is not allowed")))
            } else if owner == Some(&id) && self.world.refuse_reassignment_to_same_interface {
                Err(ApiError::value(format!("[{address}] is already assigned to {id}")))
            } else if owner != Some(&id) && !accepted.contains(address) && count >= limit {
                Err(ApiError::new(
                    400,
                    "PrivateIpAddressLimitExceeded",
                    format!("Number of private addresses will exceed limit of {limit}"),
                ))
            } else {
                Ok(())
            };
            match checked {
                Ok(()) => {
                    let is_new = owner != Some(&id);
                    count += usize::from(accepted.insert(*address) && is_new);
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        let result = first_error.map_or(Ok(()), Err);
        if result.is_err() && self.world.batch == Batch::AllOrNothing {
            return result;
        }
        let first_alone = self.world.claim_answers == ClaimAnswers::FirstMoves && matches!(cause, Cause::Request(_));
        let moving = addresses.iter().take(if first_alone { 1 } else { addresses.len() });
        for address in moving.copied().filter(|address| accepted.contains(address)) {
            self.hand_over(now, &vpc, address, Some(&id), cause);
        }
        result
    }

    /// Unassigns secondary addresses of an interface; their Elastic IPs are disassociated.
    pub(crate) fn unassign(
        &mut self,
        now: Moment,
        eni: &str,
        addresses: &[Ipv4Addr],
        cause: &Cause,
    ) -> Result<(), ApiError> {
        let (id, eni) = self.eni(eni)?;
        let vpc = self.vpc_of(eni)?.clone();
        for address in addresses {
            if self.owner(&vpc, *address) != Some(&id) {
                return Err(ApiError::value(format!("[{address}] is not assigned to interface {id}")));
            }
            if self.is_primary(&id, *address) {
                return Err(ApiError::value(format!("{address} is the primary address of {id}")));
            }
        }
        for address in addresses {
            self.hand_over(now, &vpc, *address, None, cause);
        }
        Ok(())
    }

    fn is_primary(&self, eni: &EniId, address: Ipv4Addr) -> bool {
        self.enis.get(eni).is_some_and(|eni| eni.primary == address)
    }

    fn hand_over(&mut self, now: Moment, vpc: &VpcId, address: Ipv4Addr, to: Option<&EniId>, cause: &Cause) {
        let history = self.addresses.entry((vpc.clone(), address)).or_default();
        let from = history.last().and_then(|held| held.eni.clone());
        if from.as_ref() == to {
            return;
        }
        history.push(Held { since: Some(now.instant), eni: to.cloned() });
        self.move_along(now, (vpc, address), from.as_ref(), to, cause);
        self.journal.addresses.push(Move {
            at: now.instant,
            wall: now.wall,
            vpc: vpc.clone(),
            address,
            from,
            to: to.cloned(),
            cause: cause.clone(),
        });
    }

    /// Takes a token from the action's bucket. Returns whether there was one.
    pub(crate) fn admit(&mut self, now: Instant, action: &str, mutating: bool) -> bool {
        let Some(Throttling { mutating_burst, mutating_per_second, reading_burst, reading_per_second }) =
            self.world.throttling
        else {
            return true;
        };
        let (burst, rate) = match mutating {
            true => (mutating_burst, mutating_per_second),
            false => (reading_burst, reading_per_second),
        };
        let (tokens, since) = self.buckets.entry(action.to_owned()).or_insert((burst, now));
        *tokens = burst.min(*tokens + rate * now.saturating_duration_since(*since).as_secs_f64());
        *since = now;
        let admitted = *tokens >= 1.0;
        *tokens -= f64::from(u8::from(admitted));
        admitted
    }

    /// Removes an interface with its addresses, as `DeleteNetworkInterface` does.
    pub(crate) fn delete_interface(&mut self, now: Moment, id: &EniId, cause: &Cause) {
        let held: Vec<(VpcId, Ipv4Addr)> = self
            .addresses
            .iter()
            .filter(|(_, history)| history.last().and_then(|held| held.eni.as_ref()) == Some(id))
            .map(|(key, _)| key.clone())
            .collect();
        self.enis.remove(id);
        for (vpc, address) in &held {
            self.hand_over(now, vpc, *address, None, cause);
        }
    }
}

/// Whether a state since one time (`None`: from the start) existed at the other time.
pub(crate) fn was(since: Option<Instant>, moment: Option<Instant>) -> bool {
    since.is_none_or(|since| moment.is_some_and(|moment| since <= moment))
}

pub(crate) fn insert_new<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) -> Result<(), String> {
    match map.entry(key) {
        Entry::Vacant(entry) => {
            entry.insert(value);
            Ok(())
        }
        Entry::Occupied(_) => Err("is there twice".to_owned()),
    }
}

pub(crate) fn text(error: impl ToString) -> String {
    error.to_string()
}
