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

use lab::Lab;
use lab::simulator::Request;

/// The shipped binary.
const BINARY: &str = env!("CARGO_BIN_EXE_vyos-aws-vipa");

/// With an advertisement interval of 1 s the standby waits for three, and for the skew of its priority (RFC 9568 and
/// 5798, 6.1).
const ELECTION: Duration = Duration::from_secs(4);

/// Additional time for a busy machine.
const SLACK: Duration = Duration::from_secs(8);

/// A copy of a request comes within this time: after 0.3 s or a second, and later on a busy machine.
const COPIED: Duration = Duration::from_secs(3);

/// r1 has claimed that often and has preempted r2 last, and r2 has claimed that often. Where keepalived has heard r2 after it became
/// MASTER, it has written MASTER_RX_LOWER_PRI, and r1 has claimed once more.
fn preempted(lab: &Lab, r1: usize, r2: usize) {
    let claims = [&lab.r1, &lab.r2].map(|router| lab.claims(Some(router)).len());
    let has_heard = lab.r1.read("/run/lab/keepalived.service.log").contains(" with lower priority ");
    assert!(
        (r1..=r1 + usize::from(has_heard)).contains(&claims[0]) && claims[1] == r2,
        "{claims:?}: {}",
        lab.simulator
    );
}

/// Without the copies of requests: the agent sends a request again on another connection if its answer is late, which may be so
/// on a busy machine. What EC2 has refused has no copy.
fn without_copies(requests: Vec<Request>) -> Vec<Request> {
    let mut first: Vec<Request> = Vec::new();
    for request in requests {
        let is_copy = |earlier: &Request| {
            (&earlier.action, &earlier.parameters, earlier.peer.ip())
                == (&request.action, &request.parameters, request.peer.ip())
                && earlier.connection != request.connection
                && (earlier.succeeded() || earlier.code().is_none())
                && request.arrived < earlier.arrived + COPIED
        };
        if !first.iter().any(is_copy) {
            first.push(request);
        }
    }
    first
}
