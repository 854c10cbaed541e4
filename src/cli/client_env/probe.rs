//! Asks a running server what a client has to know about it.
//!
//! Only the address that the person named is contacted, without a proxy and without following
//! anybody elsewhere.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, redirect};
use url::Url;

use super::system::{self, Named, Trouble};
use crate::fal::endpoint::{ALIAS, ENDPOINTS, OWNER};

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server that answers.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Where, without a final slash.
    pub(super) base: Url,
    /// The file with the authority that clients must be told to trust; none for plain HTTP, and for
    /// a certificate that the system trusts.
    pub(super) authority: Option<PathBuf>,
    /// The file with that authority and those of the system, where one could be written.
    pub(super) bundle: Option<PathBuf>,
    /// Whether calls need a key.
    pub(super) needs_key: bool,
}

/// Why no server was found.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// Nobody there.
    #[error(
        "no florence2-server answers at {address}: {cause}; start one with `florence2-server serve`, or name its address with --url"
    )]
    NoAnswer {
        /// What was asked.
        address: Url,
        /// What went wrong.
        cause: String,
    },
    /// Somebody else is there.
    #[error("{address} answers, but is no florence2-server; name the right address with --url")]
    Stranger {
        /// What was asked.
        address: Url,
    },
    /// A certificate that nobody vouches for.
    #[error(
        "the certificate of {address} is not trusted: {cause}; name the server's --data-dir, so that its local authority is found, and the host by which its certificate knows it with --url"
    )]
    Untrusted {
        /// What was asked.
        address: Url,
        /// What is wrong with it.
        cause: String,
    },
    /// There is no way to ask.
    #[error("cannot ask the server: {0}")]
    Unable(String),
}

/// Asks the addresses in turn; the first that answers is the server.
///
/// # Errors
/// What the last address said, or the first one whose answer was a sign of life.
pub(super) fn find(addresses: &[Url], authorities: &[PathBuf]) -> Result<Found, ProbeError> {
    // Two providers may be compiled in, and then rustls chooses neither by itself.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ProbeError::Unable(error.to_string()))?;
    runtime.block_on(async {
        let mut failure = ProbeError::Unable("the host is not a name or an address".into());
        for address in addresses {
            match ask(address, authorities).await {
                Err(error @ ProbeError::NoAnswer { .. }) => failure = error,
                decided => return decided,
            }
        }
        Err(failure)
    })
}

/// Asks one address, trusting each authority alone and at last those of the system.
async fn ask(address: &Url, authorities: &[PathBuf]) -> Result<Found, ProbeError> {
    let found = |authority: Option<&PathBuf>, needs_key| Found {
        base: address.clone(),
        authority: authority.cloned(),
        bundle: None,
        needs_key,
    };
    if address.scheme() != "https" {
        // Nobody has to be trusted, so the system's authorities do not matter.
        let needs_key = question(&trusting_nobody()?, address).await?;
        return Ok(found(None, needs_key));
    }
    let mut distrust = None;
    for file in authorities {
        let Some(client) = trusting(file) else {
            continue;
        };
        match question(&client, address).await {
            Ok(needs_key) => return Ok(found(Some(file), needs_key)),
            // The first distrust is that of the likeliest authority.
            Err(ProbeError::Untrusted { cause, .. }) => {
                distrust.get_or_insert(cause);
            }
            Err(error) => return Err(error),
        }
    }
    let (client, trouble) = match client(Client::builder()) {
        Ok(client) => (client, None),
        // Without any authority it is still seen whether somebody answers.
        Err(_) => (trusting_nobody()?, Some(system_trouble())),
    };
    match question(&client, address).await {
        Ok(needs_key) => Ok(found(None, needs_key)),
        Err(ProbeError::Untrusted { address, cause }) => {
            let mut cause = distrust.unwrap_or(cause);
            if let Some(trouble) = trouble {
                cause = format!("{cause}, and {trouble}");
            }
            Err(ProbeError::Untrusted { address, cause })
        }
        Err(error) => Err(error),
    }
}

fn client(builder: ClientBuilder) -> reqwest::Result<Client> {
    builder
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(PATIENCE)
        .build()
}

/// A client that trusts the certificates in a file, if there are any.
fn trusting(file: &Path) -> Option<Client> {
    let pem = fs::read(file).ok()?;
    let certificates = Certificate::from_pem_bundle(&pem).ok()?;
    client(Client::builder().tls_certs_only(certificates)).ok()
}

fn trusting_nobody() -> Result<Client, ProbeError> {
    client(Client::builder().tls_certs_only([]))
        .map_err(|error| ProbeError::Unable(deepest(&error).to_string()))
}

/// Why no authority of the system can be used.
fn system_trouble() -> Trouble {
    let system = system::read(&Named::from_environment(), system::platform);
    system.trouble.unwrap_or(Trouble::Nothing)
}

/// Whether the server there asks for a key.
async fn question(client: &Client, address: &Url) -> Result<bool, ProbeError> {
    let live = client.get(below(address, "health/live"));
    let answer = live.send().await.map_err(|error| failed(address, &error))?;
    let stranger = || ProbeError::Stranger {
        address: address.clone(),
    };
    let body = answer.text().await.map_err(|_| stranger())?;
    if !body.contains(r#""status":"live""#) {
        // Plain HTTP on a TLS port is told so by our own server; the other scheme is still tried.
        if body.contains("speaks TLS") {
            return Err(ProbeError::NoAnswer {
                address: address.clone(),
                cause: "it speaks TLS".into(),
            });
        }
        return Err(stranger());
    }
    // The key comes before everything else, so a call without body or key costs nothing.
    let [endpoint, ..] = &ENDPOINTS;
    let path = format!("{OWNER}/{ALIAS}/{}", endpoint.name);
    let call = client.post(below(address, &path));
    let answer = call.send().await.map_err(|error| failed(address, &error))?;
    Ok(answer.status().as_u16() == 401)
}

fn below(address: &Url, path: &str) -> String {
    format!("{}/{path}", address.as_str().trim_end_matches('/'))
}

fn failed(address: &Url, error: &reqwest::Error) -> ProbeError {
    let deepest = deepest(error);
    let (address, cause) = (address.clone(), deepest.to_string());
    match deepest.downcast_ref() {
        Some(rustls::Error::InvalidCertificate(_)) => ProbeError::Untrusted { address, cause },
        _ => ProbeError::NoAnswer { address, cause },
    }
}

fn deepest(error: &reqwest::Error) -> &(dyn Error + 'static) {
    let mut deepest: &(dyn Error + 'static) = error;
    while let Some(deeper) = below_error(deepest) {
        deepest = deeper;
    }
    deepest
}

/// The cause of an error. One that was wrapped by the system's kind of error is its content there,
/// and not its source.
fn below_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
