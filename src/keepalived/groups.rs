//! What keepalived runs: the model behind /run/vyos-aws-vipa/groups.json, written by `hook` from the complete
//! keepalived.conf, and read by the agent, which may not read keepalived.conf itself (it holds `auth_pass`).

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::names::{GroupName, InterfaceName};

/// Every `vrrp_instance` of keepalived.conf, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Groups {
    /// The groups.
    pub groups: Vec<Group>,
}

/// One `vrrp_instance`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: GroupName,
    /// `interface`: where VRRP speaks; with `use_vmac` the base interface of the virtual MAC.
    pub interface: InterfaceName,
    /// `virtual_router_id`.
    pub vrid: u8,
    /// `priority`, before any tracking changes it.
    pub priority: u8,
    /// `unicast_peer`: the IPv4 addresses of the other routers. They tell the other router from a stranger.
    pub peers: Vec<Ipv4Addr>,
    /// The IPv4 addresses of `virtual_ipaddress` and `virtual_ipaddress_excluded`.
    pub addresses: Vec<VirtualAddress>,
}

/// One IPv4 address that keepalived puts on an interface as MASTER.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// `dev`: an interface of its own; absent: the group's.
    pub interface: Option<InterfaceName>,
}
