//! The AWS credentials in use, without the secret.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ec2::CallError;

/// Which credentials are in use, since when, and until when. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialFacts {
    /// Where they come from: `file /config/aws/credentials, profile default`, `instance role vipa`.
    pub source: String,
    /// The id of the access key, by which AWS names them in its logs; absent: there are none.
    #[serde(default)]
    pub access_key_id: Option<String>,
    /// When they were last read; absent: there are none.
    pub loaded_at: Option<Timestamp>,
    /// When their time is over; absent: never, or there are none.
    pub expires_at: Option<Timestamp>,
    /// Why the last attempt to read them failed; absent: it did not.
    pub error: Option<CallError>,
}

/// The longest [`id`] that systemd takes, in bytes (it has to be the name of a file).
pub const LONGEST_ID: usize = 255;

/// What systemd calls the copy of this file: two files never share a name, so that an agent which was started for one never
/// takes it for another.
pub fn id(file: &Path) -> String {
    file.as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|byte| match byte {
            b'/' => "-".to_owned(),
            b'.' | b'_' => char::from(*byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
            byte => format!("~{byte:02x}"),
        })
        .collect()
}
