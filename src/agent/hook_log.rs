//! When to log that keepalived has closed the FIFO. A reload leaves the FIFO without a writer for some milliseconds,
//! longer on a busy router; that is not logged, and the state machine ignores it too.

use std::time::Duration;

use vipa_core::claim::BootInstant;

/// How long the FIFO must be without a writer: as long as the state machine waits before it acts on that.
const MIN_REPORTED_GAP: Duration = Duration::from_secs(2);

/// What was logged last, and what is pending.
#[derive(Debug, Default)]
pub struct HookLog {
    reported: Option<bool>,
    /// Since when there is no writer, and why.
    gone: Option<(BootInstant, String)>,
}

impl HookLog {
    /// The writer is gone.
    pub fn gone(&mut self, now: BootInstant, why: String) {
        self.gone.get_or_insert((now, why));
    }

    /// A writer is there. Returns whether that is to be logged.
    pub fn back(&mut self) -> bool {
        self.gone = None;
        self.reported.replace(true) != Some(true)
    }

    /// When the missing writer is to be logged.
    pub fn due(&self) -> Option<BootInstant> {
        self.gone.as_ref().map(|(since, _)| *since + MIN_REPORTED_GAP)
    }

    /// Why there is no writer, once it has been missing for long enough. Returned once.
    pub fn lasts(&mut self, now: BootInstant) -> Option<String> {
        let (_, why) = self.gone.take_if(|(since, _)| *since + MIN_REPORTED_GAP <= now)?;
        self.reported = Some(false);
        Some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootInstant {
        BootInstant::after_boot(Duration::from_millis(millis))
    }

    #[test]
    fn a_gap_is_said_once_it_has_lasted_for_two_seconds() {
        let mut log = HookLog::default();
        assert!(log.back(), "the first writer is news");
        // Reloads in quick succession, as during a boot.
        for began in (0..180).map(|n| n * 100) {
            log.gone(at(began), "no writer".to_owned());
            assert_eq!((log.due(), log.lasts(at(began + 30))), (Some(at(began + 2_000)), None));
            assert!(!log.back() && log.due().is_none(), "no news");
        }
        log.gone(at(20_000), "no writer".to_owned());
        log.gone(at(21_000), "no FIFO".to_owned());
        assert_eq!(log.lasts(at(21_999)), None);
        assert_eq!(log.lasts(at(22_000)), Some("no writer".to_owned()), "what came first");
        assert_eq!((log.due(), log.lasts(at(30_000))), (None, None), "said once");
        assert!(log.back() && !log.back());
        // An agent that starts without keepalived.
        let mut log = HookLog::default();
        log.gone(at(0), "no writer".to_owned());
        assert_eq!(log.lasts(at(2_000)), Some("no writer".to_owned()));
    }
}
