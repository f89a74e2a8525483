//! What this module believes of EC2 and IMDS although neither the API's model nor its documentation says so. Each is to be
//! checked on a real account; where one is wrong, this is the list of what to change.
//!
//! | belief | who relies on it |
//! |---|---|
//! | A call takes [`MAX_FILTER_VALUES`] values in all its filters together. | [`Ec2::owners`](super::Ec2::owners) sends that many at most |
//! | Assigning an address that is already on the same ENI succeeds, with `AllowReassignment`. | a claim is repeated when nobody knows whether the last one was performed |
//! | A claim that EC2 answers with success has been performed, also for an address that the answer does not list. | [`Ec2::claim`](super::Ec2::claim) names those that are not listed, and they are read at once |
//! | A batch is performed as a whole or not at all. | [`Ec2::claim`](super::Ec2::claim) gives one error for all its addresses; the caller bisects |
//! | The first line of `local-ipv4s` below an interface in IMDS is its primary address. | [`Imds::eni`](super::Imds::eni) |
//! | A signature more than [`CLOCK_TOLERANCE`] from EC2's time may be refused, a closer one is not. | which refusals are the clock's |
//! | EC2, and what is on the way to it, keeps a connection on which the kernel alone asks whether the other end is there, for as long as we keep it (5 minutes). | warm claims; where it does not, a claim pays for a TLS handshake |
//! | IMDS has an instance role's new credentials 5 minutes before the old ones expire, or earlier. | [`REFRESH_BEFORE_EXPIRY`] is longer, so that they are met soon |

use std::time::Duration;

pub use vipa_core::model::ec2::CLOCK_TOLERANCE;

/// The values that the filters of a Describe call may have together: more are `FilterLimitExceeded`, "The maximum number of
/// filter values specified on a single call is 200".
pub const MAX_FILTER_VALUES: usize = 200;

/// How long before their expiry credentials are asked for anew.
pub const REFRESH_BEFORE_EXPIRY: Duration = Duration::from_secs(15 * 60);
