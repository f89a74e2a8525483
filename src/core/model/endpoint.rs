//! The URL of an EC2 endpoint, as an operator may set it: a scheme, a host and optionally a port, and no part that
//! could hold a secret.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The parts of an endpoint's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint<'a> {
    is_encrypted: bool,
    host: Host<'a>,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host<'a> {
    Address(IpAddr),
    Name(&'a str),
}

impl<'a> Endpoint<'a> {
    /// Reads `https://HOST[:PORT]` or `http://HOST[:PORT]`; one slash may follow.
    ///
    /// # Errors
    /// What is wrong with the URL, as the predicate of a sentence about it.
    pub fn parse(url: &'a str) -> Result<Self, &'static str> {
        let (is_encrypted, rest) = if let Some(rest) = url.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = url.strip_prefix("http://") {
            (false, rest)
        } else {
            return Err("must begin with https:// or http://");
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or("has a [ without a ]")?;
                let address: Ipv6Addr = address.parse().map_err(|_| "has no valid IPv6 address in its brackets")?;
                (Host::Address(address.into()), port)
            }
            None => {
                let end = authority.find(':').unwrap_or(authority.len());
                let (name, port) = authority.split_at(end);
                if name.is_empty() {
                    return Err("has no host");
                }
                if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)) {
                    return Err("must be only host[:port] after the scheme");
                }
                (name.parse::<Ipv4Addr>().map_or(Host::Name(name), |address| Host::Address(address.into())), port)
            }
        };
        let number = |port: &str| {
            let is_number = port.bytes().all(|b| b.is_ascii_digit());
            port.parse().ok().filter(|number| is_number && *number > 0)
        };
        let port = match port.strip_prefix(':') {
            Some(port) => number(port),
            None if port.is_empty() => Some(if is_encrypted { 443 } else { 80 }),
            None => None,
        };
        let port = port.ok_or("must be only host[:port] after the scheme")?;
        Ok(Self { is_encrypted, host, port })
    }

    /// The host, without the brackets of an IPv6 address, and the port.
    pub fn host_and_port(&self) -> (String, u16) {
        let host = match self.host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.to_owned(),
        };
        (host, self.port)
    }

    /// Whether requests can be read in transit: they are not encrypted, and leave the router.
    pub fn is_in_clear(&self) -> bool {
        let is_loopback = match self.host {
            Host::Address(address) => address.to_canonical().is_loopback(),
            Host::Name(name) => name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case("localhost"),
        };
        !self.is_encrypted && !is_loopback
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_encrypted_and_leaves_the_router_is_in_clear() {
        for (url, expected) in [
            ("https://ec2.example", false),
            ("https://ec2.example:8443/", false),
            ("http://ec2.example", true),
            ("http://ec2.example:80/", true),
            ("http://10.99.0.5", true),
            ("http://[2001:db8::1]:8080", true),
            ("http://[::]", true),
            ("http://0.0.0.0", true),
            // Some resolvers resolve these to loopback, and others do not.
            ("http://127.1", true),
            ("http://ec2.localhost", true),
            ("http://localhost.example", true),
            ("http://localhost-.", true),
            ("http://127.0.0.1.example", true),
            ("http://localhost", false),
            ("http://LocalHost.:8080/", false),
            ("http://127.0.0.1", false),
            ("http://127.255.0.9:8080", false),
            ("http://[::1]", false),
            ("http://[0:0:0:0:0:0:0:1]:8080/", false),
            ("http://[::ffff:127.0.0.1]", false),
            ("http://[::ffff:10.99.0.5]", true),
        ] {
            assert_eq!(Endpoint::parse(url).map(|endpoint| endpoint.is_in_clear()), Ok(expected), "{url}");
        }
    }

    #[test]
    fn the_port_is_that_of_the_scheme_unless_given() {
        for (url, host, port) in [
            ("https://ec2.example", "ec2.example", 443),
            ("http://127.0.0.1/", "127.0.0.1", 80),
            ("https://[::1]:8443", "::1", 8443),
            ("http://ec2.example:443", "ec2.example", 443),
        ] {
            let endpoint = Endpoint::parse(url).expect(url);
            assert_eq!(endpoint.host_and_port(), (host.to_owned(), port), "{url}");
        }
    }

    #[test]
    fn a_url_is_a_scheme_a_host_and_a_port_at_most() {
        for (url, expected) in [
            ("", "must begin"),
            ("ec2.example", "must begin"),
            ("HTTP://ec2.example", "must begin"),
            ("ftp://ec2.example", "must begin"),
            ("https://", "has no host"),
            ("https:///", "has no host"),
            ("https://:443", "has no host"),
            ("https://a:b:c", "host[:port]"),
            ("https://a:", "host[:port]"),
            ("https://a:0", "host[:port]"),
            ("https://a:65536", "host[:port]"),
            ("https://a:+80", "host[:port]"),
            ("https://::1", "has no host"),
            ("https://a//", "host[:port]"),
            ("https://a:1/path", "host[:port]"),
            ("http:// a", "host[:port]"),
            ("file:///etc", "must begin"),
            ("https://key:secret@ec2", "host[:port]"),
            ("https://user@ec2", "host[:port]"),
            ("https://ec2/?key=secret", "host[:port]"),
            ("https://ec2#a", "host[:port]"),
            ("https://ä", "host[:port]"),
            ("https://[::1", "without a ]"),
            ("https://[::1]8", "host[:port]"),
            ("https://[fe80::1%eth0]", "no valid IPv6 address"),
            ("https://[127.0.0.1]", "no valid IPv6 address"),
            ("https://a[::1]", "host[:port]"),
        ] {
            let error = Endpoint::parse(url).expect_err(url);
            assert!(error.contains(expected), "{url}: {error}");
        }
    }
}
