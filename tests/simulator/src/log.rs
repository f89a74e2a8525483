//! The logs: all requests, and all moves of addresses, routes and Elastic IPs, with their times.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;

use crate::ids::{AllocationId, EniId, InstanceId, RouteTableId, VpcId};
use crate::route::{Destination, Target};

/// One point in time on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) instant: Instant,
    pub(crate) wall: Timestamp,
}

impl Moment {
    pub(crate) fn now() -> Moment {
        Moment { instant: Instant::now(), wall: Timestamp::now() }
    }
}

/// The service of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// The EC2 API (and STS's `GetCallerIdentity`).
    Ec2,
    /// The instance metadata service.
    Imds,
}

/// A request and its outcome.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Request {
    /// The number of the request, from 0.
    pub number: usize,
    /// The service.
    pub service: Service,
    /// When its header was read.
    #[serde(skip)]
    pub arrived: Instant,
    /// The same on the wall clock.
    pub arrived_wall: Timestamp,
    /// The number of its [`Listener`](crate::Listener).
    pub listener: usize,
    /// The number of its TCP connection, from 0.
    pub connection: usize,
    /// The client's address and port.
    pub peer: SocketAddr,
    /// EC2: the action. IMDS: method and path, such as `GET /latest/meta-data/mac`.
    pub action: String,
    /// EC2: the interfaces named by `NetworkInterfaceId`, as sent.
    pub network_interfaces: Vec<String>,
    /// EC2: the private addresses assigned, unassigned, associated or filtered for.
    pub addresses: Vec<Ipv4Addr>,
    /// EC2: the route tables changed, read or filtered for, as sent.
    pub route_tables: Vec<String>,
    /// EC2: the destination of the route changed, as sent.
    pub destination: Option<String>,
    /// EC2: the Elastic IPs associated, read or filtered for, by their allocation ids as sent.
    pub allocations: Vec<String>,
    /// EC2: `DryRun` was true.
    pub dry_run: bool,
    /// EC2: `AllowReassignment` was true.
    pub allow_reassignment: bool,
    /// All parameters of an EC2 request.
    pub parameters: Vec<(String, String)>,
    /// The access key id of the signature.
    pub access_key: Option<String>,
    /// EC2: the instance whose role has the access key. IMDS: the calling instance.
    pub instance: Option<InstanceId>,
    /// The request id in the answer.
    pub request_id: String,
    /// When it was performed, if it was. A refusal by the service counts.
    #[serde(skip)]
    pub performed: Option<Instant>,
    /// The same on the wall clock.
    pub performed_wall: Option<Timestamp>,
    /// What the client got.
    pub outcome: Outcome,
}

/// What the client of a request got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// No answer yet.
    Pending,
    /// A status and an error code, or `Success` for the real answer of a success. The client may have closed the connection
    /// before.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The error code or `Success`.
        code: String,
    },
    /// The connection was closed without an answer.
    Dropped,
    /// No answer until the client gave up.
    Hanging,
}

impl Request {
    /// Whether the answer was a success.
    pub fn succeeded(&self) -> bool {
        self.code() == Some("Success")
    }

