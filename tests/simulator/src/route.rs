//! The destination and the target of a route, and their text forms.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{Cidr, EniId, Malformed, is_resource_number};

/// An IPv6 CIDR block, such as `2001:db8:99::/56`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ipv6Cidr {
    network: u128,
    length: u8,
}

impl Ipv6Cidr {
    /// Whether all of `inner` lies in the block.
    pub fn covers(self, inner: Ipv6Cidr) -> bool {
        self.length <= inner.length && inner.network & self.mask() == self.network
    }

    fn mask(self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0)
    }
}

impl FromStr for Ipv6Cidr {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let parse = || {
            let (network, length) = text.split_once('/')?;
            let network = u128::from(network.parse::<Ipv6Addr>().ok()?);
            let length = length.parse::<u8>().ok().filter(|length| *length <= 128)?;
            let cidr = Ipv6Cidr { network, length };
            (network & !cidr.mask() == 0).then_some(cidr)
        };
        parse().ok_or_else(|| Malformed::new(text, "an IPv6 CIDR block such as 2001:db8:99::/56"))
    }
}

impl fmt::Display for Ipv6Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv6Addr::from(self.network), self.length)
    }
}

/// The destination of a route: `10.0.0.0/8`, `2001:db8::/32` or a prefix list, `pl-…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Destination {
    /// An IPv4 prefix.
    Ipv4(Cidr),
    /// An IPv6 prefix.
    Ipv6(Ipv6Cidr),
    /// A prefix list, by its id.
    PrefixList(String),
}

impl FromStr for Destination {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text.strip_prefix("pl-") {
            Some(hex) if is_resource_number(hex) => Ok(Destination::PrefixList(text.to_owned())),
            Some(_) => Err(Malformed::new(text, "a prefix list id: pl- and 8 or 17 hexadecimal digits")),
            None if text.contains(':') => text.parse().map(Destination::Ipv6),
            None => text.parse().map(Destination::Ipv4),
        }
    }
}

impl TryFrom<String> for Destination {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> String {
        destination.to_string()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Ipv4(cidr) => cidr.fmt(f),
            Destination::Ipv6(cidr) => cidr.fmt(f),
            Destination::PrefixList(id) => f.write_str(id),
        }
    }
}

/// The target of a route: `local`, a network interface, or another resource by its id: `igw-…`, `vgw-…`,
/// `vpce-…`, `nat-…`, `tgw-…`, `pcx-…`, `eigw-…`, `lgw-…`, `cagw-…`, or a core network's ARN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// The VPC itself.
    Local,
    /// A network interface.
    NetworkInterface(EniId),
    /// A gateway, an endpoint, a peering connection or a core network.
    Gateway(Gateway),
}

/// The id of a route's target that is not a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    id: String,
    kind: &'static Kind,
}

/// A kind of target: the prefix of its ids, its parameter in requests, its element in answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    prefix: &'static str,
    pub(crate) parameter: &'static str,
    element: &'static str,
}

/// All kinds of targets except for network interfaces.
pub(crate) static KINDS: [Kind; 10] = [
    Kind { prefix: "igw-", parameter: "GatewayId", element: "gatewayId" },
    Kind { prefix: "vgw-", parameter: "GatewayId", element: "gatewayId" },
    Kind { prefix: "vpce-", parameter: "VpcEndpointId", element: "gatewayId" },
    Kind { prefix: "nat-", parameter: "NatGatewayId", element: "natGatewayId" },
    Kind { prefix: "tgw-", parameter: "TransitGatewayId", element: "transitGatewayId" },
    Kind { prefix: "pcx-", parameter: "VpcPeeringConnectionId", element: "vpcPeeringConnectionId" },
    Kind { prefix: "eigw-", parameter: "EgressOnlyInternetGatewayId", element: "egressOnlyInternetGatewayId" },
    Kind { prefix: "lgw-", parameter: "LocalGatewayId", element: "localGatewayId" },
    Kind { prefix: "cagw-", parameter: "CarrierGatewayId", element: "carrierGatewayId" },
    Kind { prefix: "arn:", parameter: "CoreNetworkArn", element: "coreNetworkArn" },
];

impl Gateway {
    /// Its parameter in requests.
    pub(crate) fn parameter(&self) -> &'static str {
        self.kind.parameter
    }

    /// Its element in answers.
    pub(crate) fn element(&self) -> &'static str {
        self.kind.element
    }

    /// Whether it can be an appliance between subnets: a Gateway Load Balancer's endpoint or a NAT gateway.
    pub(crate) fn is_middlebox(&self) -> bool {
        matches!(self.kind.prefix, "vpce-" | "nat-")
    }
}

impl FromStr for Gateway {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let kind = KINDS.iter().find(|kind| text.strip_prefix(kind.prefix).is_some_and(|rest| !rest.is_empty()));
        let wanted = "the id of a gateway, an endpoint or a peering connection";
        let kind = kind.ok_or_else(|| Malformed::new(text, wanted))?;
        Ok(Gateway { id: text.to_owned(), kind })
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

impl FromStr for Target {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text {
            "local" => Ok(Target::Local),
            _ if text.starts_with("eni-") => text.parse().map(Target::NetworkInterface),
            _ => text.parse().map(Target::Gateway),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Local => f.write_str("local"),
            Target::NetworkInterface(id) => id.fmt(f),
            Target::Gateway(gateway) => gateway.fmt(f),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn destinations_and_targets_read_back_as_they_were_written() {
        for text in ["0.0.0.0/0", "10.99.9.9/32", "::/0", "2001:db8:99::/56", "2001:db8::1/128", "pl-0a000001"] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), text);
        }
        for text in ["10.99.9.9/24", "10.99.9.9", "2001:db8::1/64", "::/129", "pl-", "", "eni-1"] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
        for text in ["local", "eni-0a000001", "igw-0a000001", "vpce-0a000001", "eigw-0a000001", "arn:aws:x"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in ["", "eni-", "nat-", "i-0a000001", "nonsense"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn ipv6_blocks_cover_what_lies_in_them() {
        let outer: Ipv6Cidr = "2001:db8:99::/56".parse().unwrap();
        for (text, inside) in [
            ("2001:db8:99::/56", true),
            ("2001:db8:99:ff::/64", true),
            ("2001:db8:99:100::/64", false),
            ("2001:db8::/32", false),
            ("::/0", false),
        ] {
            assert_eq!(outer.covers(text.parse().unwrap()), inside, "{text}");
        }
    }
}
