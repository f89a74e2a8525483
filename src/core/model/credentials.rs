//! The AWS credentials in use, without the secret.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ec2::CallError;

/// Which credentials are in use, since when, and until when, without the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialFacts {
    /// Where they come from: `file /config/aws/credentials, profile default`, `instance role vipa`.
    pub source: String,
    /// The access key id, which identifies them in AWS's logs; absent: there are none.
    pub access_key_id: Option<String>,
    /// When they were last read; absent: there are none.
    pub loaded_at: Option<Timestamp>,
    /// When they expire; absent: never, or there are none.
    pub expires_at: Option<Timestamp>,
    /// Why the last attempt to read them failed; absent: it did not.
    pub error: Option<CallError>,
}
