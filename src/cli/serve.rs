//! `serve`: settings → queue → listener → model → ready. The only place that wires the rooms together.
//!
//! The queue is opened first, because it knows whether another server works in the same directory.
//! Then the listener opens and says so on stdout; the model loads on a thread of its own meanwhile,
//! answers one warm-up, and only then is the server ready and begins with the jobs that wait.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::oneshot;

use crate::config::{
    AuthSettings, DecodeSettings, EngineSettings, FaceSettings, FetchSettings, FilesSettings,
    HttpSettings, LogSettings, PipelineSettings, QueueSettings, SettingError,
};
use crate::engine::Engine;
use crate::engine::predict::Predict;
use crate::files::{Clock, FileStore, FilesError};
use crate::image_io::PictureLoader;
use crate::image_io::fetch::FetchSetupError;
use crate::pipeline::{AskOptions, Codec, Pipeline};
use crate::queue::{Queue, QueueError};
use crate::server::{
    BindError, ModelSlot, Rooms, Server, ServerSettings, TlsError, refusals, signalled,
};
use crate::telemetry;

use super::CommandError;
use super::data_dir::{NoDataDir, default_data_dir};
use super::load_model::load_model;
use super::model_args::ModelArgs;
use super::serve_args::ServeArgs;

/// Time for helper threads to end once the server has stopped and drained.
const RUNTIME_GRACE: Duration = Duration::from_millis(100);

/// How long the start waits for the reader of stdout.
const ANNOUNCE_LIMIT: Duration = Duration::from_millis(500);

/// Folder of the hosted files in the data directory.
const FILES_FOLDER: &str = "files";

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
    let (settings, log) = (command.serve.settings(), command.serve.log());
    // Before logging begins: what it begins with must hold a line.
    let checked = (settings.log.validate()).and(command.serve.check_listed_keys());
    checked.map_err(|error| CommandError::Usage(error.to_string()))?;
    telemetry::init(log.log_format, log.log_level, settings.log);
    let flags = command.model.clone();
    let load = move || {
        let checkpoint = load_model(&flags)?;
        Ok(LoadedModel {
            model: Box::new(checkpoint.model),
            codec: Arc::new(checkpoint.processor),
            options: checkpoint.options,
        })
    };
    serve(&settings, load).map_err(|error| {
        let sentence = error.to_string();
        if error.is_usage() {
            CommandError::Usage(sentence)
        } else {
            CommandError::Failed(sentence)
        }
    })
}

/// The settings of every room that serving needs.
#[derive(Clone, Debug, Default)]
pub struct ServeSettings {
    /// Sockets, bodies, admission.
    pub http: HttpSettings,
    /// How callers reach the server.
    pub face: FaceSettings,
    /// Who may call.
    pub auth: AuthSettings,
    /// Pictures behind URLs.
    pub fetch: FetchSettings,
    /// Unpacking pictures.
    pub decode: DecodeSettings,
    /// The line in front of the model.
    pub engine: EngineSettings,
    /// Jobs and webhooks.
    pub queue: QueueSettings,
    /// What answers hold.
    pub pipeline: PipelineSettings,
    /// Hosted files.
    pub files: FilesSettings,
    /// The log.
    pub log: LogSettings,
    /// Where jobs and files are kept; none for [the user's own place](super::data_dir::default_data_dir).
    pub data_dir: Option<PathBuf>,
}

