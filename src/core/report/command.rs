//! A claim as a command line of the AWS CLI, for an operator to paste.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::Ipv4Addr;

use serde::Serialize;

use super::model::GroupReport;
use crate::model::ids::{EniId, Region};
use crate::model::vrrp::VrrpState;
use crate::printable;

/// A command line that is safe to paste. Only [`claim_command`] makes one, from checked ids. It has no `Deserialize`, so that
/// a compromised agent cannot choose what root pastes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ClaimCommand(String);

impl ClaimCommand {
    /// The line itself; `Display` escapes what is not printable.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClaimCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable::line(&self.0))
    }
}

/// Where to send a manual claim: the region, and the endpoint if one is configured.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The region, for `--region`.
    pub region: &'a Region,
    /// The endpoint, which must come from a configuration that root wrote: requests are signed for it.
    pub endpoint_url: Option<&'a str>,
}

/// Adds the command for a manual claim to each address whose claims fail, if the group is MASTER. On another router, a
/// manual claim would take the address from the master.
pub fn offer_commands(group: &mut GroupReport, target: Target<'_>) {
    let is_master = group.vrrp == VrrpState::Master;
    for address in group.addresses.iter_mut().filter(|a| is_master && a.last_failure.is_some()) {
        address.command = address.eni.as_ref().map(|eni| claim_command(eni, [address.address], target));
    }
}

/// The AWS CLI's command line for the claim of `addresses` for `eni` (AssignPrivateIpAddresses, EC2 API), safe to paste
/// into a POSIX shell. The CLI uses the credentials of the user who pastes it.
pub fn claim_command(
    eni: &EniId,
    addresses: impl IntoIterator<Item = Ipv4Addr>,
    Target { region, endpoint_url }: Target<'_>,
) -> ClaimCommand {
    let mut line = format!("aws ec2 assign-private-ip-addresses --region {region}");
    if let Some(url) = endpoint_url {
        line.push_str(" --endpoint-url ");
        line.push_str(&quoted(url));
    }
    line.push_str(" --network-interface-id ");
    line.push_str(eni.as_str());
    line.push_str(" --allow-reassignment --private-ip-addresses");
    for address in addresses {
        // Writing to a String cannot fail.
        let _ = write!(line, " {address}");
    }
    ClaimCommand(line)
}

/// Quotes a word for a POSIX shell, with single quotes unless it has only safe characters (POSIX.1-2017, Shell Command
/// Language, 2.2).
pub fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"@%+=:,./_-".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_command_line_of_a_claim() {
        let eni = EniId::try_from("eni-0123456789abcdef0").expect("an id");
        let region = Region::try_from("eu-central-1").expect("a region");
        let addresses = [Ipv4Addr::new(10, 99, 0, 100), Ipv4Addr::new(10, 99, 0, 101)];
        let endpoint_url = Some("https://ec2.example:8443/?a=b&c=$(d)");
        assert_eq!(
            claim_command(&eni, addresses, Target { region: &region, endpoint_url: None }).as_str(),
            "aws ec2 assign-private-ip-addresses --region eu-central-1 --network-interface-id eni-0123456789abcdef0 \
             --allow-reassignment --private-ip-addresses 10.99.0.100 10.99.0.101"
        );
        assert_eq!(
            claim_command(&eni, [addresses[0]], Target { region: &region, endpoint_url }).as_str(),
            "aws ec2 assign-private-ip-addresses --region eu-central-1 --endpoint-url \
             'https://ec2.example:8443/?a=b&c=$(d)' --network-interface-id eni-0123456789abcdef0 --allow-reassignment \
             --private-ip-addresses 10.99.0.100"
        );
    }

    #[test]
    fn a_shell_reads_a_quoted_word_back() {
        for word in
            ["https://ec2.example:8443", "", "a b", "it's", "''", "$(id)`id`\\", "*?[a]~#!;&|<>{}\n\t", "ü", "-"]
        {
            let script = format!("printf %s {}", quoted(word));
            let output = Command::new("sh").args(["-c", &script]).output().expect("sh runs");
            assert_eq!(String::from_utf8(output.stdout).expect("UTF-8"), word, "{script}");
        }
    }
}
