//! Identifiers from outside, each with its own type. They are validated once, where they enter the program.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A string that is not a valid identifier of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {kind}: {reason}")]
pub struct InvalidId {
    kind: &'static str,
    value: String,
    reason: &'static str,
}

impl InvalidId {
    /// Why it is invalid.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(value: String) -> Result<Self, InvalidId> {
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(&value) {
                    Ok(()) => Ok(Self(value)),
                    Err(reason) => Err(InvalidId { kind: $kind, value, reason }),
                }
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidId;

            fn try_from(value: &str) -> Result<Self, InvalidId> {
                Self::try_from(value.to_owned())
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(value: &str) -> Result<Self, InvalidId> {
                Self::try_from(value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

/// The check of an id of EC2 with this prefix.
macro_rules! resource_id {
    ($prefix:literal) => {
        |v| {
            let form = concat!("it must be ", $prefix, " followed by 8 or 17 lowercase hexadecimal digits");
            if is_resource_id(v, $prefix) { Ok(()) } else { Err(form) }
        }
    };
}

name!(
    /// The name of a VRRP group, `vrrp_instance` in keepalived.
    ///
    /// In keepalived, white space ends a name, `#` and `!` begin comments, `{` and `}` are blocks, and quotes are
    /// removed (observed with 2.2.7). Every other name arrives through its FIFO unchanged, with `$ ; \ ( @ ~` too.
    GroupName,
    "a VRRP group name that keepalived can carry",
    check_group_name
);
name!(
    /// The name of a network interface of Linux: at most 15 bytes, no white space, `/` or `:` (`dev_valid_name` in
    /// net/core/dev.c).
    InterfaceName,
    "the name of a network interface",
    check_interface_name
);
name!(
    /// The id of an elastic network interface: `eni-` and 8 or 17 hexadecimal digits (EC2 resource ids).
    EniId,
    "the id of a network interface in EC2",
    resource_id!("eni-")
);
name!(
    /// The id of an EC2 instance: `i-` and 8 or 17 hexadecimal digits.
    InstanceId,
    "the id of an EC2 instance",
    resource_id!("i-")
);
name!(
    /// The id of a VPC: `vpc-` and 8 or 17 hexadecimal digits.
    VpcId,
    "the id of a VPC",
    resource_id!("vpc-")
);
name!(
    /// The id of a subnet: `subnet-` and 8 or 17 hexadecimal digits.
    SubnetId,
    "the id of a subnet",
    resource_id!("subnet-")
);
name!(
    /// The id of a route table: `rtb-` and 8 or 17 hexadecimal digits.
    RouteTableId,
    "the id of a route table",
    resource_id!("rtb-")
);
name!(
    /// The allocation id of an Elastic IP: `eipalloc-` and 8 or 17 hexadecimal digits.
    AllocationId,
    "the allocation id of an Elastic IP",
    resource_id!("eipalloc-")
);
name!(
    /// The name of an AWS region, as it stands in a host name: lower-case letters, digits and hyphens.
    Region,
    "the name of an AWS region",
    check_region
);
name!(
    /// The id that AWS gave a request, which AWS Support asks for. Printable ASCII, at most 128 bytes.
    RequestId,
    "the id of an AWS request",
    check_request_id
);

name!(
    /// The error code of a failed call: at most 100 ASCII letters, digits, `.`, `_` and `-`.
    ErrorCode,
    "an error code",
    check_error_code
);
name!(
    /// The id of an AWS account: 12 digits (AWS General Reference).
    AccountId,
    "the id of an AWS account",
    |v| if v.len() == 12 && v.bytes().all(|b| b.is_ascii_digit()) { Ok(()) } else { Err("it is not 12 digits") }
);
name!(
    /// A partition, the second part of an ARN: `aws`, `aws-cn`, `aws-us-gov` … (AWS General Reference, "Amazon Resource
    /// Names").
    Partition,
    "the name of an AWS partition",
    check_partition
);
name!(
    /// The type of an instance, such as `m5.large`: lower-case letters, digits, `.` and `-`.
    InstanceType,
    "the type of an EC2 instance",
    check_instance_type
);

impl ErrorCode {
    /// One of this program's own codes, which are valid.
    pub(crate) fn word(word: &str) -> Self {
        debug_assert!(check_error_code(word).is_ok(), "{word:?}");
        Self(word.to_owned())
    }
}

impl Partition {
    /// The partition of a region, by the name of the region (the AWS SDKs' own rules, `partitions.json`); none if no
    /// rule matches.
    pub fn of(region: &Region) -> Option<Self> {
        const PARTITIONS: [(&str, &str); 7] = [
            ("cn-", "aws-cn"),
            ("us-gov-", "aws-us-gov"),
            ("us-iso-", "aws-iso"),
            ("us-isob-", "aws-iso-b"),
            ("eu-isoe-", "aws-iso-e"),
            ("us-isof-", "aws-iso-f"),
            ("eusc-", "aws-eusc"),
        ];
        const AWS: [&str; 9] = ["us", "eu", "ap", "sa", "ca", "me", "af", "il", "mx"];
        let name = region.as_str();
        let other = PARTITIONS.iter().find(|(start, _)| name.starts_with(start)).map(|(_, partition)| *partition);
        let aws = match name.split('-').collect::<Vec<_>>()[..] {
            [area, _, number] if AWS.contains(&area) && number.bytes().all(|b| b.is_ascii_digit()) => Some("aws"),
            _ => None,
        };
        Self::try_from(other.or(aws)?).ok()
    }
}

fn check_partition(v: &str) -> Result<(), &'static str> {
    let rest = v.strip_prefix("aws").ok_or("it does not begin with aws")?;
    let known = rest.is_empty() || rest.starts_with('-');
    if known && rest.len() < 30 && rest.bytes().all(|b| matches!(b, b'a'..=b'z' | b'-')) {
        Ok(())
    } else {
        Err("it may contain only hyphens and lower-case letters after aws")
    }
}

fn check_instance_type(v: &str) -> Result<(), &'static str> {
    if (1..=64).contains(&v.len()) && v.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-')) {
        Ok(())
    } else {
        Err("it is not 1 to 64 of a-z, 0-9, . and -")
    }
}

fn check_group_name(v: &str) -> Result<(), &'static str> {
    if v.is_empty() {
        return Err("it is empty");
    }
    if v.len() > 255 {
        return Err("it is longer than 255 bytes");
    }
    if v.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("it contains white space or a control character");
    }
    if v.chars().any(|c| matches!(c, '#' | '!' | '{' | '}')) {
        return Err("it contains one of # ! { }");
    }
    if v.chars().any(|c| matches!(c, '"' | '\'')) {
        return Err("it contains a quote");
    }
    Ok(())
}

