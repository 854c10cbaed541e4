//! May this address be contacted? Pure: no sockets, no names looked up, table-tested.
//!
//! Nothing is contacted that the operator has not allowed with `--allow-source` (for webhooks:
//! `--allow-webhook`, and every public machine): a network, an
//! address, a host name, or `public` for every public machine. An address that carries an IPv4 address inside IPv6 is judged by what
//! it carries, because the kernel or a gateway will contact that one.
//!
//! The fetcher asks twice: for the host in a URL, and for every address that host's name resolves
//! to. All refusals look alike to the caller, so that answers are not a map of the network.

use std::net::IpAddr;

use url::Host;

use super::address::{Reach, reach, shares_v4, shares_v6};

/// The rule that allows every public address.
const PUBLIC: &str = "public";

/// What an operator wrote that is no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{flag} {rule:?} is neither \"public\", nor a network such as 10.0.0.0/8, nor an address, nor a host name such as pictures.example.com or *.example.com"
)]
pub struct SourceRuleError {
    /// The flag that takes such rules.
    pub flag: &'static str,
    /// What was written.
    pub rule: String,
}

/// The operator's list of sources.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// Every address that belongs to a public machine, and every name that leads to one.
    Public,
    /// Every address in this network, whatever it is.
    Net(Network),
    /// This host name.
    Name(String),
    /// Every name below this one; the text starts with a dot.
    Below(String),
}

impl Guard {
    /// Reads the operator's list, which stands behind `flag`.
    ///
    /// # Errors
    /// Names the first entry that cannot be read.
    pub fn parse<S: AsRef<str>>(
        flag: &'static str,
        sources: &[S],
    ) -> Result<Self, SourceRuleError> {
        let read = |source: &S| {
            let rule = source.as_ref().trim();
            Rule::parse(rule).ok_or_else(|| SourceRuleError {
                flag,
                rule: rule.to_owned(),
            })
        };
        let rules = sources.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }

    /// The same list, and every public address.
    #[must_use]
    pub fn and_public(mut self) -> Self {
        self.rules.push(Rule::Public);
        self
    }

    /// Whether nothing at all is allowed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.rules.is_empty()
    }

    /// May a connection to this host of a URL be tried? For a name the addresses are judged later,
    /// each with [`Guard::permits_address`].
    #[must_use]
    pub fn permits_host(&self, host: &Host<&str>) -> bool {
        match host {
            Host::Ipv4(address) => self.permits_literal(IpAddr::V4(*address)),
            Host::Ipv6(address) => self.permits_literal(IpAddr::V6(*address)),
            // A name may lead into an allowed network, which only its addresses can tell.
            Host::Domain(name) => self.permits_name(name) || self.judges_addresses(),
        }
    }

    /// May this address, to which `name` resolves, be contacted?
    ///
    /// A name rule vouches for public and private addresses, but never for the link-local range and
    /// its cloud credentials, nor for addresses that belong to no single machine.
    #[must_use]
    pub fn permits_address(&self, name: &str, address: IpAddr) -> bool {
        self.permits_literal(address) || (self.permits_name(name) && reach(address) != Reach::Never)
    }

    fn permits_literal(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.rules.iter().any(|rule| match rule {
            Rule::Public => reach(address) == Reach::Global,
            Rule::Net(network) => network.contains(address),
            Rule::Name(_) | Rule::Below(_) => false,
        })
    }

    fn permits_name(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        self.rules.iter().any(|rule| match rule {
            Rule::Name(allowed) => *allowed == name,
            Rule::Below(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
            Rule::Public | Rule::Net(_) => false,
        })
    }

    fn judges_addresses(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| matches!(rule, Rule::Public | Rule::Net(_)))
    }
}

impl Rule {
    fn parse(source: &str) -> Option<Self> {
        if source == PUBLIC {
            return Some(Self::Public);
        }
        if let Some(network) = Network::parse(source) {
            return Some(Self::Net(network));
        }
        let (wildcard, name) = match source.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, source),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let labels_are_sound = name.split('.').all(|label| {
            !label.is_empty() && !label.contains(|c: char| c.is_ascii() && !is_name_char(c))
        });
        match Host::parse(name) {
            // Spelled as the URL parser will spell it: lower case, punycode.
            Ok(Host::Domain(name)) if labels_are_sound && wildcard => {
                Some(Self::Below(format!(".{name}")))
            }
            Ok(Host::Domain(name)) if labels_are_sound => Some(Self::Name(name)),
            _ => None,
        }
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// A block of addresses that share their first `prefix` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
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

