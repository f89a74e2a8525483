//! Every message of the log, with its level and its fields. docs/reference/log-messages.md says what each means and what to
//! do; a test compares the two.
//!
//! The macro `log!` writes them; clippy.toml forbids tracing's `error!`, `warn!`, `info!` and `debug!`.

use tracing::Level;

/// A message of the log.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    /// Its level.
    pub level: Level,
    /// Its text, which never varies.
    pub text: &'static str,
    /// The names of its fields. Optional ones are absent from some lines.
    pub fields: &'static [&'static str],
}

impl Message {
    /// Whether these fields are among its own.
    pub(crate) const fn has(&self, names: &[&str]) -> bool {
        let mut n = 0;
        while n < names.len() {
            let mut field = 0;
            while field < self.fields.len() && !is_same(names[n].as_bytes(), self.fields[field].as_bytes()) {
                field += 1;
            }
            if field == self.fields.len() {
                return false;
            }
            n += 1;
        }
        true
    }
}

/// `==`, which no constant can be computed with.
const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut n = 0;
    while n < one.len() && n < other.len() && one[n] == other[n] {
        n += 1;
    }
    n == one.len() && n == other.len()
}

macro_rules! messages {
    ($($name:ident = $level:ident $text:literal [$($field:ident),*];)*) => {
        $(
            pub(crate) const $name: Message =
                Message { level: Level::$level, text: $text, fields: &[$(stringify!($field)),*] };
        )*

        /// All of them.
        pub const ALL: &[Message] = &[$($name),*];
    };
}

messages! {
    ADDRESS_IN_PLACE = INFO "interface and VRRP state agree again" [address, times];
    ADDRESS_MISSING = ERROR "MASTER, but the address is missing from its interface" [address, times];
    ADDRESS_UNEXPECTED = WARN "not MASTER, but the address is on its interface" [address, times];
    AGENT_STARTED = INFO "agent started" [version];
    AGENT_STOPS = INFO "agent stopping; addresses, routes and Elastic IPs stay as they are" [];
    CERTIFICATE_FILE_NOT_USED = WARN "cannot load CA certificate file" [path, reason];
    CLAIM_ABANDONED = ERROR "claim abandoned: the group's virtual address is on no local interface" [resource, times];
    CLAIM_ACKNOWLEDGED = INFO "claim acknowledged" [eni, addresses, duration_ms, request_id, unlisted, times];
    CLAIM_FAILED = WARN "claim failed, will retry" [eni, addresses, route, elastic_ip, duration_ms, code, message, request_id, times];
    CLAIM_FORCED = INFO "claim forced" [group];
    CLAIM_REFUSED = ERROR "claim refused" [eni, addresses, route, elastic_ip, duration_ms, code, message, remedy, request_id, times];
    CLAIMS_ACKNOWLEDGED = INFO "claims of routes or Elastic IPs acknowledged" [eni, resources, times];
    CLOCK_OFF = WARN "clock differs from EC2's; requests are signed with EC2's time" [off, times];
    CONFIGURATION_READ = INFO "configuration loaded" [groups, skipped];
    CONNECTION_NOT_ACCEPTED = WARN "cannot accept control connections; retrying" [error, socket, times];
    CONTESTED_ENDED = INFO "no longer contested" [resource, taker, times];
    CONTESTED_WITH_PEER = ERROR "contested: both routers are MASTER; restore the VRRP link between them" [resource, eni, instance, taker, times];
    CONTESTED_WITH_THIRD_PARTY = ERROR "contested: stop the other process that claims it" [resource, eni, instance, taker, times];
    CREDENTIALS_READ = INFO "credentials for EC2 read" [source, first];
    DIRECTORY_MISSING = DEBUG "directory does not exist yet" [directory];
    DIRECTORY_NOT_WATCHED = WARN "cannot watch directory; retrying" [error, directory, times];
    ENI_NOT_ATTACHED = ERROR "network interface (ENI) not attached to this instance" [eni, attached_to];
    ENI_NOT_KNOWN = ERROR "cannot determine the network interface (ENI); retrying" [interface, code, message, times];
    FIFO_ENLARGED = DEBUG "FIFO buffer enlarged" [bytes];
    FIFO_FULL = WARN "FIFO was full; notify events may be lost" [times];
    FIFO_LIMIT_REACHED = WARN "cannot enlarge FIFO buffer: the user's pipe limit is reached" [bytes];
    FIFO_NOT_ENLARGED = WARN "cannot enlarge FIFO buffer" [error, bytes];
    FILE_MISSING = INFO "file does not exist yet" [error];
    FILE_NOT_LOADED = ERROR "cannot load file" [error, effect];
    GROUPS_READ = INFO "keepalived's groups loaded" [groups];
    GROUP_PAUSED = INFO "group paused" [group, minutes];
    HISTORY_RECORDS_SKIPPED = WARN "history records from another version skipped" [path, skipped];
    HELD_BY_THIRD_PARTY = WARN "held by a third party's network interface; a failover will take it" [resources, eni, instance];
    HOOK_ATTACHED = INFO "hook attached" [times];
    HOOK_NOT_ATTACHED = WARN "hook not attached" [reason, times];
    INSTANCE_KNOWN = INFO "instance identified" [instance, region];
    INSTANCE_NOT_KNOWN = WARN "cannot read instance identity from IMDS; retrying" [code, message, times];
    KEEPALIVED_NOT_READ = WARN "keepalived is not running, or its activity cannot be read" [error, times];
    LOCAL_ADDRESSES_NOT_READ = WARN "cannot read local addresses" [error, times];
    METRICS_NOT_WRITTEN = WARN "cannot write metrics" [error, times];
    NETLINK_FAILED = WARN "cannot subscribe to address changes; retrying" [error, times];
    NETLINK_SOCKETS_NOT_READ = WARN "cannot read netlink sockets; the origin of addresses is unknown" [error, path, times];
    NETLINK_SOCKET_CLOSED = WARN "netlink socket closed; reopening" [times];
    NO_CREDENTIALS = WARN "no credentials for EC2" [code, message, remedy, times];
    NOT_TAKEABLE = ERROR "route or Elastic IP cannot be claimed" [resource, why, times];
    OWNERS_NOT_READ = WARN "ownership check failed, will retry" [of, code, message, request_id, times];
    OWNERS_READ_AGAIN = INFO "ownership checks succeed again" [of];
    OWNERSHIP_LOST = WARN "ownership lost" [resource, eni, instance, taker, times];
    OWNERS_REFUSED = ERROR "ownership check denied" [of, code, message, remedy, request_id, times];
    PAUSE_ENDED = INFO "group resumed" [group];
    PERMISSION_DENIED = ERROR "EC2 denies the permission to claim" [of, code, message, request_id];
    PERMISSION_NOT_PROVED = WARN "permission to claim not proved" [of, code, message, request_id];
    PERMISSION_PROVED = INFO "permission to claim proved" [of, code];
    REQUEST_SENT_AGAIN = WARN "request to EC2 sent again on a new connection" [action, peer, reason, times];
    SD_NOTIFY_FAILED = WARN "sd_notify failed" [error, times];
    STANDBY_NOT_READY = ERROR "standby not ready" [group, obstacle, times];
    STANDBY_READY = INFO "standby ready" [group, times];
    STATE_FILE_CORRUPT = WARN "state file is corrupt; starting empty" [error];
    STATE_FILE_NEWER = WARN "state file is from a newer version; ignored, not overwritten" [error];
    STATE_NOT_WRITTEN = WARN "cannot write state file" [error, times];
    TRANSITION = INFO "transition" [group, from, to, cause, times];
    TRANSITION_TO_UNKNOWN = WARN "transition" [group, from, to, cause, times];
    WATCH_FAILED = WARN "inotify watch failed; reopening" [error, directory, times];
    WOULD_BE_REFUSED = ERROR "EC2 would refuse the claim" [of, code, message, request_id];
}

