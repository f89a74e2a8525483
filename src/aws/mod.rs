//! EC2 and IMDSv2 through the AWS SDK for Rust. Only this module uses the SDK; its interface has the types of
//! [`vipa_core::model`].
//!
//! Invariants:
//! - One call is one attempt. The SDK's own retries are off: the claim state machine owns all of them. If the bytes or
//!   the answer of a request are late, it is sent again within the attempt (`hedge`), unless the claim was withdrawn
//!   (`withdrawal`).
//! - Every call has one time limit for all of it: credentials, name resolution, connect, TLS, request and answer.
//! - Nothing is fatal. While the credentials, the certificate file or the endpoint cannot work, each call fails with the
//!   reason; once they are corrected, calls succeed without a restart.
//! - No secret is in an error, a log line or a `Debug` text of this module.
//! - Only the configuration decides which endpoint is called with which credentials. The SDK's client is built from values,
//!   never from its environment loader, so `AWS_*` variables and `~/.aws` have no effect: endpoint, region, credentials and
//!   IMDS's address are always given. The SDK still reads `AWS_EXECUTION_ENV` (part of the user agent) and
//!   `AWS_LAMBDA_FUNCTION_NAME` with `_X_AMZN_TRACE_ID` (a trace header), and rustls-native-certs reads `SSL_CERT_FILE` and
//!   `SSL_CERT_DIR` (the system's roots). Only root sets the unit's environment, and none of these is a proxy.

pub mod assumptions;
mod clock;
mod credentials;
mod ec2;
mod elastic_ips;
mod errors;
mod hedge;
mod imds;
mod interface_enis;
mod request_ids;
mod routes;
mod sent;
mod transport;
mod withdrawal;

pub use credentials::CredentialsWatch;
pub use ec2::{AssignmentProbe, Ec2};
pub use imds::Imds;
pub use interface_enis::{InterfaceEnis, InterfaceError};
pub use request_ids::with_request_id;
pub use sent::when_sent;
pub use withdrawal::Withdrawal;
