//! What the kernel says of this network namespace, over rtnetlink (rtnetlink(7)): addresses and links.

pub mod addresses;
pub mod links;
#[cfg(test)]
pub(crate) mod namespace;
#[cfg(test)]
pub(crate) mod processor;

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;

/// The bound of one query. The kernel answers within a millisecond.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a list is asked for anew because it changed while the kernel wrote it.
const MAX_DUMP_ATTEMPTS: usize = 5;

/// The kernel did not answer a query.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The socket was closed under us.
    #[error("the netlink socket was closed before the list of {0} was complete")]
    Closed(&'static str),
    /// The kernel refused.
    #[error("the kernel refuses the list of {what}: {reason}")]
    Refused {
        /// Which list.
        what: &'static str,
        /// The kernel's error.
        reason: io::Error,
    },
    /// It took longer than a second.
    #[error("the kernel did not give the list of {0} within {QUERY_TIMEOUT:?}")]
    TimedOut(&'static str),
    /// It changed all the time.
    #[error("the list of {0} changed each time it was read, {MAX_DUMP_ATTEMPTS} times")]
    Changing(&'static str),
}

/// Asks for a whole list, on a socket of its own: what other processes cause cannot be taken for its answer.
async fn list<T>(
    what: &'static str,
    request: RouteNetlinkMessage,
    take: impl Fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Vec<T>, KernelError> {
    let all = async {
        for _ in 0..MAX_DUMP_ATTEMPTS {
            if let Some(all) = list_once(what, request.clone(), &take).await? {
                return Ok(all);
            }
        }
        Err(KernelError::Changing(what))
    };
    tokio::time::timeout(QUERY_TIMEOUT, all).await.unwrap_or(Err(KernelError::TimedOut(what)))
}

/// The list, or nothing where it changed while it was written (`NLM_F_DUMP_INTR`, netlink(7)).
async fn list_once<T>(
    what: &'static str,
    request: RouteNetlinkMessage,
    take: impl Fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Option<Vec<T>>, KernelError> {
    let (connection, mut handle, _messages) = rtnetlink::new_connection().map_err(KernelError::Socket)?;
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut answers = Box::pin(handle.request(message).map_err(|_| KernelError::Closed(what))?);
    let collected = async {
        let mut all = Vec::new();
        while let Some(answer) = answers.next().await {
            if answer.header.flags & NLM_F_DUMP_INTR != 0 {
                return Ok(None);
            }
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => all.extend(take(message)),
                NetlinkPayload::Error(error) => {
                    return Err(KernelError::Refused { what, reason: error.to_io() });
                }
                _ => {}
            }
        }
        Ok(Some(all))
    };
    tokio::select! {
        biased;
        collected = collected => collected,
        () = connection => Err(KernelError::Closed(what)),
    }
}