fn check_interface_name(v: &str) -> Result<(), &'static str> {
    if v.is_empty() || v == "." || v == ".." {
        return Err("it is empty, . or ..");
    }
    if v.len() > 15 {
        return Err("it is longer than 15 bytes");
    }
    if v.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/' || c == ':') {
        return Err("it contains white space, a control character, / or :");
    }
    Ok(())
}

fn is_resource_id(v: &str, prefix: &str) -> bool {
    v.strip_prefix(prefix).is_some_and(|digits| {
        matches!(digits.len(), 8 | 17) && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn check_region(v: &str) -> Result<(), &'static str> {
    if v.is_empty() || v.len() > 63 || v.starts_with('-') || v.ends_with('-') {
        return Err("it is empty, longer than 63 bytes, or begins or ends with a hyphen");
    }
    if !v.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        return Err("it may contain only a-z, 0-9 and -");
    }
    Ok(())
}

fn check_error_code(v: &str) -> Result<(), &'static str> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=100).contains(&v.len()) && v.bytes().all(is_allowed) {
        Ok(())
    } else {
        Err("it is not 1 to 100 of letters, digits, ., _ and -")
    }
}

fn check_request_id(v: &str) -> Result<(), &'static str> {
    if v.is_empty() || v.len() > 128 || !v.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("it is not 1 to 128 printable characters");
    }
    Ok(())
}

