//! Whether EC2 permits to claim a route or an Elastic IP, as far as dry runs and claims have shown it.

use std::time::Duration;

use fastrand::Rng;

use super::event::DryRunId;
use super::{BootInstant, backoff};
use crate::model::ec2::CallError;

/// How long a proof counts; plus or minus a tenth.
const PROVEN_FOR: Duration = Duration::from_hours(24);
/// A refused dry run is repeated after this time: a change of an IAM policy shows in no other way.
const REFUSED_DELAY: Duration = Duration::from_mins(10);
/// The delay after the first dry run that EC2 did not decide. Each further one doubles it.
const FAILED_DELAY: Duration = Duration::from_secs(10);
/// The longest delay after dry runs that EC2 did not decide.
const MAX_FAILED_DELAY: Duration = Duration::from_mins(10);

/// The delay of what is done once a day.
pub fn next_day(rng: &mut Rng) -> Duration {
    backoff::jitter_around(PROVEN_FOR, 10, rng)
}

/// The delay of another try after a failure that EC2 did not decide.
pub fn retry_delay(failed_before: u32, rng: &mut Rng) -> Duration {
    let delay = FAILED_DELAY.saturating_mul(1 << failed_before.min(16)).min(MAX_FAILED_DELAY);
    backoff::jitter_around(delay, 20, rng)
}

/// What is known of the permission to claim one resource.
#[derive(Debug, Default)]
pub struct Permission {
    /// When the next dry run is due on a standby.
    pub due: BootInstant,
    /// The dry run whose answer counts.
    pub in_flight: Option<DryRunId>,
    /// The last dry run included CreateRoute.
    creates: bool,
    /// The number of consecutive dry runs that EC2 did not decide.
    failed: u32,
    /// When it was last proven, unless a dry run or a claim was refused since.
    pub proven: Option<BootInstant>,
    /// Why the last dry run was refused.
    pub refused: Option<CallError>,
}

impl Permission {
    /// Requests another dry run: the answer to one in flight may be outdated. What the last one has shown stays until then.
    pub fn request(&mut self, now: BootInstant) {
        self.due = now;
        self.in_flight = None;
        self.failed = 0;
    }

    /// A read has shown that the table has no such route: CreateRoute needs a proof, too.
    pub fn request_creation(&mut self, now: BootInstant) {
        if !self.creates {
            self.creates = true;
            self.proven = None;
            self.request(now);
        }
    }

    /// A dry run is sent.
    pub fn sent(&mut self, id: DryRunId, creates: bool) {
        self.in_flight = Some(id);
        self.creates = creates;
    }

    /// EC2 permits the calls, or has performed them.
    pub fn proven(&mut self, now: BootInstant, rng: &mut Rng) {
        self.in_flight = None;
        self.failed = 0;
        self.proven = Some(now);
        self.refused = None;
        self.due = now + next_day(rng);
    }

    /// The dry run has failed.
    pub fn failed(&mut self, now: BootInstant, error: &CallError, rng: &mut Rng) {
        self.in_flight = None;
        if error.is_refusal() {
            self.failed = 0;
            self.proven = None;
            self.refused = Some(error.clone());
            self.due = now + backoff::jitter_around(REFUSED_DELAY, 10, rng);
        } else {
            self.due = now + retry_delay(self.failed, rng);
            self.failed = self.failed.saturating_add(1);
        }
    }

    /// EC2 refused a claim permanently: a dry run shows whether it would again.
    pub fn claim_refused(&mut self, now: BootInstant) {
        self.proven = None;
        self.request(now);
    }
}
