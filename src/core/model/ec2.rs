//! Who has an address in EC2, and what can go wrong in asking or claiming, in the product's own words.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::model::ids::{AccountId, EniId, InstanceId, Region, RequestId, SubnetId, VpcId};

/// How far the clock may be from EC2's before a refused signature is put down to it. AWS refuses what is 5 minutes off
/// (Signature Version 4, "Elements of an AWS API request signature").
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(4 * 60);

/// What EC2 says of the network interface that has an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The ENI that the address is assigned to.
    pub eni: EniId,
    /// The instance that the ENI is attached to, if it is attached.
    pub instance: Option<InstanceId>,
    /// Whether it is that ENI's primary address, which can never be reassigned (AssignPrivateIpAddresses, EC2 API).
    pub primary: bool,
}

/// What another owner is to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taker {
    /// The other router: its instance has one of the group's peer addresses.
    Peer,
    /// Anyone else.
    #[default]
    Stranger,
}

/// The owner of each address that was asked for; an address that no ENI has is absent.
pub type Owners = BTreeMap<Ipv4Addr, Owner>;

/// Which instance this is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// The region it runs in.
    pub region: Region,
    /// The availability zone it runs in, for display.
    pub availability_zone: String,
}

/// What IMDS says of the ENI behind a local interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eni {
    /// Its id.
    pub id: EniId,
    /// The subnet it is in: an address can only be claimed inside it.
    pub subnet: SubnetId,
    /// The VPC it is in: an address is unique inside it.
    pub vpc: VpcId,
    /// Its primary address: never evidence of VRRP, never to be claimed.
    pub primary: Ipv4Addr,
}

/// What EC2 says of a network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The subnet it is in.
    pub subnet: SubnetId,
    /// The instance that it is attached to, if it is attached.
    pub instance: Option<InstanceId>,
    /// Whether EC2 drops what is neither from nor to one of its own addresses; absent: not said.
    pub source_dest_check: Option<bool>,
    /// Its private IPv4 addresses, the primary one among them.
    pub addresses: BTreeSet<Ipv4Addr>,
}

/// The subnet block and the account of an ENI, which IMDS gives beside [`Eni`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniNetwork {
    /// The IPv4 CIDR block of its subnet.
    pub block: Ipv4Net,
    /// The account that it belongs to.
    pub account: AccountId,
}

/// EC2's acknowledgement of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acknowledgement {
    /// What AWS calls the request.
    pub request_id: Option<RequestId>,
    /// The addresses that were claimed and are not in the answer's list. The claim was accepted all the same: the list may
    /// be missing, or hold only what was not assigned before. That they are ours is proven by a read alone.
    pub unlisted: BTreeSet<Ipv4Addr>,
}

/// Why a call to EC2 or IMDS did not do what it was for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct CallError {
    /// What the failure means for the next attempt.
    pub class: ErrorClass,
    /// EC2's error code, or one word of ours where no answer came: `Timeout`, `Connection`, `TLS`, `Credentials`,
    /// `Answer`, `Settings`; of IMDS also `NotFound` and `Forbidden`.
    pub code: String,
    /// What EC2 or the transport said, one line.
    pub message: String,
    /// EC2's request id, where an answer came.
    pub request_id: Option<RequestId>,
}

/// What a failure means for the next attempt. Decided by the error code alone, never by the text of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorClass {
    /// No answer within the bound: the request may have been performed, or may yet be.
    TimedOut,
    /// `RequestLimitExceeded`, `Throttling*`: later, and less often.
    Throttled,
    /// 5xx, connection errors, unreadable answers, unknown codes: again soon.
    Transient,
    /// `RequestExpired`, or `AuthFailure` with the clock minutes off: the adapter has taken over EC2's time, again at once.
    Clock,
    /// `UnauthorizedOperation`, `AuthFailure`, `InvalidClientTokenId`, `ExpiredToken`, no credentials: a person must act.
    Denied,
    /// `InvalidNetworkInterfaceID.*`: the ENI is not there (any more).
    NoSuchInterface,
    /// `InvalidParameterValue`, `PrivateIpAddressLimitExceeded`: one of the addresses, or their number, cannot be.
    BadAddress,
    /// A refusal (HTTP 4xx) with a code that is none of the above: one address may be the reason, and it may pass.
    Refused,
}