    fn contains(&self, address: IpAddr) -> bool {
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

    fn host_allowed(rules: &[&str], host: &str) -> bool {
        let host: Host<String> = Host::parse(host).unwrap();
        let host = match &host {
            Host::Domain(name) => Host::Domain(name.as_str()),
            Host::Ipv4(address) => Host::Ipv4(*address),
            Host::Ipv6(address) => Host::Ipv6(*address),
        };
        Guard::parse("--allow-source", rules)
            .unwrap()
            .permits_host(&host)
    }

    fn address_allowed(rules: &[&str], name: &str, address: &str) -> bool {
        let guard = Guard::parse("--allow-source", rules).unwrap();
        guard.permits_address(name, address.parse().unwrap())
    }

    #[test]
    fn nothing_is_allowed_unless_it_is_listed() {
        for host in ["example.com", "1.1.1.1", "127.0.0.1", "[::1]", "localhost"] {
            assert!(!host_allowed(&[], host), "{host}");
        }
        assert!(!address_allowed(&[], "example.com", "1.1.1.1"));
    }

    #[test]
    fn networks_hold_from_their_first_address_to_their_last() {
        let rules = [
            "10.1.0.0/16",
            "127.0.0.1",
            "[::1]",
            "fd00::/8",
            "0.0.0.0/32",
        ];
        for (host, allowed) in [
            ("10.1.0.0", true),
            ("10.1.255.255", true),
            ("10.0.255.255", false),
            ("10.2.0.0", false),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("[::ffff:127.0.0.1]", true),
            ("[::ffff:127.0.0.2]", false),
            ("[::1]", true),
            ("[::2]", false),
            ("[fdff::1]", true),
            ("[fe80::1]", false),
            // The forms that the URL parser turns into an address.
            ("2130706433", true),
            ("0x7f.1", true),
            ("0177.0.0.1", true),
            ("127.1", true),
        ] {
            assert_eq!(host_allowed(&rules, host), allowed, "{host}");
        }
        assert!(host_allowed(&["0.0.0.0/0"], "8.8.8.8"));
        assert!(host_allowed(&["10.9.8.7/8"], "10.0.0.1"));
        assert!(host_allowed(&["::ffff:10.0.0.0/104"], "10.1.2.3"));
    }

    #[test]
    fn names_match_whole_labels_in_any_case() {
        let rules = ["pictures.example.com", "*.cdn.test", "bücher.example"];
        for (host, allowed) in [
            ("pictures.example.com", true),
            ("PICTURES.example.com.", true),
            ("example.com", false),
            ("xpictures.example.com", false),
            ("pictures.example.com.evil.test", false),
            ("a.cdn.test", true),
            ("a.b.cdn.test", true),
            ("cdn.test", false),
            ("evilcdn.test", false),
            ("bücher.example", true),
            ("xn--bcher-kva.example", true),
        ] {
            assert_eq!(host_allowed(&rules, host), allowed, "{host}");
        }
    }

    #[test]
    fn an_allowed_name_may_lead_to_private_machines_but_not_to_metadata() {
        let rules = ["pictures.lan"];
        for (address, allowed) in [
            ("10.0.0.7", true),
            ("127.0.0.1", true),
            ("fd00::7", true),
            ("8.8.8.8", true),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
            ("::", false),
            ("224.0.0.1", false),
        ] {
            assert_eq!(
                address_allowed(&rules, "pictures.lan", address),
                allowed,
                "{address}"
            );
            assert!(!address_allowed(&rules, "other.lan", address), "{address}");
        }
        assert!(address_allowed(&["169.254.0.0/16"], "a", "169.254.1.1"));
    }

    #[test]
    fn a_foreign_name_passes_only_into_an_allowed_network() {
        let rules = ["10.0.0.0/8"];
        assert!(host_allowed(&rules, "anything.test"));
        assert!(address_allowed(&rules, "anything.test", "10.0.0.1"));
        assert!(!address_allowed(&rules, "anything.test", "11.0.0.1"));
        assert!(!address_allowed(&rules, "anything.test", "127.0.0.1"));
    }

    #[test]
    fn public_allows_public_machines_and_no_others() {
        let guard = Guard::parse("--allow-source", &["public"]).unwrap();
        for (address, allowed) in [
            ("8.8.8.8", true),
            ("2606:4700::1", true),
            ("10.0.0.1", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("::ffff:192.168.0.1", false),
            ("::1", false),
        ] {
            let parsed = address.parse().unwrap();
            assert_eq!(
                guard.permits_address("example.com", parsed),
                allowed,
                "{address}"
            );
        }
        assert!(host_allowed(&["public"], "example.com"));
        assert!(!host_allowed(&["public"], "127.0.0.1"));
    }

    #[test]
    fn what_is_no_source_is_refused_by_name() {
        for wrong in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "http://example.com",
            "example.com:80",
            "exa mple.com",
            "*",
            "*.",
            "a.*.com",
            "example.com/x",
            "user@example.com",
            "a..b",
        ] {
            let error = Guard::parse("--allow-source", &[wrong]).unwrap_err();
            assert_eq!(error.rule, wrong);
        }
    }
}
