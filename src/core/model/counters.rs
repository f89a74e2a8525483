//! What happened since the agent started, as numbers. A restart of the agent begins anew at zero.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ec2::{ErrorClass, Taker};
use super::ids::GroupName;
use super::resource::{Kind, Resource};

/// The upper bounds of the durations of claims, in milliseconds. EC2 takes some hundred.
const CLAIM_BOUNDS: [u64; 11] = [50, 100, 200, 300, 500, 750, 1_000, 2_000, 3_000, 5_000, 10_000];

/// The upper bounds of the times from a notify event to its request, in microseconds.
const REQUEST_BOUNDS: [u64; 9] = [250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// Counts and durations since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// The claims, by kind.
    pub claims: BTreeMap<Kind, Claims>,
    /// Transitions and losses, by group.
    pub groups: BTreeMap<String, GroupCounters>,
    /// From notify events to the first requests that they caused, by resource.
    pub notify_to_request: Histogram<NotifyToRequest>,
}

/// The claims of a kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// How many were acknowledged.
    pub acknowledged: u64,
    /// How many failed, by class.
    pub failed: BTreeMap<ErrorClass, u64>,
    /// How long the acknowledged ones took.
    pub durations: Histogram<ClaimDuration>,
}

/// What happened to a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupCounters {
    /// Transitions of its VRRP state.
    pub transitions: u64,
    /// Ownership losses, by the kind of the new owner.
    pub losses: BTreeMap<Taker, u64>,
}

impl Counters {
    /// Counts a claim that was answered, or not in time.
    pub fn claim(&mut self, kind: Kind, duration: Duration, failure: Option<ErrorClass>) {
        let claims = self.claims.entry(kind).or_default();
        match failure {
            None => {
                claims.acknowledged += 1;
                claims.durations.add(duration);
            }
            Some(class) => *claims.failed.entry(class).or_default() += 1,
        }
    }

    /// Counts a transition of a group.
    pub fn transition(&mut self, group: &GroupName) {
        self.group_mut(group).transitions += 1;
    }

    /// Counts a resource of a group that another owner took.
    pub fn ownership_lost(&mut self, group: &GroupName, taker: Taker) {
        *self.group_mut(group).losses.entry(taker).or_default() += 1;
    }

    fn group_mut(&mut self, group: &GroupName) -> &mut GroupCounters {
        self.groups.entry(group.to_string()).or_default()
    }

    /// Forgets the groups that are no longer configured.
    pub fn retain(&mut self, is_configured: impl Fn(&str) -> bool) {
        self.groups.retain(|group, _| is_configured(group));
    }
}

/// How soon after a notify event the first request for each resource was sent. Times are since the boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirstRequests {
    /// From the notify event to the request.
    pub durations: Histogram<NotifyToRequest>,
    /// The notify event of each resource that was measured last.
    measured: BTreeMap<Resource, Duration>,
}

impl FirstRequests {
    /// A request is sent for these resources, each with the notify event that has caused its claim. Retries do not count.
    pub fn sent(&mut self, now: Duration, notified: &[(Resource, Duration)]) {
        for (resource, at) in notified {
            if self.measured.insert(resource.clone(), *at) != Some(*at) {
                self.durations.add(now.saturating_sub(*at));
            }
        }
    }

    /// Forgets the resources that are no longer configured; their requests stay counted.
    pub fn retain(&mut self, is_configured: impl Fn(&Resource) -> bool) {
        self.measured.retain(|resource, _| is_configured(resource));
    }
}

/// The upper bounds of a [`Histogram`]'s buckets.
pub trait Bounds {
    /// How many fit into each bucket alone; the last is for what exceeds all bounds.
    type Buckets: AsRef<[u64]> + AsMut<[u64]> + Default + Clone + Eq + std::fmt::Debug;
    /// The bounds, as durations.
    fn bounds() -> impl ExactSizeIterator<Item = Duration>;
}

/// The bounds of the durations of claims.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClaimDuration;

impl Bounds for ClaimDuration {
    type Buckets = [u64; CLAIM_BOUNDS.len() + 1];

