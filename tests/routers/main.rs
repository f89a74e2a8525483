//! The shipped binary on two routers with the real keepalived, in namespaces, over TLS. Each test asserts on who has
//! the address in EC2 and on the requests that were made.

mod agent;
mod attachment;
mod bad_input;
mod batches;
mod credentials;
mod ec2;
mod failover;
mod groups;
mod imds;
mod keepalived;
mod readiness;
mod split_brain;
mod theft;

use std::time::Duration;

/// The shipped binary.
const BINARY: &str = env!("CARGO_BIN_EXE_vyos-aws-vipa");

/// With an advertisement interval of 1 s the standby waits for three, and for a skew of its priority (RFC 5798, 6.1).
const ELECTION: Duration = Duration::from_secs(4);

/// What a busy machine may need beyond the time that something takes.
const SLACK: Duration = Duration::from_secs(8);
