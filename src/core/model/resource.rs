//! What a router claims in EC2 for a VRRP group, and which ENI has it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::ec2::Owner;
use super::ids::{AllocationId, RouteTableId};

/// What can follow the master of a group in EC2. Addresses come first, as they do in every list and in every move.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Named", into = "Named")]
pub enum Resource {
    /// A private address of an ENI.
    Address(Ipv4Addr),
    /// A route that leads to an ENI.
    Route(Route),
    /// An Elastic IP that is associated with a private address of an ENI.
    ElasticIp(AllocationId),
}

/// One resource in files and on the control socket, with the fields of the status report.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Named {
    Address { address: Ipv4Addr },
    Route { table: RouteTableId, destination: Prefix },
    ElasticIp { allocation: AllocationId },
}

impl From<Named> for Resource {
    fn from(named: Named) -> Self {
        match named {
            Named::Address { address } => Self::Address(address),
            Named::Route { table, destination } => Self::Route(Route { table, destination }),
            Named::ElasticIp { allocation } => Self::ElasticIp(allocation),
        }
    }
}

impl From<Resource> for Named {
    fn from(resource: Resource) -> Self {
        match resource {
            Resource::Address(address) => Self::Address { address },
            Resource::Route(Route { table, destination }) => Self::Route { table, destination },
            Resource::ElasticIp(allocation) => Self::ElasticIp { allocation },
        }
    }
}

/// A route: the entry for a destination in a route table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The route table that has the entry.
    pub table: RouteTableId,
    /// The addresses whose packets it matches.
    pub destination: Prefix,
}

/// An IPv4 or IPv6 prefix without host bits, such as `10.0.0.0/8`: EC2 would
/// set another destination than the given one (CreateRoute, EC2 API, `DestinationCidrBlock`: it is put into its canonical form).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(IpNet);

/// A text that is not a [`Prefix`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrefix {
    /// It has no address and length.
    #[error("{0:?} is not an IPv4 or IPv6 prefix such as 10.0.0.0/8")]
    Malformed(String),
    /// Bits after the length are set.
    #[error("{given} has host bits: the prefix is {prefix}")]
    HostBits {
        /// What was given.
        given: IpNet,
        /// The same without the host bits.
        prefix: Prefix,
    },
}

impl Prefix {
    /// The prefix as a network.
    pub fn net(self) -> IpNet {
        self.0
    }

    /// Whether it contains the address.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.0.contains(&IpAddr::V4(address))
    }

    /// Whether it is an IPv4 prefix.
    pub fn is_ipv4(self) -> bool {
        matches!(self.0, IpNet::V4(_))
    }

    /// Whether it lies within the other prefix, or is the same.
    pub fn is_within(self, outer: Self) -> bool {
        outer.0.contains(&self.0)
    }

    /// Whether no subnet of a VPC has this range: the smallest one is a /28, with IPv6 a /64 (VPC User Guide, "Subnet CIDR
    /// blocks").
    pub fn is_smaller_than_a_subnet(self) -> bool {
        self.0.prefix_len() > if self.is_ipv4() { 28 } else { 64 }
    }

    /// The only address in it, if it is an IPv4 prefix of one.
    pub fn host(self) -> Option<Ipv4Addr> {
        match self.0 {
            IpNet::V4(net) if net.prefix_len() == 32 => Some(net.addr()),
            _ => None,
        }
    }
}

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let given: IpNet = text.parse().map_err(|_| InvalidPrefix::Malformed(text.to_owned()))?;
        let prefix = Self(given.trunc());
        if prefix.0 == given { Ok(prefix) } else { Err(InvalidPrefix::HostBits { given, prefix }) }
    }
}

impl TryFrom<String> for Prefix {
    type Error = InvalidPrefix;

    fn try_from(text: String) -> Result<Self, InvalidPrefix> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

/// The kind of a [`Resource`]. It determines the API calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// AssignPrivateIpAddresses, DescribeNetworkInterfaces.
    Address,
    /// ReplaceRoute, CreateRoute, DescribeRouteTables.
    Route,
    /// AssociateAddress, DescribeAddresses.
    ElasticIp,
}

impl Kind {
    /// All kinds, in the order of [`Resource`].
    pub const ALL: [Self; 3] = [Self::Address, Self::Route, Self::ElasticIp];
}

impl Resource {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Address(_) => Kind::Address,
            Self::Route(_) => Kind::Route,
            Self::ElasticIp(_) => Kind::ElasticIp,
        }
    }

    /// The address, if it is one.
    pub fn address(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Route(_) | Self::ElasticIp(_) => None,
        }
    }
}

impl From<Ipv4Addr> for Resource {
    fn from(address: Ipv4Addr) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Route(route) => route.fmt(f),
            Self::ElasticIp(allocation) => allocation.fmt(f),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} in {}", self.destination, self.table))
    }
}

/// Resources in files and on the control socket: a list for each kind, `addresses`, `routes` and `elastic_ips`; an empty one is
/// absent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Listed", into = "Listed")]
pub struct Resources(pub Vec<Resource>);

#[derive(Default, Serialize, Deserialize)]
struct Listed {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    elastic_ips: Vec<AllocationId>,
}

