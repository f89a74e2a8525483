//! The ENIs that IMDS has reported, used while it does not answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ec2::Eni;
use super::ids::{EniId, InstanceId, InterfaceName, MacAddress, Region};

/// The ENIs that IMDS has reported, by MAC address, and the instance that they belong to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EniCache {
    instance: Option<InstanceId>,
    region: Option<Region>,
    enis: BTreeMap<MacAddress, CachedEni>,
}

/// An ENI and the interface that had its MAC address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CachedEni {
    interface: InterfaceName,
    eni: Eni,
}

impl EniCache {
    /// Adds the ENI of an interface and its MAC address. An earlier ENI of the interface is removed, and so are those
    /// of another instance, which are there if this disk is a copy of that instance's disk.
    pub fn learn(
        &mut self,
        instance: &InstanceId,
        region: &Region,
        interface: &InterfaceName,
        mac: MacAddress,
        eni: Eni,
    ) {
        if self.instance.as_ref() != Some(instance) {
            self.enis.clear();
        }
        self.instance = Some(instance.clone());
        self.region = Some(region.clone());
        self.enis.retain(|_, cached| cached.interface != *interface);
        self.enis.insert(mac, CachedEni { interface: interface.clone(), eni });
    }

    /// The ENI that had this MAC address, if the cache is from this instance.
    pub fn eni(&self, instance: &InstanceId, mac: MacAddress) -> Option<&Eni> {
        self.enis.get(&mac).filter(|_| self.instance.as_ref() == Some(instance)).map(|cached| &cached.eni)
    }

    /// The ENI that an interface last had.
    pub fn eni_of(&self, interface: &InterfaceName) -> Option<&EniId> {
        self.enis.values().find(|cached| cached.interface == *interface).map(|cached| &cached.eni.id)
    }

    /// Removes the ENIs of other interfaces.
    pub fn retain(&mut self, is_used: impl Fn(&InterfaceName) -> bool) {
        self.enis.retain(|_, cached| is_used(&cached.interface));
    }

    /// The region, if the cache is from this instance.
    pub fn region(&self, instance: &InstanceId) -> Option<&Region> {
        self.region.as_ref().filter(|_| self.instance.as_ref() == Some(instance))
    }
}
