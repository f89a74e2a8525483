//! The AWS credentials in use, without the secret.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ec2::CallError;

/// Which credentials are in use, since when, and until when, without the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialFacts {
    /// Where they come from: `instance role vipa`, `file /config/aws/credentials, profile default`; with a profile that assumes
    /// a role, its ARN after that: `, role arn:aws:iam::123456789012:role/vipa`.
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

impl CredentialFacts {
    /// Whose permissions the credentials have; none if there are no credentials.
    pub fn identity(&self) -> Option<Identity> {
        let key = self.access_key_id.clone()?;
        Some(Identity { source: self.source.clone(), access_key_id: Some(key).filter(|_| self.expires_at.is_none()) })
    }
}

/// Whose permissions credentials have: a role's, or those of the owner of an access key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Where the credentials come from: [`CredentialFacts::source`].
    pub source: String,
    /// The access key, if it does not expire: one that does is renewed, for the same role.
    pub access_key_id: Option<String>,
}

/// How the credentials have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialsChange {
    /// They have another [`Identity`], or are the first: what they permit is not known.
    Others,
    /// There are new keys of the same identity, which permit what the old ones did.
    NewKeys,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_role_is_renewed_and_another_key_in_a_file_is_another_identity() {
        let facts = |key: Option<&str>, expires_at| CredentialFacts {
            source: "a source".to_owned(),
            access_key_id: key.map(str::to_owned),
            loaded_at: None,
            expires_at,
            error: None,
        };
        let identity = |access_key_id: Option<&str>| {
            Some(Identity { source: "a source".to_owned(), access_key_id: access_key_id.map(str::to_owned) })
        };
        assert_eq!(facts(Some("ASIA0"), Some(Timestamp::UNIX_EPOCH)).identity(), identity(None));
        assert_eq!(facts(Some("AKIA0"), None).identity(), identity(Some("AKIA0")));
        assert_eq!(facts(None, None).identity(), None);
    }
}