/// The MAC address of an interface (EUI-48). Text is lower-case with colons, as IMDS writes it below `macs/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// From its six bytes, in transmission order.
    pub fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for MacAddress {
    type Error = InvalidId;

    fn try_from(value: String) -> Result<Self, InvalidId> {
        let mut bytes = [0; 6];
        let mut parts = value.split(':');
        let six = bytes.iter_mut().all(|byte| {
            parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|p| u8::from_str_radix(p, 16).ok())
                .map(|b| *byte = b)
                .is_some()
        });
        if six && parts.next().is_none() {
            Ok(Self(bytes))
        } else {
            Err(InvalidId { kind: "a MAC address", value, reason: "it is not six bytes in hexadecimal with colons" })
        }
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_region_has_its_partition() {
        for (region, partition) in [
            ("eu-central-1", Some("aws")),
            ("us-east-1", Some("aws")),
            ("cn-northwest-1", Some("aws-cn")),
            ("us-gov-west-1", Some("aws-us-gov")),
            ("us-iso-east-1", Some("aws-iso")),
            ("us-isob-east-1", Some("aws-iso-b")),
            ("eu-isoe-west-1", Some("aws-iso-e")),
            ("us-isof-south-1", Some("aws-iso-f")),
            ("eusc-de-east-1", Some("aws-eusc")),
            ("xy-central-1", None),
            ("eu-new-area-1", None),
            ("test", None),
        ] {
            let of = Partition::of(&Region::try_from(region).expect("a region"));
            assert_eq!(of.as_ref().map(Partition::as_str), partition, "{region}");
        }
    }

    #[test]
    fn names_that_are_taken_and_names_that_are_refused() {
        for good in ["aws", "aws-cn", "aws-iso-b"] {
            assert!(Partition::try_from(good).is_ok(), "{good:?}");
        }
        for bad in ["", "awsx", "cn", "aws:", "aws-*", "AWS"] {
            assert!(Partition::try_from(bad).is_err(), "{bad:?}");
        }
        assert!(AccountId::try_from("123456789012").is_ok() && AccountId::try_from("12345678901x").is_err());
        assert!(AccountId::try_from("1234567890123").is_err());
        assert!(InstanceType::try_from("u-6tb1.metal").is_ok() && InstanceType::try_from("m5 large").is_err());
        for good in ["a", "vyos-aws", "odd$(n)ame", "a;b\\c@d~", "ü"] {
            assert!(GroupName::try_from(good).is_ok(), "{good:?}");
        }
        for bad in ["", "a b", "a\tb", "a\n", "#a", "a!", "a{", "}a", "a\"b", "a'b", "a\u{a0}b"] {
            assert!(GroupName::try_from(bad).is_err(), "{bad:?}");
        }
        for good in ["eth0", "eth1v11v4", "bond0.12", "a-15-bytes-name"] {
            assert!(InterfaceName::try_from(good).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-bytes-na"] {
            assert!(InterfaceName::try_from(bad).is_err(), "{bad:?}");
        }
        for good in ["eni-0123abcd", "eni-0123456789abcdef0"] {
            assert!(EniId::try_from(good).is_ok(), "{good:?}");
        }
        for bad in ["", "eni-", "eni-0123ABCD", "eni-0123abc", "i-0123abcd", "eni-0123abcd ", "ENI-0123abcd"] {
            assert!(EniId::try_from(bad).is_err(), "{bad:?}");
        }
        for good in ["InvalidNetworkInterfaceID.NotFound", "Client.AuthFailure", "a_b-c"] {
            assert!(ErrorCode::try_from(good).is_ok(), "{good:?}");
        }
        for bad in ["", "a b", "a\n", "ü", &"x".repeat(101)] {
            assert!(ErrorCode::try_from(bad).is_err(), "{bad:?}");
        }
        for good in ["eu-central-1", "us-gov-west-1", "test"] {
            assert!(Region::try_from(good).is_ok(), "{good:?}");
        }
        for bad in ["", "EU", "a.b", "a/b", "-a", "a-", "a b"] {
            assert!(Region::try_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mac_address_reads_back_as_it_was_written() {
        let mac = MacAddress::try_from("02:AB:00:00:0f:ff".to_owned()).expect("a MAC address");
        assert_eq!(mac.to_string(), "02:ab:00:00:0f:ff");
        for bad in
            ["", "02:ab:00:00:0f", "02:ab:00:00:0f:ff:00", "2:ab:00:00:0f:ff", "02-ab-00-00-0f-ff", "+2:ab:00:00:0f:ff"]
        {
            assert!(MacAddress::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
