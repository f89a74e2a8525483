//! The way from VyOS's commit to keepalived: the owner script, `commit` and `hook`, with the real keepalived.

mod commit;
mod hook;
#[path = "../../src/netlink/namespace.rs"]
mod namespace;
mod router;
mod script;
mod smoketest;
