//! Writes the metrics beside the event loop: a file in Prometheus's text format, for node_exporter's textfile collector.
//!
//! The loop only collects the facts. Rendering and writing happen on another thread, and neither while the requests that a
//! notify event has caused may still have to be sent.
//!
//! node_exporter publishes when the file was modified, and an alert judges by it whether the agent is alive. So an unchanged
//! file is touched before it is a minute old, at the loop's command: if the loop hangs, nothing is touched.

use std::fs::{self, File};
use std::future::pending;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use vipa_core::model::counters::Counters;
use vipa_core::report::metrics;
use vipa_core::report::model::Report;

use crate::fs::json_file::{self, FileError};
use crate::log_messages::log;
use crate::systemd::log_throttle::LogThrottle;

/// The least time between two writes.
const MIN_WRITE_INTERVAL: Duration = Duration::from_secs(15);

/// The time from the last write, or look at an unchanged file, to the next one without any change.
const REFRESH_INTERVAL: Duration = Duration::from_secs(45);

/// An unchanged file is touched from this age on: the next look at it may be [`MIN_WRITE_INTERVAL`] and [`MAX_WRITE_DELAY`]
/// later, and it stays younger than a minute.
const TOUCH_AFTER: Duration = Duration::from_secs(30);

/// How long changes are collected before they are written.
const COLLECTION_TIME: Duration = Duration::from_secs(1);

/// How long after a notify event nothing is collected.
const QUIET_TIME: Duration = Duration::from_millis(100);

/// How long notify events may put off a write.
const MAX_WRITE_DELAY: Duration = Duration::from_secs(5);

/// How long the end of the agent waits for the write under way.
const FINAL_WRITE_TIMEOUT: Duration = Duration::from_millis(100);

/// node_exporter runs as another user.
const MODE: u32 = 0o644;

/// The schedule of the writes.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    /// When the present changes are written, and until when notify events may put that off.
    due: Option<(Instant, Instant)>,
    /// When the last write began.
    last: Option<Instant>,
    /// The hash of the last text.
    written: Option<u64>,
    under_way: Option<JoinHandle<Result<u64, FileError>>>,
    throttle: LogThrottle<String>,
}

/// The next step of the writer.
#[derive(Debug)]
pub enum MetricsStep {
    /// Collect the facts, and write them.
    Write,
    /// The write has ended.
    Completed(Result<Result<u64, FileError>, JoinError>),
}

impl MetricsWriter {
    pub fn new(path: PathBuf) -> Self {
        Self { path, due: None, last: None, written: None, under_way: None, throttle: LogThrottle::default() }
    }

    /// Schedules a write, because something may have changed.
    pub fn notice(&mut self, now: Instant) {
        if self.due.is_none() {
            let rested = self.last.map_or(now, |last| last + MIN_WRITE_INTERVAL);
            let due = rested.max(now + COLLECTION_TIME);
            self.due = Some((due, due + MAX_WRITE_DELAY));
        }
    }

    /// Puts off the write that is due, because a notify event has come.
    pub fn put_off(&mut self, now: Instant) {
        if let Some((due, latest)) = &mut self.due {
            *due = (*due).max(now + QUIET_TIME).min(*latest);
        }
    }

    /// Waits until there is something to do. Safe to cancel: the deadlines and the write under way are stored.
    pub async fn due(&mut self) -> MetricsStep {
        let next = self.next();
        match (&mut self.under_way, next) {
            (Some(write), _) => MetricsStep::Completed(write.await),
            (None, Some(next)) => {
                tokio::time::sleep_until(next.into()).await;
                MetricsStep::Write
            }
            (None, None) => pending().await,
        }
    }

    fn next(&self) -> Option<Instant> {
        let refresh = self.last.map(|last| last + REFRESH_INTERVAL);
        self.due.map(|(due, _)| due).into_iter().chain(refresh).min()
    }

    /// Starts a write.
    pub fn write(&mut self, report: Report, counters: Counters, now: Instant) {
        (self.due, self.last) = (None, Some(now));
        let (path, written) = (self.path.clone(), self.written);
        self.under_way = Some(spawn_blocking(move || write(&path, &report, &counters, written)));
    }

