//! The shipped binary on two routers with the real keepalived, in namespaces, over TLS. Each test checks which ENI has
//! the address in EC2, and the requests that were made.

mod agent;
mod attachment;
mod bad_input;
mod batches;
mod credentials;
mod ec2;
mod failover;
mod groups;
mod iam_policy;
mod imds;
mod keepalived;
mod ownership_loss;
mod proof;
mod readiness;
mod split_brain;
mod zones;

use std::time::Duration;

/// The shipped binary.
const BINARY: &str = env!("CARGO_BIN_EXE_vyos-aws-vipa");

/// With an advertisement interval of 1 s the standby waits for three, and for the skew of its priority (RFC 9568 and
/// 5798, 6.1).
const ELECTION: Duration = Duration::from_secs(4);

/// Additional time for a busy machine.
const SLACK: Duration = Duration::from_secs(8);
