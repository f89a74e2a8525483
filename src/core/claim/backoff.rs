//! How often is too often: back-off between attempts, and the bound on the number of claims.

use std::time::Duration;

use fastrand::Rng;

use super::BootInstant;

/// How long a permanent error rests before the next attempt.
pub const PERMANENT_ERROR_DELAY: Duration = Duration::from_secs(60);

/// The second claim on an ENI may start when the first is that old.
pub const MIN_CLAIM_GAP: Duration = Duration::from_millis(20);

/// However little is left of the allowance, a first attempt waits no longer for the claim before it.
pub const MAX_CLAIM_GAP: Duration = Duration::from_millis(400);

/// The longest bound that successive time-outs give an attempt.
const MAX_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// The wait before a retry: between half and all of 0.2 s, doubled with each attempt that failed before, at most 5 s.
pub fn retry_delay(failed_before: u32, rng: &mut Rng) -> Duration {
    let bound = Duration::from_millis((200 << failed_before.min(5)).min(5_000));
    jitter_between(bound / 2, bound, rng)
}

/// The bound of an attempt after so many time-outs in a row.
pub fn attempt_timeout(request_timeout: Duration, timeouts: u32) -> Duration {
    request_timeout.saturating_mul(1 << timeouts.min(5)).min(MAX_ATTEMPT_TIMEOUT.max(request_timeout))
}

/// A time from `low` to `high`, in milliseconds.
pub fn jitter_between(low: Duration, high: Duration, rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.u64(low.as_millis() as u64..=high.as_millis() as u64))
}

/// The time around `mean`, up to that share of it (in per cent) earlier or later.
pub fn jitter_around(mean: Duration, percent: u32, rng: &mut Rng) -> Duration {
    mean * rng.u32(100 - percent..=100 + percent) / 100
}

/// The claims that one ENI may still send: 20 at once, refilled with 1,500 an hour.
///
/// EC2 throttles mutating calls per account and region; a storm of transitions on one router must not use up what the
/// other router needs.
#[derive(Debug, Clone, Default)]
pub struct RateLimiter {
    /// When the allowance will be whole again.
    whole: BootInstant,
}

impl RateLimiter {
    const BURST: u32 = 20;
    const REFILL: Duration = Duration::from_millis(2_400);

    /// What claims that have failed more than once leave to the others.
    const RESERVE: u32 = 10;

    /// The earliest moment from `now` on at which a claim may be sent.
    pub fn next(&self, now: BootInstant) -> BootInstant {
        (self.whole - Self::REFILL * (Self::BURST - 1)).max(now)
    }

    /// The same for a claim of addresses that have all failed more than once: however many there are, they do not use up
    /// what the first attempt of another group needs.
    pub fn next_repeated(&self, now: BootInstant) -> BootInstant {
        (self.whole - Self::REFILL * (Self::BURST - 1 - Self::RESERVE)).max(now)
    }

    /// Whether no claim of before counts any more.
    pub fn is_whole(&self, now: BootInstant) -> bool {
        self.whole <= now
    }

    /// How many claims are not free any more.
    fn used(&self, now: BootInstant) -> u32 {
        now.until(self.whole).as_millis().div_ceil(Self::REFILL.as_millis()) as u32
    }

    /// Counts a claim that is sent now.
    pub fn take(&mut self, now: BootInstant) {
        self.whole = self.whole.max(now) + Self::REFILL;
    }
}

/// The distance between the first attempts of one ENI, so that groups whose lines come one after the other share requests.
///
/// The first one after a quiet time goes at once; then the distance doubles with each, up to [`MAX_CLAIM_GAP`], and sooner
/// where earlier moves have left little of the allowance.
#[derive(Debug, Clone, Default)]
pub struct Spacing {
    last: Option<BootInstant>,
    /// How many there were without a quiet time between them.
    together: u32,
}

impl Spacing {
    /// After that time without a first attempt, the next is that of another move.
    const QUIET_TIME: Duration = Duration::from_secs(1);
    /// With so many claims used, the distance begins to grow whatever was before: what is left is for the last of a move.
    const USED_BEFORE_GROWTH: u32 = 12;