    /// Records the result of a write. One that failed is repeated with the next change, or without one in a minute.
    pub fn completed(&mut self, result: Result<Result<u64, FileError>, JoinError>) {
        self.under_way = None;
        let error = match result {
            Ok(Ok(hash)) => {
                self.written = Some(hash);
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if let Some(times) = self.throttle.say(error.clone()) {
            log!(METRICS_NOT_WRITTEN, error, times);
        }
    }

    /// Removes the file: the numbers of an agent that has ended are outdated. The unit's RuntimeDirectory does the same after
    /// a crash.
    pub async fn end(&mut self) {
        if let Some(write) = self.under_way.take() {
            let _ = tokio::time::timeout(FINAL_WRITE_TIMEOUT, write).await;
        }
        // It may not exist.
        let _ = fs::remove_file(&self.path);
    }
}

/// Renders the metrics, and writes the file; one that has the same text is touched if it is old. Returns the hash of the text.
fn write(path: &Path, report: &Report, counters: &Counters, written: Option<u64>) -> Result<u64, FileError> {
    let text = metrics::render(report, counters);
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let hash = hasher.finish();
    // After a change of the clock its age is wrong, and may be negative.
    let is_recent = |modified: SystemTime| modified.elapsed().is_ok_and(|age| age < TOUCH_AFTER);
    match fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(modified) if written == Some(hash) && is_recent(modified) => {}
        Ok(_) if written == Some(hash) => {
            let touched = File::options().write(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
            touched.map_err(FileError::io("write", path))?;
        }
        Ok(_) | Err(_) => json_file::write_bytes(path, MODE, text.as_bytes())?,
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use vipa_core::model::resource::Kind;

    use super::*;
    use crate::agent::tests::agent_of_two_hundred_masters;
    use crate::paths::Paths;

    fn seconds(tenths: u64) -> Duration {
        Duration::from_millis(tenths * 100)
    }

    #[test]
    fn writes_are_fifteen_seconds_apart_and_collect_changes() {
        let mut writer = MetricsWriter::new("/nonexistent/metrics.prom".into());
        let began = Instant::now();
        let due = |writer: &MetricsWriter| writer.due.map(|(due, _)| due - began);
        assert_eq!(due(&writer), None, "nothing has changed");
        writer.notice(began);
        writer.notice(began + seconds(5));
        assert_eq!(due(&writer), Some(COLLECTION_TIME));
        (writer.due, writer.last) = (None, Some(began + seconds(10)));
        writer.notice(began + seconds(20));
        assert_eq!(due(&writer), Some(seconds(160)));
        writer.due = None;
        writer.notice(began + seconds(300));
        assert_eq!(due(&writer), Some(seconds(310)));
    }

    #[test]
    fn notify_events_put_off_a_write_but_not_for_ever() {
        let mut writer = MetricsWriter::new("/nonexistent/metrics.prom".into());
        let began = Instant::now();
        writer.put_off(began);
        assert!(writer.due.is_none());
        writer.notice(began);
        let due = |writer: &MetricsWriter| writer.due.expect("due").0 - began;
        writer.put_off(began + seconds(5));
        assert_eq!(due(&writer), seconds(10), "soon enough");
        writer.put_off(began + seconds(10));
        assert_eq!(due(&writer), seconds(11));
        (10..100).for_each(|tenths| writer.put_off(began + seconds(tenths)));
        assert_eq!(due(&writer), COLLECTION_TIME + MAX_WRITE_DELAY);
    }

    #[test]
    fn without_changes_the_file_is_looked_at_within_a_minute() {
        let mut writer = MetricsWriter::new("/nonexistent/metrics.prom".into());
        let began = Instant::now();
        assert_eq!(writer.next(), None, "nothing is known yet");
        writer.last = Some(began);
        assert_eq!(writer.next(), Some(began + REFRESH_INTERVAL));
        writer.notice(began + seconds(10));
        assert_eq!(writer.next(), Some(began + MIN_WRITE_INTERVAL));
        assert!(REFRESH_INTERVAL + MAX_WRITE_DELAY < Duration::from_secs(60));
        assert!(TOUCH_AFTER + MIN_WRITE_INTERVAL + MAX_WRITE_DELAY < Duration::from_secs(60));
    }

    fn report() -> Report {
        serde_json::from_str(include_str!("../../tests/status/ok.json")).expect("a report")
    }

    /// Performs a write, and returns whether it succeeded.
    async fn perform(writer: &mut MetricsWriter, counters: &Counters) -> bool {
        writer.write(report(), counters.clone(), Instant::now());
        let MetricsStep::Completed(done) = writer.due().await else { panic!("nothing is under way") };
        let is_written = done.as_ref().is_ok_and(Result::is_ok);
        writer.completed(done);
        is_written
    }

    #[tokio::test]
    async fn the_file_is_for_everyone_to_read_and_the_same_text_is_not_written_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("metrics.prom");
        let inode = || fs::metadata(&path).map(|metadata| metadata.ino()).ok();
        let mut writer = MetricsWriter::new(path.clone());
        let mut counters = Counters::default();
        assert!(perform(&mut writer, &counters).await);
        assert_eq!(fs::metadata(&path).expect("written").permissions().mode() & 0o777, 0o644);
        let first = inode();
        assert!(perform(&mut writer, &counters).await);
        assert_eq!(inode(), first, "the same text");
        counters.claim(Kind::Address, Duration::ZERO, None);
        assert!(perform(&mut writer, &counters).await);
        assert_ne!(inode(), first);
        assert!(fs::read_to_string(&path).expect("written").contains("acknowledged\",class=\"\"} 1"));
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1, "nothing else is left");
        writer.end().await;
        assert_eq!(inode(), None);
        assert!(perform(&mut writer, &counters).await);
        assert!(inode().is_some(), "what is gone is written again");
    }

    #[tokio::test]
    async fn an_unchanged_file_is_touched_when_it_is_old() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("metrics.prom");
        let metadata = || fs::metadata(&path).expect("written");
        let modified = || metadata().modified().expect("a time");
        let mut writer = MetricsWriter::new(path.clone());
        let counters = Counters::default();
        assert!(perform(&mut writer, &counters).await);
        let inode = metadata().ino();
        let now = SystemTime::now();
        for (time, is_kept, why) in [
            (now - Duration::from_secs(10), true, "young"),
            (now - TOUCH_AFTER, false, "old"),
            (now - Duration::from_secs(86_400), false, "the clock was set forward"),
            (now + Duration::from_secs(86_400), false, "the clock was set back"),
        ] {
            File::options().write(true).open(&path).expect("opened").set_modified(time).expect("set");
            assert!(perform(&mut writer, &counters).await);
            assert_eq!(modified() == time, is_kept, "{why}");
            assert!(is_kept || modified().elapsed().is_ok_and(|age| age < TOUCH_AFTER), "{why}");
        }
        assert_eq!(metadata().ino(), inode, "it was not written again");
    }

