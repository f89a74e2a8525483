//! Writing what outlives the agent, beside the loop: a slow disk delays no claim.

use std::future::pending;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::timeout_at;

use crate::agent::state::{State, Urgency, Write, Written};
use crate::log_messages::log;
use crate::systemd::log_throttle::LogThrottle;

/// How long changes are collected before they are written.
const COLLECT: Duration = Duration::from_millis(500);

/// How long a change waits that nobody would miss.
const LATER: Duration = Duration::from_secs(60);

/// How long to wait after a write that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// How long the agent's end waits for the disk.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// The writing.
#[derive(Debug, Default)]
pub struct Disk {
    due: Option<Instant>,
    /// A disk that has failed is not tried before.
    not_before: Option<Instant>,
    under_way: Option<Writes>,
    throttle: LogThrottle<String>,
}

type Writes = JoinHandle<Vec<Written>>;

/// Not everything is on disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The disk does not take it in time.
    #[error("the disk did not take it within {LAST_WRITE:?}")]
    TimedOut,
    /// The thread that wrote has ended early.
    #[error("the writing thread failed: {0}")]
    Thread(#[from] JoinError),
    /// A file could not be written.
    #[error("{0}")]
    File(String),
}

impl Disk {
    /// Sees to it that changes are written as soon as they have to be.
    pub fn notice(&mut self, state: &State) {
        if let Some(urgency) = state.urgency() {
            let now = Instant::now();
            let rested = self.not_before.unwrap_or(now);
            let soon = match urgency {
                Urgency::Later => rested.max(now + LATER),
                Urgency::Soon => rested.max(now + COLLECT),
                Urgency::AtOnce => now,
            };
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        }
    }

    /// Waits until there is something to do. Safe to cancel: the deadline and the write under way are kept.
    pub async fn due(&mut self) -> Step {
        match (&mut self.under_way, self.due) {
            (Some(writes), _) => Step::Written(writes.await),
            (None, Some(due)) => {
                tokio::time::sleep_until(due.into()).await;
                Step::Write
            }
            (None, None) => pending().await,
        }
    }

    /// Writes what is left, after what is being written: two writes of one file must not overtake each other. Where the
    /// disk hangs, what is left stays unwritten: the end of the agent does not wait for it.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn end(&mut self, state: &mut State) -> Result<(), DiskError> {
        let end = tokio::time::Instant::now() + LAST_WRITE;
        if let Some(writes) = self.under_way.take() {
            let results = timeout_at(end, writes).await.map_err(|_| DiskError::TimedOut)?;
            state.written(&results.unwrap_or_default());
        }
        let writes = state.writes();
        let results = timeout_at(end, spawn_blocking(|| perform(writes))).await.map_err(|_| DiskError::TimedOut)??;
        failure(&results).map_or(Ok(()), |error| Err(DiskError::File(error)))
    }

    /// Does it.
    pub fn step(&mut self, state: &mut State, step: Step) {
        match step {
            Step::Write => {
                self.due = None;
                let writes = state.writes();
                self.under_way = Some(spawn_blocking(move || perform(writes)));
            }
            Step::Written(results) => {
                self.under_way = None;
                let (results, error) = match results {
                    Ok(results) => {
                        let error = failure(&results);
                        (results, error)
                    }
                    Err(error) => (Vec::new(), Some(DiskError::Thread(error).to_string())),
                };
                state.written(&results);
                self.not_before = error.as_ref().map(|_| Instant::now() + AFTER_FAILURE);
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

fn perform(writes: Vec<Write>) -> Vec<Written> {
    writes.into_iter().map(Write::perform).collect()
}

fn failure(results: &[Written]) -> Option<String> {
    results.iter().find_map(|written| written.result.as_ref().err()).map(ToString::to_string)
}

/// What is to be done.
#[derive(Debug)]
pub enum Step {
    /// Something is to be written.
    Write,
    /// Writes have ended.
    Written(Result<Vec<Written>, JoinError>),
}
