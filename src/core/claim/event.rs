//! The inputs of the state machine ([`Event`]), and its outputs ([`Action`]).

#![allow(missing_docs, reason = "the names and types of most fields say it all")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::BootInstant;
use super::reason::Obstacle;
use crate::keepalived::groups::Groups;
use crate::model::config::Config;
use crate::model::credentials::CredentialsChange;
use crate::model::ec2::{Acknowledgement, AddressLimit, CallError, Eni, Interface, Owner, Taker};
use crate::model::ids::{AllocationId, EniId, GroupName, InstanceId, InterfaceName, VpcId};
use crate::model::path::LocalNetwork;
use crate::model::resource::{Holder, Kind, NotTakeable, Resource, Route};
use crate::model::vrrp::{NotifyEvent, NotifyState, VrrpState};

/// The kind of process that added an address to its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PutBy {
    /// A command that had ended one second later, such as ip(8).
    Command,
    /// A process that still ran one second later, such as keepalived.
    Process,
}

/// How the address on a local interface contradicts the VRRP state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Misplaced {
    /// The group is MASTER and the address is assigned to this router, but it is not on its interface.
    Missing,
    /// The group is not MASTER, but the address is on its interface.
    Unexpected,
}

/// Identifies a claim in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId(pub u64);

/// Identifies a dry run in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DryRunId(pub u64);

/// Identifies a read in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// The ownership losses of a resource before the agent started. Losses before the group last left MASTER, and before this
/// router booted, are not included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredState {
    pub group: GroupName,
    pub resource: Resource,
    /// When each loss happened, and which kind of owner took it.
    pub losses: Vec<(BootInstant, Taker)>,
    /// The kinds of owner with which it was still contested.
    pub contested: Vec<Taker>,
}

/// An input of the state machine.
#[derive(Debug, Clone)]
pub enum Event {
    /// The state from before the agent started. If there is any, this is the first event.
    Restored(Vec<RestoredState>),
    /// The id of this instance was read from IMDS.
    Instance(InstanceId),
    /// A configuration was loaded. It replaces the previous one.
    Config(Config),
    /// The groups that keepalived runs after its next reload.
    Groups(Groups),
    /// keepalived wrote these notify events just now.
    Notify(Vec<NotifyEvent>),
    /// Notify events that were in the FIFO when the agent opened it, in order.
    Backlog {
        lines: Vec<NotifyEvent>,
        /// The FIFO was full: newer notify events may be lost.
        was_full: bool,
    },
    /// The FIFO was full while it was read: notify events may be lost.
    FifoFull,
    /// A writer closed the FIFO: keepalived has reloaded.
    Hup,
    /// Whether keepalived holds the FIFO open.
    Writer(bool),
    /// The IPv4 addresses of local interfaces.
    LocalAddresses {
        /// For each address, the interfaces that have it.
        addresses: BTreeMap<Ipv4Addr, BTreeSet<InterfaceName>>,
        /// Whether this is the response to [`Action::ReadLocalAddresses`].
        requested: bool,
    },
    /// The response to [`Action::ReadNetwork`].
    Network(LocalNetwork),
    /// Which kind of process added each address, where the kernel's notification shows it. Replaces the previous one.
    PutBy(BTreeMap<Ipv4Addr, BTreeMap<InterfaceName, PutBy>>),
    /// keepalived's VRRP process has run.
    Liveness {
        /// The process ran after this time.
        after: BootInstant,
    },
    /// keepalived's VRRP process is asleep and has not run.
    Inactive {
        /// The process has not run since this time, or earlier.
        since: BootInstant,
    },
    /// The response to [`Action::Resolve`].
    Resolved {
        interface: InterfaceName,
        /// The ENI, or the failure.
        eni: Result<Eni, CallError>,
    },
    /// The response to [`Action::Claim`].
    Claimed {
        id: ClaimId,
        /// EC2's acknowledgement, or the failure.
        result: Result<Acknowledgement, CallError>,
    },
    /// The response to [`Action::Read`].
    Read {
        id: ReadId,
        /// What the read shows, or the failure.
        result: Result<ReadAnswer, CallError>,
    },
    /// The response to [`Action::Inspect`].
    Inspected(Inspection),
    /// The response to [`Action::DryRun`].
    DryRun {
        id: DryRunId,
        /// That EC2 permits the calls, or the failure.
        result: Result<(), CallError>,
    },
    /// A proof that an operator has requested shows that EC2 permits to assign addresses to the ENI.
    Proved(EniId),
    /// EC2's answer to a dry run that an operator has requested, if the caller is still the same.
    DryRunByOperator {
        request: DryRunRequest,
        /// That EC2 permits the calls, or the failure.
        result: Result<(), CallError>,
    },
    /// The ENIs for which the last proof was denied, as far as it counts for the present credentials. Replaces the previous
    /// ones.
    Denials(BTreeMap<EniId, CallError>),
    /// The credentials have changed, or are the first.
    Credentials(CredentialsChange),
    /// An operator paused a group, possibly before the agent started.
    Pause {
        group: GroupName,
        /// When the pause ends.
        until: BootInstant,
    },
    /// An operator ended a pause.
    Resume(GroupName),
    /// An operator asked for a claim of what the group moves. Call [`super::Machine::refuses_force`] first.
    Force(GroupName),
    /// An operator asked for the current owners.
    ReadNow,
    /// A deadline has passed.
    Tick,
}

