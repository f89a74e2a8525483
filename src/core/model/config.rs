//! The configuration: the model of /run/vyos-aws-vipa/config.json, written by `commit`, and read by the agent, the hook
//! and `show status`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::ids::{AllocationId, EniId, GroupName, InterfaceName, Region, RouteTableId};
use crate::model::resource::Prefix;

/// The verified configuration of one router.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `high-availability vrrp global-parameters aws-vipa`.
    pub global: Global,
    /// The groups that have an `aws-vipa` node and no error, in the order of their names.
    pub groups: Vec<GroupConfig>,
    /// Groups with an `aws-vipa` node that are skipped because of an error.
    pub skipped: Vec<SkippedGroup>,
    /// IPv4 addresses that VyOS configures on interfaces outside VRRP: their presence on an interface is no evidence of
    /// a VRRP state.
    pub interface_addresses: BTreeSet<Ipv4Addr>,
}

impl Config {
    /// Whether no `aws-vipa` node is configured.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.skipped.is_empty()
    }
}

/// Which endpoint of EC2 to call, with which credentials, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Global {
    /// The region; absent: the one that IMDS reports.
    pub region: Option<Region>,
    /// The URL of the EC2 endpoint, `https://` or `http://`; absent: the SDK's default for the region.
    pub endpoint_url: Option<String>,
    /// A shared credentials file (AWS SDKs and Tools Reference Guide); absent: the instance's role.
    pub credentials_file: Option<PathBuf>,
    /// The profile in that file; absent: `default`.
    pub profile: Option<String>,
    /// PEM file of an additional CA that is trusted for EC2.
    pub ca_certificate_file: Option<PathBuf>,
    /// How often ownership is read while MASTER, and readiness is checked while BACKUP.
    pub verify_interval: VerifyInterval,
    /// The time limit of one attempt of an API call.
    pub request_timeout: RequestTimeout,
}

/// Seconds from 5 to 300; default 30.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct VerifyInterval(u16);

/// Seconds from 1 to 30; default 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct RequestTimeout(u16);

/// A text that is not a number of seconds in the range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a number of seconds from {low} to {high}")]
pub struct OutOfRange {
    given: String,
    low: u16,
    high: u16,
}

macro_rules! seconds {
    ($name:ident, $low:literal, $high:literal, $default:literal) => {
        impl $name {
            /// As a duration.
            pub fn duration(self) -> Duration {
                Duration::from_secs(self.0.into())
            }
        }

        impl TryFrom<u16> for $name {
            type Error = OutOfRange;

            fn try_from(given: u16) -> Result<Self, OutOfRange> {
                if ($low..=$high).contains(&given) {
                    Ok(Self(given))
                } else {
                    Err(OutOfRange { given: given.to_string(), low: $low, high: $high })
                }
            }
        }

        impl FromStr for $name {
            type Err = OutOfRange;

            fn from_str(given: &str) -> Result<Self, OutOfRange> {
                let out_of_range = || OutOfRange { given: given.to_owned(), low: $low, high: $high };
                given.parse::<u16>().ok().and_then(|seconds| seconds.try_into().ok()).ok_or_else(out_of_range)
            }
        }

        impl From<$name> for u16 {
            fn from(seconds: $name) -> u16 {
                seconds.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self($default)
            }
        }
    };
}
seconds!(VerifyInterval, 5, 300, 30);
seconds!(RequestTimeout, 1, 30, 3);

/// `high-availability vrrp group <name> aws-vipa`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// The name of the VRRP group that has the node.
    pub name: GroupName,
    /// Which of the group's virtual addresses to move; empty: every IPv4 address that keepalived runs in it.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// The interface whose ENI gets them; absent: the address's own interface, else the group's.
    pub interface: Option<InterfaceName>,
    /// The ENI that gets them; absent: the one that IMDS reports for the interface's MAC address.
    pub network_interface_id: Option<EniId>,
    /// Whether nothing is claimed for it.
    pub disable: bool,
    /// No private address is claimed for the group.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_address: bool,
    /// The routes that lead to the master, in the order of their destinations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteConfig>,
    /// The Elastic IPs that are associated with the master, in the order of their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elastic_ips: Vec<ElasticIpConfig>,
}

