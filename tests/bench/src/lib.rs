//! Failover time, scale and cost of the shipped binary, measured in one run beside what people use otherwise: a script with
//! boto3, the AWS CLI, and a bare TLS connection that sends the same bytes, which is the least that anything can take.
//!
//! Each measurement runs on a lab of its own: routers in namespaces, EC2 and IMDS of the simulator over TLS. All times are
//! of one clock: the simulator runs in the process that writes keepalived's lines.

pub mod black_hole;
pub mod cost;
pub mod distance;
pub mod failover;
pub mod figures;
pub mod growth;
pub mod line;
pub mod many;
pub mod notified;
pub mod owner;
pub mod page;
pub mod peers;
pub mod picture;
pub mod report;
pub mod resources;
pub mod spread;
