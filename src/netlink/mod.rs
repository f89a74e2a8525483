//! The kernel's addresses, links and routes of this network namespace, over rtnetlink (rtnetlink(7)), and its TCP connections.

pub mod addresses;
pub mod links;
#[cfg(test)]
pub(crate) mod namespace;
#[cfg(test)]
pub(crate) mod processor;
pub mod routes;
pub mod tcp;

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;

/// The kernel answers within a millisecond.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a list is requested that changed while the kernel wrote it.
const MAX_DUMP_ATTEMPTS: usize = 5;

/// A query of the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] io::Error),
    #[error("the netlink socket was closed before the kernel returned {0}")]
    Closed(&'static str),
    #[error("the kernel refuses {what}: {reason}")]
    Refused { what: &'static str, reason: io::Error },
    #[error("the kernel did not return {0} within {QUERY_TIMEOUT:?}")]
    TimedOut(&'static str),
    #[error("{0} changed each time it was read, {MAX_DUMP_ATTEMPTS} times")]
    Changing(&'static str),
}

/// Requests a whole list, on a socket of its own, so that no notification is mistaken for its answer.
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

/// The list, or `None` if it changed while the kernel wrote it (`NLM_F_DUMP_INTR`, netlink(7)).
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