/// Logs a message with its fields, which are written as in tracing's macros. A field that the message does not have is an
/// error of the compiler.
macro_rules! log {
    ($message:ident $(, $($fields:tt)+)?) => {{
        const MESSAGE: $crate::log_messages::Message = $crate::log_messages::$message;
        const _: () =
            assert!(MESSAGE.has($crate::log_messages::field_names!([] $($($fields)+)?)), "the message has no such field");
        tracing::event!(MESSAGE.level, $($($fields)+,)? "{}", MESSAGE.text)
    }};
}

/// The names of the fields that are given to `log!`.
macro_rules! field_names {
    ([$($name:expr),*]) => {{
        const NAMES: &[&str] = &[$($name),*];
        NAMES
    }};
    ([$($name:expr),*] % $field:ident $(, $($rest:tt)*)?) => {
        $crate::log_messages::field_names!([$($name,)* stringify!($field)] $($($rest)*)?)
    };
    ([$($name:expr),*] ? $field:ident $(, $($rest:tt)*)?) => {
        $crate::log_messages::field_names!([$($name,)* stringify!($field)] $($($rest)*)?)
    };
    ([$($name:expr),*] $field:ident = % $value:expr $(, $($rest:tt)*)?) => {
        $crate::log_messages::field_names!([$($name,)* stringify!($field)] $($($rest)*)?)
    };
    ([$($name:expr),*] $field:ident = ? $value:expr $(, $($rest:tt)*)?) => {
        $crate::log_messages::field_names!([$($name,)* stringify!($field)] $($($rest)*)?)
    };
    ([$($name:expr),*] $field:ident = $value:expr $(, $($rest:tt)*)?) => {
        $crate::log_messages::field_names!([$($name,)* stringify!($field)] $($($rest)*)?)
    };
    ([$($name:expr),*] $field:ident $(, $($rest:tt)*)?) => {
        $crate::log_messages::field_names!([$($name,)* stringify!($field)] $($($rest)*)?)
    };
}

pub(crate) use {field_names, log};
