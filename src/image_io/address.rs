//! How far an internet address reaches: the special-purpose blocks, and the forms in which IPv6
//! carries IPv4. Pure, table-tested; whether an address may be contacted is [`super::guard`]'s to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) fn shares_v4(a: Ipv4Addr, b: Ipv4Addr, prefix: u8) -> bool {
    let differing = a.to_bits() ^ b.to_bits();
    differing.leading_zeros() >= u32::from(prefix)
}

pub(super) fn shares_v6(a: Ipv6Addr, b: Ipv6Addr, prefix: u8) -> bool {
    let differing = a.to_bits() ^ b.to_bits();
    differing.leading_zeros() >= u32::from(prefix)
}

/// How far an address reaches, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// A public machine.
    Global,
    /// A machine in somebody's own network, this one included.
    Private,
    /// No single machine, or one that no picture comes from.
    Never,
}

/// IPv4 blocks that are not global: the IANA special-purpose registry, and multicast.
const SPECIAL_V4: [(Ipv4Addr, u8, Reach); 17] = {
    use Reach::{Never, Private};
    const fn ip(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
        Ipv4Addr::new(a, b, c, d)
    }
    [
        (ip(0, 0, 0, 0), 8, Never), // "this network"; 0.0.0.0 reaches the local machine
        (ip(10, 0, 0, 0), 8, Private), // private use
        (ip(100, 64, 0, 0), 10, Private), // carrier-grade NAT
        (ip(127, 0, 0, 0), 8, Private), // loopback
        (ip(169, 254, 0, 0), 16, Never), // link-local; cloud metadata
        (ip(172, 16, 0, 0), 12, Private), // private use
        (ip(192, 0, 0, 0), 24, Never), // protocol assignments; metadata of one cloud
        (ip(192, 0, 2, 0), 24, Never), // documentation
        (ip(192, 31, 196, 0), 24, Never), // AS112
        (ip(192, 52, 193, 0), 24, Never), // AMT
        (ip(192, 88, 99, 0), 24, Never), // 6to4 relay
        (ip(192, 168, 0, 0), 16, Private), // private use
        (ip(192, 175, 48, 0), 24, Never), // AS112
        (ip(198, 18, 0, 0), 15, Never), // benchmarking
        (ip(198, 51, 100, 0), 24, Never), // documentation
        (ip(203, 0, 113, 0), 24, Never), // documentation
        (ip(224, 0, 0, 0), 3, Never), // multicast, reserved, broadcast
    ]
};

/// IPv6 blocks inside the global unicast range that are not global, and the unique local range.
const SPECIAL_V6: [(Ipv6Addr, u8, Reach); 6] = {
    use Reach::{Never, Private};
    const fn ip(a: u16, b: u16, c: u16) -> Ipv6Addr {
        Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
    }
    [
        (Ipv6Addr::LOCALHOST, 128, Private),   // loopback
        (ip(0xfc00, 0, 0), 7, Private),        // unique local
        (ip(0x2001, 0, 0), 23, Never),         // protocol assignments; Teredo is judged before
        (ip(0x2001, 0xdb8, 0), 32, Never),     // documentation
        (ip(0x3fff, 0, 0), 20, Never),         // documentation
        (ip(0x2620, 0x4f, 0x8000), 48, Never), // AS112
    ]
};

/// The only IPv6 block from which global addresses are given out.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// How far an address reaches.
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
    if let Some((low, high)) = carried_v4(address) {
        // Teredo carries two; the worse one counts.
        return reach_v4(low).max(high.map_or(Reach::Global, reach_v4));
    }
    if let Some((_, _, reach)) = SPECIAL_V6
        .iter()
        .find(|(net, prefix, _)| shares_v6(*net, address, *prefix))
    {
        return *reach;
    }
    let (net, prefix) = GLOBAL_V6;
    if shares_v6(net, address, prefix) {
        Reach::Global
    } else {
        Reach::Never
    }
}

/// The IPv4 addresses that an IPv6 address stands for, if any.
fn carried_v4(address: Ipv6Addr) -> Option<(Ipv4Addr, Option<Ipv4Addr>)> {
    let bits = address.to_bits();
    #[expect(clippy::cast_possible_truncation, reason = "takes 32 of the 128 bits")]
    let v4_at = |shift: u32| Ipv4Addr::from_bits((bits >> shift) as u32);
    let low = v4_at(0);
    match address.segments() {
        // Loopback and the unspecified address look like carried ones and are not.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // Mapped, compatible and translated forms.
        [0, 0, 0, 0, 0, 0xffff, _, _]
        | [0, 0, 0, 0, 0, 0, _, _]
        | [0, 0, 0, 0, 0xffff, 0, _, _]
        // NAT64, the well-known prefix.
        | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some((low, None)),
        // 6to4.
        [0x2002, ..] => Some((v4_at(80), None)),
        // Teredo: server, and the client with its bits flipped.
        [0x2001, 0, ..] => Some((v4_at(64), Some(Ipv4Addr::from_bits(!low.to_bits())))),
        // ISATAP, in any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => Some((low, None)),
        _ => None,
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
        use Reach::{Global, Never, Private};
        let blocks = [
            ("0.0.0.0", "0.255.255.255", Never),
            ("10.0.0.0", "10.255.255.255", Private),
            ("100.64.0.0", "100.127.255.255", Private),
            ("127.0.0.0", "127.255.255.255", Private),
            ("169.254.0.0", "169.254.255.255", Never),
            ("172.16.0.0", "172.31.255.255", Private),
            ("192.0.0.0", "192.0.0.255", Never),
            ("192.168.0.0", "192.168.255.255", Private),
            ("198.18.0.0", "198.19.255.255", Never),
            ("203.0.113.0", "203.0.113.255", Never),
            ("224.0.0.0", "255.255.255.255", Never),
            ("::1", "::1", Private),
            ("::", "::", Never),
            ("100::", "100::ffff:ffff:ffff:ffff", Never),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Private),
            ("fe80::", "febf:ffff::", Never),
            ("fec0::", "feff:ffff::", Never),
            ("ff00::", "ffff::", Never),
            ("2001:db8::", "2001:db8:ffff::", Never),
            ("2001:10::", "2001:1ff:ffff::", Never),
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
                (Ipv4Addr::new(169, 254, 169, 254), Reach::Never),
                (Ipv4Addr::new(127, 0, 0, 1), Reach::Private),
                (Ipv4Addr::new(192, 168, 1, 1), Reach::Private),
                (Ipv4Addr::new(8, 8, 8, 8), Reach::Global),
            ] {
                let v6 = form(v4);
                assert_eq!(reach(IpAddr::V6(v6)), expected, "form {number}: {v6}");
            }
        }
    }
}
