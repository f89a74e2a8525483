//! EC2's identifiers, which are checked when they are parsed.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not a valid identifier or CIDR block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct Malformed {
    text: String,
    wanted: &'static str,
}

impl Malformed {
    pub(crate) fn new(text: &str, wanted: &'static str) -> Malformed {
        Malformed { text: text.to_owned(), wanted }
    }
}

macro_rules! resource_id {
    ($name:ident, $prefix:literal, $wanted:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl FromStr for $name {
            type Err = Malformed;
            fn from_str(text: &str) -> Result<Self, Malformed> {
                match text.strip_prefix($prefix) {
                    Some(hex) if is_resource_number(hex) => Ok(Self(text.to_owned())),
                    _ => Err(Malformed::new(text, $wanted)),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = Malformed;
            fn try_from(text: String) -> Result<Self, Malformed> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }
    };
}

resource_id!(
    EniId,
    "eni-",
    "a network interface id: eni- and 8 or 17 hexadecimal digits",
    "The id of an elastic network interface."
);
resource_id!(InstanceId, "i-", "an instance id: i- and 8 or 17 hexadecimal digits", "The id of an instance.");
resource_id!(SubnetId, "subnet-", "a subnet id: subnet- and 8 or 17 hexadecimal digits", "The id of a subnet.");
resource_id!(VpcId, "vpc-", "a VPC id: vpc- and 8 or 17 hexadecimal digits", "The id of a VPC.");
resource_id!(RouteTableId, "rtb-", "a route table id: rtb- and 8 or 17 hexadecimal digits", "The id of a route table.");
resource_id!(
    AllocationId,
    "eipalloc-",
    "an allocation id: eipalloc- and 8 or 17 hexadecimal digits",
    "The id of an Elastic IP."
);
resource_id!(
    AssociationId,
    "eipassoc-",
    "an association id: eipassoc- and 8 or 17 hexadecimal digits",
    "The id of an Elastic IP's association with a private address."
);

/// Ids have 17 hexadecimal digits, or 8 if they were assigned before 2018.
pub(crate) fn is_resource_number(hex: &str) -> bool {
    matches!(hex.len(), 8 | 17) && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// An IPv4 CIDR block, such as `10.99.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    network: u32,
    length: u8,
}

impl Cidr {
    /// Whether `address` lies in the block.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == self.network
    }

    /// Whether all of `inner` lies in the block.
    pub fn covers(self, inner: Cidr) -> bool {
        self.length <= inner.length && self.contains(Ipv4Addr::from(inner.network))
    }

    /// The first four addresses and the last one of a subnet are reserved (VPC user guide, "Subnet CIDR blocks").
    pub fn reserves(self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address) & !self.mask();
        offset < 4 || offset == !self.mask()
    }

    /// The length of its prefix.
    pub(crate) fn length(self) -> u8 {
        self.length
    }

    /// How many addresses interfaces can use.
    pub fn usable(self) -> usize {
        (!self.mask() as usize + 1).saturating_sub(5)
    }

    /// The block of that length that contains the address.
    pub(crate) fn without_host_bits(text: &str) -> Result<Cidr, Malformed> {
        let parse = || {
            let (address, length) = text.split_once('/')?;
            let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
            let length = length.parse::<u8>().ok().filter(|length| *length <= 32)?;
            let whole = Cidr { network: 0, length };
            Some(Cidr { network: address & whole.mask(), length })
        };
        parse().ok_or_else(|| Malformed::new(text, Cidr::WANTED))
    }

    const WANTED: &str = "an IPv4 CIDR block such as 10.99.0.0/24";

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0)
    }
}

impl FromStr for Cidr {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let cidr = Cidr::without_host_bits(text)?;
        match text.split('/').next() == Some(Ipv4Addr::from(cidr.network).to_string().as_str()) {
            true => Ok(cidr),
            false => Err(Malformed::new(text, Cidr::WANTED)),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.length)
    }
}
