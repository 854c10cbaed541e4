//! Reach of an internet address: the special-purpose blocks, the metadata services of clouds, and the
//! forms in which IPv6 carries IPv4. Pure, table-tested; whether an address may be contacted is
//! [`super::guard`]'s to say.
//!
//! The blocks are the two IANA special-purpose registries and multicast. An address that carries
//! another one counts as the worst of both, because a kernel or a gateway contacts the carried one.
//! A gateway with a NAT64 prefix of its own cannot be known here; for the addresses at which
//! credentials lie the last 32 bits are looked at whatever the prefix.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) fn shares_v4(a: Ipv4Addr, b: Ipv4Addr, prefix: u8) -> bool {
    let differing = a.to_bits() ^ b.to_bits();
    differing.leading_zeros() >= u32::from(prefix)
}

pub(super) fn shares_v6(a: Ipv6Addr, b: Ipv6Addr, prefix: u8) -> bool {
    let differing = a.to_bits() ^ b.to_bits();
    differing.leading_zeros() >= u32::from(prefix)
}

/// Kind of machine that an address leads to, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// A public machine.
    Global,
    /// A machine in somebody's own network, this one included.
    Private,
    /// No single machine, or one that no picture comes from.
    Never,
    /// A cloud's metadata service, which gives this machine's credentials to whoever asks from here;
    /// and all of the link-local range, where such services lie.
    Metadata,
}

/// IPv4 blocks that are not global: the IANA special-purpose registry, and multicast.
const SPECIAL_V4: [(Ipv4Addr, u8, Reach); 20] = {
    use Reach::{Metadata, Never, Private};
    const fn ip(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
        Ipv4Addr::new(a, b, c, d)
    }
    // Of the blocks that hold an address the first counts.
    [
        (ip(100, 100, 100, 200), 32, Metadata), // Alibaba Cloud
        (ip(168, 63, 129, 16), 32, Metadata),   // Azure's host agent, in public address space
        (ip(169, 254, 0, 0), 16, Metadata), // link-local: 169.254.169.254 of most clouds, 169.254.170.2 and .23 of containers
        (ip(192, 0, 0, 192), 32, Metadata), // Oracle Cloud Classic
        (ip(0, 0, 0, 0), 8, Never),         // "this network"; 0.0.0.0 reaches the local machine
        (ip(10, 0, 0, 0), 8, Private),      // private use
        (ip(100, 64, 0, 0), 10, Private),   // carrier-grade NAT
        (ip(127, 0, 0, 0), 8, Private),     // loopback
        (ip(172, 16, 0, 0), 12, Private),   // private use
        (ip(192, 0, 0, 0), 24, Never),      // protocol assignments
        (ip(192, 0, 2, 0), 24, Never),      // documentation
        (ip(192, 31, 196, 0), 24, Never),   // AS112
        (ip(192, 52, 193, 0), 24, Never),   // AMT
        (ip(192, 88, 99, 0), 24, Never),    // 6to4 relay
        (ip(192, 168, 0, 0), 16, Private),  // private use
        (ip(192, 175, 48, 0), 24, Never),   // AS112
        (ip(198, 18, 0, 0), 15, Never),     // benchmarking
        (ip(198, 51, 100, 0), 24, Never),   // documentation
        (ip(203, 0, 113, 0), 24, Never),    // documentation
        (ip(224, 0, 0, 0), 3, Never),       // multicast, reserved, broadcast
    ]
};