/// An output of the state machine: something that the agent has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send the claim; respond with [`Event::Claimed`].
    Claim {
        id: ClaimId,
        request: ClaimRequest,
        /// The timeout of the attempt.
        timeout: Duration,
        /// The notify events that have caused it, by resource. A retry has them again.
        notified: Vec<(Resource, BootInstant)>,
    },
    /// Send the read; respond with [`Event::Read`].
    Read {
        id: ReadId,
        request: ReadRequest,
        /// The timeout of each request.
        timeout: Duration,
    },
    /// Make the calls of a claim with DryRun, which changes nothing; respond with [`Event::DryRun`].
    DryRun {
        id: DryRunId,
        request: DryRunRequest,
        /// The timeout of all of them.
        timeout: Duration,
    },
    /// Read what the regular reads do not show; respond with [`Event::Inspected`].
    Inspect {
        /// Whether to read how many addresses each ENI of this instance can have.
        wants_limit: bool,
        /// The ENIs to describe, by their ids.
        enis: Vec<EniId>,
        /// The timeout of each request.
        timeout: Duration,
    },
    /// Read the ENI of an interface from IMDS; respond with [`Event::Resolved`].
    Resolve(InterfaceName),
    /// Read the kernel's addresses; respond with a `requested` [`Event::LocalAddresses`].
    ReadLocalAddresses,
    /// Read from the kernel whether this router forwards, and its paths to EC2 and IMDS; respond with [`Event::Network`].
    ReadNetwork,
    /// Log the event, and add most kinds of it to the history.
    Log(LogEvent),
}

/// The call that claims resources for an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimRequest {
    /// AssignPrivateIpAddresses with AllowReassignment.
    Addresses {
        /// The ENI to assign the addresses to.
        eni: EniId,
        addresses: Vec<Ipv4Addr>,
    },
    /// ReplaceRoute; CreateRoute where the table has no such route.
    Route {
        route: Route,
        /// The ENI that it is to lead to.
        eni: EniId,
    },
    /// AssociateAddress with AllowReassociation.
    ElasticIp {
        allocation: AllocationId,
        /// The ENI to associate it with.
        eni: EniId,
        /// The private address of that ENI; absent: its primary address.
        private_address: Option<Ipv4Addr>,
    },
}

impl ClaimRequest {
    /// The ENI that the claim is for.
    pub fn eni(&self) -> &EniId {
        match self {
            Self::Addresses { eni, .. } | Self::Route { eni, .. } | Self::ElasticIp { eni, .. } => eni,
        }
    }

    /// The kind of what it claims.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Addresses { .. } => Kind::Address,
            Self::Route { .. } => Kind::Route,
            Self::ElasticIp { .. } => Kind::ElasticIp,
        }
    }

    /// What it claims.
    pub fn resources(&self) -> Vec<Resource> {
        match self {
            Self::Addresses { addresses, .. } => addresses.iter().copied().map(Resource::Address).collect(),
            Self::Route { route, .. } => vec![Resource::Route(route.clone())],
            Self::ElasticIp { allocation, .. } => vec![Resource::ElasticIp(allocation.clone())],
        }
    }
}

