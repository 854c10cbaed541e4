//! What may be typed after `serve`. `--help` is the manual of every setting.
//!
//! Each flag has the same name in three spellings: here, as an environment variable with one prefix,
//! and as a field in [`crate::config`], which also holds every default. Nothing is checked here but
//! the form of a value; ranges belong to the settings.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clap::Args;

use super::data_dir::{authority_dir, default_data_dir};
use super::face_args::FaceArgs;
use super::files_args::FilesArgs;
use super::host_names::host_names;
use super::log_args::LogArgs;
use super::peer_args::PeerArgs;
use super::queue_args::QueueArgs;
use super::serve::ServeSettings;
use super::value_parsers::boolean;
use crate::config::{
    AuthSettings, DecodeSettings, EngineSettings, FetchSettings, HttpSettings, SettingError,
    TlsMode, TlsSettings,
};

/// What may be typed after `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Address to listen on
    #[arg(long, value_name = "HOST", env = "FLORENCE2_HOST", default_value = "127.0.0.1", value_parser = host)]
    host: IpAddr,

    /// Port to listen on; 0 lets the system choose
    #[arg(long, value_name = "PORT", env = "FLORENCE2_PORT", default_value_t = HttpSettings::default().port)]
    port: u16,

    /// Encrypt connections: `local` with a certificate authority of this machine's own, made on first use in the data folder (`client-env` prints what clients need to trust it), or CERT,KEY with two PEM files
    #[arg(
        long,
        value_name = "off|local|CERT,KEY",
        env = "FLORENCE2_TLS",
        default_value = "off"
    )]
    tls: TlsMode,

    /// Accept this key, the whole text after `Key `; may be given several times. Without any key everybody may call
    #[arg(long = "api-key", value_name = "KEY", allow_hyphen_values = true)]
    api_key: Vec<String>,

    /// The same, comma-separated; unlike the command line, the environment is not shown to other users
    #[arg(
        long = "api-keys",
        value_name = "KEYS",
        env = "FLORENCE2_API_KEYS",
        hide_env_values = true,
        allow_hyphen_values = true,
        value_delimiter = ','
    )]
    api_keys: Vec<String>,

    /// Listen on a public address without any key
    #[arg(long, env = "FLORENCE2_ALLOW_ANONYMOUS", value_parser = boolean)]
    allow_anonymous: bool,

    /// Fetch pictures from this network, address or host name, such as 10.0.0.0/8, pictures.example.com or *.example.com, or from every public address with `public`; may be given several times. Host names and `public` open the ports 80 and 443, and one more when it follows, such as pictures.example.com:8443; networks and addresses open all ports. A cloud's metadata service is opened by its own address alone. Without any, only data: URIs are accepted
    #[arg(
        long = "allow-source",
        value_name = "NET_OR_HOST",
        env = "FLORENCE2_ALLOW_SOURCE",
        value_delimiter = ','
    )]
    allow_source: Vec<String>,

    /// Answer `/metrics` to callers without a key, too
    #[arg(long, env = "FLORENCE2_OPEN_METRICS", value_parser = boolean)]
    open_metrics: bool,

    #[command(flatten)]
    log: LogArgs,

    #[command(flatten)]
    face: FaceArgs,

    #[command(flatten)]
    queue: QueueArgs,

    #[command(flatten)]
    files: FilesArgs,

    #[command(flatten)]
    limits: LimitArgs,

    #[command(flatten)]
    peers: PeerArgs,
}

