//! The handle to the model thread: submit, wait, give up, close.
//!
//! Everything here runs on the async threads and never blocks them; the other end of the line is
//! [`super::worker`]. It knows nothing of what the inputs mean.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::predict::{Predict, PredictError, Prediction, PreparedInput};
use super::worker::{self, Item, Turn};

/// Why there is no prediction.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The line is full.
    #[error("the line in front of the model is full")]
    LineFull,
    /// The caller's deadline passed before the model took the input.
    #[error("the start deadline passed while the input waited")]
    StartDeadline,
    /// The engine is closed or its thread is gone.
    #[error("the engine is closed")]
    Closed,
    /// The model panicked on this input.
    #[error("the model panicked: {0}")]
    Panicked(String),
    /// The model failed on this input.
    #[error(transparent)]
    Predict(#[from] PredictError),
}

/// A handle to the model thread. All clones reach the same one, which ends when the engine is
/// closed or the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Engine {
    line: Arc<Mutex<Option<mpsc::Sender<Item>>>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Engine {
    /// Starts the model thread. At most `max_waiting` inputs wait in its line.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(model: Box<dyn Predict>, max_waiting: usize) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel(max_waiting);
        let thread = std::thread::Builder::new()
            .name("model".into())
            .spawn(move || worker::run(model, receiver))?;
        Ok(Self {
            line: Arc::new(Mutex::new(Some(sender))),
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    /// Puts an input in the line and waits for the answers, one for each of its prompts. `start_by`
    /// bounds the waiting, not the work: an input that the model has taken is answered however long
    /// it takes.
    ///
    /// Cancel-safe: dropping the future takes the input out of the line, unless the model has it.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn submit(
        &self,
        input: PreparedInput,
        start_by: Option<Instant>,
    ) -> Result<Vec<Prediction>, EngineError> {
        let place = self.sender()?.try_reserve_owned();
        let place = place.map_err(|error| match error {
            TrySendError::Full(_) => EngineError::LineFull,
            TrySendError::Closed(_) => EngineError::Closed,
        })?;
        Self::submit_at(place, input, start_by).await
    }

    /// Like [`Engine::submit`] without a deadline, for the program's own work: waits for a place in the
    /// line, before all who come later.
    ///
    /// Cancel-safe in the same way.
    ///
    /// # Errors
    /// See [`EngineError`]; never [`EngineError::LineFull`].
    pub async fn submit_patiently(
        &self,
        input: PreparedInput,
    ) -> Result<Vec<Prediction>, EngineError> {
        let place = self.sender()?.reserve_owned().await;
        let place = place.map_err(|_| EngineError::Closed)?;
        Self::submit_at(place, input, None).await
    }

    async fn submit_at(
        place: mpsc::OwnedPermit<Item>,
        input: PreparedInput,
        start_by: Option<Instant>,
    ) -> Result<Vec<Prediction>, EngineError> {
        let turn = Turn::new();
        let (reply, mut answer) = oneshot::channel();
        // The line closes when nobody holds a sender any more.
        drop(place.send(Item {
            input,
            turn: turn.clone(),
            reply,
        }));
        if let Some(start_by) = start_by {
            tokio::select! {
                result = &mut answer => return result.map_err(|_| EngineError::Closed)?,
                () = tokio::time::sleep_until(start_by.into()) => {
                    if turn.give_up() {
                        return Err(EngineError::StartDeadline);
                    }
                }
            }
        }
        answer.await.map_err(|_| EngineError::Closed)?
    }

    /// Takes no more inputs, lets the model finish those that wait, and joins its thread.
    /// Further calls, on any clone, return at once.
    pub async fn close(&self) {
        drop(lock(&self.line).take());
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // The thread catches the model's panics, so joining it tells nothing new.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Whether the model thread still takes inputs.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.sender().is_ok_and(|sender| !sender.is_closed())
    }

    fn sender(&self) -> Result<mpsc::Sender<Item>, EngineError> {
        lock(&self.line).clone().ok_or(EngineError::Closed)
    }
}

/// The values behind these locks are replaced whole, so a panic elsewhere cannot leave them half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
