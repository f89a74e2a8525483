//! The ENIs that IMDS has named, for the time while it does not answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ec2::Eni;
use super::ids::{InstanceId, MacAddress, Region};

/// The ENIs that IMDS has named, by MAC address, and the instance that they belong to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EniCache {
    instance: Option<InstanceId>,
    region: Option<Region>,
    enis: BTreeMap<MacAddress, Eni>,
}

impl EniCache {
    /// Adds the ENI of a MAC address. Those of another instance are removed: its disk was copied.
    pub fn learn(&mut self, instance: &InstanceId, region: &Region, mac: MacAddress, eni: Eni) {
        if self.instance.as_ref() != Some(instance) {
            self.enis.clear();
        }
        self.instance = Some(instance.clone());
        self.region = Some(region.clone());
        self.enis.insert(mac, eni);
    }

    /// The ENI that had this MAC address, on this same instance.
    pub fn eni(&self, instance: &InstanceId, mac: MacAddress) -> Option<&Eni> {
        self.enis.get(&mac).filter(|_| self.instance.as_ref() == Some(instance))
    }

    /// The region of this same instance.
    pub fn region(&self, instance: &InstanceId) -> Option<&Region> {
        self.region.as_ref().filter(|_| self.instance.as_ref() == Some(instance))
    }
}
