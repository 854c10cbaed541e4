//! `serve`: settings → listener → model → ready. The only place that wires the rooms together.
//!
//! The listener opens first and says so on stdout; the model loads on a thread of its own meanwhile,
//! answers one warm-up, and only then is the server ready. A model that cannot load ends the
//! process with one sentence.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use tokio::sync::oneshot;
use tracing::Level;

use crate::config::{
    AuthSettings, DecodeSettings, EngineSettings, FetchSettings, HttpSettings, SettingError,
};
use crate::engine::Engine;
use crate::engine::predict::Predict;
use crate::image_io::PictureLoader;
use crate::image_io::fetch::FetchSetupError;
use crate::pipeline::{AskOptions, Codec, Pipeline};
use crate::server::{ModelSlot, Server, signalled};
use crate::telemetry::{self, LogFormat};

use super::CommandError;
use super::load_model::load_model;
use super::model_args::ModelArgs;

/// Time for helper threads to end once the server has stopped.
const RUNTIME_GRACE: Duration = Duration::from_secs(1);

/// Start the HTTP server
#[derive(Args, Clone, Debug)]
pub(super) struct ServeCommand {
    #[command(flatten)]
    serve: ServeArgs,

    #[command(flatten)]
    model: ModelArgs,
}

/// Serves the checkpoint that the flags name until a signal says stop.
pub(super) fn run(command: &ServeCommand) -> Result<(), CommandError> {
    telemetry::init(command.serve.log_format(), command.serve.log_level());
    let flags = command.model.clone();
    let load = move || {
        let checkpoint = load_model(&flags)?;
        Ok(LoadedModel {
            model: Box::new(checkpoint.model),
            codec: Arc::new(checkpoint.processor),
            options: checkpoint.options,
        })
    };
    serve(&command.serve.settings(), load).map_err(|error| {
        let sentence = error.to_string();
        if error.is_usage() {
            CommandError::Usage(sentence)
        } else {
            CommandError::Failed(sentence)
        }
    })
}

/// What may be typed after `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Address to listen on
    #[arg(long, value_name = "HOST", env = "FLORENCE2_HOST", default_value = "127.0.0.1", value_parser = host)]
    host: IpAddr,

    /// Port to listen on; 0 lets the system choose
    #[arg(long, value_name = "PORT", env = "FLORENCE2_PORT", default_value_t = HttpSettings::default().port)]
    port: u16,

    /// Accept this key, the whole text after `Key `; may be given several times. Without any key everybody may call
    #[arg(long = "api-key", value_name = "KEY")]
    api_key: Vec<String>,

    /// The same, comma-separated; unlike the command line, the environment is not shown to other users
    #[arg(
        long = "api-keys",
        value_name = "KEYS",
        env = "FLORENCE2_API_KEYS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    api_keys: Vec<String>,

    /// Listen on a public address without any key
    #[arg(long, env = "FLORENCE2_ALLOW_ANONYMOUS", value_parser = BoolishValueParser::new())]
    allow_anonymous: bool,

    /// Fetch pictures from this network, address or host name, such as 10.0.0.0/8, pictures.example.com or *.example.com; may be given several times. Without any, only data: URIs are accepted
    #[arg(
        long = "allow-source",
        value_name = "NET_OR_HOST",
        env = "FLORENCE2_ALLOW_SOURCE",
        value_delimiter = ','
    )]
    allow_source: Vec<String>,

    #[command(flatten)]
    limits: LimitArgs,

    /// How log lines on stderr look
    #[arg(
        long,
        value_name = "FORMAT",
        env = "FLORENCE2_LOG_FORMAT",
        value_enum,
        default_value_t
    )]
    log_format: LogFormat,

    /// Least important log lines to write: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "FLORENCE2_LOG_LEVEL", default_value_t = Level::INFO)]
    log_level: Level,
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

    /// Seconds that any request body may take to arrive
    #[arg(long, value_name = "S", env = "FLORENCE2_BODY_GRACE_S", default_value_t = HttpSettings::default().body_grace.as_secs())]
    body_grace_s: u64,

    /// Bytes a second at which a body must arrive on average after that
    #[arg(long, value_name = "BYTES", env = "FLORENCE2_MIN_BODY_RATE_BYTES", default_value_t = HttpSettings::default().min_body_rate_bytes)]
    min_body_rate_bytes: usize,

    /// Model calls at once, in whatever stage; more are answered with 429
    #[arg(long, value_name = "N", env = "FLORENCE2_MAX_CALLS", default_value_t = HttpSettings::default().max_calls)]
    max_calls: usize,

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

    /// Pictures unpacked at once [default: half the cores, at least 2]
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
    /// How log lines look.
    #[must_use]
    pub fn log_format(&self) -> LogFormat {
        self.log_format
    }

    /// The least important level to write.
    #[must_use]
    pub fn log_level(&self) -> Level {
        self.log_level
    }

    /// What was typed, as the rooms take it.
    #[must_use]
    pub fn settings(&self) -> ServeSettings {
        let limits = &self.limits;
        let api_keys = self.api_key.iter().chain(&self.api_keys).cloned().collect();
        ServeSettings {
            http: HttpSettings {
                host: self.host,
                port: self.port,
                max_connections: limits.max_connections,
                header_timeout: Duration::from_secs(limits.header_timeout_s),
                max_header_bytes: limits.max_header_bytes,
                max_header_lines: limits.max_header_lines,
                max_body_bytes: limits.max_body_bytes,
                body_grace: Duration::from_secs(limits.body_grace_s),
                min_body_rate_bytes: limits.min_body_rate_bytes,
                max_calls: limits.max_calls,
                drain_timeout: Duration::from_secs(limits.drain_timeout_s),
            },
            auth: AuthSettings {
                api_keys,
                allow_anonymous: self.allow_anonymous,
            },
            fetch: FetchSettings {
                allowed_sources: self.allow_source.clone(),
                max_picture_bytes: limits.max_picture_bytes,
                max_redirects: limits.max_redirects,
                fetch_timeout: Duration::from_secs(limits.fetch_timeout_s),
                connect_timeout: Duration::from_secs(limits.connect_timeout_s),
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
        }
    }
}

