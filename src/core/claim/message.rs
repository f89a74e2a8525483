//! What the state machine is told, and what it wants done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::Moment;
use crate::keepalived::groups::Groups;
use crate::model::config::Config;
use crate::model::ec2::{Acknowledgement, CallError, Eni, Owner, Owners, Taker};
use crate::model::ids::{EniId, GroupName, InstanceId, InterfaceName, VpcId};
use crate::model::vrrp::{Line, NotifyState, VrrpState};

/// Who has put an address on its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PutBy {
    /// A command that had ended a second later, as a person runs it.
    Command,
    /// A process that still ran a second later, as keepalived does.
    Process,
}

/// How an address is on its interface, or is not, against what VRRP says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Misplaced {
    /// The group is MASTER and the address is ours, and it is not on the interface.
    Missing,
    /// The group is not MASTER, and the address is on the interface all the same.
    Left,
}

/// A claim in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId(pub u64);

/// A read in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// The thefts of an address before the agent started, since its group was last not MASTER and since this router started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// The group.
    pub group: GroupName,
    /// The address.
    pub address: Ipv4Addr,
    /// When each of them was, and who took the address.
    pub thefts: Vec<(Moment, Taker)>,
    /// With whom there was a contest that was not over.
    pub contested: Vec<Taker>,
}

/// Something that has happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// What was before the agent started; the first event, if there is any.
    Past(Vec<Past>),
    /// Which instance this is.
    Instance(InstanceId),
    /// A configuration, to go by from now on.
    Config(Config),
    /// What keepalived will run once it has reloaded.
    Groups(Groups),
    /// Lines that were written to the FIFO just now.
    Lines(Vec<Line>),
    /// Lines that waited in the pipe when it was opened, in their order; if the pipe was full, the newest are lost.
    Backlog {
        /// The lines.
        lines: Vec<Line>,
        /// Whether the pipe was full.
        was_full: bool,
    },
    /// The pipe was found full while reading: lines may be lost.
    PipeFull,
    /// The FIFO reported that a writer closed it: keepalived has reloaded.
    Hup,
    /// Whether keepalived holds the FIFO open.
    Writer(bool),
    /// The IPv4 addresses on local interfaces. `asked`: read anew for [`Action::Look`].
    Local {
        /// The addresses, each with the interfaces that have it.
        addresses: BTreeMap<Ipv4Addr, BTreeSet<InterfaceName>>,
        /// Whether this answers [`Action::Look`].
        asked: bool,
    },
    /// Who has put addresses on their interfaces, where the kernel has told so and it has been judged: all of them.
    PutBy(BTreeMap<Ipv4Addr, BTreeMap<InterfaceName, PutBy>>),
    /// keepalived's VRRP process has run at some time after that.
    Life {
        /// The earliest time at which that may have been.
        after: Moment,
    },
    /// keepalived's VRRP process is there, and sleeps without having run.
    Quiet {
        /// Since when, at the latest.
        since: Moment,
    },
    /// The ENI behind an interface, for [`Action::Resolve`].
    Resolved {
        /// The interface.
        interface: InterfaceName,
        /// What IMDS said, or why it said nothing.
        eni: Result<Eni, CallError>,
    },
    /// The answer to [`Action::Claim`].
    Claimed {
        /// Which.
        id: ClaimId,
        /// EC2's acknowledgement, or the failure.
        result: Result<Acknowledgement, CallError>,
    },
    /// The answer to [`Action::Read`].
    Read {
        /// Which.
        id: ReadId,
        /// The owners, or the failure.
        result: Result<Owners, CallError>,
    },
    /// Other credentials are there than those that failed.
    Credentials,
    /// A person pauses a group, or has paused it before the agent started.
    Pause {
        /// Which.
        group: GroupName,
        /// Until when.
        until: Moment,
    },
    /// A person ends a pause.
    Resume(GroupName),
    /// A person wants a group's addresses claimed now. Ask [`super::Machine::refuses_force`] first.
    Force(GroupName),
    /// A person wants to know who owns the addresses now.
    ReadNow,
    /// Nothing but time.
    Tick,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// AssignPrivateIpAddresses with AllowReassignment; answer with [`Event::Claimed`].
    Claim {
        /// Which.
        id: ClaimId,
        /// The ENI that takes the addresses.
        eni: EniId,
        /// The addresses.
        addresses: Vec<Ipv4Addr>,
        /// The bound of the attempt.
        timeout: Duration,
    },
    /// DescribeNetworkInterfaces; answer with [`Event::Read`].
    Read {
        /// Which.
        id: ReadId,
        /// The VPC that the addresses are in: they are unique there, and nowhere else.
        vpc: VpcId,
        /// The addresses.
        addresses: Vec<Ipv4Addr>,
        /// The bound of each request.
        timeout: Duration,
    },
    /// Ask IMDS for the ENI behind an interface; answer with [`Event::Resolved`].
    Resolve(InterfaceName),
    /// Ask the kernel for its addresses; answer with [`Event::Local`], `asked`.
    Look,
    /// Something to log and, most of it, to keep in the history.
    Note(Note),
}

