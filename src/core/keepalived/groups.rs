//! What keepalived runs: the model behind /run/vyos-aws-vipa/groups.json, written by `hook` from the complete
//! keepalived.conf, and read by the agent, which may not read keepalived.conf itself (it holds `auth_pass`).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::ids::{GroupName, InterfaceName};

/// Every `vrrp_instance` of keepalived.conf, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Groups {
    /// One for each `vrrp_instance` that is read reliably.
    pub groups: Vec<RunningGroup>,
}

/// One `vrrp_instance`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunningGroup {
    /// The name in keepalived.conf, which VyOS takes from the group's node.
    pub name: GroupName,
    /// `interface`: where VRRP sends its advertisements; with `use_vmac` the base interface of the virtual MAC.
    pub interface: InterfaceName,
    /// `virtual_router_id`.
    pub vrid: u8,
    /// `priority`, before any tracking changes it.
    pub priority: u8,
    /// `advert_int`, in milliseconds; keepalived's default if it is not set.
    #[serde(default, rename = "advertise_interval_ms", skip_serializing_if = "AdvertiseInterval::is_default")]
    pub advertise_interval: AdvertiseInterval,
    /// `unicast_peer`: the IPv4 addresses of the other routers, which distinguish the other router from a third party.
    pub peers: Vec<Ipv4Addr>,
    /// The IPv4 addresses of `virtual_ipaddress` and `virtual_ipaddress_excluded`.
    pub addresses: Vec<VirtualAddress>,
}

/// The interval at which a master sends its advertisement, and so the interval at which keepalived is active for the
/// group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct AdvertiseInterval(Duration);

impl Groups {
    /// Every IPv4 address that keepalived adds to an interface as MASTER, in any group.
    pub fn virtual_addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.groups.iter().flat_map(|group| &group.addresses).map(|address| address.address).collect()
    }

    /// The IPv4 addresses of the other routers of all groups, as far as keepalived.conf names them.
    pub fn peers(&self) -> BTreeSet<Ipv4Addr> {
        self.groups.iter().flat_map(|group| &group.peers).copied().collect()
    }
}

impl AdvertiseInterval {
    /// The longest one in the protocol (RFC 3768, 5.3.7: eight bits of seconds).
    const MAX_INTERVAL: Duration = Duration::from_secs(255);

    /// From the text of `advert_int`: seconds, with hundredths in VRRP version 3 (keepalived.conf(5)).
    pub fn parse(text: &str) -> Option<Self> {
        let interval = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
        // Whole milliseconds, the unit of groups.json.
        Self::try_from(interval.as_millis() as u64).ok()
    }

    /// The interval as a duration, of at least 1 ms.
    pub fn duration(self) -> Duration {
        self.0
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// keepalived's own default (VRRP_ADVER_DFL in vrrp.h).
impl Default for AdvertiseInterval {
    fn default() -> Self {
        Self(Duration::from_secs(1))
    }
}

impl TryFrom<u64> for AdvertiseInterval {
    type Error = String;

    fn try_from(millis: u64) -> Result<Self, String> {
        let interval = Duration::from_millis(millis);
        if interval.is_zero() || interval > Self::MAX_INTERVAL {
            return Err(format!("an interval of {millis} ms, and not of up to {} s", Self::MAX_INTERVAL.as_secs()));
        }
        Ok(Self(interval))
    }
}

impl From<AdvertiseInterval> for u64 {
    fn from(interval: AdvertiseInterval) -> Self {
        interval.0.as_millis() as u64
    }
}

/// One IPv4 address that keepalived puts on an interface as MASTER.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualAddress {
    /// The address, without its prefix length.
    pub address: Ipv4Addr,
    /// `dev`: an interface of its own; absent: the group's.
    pub interface: Option<InterfaceName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_what_keepalived_takes_for_one() {
        let millis = |text| AdvertiseInterval::parse(text).map(u64::from);
        for (text, read) in [("1", 1_000), ("255", 255_000), ("0.5", 500), ("40.95", 40_950), ("10", 10_000)] {
            assert_eq!(millis(text), Some(read), "{text}");
        }
        for text in ["", "0", "-1", "256", "1e9", "nan", "inf", "1s", "0.0001", "99999999999999999999999"] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    #[test]
    fn an_interval_is_written_down_where_it_is_not_the_default() {
        let group = |rest: &str| {
            let text =
                format!(r#"{{"name":"a","interface":"eth0","vrid":1,"priority":9{rest},"peers":[],"addresses":[]}}"#);
            let group: RunningGroup = serde_json::from_str(&text).expect("a group");
            assert_eq!(serde_json::to_string(&group).expect("JSON"), text);
            group.advertise_interval.duration()
        };
        assert_eq!(group(""), Duration::from_secs(1), "the default is not written");
        assert_eq!(group(r#","advertise_interval_ms":40950"#), Duration::from_millis(40_950));
        for wrong in ["0", "255001", "-1", "null", "1.5"] {
            let read = serde_json::from_str::<AdvertiseInterval>(wrong);
            assert!(read.is_err(), "{wrong}: {read:?}");
        }
    }
}
