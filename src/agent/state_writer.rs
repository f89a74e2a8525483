//! Writes the state files beside the event loop, so that a slow disk delays no claim.

use std::future::pending;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::timeout_at;

use crate::agent::state::{PendingWrite, PersistentState, Urgency, WriteResult};
use crate::log_messages::log;
use crate::systemd::log_throttle::LogThrottle;

/// How long changes are collected before they are written.
const COLLECTION_TIME: Duration = Duration::from_millis(500);

/// How long a change waits that may be lost.
const LOW_URGENCY_DELAY: Duration = Duration::from_secs(60);

/// How long to wait after a write that failed.
const RETRY_DELAY: Duration = Duration::from_secs(30);

/// How long the end of the agent waits for the disk.
const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// The schedule of the writes.
#[derive(Debug, Default)]
pub struct StateWriter {
    due: Option<Instant>,
    /// After a failure: the earliest time of the next attempt.
    not_before: Option<Instant>,
    under_way: Option<Writes>,
    throttle: LogThrottle<String>,
}

type Writes = JoinHandle<Vec<WriteResult>>;

/// Not everything is on disk.
#[derive(Debug, thiserror::Error)]
pub enum StateWriterError {
    #[error("the disk did not finish the write within {FINAL_WRITE_TIMEOUT:?}")]
    TimedOut,
    #[error("the writing thread failed: {0}")]
    Thread(#[from] JoinError),
    #[error("{0}")]
    File(String),
}

impl StateWriter {
    /// Schedules a write of what has changed.
    pub fn notice(&mut self, state: &PersistentState, now: Instant) {
        if let Some(urgency) = state.urgency() {
            let rested = self.not_before.unwrap_or(now);
            let soon = match urgency {
                Urgency::Later => rested.max(now + LOW_URGENCY_DELAY),
                Urgency::Soon => rested.max(now + COLLECTION_TIME),
                Urgency::AtOnce => now,
            };
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        }
    }

    /// Waits until there is something to do. Safe to cancel: the deadline and the write under way are stored.
    pub async fn due(&mut self) -> WriteStep {
        match (&mut self.under_way, self.due) {
            (Some(writes), _) => WriteStep::Completed(writes.await),
            (None, Some(due)) => {
                tokio::time::sleep_until(due.into()).await;
                WriteStep::Write
            }
            (None, None) => pending().await,
        }
    }

    /// Writes the rest after the write under way, because two writes of one file must not overtake each other. If the
    /// disk hangs, the rest stays unwritten: the end of the agent does not wait for it.
    ///
    /// # Errors
    /// [`StateWriterError`].
    pub async fn end(&mut self, state: &mut PersistentState) -> Result<(), StateWriterError> {
        let end = tokio::time::Instant::now() + FINAL_WRITE_TIMEOUT;
        if let Some(writes) = self.under_way.take() {
            let results = timeout_at(end, writes).await.map_err(|_| StateWriterError::TimedOut)?;
            state.written(&results.unwrap_or_default());
        }
        let writes = state.writes();
        let results =
            timeout_at(end, spawn_blocking(|| perform(writes))).await.map_err(|_| StateWriterError::TimedOut)??;
        failure(&results).map_or(Ok(()), |error| Err(StateWriterError::File(error)))
    }

    /// Starts a write, or records the result of one.
    pub fn step(&mut self, state: &mut PersistentState, step: WriteStep) {
        match step {
            WriteStep::Write => {
                self.due = None;
                let writes = state.writes();
                self.under_way = Some(spawn_blocking(move || perform(writes)));
            }
            WriteStep::Completed(results) => {
                self.under_way = None;
                let (results, error) = match results {
                    Ok(results) => {
                        let error = failure(&results);
                        (results, error)
                    }
                    Err(error) => (Vec::new(), Some(StateWriterError::Thread(error).to_string())),
                };
                state.written(&results);
                self.not_before = error.as_ref().map(|_| Instant::now() + RETRY_DELAY);
                if let Some(error) = error {
                    if let Some(times) = self.throttle.say(error.clone()) {
                        log!(STATE_NOT_WRITTEN, error, times);
                    }
                    self.due = self.not_before;
                }
            }
        }
    }
}

fn perform(writes: Vec<PendingWrite>) -> Vec<WriteResult> {
    writes.into_iter().map(PendingWrite::perform).collect()
}

fn failure(results: &[WriteResult]) -> Option<String> {
    results.iter().find_map(|written| written.result.as_ref().err()).map(ToString::to_string)
}

/// The next step of the writer.
#[derive(Debug)]
pub enum WriteStep {
    Write,
    /// The write has ended.
    Completed(Result<Vec<WriteResult>, JoinError>),
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;
    use std::sync::mpsc;

    use jiff::Timestamp;
    use vipa_core::claim::{ClaimRequest, LogEvent};
    use vipa_core::model::ec2::{CallError, ErrorClass, Failure};
    use vipa_core::model::history::{Record, RecordKind};
    use vipa_core::model::ids::EniId;

    use super::*;
    use crate::agent::Agent;
    use crate::agent::tests::agent_of_two_hundred_masters;
    use crate::paths::Paths;

