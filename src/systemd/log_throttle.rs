//! Limits the log lines about repeated events, and counts every event.
//!
//! An event has a reason and a subject: for example a state that a group changes to, and the group. A new reason is
//! logged at once. Further events of that reason within a second of its line share the next line. A subject has at most
//! [`LogThrottle::allowing`] such lines in ten minutes; its events beyond that are counted, and logged with the count
//! at the end of the ten minutes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the events of a subject are counted until the next line.
pub(crate) const REPEAT_INTERVAL: Duration = Duration::from_mins(10);

/// How long events of one reason are collected for one line.
const GATHER_INTERVAL: Duration = Duration::from_secs(1);

/// How many reasons are remembered: texts from outside may differ each time.
const MAX_REASONS: usize = 64;

/// Decides what is logged of events with a reason `R` and a subject `S`.
#[derive(Debug)]
pub struct LogThrottle<R, S = ()> {
    /// How many lines a subject has in ten minutes before its events are only counted.
    free: u32,
    reasons: BTreeMap<R, ReasonState<S>>,
    /// When expired reasons were last removed.
    cleared: Option<Instant>,
}

#[derive(Debug)]
struct ReasonState<S> {
    written: Option<Instant>,
    subjects: BTreeMap<S, SubjectState>,
}

#[derive(Debug)]
struct SubjectState {
    /// When its ten minutes began.
    since: Instant,
    /// Its lines within them.
    lines: u32,
    /// Its events since its last line.
    held: u32,
}

impl SubjectState {
    /// When the held events are to be logged: in their turn, or after the ten minutes.
    fn due(&self, free: u32, written: Option<Instant>) -> Option<Instant> {
        let turn = if self.lines < free {
            written.map_or(self.since, |at| at + GATHER_INTERVAL)
        } else {
            self.since + REPEAT_INTERVAL
        };
        (self.held > 0).then_some(turn)
    }

    fn take(&mut self, now: Instant) -> u32 {
        if self.since + REPEAT_INTERVAL <= now {
            (self.since, self.lines) = (now, 0);
        }
        self.lines = self.lines.saturating_add(1);
        std::mem::take(&mut self.held)
    }
}

/// A line to log.
#[derive(Debug, PartialEq, Eq)]
pub struct ThrottledLine<S> {
    pub subjects: Vec<S>,
    /// How many events it stands for, of all subjects together.
    pub times: u32,
}

impl<R, S> Default for LogThrottle<R, S> {
    /// One line for each subject in ten minutes.
    fn default() -> Self {
        Self::allowing(1)
    }
}

impl<R, S> LogThrottle<R, S> {
    /// That many lines for each subject in ten minutes.
    pub fn allowing(free: u32) -> Self {
        Self { free, reasons: BTreeMap::new(), cleared: None }
    }
}

impl<R: Ord + Clone> LogThrottle<R> {
    /// Counts an event. Returns how many there were since the last line, if a line is to be written now.
    pub fn say(&mut self, reason: R) -> Option<u32> {
        self.happened(Instant::now(), reason, ()).map(|line| line.times)
    }
}

impl<R: Ord + Clone, S: Ord + Clone> LogThrottle<R, S> {
    /// Counts an event of a subject. Returns the line, if one is to be written now.
    pub fn happened(&mut self, now: Instant, reason: R, subject: S) -> Option<ThrottledLine<S>> {
        self.make_room(now, &reason);
        let free = self.free;
        let reason = self.reasons.entry(reason).or_insert(ReasonState { written: None, subjects: BTreeMap::new() });
        let state = reason.subjects.entry(subject.clone()).or_insert(SubjectState { since: now, lines: 0, held: 0 });
        state.held = state.held.saturating_add(1);
        let due = state.due(free, reason.written).is_some_and(|due| due <= now);
        due.then(|| {
            reason.written = Some(now);
            ThrottledLine { subjects: vec![subject], times: state.take(now) }
        })
    }

    /// The lines that were held back and are due now.
    pub fn due(&mut self, now: Instant) -> Vec<(R, ThrottledLine<S>)> {
        let free = self.free;
        let mut lines = Vec::new();
        for (name, ReasonState { written, subjects }) in &mut self.reasons {
            let due = subjects.iter_mut().filter(|(_, s)| s.due(free, *written).is_some_and(|due| due <= now));
            let line = due.fold(ThrottledLine { subjects: Vec::new(), times: 0 }, |mut line, (subject, state)| {
                line.subjects.push(subject.clone());
                line.times = line.times.saturating_add(state.take(now));
                line
            });
            if !line.subjects.is_empty() {
                *written = Some(now);
                lines.push((name.clone(), line));
            }
        }
        lines
    }

    /// When [`LogThrottle::due`] has the next line.
    pub fn next(&self) -> Option<Instant> {
        let due = |reason: &ReasonState<S>| {
            let subjects = reason.subjects.values();
            subjects.filter_map(|subject| subject.due(self.free, reason.written)).min()
        };
        self.reasons.values().filter_map(due).min()
    }