/// Metadata services, for which the last 32 bits of any IPv6 address are searched: a NAT64 gateway
/// with a prefix of the operator's own leads there.
const METADATA_HOSTS: [Ipv4Addr; 7] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(169, 254, 42, 42), // Scaleway
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// IPv6 blocks that are something else than their place in or outside the global range says.
const SPECIAL_V6: [(Ipv6Addr, u8, Reach); 18] = {
    use Reach::{Global, Metadata, Never, Private};
    const fn net(a: u16, b: u16, c: u16) -> Ipv6Addr {
        Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
    }
    const fn host(a: u16, b: u16, c: u16, d: u16, e: u16) -> Ipv6Addr {
        Ipv6Addr::new(a, b, c, 0, 0, 0, d, e)
    }
    // Of the blocks that hold an address the first counts.
    [
        (net(0xfd00, 0xec2, 0), 32, Metadata), // AWS: metadata, credentials of pods, names, time
        (host(0xfd20, 0xce, 0, 0, 0x254), 128, Metadata), // Google Cloud
        (host(0xfd00, 0xc1, 0, 0xa9fe, 0xa9fe), 128, Metadata), // Oracle Cloud
        (host(0xfd00, 0x42, 0, 0, 0x42), 128, Metadata), // Scaleway
        (host(0xfd00, 0xa9fe, 0xa9fe, 0, 1), 128, Metadata), // Akamai, formerly Linode
        (host(0xfd00, 0x100, 0, 0x100, 0x200), 128, Metadata), // Alibaba Cloud
        (net(0xfe80, 0, 0), 10, Metadata),     // link-local; fe80::a9fe:a9fe of OpenStack
        (net(0xfc00, 0, 0), 7, Private),       // unique local
        (Ipv6Addr::LOCALHOST, 128, Private),   // loopback
        (Ipv6Addr::UNSPECIFIED, 128, Never),   // reaches the local machine
        // These four and Teredo are as far as what they carry.
        (Ipv6Addr::UNSPECIFIED, 96, Global), // IPv4-compatible
        (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, Global), // IPv4-mapped
        (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96, Global), // IPv4-translated
        (net(0x64, 0xff9b, 0), 96, Global),  // NAT64, the well-known prefix
        (net(0x2001, 0, 0), 32, Global),     // Teredo
        (net(0x2001, 0, 0), 23, Never),      // protocol assignments
        (net(0x2001, 0xdb8, 0), 32, Never),  // documentation
        (net(0x2620, 0x4f, 0x8000), 48, Never), // AS112
    ]
};

/// The only IPv6 block from which global addresses are given out; the last block in it is
/// documentation. What lies outside is nothing that a picture comes from: discard, dummy, segment
/// routing, site-local, multicast, and the NAT64 prefix for use inside a network.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
const DOCUMENTATION_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20);

/// Reach of an address.
pub(super) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    SPECIAL_V4
        .iter()
        .find(|(net, prefix, _)| shares_v4(*net, address, *prefix))
        .map_or(Reach::Global, |(_, _, reach)| *reach)
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if METADATA_HOSTS.contains(&v4_at(address, 0)) {
        return Reach::Metadata;
    }
    let is_in = |(net, prefix): (Ipv6Addr, u8)| shares_v6(net, address, prefix);
    let own = SPECIAL_V6
        .iter()
        .find(|(net, prefix, _)| is_in((*net, *prefix)))
        .map_or_else(
            || {
                if is_in(GLOBAL_V6) && !is_in(DOCUMENTATION_V6) {
                    Reach::Global
                } else {
                    Reach::Never
                }
            },
            |(_, _, reach)| *reach,
        );
    let carried = carried_v4(address).into_iter().flatten().map(reach_v4);
    carried.fold(own, Reach::max)
}

/// The 32 bits that end `shift` bits before the address does.
#[expect(clippy::cast_possible_truncation, reason = "takes 32 of the 128 bits")]
fn v4_at(address: Ipv6Addr, shift: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits((address.to_bits() >> shift) as u32)
}

