//! Back-off between attempts, and the rate limit of claims.

use std::time::Duration;

use fastrand::Rng;

use super::BootInstant;

/// The delay of a retry after a permanent error.
pub const PERMANENT_ERROR_DELAY: Duration = Duration::from_secs(60);

/// The shortest time between two claims on one ENI.
pub const MIN_CLAIM_GAP: Duration = Duration::from_millis(20);

/// The longest time that a first attempt waits after the previous claim.
pub const MAX_CLAIM_GAP: Duration = Duration::from_millis(400);

/// The longest timeout of an attempt after successive timeouts.
const MAX_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// The delay of a retry: half to all of 0.2 s, doubled with each failed attempt, at most 5 s.
pub fn retry_delay(failed_before: u32, rng: &mut Rng) -> Duration {
    let bound = Duration::from_millis((200 << failed_before.min(5)).min(5_000));
    jitter_between(bound / 2, bound, rng)
}

/// The timeout of an attempt after successive timeouts.
pub fn attempt_timeout(request_timeout: Duration, timeouts: u32) -> Duration {
    request_timeout.saturating_mul(1 << timeouts.min(5)).min(MAX_ATTEMPT_TIMEOUT.max(request_timeout))
}

/// A random time from `low` to `high`.
pub fn jitter_between(low: Duration, high: Duration, rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.u64(low.as_millis() as u64..=high.as_millis() as u64))
}

/// A random time of `mean` plus or minus `percent`.
pub fn jitter_around(mean: Duration, percent: u32, rng: &mut Rng) -> Duration {
    mean * rng.u32(100 - percent..=100 + percent) / 100
}

/// A rate limit: a token bucket, and a second one for claims that keep failing.
///
/// EC2 throttles mutating calls per account and region: repeated transitions on one router must leave calls for the other.
#[derive(Debug, Clone)]
pub struct RateLimiter {
    all: TokenBucket,
    repeated: TokenBucket,
    /// The tokens that repeatedly failed claims leave for other claims.
    reserve: u32,
}

impl RateLimiter {
    /// The claims of addresses on one ENI: 20 at once, and 1,500 an hour.
    pub fn of_addresses() -> Self {
        let refill = Duration::from_millis(2_400);
        Self { all: TokenBucket::new(20, refill), repeated: TokenBucket::new(20, refill), reserve: 10 }
    }

    /// Claims with one resource in each call: EC2's own bucket for such calls, 50 at once and 5 a second (EC2 API, "Request
    /// throttling"), less one, because calls arrive a little sooner or later than they are sent; those that keep failing 20 at
    /// once, and 1,500 an hour.
    pub fn of_single_calls() -> Self {
        Self {
            all: TokenBucket::new(49, Duration::from_millis(200)),
            repeated: TokenBucket::new(20, Duration::from_millis(2_400)),
            reserve: 10,
        }
    }

    /// The earliest time from `now` on at which a claim may be sent.
    pub fn next(&self, now: BootInstant) -> BootInstant {
        self.all.next(now, 0)
    }

    /// The same for resources whose claims have all failed more than once: some tokens are reserved for first attempts.
    pub fn next_repeated(&self, now: BootInstant) -> BootInstant {
        self.all.next(now, self.reserve).max(self.repeated.next(now, 0))
    }

    /// When the tokens that claims have used are all back.
    pub fn full_at(&self) -> BootInstant {
        self.all.full_at
    }

    /// Whether all tokens are there.
    pub fn is_full(&self, now: BootInstant) -> bool {
        self.all.is_full(now) && self.repeated.is_full(now)
    }

    /// The number of used tokens.
    fn used(&self, now: BootInstant) -> u32 {
        self.all.used(now)
    }

    /// Counts a claim that is sent now. `is_repeated`: everything in it has failed more than once.
    pub fn take(&mut self, now: BootInstant, is_repeated: bool) {
        self.all.take(now);
        if is_repeated {
            self.repeated.take(now);
        }
    }
}

#[derive(Debug, Clone)]
struct TokenBucket {
    burst: u32,
    /// The time in which one token comes back.
    refill: Duration,
    /// When the bucket is full again.
    full_at: BootInstant,
}

impl TokenBucket {
    fn new(burst: u32, refill: Duration) -> Self {
        Self { burst, refill, full_at: BootInstant::default() }
    }

    /// The earliest time from `now` on at which a token can be taken that leaves `reserve` others.
    fn next(&self, now: BootInstant, reserve: u32) -> BootInstant {
        (self.full_at - self.refill * (self.burst - 1 - reserve)).max(now)
    }

    fn is_full(&self, now: BootInstant) -> bool {
        self.full_at <= now
    }

    fn used(&self, now: BootInstant) -> u32 {
        now.until(self.full_at).as_millis().div_ceil(self.refill.as_millis()) as u32
    }

    fn take(&mut self, now: BootInstant) {
        self.full_at = self.full_at.max(now) + self.refill;
    }
}

/// The time between first attempts on one ENI, so that groups whose notify events follow each other share requests.
///
/// The first attempt after a quiet time is sent at once. Then the gap doubles with each attempt up to [`MAX_CLAIM_GAP`], and
/// sooner if few tokens are left.
#[derive(Debug, Clone, Default)]
pub struct Spacing {
    last: Option<BootInstant>,
    /// The number of attempts without a quiet time between them.
    together: u32,
}

impl Spacing {
    /// After this time without a first attempt, the gap starts again.
    const QUIET_TIME: Duration = Duration::from_secs(1);
    /// After this many used tokens the gap grows in any case, to leave tokens for the last groups of a failover.
    const USED_BEFORE_GROWTH: u32 = 12;

    /// The earliest time from `now` on at which a first attempt may be sent.
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
        let mut rate_limiter = RateLimiter::of_addresses();
        let mut now = at(1_000_000);
        for n in 0..20 {
            assert_eq!(rate_limiter.next(now), now, "claim {n}");
            rate_limiter.take(now, false);
        }
        assert!(rate_limiter.next(now) > now, "the 21st waits");
        let begin = now;
        for _ in 0..1_500 {
            now = rate_limiter.next(now);
            rate_limiter.take(now, false);
        }
        assert_eq!(begin.until(now), Duration::from_secs(3_600));
        assert_eq!(rate_limiter.next(now + Duration::from_secs(48)), now + Duration::from_secs(48));
    }

    #[test]
    fn first_attempts_are_ever_further_apart_until_a_quiet_time_or_the_end_of_the_allowance() {
        let (mut rate_limiter, mut spacing) = (RateLimiter::of_addresses(), Spacing::default());
        let mut now = at(1_000_000);
        let mut gaps = |from: BootInstant, count: usize| -> Vec<u128> {
            now = from;
            let mut take = || {
                let next = spacing.next(now, &rate_limiter);
                rate_limiter.take(next, false);
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
        let mut rate_limiter = RateLimiter::of_addresses();
        let now = at(1_000_000);
        for n in 0..10 {
            assert_eq!(rate_limiter.next_repeated(now), now, "retry {n}");
            rate_limiter.take(now, false);
        }
        assert_eq!(now.until(rate_limiter.next_repeated(now)), Duration::from_millis(2_400));
        assert_eq!(rate_limiter.next(now), now);
    }
}