impl GroupConfig {
    /// The empty node: every address of the group is moved.
    pub fn new(name: GroupName) -> Self {
        Self {
            name,
            addresses: BTreeSet::new(),
            interface: None,
            network_interface_id: None,
            disable: false,
            no_address: false,
            routes: Vec::new(),
            elastic_ips: Vec::new(),
        }
    }
}

/// `aws-vipa route <prefix>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The prefix that names the node.
    pub destination: Prefix,
    /// The route tables, one at least.
    pub tables: BTreeSet<RouteTableId>,
    /// The interface whose ENI it leads to; absent: as for addresses.
    pub interface: Option<InterfaceName>,
}

/// The addresses that a route of the group covers exactly. The route moves them, and they are never assigned to an ENI.
pub fn overlay_addresses(routes: &[RouteConfig]) -> BTreeSet<Ipv4Addr> {
    routes.iter().filter_map(|route| route.destination.host()).collect()
}

/// `aws-vipa elastic-ip <eipalloc-…>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElasticIpConfig {
    /// The id that the node's name gives.
    pub allocation: AllocationId,
    /// The private address that it is associated with; absent: the primary address of the ENI.
    pub private_address: Option<Ipv4Addr>,
    /// The interface whose ENI has that address; absent: as for addresses.
    pub interface: Option<InterfaceName>,
}

/// A group that is skipped because of an error: a configuration once committed always loads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkippedGroup {
    /// The group's name as configured: the error may be that keepalived cannot have such a name.
    pub name: String,
    /// The errors, one sentence each, with the configuration path.
    pub errors: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> GroupConfig {
        GroupConfig::new("web".try_into().expect("a name"))
    }

    /// An agent from before routes and Elastic IPs refuses fields that it does not know.
    #[test]
    fn a_group_without_routes_and_elastic_ips_is_written_as_before_them() {
        let expected = r#"{"name":"web","addresses":[],"interface":null,"network_interface_id":null,"disable":false}"#;
        assert_eq!(serde_json::to_string(&group()).expect("JSON"), expected);
        assert_eq!(serde_json::from_str::<GroupConfig>(expected).expect("a group"), group());
    }

    #[test]
    fn routes_and_elastic_ips_read_back_as_they_were_written() {
        let whole = GroupConfig {
            no_address: true,
            routes: vec![RouteConfig {
                destination: "2001:db8::/32".parse().expect("a prefix"),
                tables: [RouteTableId::try_from("rtb-01234567").expect("a table")].into(),
                interface: None,
            }],
            elastic_ips: vec![ElasticIpConfig {
                allocation: "eipalloc-01234567".try_into().expect("an id"),
                private_address: Some(Ipv4Addr::new(10, 99, 0, 5)),
                interface: Some("eth1".try_into().expect("a name")),
            }],
            ..group()
        };
        let text = serde_json::to_string(&whole).expect("JSON");
        let routes = r#""routes":[{"destination":"2001:db8::/32","tables":["rtb-01234567"],"interface":null}]"#;
        let elastic_ip = r#"{"allocation":"eipalloc-01234567","private_address":"10.99.0.5","interface":"eth1"}"#;
        let expected = format!(r#""disable":false,"no_address":true,{routes},"elastic_ips":[{elastic_ip}]}}"#);
        assert!(text.ends_with(&expected), "{text}");
        assert_eq!(serde_json::from_str::<GroupConfig>(&text).expect("a group"), whole);
        let with_host_bits = text.replace("2001:db8::/32", "2001:db8::1/32");
        assert!(serde_json::from_str::<GroupConfig>(&with_host_bits).is_err());
    }
}
