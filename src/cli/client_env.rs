//! `client-env`: what a stock fal client needs to talk to a running server.
//!
//! The server is asked first, so that a wrong address is said here and not by a client that retries
//! for a minute. [`probe`] finds it and learns what a client must know: its address, the authority
//! that it must trust, and whether a key is asked for. [`bundle`] puts that authority beside those of
//! the [`system`], and [`recipes`] turns it all into lines.

mod bundle;
mod probe;
mod recipes;
mod system;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use url::Url;

use super::data_dir::{authority_dir, default_data_dir};
use super::{CommandError, stdout};
use crate::config::{HttpSettings, TlsMode};
use probe::ProbeError;
use recipes::{NoRecipe, Recipes};

/// Print what a stock Python or JavaScript fal client needs in order to talk to a running server
///
/// Where the server has a certificate that the system does not trust, the command also writes a file: tls/ca-bundle.pem in the data directory, with the system's authorities and the server's, for SSL_CERT_FILE.
#[derive(Args, Clone, Debug)]
pub(super) struct ClientEnvArgs {
    /// Address of the server as its clients reach it, such as https://box.lan:8443; replaces --host, --port and --tls
    #[arg(long, value_name = "URL", value_parser = address)]
    url: Option<Url>,

    /// Address or name of the server's machine
    #[arg(
        long,
        value_name = "HOST",
        env = "FLORENCE2_HOST",
        default_value = "127.0.0.1"
    )]
    host: String,

    /// Port of the server
    #[arg(long, value_name = "PORT", env = "FLORENCE2_PORT", default_value_t = HttpSettings::default().port)]
    port: u16,

    /// What the server's --tls says; without it, both schemes are tried
    #[arg(long, value_name = "off|local|CERT,KEY", env = "FLORENCE2_TLS")]
    tls: Option<TlsMode>,

    /// The server's data directory, where its local authority lies; the file tls/ca-bundle.pem is written into it, for SSL_CERT_FILE [default: florence2-server in $XDG_DATA_HOME, else in ~/.local/share]
    #[arg(long, value_name = "DIR", env = "FLORENCE2_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// Print one recipe alone
    #[arg(long, value_name = "CLIENT", value_enum)]
    client: Option<Client>,

    /// Print only lines for a shell's `eval`
    #[arg(long)]
    shell: bool,
}

/// The ways of pointing a client at a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Client {
    /// `fal-client` from PyPI.
    Python,
    /// `@fal-ai/client` from npm.
    Js,
    /// Any client, unchanged: fal's own names lead to this server.
    Hosts,
}

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
enum ClientEnvError {
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Recipe(#[from] NoRecipe),
}

/// Finds the server and prints.
pub(super) fn run(args: &ClientEnvArgs) -> Result<(), CommandError> {
    let text = text(args).map_err(|error| CommandError::Failed(error.to_string()))?;
    stdout::write("the lines", &text)
}

fn text(args: &ClientEnvArgs) -> Result<String, ClientEnvError> {
    let mut server = probe::find(&args.addresses(), &args.authorities())?;
    if args.client != Some(Client::Js) {
        server.bundle = server
            .authority
            .as_deref()
            .and_then(|authority| bundle::with_system(authority, &args.bundle_folders()));
    }
    let recipes = Recipes(&server);
    Ok(if args.shell {
        recipes.shell(args.client)?
    } else {
        recipes.text(args.client)?
    })
}

impl ClientEnvArgs {
    /// Where the server may be, in the order of trying.
    fn addresses(&self) -> Vec<Url> {
        if let Some(url) = &self.url {
            return vec![url.clone()];
        }
        let schemes: &[&str] = match &self.tls {
            Some(mode) => &[mode.scheme()],
            None => &["https", "http"],
        };
        let host = match self.host.as_str() {
            // What the server calls every address is none that a client could go to.
            "0.0.0.0" | "::" | "[::]" => "localhost".to_owned(),
            host if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
            host => host.to_owned(),
        };
        let port = self.port;
        let written = schemes
            .iter()
            .map(|scheme| format!("{scheme}://{host}:{port}/"));
        written.filter_map(|text| Url::parse(&text).ok()).collect()
    }

    /// Certificates by which the server may have to be trusted, in the order of trying.
    fn authorities(&self) -> Vec<PathBuf> {
        match &self.tls {
            Some(TlsMode::Off) => Vec::new(),
            // A certificate that signed itself is its own authority.
            Some(TlsMode::Files { certificate, .. }) => vec![certificate.clone()],
            Some(TlsMode::Local) | None => {
                let data_dir = self.data_dir.clone().or_else(|| default_data_dir().ok());
                let file = |folder: PathBuf| authority_dir(&folder).join("ca.pem");
                data_dir.map(file).into_iter().collect()
            }
        }
    }

    /// Folders in which the bundle may be kept, in the order of trying: the server's may be another
    /// user's.
    fn bundle_folders(&self) -> Vec<PathBuf> {
        let folders = self
            .data_dir
            .clone()
            .into_iter()
            .chain(default_data_dir().ok());
        folders.map(|folder| authority_dir(&folder)).collect()
    }
}

fn address(text: &str) -> Result<Url, String> {
    let sentence = "expected an address such as http://127.0.0.1:8000 or https://box.lan:8443";
    let url = Url::parse(text).map_err(|_| sentence.to_owned())?;
    let is_plain = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    is_plain.then_some(url).ok_or_else(|| sentence.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ClientEnvArgs,
    }

    fn addresses(words: &[&str]) -> Vec<String> {
        let line = Line::try_parse_from([&["client-env"], words].concat()).unwrap();
        let found = line.args.addresses();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_address_follows_from_the_flags_of_serve() {
        let both = ["https://127.0.0.1:8000/", "http://127.0.0.1:8000/"];
        assert_eq!(addresses(&[]), both);
        assert_eq!(
            addresses(&["--tls=off", "--host=::1", "--port=1"]),
            ["http://[::1]:1/"]
        );
        assert_eq!(
            addresses(&["--tls=local", "--host=0.0.0.0"]),
            ["https://localhost:8000/"]
        );
        assert_eq!(
            addresses(&["--url=https://box.lan", "--tls=off"]),
            ["https://box.lan/"]
        );
        for text in ["box.lan:8443", "ftp://box", "http://u:p@box", "http://b?q"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
