//! keepalived's sign of life, looked for while the machine is interested.

use std::time::{Duration, Instant};

use tracing::warn;

use super::Moment;
use crate::keepalived::vitality::{Sample, Vitality, progressed};
use crate::paths::Paths;

/// How often to look. One look costs microseconds.
const INTERVAL: Duration = Duration::from_millis(100);

/// The last sample, and when the next one is due.
#[derive(Debug)]
pub struct Life {
    vitality: Vitality,
    /// What progress is measured against, and when it was taken.
    before: Option<(Sample, Moment)>,
    next: Instant,
    /// keepalived could not be looked at; said once.
    blind: bool,
    pub last: Option<Moment>,
}

impl Life {
    pub fn new(paths: &Paths) -> Self {
        Self { vitality: Vitality::new(paths), before: None, next: Instant::now(), blind: false, last: None }
    }

    /// Takes the first sample at once when the interest begins.
    pub fn wanted(&mut self, wanted: bool, now: Moment) {
        if !wanted {
            self.before = None;
        } else if self.before.is_none() && self.next <= Instant::now() {
            self.look(now);
        }
    }

    /// Waits until the next look. Safe to cancel: the deadline is kept.
    pub async fn due(&self) {
        tokio::time::sleep_until(self.next.into()).await;
    }

    /// Looks; the moment after which keepalived has run, if it has since the last look.
    pub fn look(&mut self, now: Moment) -> Option<Moment> {
        self.next = Instant::now() + INTERVAL;
        let sample = match self.vitality.look() {
            Ok(sample) => sample,
            Err(error) => {
                if !self.blind {
                    warn!(%error, "no sign of life of keepalived");
                }
                self.blind = true;
                self.before = None;
                return None;
            }
        };
        self.blind = false;
        let alive_after = self.before.as_ref().filter(|(before, _)| progressed(before, &sample)).map(|(_, at)| *at);
        // Without progress too: what runs from now on has run after now.
        self.before = Some((sample, now));
        if alive_after.is_some() {
            self.last = Some(now);
        }
        alive_after
    }
}
