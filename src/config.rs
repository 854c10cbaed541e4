//! Every setting: name, default, unit and allowed range. One plain struct per room.
//!
//! A room receives only its own struct, so that a test of the fetcher does not have to invent a
//! queue. `cli` fills these structs from flags and environment; the defaults stand here and
//! nowhere else. This file imports nothing of the crate and never reads the environment.

mod face;
mod files;
mod log;
mod peers;
mod pipeline;
mod queue;
mod sources;
mod tls;

use std::net::IpAddr;
use std::time::Duration;

pub use face::FaceSettings;
pub use files::FilesSettings;
pub use log::LogSettings;
pub use peers::PeerSettings;
pub use pipeline::PipelineSettings;
pub use queue::QueueSettings;
pub use sources::SourceSettings;
pub use tls::{TlsMode, TlsModeError, TlsSettings};

/// One mebibyte in bytes.
const MIB: usize = 1 << 20;

/// Percent of everything that parties share of which one may hold no more.
const DEFAULT_SHARE_PERCENT: usize = 50;

/// What a setting's value must be, and is not. One sentence for the person who starts the server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag} must be {expected}, but is {found}")]
pub struct SettingError {
    /// The flag as it is typed.
    pub flag: &'static str,
    /// The allowed range, in words.
    pub expected: String,
    /// What was given.
    pub found: String,
}

fn within(
    flag: &'static str,
    value: u64,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<(), SettingError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(SettingError {
        flag,
        expected: format!("from {} to {}", allowed.start(), allowed.end()),
        found: value.to_string(),
    })
}

/// Sockets, request bodies and admission.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 lets the system choose.
    pub port: u16,
    /// Connections held at once; more wait in the kernel.
    pub max_connections: usize,
    /// Wall-clock time within which a request's headers must be complete.
    pub header_timeout: Duration,
    /// Bytes of one request's line and headers.
    pub max_header_bytes: usize,
    /// Header lines of one request.
    pub max_header_lines: usize,
    /// Bytes of one request body.
    pub max_body_bytes: usize,
    /// Bytes of all request bodies, and of all answers above 64 KiB, in memory at once; what comes on
    /// top is answered with 429.
    pub max_body_memory_bytes: usize,
    /// Time a body may take whatever its size.
    pub body_grace: Duration,
    /// Average bytes per second a body must reach after the grace time. An idle clock alone would
    /// let one byte a second through for ever.
    pub min_body_rate_bytes: usize,
    /// Calls being worked on at once; more are answered with 429. Calls whose body is still
    /// arriving or whose picture's source is waited for do not count.
    pub max_calls: usize,
    /// Tasks that one call may name about its picture. They hold the model until the last is answered.
    pub max_tasks: usize,
    /// How long calls in flight may take to finish after the signal to stop.
    pub drain_timeout: Duration,
    /// Time between the signal to stop and the drain, in which readiness says no.
    pub stop_delay: Duration,
    /// Bounds on slow and greedy callers.
    pub peers: PeerSettings,
    /// Encrypted connections.
    pub tls: TlsSettings,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            port: 8000,
            max_connections: 2048,
            header_timeout: Duration::from_secs(10),
            max_header_bytes: 64 << 10,
            max_header_lines: 100,
            // Holds a 24 MB picture as a data: URI.
            max_body_bytes: 32 * MIB,
            max_body_memory_bytes: 512 * MIB,
            body_grace: Duration::from_secs(30),
            min_body_rate_bytes: 64 << 10,
            max_calls: 16,
            max_tasks: 16,
            drain_timeout: Duration::from_secs(30),
            stop_delay: Duration::ZERO,
            peers: PeerSettings::default(),
            tls: TlsSettings::default(),
        }
    }
}

impl HttpSettings {
    /// The smallest header room that hyper's reader accepts.
    const MIN_HEADER_BYTES: u64 = 8 << 10;

