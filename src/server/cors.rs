//! Which web pages may call, and what browsers are told about it.
//!
//! With keys any page may call, because it must know one; no cookies are involved, so a permission
//! for all gives nobody anything. Without keys any page in any browser on this machine could drive
//! the server, so only pages of this machine and of the server itself may, and what a foreign page
//! sends is refused here, before anything is done: a browser hides answers from a foreign page, but
//! it does send the request. Hosted files have unguessable names and may be read by every page.
//!
//! A page is of the server itself when its origin is the configured address, or equals an IP address
//! that the caller used. An equal *name* proves nothing: its owner can let it point at this machine.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use url::{Host, Url};

use super::error::ApiError;
use super::face::{Face, Reached};
use super::state::Shared;
use crate::config::FaceSettings;
use crate::pipeline::MAX_URL_BYTES;

/// What pages may send. Everything that a route answers, and nothing more.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS");

/// Headers that a page may read beside those that it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-fal-request-id, x-fal-request-timeout-type, x-fal-billable-units, x-fal-error-type, x-fal-needs-retry, x-fal-retryable, retry-after, etag",
);

/// Seconds for which a browser may remember a permission; Chromium's own cap.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("7200");

const ANY: HeaderValue = HeaderValue::from_static("*");

/// The pages that may call.
#[derive(Debug)]
pub(crate) struct Pages {
    is_open: bool,
    listed: Vec<String>,
    public_url: Option<String>,
}

impl Pages {
    pub(crate) fn new(settings: &FaceSettings, has_keys: bool) -> Self {
        let listed = &settings.cors_origins;
        Self {
            is_open: listed.iter().any(|origin| origin == "*") || (listed.is_empty() && has_keys),
            listed: listed.clone(),
            public_url: settings.public_url.clone(),
        }
    }

    /// Whether a page of this origin may call at the address that it used.
    fn may_call(&self, page: &str, used: &str) -> bool {
        let is_listed = |origin: &String| origin.eq_ignore_ascii_case(page);
        self.is_open
            || self.listed.iter().any(is_listed)
            || self.public_url.as_ref().is_some_and(is_listed)
            || is_near(page, used)
    }
}

/// Whether a page is of this machine, or of the IP address at which it calls.
fn is_near(page: &str, used: &str) -> bool {
    // What is longer than a URL may be is none, and takes long to parse.
    let parsed = (page.len() <= MAX_URL_BYTES).then(|| Url::parse(page));
    let Some(Ok(url)) = parsed else {
        return false;
    };
    let is_same = page.eq_ignore_ascii_case(used);
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback() || is_same,
        Some(Host::Ipv6(address)) => address.is_loopback() || is_same,
        None => false,
    }
}

/// The layer around all routes.
pub(crate) async fn guard(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(page) = request.headers().get(ORIGIN).cloned() else {
        return next.run(request).await;
    };
    let asks = request.headers().get(ACCESS_CONTROL_REQUEST_METHOD);
    let preflight = asks.filter(|_| request.method() == Method::OPTIONS);
    let method = match preflight {
        Some(asked) => asked.as_bytes(),
        None => request.method().as_str().as_bytes(),
    };
    let is_reading = matches!(method, b"GET" | b"HEAD");
    match permission(&shared.pages, &page, &request, is_reading) {
        Some(permitted) if preflight.is_some() => permit(request.headers(), permitted),
        Some(permitted) => {
            let mut response = next.run(request).await;
            let headers = response.headers_mut();
            mark(headers, permitted);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            response
        }
        // Reading changes nothing here, and the browser keeps the answer to itself.
        None if is_reading && preflight.is_none() => next.run(request).await,
        None => ApiError::ForeignPage.into_response(),
    }
}

/// What is to stand in the permission, if there is one.
fn permission(
    pages: &Pages,
    page: &HeaderValue,
    request: &Request,
    is_reading: bool,
) -> Option<HeaderValue> {
    let reached = request.extensions().get::<Reached>()?;
    if pages.is_open || (is_reading && reached.face == Face::Files) {
        return Some(ANY);
    }
    let is_permitted = pages.may_call(page.to_str().ok()?, &reached.origin);
    is_permitted.then(|| page.clone())
}

/// The answer to a browser that asks first. Any header may be sent, as on fal.
fn permit(asked: &HeaderMap, permitted: HeaderValue) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    mark(headers, permitted);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
    if let Some(wanted) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    response
}

fn mark(headers: &mut HeaderMap, permitted: HeaderValue) {
    if permitted != ANY {
        // A cache must not hand one page's permission to another one.
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, permitted);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: &str = "http://192.168.1.5:8000";

    fn pages(listed: &[&str], has_keys: bool) -> Pages {
        let settings = FaceSettings {
            cors_origins: listed.iter().map(ToString::to_string).collect(),
            public_url: Some("https://vision.test".into()),
            ..FaceSettings::default()
        };
        Pages::new(&settings, has_keys)
    }

    #[test]
    fn without_keys_pages_of_this_machine_and_of_the_server_may_call() {
        let pages = pages(&[], false);
        for page in [
            "http://localhost",
            "http://localhost:3000",
            "https://localhost:8443",
            "http://app.localhost:3000",
            "http://127.0.0.1:8000",
            "http://127.1.2.3",
            "http://[::1]:5173",
            "https://vision.test",
            LAN,
        ] {
            assert!(pages.may_call(page, LAN), "{page}");
        }
        for page in [
            "",
            "null",
            "https://evil.test",
            "http://localhost.evil.test",
            "http://xlocalhost",
            "http://127.0.0.1.evil.test",
            "https://vision.test:8443",
            "http://vision.test",
            "http://192.168.1.5",
            "https://192.168.1.5:8000",
            "http://192.168.1.6:8000",
            "http://0.0.0.0:8000",
            "http://[::2]",
            "file://",
        ] {
            assert!(!pages.may_call(page, LAN), "{page}");
        }
    }

    #[test]
    fn a_name_that_was_made_to_point_here_is_not_the_server_itself() {
        let pages = pages(&[], false);
        assert!(!pages.may_call("http://rebound.test:8000", "http://rebound.test:8000"));
    }

    #[test]
    fn keys_or_a_star_let_every_page_call_and_a_list_only_those_on_it() {
        for open in [pages(&[], true), pages(&["*"], false), pages(&["*"], true)] {
            assert!(open.may_call("https://any.test", LAN));
        }
        for listing in [
            pages(&["https://a.test", "null"], false),
            pages(&["https://a.test", "null"], true),
        ] {
            assert!(listing.may_call("https://a.test", LAN));
            assert!(listing.may_call("null", LAN));
            assert!(listing.may_call("http://localhost:3000", LAN));
            assert!(!listing.may_call("https://any.test", LAN));
            assert!(!listing.may_call("https://a.test.evil.test", LAN));
        }
    }
}
