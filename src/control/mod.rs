//! The agent's control socket, used by `show status`, `force claim`, `pause` and `resume`.
//!
//! JSON lines over a stream socket in /run/vyos-aws-vipa-agent; each request and each answer is one line:
//!
//! ```text
//! {"format":1,"request":"status","fresh":false}      {"format":1,"ok":{…}}
//! {"format":1,"request":"status","history":50}
//! {"format":1,"request":"claim","group":"a"}         {"format":1,"error":{"code":"refused","message":"…"}}
//! {"format":1,"request":"pause","group":"a","minutes":30}
//! {"format":1,"request":"resume","group":"a"}
//! ```

mod access;
pub mod client;
mod protocol;
pub(crate) mod server;

pub use access::Access;
pub use protocol::{Encoded, ErrorResponse, Request, Response, ResponseCode};
