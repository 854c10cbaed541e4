//! Addresses of pictures and receivers, and the operator's rules about them.
//!
//! The input's first line is a list of rules, separated by blanks; the second is a name and an
//! address to which it resolves; the rest is a picture's address. Nothing is contacted: the loader
//! may ask nobody. Promised: no panic; `public` and names never lead to a machine of the operator's
//! own or to a cloud's metadata; and what is refused is refused in words of the closed list.

use std::net::IpAddr;
use std::sync::OnceLock;

use florence2_server::config::{DecodeSettings, FetchSettings};
use florence2_server::image_io::guard::Guard;
use florence2_server::image_io::{PictureError, PictureLoader};
use florence2_server::semaphore::Caller;
use tokio::runtime::{Builder, Runtime};
use url::{Host, Url};

/// Metadata services, in the forms in which a name may lead to them.
const METADATA: [&str; 8] = [
    "169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "64:ff9b::a83f:8110",
    "2002:a9fe:a9fe::1",
];

pub(super) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (rules, resolved, url) = (line(), line(), line());
    let rules: Vec<&str> = rules.split(' ').filter(|rule| !rule.is_empty()).collect();
    if let Ok(guard) = Guard::parse("--allow-source", &rules) {
        judge(&guard, resolved);
        let has_one_address = rules.iter().any(|rule| is_one_address(rule));
        for address in METADATA.iter().filter_map(|text| text.parse().ok()) {
            let permitted = guard.permits_address("metadata.test", address);
            assert!(!permitted || has_one_address, "{rules:?} lead to {address}");
        }
        if let Ok(url) = Url::parse(url)
            && let Some(host) = url.host()
        {
            let at_port = guard.at_port(url.port_or_known_default().unwrap_or(0));
            let permitted = at_port.permits_host(&host);
            assert!(!permitted || guard.permits_host(&host));
        }
    }
    load(url);
}

/// Whether a rule may be a single address. Wider than the guard's own notion.
fn is_one_address(rule: &str) -> bool {
    let rule = rule.trim();
    let bare = rule.split('/').next().unwrap_or_default();
    let bare = bare.trim_matches(['[', ']']);
    bare.parse::<IpAddr>().is_ok() && !rule.ends_with("/0")
}

fn judge(guard: &Guard, resolved: &str) {
    let mut words = resolved.split(' ');
    let name = words.next().unwrap_or_default();
    let address = words.next().unwrap_or_default().parse::<IpAddr>();
    let Ok(address) = address else { return };
    let open = Guard::default().and_public();
    if open.permits_address(name, address) {
        assert!(is_public(address), "{address} is not public");
        assert!(open.at_port(443).permits_address(name, address));
        assert!(!open.at_port(25).permits_address(name, address));
    }
    let permitted = guard.permits_address(name, address);
    for port in [0, 25, 80, 443, 8080] {
        let at_port = guard.at_port(port).permits_address(name, address);
        assert!(!at_port || permitted, "{name} {address} at {port}");
    }
    let host = match address {
        IpAddr::V4(address) => Host::Ipv4(address),
        IpAddr::V6(address) => Host::Ipv6(address),
    };
    assert!(!guard.permits_host(&host) || permitted);
}

/// What the standard library can say, which is less than the guard does.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let is_special = v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_documentation()
                || v4.is_unspecified();
            !is_special
        }
        IpAddr::V6(v6) => {
            let is_special = v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local();
            !is_special
        }
    }
}

/// Reads a picture's address with a loader that may contact nobody.
fn load(url: &str) {
    static WORLD: OnceLock<(Runtime, PictureLoader)> = OnceLock::new();
    let (runtime, loader) = WORLD.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let fetch = FetchSettings {
            max_picture_bytes: 4096,
            ..FetchSettings::default()
        };
        let loader = PictureLoader::new(&fetch, DecodeSettings::default()).unwrap();
        (runtime, loader)
    });
    match runtime.block_on(loader.read(url.to_owned().into(), Caller::Own)) {
        Ok(bytes) => assert!(bytes.len() <= 4096),
        Err(
            PictureError::Download(_) | PictureError::Load(_) | PictureError::FileTooLarge { .. },
        ) => {}
        Err(other) => panic!("{other:?}"),
    }
}
