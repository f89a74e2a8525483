//! Tells a claim under way that it is no longer wanted: its groups are not MASTER any more, or are paused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

tokio::task_local! {
    /// The withdrawal of the call that this task makes.
    static WITHDRAWAL: Withdrawal;
}

/// Whether a claim under way is still wanted. What has been sent of it cannot be called back, but no copy of a late request
/// is sent, and no further request for a route.
#[derive(Debug, Clone, Default)]
pub struct Withdrawal(Arc<AtomicBool>);

impl Withdrawal {
    /// Makes a call that this can withdraw.
    pub async fn cover<F: Future>(self, call: F) -> F::Output {
        WITHDRAWAL.scope(self, call).await
    }

    /// The call is no longer wanted.
    pub fn withdraw(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the call still goes on, so that withdrawing it has an effect.
    pub fn covers_a_call(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// Whether the call that this task makes has been withdrawn.
pub(super) fn is_withdrawn() -> bool {
    WITHDRAWAL.try_with(|withdrawal| withdrawal.0.load(Ordering::Relaxed)).unwrap_or(false)
}