    fn bounds() -> impl ExactSizeIterator<Item = Duration> {
        CLAIM_BOUNDS.into_iter().map(Duration::from_millis)
    }
}

/// The bounds of the times from a notify event to its request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NotifyToRequest;

impl Bounds for NotifyToRequest {
    type Buckets = [u64; REQUEST_BOUNDS.len() + 1];

    fn bounds() -> impl ExactSizeIterator<Item = Duration> {
        REQUEST_BOUNDS.into_iter().map(Duration::from_micros)
    }
}

/// How often a duration was in each range, and the sum of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram<B: Bounds> {
    buckets: B::Buckets,
    sum: Duration,
}

impl<B: Bounds> Histogram<B> {
    /// Adds a duration.
    pub fn add(&mut self, duration: Duration) {
        let bucket = B::bounds().position(|bound| duration <= bound).unwrap_or_else(|| B::bounds().len());
        self.buckets.as_mut()[bucket] += 1;
        self.sum = self.sum.saturating_add(duration);
    }

    /// How many durations were at most as long as each bound.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let counts = self.buckets.as_ref().iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        B::bounds().zip(counts)
    }

    /// How many durations were added.
    pub fn count(&self) -> u64 {
        self.buckets.as_ref().iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_up_to_each_bound_that_it_does_not_exceed() {
        let mut histogram = Histogram::<ClaimDuration>::default();
        for milliseconds in [0, 50, 51, 300, 10_000, 10_001] {
            histogram.add(Duration::from_millis(milliseconds));
        }
        let counts: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 3, 3, 4, 4, 4, 4, 4, 4, 4, 5]);
        assert_eq!((histogram.count(), histogram.sum()), (6, Duration::from_millis(20_402)));
    }

    #[test]
    fn only_acknowledged_claims_have_a_duration() {
        let mut counters = Counters::default();
        counters.claim(Kind::Route, Duration::from_millis(200), None);
        counters.claim(Kind::Route, Duration::from_secs(3), Some(ErrorClass::TimedOut));
        let claims = counters.claims.get(&Kind::Route).expect("counted");
        assert_eq!((claims.acknowledged, claims.durations.count()), (1, 1));
        assert_eq!(claims.failed, BTreeMap::from([(ErrorClass::TimedOut, 1)]));
        assert_eq!(counters.claims.get(&Kind::Address), None);
    }

    #[test]
    fn the_first_request_after_each_notify_event_is_measured_for_each_resource() {
        let [a, b]: [Resource; 2] = [1, 2].map(|n| std::net::Ipv4Addr::new(10, 0, 0, n).into());
        let ms = Duration::from_millis;
        let mut requests = FirstRequests::default();
        let mut sent = |now, notified: &[(&Resource, u64)]| {
            let notified: Vec<_> = notified.iter().map(|(resource, at)| ((*resource).clone(), ms(*at))).collect();
            requests.sent(ms(now), &notified);
            (requests.durations.count(), requests.durations.sum())
        };
        assert_eq!(sent(1_000, &[]), (0, ms(0)), "a claim that no notify event has caused");
        assert_eq!(sent(1_002, &[(&a, 1_000)]), (1, ms(2)));
        assert_eq!(sent(1_020, &[(&a, 1_000), (&b, 1_005)]), (2, ms(17)), "a retry of the one, and the other");
        assert_eq!(sent(9_000, &[(&a, 8_500), (&b, 1_005)]), (3, ms(517)), "the next notify event");
        requests.retain(|resource| *resource == a);
        assert_eq!(requests.measured.len(), 1);
        assert_eq!(requests.durations.count(), 3);
    }

    #[test]
    fn what_is_no_longer_configured_is_forgotten() {
        let mut counters = Counters::default();
        let [web, db] = ["web", "db"].map(|name| GroupName::try_from(name).expect("a name"));
        counters.transition(&web);
        counters.transition(&web);
        counters.ownership_lost(&db, Taker::Peer);
        counters.retain(|group| group == "web");
        assert_eq!(counters.groups.get("web").map(|group| group.transitions), Some(2));
        assert_eq!(counters.groups.get("db"), None);
    }
}
