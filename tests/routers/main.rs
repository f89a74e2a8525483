//! The shipped binary on two routers with the real keepalived, in namespaces, over TLS. Each test asserts on who has the
//! address in EC2 and on the requests that were made.

mod failover;

/// The shipped binary.
const BINARY: &str = env!("CARGO_BIN_EXE_vyos-aws-vipa");