/// Every limit, with its unit in its name.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Connections at once; more wait in the kernel
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_CONNECTIONS", default_value_t = HttpSettings::default().max_connections)]
    max_connections: usize,

    /// Seconds for a request's headers to arrive
    #[arg(long, value_name = "S", env = "FLORENCE2_HEADER_TIMEOUT_S", default_value_t = HttpSettings::default().header_timeout.as_secs())]
    header_timeout_s: u64,

    /// Bytes of a request's line and headers
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_MAX_HEADER_BYTES", default_value_t = HttpSettings::default().max_header_bytes)]
    max_header_bytes: usize,

    /// Header lines of a request
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_HEADER_LINES", default_value_t = HttpSettings::default().max_header_lines)]
    max_header_lines: usize,

    /// Bytes of a request body
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_MAX_BODY_BYTES", default_value_t = HttpSettings::default().max_body_bytes)]
    max_body_bytes: usize,

    /// Bytes of all request bodies, and of all answers above 64 KiB, in memory at once; more are answered with 429
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_MAX_BODY_MEMORY_BYTES", default_value_t = HttpSettings::default().max_body_memory_bytes)]
    max_body_memory_bytes: usize,

    /// Seconds that any request body may take to arrive
    #[arg(long, value_name = "S", env = "FLORENCE2_BODY_GRACE_S", default_value_t = HttpSettings::default().body_grace.as_secs())]
    body_grace_s: u64,

    /// Bytes a second at which a body must arrive on average after that
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_MIN_BODY_RATE_BYTES", default_value_t = HttpSettings::default().min_body_rate_bytes)]
    min_body_rate_bytes: usize,

    /// Model calls being worked on at once; more are answered with 429. Waiting for a body or for a picture's source does not count
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_CALLS", default_value_t = HttpSettings::default().max_calls)]
    max_calls: usize,

    /// Tasks that one call may name about its picture
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_TASKS", default_value_t = HttpSettings::default().max_tasks)]
    max_tasks: usize,

    /// Prepared calls that may wait for the model
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_WAITING", default_value_t = EngineSettings::default().max_waiting)]
    max_waiting: usize,

    /// Seconds for calls in flight to finish after SIGTERM or SIGINT
    #[arg(long, value_name = "S", env = "FLORENCE2_DRAIN_TIMEOUT_S", default_value_t = HttpSettings::default().drain_timeout.as_secs())]
    drain_timeout_s: u64,

    /// Bytes of a picture file
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_MAX_PICTURE_BYTES", default_value_t = FetchSettings::default().max_picture_bytes)]
    max_picture_bytes: usize,

    /// Pixels of a picture
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_PIXELS", default_value_t = DecodeSettings::default().max_pixels)]
    max_pixels: u64,

    /// Pixels along a side of a picture
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_SIDE", default_value_t = DecodeSettings::default().max_side)]
    max_side: u32,

    /// Pictures unpacked at once, each in up to 12 bytes a pixel and twice its file [default: half the cores, at least 2]
    #[arg(long, value_name = "N", env = "FLORENCE2_DECODE_SLOTS")]
    decode_slots: Option<usize>,

    /// Redirects followed when fetching a picture
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_REDIRECTS", default_value_t = FetchSettings::default().max_redirects)]
    max_redirects: usize,

    /// Seconds for fetching a picture, everything included
    #[arg(long, value_name = "S", env = "FLORENCE2_FETCH_TIMEOUT_S", default_value_t = FetchSettings::default().fetch_timeout.as_secs())]
    fetch_timeout_s: u64,

    /// Seconds for connecting to a picture's host
    #[arg(long, value_name = "S", env = "FLORENCE2_CONNECT_TIMEOUT_S", default_value_t = FetchSettings::default().connect_timeout.as_secs())]
    connect_timeout_s: u64,
}

fn host(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => text
            .parse()
            .map_err(|_| "expected an IP address such as 127.0.0.1, 0.0.0.0 or ::1".into()),
    }
}

impl ServeArgs {
    /// How the log is written.
    pub(super) fn log(&self) -> &LogArgs {
        &self.log
    }

    /// Checks the keys of the list, which may have come from the environment; those of the other flag are
    /// checked with all settings.
    ///
    /// # Errors
    /// When a key cannot be sent.
    pub(super) fn check_listed_keys(&self) -> Result<(), SettingError> {
        let listed = self.api_keys.iter().filter(|key| !key.is_empty());
        AuthSettings::check_keys("--api-keys", &listed.cloned().collect::<Vec<_>>())
    }

    /// What was typed, as the rooms take it.
    #[must_use]
    pub fn settings(&self) -> ServeSettings {
        let limits = &self.limits;
        // A list may have a comma too many; an empty flag is a mistake.
        let listed = self.api_keys.iter().filter(|key| !key.is_empty());
        let api_keys = self.api_key.iter().chain(listed).cloned().collect();
        let sources = self.allow_source.iter().filter(|source| !source.is_empty());
        ServeSettings {
            http: HttpSettings {
                host: self.host,
                port: self.port,
                max_connections: limits.max_connections,
                header_timeout: Duration::from_secs(limits.header_timeout_s),
                max_header_bytes: limits.max_header_bytes,
                max_header_lines: limits.max_header_lines,
                max_body_bytes: limits.max_body_bytes,
                max_body_memory_bytes: limits.max_body_memory_bytes,
                body_grace: Duration::from_secs(limits.body_grace_s),
                min_body_rate_bytes: limits.min_body_rate_bytes,
                max_calls: limits.max_calls,
                max_tasks: limits.max_tasks,
                drain_timeout: Duration::from_secs(limits.drain_timeout_s),
                stop_delay: self.peers.stop_delay(),
                peers: self.peers.peers(),
                tls: self.tls_settings(),
            },
            face: self.face.settings(),
            auth: AuthSettings {
                api_keys,
                allow_anonymous: self.allow_anonymous,
                open_metrics: self.open_metrics,
            },
            fetch: FetchSettings {
                allowed_sources: sources.cloned().collect(),
                max_picture_bytes: limits.max_picture_bytes,
                max_redirects: limits.max_redirects,
                fetch_timeout: Duration::from_secs(limits.fetch_timeout_s),
                connect_timeout: Duration::from_secs(limits.connect_timeout_s),
                sources: self.peers.sources(),
            },
            decode: DecodeSettings {
                max_pixels: limits.max_pixels,
                max_side: limits.max_side,
                decode_slots: limits
                    .decode_slots
                    .unwrap_or_else(|| DecodeSettings::default().decode_slots),
            },
            engine: EngineSettings {
                max_waiting: limits.max_waiting,
            },
            queue: self.queue.settings(),
            pipeline: self.files.pipeline(),
            files: self.files.settings(),
            log: self.log.settings(),
            data_dir: self.queue.data_dir(),
        }
    }

