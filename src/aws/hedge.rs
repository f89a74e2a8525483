//! Hedged requests: if the bytes or the answer of a request are late, it is sent again on a new connection.
//!
//! The kernel knows whether TCP has acknowledged the bytes. TCP_USER_TIMEOUT would end the connection, and with it an answer
//! that is only late; besides, the SDK's HTTP client has no setting for it.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aws_sdk_ec2::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use tokio::time::{Instant, sleep};

use super::sent;
use crate::netlink::tcp::acknowledgements;

/// How long TCP may take to acknowledge a request, unless the round trip is longer than half of it. A live
/// host delays an acknowledgement by at most 0.2 s.
const ACK_TIMEOUT: Duration = Duration::from_millis(300);
/// The least time until an answer is late. EC2 itself takes some hundred milliseconds.
const MIN_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon the connection of a request is checked.
const ACK_POLL_INTERVAL: Duration = Duration::from_millis(10);

tokio::task_local! {
    /// Where [`Capture`] stores what it observes of the request that is being sent.
    static CAPTURED: Captured;
}

/// Why a request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Late {
    /// Its bytes are not acknowledged.
    Bytes,
    /// It is not answered.
    Answer,
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "not acknowledged by TCP",
            Self::Answer => "no answer yet",
        })
    }
}

/// What is known of a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Captured(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// The connection that it goes over, once it has one.
    connection: OnceLock<CaptureSmithyConnection>,
    /// The head of its answer has come: a long answer is not late.
    answered: AtomicBool,
}

impl Captured {
    fn connection(&self) -> Option<ConnectionMetadata> {
        self.0.connection.get()?.get()
    }

    /// Waits until the request is late, by its bytes or after `limit`: why, and which address did not answer.
    /// `connecting` is the address that a new connection tries first, where there is another one.
    pub(super) async fn late(
        &self,
        limit: Duration,
        connecting: impl Fn() -> Option<IpAddr>,
    ) -> (Late, Option<IpAddr>) {
        let peer = || match self.connection() {
            Some(connection) => connection.remote_addr().map(|address| address.ip()),
            None => connecting(),
        };
        tokio::select! {
            () = self.not_acknowledged(&connecting) => (Late::Bytes, peer()),
            () = self.not_answered(limit) => (Late::Answer, peer()),
        }
    }

    async fn not_answered(&self, limit: Duration) {
        sleep(limit).await;
        if self.0.answered.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    }

    /// Waits until the bytes are late: two checks of the connection without an acknowledgement between them.
    async fn not_acknowledged(&self, connecting: impl Fn() -> Option<IpAddr>) {
        let (began, mut wait, mut received) = (Instant::now(), ACK_POLL_INTERVAL, None);
        loop {
            sleep(wait).await;
            let Some(connection) = self.connection() else {
                if began.elapsed() >= ACK_TIMEOUT && connecting().is_some() {
                    return;
                }
                continue;
            };
            let seen = connection.local_addr().zip(connection.remote_addr());
            let seen = seen.and_then(|(local, remote)| acknowledgements(local, remote).ok());
            // If the kernel does not know, only the answer can be late.
            let Some(seen) = seen.filter(|seen| seen.missing > 0) else { return std::future::pending().await };
            if received.replace(seen.received) == Some(seen.received) {
                return;
            }
            wait = ACK_TIMEOUT.max(seen.round_trip * 2) - ACK_POLL_INTERVAL;
        }
    }
}

/// Whether EC2 has answered, with success or with an error.
pub(super) fn is_answer<T, E, R>(outcome: &Result<T, SdkError<E, R>>) -> bool {
    matches!(outcome, Ok(_) | Err(SdkError::ServiceError(_)))
}

/// Whether the outcome of one of two copies of a request counts, whatever the other one's is: a success, also that of a dry
/// run. That a route exists already is no reason to wait: the other copy may have created it, and a read shows it.
pub(super) fn is_final<T, E: ProvideErrorMetadata, R>(outcome: &Result<T, SdkError<E, R>>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(error) => matches!(error.code(), Some("DryRunOperation" | "RouteAlreadyExists")),
    }
}

/// Which outcome of two copies of a request counts. An answer of EC2 shows more than a failure of the connection.
pub(super) fn better<T, E: ProvideErrorMetadata, R>(
    first: Result<T, SdkError<E, R>>,
    copy: Result<T, SdkError<E, R>>,
) -> Result<T, SdkError<E, R>> {
    let copy_counts = !is_final(&first) && (is_final(&copy) || !is_answer(&first) && is_answer(&copy));
    if copy_counts { copy } else { first }
}

/// Records that each request is sent, its connection, and that its answer begins.
#[derive(Debug)]
pub(super) struct Capture;

impl Intercept for Capture {
    fn name(&self) -> &'static str {
        "Capture"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(capture) = context.request().extension::<CaptureSmithyConnection>() {
            // A probe of the endpoint is no attempt.
            let _ = CAPTURED.try_with(|captured| captured.0.connection.set(capture.clone()));
        }
        sent::sending();
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        _: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let _ = CAPTURED.try_with(|captured| captured.0.answered.store(true, Ordering::Relaxed));
        Ok(())
    }
}

/// How long the answers of each API operation take: an average in which each answer counts a quarter.
#[derive(Debug, Default)]
pub(super) struct UsualTimes(Mutex<HashMap<&'static str, Duration>>);

impl UsualTimes {
    /// When an answer is late.
    pub(super) fn limit(&self, action: &str) -> Duration {
        self.times().get(action).map_or(MIN_ANSWER_TIMEOUT, |usual| MIN_ANSWER_TIMEOUT.max(*usual * 2))
    }

    /// Sends the request, and measures what its answer takes.
    pub(super) async fn measure<T, E>(
        &self,
        action: &'static str,
        captured: Captured,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let sent = Instant::now();
        let answer = CAPTURED.scope(captured, request).await;
        if answer.is_ok() {
            self.add(action, sent.elapsed());
        }
        answer
    }

    fn add(&self, action: &'static str, took: Duration) {
        self.times().entry(action).and_modify(|usual| *usual = (*usual * 3 + took) / 4).or_insert(took);
    }

    fn times(&self) -> MutexGuard<'_, HashMap<&'static str, Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_late_after_twice_the_usual_time_and_at_least_a_second() {
        let usual = UsualTimes::default();
        let seconds = |tenths: u64| Duration::from_millis(tenths * 100);
        for (took, limit) in [(None, 10), (Some(4), 10), (Some(4), 10), (Some(12), 12), (Some(18), 18)] {
            if let Some(took) = took {
                usual.add("claim", seconds(took));
            }
            assert_eq!(usual.limit("claim"), seconds(limit), "{took:?}");
            assert_eq!(usual.limit("read"), MIN_ANSWER_TIMEOUT);
        }
    }
}
