//! The flags of `serve` that say how callers reach the server.
//!
//! Like [`super::serve_args`], of which this is a part: each flag has the same name as an environment
//! variable with one prefix and as a field in [`crate::config`]. Nothing is checked here.

use clap::Args;
use url::Url;

use super::value_parsers::boolean;
use crate::config::FaceSettings;

/// How callers reach the server.
#[derive(Args, Clone, Debug)]
pub(super) struct FaceArgs {
    /// Address that answers name, such as https://vision.example.com; without it, the one that the caller used
    #[arg(long, value_name = "URL", env = "FLORENCE2_PUBLIC_URL")]
    public_url: Option<String>,

    /// Open a second port that is the queue whatever the path says, for clients that can be given a host and no path; 0 lets the system choose
    #[arg(long, value_name = "PORT", env = "FLORENCE2_QUEUE_PORT")]
    queue_port: Option<u16>,

    /// Believe X-Forwarded-Host, X-Forwarded-Proto and the last address in X-Forwarded-For; only behind a proxy that sets all three
    #[arg(long, env = "FLORENCE2_TRUST_FORWARDED", value_parser = boolean)]
    trust_forwarded: bool,

    /// Let web pages of this origin call, such as https://app.example.com, or of every origin with `*`; may be given several times. Without any: every page when keys are set, because it must know one; without keys, pages of this machine and of the server itself
    #[arg(
        long = "cors-origin",
        value_name = "ORIGIN",
        env = "FLORENCE2_CORS_ORIGIN",
        value_delimiter = ','
    )]
    cors_origin: Vec<String>,
}

impl FaceArgs {
    /// The host of the public address, for the certificate. What is no address is refused later.
    pub(super) fn public_host(&self) -> Option<String> {
        let url = Url::parse(self.public_url.as_deref()?).ok()?;
        let host = url.host_str()?;
        Some(host.trim_matches(['[', ']']).to_owned())
    }

    /// What was typed, as the server takes it.
    pub(super) fn settings(&self) -> FaceSettings {
        let origins = self.cors_origin.iter().filter(|origin| !origin.is_empty());
        let public_url = self.public_url.as_deref();
        FaceSettings {
            public_url: public_url.map(|url| url.strip_suffix('/').unwrap_or(url).to_owned()),
            queue_port: self.queue_port,
            trust_forwarded: self.trust_forwarded,
            cors_origins: origins.cloned().collect(),
        }
    }
}
