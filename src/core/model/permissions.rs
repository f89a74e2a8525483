//! The permissions that EC2 has shown this router to have.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::EniId;

/// When EC2 last accepted a claim for each ENI, which proves the permission to assign addresses to it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permissions {
    enis: BTreeMap<EniId, Timestamp>,
}

impl Permissions {
    /// Records that EC2 has acknowledged a claim.
    pub fn prove(&mut self, eni: EniId, at: Timestamp) {
        self.enis.insert(eni, at);
    }

    /// Removes other ENIs.
    pub fn retain(&mut self, is_used: impl Fn(&EniId) -> bool) {
        self.enis.retain(|eni, _| is_used(eni));
    }

    /// When EC2 last accepted a claim for the ENI, if it ever did.
    pub fn at(&self, eni: &EniId) -> Option<Timestamp> {
        self.enis.get(eni).copied()
    }
}
