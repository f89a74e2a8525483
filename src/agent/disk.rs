//! Writing what outlives the agent, beside the loop: a slow disk delays no claim.

use std::future::pending;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use crate::files::FileError;
use crate::state::{State, Write};

/// How long changes are collected before they are written.
const COLLECT: Duration = Duration::from_millis(500);

/// How long to wait after a write that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// How long the agent's end waits for a write under way.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// The writing.
#[derive(Debug, Default)]
pub struct Disk {
    due: Option<Instant>,
    under_way: Option<JoinHandle<Result<(), FileError>>>,
}

impl Disk {
    /// Sees to it that changes are written soon, or at once.
    pub fn notice(&mut self, state: &State, at_once: bool) {
        if state.is_dirty() {
            let soon = Instant::now() + if at_once { Duration::ZERO } else { COLLECT };
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        }
    }

    /// Waits until there is something to do. Safe to cancel: the deadline and the write under way are kept.
    pub async fn due(&mut self) -> Step {
        match (&mut self.under_way, self.due) {
            (Some(write), _) => Step::Written(write.await.unwrap_or(Ok(()))),
            (None, Some(due)) => {
                tokio::time::sleep_until(due.into()).await;
                Step::Write
            }
            (None, None) => pending().await,
        }
    }

    /// Writes what is left, after what is being written: two writes of one file must not overtake each other, and nobody
    /// waits for a thread when the process ends.
    ///
    /// # Errors
    /// The first [`FileError`].
    pub async fn end(&mut self, state: &mut State) -> Result<(), FileError> {
        if let Some(write) = self.under_way.take()
            && !matches!(timeout(LAST_WRITE, write).await, Ok(Ok(Ok(()))))
        {
            state.touch();
        }
        state.flush()
    }

    /// Does it.
    pub fn step(&mut self, state: &mut State, step: Step) {
        match step {
            Step::Write => {
                self.due = None;
                let writes = state.writes();
                self.under_way = Some(tokio::task::spawn_blocking(move || {
                    writes.into_iter().map(Write::perform).fold(Ok(()), Result::and)
                }));
            }
            Step::Written(result) => {
                self.under_way = None;
                if let Err(error) = result {
                    warn!(%error, "state not written");
                    state.touch();
                    self.due = Some(Instant::now() + AFTER_FAILURE);
                }
            }
        }
    }
}

/// What is to be done.
#[derive(Debug)]
pub enum Step {
    /// Something is to be written.
    Write,
    /// A write has ended.
    Written(Result<(), FileError>),
}
