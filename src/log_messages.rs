//! Every message of the log, with its level and its fields. docs/reference/log-messages.md says what each means and what to
//! do; a test compares the two.
//!
//! [`log!`] logs them; clippy.toml forbids tracing's `error!`, `warn!`, `info!` and `debug!`.

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
    ADDRESS_HELD_BY_STRANGER = WARN "address held by neither router: a failover takes it from there" [addresses, eni, instance];
    ADDRESS_IN_PLACE = INFO "the interface agrees with VRRP again" [address, times];
    ADDRESS_LEFT_BEHIND = WARN "not MASTER, and the address is on its interface" [address, times];
    ADDRESS_MISSING = ERROR "MASTER, and the address is missing on its interface" [address, times];
    ADDRESS_NOT_LOCAL = ERROR "claim given up, address not on a local interface" [address, times];
    ADDRESS_TAKEN = WARN "address taken by another" [address, eni, instance, taker, times];
    AGENT_STARTED = INFO "agent started" [version];
    AGENT_STOPS = INFO "agent stops, addresses stay where they are" [];
    CERTIFICATE_FILE_NOT_USED = WARN "the certificate file is not used" [path, reason];
    CLAIM_ACKNOWLEDGED = INFO "claim acknowledged" [eni, addresses, duration_ms, request_id, unlisted];
    CLAIM_FAILED = WARN "claim failed, goes on" [eni, addresses, duration_ms, code, message, request_id, times];
    CLAIM_FORCED = INFO "claim forced" [group];
    CLAIM_REFUSED = ERROR "claim refused" [eni, addresses, duration_ms, code, message, request_id, times];
    CLOCK_OFF = WARN "this router's clock is far from EC2's, whose time is used now" [off];
    CONFIGURATION_READ = INFO "configuration read" [groups, left_out];
    CONNECTION_NOT_ACCEPTED = WARN "no connection can be accepted" [error, socket, times];
    CONTESTED_WITH_PEER = ERROR "address contested: both routers are MASTER, restore the VRRP link between them" [address, eni, instance, taker, times];
    CONTESTED_WITH_STRANGER = ERROR "address contested: find out what claims it there" [address, eni, instance, taker, times];
    CONTEST_OVER = INFO "contest over" [address, taker, times];
    CREDENTIALS_READ = INFO "credentials for EC2 read" [source, first];
    DIRECTORY_MISSING = DEBUG "the folder is missing" [folder];
    DIRECTORY_NOT_WATCHED = WARN "the folder cannot be watched, and is tried again" [error, folder, times];
    ENI_NOT_ATTACHED = ERROR "network interface (ENI) not attached to this instance" [eni, attached_to];
    ENI_NOT_KNOWN = ERROR "network interface (ENI) not known" [interface, code, message, times];
    FILE_MISSING = INFO "file not there yet" [error];
    FILE_NOT_LOADED = ERROR "cannot load file" [error, effect];
    GROUPS_READ = INFO "keepalived's groups read" [groups];
    GROUP_PAUSED = INFO "group paused" [group, minutes];
    HOOK_ATTACHED = INFO "hook attached" [times];
    HOOK_NOT_ATTACHED = WARN "hook not attached" [reason, times];
    INSTANCE_KNOWN = INFO "instance known" [instance, region];
    INSTANCE_NOT_KNOWN = WARN "cannot read instance identity from IMDS; retrying" [code, message, times];
    KEEPALIVED_NOT_READ = WARN "no sign of life of keepalived" [error, times];
    LOCAL_ADDRESSES_NOT_READ = WARN "local addresses not read" [error, times];
    NETLINK_FAILED = WARN "the addresses of this router cannot be read, and are tried again" [error, times];
    NETLINK_SOCKETS_NOT_READ = WARN "netlink sockets not read, so who put addresses on interfaces is not known" [error, path];
    NETLINK_SOCKET_CLOSED = WARN "the netlink socket was closed" [times];
    NO_CREDENTIALS = WARN "no credentials for EC2" [code, message];
    OWNERS_NOT_READ = WARN "owners not read, goes on" [code, message, request_id, times];
    OWNERS_READ_AGAIN = INFO "owners read again" [];
    OWNERS_REFUSED = ERROR "owners not read, refused" [code, message, request_id, times];
    PAUSE_ENDED = INFO "pause ended by a person" [group];
    PIPE_ENLARGED = DEBUG "the FIFO's pipe was enlarged" [bytes];
    PIPE_FULL = WARN "pipe found full, lines may be lost" [times];
    PIPE_LIMIT_REACHED = WARN "the FIFO's pipe cannot be enlarged: the user's limit for pipes is used up" [bytes];
    PIPE_NOT_ENLARGED = WARN "the FIFO's pipe cannot be enlarged" [error, bytes];
    RECORDS_HISTORY_FROM_ANOTHER_VERSION_SKIPPED = WARN "records of the history are from another version; skipped" [skipped];
    SD_NOTIFY_FAILED = WARN "sd_notify failed" [error, times];
    STANDBY_NOT_READY = ERROR "standby not ready" [group, obstacle, times];
    STANDBY_READY = INFO "standby ready" [group, times];
    STATE_FILE_CORRUPT = WARN "state file is corrupt; starting empty" [error];
    STATE_FILE_NEWER = WARN "state file is from a newer version; ignored, not overwritten" [error];
    STATE_NOT_WRITTEN = WARN "state not written" [error, times];
    TRANSITION = INFO "transition" [group, from, to, cause, times];
    TRANSITION_TO_UNKNOWN = WARN "transition" [group, from, to, cause, times];
    WATCH_FAILED = WARN "the watch of a folder has failed, and is made anew" [error, folder, times];
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