    #[tokio::test]
    async fn a_write_that_failed_is_repeated() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("later").join("metrics.prom");
        let mut writer = MetricsWriter::new(path.clone());
        assert!(!perform(&mut writer, &Counters::default()).await);
        fs::create_dir(directory.path().join("later")).expect("made");
        assert!(perform(&mut writer, &Counters::default()).await);
        assert!(path.exists());
    }

    /// All of it: what the loop collects, and what the other thread renders and writes. /run is in memory, as /dev/shm is.
    #[tokio::test]
    async fn the_metrics_of_two_hundred_groups_take_two_milliseconds_at_most() {
        let (state, paths) = (tempfile::tempdir().expect("a directory"), Paths::system());
        let mut agent = agent_of_two_hundred_masters(&paths, state.path());
        let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let path = directory.path().join("metrics.prom");
        // The quickest of many, because other processes interrupt.
        let quickest = (0..500).map(|_| {
            agent.counters.claim(Kind::Address, Duration::ZERO, None);
            let began = Instant::now();
            let (report, counters) = (agent.report(0), agent.counted());
            let collected = began.elapsed();
            write(&path, &report, &counters, None).expect("written");
            (began.elapsed(), collected)
        });
        let (quickest, collected) = quickest.min().expect("one");
        let text = fs::read_to_string(&path).expect("written");
        println!("{} bytes in {quickest:?}, of which {collected:?} in the loop", text.len());
        let masters = text
            .lines()
            .filter(|line| line.starts_with("vyos_aws_vipa_vrrp_state{") && line.ends_with("\"MASTER\"} 1"));
        assert_eq!(masters.count(), 200, "{text}");
        assert!(quickest < Duration::from_millis(2), "{quickest:?}");
    }
}
