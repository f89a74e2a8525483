//! Why a resource has its verdict, a standby is not ready, a request is refused, or owners were not read. These are values;
//! [`crate::report::reasons`] renders them.

#![allow(missing_docs, reason = "the names and types of most fields say it all")]

use std::net::Ipv4Addr;

use super::obstacles::{DependentPath, EniElsewhere, NoPrivateAddress, NoRoom, NoSuchEni, PrimaryAddress};
use super::{BootInstant, Cause};
use crate::model::assignment::Problem;
use crate::model::ec2::{CallError, Owner};
use crate::model::ids::{EniId, GroupName, InterfaceName};
use crate::model::resource::{Kind, NotTakeable, Prefix, Resource};
use crate::model::vrrp::VrrpState;

/// Why a resource has its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// An operator paused the group.
    Paused(GroupName),
    /// The VRRP state is unknown.
    VrrpUnknown(Cause),
    /// VRRP is in FAULT or STOP, as a notify event said.
    VrrpDown(VrrpState),
    /// keepalived has no timer, and the address is on no local interface: VRRP is in this state, or keepalived hangs.
    NoTimer(VrrpState),
    /// The standby's readiness has not been checked yet.
    ReadinessUnknown,
    /// The standby is not ready.
    NotReady(Obstacle),
    /// The group is not MASTER, but the address is on its interface.
    Unexpected {
        /// The VRRP state of the group.
        vrrp: VrrpState,
        interface: InterfaceName,
    },
    /// The group is BACKUP, but the address is still assigned to this router in EC2.
    NotTakenOver,
    /// The standby is ready; a failover takes the address from an owner that is not one of the group's routers.
    HeldByThirdParty(Owner),
    /// The other router of the group took the address repeatedly.
    ContestedWithPeer(LastOwner),
    /// Another owner took the address repeatedly.
    ContestedWithThirdParty {
        group: GroupName,
        /// The owner now.
        owner: LastOwner,
    },
    /// The route or the Elastic IP cannot be claimed.
    NotTakeable(NotTakeable),
    /// EC2 refuses the claim; it is retried every minute.
    Refused(FailedClaim),
    /// The group is MASTER and EC2 delivers the address's traffic here, but the address is not on its interface.
    Missing {
        interface: InterfaceName,
        /// When it went missing.
        since: BootInstant,
    },
    /// The ENI that the address belongs on is not attached to this instance.
    EniElsewhere(EniElsewhere),
    /// The ENI of the interface is unknown.
    EniUnknown(EniUnknown),
    /// The ownership was last verified too long ago.
    NotVerifiedLately {
        /// When it was last verified.
        at: BootInstant,
        /// The failure of the last read, if any.
        error: Option<CallError>,
    },
    /// EC2 acknowledged the claim, but no read has verified it yet.
    NotVerified {
        /// The failure of the last read, if any.
        error: Option<CallError>,
    },
    /// A read contradicts the assignment; a recheck follows.
    Mismatch {
        /// The owner, if the address is assigned.
        owner: Option<Owner>,
        /// The failure of the last read, if any.
        error: Option<CallError>,
    },
    /// The group is MASTER, but the address is on no local interface.
    NotLocal,
    /// The address is on its interface; keepalived activity must confirm that the group is MASTER.
    AwaitingLiveness,
    /// The owner is read before the claim.
    CheckingOwner {
        /// The failure of the last read, if any.
        error: Option<CallError>,
    },
    /// The last claim failed; it is retried.
    Retrying {
        failure: FailedClaim,
        /// When the rate limit allows the next claim; absent: soon.
        allowed_at: Option<BootInstant>,
    },
    /// The rate limit of the ENI delays the claim.
    RateLimited {
        /// When it allows the next claim.
        allowed_at: BootInstant,
    },
    /// The claim needs keepalived activity and the address on a local interface.
    AwaitingPrecondition,
}