/// The calls of a claim, with DryRun. AssignPrivateIpAddresses has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DryRunRequest {
    /// ReplaceRoute.
    Route {
        route: Route,
        /// The ENI that it is to lead to.
        eni: EniId,
        /// The table has no such route: CreateRoute, too.
        creates: bool,
    },
    /// AssociateAddress.
    ElasticIp {
        allocation: AllocationId,
        /// The ENI to associate it with.
        eni: EniId,
        /// The private address of that ENI; absent: its primary address.
        private_address: Option<Ipv4Addr>,
    },
}

impl DryRunRequest {
    /// The most of each kind for one command: EC2 allows 50 such calls at once, and a failover may follow.
    pub const MAX_PER_KIND: usize = 20;

    /// The calls of a claim for this ENI; none for an address. `creates`: the table has no such route. `private_address` of an
    /// Elastic IP: absent also if it is an address that moves, because a standby's ENI does not have that yet, and this is no
    /// reason against the association.
    pub fn new(resource: &Resource, eni: EniId, creates: bool, private_address: Option<Ipv4Addr>) -> Option<Self> {
        match resource.clone() {
            Resource::Address(_) => None,
            Resource::Route(route) => Some(Self::Route { route, eni, creates }),
            Resource::ElasticIp(allocation) => Some(Self::ElasticIp { allocation, eni, private_address }),
        }
    }

    /// As many of each kind as EC2 should get for one command of an operator, of routes first one in each table, because a
    /// policy names tables.
    pub fn chosen(requests: Vec<Self>) -> Vec<Self> {
        let mut seen = BTreeSet::new();
        let (first, others): (Vec<_>, Vec<_>) = requests.into_iter().partition(|request| match request {
            Self::Route { route, .. } => seen.insert(route.table.clone()),
            Self::ElasticIp { .. } => true,
        });
        let mut left = Kind::ALL.map(|_| Self::MAX_PER_KIND);
        let take = |request: &Self| {
            let left = &mut left[request.resource().kind() as usize];
            let is_taken = *left > 0;
            *left = left.saturating_sub(1);
            is_taken
        };
        first.into_iter().chain(others).filter(take).collect()
    }

    /// What the claim is for.
    pub fn resource(&self) -> Resource {
        match self {
            Self::Route { route, .. } => Resource::Route(route.clone()),
            Self::ElasticIp { allocation, .. } => Resource::ElasticIp(allocation.clone()),
        }
    }
}

/// A read of owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadRequest {
    /// DescribeNetworkInterfaces.
    Addresses {
        /// The VPC of the addresses: a private address is unique only within its VPC.
        vpc: VpcId,
        /// The addresses, the primary ones of `enis` among them.
        addresses: Vec<Ipv4Addr>,
        /// The ENIs to describe.
        enis: Vec<EniId>,
    },
    /// DescribeRouteTables.
    Routes(Vec<Route>),
    /// DescribeAddresses.
    ElasticIps(Vec<AllocationId>),
}

impl ReadRequest {
    /// The kind of what it reads.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Addresses { .. } => Kind::Address,
            Self::Routes(_) => Kind::Route,
            Self::ElasticIps(_) => Kind::ElasticIp,
        }
    }

    /// What it reads.
    pub fn resources(&self) -> Vec<Resource> {
        match self {
            Self::Addresses { addresses, .. } => addresses.iter().copied().map(Resource::Address).collect(),
            Self::Routes(routes) => routes.iter().cloned().map(Resource::Route).collect(),
            Self::ElasticIps(allocations) => allocations.iter().cloned().map(Resource::ElasticIp).collect(),
        }
    }
}

/// What a read of owners shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadAnswer {
    /// The holder of each resource. A resource that is free is absent.
    pub holders: BTreeMap<Resource, Holder>,
    /// The description of each ENI that was to be described; one that EC2 does not show is absent.
    pub interfaces: BTreeMap<EniId, Interface>,
}

impl From<BTreeMap<Resource, Holder>> for ReadAnswer {
    fn from(holders: BTreeMap<Resource, Holder>) -> Self {
        Self { holders, interfaces: BTreeMap::new() }
    }
}

/// What the regular reads do not show. Absent: it was not to be read.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// How many addresses each ENI of this instance can have, or the failure.
    pub limit: Option<Result<AddressLimit, CallError>>,
    /// The description of each ENI; one that does not exist is absent.
    pub interfaces: Option<Result<BTreeMap<EniId, Interface>, CallError>>,
}

