//! EC2's request id of a read, which can consist of several requests.

use std::cell::RefCell;

use vipa_core::model::ids::RequestId;

tokio::task_local! {
    /// The id of the last request of this task that has succeeded.
    static LAST: RefCell<Option<RequestId>>;
}

/// Makes calls of EC2, and also returns the id of their last request that has succeeded.
pub async fn with_request_id<F: Future>(calls: F) -> (F::Output, Option<RequestId>) {
    let calls = async {
        let output = calls.await;
        (output, LAST.with(RefCell::take))
    };
    LAST.scope(RefCell::default(), calls).await
}

/// A request of this task has succeeded.
pub(super) fn succeeded(id: Option<RequestId>) {
    // Other calls need no id.
    let _ = LAST.try_with(|last| last.replace(id));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_request_of_a_read_gives_the_id() {
        let id = |id: &str| RequestId::try_from(id).ok();
        let read = || async {
            succeeded(id("r-1"));
            tokio::task::yield_now().await;
            succeeded(id("r-2"));
            7
        };
        assert_eq!(with_request_id(read()).await, (7, id("r-2")));
        assert_eq!(with_request_id(async { 8 }).await, (8, None));
        succeeded(id("r-3"));
    }
}