impl From<Listed> for Resources {
    fn from(Listed { addresses, routes, elastic_ips }: Listed) -> Self {
        let addresses = addresses.into_iter().map(Resource::Address);
        let routes = routes.into_iter().map(Resource::Route);
        Self(addresses.chain(routes).chain(elastic_ips.into_iter().map(Resource::ElasticIp)).collect())
    }
}

impl From<Resources> for Listed {
    fn from(resources: Resources) -> Self {
        let mut listed = Self::default();
        for resource in resources.0 {
            match resource {
                Resource::Address(address) => listed.addresses.push(address),
                Resource::Route(route) => listed.routes.push(route),
                Resource::ElasticIp(allocation) => listed.elastic_ips.push(allocation),
            }
        }
        listed
    }
}

/// An Elastic IP, as EC2 shows it of the private address that it is associated with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElasticIp {
    /// The id that claims and reads use.
    pub allocation: AllocationId,
    /// Its public address.
    pub public_address: Ipv4Addr,
}

/// What EC2 says of a resource. A resource that is absent from an answer is free: an address that no ENI has, a route that
/// the table does not have, an Elastic IP without an association.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// An ENI has it.
    Eni(Owner),
    /// An ENI has the private address, and an Elastic IP is associated with it.
    WithElasticIp {
        /// The ENI that has the private address.
        owner: Owner,
        /// The Elastic IP, which follows the private address to another ENI.
        elastic_ip: ElasticIp,
    },
    /// An Elastic IP is associated with a private address of an ENI.
    Association {
        /// The ENI that gets the packets.
        owner: Owner,
        /// The private address of that ENI.
        private_address: Ipv4Addr,
        /// The Elastic IP's own address, if EC2 shows it.
        public_address: Option<Ipv4Addr>,
    },
    /// The table has the route, and it leads nowhere: it is free.
    Blackhole,
    /// It cannot be claimed.
    NotTakeable(NotTakeable),
}

impl Holder {
    /// The ENI that has it.
    pub fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Eni(owner) | Self::WithElasticIp { owner, .. } | Self::Association { owner, .. } => Some(owner),
            Self::Blackhole | Self::NotTakeable(_) => None,
        }
    }
}

/// Why a route or an Elastic IP is never claimed, in any VRRP state: a wrong id must not cut a VPC off.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotTakeable {
    /// The route leads to a target other than an ENI or an instance: an internet gateway, an endpoint, `local` …
    LeadsTo(String),
    /// The route comes from a virtual private gateway (`EnableVgwRoutePropagation`) or a route server (`Advertisement`).
    Propagated,
    /// The table does not have the route, and EC2 refuses to create it: it lies within this range of the VPC, and is smaller
    /// than every subnet.
    WithinVpc(Prefix),
    /// There is no such route table, or it is not visible to this account.
    NoSuchTable,
    /// There is no such Elastic IP in this account and region.
    NoSuchAllocation,
    /// An AWS service manages the Elastic IP: `alb`, `nlb`, `rnat` (`ServiceManaged`, DescribeAddresses).
    ManagedBy(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_no_host_bits() {
        for text in ["10.0.0.0/8", "192.0.2.1/32", "0.0.0.0/0", "::/0", "2001:db8::/32", "2001:db8::1/128"] {
            let prefix: Prefix = text.parse().expect(text);
            assert_eq!(prefix.to_string(), text);
            assert_eq!(serde_json::to_value(prefix).expect("JSON"), text);
        }
        let with_host_bits: InvalidPrefix = "10.0.0.1/8".parse::<Prefix>().expect_err("host bits");
        assert_eq!(with_host_bits.to_string(), "10.0.0.1/8 has host bits: the prefix is 10.0.0.0/8");
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "2001:db8::/129", "a/8", "10.0.0.0/8 "] {
            let error = text.parse::<Prefix>().expect_err(text);
            assert_eq!(error.to_string(), format!("{text:?} is not an IPv4 or IPv6 prefix such as 10.0.0.0/8"));
        }
    }

    #[test]
    fn only_a_prefix_of_one_ipv4_address_has_a_host() {
        let host = |text: &str| text.parse::<Prefix>().expect(text).host();
        assert_eq!(host("192.0.2.1/32"), Some(Ipv4Addr::new(192, 0, 2, 1)));
        for text in ["192.0.2.0/31", "2001:db8::1/128", "32.0.0.0/8"] {
            assert_eq!(host(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_come_before_routes_and_routes_before_elastic_ips() {
        let route = |table: &str| {
            let table = table.try_into().expect("a route table");
            Resource::Route(Route { table, destination: "192.0.2.1/32".parse().expect("a prefix") })
        };
        let elastic_ip = Resource::ElasticIp("eipalloc-00000001".try_into().expect("an allocation"));
        let address = |n| Resource::Address(Ipv4Addr::new(192, 0, 2, n));
        let all = [address(1), address(9), route("rtb-00000001"), route("rtb-00000002"), elastic_ip];
        assert!(all.is_sorted(), "{all:?}");
        let kinds: Vec<Kind> = all.iter().map(Resource::kind).collect();
        assert_eq!(kinds, [Kind::Address, Kind::Address, Kind::Route, Kind::Route, Kind::ElasticIp]);
        assert_eq!(all.map(|r| r.to_string())[2], "192.0.2.1/32 in rtb-00000001");
    }
}
