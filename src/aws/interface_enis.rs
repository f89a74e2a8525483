//! The ENIs behind the network interfaces of this router: the kernel has an interface's MAC address, and IMDS the ENI
//! with that MAC address.

use vipa_core::model::ec2::{CallError, Eni, EniNetwork};
use vipa_core::model::ids::{InterfaceName, MacAddress};

use super::Imds;
use crate::netlink::links::Links;

/// The interfaces as the kernel listed them once, to ask IMDS about.
#[derive(Debug, Clone)]
pub struct InterfaceEnis {
    links: Result<Links, String>,
    imds: Imds,
}

/// Why the ENI of an interface is not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InterfaceError {
    /// The kernel has no such interface, or no MAC address for it.
    #[error("{0}")]
    Local(String),
    /// IMDS has no answer.
    #[error(transparent)]
    Imds(#[from] CallError),
}

impl InterfaceEnis {
    /// Lists the interfaces now, which takes about a millisecond.
    pub async fn read(imds: &Imds) -> Self {
        Self { links: Links::read().await.map_err(|e| e.to_string()), imds: imds.clone() }
    }

    /// Why the kernel did not list the interfaces, if it did not.
    pub fn kernel_error(&self) -> Option<&str> {
        self.links.as_ref().err().map(String::as_str)
    }

    /// The interface's MAC address.
    ///
    /// # Errors
    /// [`InterfaceError::Local`].
    pub fn mac(&self, interface: &InterfaceName) -> Result<MacAddress, InterfaceError> {
        let links = self.links.as_ref().map_err(|error| InterfaceError::Local(error.clone()))?;
        links.mac(interface).map_err(|error| InterfaceError::Local(error.to_string()))
    }

    /// The interface's ENI.
    ///
    /// # Errors
    /// [`InterfaceError`]; see [`Imds::eni`].
    pub async fn eni(&self, interface: &InterfaceName) -> Result<Eni, InterfaceError> {
        Ok(self.imds.eni(self.mac(interface)?).await?)
    }

    /// The subnet's block and the account of the interface's ENI.
    ///
    /// # Errors
    /// [`InterfaceError`]; see [`Imds::eni_network`].
    pub async fn eni_network(&self, interface: &InterfaceName) -> Result<EniNetwork, InterfaceError> {
        Ok(self.imds.eni_network(self.mac(interface)?).await?)
    }
}