/// The settings of every room that serving needs.
#[derive(Clone, Debug, Default)]
pub struct ServeSettings {
    /// Sockets, bodies, admission.
    pub http: HttpSettings,
    /// Who may call.
    pub auth: AuthSettings,
    /// Pictures behind URLs.
    pub fetch: FetchSettings,
    /// Unpacking pictures.
    pub decode: DecodeSettings,
    /// The line in front of the model.
    pub engine: EngineSettings,
}

impl ServeSettings {
    /// Checks every room's settings.
    ///
    /// # Errors
    /// Names the first flag that is out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        self.http.validate()?;
        self.auth.validate(self.http.host)?;
        self.fetch.validate()?;
        self.decode.validate()?;
        self.engine.validate()
    }
}

/// A model as the server takes it.
pub struct LoadedModel {
    /// Goes to the model thread.
    pub model: Box<dyn Predict>,
    /// Pictures to pixel values, prompts to tokens, tokens to text.
    pub codec: Arc<dyn Codec>,
    /// How the model is asked.
    pub options: AskOptions,
}

impl std::fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedModel")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Why the server did not start or went down. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A flag's value is out of range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Pictures cannot be fetched as asked.
    #[error(transparent)]
    Fetch(#[from] FetchSetupError),
    /// The address is taken or not ours.
    #[error("cannot listen on {host} port {port}: {source}; choose another --host or --port")]
    Bind {
        /// The address.
        host: IpAddr,
        /// The port.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// The model cannot be loaded, or not answer.
    #[error("{0}")]
    Model(String),
}

impl ServeError {
    /// Whether what was typed is at fault, as opposed to the world.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Setting(_) | Self::Fetch(FetchSetupError::Source(_))
        )
    }
}

/// Serves until a signal says stop. `load` runs on a thread of its own while the listener is open
/// already, and says in one sentence why there is no model.
///
/// # Errors
/// See [`ServeError`]. A stop by signal is success.
pub fn serve<L>(settings: &ServeSettings, load: L) -> Result<(), ServeError>
where
    L: FnOnce() -> Result<LoadedModel, String> + Send + 'static,
{
    settings.validate()?;
    // Two providers may be compiled in, and then rustls chooses neither by itself. Fails only when
    // one was installed before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let pictures = PictureLoader::new(&settings.fetch, settings.decode)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(listen(settings, pictures, load));
    // A decode or a forward that still runs must not keep the process alive.
    runtime.shutdown_timeout(RUNTIME_GRACE);
    result
}