    /// All lines that are held back, for the end of the log.
    pub fn rest(&mut self, now: Instant) -> Vec<(R, ThrottledLine<S>)> {
        self.due(now + REPEAT_INTERVAL)
    }

    /// Whether there has been an event with such a reason.
    pub fn has(&self, is_such: impl Fn(&R) -> bool) -> bool {
        self.reasons.keys().any(is_such)
    }

    /// Forgets these reasons: their next events count as new.
    pub fn forget(&mut self, is_over: impl Fn(&R) -> bool) {
        self.reasons.retain(|reason, _| !is_over(reason));
    }

    /// Removes expired subjects and reasons, and the oldest reason if there are too many. This visits all of them, so while
    /// there is room it runs at most once a second: two hundred events may happen at once.
    fn make_room(&mut self, now: Instant, reason: &R) {
        let is_full = self.reasons.len() >= MAX_REASONS && !self.reasons.contains_key(reason);
        if !is_full && self.cleared.is_some_and(|at| now < at + GATHER_INTERVAL) {
            return;
        }
        self.cleared = Some(now);
        for reason in self.reasons.values_mut() {
            reason.subjects.retain(|_, subject| subject.held > 0 || now < subject.since + REPEAT_INTERVAL);
        }
        self.reasons.retain(|_, reason| !reason.subjects.is_empty());
        if self.reasons.len() >= MAX_REASONS && !self.reasons.contains_key(reason) {
            let oldest = self.reasons.iter().min_by_key(|(_, reason)| reason.written).map(|(name, _)| name.clone());
            oldest.map(|name| self.reasons.remove(&name));
        }
    }
}

/// Some of the names and how many more there are, for a field of a line.
pub fn named<S: ToString>(subjects: &[S]) -> String {
    const MAX_NAMED: usize = 6;
    let mut names: Vec<String> = subjects.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    if subjects.len() > MAX_NAMED {
        names.push(format!("{} more", subjects.len() - MAX_NAMED));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_failure_that_lasts_is_written_once_and_then_every_ten_minutes_with_a_count() {
        let start = Instant::now();
        let mut log = LogThrottle::default();
        let mut lines = Vec::new();
        for second in 0..1_801 {
            let line = log.happened(after(start, second * 1_000), "no disk", ());
            lines.extend(line.map(|line| (second, line.times)));
        }
        assert_eq!(lines, [(0, 1), (600, 600), (1_200, 600), (1_800, 600)]);
    }

    #[test]
    fn what_happens_to_many_at_once_is_two_lines() {
        let start = Instant::now();
        let mut log = LogThrottle::allowing(5);
        let mut lines: Vec<ThrottledLine<u32>> = Vec::new();
        for group in 0..200 {
            lines.extend(log.happened(after(start, u64::from(group)), "MASTER", group));
        }
        assert_eq!(lines, [ThrottledLine { subjects: vec![0], times: 1 }]);
        assert_eq!(log.next(), Some(start + GATHER_INTERVAL));
        assert_eq!(log.due(after(start, 999)), []);
        let rest = ThrottledLine { subjects: (1..200).collect(), times: 199 };
        assert_eq!(log.due(start + GATHER_INTERVAL), [("MASTER", rest)]);
        assert_eq!(log.next(), None);
        assert_eq!(named(&[1, 2, 3, 4, 5, 6, 7, 8]), "1, 2, 3, 4, 5, 6, 2 more");
    }

    /// 200 groups alternate between two states every 4 s for an hour.
    #[test]
    fn what_flaps_is_bounded_and_nothing_is_lost() {
        let start = Instant::now();
        let mut log = LogThrottle::allowing(5);
        let (mut lines, mut events) = (0, 0);
        let mut count = |line: ThrottledLine<u32>| {
            lines += 1;
            events += line.times;
        };
        for second in 0..3_600 {
            let now = after(start, second * 1_000);
            log.due(now).into_iter().for_each(|(_, line)| count(line));
            if second % 4 == 0 {
                let state = if second % 8 == 0 { "MASTER" } else { "BACKUP" };
                (0..200).for_each(|group| log.happened(now, state, group).into_iter().for_each(&mut count));
            }
        }
        log.rest(after(start, 3_600_000)).into_iter().for_each(|(_, line)| count(line));
        assert_eq!(events, 900 * 200);
        assert!(lines < 200, "{lines} lines in an hour");
    }

    #[test]
    fn what_changes_now_and_then_is_written_at_once() {
        let start = Instant::now();
        let mut log = LogThrottle::allowing(5);
        for minute in 0..100 {
            let line = log.happened(after(start, minute * 120_000), "MASTER", "web");
            assert_eq!(line, Some(ThrottledLine { subjects: vec!["web"], times: 1 }), "{minute}");
        }
    }

    #[test]
    fn reasons_are_bounded() {
        let start = Instant::now();
        let mut log = LogThrottle::default();
        for n in 0..1_000 {
            assert!(log.happened(after(start, n), n, ()).is_some());
        }
        assert!(log.reasons.len() <= MAX_REASONS);
        assert_eq!(log.happened(after(start, 1_000), 999, ()), None);
    }
}