/// The IPv4 addresses that an IPv6 address stands for or may stand for, if any.
fn carried_v4(address: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let low = v4_at(address, 0);
    let one = |v4| [Some(v4), None, None, None];
    match address.segments() {
        // Loopback and the unspecified address look like carried ones and are not.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None; 4],
        // Mapped, compatible and translated forms.
        [0, 0, 0, 0, 0, 0xffff, _, _]
        | [0, 0, 0, 0, 0, 0, _, _]
        | [0, 0, 0, 0, 0xffff, 0, _, _]
        // NAT64, the well-known prefix.
        | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => one(low),
        // NAT64 inside a network, whose prefix may have 96, 64, 56 or 48 bits; the shorter ones leave
        // out the ninth byte (RFC 6052).
        [0x64, 0xff9b, 1, ..] => {
            let [.., a, b, _, c, d, e, f, _, _, _] = address.octets();
            [[a, b, c, d], [b, c, d, e], [c, d, e, f], low.octets()].map(|v4| Some(v4.into()))
        }
        // 6to4.
        [0x2002, ..] => one(v4_at(address, 80)),
        // Teredo: server, and the client with its bits flipped.
        [0x2001, 0, ..] => {
            let client = Ipv4Addr::from_bits(!low.to_bits());
            [Some(v4_at(address, 64)), Some(client), None, None]
        }
        // ISATAP, in any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => one(low),
        _ => [None; 4],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach_of(text: &str) -> Reach {
        reach(text.parse().unwrap())
    }

    #[test]
    fn special_addresses_are_known_to_their_first_and_last() {
        use Reach::{Global, Metadata, Never, Private};
        let blocks = [
            ("0.0.0.0", "0.255.255.255", Never),
            ("10.0.0.0", "10.255.255.255", Private),
            ("100.64.0.0", "100.127.255.255", Private),
            ("127.0.0.0", "127.255.255.255", Private),
            ("169.254.0.0", "169.254.255.255", Metadata),
            ("172.16.0.0", "172.31.255.255", Private),
            ("192.0.0.0", "192.0.0.255", Never),
            ("192.0.2.0", "192.0.2.255", Never),
            ("192.31.196.0", "192.31.196.255", Never),
            ("192.52.193.0", "192.52.193.255", Never),
            ("192.88.99.0", "192.88.99.255", Never),
            ("192.168.0.0", "192.168.255.255", Private),
            ("192.175.48.0", "192.175.48.255", Never),
            ("198.18.0.0", "198.19.255.255", Never),
            ("198.51.100.0", "198.51.100.255", Never),
            ("203.0.113.0", "203.0.113.255", Never),
            ("224.0.0.0", "255.255.255.255", Never),
            ("::1", "::1", Private),
            ("::", "::", Never),
            ("100::", "100::ffff:ffff:ffff:ffff", Never),
            ("100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", Never),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Private),
            ("fe80::", "febf:ffff::", Metadata),
            ("fec0::", "feff:ffff::", Never),
            ("ff00::", "ffff::", Never),
            ("2001:db8::", "2001:db8:ffff::", Never),
            ("2001:1::1", "2001:1::3", Never),
            ("2001:10::", "2001:1ff:ffff::", Never),
            ("2620:4f:8000::", "2620:4f:8000:ffff::", Never),
            ("3fff::", "3fff:fff:ffff::", Never),
            ("5f00::", "5f00:ffff::", Never),
            ("64:ff9b:1::", "64:ff9b:1:ffff::", Never),
        ];
        for (first, last, expected) in blocks {
            assert_eq!(reach_of(first), expected, "{first}");
            assert_eq!(reach_of(last), expected, "{last}");
        }
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "2a00:1450::1",
        ] {
            assert_eq!(reach_of(public), Global, "{public}");
        }
    }

    #[test]
    fn ipv4_inside_ipv6_is_judged_by_what_it_carries() {
        let forms: [fn(Ipv4Addr) -> Ipv6Addr; 8] = [
            |v4| v4.to_ipv6_mapped(),
            |v4| Ipv6Addr::from_bits(u128::from(v4.to_bits())),
            |v4| Ipv6Addr::from_bits(0xffff_0000 << 32 | u128::from(v4.to_bits())),
            |v4| Ipv6Addr::from_bits(0x0064_ff9b << 96 | u128::from(v4.to_bits())),
            |v4| Ipv6Addr::from_bits(0x2002 << 112 | u128::from(v4.to_bits()) << 80),
            |v4| {
                let server = u128::from(Ipv4Addr::new(1, 1, 1, 1).to_bits()) << 64;
                Ipv6Addr::from_bits(0x2001_0000 << 96 | server | u128::from(!v4.to_bits()))
            },
            |v4| {
                let client = u128::from(!Ipv4Addr::new(1, 1, 1, 1).to_bits());
                Ipv6Addr::from_bits(0x2001_0000 << 96 | u128::from(v4.to_bits()) << 64 | client)
            },
            |v4| {
                let prefix = 0x2a00_1450_u128 << 96;
                Ipv6Addr::from_bits(prefix | 0x0000_5efe << 32 | u128::from(v4.to_bits()))
            },
        ];
        for (number, form) in forms.into_iter().enumerate() {
            for (v4, expected) in [
                (Ipv4Addr::new(169, 254, 169, 254), Reach::Metadata),
                (Ipv4Addr::new(168, 63, 129, 16), Reach::Metadata),
                (Ipv4Addr::new(100, 100, 100, 200), Reach::Metadata),
                (Ipv4Addr::new(192, 0, 0, 192), Reach::Metadata),
                (Ipv4Addr::new(192, 0, 2, 1), Reach::Never),
                (Ipv4Addr::new(127, 0, 0, 1), Reach::Private),
                (Ipv4Addr::new(192, 168, 1, 1), Reach::Private),
                (Ipv4Addr::new(8, 8, 8, 8), Reach::Global),
            ] {
                let v6 = form(v4);
                assert_eq!(reach(IpAddr::V6(v6)), expected, "form {number}: {v6}");
            }
        }
    }

    #[test]
    fn metadata_of_every_cloud_is_known_and_its_neighbours_are_not() {
        for metadata in [
            "169.254.169.254",
            "169.254.169.253",
            "169.254.170.2",
            "169.254.170.23",
            "169.254.0.23",
            "169.254.42.42",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd00:ec2::253",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "fd00:a9fe:a9fe::1",
            "fd00:100::100:200",
            "fe80::a9fe:a9fe",
            "fe80::1",
        ] {
            assert_eq!(reach_of(metadata), Reach::Metadata, "{metadata}");
        }
        for (neighbour, expected) in [
            ("168.63.129.15", Reach::Global),
            ("168.63.129.17", Reach::Global),
            ("100.100.100.199", Reach::Private),
            ("100.100.100.201", Reach::Private),
            ("192.0.0.191", Reach::Never),
            ("fd00:ec3::254", Reach::Private),
            ("fd20:ce::253", Reach::Private),
            ("fd00:c1::a9fe:a9fd", Reach::Private),
        ] {
            assert_eq!(reach_of(neighbour), expected, "{neighbour}");
        }
    }

    #[test]
    fn nat64_of_an_own_network_never_leads_to_metadata() {
        for (address, expected) in [
            // 169.254.169.254 behind prefixes of 48, 56, 64 and 96 bits.
            ("64:ff9b:1:a9fe:a9:fe00::", Reach::Metadata),
            ("64:ff9b:1:a9:fe:a9fe::", Reach::Metadata),
            ("64:ff9b:1:0:a9:fea9:fe00:0", Reach::Metadata),
            ("64:ff9b:1::a9fe:a9fe", Reach::Metadata),
            ("64:ff9b:1::a83f:8110", Reach::Metadata),
            ("64:ff9b:1::808:808", Reach::Never),
            // A prefix that nobody but the operator knows.
            ("2a00:1450:64::a9fe:a9fe", Reach::Metadata),
            ("2a00:1450:64::a83f:8110", Reach::Metadata),
            ("2a00:1450:64::a83f:8111", Reach::Global),
        ] {
            assert_eq!(reach_of(address), expected, "{address}");
        }
    }

    #[test]
    fn a_carrier_is_no_better_than_what_it_carries_nor_than_its_own_block() {
        for (address, expected) in [
            ("fe80::5efe:808:808", Reach::Metadata),
            ("fd00::5efe:808:808", Reach::Private),
            ("2a00::5efe:a00:1", Reach::Private),
            ("2001:db8::5efe:808:808", Reach::Never),
            ("ff02::5efe:808:808", Reach::Never),
            ("2002:a00:1::1", Reach::Private),
            ("2002:e000:1::1", Reach::Never),
        ] {
            assert_eq!(reach_of(address), expected, "{address}");
        }
    }
}
