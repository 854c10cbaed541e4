//! Outgoing HTTP clients that contact nobody whom the guard does not permit. Fetching pictures and
//! posting webhooks both go through here, so that these rules hold for both:
//!
//! * http and https only, and no user or password in the URL: the client would send them on as a
//!   header, also where a redirect supplied them.
//! * Ports are judged with the host. A name's addresses are judged where only the name is known, so
//!   each port that has rules of its own has a client of its own.
//! * The resolver filters what a name resolves to, and the connection uses that same answer. There
//!   is no second lookup that could say something else (DNS rebinding).
//! * No proxy from the environment, no cookies, no redirects, no decompression, no idle connections
//!   kept: a kept connection would have been checked for an earlier request.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Client, redirect};
use url::Url;

use super::guard::{Guard, SourceRuleError};
use super::rule::WEB_PORTS;

/// Longest URL that is contacted, in bytes; a redirect's target counts before and after it is resolved.
pub(super) const MAX_URL_BYTES: usize = 8 << 10;

/// What other servers are told. Several refuse clients that do not look like a browser.
const USER_AGENT: &str = concat!(
    "Mozilla/5.0 (compatible; florence2-server/",
    env!("CARGO_PKG_VERSION"),
    ")"
);

/// A port for which no rule is made: what holds there holds at every port without rules.
const OTHER_PORT: u16 = 0;

/// The port that stands for those of the web, which the same rules open.
const WEB_PORT: u16 = WEB_PORTS[0];

/// The clients cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum FetchSetupError {
    /// An entry of the list of sources cannot be read.
    #[error(transparent)]
    Source(#[from] SourceRuleError),
    /// The HTTP client refused its settings, for instance because there are no root certificates.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
}

/// Addresses of one name, or why there are none.
pub type LookedUp = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Turns names into addresses.
pub trait NameLookup: Send + Sync {
    /// All addresses of a name.
    fn lookup(&self, name: &str) -> LookedUp;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug)]
pub struct SystemLookup;

impl NameLookup for SystemLookup {
    fn lookup(&self, name: &str) -> LookedUp {
        let name = name.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Clients for what one list of rules permits. Cheap to clone.
#[derive(Clone)]
pub(super) struct Egress {
    /// By port; [`WEB_PORT`] stands for those of the web, [`OTHER_PORT`] for all that are not named.
    gates: Arc<BTreeMap<u16, Gate>>,
}

/// What is permitted at a port, and the client that keeps to it.
struct Gate {
    guard: Arc<Guard>,
    client: Client,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guards = self.gates.iter().map(|(port, gate)| (port, &gate.guard));
        f.debug_map().entries(guards).finish()
    }
}

impl Egress {
    /// Sets up the clients.
    pub(super) fn new(
        guard: &Guard,
        lookup: &Arc<dyn NameLookup>,
        connect_timeout: Duration,
    ) -> Result<Self, FetchSetupError> {
        let mut gates = BTreeMap::new();
        let ports = [OTHER_PORT, WEB_PORT].into_iter();
        for port in ports.chain(guard.further_ports()) {
            let guard = guard.at_port(port);
            if guard.is_closed() {
                continue;
            }
            let guard = Arc::new(guard);
            let client = client(&guard, lookup, connect_timeout)?;
            gates.insert(port, Gate { guard, client });
        }
        Ok(Self {
            gates: Arc::new(gates),
        })
    }

    /// The client with which this URL may be asked, or why it may not. An address to which its name
    /// leads is judged later, by the client's resolver.
    pub(super) fn permit(&self, url: &Url) -> Result<&Client, &'static str> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err("the scheme is not contacted");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the URL carries a user or a password");
        }
        if url.as_str().len() > MAX_URL_BYTES {
            return Err("the URL is too long");
        }
        let gate = url.port_or_known_default().and_then(|port| self.gate(port));
        url.host()
            .zip(gate)
            .filter(|(host, gate)| gate.guard.permits_host(host))
            .map(|(_, gate)| &gate.client)
            .ok_or("the host or its port is not allowed")
    }

    fn gate(&self, port: u16) -> Option<&Gate> {
        let port = if WEB_PORTS.contains(&port) {
            WEB_PORT
        } else {
            port
        };
        self.gates
            .get(&port)
            .or_else(|| self.gates.get(&OTHER_PORT))
    }
}

/// A client that contacts nobody whom the guard does not permit, keeps nothing and follows nothing.
fn client(
    guard: &Arc<Guard>,
    lookup: &Arc<dyn NameLookup>,
    connect_timeout: Duration,
) -> Result<Client, FetchSetupError> {
    let resolver = GuardedResolver {
        guard: Arc::clone(guard),
        lookup: Arc::clone(lookup),
    };
    let identity = (ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Client::builder()
        .dns_resolver(resolver)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .referer(false)
        .default_headers(HeaderMap::from_iter([identity]))
        .pool_max_idle_per_host(0)
        .connect_timeout(connect_timeout)
        .user_agent(USER_AGENT)
        .build()
        .map_err(|error| FetchSetupError::Client(chain(&error)))
}

/// The messages of an error and of all its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The name is known, but none of its addresses may be contacted.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to no allowed address")]
pub(super) struct NoAllowedAddress;

/// Resolves names and gives out only addresses that may be contacted.
struct GuardedResolver {
    guard: Arc<Guard>,
    lookup: Arc<dyn NameLookup>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.guard);
        let found = self.lookup.lookup(name.as_str());
        Box::pin(async move {
            let permitted: Vec<SocketAddr> = found
                .await?
                .into_iter()
                .filter(|address| guard.permits_address(name.as_str(), *address))
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            if permitted.is_empty() {
                return Err(NoAllowedAddress.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}