    /// Writes what is due, and returns how often this has written failovers.json.
    fn step(agent: &mut Agent<'_>, now: Instant) -> usize {
        agent.state_writer.notice(&agent.state, now);
        if agent.state_writer.due.is_none_or(|due| due > now) {
            return 0;
        }
        agent.state_writer.due = None;
        let results = perform(agent.state.writes());
        assert_eq!(failure(&results), None);
        agent.state.written(&results);
        results.iter().filter(|written| written.path.ends_with("failovers.json")).count()
    }

    /// All groups become MASTER, and their claims fail every two seconds for ten minutes.
    #[tokio::test]
    async fn an_outage_of_ec2_writes_the_timelines_of_two_hundred_groups_once_a_minute() {
        let (directory, paths) = (tempfile::tempdir().expect("a directory"), Paths::system());
        let mut agent = agent_of_two_hundred_masters(&paths, directory.path());
        let addresses: Vec<Ipv4Addr> = agent.groups.groups.iter().map(|group| group.addresses[0].address).collect();
        let master_since = agent.clock.now();
        let code = "RequestLimitExceeded".try_into().expect("a code");
        let error = CallError::new(Failure::api(code, ErrorClass::Throttled), "Request limit exceeded.");
        let began = Instant::now();
        let mut writes = 0;
        for ms in (0..600_000).step_by(500) {
            if ms % 2_000 == 500 {
                let eni = EniId::try_from("eni-0000000a").expect("an ENI");
                let claim = LogEvent::Claim {
                    request: ClaimRequest::Addresses { eni, addresses: addresses.clone() },
                    previous: None,
                    duration: Duration::from_millis(300),
                    result: Err(error.clone()),
                };
                agent.note(master_since + Duration::from_millis(ms), claim);
            }
            writes += step(&mut agent, began + Duration::from_millis(ms));
        }
        let failovers = agent.state.failovers.get();
        let last = failovers
            .of(&agent.groups.groups[199].name)
            .and_then(|last| last.became_master.as_ref())
            .expect("recorded");
        assert_eq!(last.resources[0].attempts, 300);
        // One for the transitions, one with the first failure in the history, and one a minute.
        assert!((10..=12).contains(&writes), "{writes}");
    }

    fn record(state: &mut PersistentState, version: &str) {
        let kind = RecordKind::Started { version: version.to_owned() };
        state.record(Record::new(Timestamp::UNIX_EPOCH, kind));
    }

    fn versions(directory: &Path) -> Vec<String> {
        let history = PersistentState::load(directory).history.get().last(usize::MAX).to_vec();
        let version = |record: Record| match record.kind {
            RecordKind::Started { version } => version,
            other => panic!("{other:?}"),
        };
        history.into_iter().map(version).collect()
    }

    /// A state with one record, which a write that goes on until something is sent is to put on the disk.
    fn writing(directory: &Path) -> (PersistentState, StateWriter, mpsc::Sender<()>) {
        let mut state = PersistentState::load(directory);
        record(&mut state, "1");
        let writes = state.writes();
        let (go_on, wait) = mpsc::channel::<()>();
        let write = move || {
            wait.recv().expect("the test goes on");
            perform(writes)
        };
        let writer = StateWriter { under_way: Some(spawn_blocking(write)), ..StateWriter::default() };
        (state, writer, go_on)
    }

    #[tokio::test]
    async fn the_last_write_does_not_overtake_the_one_under_way() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut state, mut writer, go_on) = writing(directory.path());
        record(&mut state, "2");
        let end = writer.end(&mut state);
        let meanwhile = async {
            // Much longer than a write takes.
            tokio::time::sleep(FINAL_WRITE_TIMEOUT / 8).await;
            assert_eq!(versions(directory.path()), <[&str; 0]>::default());
            go_on.send(()).expect("it waits");
        };
        let (ended, ()) = tokio::join!(end, meanwhile);
        ended.expect("written");
        assert_eq!(versions(directory.path()), ["1", "2"]);
    }

    #[tokio::test]
    async fn the_end_does_not_wait_for_a_disk_that_hangs() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut state, mut writer, go_on) = writing(directory.path());
        let began = Instant::now();
        let error = writer.end(&mut state).await.expect_err("the write goes on");
        assert!(matches!(error, StateWriterError::TimedOut), "{error}");
        assert!(began.elapsed() >= FINAL_WRITE_TIMEOUT, "{:?}", began.elapsed());
        go_on.send(()).expect("it waits");
    }

    #[tokio::test]
    async fn a_writing_thread_that_fails_is_a_failed_write() {
        let directory = tempfile::tempdir().expect("a directory");
        for ends in [false, true] {
            let (mut state, mut writer, go_on) = writing(directory.path());
            // The thread panics.
            drop(go_on);
            if !ends {
                let step = writer.due().await;
                assert!(matches!(step, WriteStep::Completed(Err(_))), "{step:?}");
                writer.step(&mut state, step);
                let due = writer.due.expect("another attempt").saturating_duration_since(Instant::now());
                assert!(due > RETRY_DELAY / 2 && due <= RETRY_DELAY, "{due:?}");
                assert_eq!(versions(directory.path()), <[&str; 0]>::default());
            }
            writer.end(&mut state).await.expect("written");
            assert_eq!(versions(directory.path()), ["1"]);
            std::fs::remove_file(directory.path().join("history.json")).expect("removed");
        }
    }
}
