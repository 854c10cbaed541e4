//! Who a caller is, for the limits of which one caller may have only a share.
//!
//! Callers are told apart by the address at the other end of the connection and, where keys are asked
//! for, by the key. Both together, because many machines may use one key, and many users one machine.
//! Behind a proxy all callers have the proxy's address, unless it may be believed
//! (`--trust-forwarded`): then the last entry of `X-Forwarded-For` counts, which the proxy itself has
//! written, and no earlier one, which anybody may have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::http::{Extensions, HeaderMap, HeaderName};

use crate::semaphore::Caller;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Bits of an IPv6 address that name a network; the rest is one party's own to choose.
const NETWORK_BITS: u32 = 64;

/// The address at the other end of a connection. Travels with the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Who sent a request, before its key was looked at.
pub(crate) fn identify(
    extensions: &Extensions,
    headers: &HeaderMap,
    trusts_forwarded: bool,
) -> Caller {
    let peer = extensions.get::<Peer>().map(|peer| peer.0);
    let forwarded = || {
        let last = headers.get_all(FORWARDED_FOR).iter().next_back()?;
        address(last.to_str().ok()?.rsplit(',').next()?.trim())
    };
    let named = if trusts_forwarded { forwarded() } else { None };
    let address = named.or(peer).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    Caller::Peer {
        network: network(address),
        key: None,
    }
}

/// Who sent a request, as [`identify`] found and the key check refined it.
pub(crate) fn of(extensions: &Extensions) -> Caller {
    let unknown = || identify(extensions, &HeaderMap::new(), false);
    extensions.get().copied().unwrap_or_else(unknown)
}

/// The network of an address, of which all addresses count as one party.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let bits = address.to_bits() >> NETWORK_BITS << NETWORK_BITS;
            Ipv6Addr::from_bits(bits).into()
        }
    }
}

/// An address as proxies write it, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let socket = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    bare.parse().ok().or_else(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(forwarded: &[&str], trusts: bool) -> IpAddr {
        let mut extensions = Extensions::new();
        extensions.insert(Peer([10, 0, 0, 1].into()));
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        match identify(&extensions, &headers, trusts) {
            Caller::Peer { network, key: None } => network,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_last_forwarded_address_counts_where_it_is_believed() {
        let proxy = IpAddr::from([10, 0, 0, 1]);
        let client = IpAddr::from([192, 0, 2, 7]);
        assert_eq!(caller(&["192.0.2.7"], false), proxy);
        for forwarded in [
            &["192.0.2.7"][..],
            &["198.51.100.1, 192.0.2.7"],
            &["198.51.100.1", "192.0.2.7:4711"],
            &["::ffff:192.0.2.7"],
        ] {
            assert_eq!(caller(forwarded, true), client, "{forwarded:?}");
        }
        for forwarded in [&[][..], &["unknown"], &["192.0.2.7, "], &["192.0.2.7 x"]] {
            assert_eq!(caller(forwarded, true), proxy, "{forwarded:?}");
        }
    }

    #[test]
    fn an_ipv6_network_is_one_party() {
        let network_of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network_of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network_of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network_of("192.0.2.7"), "192.0.2.7");
        let forwarded = caller(&["[2001:db8::1]:80"], true).to_string();
        assert_eq!(forwarded, "2001:db8::");
    }

    #[test]
    fn a_request_without_a_connection_is_somebody_all_the_same() {
        let unknown = Caller::Peer {
            network: Ipv4Addr::UNSPECIFIED.into(),
            key: None,
        };
        assert_eq!(of(&Extensions::new()), unknown);
    }
}
