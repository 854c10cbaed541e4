//! May this address be contacted, and at which port? Pure: no sockets, no names looked up, table-tested.
//!
//! Nothing is contacted that the operator has not allowed with `--allow-source` (for webhooks:
//! `--allow-webhook`, and every public machine): a network, an address, a host name, or `public` for
//! every public machine. Names and `public` open the ports of the web, and one more where the rule
//! says so; networks and addresses open all. A cloud's metadata service is opened by its own address
//! alone: no name, no network, no `public` leads there.
//!
//! The fetcher asks twice: for the host in a URL, and for every address that host's name resolves
//! to. All refusals look alike to the caller, so that answers are not a map of the network.

use std::net::IpAddr;

use url::Host;

use super::address::{Reach, reach};
pub use super::rule::SourceRuleError;
use super::rule::{Rule, WEB_PORTS};

/// The operator's list of sources.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    rules: Vec<Rule>,
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
        self.rules.push(Rule::Public { port: None });
        self
    }

    /// The rules that hold at this port.
    #[must_use]
    pub fn at_port(&self, port: u16) -> Self {
        let rules = self.rules.iter().filter(|rule| rule.opens(port));
        Self {
            rules: rules.cloned().collect(),
        }
    }

    /// Ports beside those of the web that some rule names.
    pub fn further_ports(&self) -> impl Iterator<Item = u16> {
        let ports = self.rules.iter().filter_map(Rule::port);
        ports.filter(|port| !WEB_PORTS.contains(port))
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
    /// A name rule vouches for public and private addresses, but never for a cloud's metadata
    /// service, nor for addresses that belong to no single machine.
    #[must_use]
    pub fn permits_address(&self, name: &str, address: IpAddr) -> bool {
        self.permits_literal(address)
            || (self.permits_name(name) && reach(address) <= Reach::Private)
    }

    fn permits_literal(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let reach = reach(address);
        self.rules.iter().any(|rule| match rule {
            Rule::Public { .. } => reach == Reach::Global,
            Rule::Net(network) => {
                let is_open = reach != Reach::Metadata || network.is_one_address();
                is_open && network.contains(address)
            }
            Rule::Name { .. } | Rule::Below { .. } => false,
        })
    }

    fn permits_name(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        self.rules.iter().any(|rule| match rule {
            Rule::Name { name: allowed, .. } => *allowed == name,
            Rule::Below { suffix, .. } => {
                name.len() > suffix.len() && name.ends_with(suffix.as_str())
            }
            Rule::Public { .. } | Rule::Net(_) => false,
        })
    }

    fn judges_addresses(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| matches!(rule, Rule::Public { .. } | Rule::Net(_)))
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
    }

    /// Ways to a metadata service, each with the address that alone opens it.
    const METADATA: [(&str, &str); 12] = [
        ("169.254.169.254", "169.254.169.254"),
        ("::ffff:169.254.169.254", "169.254.169.254"),
        ("64:ff9b::a9fe:a9fe", "64:ff9b::a9fe:a9fe"),
        ("2002:a9fe:a9fe::", "2002:a9fe:a9fe::"),
        ("169.254.1.1", "169.254.1.1"),
        ("169.254.170.2", "169.254.170.2/32"),
        ("168.63.129.16", "::ffff:168.63.129.16"),
        ("64:ff9b::a83f:8110", "64:ff9b::a83f:8110"),
        ("100.100.100.200", "100.100.100.200"),
        ("fd00:ec2::254", "fd00:ec2::254"),
        ("fd20:ce::254", "[fd20:ce::254]"),
        ("fd00:c1::a9fe:a9fe", "fd00:c1::a9fe:a9fe/128"),
    ];

    #[test]
    fn metadata_is_opened_by_its_own_address_alone() {
        let wide = [
            "public",
            "metadata.test",
            "*.test",
            "0.0.0.0/0",
            "::/0",
            "169.254.0.0/16",
            "169.254.169.254/31",
            "168.63.129.16/31",
            "100.64.0.0/10",
            "64:ff9b::/96",
            "2002::/16",
            "fc00::/7",
            "fd00:ec2::/32",
        ];
        for (address, own) in METADATA {
            assert!(
                !address_allowed(&wide, "metadata.test", address),
                "{address}"
            );
            assert!(
                address_allowed(&[own], "metadata.test", address),
                "{address}"
            );
        }
        let nearly = ["169.254.169.253", "169.254.169.254", "fd00:ec2::253"];
        for address in ["64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "fd00:ec2::254"] {
            assert!(
                !address_allowed(&nearly, "metadata.test", address),
                "{address}"
            );
        }
    }

    #[test]
    fn names_and_public_open_web_ports_and_the_one_they_name() {
        let rules = [
            "public:8080",
            "pictures.lan",
            "cdn.lan:8443",
            "*.below.lan:9000",
            "10.0.0.0/8",
            "127.0.0.1",
        ];
        let guard = Guard::parse("--allow-source", &rules).unwrap();
        let allowed = |name: &str, address: &str, port: u16| {
            guard
                .at_port(port)
                .permits_address(name, address.parse().unwrap())
        };
        for (name, address, open, shut) in [
            (
                "any.test",
                "8.8.8.8",
                &[80, 443, 8080][..],
                &[25, 6379, 8443, 9000][..],
            ),
            (
                "pictures.lan",
                "192.168.0.1",
                &[80, 443],
                &[22, 8080, 8443, 9000],
            ),
            (
                "cdn.lan",
                "192.168.0.1",
                &[80, 443, 8443],
                &[22, 8080, 9000],
            ),
            (
                "a.below.lan",
                "192.168.0.1",
                &[80, 443, 9000],
                &[22, 8080, 8443],
            ),
            ("any.test", "10.1.2.3", &[1, 22, 80, 65535], &[]),
            ("any.test", "127.0.0.1", &[22, 80, 6379], &[]),
        ] {
            for port in open {
                assert!(allowed(name, address, *port), "{name} {address} {port}");
            }
            for port in shut {
                assert!(!allowed(name, address, *port), "{name} {address} {port}");
            }
        }
        assert_eq!(
            guard.further_ports().collect::<Vec<_>>(),
            [8080, 8443, 9000]
        );
        let by_default = Guard::default().and_public();
        assert!(by_default.at_port(25).is_closed() && !by_default.at_port(443).is_closed());
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
}