/// What prevents a standby from taking over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The ENI of the interface is unknown.
    EniUnknown(EniUnknown),
    /// The last read of the owners has failed.
    ReadFailed(CallError),
    /// EC2 never reassigns the address.
    Primary(PrimaryAddress),
    /// A virtual address of the group is outside the subnet, where EC2 assigns none, and no route leads to it.
    OutsideSubnet {
        address: Ipv4Addr,
        /// The CIDR block of the subnet.
        block: Prefix,
    },
    /// AWS reserves the address in its subnet, and EC2 never assigns it.
    Reserved {
        address: Ipv4Addr,
        /// The CIDR block of the subnet.
        block: Prefix,
    },
    /// A route or an Elastic IP cannot be claimed.
    NotTakeable { resource: Resource, why: NotTakeable },
    /// EC2 does not have the ENI that the resource belongs on.
    NoSuchEni(NoSuchEni),
    /// The ENI that the resource belongs on is not attached to this instance.
    EniElsewhere(EniElsewhere),
    /// The ENI does not have the private address that the Elastic IP belongs on.
    NoPrivateAddress(NoPrivateAddress),
    /// The ENI has no room for the virtual addresses that it does not have yet.
    NoRoom(NoRoom),
    /// The source/destination check of the ENI is on: EC2 drops packets of this router.
    SourceDestCheck(EniId),
    /// The path to EC2 or IMDS depends on the other router, or on a virtual address.
    DependentPath(DependentPath),
    /// EC2 refused the last claim from here.
    LastClaimRefused {
        /// When EC2 answered; absent while a later claim is in flight.
        at: Option<BootInstant>,
        failure: FailedClaim,
    },
    /// EC2 refuses the claim of a route or an Elastic IP, as a dry run has shown.
    DryRunRefused { resource: Resource, error: CallError },
}

impl Obstacle {
    /// Without the time and the request id, so that the same obstacle compares equal each time that it is seen.
    pub(super) fn lasting(mut self) -> Self {
        match &mut self {
            Self::EniUnknown(EniUnknown { error, .. })
            | Self::ReadFailed(error)
            | Self::DryRunRefused { error, .. } => error.request_id = None,
            Self::LastClaimRefused { at, failure } => {
                *at = None;
                failure.error.request_id = None;
            }
            Self::Primary(_)
            | Self::OutsideSubnet { .. }
            | Self::Reserved { .. }
            | Self::NotTakeable { .. }
            | Self::NoSuchEni(_)
            | Self::EniElsewhere(_)
            | Self::NoPrivateAddress(_)
            | Self::NoRoom(_)
            | Self::SourceDestCheck(_)
            | Self::DependentPath(_) => {}
        }
        self
    }
}

/// The ENI of an interface is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniUnknown {
    pub interface: InterfaceName,
    /// Why the ENI could not be resolved.
    pub error: CallError,
}

/// A failed claim, and what the owner explains of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedClaim {
    /// The kind of what was claimed.
    pub kind: Kind,
    pub error: CallError,
    /// What the last read of the owner explains, if anything.
    pub explanation: Option<Explanation>,
}

/// What the owner of an address explains of a failed claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explanation {
    /// The address is the primary address of an ENI.
    Primary(PrimaryAddress),
    /// No ENI that this account can see has the address.
    Unassigned,
}

/// The owner of a contested address, by the last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastOwner {
    ThisRouter,
    /// Another ENI.
    Other(Owner),
    /// No ENI has the address.
    Unassigned,
    /// The owner was not read yet.
    NotRead,
}

/// Why the agent refuses a request of an operator about a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestRefusal {
    /// The group has no `aws-vipa` node.
    NoNode,
    /// A configuration error keeps the group out.
    Skipped,
    /// The group is paused: it does not claim.
    Paused,
    /// The group is not paused: there is nothing to resume.
    NotPaused,
    /// The group is disabled.
    Disabled,
    /// The group has no address to claim.
    NoAddress(Problem),
    /// The group is not MASTER on this router.
    NotMaster(VrrpState),
    /// The VRRP state of the group is unknown.
    VrrpUnknown(Cause),
}

/// Why the owners are older than a request for current ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRead {
    /// The read has failed.
    Failed(CallError),
    /// The ENI of an interface is unknown.
    EniUnknown(EniUnknown),
    /// IMDS has not answered yet.
    AwaitingImds,
    /// EC2 has not answered yet.
    AwaitingEc2,
}
