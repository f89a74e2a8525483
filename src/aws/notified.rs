//! How soon after a notify event the requests that it causes are sent.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use vipa_core::model::calls::Calls;

tokio::task_local! {
    /// The notify event that the requests of this task follow, until the first has been sent.
    static NOTIFIED: Notified;
}

struct Notified {
    at: Cell<Option<Instant>>,
    calls: Arc<Mutex<Calls>>,
}

/// Makes a call that a notify event has caused, read at that time, if one has. Measures in `calls` when its first request is
/// sent.
pub async fn after_notify<F: Future>(calls: Arc<Mutex<Calls>>, at: Option<Instant>, call: F) -> F::Output {
    NOTIFIED.scope(Notified { at: Cell::new(at), calls }, call).await
}

/// A request of this task is handed to its connection.
pub(super) fn sending() {
    // Most requests follow no notify event.
    let _ = NOTIFIED.try_with(|notified| {
        if let Some(at) = notified.at.take() {
            let mut calls = notified.calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.notify_to_request.add(at.elapsed());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_first_request_after_a_notify_event_is_measured() {
        let calls = Arc::new(Mutex::new(Calls::default()));
        let count = || calls.lock().expect("no panic").notify_to_request.count();
        let twice = || async {
            sending();
            sending();
        };
        after_notify(Arc::clone(&calls), None, twice()).await;
        assert_eq!(count(), 0);
        after_notify(Arc::clone(&calls), Some(Instant::now()), twice()).await;
        assert_eq!(count(), 1);
        sending();
        assert_eq!(count(), 1);
    }
}
