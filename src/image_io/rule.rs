//! Entries of the operator's lists of sources and receivers: `public`, a network, an address, a host
//! name, and a port behind a name. Read here, applied by [`super::guard`].
//!
//! An entry is spelled as a URL's host would be after parsing, so that the two can be compared byte by
//! byte: lower case, punycode, canonical addresses. Whatever else may stand in a URL (a scheme, a
//! user, a path) is refused, so that nobody believes it to count.

use std::net::IpAddr;

use url::Host;

use super::address::{shares_v4, shares_v6};

/// The rule that allows every public address.
const PUBLIC: &str = "public";

/// Ports that names and `public` open: http and https.
pub(super) const WEB_PORTS: [u16; 2] = [80, 443];

/// What an operator wrote that is no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{flag} {rule:?} is neither \"public\", nor a network such as 10.0.0.0/8, nor an address, nor a host name such as pictures.example.com or *.example.com; a host name or \"public\" may be followed by a port, such as pictures.example.com:8443"
)]
pub struct SourceRuleError {
    /// The flag that takes such rules.
    pub flag: &'static str,
    /// What was written.
    pub rule: String,
}

/// One entry of the list. A port opens itself beside those of the web.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Every address that belongs to a public machine, and every name that leads to one.
    Public { port: Option<u16> },
    /// Every address in this network, whatever it is, at every port.
    Net(Network),
    /// This host name.
    Name { name: String, port: Option<u16> },
    /// Every name below this one; the text starts with a dot.
    Below { suffix: String, port: Option<u16> },
}

impl Rule {
    /// Reads one entry.
    pub(super) fn parse(source: &str) -> Option<Self> {
        if let Some(network) = Network::parse(source) {
            return Some(Self::Net(network));
        }
        let (host, port) = match source.rsplit_once(':') {
            Some((host, port)) => (host, Some(parse_port(port)?)),
            None => (source, None),
        };
        if host == PUBLIC {
            return Some(Self::Public { port });
        }
        let (wildcard, name) = match host.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, host),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let labels_are_sound = name.split('.').all(|label| {
            !label.is_empty() && !label.contains(|c: char| c.is_ascii() && !is_name_char(c))
        });
        match Host::parse(name) {
            // Spelled as the URL parser will spell it: lower case, punycode.
            Ok(Host::Domain(name)) if labels_are_sound && wildcard => Some(Self::Below {
                suffix: format!(".{name}"),
                port,
            }),
            Ok(Host::Domain(name)) if labels_are_sound => Some(Self::Name { name, port }),
            _ => None,
        }
    }

    /// The port that the rule names.
    pub(super) fn port(&self) -> Option<u16> {
        match self {
            Self::Net(_) => None,
            Self::Public { port } | Self::Name { port, .. } | Self::Below { port, .. } => *port,
        }
    }

    /// Whether the rule holds at this port.
    pub(super) fn opens(&self, port: u16) -> bool {
        matches!(self, Self::Net(_)) || WEB_PORTS.contains(&port) || self.port() == Some(port)
    }
}

/// A port as it stands in a URL; zero is none.
fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| *port > 0);
    port.filter(|_| is_number)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// A block of addresses that share their first `prefix` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(address);
        let address: IpAddr = bare.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(width);
        if prefix > width {
            return None;
        }
        // Addresses are compared in canonical form, so a mapped network is kept in that form too.
        match address {
            IpAddr::V6(v6) if prefix >= 96 && v6.to_ipv4_mapped().is_some() => Some(Self {
                address: address.to_canonical(),
                prefix: prefix - 96,
            }),
            _ => Some(Self { address, prefix }),
        }
    }

    /// Whether the block is a single address.
    pub(super) fn is_one_address(&self) -> bool {
        let width = if self.address.is_ipv4() { 32 } else { 128 };
        self.prefix == width
    }

    /// Whether an address in canonical form lies in it.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => shares_v4(net, address, self.prefix),
            (IpAddr::V6(net), IpAddr::V6(address)) => shares_v6(net, address, self.prefix),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_source_is_refused() {
        for wrong in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "http://example.com",
            "example.com:",
            "example.com:0",
            "example.com:+80",
            "example.com:65536",
            "example.com:80:81",
            "10.0.0.7:80",
            "[::1]:80",
            "public:",
            "user:password@example.com",
            "exa mple.com",
            "*",
            "*.",
            "a.*.com",
            "example.com/x",
            "user@example.com",
            "a..b",
        ] {
            assert_eq!(Rule::parse(wrong), None, "{wrong}");
        }
    }
}
