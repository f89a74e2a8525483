//! The inputs of the state machine ([`Event`]), and its outputs ([`Action`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::BootInstant;
use super::reason::Obstacle;
use crate::keepalived::groups::Groups;
use crate::model::config::Config;
use crate::model::ec2::{Acknowledgement, CallError, Eni, Owner, Owners, Taker};
use crate::model::ids::{EniId, GroupName, InstanceId, InterfaceName, VpcId};
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

/// Identifies a read in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// The ownership losses of an address before the agent started. Losses before the group last left MASTER, and before this
/// router booted, are not included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredState {
    /// The group of the address.
    pub group: GroupName,
    /// The address.
    pub address: Ipv4Addr,
    /// When each loss happened, and which kind of owner took the address.
    pub losses: Vec<(BootInstant, Taker)>,
    /// The kinds of owner with which the address was still contested.
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
        /// The notify events.
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
        /// The interface.
        interface: InterfaceName,
        /// The ENI, or the failure.
        eni: Result<Eni, CallError>,
    },
    /// The response to [`Action::Claim`].
    Claimed {
        /// The id of the action.
        id: ClaimId,
        /// EC2's acknowledgement, or the failure.
        result: Result<Acknowledgement, CallError>,
    },
    /// The response to [`Action::Read`].
    Read {
        /// The id of the action.
        id: ReadId,
        /// The owners, or the failure.
        result: Result<Owners, CallError>,
    },
    /// The credentials have changed.
    Credentials,
    /// An operator paused a group, possibly before the agent started.
    Pause {
        /// The group.
        group: GroupName,
        /// When the pause ends.
        until: BootInstant,
    },
    /// An operator ended a pause.
    Resume(GroupName),
    /// An operator asked for a claim of the group's addresses. Call [`super::Machine::refuses_force`] first.
    Force(GroupName),
    /// An operator asked for the current owners.
    ReadNow,
    /// A deadline has passed.
    Tick,
}

/// An output of the state machine: something that the agent has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Call AssignPrivateIpAddresses with AllowReassignment; respond with [`Event::Claimed`].
    Claim {
        /// The id for the response.
        id: ClaimId,
        /// The ENI to assign the addresses to.
        eni: EniId,
        /// The addresses.
        addresses: Vec<Ipv4Addr>,
        /// The timeout of the attempt.
        timeout: Duration,
    },
    /// Call DescribeNetworkInterfaces; respond with [`Event::Read`].
    Read {
        /// The id for the response.
        id: ReadId,
        /// The VPC of the addresses: a private address is unique only within its VPC.
        vpc: VpcId,
        /// The addresses.
        addresses: Vec<Ipv4Addr>,
        /// The timeout of each request.
        timeout: Duration,
    },
    /// Read the ENI of an interface from IMDS; respond with [`Event::Resolved`].
    Resolve(InterfaceName),
    /// Read the kernel's addresses; respond with a `requested` [`Event::LocalAddresses`].
    ReadLocalAddresses,
    /// Log the event, and add most kinds of it to the history.
    Log(LogEvent),
}

/// An event for the log and the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// The state of a group has changed.
    Transition {
        /// The group.
        group: GroupName,
        /// The previous state.
        from: VrrpState,
        /// The new state.
        to: VrrpState,
        /// Why the state has changed.
        cause: Cause,
    },
    /// A claim was acknowledged, or has failed.
    Claim {
        /// The ENI.
        eni: EniId,
        /// The addresses.
        addresses: Vec<Ipv4Addr>,
        /// The previous owner of the first address that has a known one.
        previous: Option<Owner>,
        /// How long the call took.
        duration: Duration,
        /// EC2's acknowledgement, or the failure.
        result: Result<Acknowledgement, CallError>,
    },
    /// A read of the owners has failed, or succeeded for the first time after a failure.
    Read {
        /// The failure, if any.
        error: Option<CallError>,
    },
    /// A verified address was assigned to another ENI.
    OwnershipLost {
        /// The group.
        group: GroupName,
        /// The address.
        address: Ipv4Addr,
        /// The new owner.
        by: Owner,
        /// What the new owner is to the group.
        taker: Taker,
    },
    /// Ownership was lost too often in a short time.
    Contested {
        /// The group.
        group: GroupName,
        /// The address.
        address: Ipv4Addr,
        /// The new owner.
        by: Owner,
        /// What the new owner is to the group.
        taker: Taker,
    },
    /// The address is no longer contested.
    ContestedEnded {
        /// The group.
        group: GroupName,
        /// The address.
        address: Ipv4Addr,
        /// The kind of owner with which it was contested.
        taker: Taker,
    },
    /// A claim was due, but the address is not on a local interface.
    NotLocal {
        /// The group.
        group: GroupName,
        /// The address.
        address: Ipv4Addr,
    },
    /// An address contradicts the VRRP state, or no longer does.
    Placement {
        /// The group.
        group: GroupName,
        /// The address.
        address: Ipv4Addr,
        /// The interface.
        interface: InterfaceName,
        /// The contradiction; absent if it has ended.
        wrong: Option<Misplaced>,
    },
    /// A standby has become ready or not ready to take over.
    Readiness {
        /// The group.
        group: GroupName,
        /// What prevents a takeover; absent if the standby is ready.
        obstacle: Option<Obstacle>,
    },
    /// The ENI that should have addresses is not attached to this instance.
    EniElsewhere {
        /// The ENI.
        eni: EniId,
        /// The instance that it is attached to, if any.
        instance: Option<InstanceId>,
    },
    /// Addresses of a standby are assigned to an ENI of neither router.
    ForeignHolder {
        /// The addresses.
        addresses: Vec<Ipv4Addr>,
        /// The owner.
        by: Owner,
    },
    /// The ENI of an interface could not be resolved.
    Unresolved {
        /// The interface.
        interface: InterfaceName,
        /// The failure.
        error: CallError,
    },
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
