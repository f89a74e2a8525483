//! The service manager's watchdog: an agent whose loop does not come round any more is restarted (WatchdogSec in the unit).

use std::future::pending;
use std::time::{Duration, Instant};

use crate::log_messages::log;
use crate::systemd::log_throttle::LogThrottle;

/// When to say next that the loop is alive.
#[derive(Debug)]
pub struct Watchdog {
    /// Absent: nobody waits for it.
    every: Option<Duration>,
    next: Instant,
    throttle: LogThrottle<std::io::ErrorKind>,
}

impl Watchdog {
    /// As the service manager asks for it (sd_watchdog_enabled(3) wants a word in half the time; a third forgives one).
    pub fn new() -> Self {
        let every = sd_notify::watchdog_enabled().map(|bound| bound / 3);
        Self { every, next: Instant::now(), throttle: LogThrottle::default() }
    }

    /// Waits until it is time. Safe to cancel: the deadline is kept.
    pub async fn due(&self) {
        match self.every {
            Some(_) => tokio::time::sleep_until(self.next.into()).await,
            None => pending().await,
        }
    }

    /// Says it.
    pub fn feed(&mut self) {
        self.next = Instant::now() + self.every.unwrap_or_default();
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog])
            && let Some(times) = self.throttle.say(error.kind())
        {
            log!(SD_NOTIFY_FAILED, %error, times);
        }
    }
}
