//! A simulator of EC2 and IMDSv2 for tests: private addresses, routes and Elastic IPs move between network interfaces, and the
//! wire protocol is the real one. boto3, the AWS CLI and the AWS SDKs can use it.
//!
//! A [`World`] describes the resources. [`Simulator::start`] starts a simulator of it, and the `serve_…` methods open listeners:
//! EC2 over HTTP or TLS, and IMDS for one instance each, in any network namespace. All of them share one state. A test reads
//! the owners of addresses, the log of requests and the log of moves, injects faults, and acts as a third party.
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
//! // A third party takes it. Waiting ends with the move, or with an error that shows the log.
//! simulator.steal(address, "eni-0a000000000000003")?;
//! let moved = simulator.wait_for_owner(address, "eni-0a000000000000003", Duration::from_secs(1))?;
//! assert_eq!(moved.expect("it had no owner before").from, None);
//! assert!(simulator.requests().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # Assumptions
//! Where EC2's behaviour is not documented, the default is the worse one for a client. Some can be changed:
//!
//! | Question | Default | Setting |
//! |---|---|---|
//! | age of the state that `Describe…` and IMDS `local-ipv4s` show | up to 60 s, random for each read | [`World::stale_reads`], [`Simulator::set_stale_reads`] |
//! | a claim of several addresses, one of which is refused | moves none | [`Batch::OthersMove`] |
//! | the answer to a claim of several addresses | lists all, and all move | [`ClaimAnswers`] |
//! | a dry run that is denied and wrong | `UnauthorizedOperation` | [`World::deny_dry_runs_last`] |
//! | an assignment that is denied and wrong | `UnauthorizedOperation` | [`World::deny_claims_last`] |
//! | a dry run in the rate limits | counts | [`World::free_dry_runs`] |
//! | values in all filters of a call beyond 200 | `FilterLimitExceeded` | [`World::filter_value_limit`] |
//! | IMDS `local-ipv4s` | has the primary address first | [`ImdsAddresses::Ascending`] |
//! | a connection that is idle | is kept | [`World::idle_timeout_ms`] |
//! | a role's keys before they expire | IMDS has no newer ones | [`RoleKeys::renewed_seconds_before_expiry`] |
//! | signatures more than 300 s from EC2's time | `RequestExpired`, `AuthFailure` | [`World::clock_tolerance_seconds`] |
//! | a claim whose client gave up | is still performed, when its time comes | |
//! | assigning an address that the interface already has | succeeds | [`World::refuse_reassignment_to_same_interface`] |
//! | `AssociateAddress` with an address that was just assigned to the interface | refused for 0.3 s | [`World::association_lag`] |
//! | `AssociateAddress` without `AllowReassociation` | as with `false` | |
//! | a local route, with a network interface as its new target | replaced, in every table | |
//! | a dry run | checks only that the resources exist | |
//! | routes of a table and family beyond 50 | `RouteLimitExceeded` | [`World::routes_per_table`] |
//! | requests of one action beyond 50 at once and 5 a second (reads: 100 and 20) | `RequestLimitExceeded` | [`World::throttling`] |
//! | a session token that has expired | `RequestExpired` | [`World::expired_token_code`] |
//! | an access key that does not exist | `AuthFailure` | [`World::unknown_key_code`] |
//!
//! Signatures are checked as EC2 does: scope, clock, key, session token, and the value itself if the world has the key's
//! secret.
//!
//! # Faults
//! A [`Fault`] delays the requests that match its [`On`], drops, refuses or never answers them, or makes their answers invalid;
//! they are performed or not. A [`Listener`] can be stopped (connections are refused), muted (connections are accepted but not
//! answered) and started again. [`On::listener`] with [`Listener::number`] affects only one router.
//!
//! # Blocking
//! The simulator runs in a separate thread. Methods of [`Simulator`] and [`Listener`] block briefly, and `wait_…` up to the
//! given time, so call them outside of async tasks.

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
    AccessKey, Batch, ClaimAnswers, ElasticIp, ImdsAddresses, Instance, NetworkInterface, RoleKeys, RouteTable,
    StaleReads, Subnet, Throttling, Vpc, World,
};
