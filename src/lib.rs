//! VRRP virtual addresses of VyOS routers in AWS: `vyos-aws-vipa` claims them in EC2 when the router becomes master.
//!
//! This is the edge: what it does and when is decided in [`vipa_core`].

pub mod agent;
pub mod arguments;
pub mod aws;
pub mod commands;
pub mod control;
pub mod fs;
pub(crate) mod keepalived;
pub mod log_messages;
pub(crate) mod netlink;
pub mod paths;
pub(crate) mod systemd;