    /// Checks every value against its allowed range.
    ///
    /// # Errors
    /// Names the first flag that is out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        within(
            "--max-connections",
            self.max_connections as u64,
            1..=1 << 20,
        )?;
        within("--header-timeout-s", self.header_timeout.as_secs(), 1..=600)?;
        within(
            "--max-header-bytes",
            self.max_header_bytes as u64,
            Self::MIN_HEADER_BYTES..=1 << 20,
        )?;
        within(
            "--max-header-lines",
            self.max_header_lines as u64,
            10..=1000,
        )?;
        within(
            "--max-body-bytes",
            self.max_body_bytes as u64,
            1024..=1 << 30,
        )?;
        within(
            "--max-body-memory-bytes",
            self.max_body_memory_bytes as u64,
            self.max_body_bytes as u64..=1 << 40,
        )?;
        within("--body-grace-s", self.body_grace.as_secs(), 1..=3600)?;
        within(
            "--min-body-rate-bytes",
            self.min_body_rate_bytes as u64,
            1..=1 << 30,
        )?;
        within("--max-calls", self.max_calls as u64, 1..=65_536)?;
        within("--max-tasks", self.max_tasks as u64, 1..=1024)?;
        within("--drain-timeout-s", self.drain_timeout.as_secs(), 0..=3600)?;
        within("--stop-delay-s", self.stop_delay.as_secs(), 0..=3600)?;
        self.peers.validate()
    }
}

/// Who may call.
#[derive(Clone, Default)]
pub struct AuthSettings {
    /// Accepted credentials: everything after `Key `. Empty means that no key is asked for.
    pub api_keys: Vec<String>,
    /// Permits a public address without any key.
    pub allow_anonymous: bool,
    /// Answers `/metrics` without a key, too.
    pub open_metrics: bool,
}

impl std::fmt::Debug for AuthSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthSettings")
            .field("api_keys", &format_args!("{} hidden", self.api_keys.len()))
            .field("allow_anonymous", &self.allow_anonymous)
            .field("open_metrics", &self.open_metrics)
            .finish()
    }
}

impl AuthSettings {
    /// Checks that every key can be sent in a header, and that strangers are let in only on request.
    ///
    /// # Errors
    /// When a key is empty or unprintable, or when `host` is reachable from other machines, no key
    /// is set and anonymous calls were not permitted explicitly.
    pub fn validate(&self, host: IpAddr) -> Result<(), SettingError> {
        Self::check_keys("--api-key", &self.api_keys)?;
        if !host.is_loopback() && self.api_keys.is_empty() && !self.allow_anonymous {
            return Err(SettingError {
                flag: "--host",
                expected: "a loopback address as long as there is no key: set FLORENCE2_API_KEYS or --api-key, or say FLORENCE2_ALLOW_ANONYMOUS=true or --allow-anonymous to answer everybody".into(),
                found: host.to_string(),
            });
        }
        Ok(())
    }

    /// Checks that every key can be sent in a header; `flag` is where they came from.
    ///
    /// # Errors
    /// When a key is empty or unprintable.
    pub fn check_keys(flag: &'static str, keys: &[String]) -> Result<(), SettingError> {
        let sendable = |key: &String| !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic());
        let Some(key) = keys.iter().find(|key| !sendable(key)) else {
            return Ok(());
        };
        Err(SettingError {
            flag,
            expected: "a non-empty run of printable ASCII characters without spaces".into(),
            found: match key.is_empty() {
                true => "empty".into(),
                false => "a text with a space or another character in it".into(),
            },
        })
    }
}

/// Pictures behind URLs.
#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// Networks, addresses and host names that may be contacted, names with a port if they are to
    /// open another one than 80 and 443. Empty: none.
    pub allowed_sources: Vec<String>,
    /// Bytes of one picture file, however it arrives.
    pub max_picture_bytes: usize,
    /// Redirects followed, this number included.
    pub max_redirects: usize,
    /// Time for everything: names, connections, all redirects, the last byte.
    pub fetch_timeout: Duration,
    /// Time for one connection to be established.
    pub connect_timeout: Duration,
    /// Downloads at once.
    pub sources: SourceSettings,
}