    /// The error code of the answer or `Success`; `None` without an answer.
    pub fn code(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Answered { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether it is an `AssignPrivateIpAddresses` that names `address`.
    pub fn claims(&self, address: Ipv4Addr) -> bool {
        self.action == "AssignPrivateIpAddresses" && self.addresses.contains(&address)
    }

    /// Whether it is a `CreateRoute` or `ReplaceRoute` of that route, and no dry run.
    pub fn changes_route(&self, table: &str, destination: &str) -> bool {
        matches!(self.action.as_str(), "CreateRoute" | "ReplaceRoute")
            && self.route_tables.iter().any(|named| named == table)
            && self.destination.as_deref() == Some(destination)
            && !self.dry_run
    }

    /// Whether it is an `AssociateAddress` of that Elastic IP, and no dry run.
    pub fn associates(&self, allocation: &str) -> bool {
        self.action == "AssociateAddress" && self.allocations.iter().any(|named| named == allocation) && !self.dry_run
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6} #{} {}", self.arrived_wall, self.number, self.action)?;
        let destination = self.destination.iter();
        for id in self.route_tables.iter().chain(destination).chain(&self.allocations).chain(&self.network_interfaces) {
            write!(f, " {id}")?;
        }
        if !self.addresses.is_empty() {
            write!(f, " {:?}", self.addresses)?;
        }
        if self.allow_reassignment {
            f.write_str(" AllowReassignment")?;
        }
        if self.dry_run {
            f.write_str(" DryRun")?;
        }
        write!(f, " [listener {} connection {} {}", self.listener, self.connection, self.peer)?;
        if let Some(key) = &self.access_key {
            write!(f, " {key}")?;
        }
        if let Some(instance) = &self.instance {
            write!(f, " {instance}")?;
        }
        f.write_str("]")?;
        if let Some(performed) = self.performed {
            write!(f, " performed after {:?}", performed - self.arrived)?;
        }
        match &self.outcome {
            Outcome::Pending => f.write_str(" -> pending"),
            Outcome::Answered { status, code } => {
                write!(f, " -> {status} {code} {}", self.request_id)
            }
            Outcome::Dropped => f.write_str(" -> dropped"),
            Outcome::Hanging => f.write_str(" -> hanging"),
        }
    }
}

/// Why an address, a route or an Elastic IP moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A request, by its number in the log.
    Request(usize),
    /// A call of the test, such as [`steal`](crate::Simulator::steal).
    ThirdParty,
}

/// A move of an address.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Move {
    /// When.
    #[serde(skip)]
    pub at: Instant,
    /// The same on the wall clock.
    pub wall: Timestamp,
    /// The VPC of the address.
    pub vpc: VpcId,
    /// The address.
    pub address: Ipv4Addr,
    /// The previous owner.
    pub from: Option<EniId>,
    /// The new owner.
    pub to: Option<EniId>,
    /// Why.
    pub cause: Cause,
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_move(f, self.wall, &self.address, (&self.from, &self.to), &self.cause)
    }
}

/// A change of a route's target, its creation or removal.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RouteMove {
    /// When.
    #[serde(skip)]
    pub at: Instant,
    /// The same on the wall clock.
    pub wall: Timestamp,
    /// The route table.
    pub route_table: RouteTableId,
    /// The destination.
    pub destination: Destination,
    /// The previous target.
    pub from: Option<Target>,
    /// The new target.
    pub to: Option<Target>,
    /// Why.
    pub cause: Cause,
}

impl fmt::Display for RouteMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = format!("{} in {}", self.destination, self.route_table);
        write_move(f, self.wall, &what, (&self.from, &self.to), &self.cause)
    }
}

/// An association of an Elastic IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AssociatedWith {
    /// The network interface.
    pub network_interface: EniId,
    /// The private address on it.
    pub private_address: Ipv4Addr,
}

impl fmt::Display for AssociatedWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.private_address, self.network_interface)
    }
}

/// An association or disassociation of an Elastic IP, or its move along with its private address.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AssociationMove {
    /// When.
    #[serde(skip)]
    pub at: Instant,
    /// The same on the wall clock.
    pub wall: Timestamp,
    /// The Elastic IP.
    pub allocation: AllocationId,
    /// The previous association.
    pub from: Option<AssociatedWith>,
    /// The new association.
    pub to: Option<AssociatedWith>,
    /// Why.
    pub cause: Cause,
}

impl fmt::Display for AssociationMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_move(f, self.wall, &self.allocation, (&self.from, &self.to), &self.cause)
    }
}

fn write_move<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    wall: Timestamp,
    what: &impl fmt::Display,
    (from, to): (&Option<T>, &Option<T>),
    cause: &Cause,
) -> fmt::Result {
    let name = |owner: &Option<T>| owner.as_ref().map_or("none".to_owned(), T::to_string);
    write!(f, "{wall:.6} {what} from {} to {} by ", name(from), name(to))?;
    match cause {
        Cause::Request(number) => write!(f, "request #{number}"),
        Cause::ThirdParty => f.write_str("a third party"),
    }
}

/// All moves so far, in order.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) addresses: Vec<Move>,
    pub(crate) routes: Vec<RouteMove>,
    pub(crate) associations: Vec<AssociationMove>,
}
