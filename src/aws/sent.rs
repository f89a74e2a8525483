//! Reports that the first request of a call is sent.

use std::cell::Cell;

tokio::task_local! {
    /// What to do when this task sends its first request.
    static WHEN_SENT: Cell<Option<Box<dyn FnOnce() + Send>>>;
}

/// Makes a call, and calls `report` when its first request is handed to the connection: never if none is.
pub async fn when_sent<F: Future>(report: impl FnOnce() + Send + 'static, call: F) -> F::Output {
    WHEN_SENT.scope(Cell::new(Some(Box::new(report))), call).await
}

/// A request of this task is handed to its connection.
pub(super) fn sending() {
    // Most calls report nothing.
    let _ = WHEN_SENT.try_with(|report| {
        if let Some(report) = report.take() {
            report();
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn only_the_first_request_of_a_call_is_reported() {
        let reports = Arc::new(AtomicU32::new(0));
        let count = || reports.load(Ordering::Relaxed);
        let report = || {
            let reports = Arc::clone(&reports);
            move || _ = reports.fetch_add(1, Ordering::Relaxed)
        };
        when_sent(report(), async {}).await;
        assert_eq!(count(), 0, "nothing was sent");
        when_sent(report(), async {
            sending();
            sending();
        })
        .await;
        assert_eq!(count(), 1);
        sending();
        assert_eq!(count(), 1);
    }
}