async fn listen<L>(
    settings: &ServeSettings,
    pictures: PictureLoader,
    load: L,
) -> Result<(), ServeError>
where
    L: FnOnce() -> Result<LoadedModel, String> + Send + 'static,
{
    let signal = signalled()?;
    let HttpSettings { host, port, .. } = settings.http;
    let server = Server::bind(settings.http.clone(), &settings.auth)
        .await
        .map_err(|source| ServeError::Bind { host, port, source })?;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on http://{}", server.address())?;
    stdout.flush()?;
    warn_if_open(settings);

    let (loaded, model) = oneshot::channel();
    std::thread::Builder::new()
        .name("load".into())
        // The receiver is gone only when the server stopped meanwhile.
        .spawn(move || drop(loaded.send(load())))?;
    let slot = server.slot();
    let max_waiting = settings.engine.max_waiting;
    let ready = make_ready(model, pictures, max_waiting, slot);

    let mut failure = None;
    let stop = async {
        tokio::pin!(signal);
        tokio::select! {
            () = &mut signal => {}
            result = ready => match result {
                Ok(()) => signal.await,
                Err(error) => failure = Some(error),
            },
        }
    };
    server.run(stop).await;
    failure.map_or(Ok(()), Err)
}

/// Takes the loaded model through a warm-up and hands it to the server.
async fn make_ready(
    model: oneshot::Receiver<Result<LoadedModel, String>>,
    pictures: PictureLoader,
    max_waiting: usize,
    slot: ModelSlot,
) -> Result<(), ServeError> {
    let LoadedModel {
        model,
        codec,
        options,
    } = model
        .await
        .map_err(|_| ServeError::Model("the model's loader panicked".into()))?
        .map_err(ServeError::Model)?;
    let engine = Engine::start(model, max_waiting)?;
    let pipeline = Pipeline::new(pictures, codec, engine, options);
    pipeline
        .warm_up()
        .await
        .map_err(|error| ServeError::Model(format!("the model's first answer failed: {error}")))?;
    slot.provide(pipeline);
    tracing::info!("ready");
    Ok(())
}

fn warn_if_open(settings: &ServeSettings) {
    let host = settings.http.host;
    if !host.is_loopback() && settings.auth.api_keys.is_empty() {
        tracing::warn!("****************************************************************");
        tracing::warn!(%host, "EVERYBODY who reaches this address can use this server: no --api-key is set and --allow-anonymous is given");
        tracing::warn!("****************************************************************");
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
    fn keys_and_sources_add_up() {
        let settings = settings(&[
            "--api-key=a,b:c",
            "--api-key=d",
            "--api-keys=e,f",
            "--allow-source=10.0.0.0/8",
            "--allow-source=*.example.com,localhost",
            "--host=localhost",
        ]);
        assert_eq!(settings.auth.api_keys, ["a,b:c", "d", "e", "f"]);
        let sources = ["10.0.0.0/8", "*.example.com", "localhost"];
        assert_eq!(settings.fetch.allowed_sources, sources);
        assert!(settings.http.host.is_loopback());
    }

    #[test]
    fn what_was_typed_wrong_is_told_from_what_went_wrong() {
        let load = || Err("never loaded".to_owned());
        for words in [
            &["--host=0.0.0.0"][..],
            &["--max-calls=0"],
            &["--allow-source=http://x"],
            &["--api-key="],
        ] {
            let error = serve(&settings(words), load).unwrap_err();
            assert!(error.is_usage(), "{words:?}: {error}");
        }
        let error = serve(&settings(&["--port=0"]), load).unwrap_err();
        assert!(!error.is_usage());
        assert_eq!(error.to_string(), "never loaded");
        let error = serve(&settings(&["--host=192.0.2.1", "--api-key=k"]), load).unwrap_err();
        assert!(matches!(error, ServeError::Bind { .. }), "{error}");
    }
}
