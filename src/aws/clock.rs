//! The time that requests are signed with: the system's, or EC2's once EC2 has refused the system's.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_sdk_ec2::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use jiff::SignedDuration;

use super::assumptions::CLOCK_TOLERANCE;

/// The clock of one EC2 client. Clones are the same clock; it outlives the client's connections.
///
/// The SDK's own correction is off: it adopts the Date of every answer. This one adopts it only after a refusal that the
/// clock explains, so that a middlebox with a wrong Date cannot break signatures that work, and it makes the skew available.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock(Arc<ClockState>);

#[derive(Debug, Default)]
struct ClockState {
    /// Milliseconds to add to the system's time; 0 until a refusal.
    correction: AtomicI64,
    /// Milliseconds that EC2's clock was ahead of the system's at the last answer with a Date.
    measured: Mutex<Option<i64>>,
}

impl Clock {
    /// The difference that is added to the system's time now.
    pub(super) fn correction(&self) -> SignedDuration {
        SignedDuration::from_millis(self.0.correction.load(Ordering::Relaxed))
    }

    /// How far EC2's clock is ahead of the system's, by the last answer that had a Date. A Date has whole seconds.
    pub(super) fn skew(&self) -> Option<SignedDuration> {
        self.0.measured.lock().unwrap_or_else(PoisonError::into_inner).map(SignedDuration::from_millis)
    }

    /// Call after the refusal of a request that was signed with the correction `used`. If that time was too far from EC2's,
    /// adopts EC2's time and returns by how much it was off.
    pub(super) fn take_over(&self, used: SignedDuration) -> Option<SignedDuration> {
        let skew = self.skew()?;
        let off = skew - used;
        (off.unsigned_abs() >= CLOCK_TOLERANCE).then(|| {
            self.0.correction.store(skew.as_millis() as i64, Ordering::Relaxed);
            off
        })
    }

    fn measure(&self, ec2: SystemTime, system: SystemTime) {
        let ahead = match ec2.duration_since(system) {
            Ok(ahead) => millis(ahead),
            Err(behind) => -millis(behind.duration()),
        };
        *self.0.measured.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        // Once in use, the correction follows every answer, so that it vanishes when the system's clock has been corrected.
        if self.0.correction.load(Ordering::Relaxed) != 0 {
            self.0.correction.store(ahead, Ordering::Relaxed);
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        let now = SystemTime::now();
        let correction = self.0.correction.load(Ordering::Relaxed);
        let by = Duration::from_millis(correction.unsigned_abs());
        if correction < 0 { now.checked_sub(by) } else { now.checked_add(by) }.unwrap_or(now)
    }
}

impl Intercept for Clock {
    fn name(&self) -> &'static str {
        "Clock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        // An answer with an Age is from a cache, and its Date is old (RFC 9111, 5.1).
        if headers.get("age").is_none()
            && let Some(date) = headers.get("date")
            && let Ok(date) = DateTime::from_str(date, Format::HttpDate)
            && let Ok(date) = SystemTime::try_from(date)
        {
            self.measure(date, SystemTime::now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn ec2s_time_is_taken_over_only_where_it_explains_the_refusal() {
        let clock = Clock::default();
        let system = SystemTime::now();
        assert_eq!(clock.take_over(SignedDuration::ZERO), None, "nothing measured");
        clock.measure(system + 3 * MINUTE, system);
        assert_eq!(clock.skew(), Some(SignedDuration::from_mins(3)));
        assert_eq!(clock.take_over(SignedDuration::ZERO), None, "within the tolerance");
        assert_eq!(clock.correction(), SignedDuration::ZERO);

        clock.measure(system - 10 * MINUTE, system);
        assert_eq!(clock.correction(), SignedDuration::ZERO, "measured, not taken over");
        assert_eq!(clock.take_over(SignedDuration::ZERO), Some(SignedDuration::from_mins(-10)));
        assert_eq!(clock.correction(), SignedDuration::from_mins(-10));
        let behind = SystemTime::now().duration_since(clock.now()).expect("behind");
        assert!(behind.abs_diff(10 * MINUTE) < Duration::from_secs(1), "{behind:?}");

        assert_eq!(clock.take_over(SignedDuration::from_mins(-10)), None, "it was signed with the right time");
        clock.measure(system, system);
        assert_eq!(clock.correction(), SignedDuration::ZERO, "the system's clock has been set right");
    }
}
