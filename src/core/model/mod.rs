//! The domain model: the router, its groups and EC2, as values.

pub mod assignment;
pub mod calls;
pub mod config;
pub mod counters;
pub mod credentials;
pub mod ec2;
pub mod endpoint;
pub mod eni_cache;
pub mod failover;
pub mod history;
pub mod ids;
pub mod mounts;
pub mod path;
pub mod pause;
pub mod permissions;
pub mod proof;
pub mod resource;
pub mod verdict;
pub mod vrrp;