    /// Folder and names are looked up only where a local certificate needs them.
    fn tls_settings(&self) -> TlsSettings {
        let mut settings = TlsSettings {
            mode: self.tls.clone(),
            ..TlsSettings::default()
        };
        if settings.mode == TlsMode::Local {
            let data_dir = self.queue.data_dir().or_else(|| default_data_dir().ok());
            settings.authority_dir = data_dir.as_deref().map(authority_dir).unwrap_or_default();
            settings.names = host_names();
            if !self.host.is_unspecified() {
                settings.names.push(self.host.to_string());
            }
            settings.names.extend(self.face.public_host());
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn settings(words: &[&str]) -> ServeSettings {
        let line = Line::try_parse_from([&["serve"], words].concat()).unwrap();
        line.serve.settings()
    }

    #[test]
    fn without_flags_every_setting_has_its_default() {
        let settings = settings(&[]);
        let defaults = ServeSettings::default();
        assert_eq!(format!("{settings:?}"), format!("{defaults:?}"));
        settings.validate().unwrap();
    }

    #[test]
    fn how_callers_reach_the_server_is_taken_as_typed() {
        let settings = settings(&[
            "--public-url=https://vision.test/",
            "--queue-port=8001",
            "--trust-forwarded",
            "--cors-origin=https://a.test,,http://b.test:3000",
            "--cors-origin=null",
        ]);
        let face = settings.face;
        assert_eq!(face.public_url.as_deref(), Some("https://vision.test"));
        assert_eq!(face.queue_port, Some(8001));
        assert!(face.trust_forwarded);
        let origins = ["https://a.test", "http://b.test:3000", "null"];
        assert_eq!(face.cors_origins, origins);
    }

    #[test]
    fn keys_and_sources_add_up() {
        let settings = settings(&[
            "--api-key=a,b:c",
            "--api-key=d",
            "--api-keys=e,,f",
            "--allow-source=10.0.0.0/8",
            "--allow-source=*.example.com,localhost,",
            "--host=localhost",
            "--allow-webhook=10.1.0.0/16,,hooks.example.com",
            "--data-dir=/tmp/x",
        ]);
        let receivers = ["10.1.0.0/16", "hooks.example.com"];
        assert_eq!(settings.queue.allowed_webhooks, receivers);
        assert_eq!(settings.data_dir, Some("/tmp/x".into()));
        assert_eq!(settings.auth.api_keys, ["a,b:c", "d", "e", "f"]);
        let sources = ["10.0.0.0/8", "*.example.com", "localhost"];
        assert_eq!(settings.fetch.allowed_sources, sources);
        assert!(settings.http.host.is_loopback());
        assert!(settings.pipeline.draws_image);
    }

    #[test]
    fn files_have_a_place_and_drawn_pictures_can_be_left_out() {
        let settings = settings(&["--data-dir=/tmp/x", "--no-drawn-image", "--file-ttl-s=60"]);
        assert_eq!(settings.data_dir, Some("/tmp/x".into()));
        assert_eq!(settings.files.file_ttl, Duration::from_secs(60));
        assert!(!settings.pipeline.draws_image);
    }

    #[test]
    fn shares_and_the_stop_delay_are_taken_as_typed() {
        let words = [
            "--max-share-percent=25",
            "--max-fetches=9",
            "--stop-delay=7",
            "--answer-grace-s=5",
        ];
        let settings = settings(&words);
        assert_eq!(settings.http.stop_delay, Duration::from_secs(7));
        let peers = settings.http.peers;
        assert_eq!(peers.answer_grace, Duration::from_secs(5));
        let sources = settings.fetch.sources;
        assert_eq!(
            (peers.max_share_percent, sources.max_share_percent),
            (25, 25)
        );
        assert_eq!(sources.max_fetches, 9);
    }

    #[test]
    fn a_local_certificate_lies_in_the_data_folder_and_names_the_bound_address() {
        let words = [
            "--tls=local",
            "--data-dir=/data",
            "--host=192.168.1.5",
            "--public-url=https://vision.test:8443",
        ];
        let tls = settings(&words).http.tls;
        assert_eq!(tls.mode, TlsMode::Local);
        assert_eq!(tls.authority_dir, std::path::Path::new("/data/tls"));
        for name in ["192.168.1.5", "vision.test"] {
            assert!(tls.names.contains(&name.to_owned()), "{name}");
        }
        let tls = settings(&["--tls=local", "--host=0.0.0.0"]).http.tls;
        assert!(!tls.names.contains(&"0.0.0.0".to_owned()));
    }
}