impl Default for FetchSettings {
    fn default() -> Self {
        Self {
            allowed_sources: Vec::new(),
            // These three are the values of fal's own picture loader.
            max_picture_bytes: 50 * MIB,
            max_redirects: 5,
            fetch_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            sources: SourceSettings::default(),
        }
    }
}

impl FetchSettings {
    /// Checks every value against its allowed range.
    ///
    /// # Errors
    /// Names the first flag that is out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        within(
            "--max-picture-bytes",
            self.max_picture_bytes as u64,
            1024..=1 << 30,
        )?;
        within("--max-redirects", self.max_redirects as u64, 0..=20)?;
        within("--fetch-timeout-s", self.fetch_timeout.as_secs(), 1..=600)?;
        within(
            "--connect-timeout-s",
            self.connect_timeout.as_secs(),
            1..=600,
        )?;
        self.sources.validate()
    }
}

/// Unpacking pictures.
#[derive(Clone, Copy, Debug)]
pub struct DecodeSettings {
    /// Pixels of one picture.
    pub max_pixels: u64,
    /// Pixels of one side; keeps one row bounded.
    pub max_side: u32,
    /// Pictures unpacked at once; further ones wait. Peak memory for pictures is this times
    /// twice the file (a WebP and its data copied out) and twelve bytes a pixel (frame, canvas and
    /// output of an animated WebP): 768 MB at the default number of pixels, and files beside.
    pub decode_slots: usize,
}

impl Default for DecodeSettings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            max_pixels: 64_000_000,
            max_side: 16_384,
            decode_slots: (cores / 2).max(2),
        }
    }
}

impl DecodeSettings {
    /// Checks every value against its allowed range.
    ///
    /// # Errors
    /// Names the first flag that is out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        within("--max-pixels", self.max_pixels, 1..=1_000_000_000)?;
        within("--max-side", u64::from(self.max_side), 1..=65_535)?;
        within("--decode-slots", self.decode_slots as u64, 1..=1024)
    }
}

/// The line in front of the model.
#[derive(Clone, Copy, Debug)]
pub struct EngineSettings {
    /// Prepared inputs that may wait for the model. Each holds its pixel values, seven megabytes at
    /// 768 pixels a side.
    pub max_waiting: usize,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { max_waiting: 64 }
    }
}

impl EngineSettings {
    /// Checks every value against its allowed range.
    ///
    /// # Errors
    /// Names the first flag that is out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        within("--max-waiting", self.max_waiting as u64, 1..=65_536)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_their_own_ranges() {
        HttpSettings::default().validate().unwrap();
        FetchSettings::default().validate().unwrap();
        DecodeSettings::default().validate().unwrap();
        EngineSettings::default().validate().unwrap();
        FaceSettings::default()
            .validate(HttpSettings::default().port)
            .unwrap();
        QueueSettings::default().validate().unwrap();
        FilesSettings::default().validate().unwrap();
        LogSettings::default().validate().unwrap();
        AuthSettings::default()
            .validate(HttpSettings::default().host)
            .unwrap();
    }

    #[test]
    fn a_value_out_of_range_names_its_flag_and_the_range() {
        let settings = HttpSettings {
            max_calls: 0,
            ..HttpSettings::default()
        };
        assert_eq!(
            settings.validate().unwrap_err().to_string(),
            "--max-calls must be from 1 to 65536, but is 0"
        );
    }

    #[test]
    fn a_public_address_needs_a_key_or_an_explicit_word() {
        let public = IpAddr::from([0, 0, 0, 0]);
        let mut auth = AuthSettings::default();
        assert!(auth.validate(public).is_err());
        auth.allow_anonymous = true;
        assert!(auth.validate(public).is_ok());
        auth.allow_anonymous = false;
        auth.api_keys.push("k:s".into());
        assert!(auth.validate(public).is_ok());
    }

    #[test]
    fn keys_are_never_printed() {
        let auth = AuthSettings {
            api_keys: vec!["top:secret".into()],
            ..AuthSettings::default()
        };
        assert!(!format!("{auth:?}").contains("secret"));
    }
}
