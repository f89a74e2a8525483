//! EC2 and IMDSv2 as the tests need them: private addresses, routes and Elastic IPs that really move from
//! one network interface to another, on the real wire protocol. boto3, the AWS CLI and the AWS SDKs can use it.
//!
//! A [`World`] says what exists. [`Simulator::start`] makes it real, the `serve_…` methods open
//! listeners: EC2 over HTTP or TLS, IMDS for one instance each, in any network namespace. All of them
//! share one state. A test then looks at who owns an address, at the log of requests and at the log of
//! moves, injects faults and plays the third party.
//!
//! ```
//! use std::time::Duration;
//! use simulator::{Fault, On, Simulator, World};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let simulator = Simulator::start(World::two_routers().stale_reads(Duration::ZERO))?;
//! let ec2 = simulator.serve_ec2_tls("127.0.0.1:0".parse()?, None, &["ec2.eu-west-1.amazonaws.com"])?;
//! let imds = simulator.serve_imds("i-0a000000000000001", "127.0.0.1:0".parse()?, None)?;
//! assert!(ec2.url().starts_with("https://127.0.0.1:") && imds.url().starts_with("http://"));
//!
//! // The next two claims of this address are performed, but their answers are lost.
//! let address = "10.99.0.100".parse()?;
//! simulator.add_fault(Fault::on(On::claims().address(address)).hang().performed().times(2));
//!
//! // A third party takes it; waiting ends with the move, or with an error that shows the log.
//! simulator.steal(address, "eni-0a000000000000003")?;
//! let moved = simulator.wait_for_owner(address, "eni-0a000000000000003", Duration::from_secs(1))?;
//! assert_eq!(moved.expect("it had no owner before").from, None);
//! assert!(simulator.requests().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # What it assumes
//! Where no documentation says what EC2 does, the default is what is worse for a client, and the
//! world can be told otherwise:
//!
//! | question | default | otherwise |
//! |---|---|---|
//! | how old is what `Describe…` and IMDS `local-ipv4s` show? | up to 60 s, chosen anew for each read | [`World::stale_reads`], [`Simulator::set_stale_reads`] |
//! | a claim of several addresses of which one is refused | moves none | [`Batch::OthersMove`] |
//! | a claim that its client gave up on | lands all the same, when its time comes | |
//! | an address that the interface has already | is no error | [`World::refuse_reassignment_to_same_interface`] |
//! | `AssociateAddress` with an address that the interface has just got | refused for 0.3 s | [`World::association_lag`] |
//! | `AssociateAddress` without `AllowReassociation` | as with `false` | |
//! | a local route, with a network interface as its new target | replaced, in every table | |
//! | a dry run | sees which resources exist, and no more | |
//! | routes of a table and family beyond 50 | `RouteLimitExceeded` | [`World::routes_per_table`] |
//! | requests of one action beyond 50 at once and 5 a second (reads: 100 and 20) | `RequestLimitExceeded` | [`World::throttling`] |
//! | a session token that has expired | `RequestExpired` | [`World::expired_token_code`] |
//! | an access key that does not exist | `AuthFailure` | [`World::unknown_key_code`] |
//!
//! Signatures are checked as EC2 does: scope, clock, key, session token, and the value itself if the
//! world knows the key's secret.
//!
//! # Failures
//! [`Fault`] with [`On`] delays, drops, hangs, refuses or garbles requests that match, performed or
//! not. A [`Listener`] can be stopped (connections are refused), muted (accepted and left alone) and
//! started again; [`Listener::number`] in [`On::listener`] hits one router alone.
//!
//! # Blocking
//! The simulator runs in a thread of its own. Methods of [`Simulator`] and [`Listener`] block for a
//! moment, those named `wait_…` up to the time given: call them from a plain thread.

mod cloud;
mod ec2;
mod elastic_ips;
mod faults;
mod ids;
mod imds;
mod log;
mod route;
mod route_tables;
mod serve;
mod simulator;
mod tls;
mod wire;
mod world;

pub use cloud::{ApiError, WorldError};
pub use faults::{Effect, Fault, FaultId, On};
pub use ids::{AllocationId, AssociationId, Cidr, EniId, InstanceId, Malformed, RouteTableId, SubnetId, VpcId};
pub use log::{AssociatedWith, AssociationMove, Cause, Move, Outcome, Request, RouteMove, Service};
pub use route::{Destination, Gateway, Ipv6Cidr, Target};
pub use route_tables::{Origin, Route};
pub use serve::Listener;
pub use simulator::{Simulator, Timeout};
pub use world::{
    AccessKey, Batch, ElasticIp, Instance, NetworkInterface, RouteTable, StaleReads, Subnet, Throttling, Vpc, World,
};