impl ServeSettings {
    /// Checks every room's settings.
    ///
    /// # Errors
    /// Names the first flag that is out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        self.http.validate()?;
        self.face.validate(self.http.port)?;
        self.auth.validate(self.http.host)?;
        self.fetch.validate()?;
        self.decode.validate()?;
        self.engine.validate()?;
        self.queue.validate()?;
        self.files.validate()?;
        self.log.validate()
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
    /// There is no place for files.
    #[error(transparent)]
    DataDir(#[from] NoDataDir),
    /// The place for files cannot be used.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The address is taken or not ours.
    #[error(
        "cannot listen on {host} port {port}: {source}; choose another --host, --port or --queue-port"
    )]
    Bind {
        /// The address.
        host: IpAddr,
        /// The port.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// There is no certificate to encrypt with.
    #[error("--tls: {0}")]
    Tls(TlsError),
    /// The queue cannot be opened.
    #[error(transparent)]
    Queue(#[from] QueueError),
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
            Self::Setting(_)
                | Self::DataDir(_)
                | Self::Fetch(FetchSetupError::Source(_))
                | Self::Queue(QueueError::Webhooks(FetchSetupError::Source(_)))
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
    #[cfg(unix)]
    super::file_limit::raise(settings);
    // Two providers may be compiled in, and then rustls chooses neither by itself. Fails only when
    // one was installed before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let pictures = PictureLoader::new(&settings.fetch, settings.decode)?;
    let data_dir = settings.data_dir.clone();
    let data_dir = data_dir.map_or_else(default_data_dir, Ok)?;
    let signal = signalled()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(listen(settings, &data_dir, (pictures, signal), load));
    // A decode or a forward that still runs must not keep the process alive.
    runtime.shutdown_timeout(RUNTIME_GRACE);
    result
}

async fn listen<L>(
    settings: &ServeSettings,
    data_dir: &Path,
    (pictures, signal): (PictureLoader, impl Future<Output = ()>),
    load: L,
) -> Result<(), ServeError>
where
    L: FnOnce() -> Result<LoadedModel, String> + Send + 'static,
{
    let queue = Queue::open(data_dir, &settings.queue, refusals()).await?;
    let folder = data_dir.join(FILES_FOLDER);
    let files = FileStore::open(&folder, settings.files, files_clock(&queue)).await?;
    tokio::spawn(files.clone().keep_swept());
    let pictures = pictures.with_own_files(Arc::new(files.clone()));
    let server = bind(settings, Rooms { queue, files }).await?;
    announce(&server).await;
    warn_if_open(settings);

    let (loaded, model) = oneshot::channel();
    std::thread::Builder::new()
        .name("load".into())
        // The receiver is gone only when the server stopped meanwhile.
        .spawn(move || drop(loaded.send(load())))?;
    let slot = server.slot();
    let ready = make_ready(model, pictures, settings, slot);

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

/// Says on stdout where the server listens. Whether anybody reads it changes nothing.
async fn announce(server: &Server) {
    let mut text = format!("listening on {}\n", server.base());
    if let Some(base) = server.queue_base() {
        let _ = writeln!(text, "queue listening on {base}");
    }
    let said = tokio::task::spawn_blocking(move || {
        let mut stdout = io::stdout();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
    });
    // A reader who does not read keeps that thread and nothing else.
    let _ = tokio::time::timeout(ANNOUNCE_LIMIT, said).await;
}

/// The queue's time, which no set calendar disturbs, for what files are kept and permitted by.
fn files_clock(queue: &Queue) -> Clock {
    let queue = queue.clone();
    Arc::new(move || u64::try_from(queue.now_ms()).unwrap_or_default())
}

async fn bind(settings: &ServeSettings, rooms: Rooms) -> Result<Server, ServeError> {
    let server = ServerSettings {
        http: settings.http.clone(),
        face: settings.face.clone(),
        auth: settings.auth.clone(),
    };
    let queue = rooms.queue.clone();
    let bound = Server::bind(server, rooms).await;
    if bound.is_err() {
        // Nothing runs yet; this lets go of the directory in order.
        queue.close(Duration::ZERO).await;
    }
    let host = settings.http.host;
    bound.map_err(|error| match error {
        BindError::Address { port, source } => ServeError::Bind { host, port, source },
        BindError::Tls(error) => ServeError::Tls(error),
    })
}

/// Takes the loaded model through a warm-up and hands it to the server.
async fn make_ready(
    model: oneshot::Receiver<Result<LoadedModel, String>>,
    pictures: PictureLoader,
    settings: &ServeSettings,
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
    let engine = Engine::start(model, settings.engine.max_waiting)?;
    let pipeline = Pipeline::new(pictures, codec, engine, options).with_settings(settings.pipeline);
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
        tracing::warn!(%host, "EVERYBODY who reaches this address can use this server: no key is set and anonymous callers are allowed");
        tracing::warn!("****************************************************************");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut ServeSettings)) -> ServeError {
        let data_dir = tempfile::tempdir().unwrap();
        let mut settings = ServeSettings {
            data_dir: Some(data_dir.path().to_owned()),
            ..ServeSettings::default()
        };
        settings.http.port = 0;
        change(&mut settings);
        serve(&settings, || Err("never loaded".to_owned())).unwrap_err()
    }

    #[test]
    fn what_was_typed_wrong_is_told_from_what_went_wrong() {
        let public = IpAddr::from([0, 0, 0, 0]);
        for error in [
            refused(|settings| settings.http.host = public),
            refused(|settings| settings.http.max_calls = 0),
            refused(|settings| settings.files.max_uploads = 0),
            refused(|settings| settings.fetch.allowed_sources = vec!["http://x".into()]),
            refused(|settings| settings.queue.allowed_webhooks = vec!["http://x".into()]),
            refused(|settings| settings.auth.api_keys = vec![String::new()]),
            refused(|settings| settings.face.public_url = Some("vision.test".into())),
        ] {
            assert!(error.is_usage(), "{error}");
        }
        let error = refused(|_| {});
        assert!(!error.is_usage());
        assert_eq!(error.to_string(), "never loaded");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = refused(|settings| settings.http.port = port);
        assert!(matches!(error, ServeError::Bind { .. }), "{error}");
        let error = refused(|settings| settings.face.queue_port = Some(port));
        assert!(error.to_string().contains(&port.to_string()), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = refused(|settings| settings.data_dir = Some(file.path().to_owned()));
        assert!(error.to_string().contains("--data-dir"), "{error}");
        assert!(!error.is_usage());
        // The queue is opened first and could be; the files' folder is what cannot be made.
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("files"), "in the way").unwrap();
        let error = refused(|settings| settings.data_dir = Some(folder.path().to_owned()));
        assert!(matches!(error, ServeError::Files(_)), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("/files") && text.contains("--data-dir"),
            "{text}"
        );
    }
}