    /// The earliest moment from `now` on at which a first attempt may be sent.
    pub fn next(&self, now: BootInstant, rate_limiter: &RateLimiter) -> BootInstant {
        let doublings =
            self.together.saturating_sub(1).max(rate_limiter.used(now).saturating_sub(Self::USED_BEFORE_GROWTH));
        let gap = (MIN_CLAIM_GAP * (1 << doublings.min(5))).min(MAX_CLAIM_GAP);
        self.last.map_or(now, |last| now.max(last + gap))
    }

    /// Counts a claim with a first attempt that is sent now.
    pub fn take(&mut self, now: BootInstant) {
        let goes_on = self.last.is_some_and(|last| last.until(now) <= Self::QUIET_TIME);
        self.together = if goes_on { self.together.saturating_add(1) } else { 1 };
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootInstant {
        BootInstant::after_boot(Duration::from_millis(millis))
    }

    #[test]
    fn the_first_retry_comes_within_a_fifth_of_a_second_and_none_later_than_five_seconds() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..100 {
            let first = retry_delay(0, &mut rng);
            assert!(first >= Duration::from_millis(100) && first <= Duration::from_millis(200), "{first:?}");
            let late = retry_delay(1_000, &mut rng);
            assert!(late >= Duration::from_millis(2_500) && late <= Duration::from_secs(5), "{late:?}");
        }
    }

    #[test]
    fn time_outs_double_the_bound_up_to_thirty_seconds() {
        let bounds: Vec<u64> = (0..7).map(|n| attempt_timeout(Duration::from_secs(3), n).as_secs()).collect();
        assert_eq!(bounds, [3, 6, 12, 24, 30, 30, 30]);
        assert_eq!(attempt_timeout(Duration::from_secs(30), 3).as_secs(), 30);
    }

    #[test]
    fn twenty_claims_are_free_and_then_1500_an_hour() {
        let mut rate_limiter = RateLimiter::default();
        let mut now = at(1_000_000);
        for n in 0..20 {
            assert_eq!(rate_limiter.next(now), now, "claim {n}");
            rate_limiter.take(now);
        }
        assert!(rate_limiter.next(now) > now, "the 21st waits");
        let begin = now;
        for _ in 0..1_500 {
            now = rate_limiter.next(now);
            rate_limiter.take(now);
        }
        assert_eq!(begin.until(now), Duration::from_secs(3_600));
        assert_eq!(rate_limiter.next(now + Duration::from_secs(48)), now + Duration::from_secs(48));
    }

    #[test]
    fn first_attempts_are_ever_further_apart_until_a_quiet_time_or_the_end_of_the_allowance() {
        let (mut rate_limiter, mut spacing) = (RateLimiter::default(), Spacing::default());
        let mut now = at(1_000_000);
        let mut gaps = |from: BootInstant, count: usize| -> Vec<u128> {
            now = from;
            let mut take = || {
                let next = spacing.next(now, &rate_limiter);
                rate_limiter.take(next);
                spacing.take(next);
                let gap = now.until(next).as_millis();
                now = next;
                gap
            };
            (0..count).map(|_| take()).collect()
        };
        assert_eq!(gaps(at(1_000_000), 8), [0, 20, 40, 80, 160, 320, 400, 400]);
        assert_eq!(gaps(at(1_003_000), 6), [0, 20, 40, 80, 160, 320]);
        // Thirteen are used: the distance grows at once.
        assert_eq!(gaps(at(1_006_000), 4), [0, 40, 80, 160]);
        assert_eq!(gaps(at(1_008_000), 3), [0, 320, 400]);
        assert_eq!(gaps(at(1_060_000), 3), [0, 20, 40]);
    }

    #[test]
    fn retries_leave_ten_claims_to_first_attempts() {
        let mut rate_limiter = RateLimiter::default();
        let now = at(1_000_000);
        for n in 0..10 {
            assert_eq!(rate_limiter.next_repeated(now), now, "retry {n}");
            rate_limiter.take(now);
        }
        assert_eq!(now.until(rate_limiter.next_repeated(now)), Duration::from_millis(2_400));
        assert_eq!(rate_limiter.next(now), now);
    }
}
