//! The network of this router as its kernel shows it: whether it forwards, and how packets get to EC2 and IMDS.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

/// A service of AWS without which there is no failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// The endpoint of EC2's API.
    Ec2,
    /// The instance metadata service.
    Imds,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ec2 => "EC2",
            Self::Imds => "IMDS",
        })
    }
}

/// How the kernel sends packets to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The address that the kernel was asked about: of EC2's endpoint or of IMDS.
    pub destination: Ipv4Addr,
    /// The next hop; absent: the address is on a link of this router, or its own.
    pub gateway: Option<Ipv4Addr>,
    /// The source address of the packets.
    pub source: Option<Ipv4Addr>,
}

impl Path {
    /// The address that the packets are sent to on their first link.
    pub fn next_hop(&self) -> Ipv4Addr {
        self.gateway.unwrap_or(self.destination)
    }
}

/// What the kernel shows of this router's network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalNetwork {
    /// Whether this router forwards IPv4 packets, if that is known.
    pub forwards: Option<bool>,
    /// The services all of whose known addresses are IPv6 addresses: the paths to them are not looked up.
    pub ipv6_only: BTreeSet<Service>,
    /// The path to each known address of each service; absent: the kernel shows none, or the address is an IPv6 address.
    pub paths: Vec<(Service, Option<Path>)>,
}
