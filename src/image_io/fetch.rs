//! Downloads a picture from a permitted source, and posts to a permitted receiver, both through the
//! clients of [`super::egress`].
//!
//! Decisions, each with a test in `tests/it/ssrf.rs`:
//! * Redirects are followed here, hop by hop, and every hop is checked like the first one. An
//!   address in a URL never reaches the resolver, so it is checked before the request.
//! * An answer is a picture when its status is 200 and nothing was done to its bytes: no part that
//!   nobody asked for, no encoding.
//! * One deadline covers names, connections, all hops and the last byte. One cap covers the bytes
//!   that arrive, whatever `Content-Length` promised.
//! * The program's own work is never refused for want of room: it waits, which is not the source's time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, HeaderName, LOCATION, TRANSFER_ENCODING};
use reqwest::{Client, Response};
use url::Url;

use super::PictureError;
use super::egress::{Egress, MAX_URL_BYTES, NoAllowedAddress, chain};
pub use super::egress::{FetchSetupError, LookedUp, NameLookup, SystemLookup};
use super::guard::Guard;
use super::sources::{Download, SourceSlots};
use crate::config::FetchSettings;
use crate::semaphore::Caller;

/// Time for a connection to a receiver to be established.
const POST_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer of a source.
enum Answer {
    /// The file, whole.
    File(Vec<u8>),
    /// A redirect to this URL.
    Elsewhere(Url),
}

/// Downloads pictures. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    egress: Egress,
    settings: FetchSettings,
    slots: SourceSlots,
}

impl Fetcher {
    /// Reads the list of sources and sets up the clients.
    pub(crate) fn new(
        settings: &FetchSettings,
        lookup: Arc<dyn NameLookup>,
    ) -> Result<Self, FetchSetupError> {
        let guard = Guard::parse("--allow-source", &settings.allowed_sources)?;
        Ok(Self {
            egress: Egress::new(&guard, &lookup, settings.connect_timeout)?,
            settings: settings.clone(),
            slots: SourceSlots::new(&settings.sources, settings.max_picture_bytes),
        })
    }

    /// Downloads a file for a caller. Cancel-safe: dropping the future closes the connection.
    pub(crate) async fn fetch(&self, url: Url, caller: Caller) -> Result<Bytes, PictureError> {
        self.permit(&url)?;
        let download = self.slots.begin(caller, &url).await?;
        match self.download(url.clone(), download).await {
            // It found no memory for what it had read, and has let go of that.
            Err(PictureError::Busy(_)) if caller == Caller::Own => {
                let download = self.slots.begin_with_memory(caller, &url).await?;
                self.download(url, download).await
            }
            outcome => outcome,
        }
    }

    async fn download(&self, mut url: Url, mut download: Download) -> Result<Bytes, PictureError> {
        let mut time_left = self.settings.fetch_timeout;
        // The first request and then one for each redirect.
        for _ in 0..=self.settings.max_redirects {
            let begun = Instant::now();
            let asking = self.ask(&url, &mut download);
            let Ok(answer) = tokio::time::timeout(time_left, asking).await else {
                return Err(PictureError::Download("the deadline passed".into()));
            };
            match answer? {
                Answer::File(file) => return Ok(download.finish(file)),
                Answer::Elsewhere(next) => url = next,
            }
            time_left = time_left.saturating_sub(begun.elapsed());
            // The wait for a slot is not the source's time.
            download.redirected(&url).await?;
        }
        Err(PictureError::Download("too many redirects".into()))
    }

    /// One request and its answer.
    async fn ask(&self, url: &Url, download: &mut Download) -> Result<Answer, PictureError> {
        let client = self.permit(url)?;
        let response = client.get(url.clone()).send().await.map_err(failed)?;
        match response.status().as_u16() {
            200 => self.read_body(response, download).await.map(Answer::File),
            301 | 302 | 303 | 307 | 308 => next_hop(url, &response).map(Answer::Elsewhere),
            status => Err(PictureError::Download(format!("answered {status}"))),
        }
    }

    /// The client with which this URL may be asked.
    fn permit(&self, url: &Url) -> Result<&Client, PictureError> {
        let refused = |why: &str| PictureError::Download(why.to_owned());
        self.egress.permit(url).map_err(refused)
    }

    async fn read_body(
        &self,
        mut response: Response,
        download: &mut Download,
    ) -> Result<Vec<u8>, PictureError> {
        let max_bytes = self.settings.max_picture_bytes;
        let too_large = PictureError::FileTooLarge { max_bytes };
        if !is_plain(&response, &CONTENT_ENCODING, "identity")
            || !is_plain(&response, &TRANSFER_ENCODING, "chunked")
        {
            let why = "the answer is encoded, which was not asked for";
            return Err(PictureError::Download(why.into()));
        }
        let announced = response.content_length().unwrap_or(0);
        let Some(announced) = usize::try_from(announced)
            .ok()
            .filter(|announced| *announced <= max_bytes)
        else {
            return Err(too_large);
        };
        let mut body = Vec::with_capacity(announced);
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
#[derive(Clone, Debug)]
pub struct Poster {
    egress: Egress,
}

impl Poster {
    /// Sets up the client. `allowed` is the operator's list behind `--allow-webhook`.
    ///
    /// # Errors
    /// When the list cannot be read or the HTTP client cannot be set up.
    pub fn new(allowed: &[String], lookup: Arc<dyn NameLookup>) -> Result<Self, FetchSetupError> {
        let guard = Guard::parse("--allow-webhook", allowed)?.and_public();
        let egress = Egress::new(&guard, &lookup, POST_CONNECT_TIMEOUT)?;
        Ok(Self { egress })
    }

    /// Sends a message and gives the status number of the answer, whose body is not read. A redirect
    /// is an answer like any other. Cancel-safe: dropping the future closes the connection.
    ///
    /// # Errors
    /// See [`PostError`].
    pub async fn post(&self, post: Post<'_>) -> Result<u16, PostError> {
        let refused = |why: &str| PostError::Refused(why.to_owned());
        if post.url.len() > MAX_URL_BYTES {
            return Err(refused("the URL is too long"));
        }
        let url = Url::parse(post.url).map_err(|_| refused("not a URL"))?;
        let client = self.egress.permit(&url).map_err(refused)?;
        let mut request = client.post(url).timeout(post.timeout).body(post.body);
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

/// The URL that a redirect names, which must be one and no longer than a URL may be.
fn next_hop(from: &Url, response: &Response) -> Result<Url, PictureError> {
    let mut named = response.headers().get_all(LOCATION).iter();
    let location = named.next().filter(|_| named.next().is_none());
    location
        .filter(|location| location.len() <= MAX_URL_BYTES)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| from.join(location).ok())
        .ok_or_else(|| PictureError::Download("a redirect without a usable target".into()))
}

/// Whether a header that lists encodings is absent or says this one thing.
fn is_plain(response: &Response, header: &HeaderName, plain: &str) -> bool {
    let values = response.headers().get_all(header);
    values.iter().all(|value| {
        let value = value.as_bytes().trim_ascii();
        value.eq_ignore_ascii_case(plain.as_bytes())
    })
}

/// The URL is left out: it may carry a signature.
fn failed(error: reqwest::Error) -> PictureError {
    PictureError::Download(chain(&error.without_url()))
}