/// Something that people will want to know of later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The state of a group has changed.
    Transition {
        /// The group.
        group: GroupName,
        /// The state before.
        from: VrrpState,
        /// The state now.
        to: VrrpState,
        /// Why.
        cause: Cause,
    },
    /// A claim was answered, or was not.
    Claim {
        /// The ENI.
        eni: EniId,
        /// The addresses.
        addresses: Vec<Ipv4Addr>,
        /// Who had the first of them before, as far as known.
        previous: Option<Owner>,
        /// How long it took.
        duration: Duration,
        /// EC2's acknowledgement, or the failure.
        result: Result<Acknowledgement, CallError>,
    },
    /// A read of the owners failed, or was the first to succeed after one that failed.
    Read {
        /// Why it failed; none if it did not.
        error: Option<CallError>,
    },
    /// An address that was confirmed as ours has gone to another.
    Theft {
        /// The group.
        group: GroupName,
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        by: Owner,
        /// What that is to the group.
        taker: Taker,
    },
    /// More than three thefts in five minutes.
    Contested {
        /// The group.
        group: GroupName,
        /// The address.
        address: Ipv4Addr,
        /// Who takes it.
        by: Owner,
        /// What that is to the group.
        taker: Taker,
    },
    /// The contest is over.
    ContestOver {
        /// The group.
        group: GroupName,
        /// The address.
        address: Ipv4Addr,
        /// With whom it was.
        taker: Taker,
    },
    /// A claim would be due, and the address is not on a local interface.
    NotLocal {
        /// The group.
        group: GroupName,
        /// The address.
        address: Ipv4Addr,
    },
    /// An address has been on its interface against VRRP for a while, or has not; or that is over.
    Place {
        /// The group.
        group: GroupName,
        /// The address.
        address: Ipv4Addr,
        /// The interface.
        interface: InterfaceName,
        /// What is wrong, if anything is.
        wrong: Option<Misplaced>,
    },
    /// A standby has become able or unable to take over.
    Readiness {
        /// The group.
        group: GroupName,
        /// Why it could not; none if it could.
        obstacle: Option<String>,
    },
    /// An ENI that takes addresses is not attached to this instance.
    Elsewhere {
        /// The ENI.
        eni: EniId,
        /// The instance that it is attached to; absent: none.
        instance: Option<InstanceId>,
    },
    /// Addresses of standbys are held by none of their groups' routers.
    Holder {
        /// The addresses.
        addresses: Vec<Ipv4Addr>,
        /// Who holds them.
        by: Owner,
    },
    /// The ENI of an interface could not be found out.
    Unresolved {
        /// The interface.
        interface: InterfaceName,
        /// Why.
        error: CallError,
    },
}

/// Why the state of a group is taken to be another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// keepalived wrote so.
    Line(NotifyState),
    /// What is on the interface, with keepalived alive.
    Evidence,
    /// keepalived sleeps without a timer, and the address is not here.
    Quiet,
    /// The FIFO has had no writer for two seconds.
    NoWriter,
    /// keepalived has given no sign of life for too long.
    NoLife,
    /// This router stood still for a while.
    StoodStill,
    /// The pipe was full: lines may be lost.
    PipeFull,
    /// keepalived has put its address on an interface, and no line said MASTER.
    NoLine,
    /// The group or its configuration is new.
    New,
    /// A person paused the group.
    Paused,
    /// The pause is over.
    PauseOver,
}

impl Cause {
    /// The cause in an operator's words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Line(NotifyState::Master) => "keepalived: MASTER",
            Self::Line(NotifyState::MasterRxLowerPri) => "keepalived: MASTER_RX_LOWER_PRI",
            Self::Line(NotifyState::Backup) => "keepalived: BACKUP",
            Self::Line(NotifyState::Fault) => "keepalived: FAULT",
            Self::Line(NotifyState::Stop) => "keepalived: STOP",
            Self::Line(NotifyState::Deleted) => "keepalived: DELETED",
            Self::Evidence => "what is on the interface",
            Self::Quiet => "keepalived sleeps without a timer, and the address is not here",
            Self::NoWriter => "keepalived does not hold the FIFO open",
            Self::NoLife => "keepalived gives no sign of life",
            Self::StoodStill => "this router stood still for a while",
            Self::PipeFull => "the pipe was full, lines may be lost",
            Self::NoLine => "a process has put its address here, and no line of keepalived says MASTER",
            Self::New => "new, waiting for a sign of life of keepalived",
            Self::Paused => "paused by a person",
            Self::PauseOver => "the pause is over",
        }
    }
}
