//! Downloads a picture from a permitted source, and posts to a permitted receiver. The only file that
//! opens outgoing connections, so that the rules below hold for every one.
//!
//! Decisions, each with a test in `tests/it/ssrf.rs`:
//! * The resolver filters what a name resolves to, and the connection uses that same answer. There
//!   is no second lookup that could say something else (DNS rebinding).
//! * Redirects are followed here, hop by hop, and every hop is checked like the first one. An
//!   address in a URL never reaches the resolver, so it is checked before the request.
//! * One deadline covers names, connections, all hops and the last byte. One cap covers the bytes
//!   that arrive, whatever `Content-Length` promised.
//! * No proxy from the environment, no cookies, no decompression, no idle connections kept: a kept
//!   connection would have been checked for an earlier request.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::LOCATION;
use reqwest::{Client, Response, redirect};
use url::Url;

use super::PictureError;
use super::guard::{Guard, SourceRuleError};
use super::sources::{Download, SourceSlots};
use crate::config::FetchSettings;
use crate::semaphore::Caller;

/// What picture hosts are told. Several refuse clients that do not look like a browser.
const USER_AGENT: &str = concat!(
    "Mozilla/5.0 (compatible; florence2-server/",
    env!("CARGO_PKG_VERSION"),
    ")"
);

/// Time for a connection to a receiver to be established.
const POST_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The fetcher cannot be set up.
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

/// Downloads pictures. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fetcher {
    guard: Arc<Guard>,
    /// None when no source is allowed at all.
    client: Option<Client>,
    settings: FetchSettings,
    slots: SourceSlots,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

impl Fetcher {
    /// Reads the list of sources and sets up the client.
    pub(crate) fn new(
        settings: &FetchSettings,
        lookup: Arc<dyn NameLookup>,
    ) -> Result<Self, FetchSetupError> {
        let guard = Arc::new(Guard::parse("--allow-source", &settings.allowed_sources)?);
        let client = if guard.is_closed() {
            None
        } else {
            Some(client(&guard, lookup, settings.connect_timeout)?)
        };
        Ok(Self {
            guard,
            client,
            settings: settings.clone(),
            slots: SourceSlots::new(&settings.sources, settings.max_picture_bytes),
        })
    }

    /// Downloads a file for a caller. Cancel-safe: dropping the future closes the connection.
    pub(crate) async fn fetch(&self, url: Url, caller: Caller) -> Result<Bytes, PictureError> {
        self.permit(&url)?;
        // The wait for a slot is not the source's time.
        let mut download = self.slots.begin(caller, &url).await?;
        let deadline = self.settings.fetch_timeout;
        let fetching = self.fetch_without_deadline(url, &mut download);
        match tokio::time::timeout(deadline, fetching).await {
            Ok(file) => Ok(download.finish(file?)),
            Err(_) => Err(PictureError::Download("the deadline passed".into())),
        }
    }

    async fn fetch_without_deadline(
        &self,
        mut url: Url,
        download: &mut Download,
    ) -> Result<Vec<u8>, PictureError> {
        // The first request and then one for each redirect.
        for _ in 0..=self.settings.max_redirects {
            let client = self.permit(&url)?;
            let response = client.get(url.clone()).send().await.map_err(failed)?;
            let status = response.status();
            if status.is_success() {
                return self.read_body(response, download).await;
            }
            if !status.is_redirection() {
                return Err(PictureError::Download(format!("answered {status}")));
            }
            url = next_hop(&url, &response)?;
            drop(response);
            download.redirected(&url).await?;
        }
        Err(PictureError::Download("too many redirects".into()))
    }

    /// The client, if this URL's scheme and host may be asked.
    fn permit(&self, url: &Url) -> Result<&Client, PictureError> {
        let refused = || PictureError::Download("the host is not an allowed source".into());
        if !permits(&self.guard, url) {
            return Err(refused());
        }
        self.client.as_ref().ok_or_else(refused)
    }