/// An event for the log and the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// The state of a group has changed.
    Transition { group: GroupName, from: VrrpState, to: VrrpState, cause: Cause },
    /// A claim was acknowledged, or has failed.
    Claim {
        request: ClaimRequest,
        /// The previous owner of the first resource that has a known one.
        previous: Option<Owner>,
        /// How long the call took.
        duration: Duration,
        /// EC2's acknowledgement, or the failure.
        result: Result<Acknowledgement, CallError>,
    },
    /// A read of the owners has failed, or succeeded for the first time after a failure.
    Read {
        /// The kind of what was read.
        kind: Kind,
        /// The failure, if any.
        error: Option<CallError>,
    },
    /// A verified resource went to another ENI.
    OwnershipLost {
        group: GroupName,
        resource: Resource,
        /// The new owner.
        by: Owner,
        /// What the new owner is to the group.
        taker: Taker,
    },
    /// Ownership was lost too often in a short time.
    Contested {
        group: GroupName,
        resource: Resource,
        /// The new owner.
        by: Owner,
        /// What the new owner is to the group.
        taker: Taker,
    },
    /// The resource is no longer contested.
    ContestedEnded {
        group: GroupName,
        resource: Resource,
        /// The kind of owner with which it was contested.
        taker: Taker,
    },
    /// A route or an Elastic IP cannot be claimed.
    NotTakeable { group: GroupName, resource: Resource, why: NotTakeable },
    /// A claim was due, but the group's address is not on a local interface.
    NotLocal { group: GroupName, resource: Resource },
    /// An address contradicts the VRRP state, or no longer does.
    Placement {
        group: GroupName,
        address: Ipv4Addr,
        interface: InterfaceName,
        /// The contradiction; absent if it has ended.
        wrong: Option<Misplaced>,
    },
    /// A standby has become ready or not ready to take over.
    Readiness {
        group: GroupName,
        /// What prevents a takeover; absent if the standby is ready.
        obstacle: Option<Obstacle>,
    },
    /// The ENI that should have resources is not attached to this instance.
    EniElsewhere {
        eni: EniId,
        /// The instance that it is attached to, if any.
        instance: Option<InstanceId>,
    },
    /// An ENI of neither router has resources that a standby would claim.
    ForeignHolder { resources: Vec<Resource>, by: Owner },
    /// The ENI of an interface could not be resolved.
    Unresolved { interface: InterfaceName, error: CallError },
}

/// Why the state of a group has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A notify event of keepalived.
    Notify(NotifyState),
    /// Inferred from the local addresses and from keepalived's liveness.
    Inferred,
    /// keepalived is asleep without a timer, and the address is not on a local interface.
    NoTimer,
    /// The FIFO has had no writer for two seconds.
    NoWriter,
    /// keepalived has shown no liveness for too long.
    NoLiveness,
    /// The group seemed to be in FAULT, and keepalived is active for another reason than other groups' timers.
    ActiveAgain,
    /// This router was suspended or stalled.
    Stalled,
    /// The FIFO was full: notify events may be lost.
    FifoFull,
    /// A process added the address to an interface, without a notify event for MASTER.
    NoNotifyEvent,
    /// The group or its configuration is new.
    New,
    /// An operator paused the group.
    Paused,
    /// The pause has ended.
    PauseEnded,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_routes_one_of_each_table_is_asked_for_first() {
        let eni = EniId::try_from("eni-00000001").expect("an id");
        let route = |table: u32, n: u32| {
            let table = format!("rtb-{table:08x}").try_into().expect("a route table");
            let destination = format!("10.{n}.0.0/16").parse().expect("a prefix");
            DryRunRequest::Route { route: Route { table, destination }, eni: eni.clone(), creates: false }
        };
        let elastic_ip = |n: u32| {
            let allocation = format!("eipalloc-{n:08x}").try_into().expect("an allocation");
            DryRunRequest::ElasticIp { allocation, eni: eni.clone(), private_address: None }
        };
        let routes = (0..4).flat_map(|table| (0..50).map(move |n| (table, n))).map(|(table, n)| route(table, n));
        let chosen = DryRunRequest::chosen(routes.chain((0..3).map(elastic_ip)).collect());
        assert_eq!(chosen[..4], [route(0, 0), route(1, 0), route(2, 0), route(3, 0)]);
        let of_kind = |kind| chosen.iter().filter(|request| request.resource().kind() == kind).count();
        assert_eq!((of_kind(Kind::Route), of_kind(Kind::ElasticIp)), (DryRunRequest::MAX_PER_KIND, 3));
    }
}
