//! keepalived's liveness, sampled often while the state machine needs it, and rarely for the status otherwise.

use std::future::pending;
use std::time::{Duration, Instant};

use super::{BootInstant, Event};
use crate::keepalived::liveness::{LivenessProbe, Sample, progressed, sleeps};
use crate::log_messages::log;
use crate::paths::Paths;
use crate::systemd::log_throttle::LogThrottle;

/// How often keepalived is sampled if only the status uses the result.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// The last sample. Taking one costs microseconds.
#[derive(Debug)]
pub struct Liveness {
    probe: LivenessProbe,
    /// The sample that progress is measured against, and when it was taken.
    before: Option<(Sample, BootInstant)>,
    /// Since when keepalived has been asleep.
    quiet: Option<BootInstant>,
    looked: Option<Instant>,
    throttle: LogThrottle<()>,
    pub last: Option<BootInstant>,
}

impl Liveness {
    pub fn new(paths: &Paths) -> Self {
        let throttle = LogThrottle::default();
        Self { probe: LivenessProbe::new(paths), before: None, quiet: None, looked: None, throttle, last: None }
    }

    /// Takes the first sample at once when sampling begins. `again`: the sampling interval, if any.
    pub fn wanted(&mut self, again: Option<Duration>, now: BootInstant) {
        match again {
            None => self.forget(),
            Some(again) if self.before.is_none() && self.next(again) <= Instant::now() => _ = self.look(now),
            Some(_) => {}
        }
    }

    /// Waits until that interval has passed since the last sample, or forever without one. Safe to cancel: the time of
    /// the last sample is stored.
    pub async fn due(&self, again: Option<Duration>) {
        match again {
            Some(again) => tokio::time::sleep_until(self.next(again).into()).await,
            None => pending().await,
        }
    }

    fn next(&self, again: Duration) -> Instant {
        self.looked.map_or_else(Instant::now, |looked| looked + again)
    }

    fn forget(&mut self) {
        self.before = None;
        self.quiet = None;
    }

    /// Takes a sample. Returns what keepalived has done since the last one, if that is conclusive.
    pub fn look(&mut self, now: BootInstant) -> Option<Event> {
        self.looked = Some(Instant::now());
        let sample = match self.probe.look() {
            Ok(sample) => sample,
            Err(error) => {
                // While keepalived restarts again and again, it is absent in between each time.
                if let Some(times) = self.throttle.say(()) {
                    log!(KEEPALIVED_NOT_READ, %error, times);
                }
                self.forget();
                return None;
            }
        };
        let event = self.before.as_ref().and_then(|(before, at)| {
            if progressed(before, &sample) {
                self.last = Some(now);
                Some(Event::Liveness { after: *at })
            } else {
                sleeps(before, &sample).then(|| Event::Inactive { since: self.quiet.unwrap_or(*at) })
            }
        });
        self.quiet = match event {
            Some(Event::Inactive { since }) => Some(since),
            _ => None,
        };
        // Also without progress: what runs from now on has run after now.
        self.before = Some((sample, now));
        event
    }
}
