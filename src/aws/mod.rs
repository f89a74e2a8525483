//! EC2 and IMDSv2 through the AWS SDK for Rust. This is the one module that knows the SDK; what it gives and takes are the
//! product's own types ([`vipa_core::model::ids`], [`vipa_core::model::ec2`]).
//!
//! Invariants:
//! - One call is one attempt. The SDK's own retries are off: the claim state machine owns all of them.
//! - Every call has one bound for all of it: credentials, name resolution, connect, TLS, request and answer.
//! - Nothing is fatal. What cannot work (credentials, certificate file, end point) is the answer of each call until it has
//!   been put right, and is then taken up without a restart.
//! - No secret is in an error, a log line or a `Debug` text of this module.
//! - Where to call and as whom is the configuration's alone. The SDK's client is built from values, never from its
//!   environment loader, so `AWS_*` variables and `~/.aws` have no say: end point, region, credentials and IMDS's address
//!   are always given. What the SDK still looks at in the environment is `AWS_EXECUTION_ENV` (a word of the user agent),
//!   `AWS_LAMBDA_FUNCTION_NAME` with `_X_AMZN_TRACE_ID` (a trace header), and rustls-native-certs `SSL_CERT_FILE` and
//!   `SSL_CERT_DIR` (where the system's roots are): the unit's environment is root's, and none of them is a proxy.

pub mod assumptions;
mod clock;
mod credentials;
mod ec2;
mod errors;
mod imds;
mod interface_enis;
mod transport;

pub use credentials::CredentialsWatch;
pub use ec2::Ec2;
pub use imds::Imds;
pub use interface_enis::{InterfaceEnis, InterfaceError};