    async fn read_body(
        &self,
        mut response: Response,
        download: &mut Download,
    ) -> Result<Vec<u8>, PictureError> {
        let max_bytes = self.settings.max_picture_bytes;
        let too_large = PictureError::FileTooLarge { max_bytes };
        let announced = response.content_length().unwrap_or(0);
        if announced > max_bytes as u64 {
            return Err(too_large);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > max_bytes {
                return Err(too_large);
            }
            download.reserve(body.len() + chunk.len())?;
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// A message to a receiver.
#[derive(Clone, Debug)]
pub struct Post<'a> {
    /// Where to; may be anything, because callers say it.
    pub url: &'a str,
    /// Names and values of headers.
    pub headers: Vec<(&'static str, String)>,
    /// The message.
    pub body: Vec<u8>,
    /// Time for everything, up to the head of the answer.
    pub timeout: Duration,
}

/// Why a message did not arrive. The texts are for the log.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The receiver may not be contacted, now or later.
    #[error("refused: {0}")]
    Refused(String),
    /// It could not be reached, or did not answer.
    #[error("failed: {0}")]
    Failed(String),
}

/// Posts to public receivers and to those that the operator allows. Cheap to clone.
#[derive(Clone)]
pub struct Poster {
    guard: Arc<Guard>,
    client: Client,
}

impl fmt::Debug for Poster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poster")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

impl Poster {
    /// Sets up the client. `allowed` is the operator's list behind `--allow-webhook`.
    ///
    /// # Errors
    /// When the list cannot be read or the HTTP client cannot be set up.
    pub fn new(allowed: &[String], lookup: Arc<dyn NameLookup>) -> Result<Self, FetchSetupError> {
        let guard = Arc::new(Guard::parse("--allow-webhook", allowed)?.and_public());
        let client = client(&guard, lookup, POST_CONNECT_TIMEOUT)?;
        Ok(Self { guard, client })
    }

    /// Sends a message and gives the status number of the answer, whose body is not read. A redirect
    /// is an answer like any other. Cancel-safe: dropping the future closes the connection.
    ///
    /// # Errors
    /// See [`PostError`].
    pub async fn post(&self, post: Post<'_>) -> Result<u16, PostError> {
        let refused = |why: &str| PostError::Refused(why.to_owned());
        let url = Url::parse(post.url).map_err(|_| refused("not a URL"))?;
        if !permits(&self.guard, &url) {
            return Err(refused("the host is not an allowed receiver"));
        }
        let mut request = self.client.post(url).timeout(post.timeout).body(post.body);
        for (name, value) in post.headers {
            request = request.header(name, value);
        }
        match request.send().await {
            Ok(response) => Ok(response.status().as_u16()),
            Err(error) => Err(not_posted(error.without_url())),
        }
    }
}

fn not_posted(error: reqwest::Error) -> PostError {
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        if inner.is::<NoAllowedAddress>() {
            return PostError::Refused(inner.to_string());
        }
        cause = inner.source();
    }
    PostError::Failed(chain(&error))
}

/// A client that contacts nobody whom the guard does not permit, keeps nothing and follows nothing.
fn client(
    guard: &Arc<Guard>,
    lookup: Arc<dyn NameLookup>,
    connect_timeout: Duration,
) -> Result<Client, FetchSetupError> {
    let resolver = GuardedResolver {
        guard: Arc::clone(guard),
        lookup,
    };
    Client::builder()
        .dns_resolver(resolver)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .referer(false)
        .pool_max_idle_per_host(0)
        .connect_timeout(connect_timeout)
        .user_agent(USER_AGENT)
        .build()
        .map_err(|error| FetchSetupError::Client(chain(&error)))
}

/// Whether a URL's scheme and host may be asked. An address that its name leads to is judged later,
/// by the resolver.
fn permits(guard: &Guard, url: &Url) -> bool {
    let is_web = matches!(url.scheme(), "http" | "https");
    is_web && url.host().is_some_and(|host| guard.permits_host(&host))
}

fn next_hop(from: &Url, response: &Response) -> Result<Url, PictureError> {
    response
        .headers()
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| from.join(location).ok())
        .ok_or_else(|| PictureError::Download("a redirect without a usable target".into()))
}

/// The URL is left out: it may carry a signature.
fn failed(error: reqwest::Error) -> PictureError {
    PictureError::Download(chain(&error.without_url()))
}

/// The messages of an error and of all its causes.
fn chain(error: &dyn std::error::Error) -> String {
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
struct NoAllowedAddress;

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
