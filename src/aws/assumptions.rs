//! Assumptions about EC2 and IMDS that neither the API's model nor its documentation confirms. Each has to be checked in a
//! real account; the second column names the code to change if it is wrong.
//!
//! | assumption | relied on by |
//! |---|---|
//! | A call takes [`MAX_FILTER_VALUES`] values in all its filters together. | [`Ec2::owners`](super::Ec2::owners) sends that many at most |
//! | Assigning an address that is already on the same ENI succeeds, with `AllowReassignment`. | a claim is repeated when it is unknown whether the last one was performed |
//! | A claim that EC2 answers with success has been performed, also for an address that the answer does not list. | [`Ec2::claim`](super::Ec2::claim) names those that are not listed, and they are read at once |
//! | A batch is performed as a whole or not at all. | [`Ec2::claim`](super::Ec2::claim) gives one error for all its addresses; the caller bisects |
//! | A dry run that a policy does not allow is answered with `UnauthorizedOperation`, whatever else is wrong with the call. | [`Ec2::dry_run_route`](super::Ec2::dry_run_route) takes `InvalidRoute.NotFound` and `RouteAlreadyExists` for a permission |
//! | An assignment that a policy does not allow is answered with `UnauthorizedOperation`, whatever else is wrong with the call. | [`Ec2::probe_assignment`](super::Ec2::probe_assignment): any other refusal is taken for a permission |
//! | EC2 counts a dry run like the call itself in its rate limit. | the claim machine spreads dry runs out |
//! | The first line of `local-ipv4s` below an interface in IMDS is its primary address. | [`Imds::eni`](super::Imds::eni) |
//! | A signature more than [`CLOCK_TOLERANCE`] from EC2's time may be refused, a closer one is not. | which refusals are the clock's |
//! | EC2, and every middlebox on the path, keeps a connection that carries only TCP keepalive probes for as long as we keep it (5 minutes). | claims on warm connections; otherwise a claim needs a new TLS handshake |
//! | IMDS has an instance role's new credentials 5 minutes before the old ones expire, or earlier. | [`REFRESH_BEFORE_EXPIRY`] is longer, so that they are fetched soon after they appear |

use std::time::Duration;

pub use vipa_core::model::ec2::CLOCK_TOLERANCE;

/// The most values in all filters of a Describe call together. More fail with `FilterLimitExceeded`: "The maximum number of
/// filter values specified on a single call is 200".
pub const MAX_FILTER_VALUES: usize = 200;

/// How long before their expiry credentials are refreshed.
pub const REFRESH_BEFORE_EXPIRY: Duration = Duration::from_mins(15);
