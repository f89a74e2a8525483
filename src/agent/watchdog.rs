//! systemd's watchdog: systemd restarts an agent whose event loop hangs (WatchdogSec in the unit).

use std::future::pending;
use std::time::{Duration, Instant};

use crate::log_messages::log;
use crate::systemd::log_throttle::LogThrottle;

/// When to notify systemd next.
#[derive(Debug)]
pub struct Watchdog {
    /// Absent: systemd expects no notification.
    every: Option<Duration>,
    next: Instant,
    throttle: LogThrottle<std::io::ErrorKind>,
}

impl Watchdog {
    /// As systemd requests it. sd_watchdog_enabled(3) recommends half the time; a third allows for one that is late.
    pub fn new() -> Self {
        let every = sd_notify::watchdog_enabled().map(|bound| bound / 3);
        Self { every, next: Instant::now(), throttle: LogThrottle::default() }
    }

    /// Waits until the next notification. Safe to cancel: the deadline is stored.
    pub async fn due(&self) {
        match self.every {
            Some(_) => tokio::time::sleep_until(self.next.into()).await,
            None => pending().await,
        }
    }

    /// Notifies systemd.
    pub fn feed(&mut self) {
        self.next = Instant::now() + self.every.unwrap_or_default();
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog])
            && let Some(times) = self.throttle.say(error.kind())
        {
            log!(SD_NOTIFY_FAILED, %error, times);
        }
    }
}
