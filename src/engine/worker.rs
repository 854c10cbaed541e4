//! The model thread: take the next input, run the model, reply.
//!
//! The only owner of the model, hence of the device. It never touches the async runtime: it blocks
//! on the line and answers through channels that do not wait. A panic in the model becomes an error
//! for the one caller whose input caused it, and the thread goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::EngineError;
use super::predict::{Predict, Prediction, PreparedInput};
use crate::telemetry::panic_text;

/// One input in the line.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) input: PreparedInput,
    pub(super) turn: Turn,
    pub(super) reply: oneshot::Sender<Result<Vec<Prediction>, EngineError>>,
}

/// Decides, once, whether an input is taken by the model or given up by its caller.
#[derive(Clone, Debug)]
pub(super) struct Turn(Arc<AtomicU8>);

impl Turn {
    const WAITING: u8 = 0;
    const TAKEN: u8 = 1;
    const GIVEN_UP: u8 = 2;

    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU8::new(Self::WAITING)))
    }

    /// True if the model had not taken the input, which it now never will.
    pub(super) fn give_up(&self) -> bool {
        self.decide(Self::GIVEN_UP)
    }

    fn take(&self) -> bool {
        self.decide(Self::TAKEN)
    }

    fn decide(&self, outcome: u8) -> bool {
        self.0
            .compare_exchange(Self::WAITING, outcome, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// Runs until every sender is gone and the line is empty.
pub(super) fn run(mut model: Box<dyn Predict>, mut line: mpsc::Receiver<Item>) {
    while let Some(item) = line.blocking_recv() {
        if item.reply.is_closed() || !item.turn.take() {
            continue;
        }
        // The trait promises a usable model after an error; a panic is held to the same promise,
        // because a process that stops answering everybody is worse.
        let is_wanted = || !item.reply.is_closed();
        let result = catch_unwind(AssertUnwindSafe(|| model.predict(&item.input, &is_wanted)))
            .map_err(|panic| EngineError::Panicked(panic_text(&*panic).to_owned()))
            .and_then(|result| result.map_err(EngineError::from));
        // A caller who left meanwhile needs no answer.
        let _ = item.reply.send(result);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::{Duration, Instant};

    use futures_util::FutureExt;

    use super::*;
    use crate::engine::Engine;
    use crate::engine::predict::{PredictError, StageTimings};
    use crate::florence2::generate::{EarlyStopping, GenerationOptions};

    /// Tells what it is given, and answers when the test says so.
    struct Scripted {
        seen: Sender<u32>,
        go: Receiver<()>,
    }

    const PANICS: u32 = 666;
    const FAILS: u32 = 667;

    impl Predict for Scripted {
        fn predict(
            &mut self,
            input: &PreparedInput,
            is_wanted: &dyn Fn() -> bool,
        ) -> Result<Vec<Prediction>, PredictError> {
            let mut predictions = Vec::new();
            for prompt in input.prompts.iter().take_while(|_| is_wanted()) {
                let id = prompt[0];
                self.seen.send(id).unwrap();
                self.go.recv().unwrap();
                match id {
                    PANICS => panic!("on purpose"),
                    FAILS => return Err(PredictError::OutOfMemory("on purpose".into())),
                    _ => predictions.push(Prediction {
                        token_ids: vec![id],
                        log_probabilities: vec![],
                        timings: StageTimings::default(),
                    }),
                }
            }
            Ok(predictions)
        }
    }

    fn input(id: u32) -> PreparedInput {
        inputs(&[id])
    }

    fn inputs(ids: &[u32]) -> PreparedInput {
        PreparedInput {
            pixel_values: vec![],
            side: 0,
            prompts: ids.iter().map(|id| vec![*id]).collect(),
            generation: GenerationOptions {
                num_beams: 1,
                max_new_tokens: 1,
                min_new_tokens: 0,
                length_penalty: 1.0,
                early_stopping: EarlyStopping::True,
                no_repeat_ngram_size: 0,
            },
        }
    }

    fn engine(max_waiting: usize) -> (Engine, Receiver<u32>, Sender<()>) {
        let (seen, seen_by_test) = channel();
        let (go_from_test, go) = channel();
        let engine = Engine::start(Box::new(Scripted { seen, go }), max_waiting).unwrap();
        (engine, seen_by_test, go_from_test)
    }

    /// Submits in the background and returns once the input is in the line or with the model.
    async fn enqueue(
        engine: &Engine,
        id: u32,
    ) -> tokio::task::JoinHandle<Result<Vec<Prediction>, EngineError>> {
        enqueue_input(engine, input(id)).await
    }

    async fn enqueue_input(
        engine: &Engine,
        input: PreparedInput,
    ) -> tokio::task::JoinHandle<Result<Vec<Prediction>, EngineError>> {
        let engine = engine.clone();
        let handle = tokio::spawn(async move { engine.submit(input, None).await });
        tokio::task::yield_now().await;
        handle
    }

    #[tokio::test]
    async fn an_input_whose_caller_left_never_reaches_the_model() {
        let (engine, seen, go) = engine(8);
        let first = enqueue(&engine, 1).await;
        assert_eq!(seen.recv().unwrap(), 1);
        let left = enqueue(&engine, 2).await;
        let third = enqueue(&engine, 3).await;
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap()[0].token_ids, [1]);
        assert_eq!(third.await.unwrap().unwrap()[0].token_ids, [3]);
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [3]);
    }

    #[tokio::test]
    async fn the_prompts_left_when_the_caller_leaves_are_not_answered() {
        let (engine, seen, go) = engine(8);
        let left = enqueue_input(&engine, inputs(&[1, 2, 3])).await;
        assert_eq!(seen.recv().unwrap(), 1);
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
        let next = enqueue_input(&engine, inputs(&[4, 5])).await;
        for _ in 0..3 {
            go.send(()).unwrap();
        }
        let answers = next.await.unwrap().unwrap();
        let token_ids: Vec<_> = answers.into_iter().flat_map(|it| it.token_ids).collect();
        assert_eq!(token_ids, [4, 5]);
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [4, 5]);
    }

    #[tokio::test]
    async fn a_panic_and_an_error_each_reach_one_caller_and_the_model_stays_up() {
        let (engine, _seen, go) = engine(8);
        for _ in 0..3 {
            go.send(()).unwrap();
        }
        let panicked = engine.submit(input(PANICS), None).await.unwrap_err();
        assert!(matches!(panicked, EngineError::Panicked(text) if text == "on purpose"));
        let failed = engine.submit(input(FAILS), None).await.unwrap_err();
        assert!(matches!(
            failed,
            EngineError::Predict(PredictError::OutOfMemory(_))
        ));
        let fine = engine.submit(input(5), None).await.unwrap();
        assert_eq!(fine[0].token_ids, [5]);
        assert!(engine.is_open());
    }

    #[tokio::test]
    async fn the_line_is_bounded() {
        let (engine, seen, go) = engine(2);
        let first = enqueue(&engine, 1).await;
        assert_eq!(seen.recv().unwrap(), 1);
        let waiting = [enqueue(&engine, 2).await, enqueue(&engine, 3).await];
        let refused = engine.submit(input(4), None).await.unwrap_err();
        assert!(matches!(refused, EngineError::LineFull));
        for _ in 0..3 {
            go.send(()).unwrap();
        }
        first.await.unwrap().unwrap();
        for handle in waiting {
            handle.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn patient_work_waits_for_a_place_in_a_full_line() {
        let (engine, seen, go) = engine(1);
        let first = enqueue(&engine, 1).await;
        assert_eq!(seen.recv().unwrap(), 1);
        let second = enqueue(&engine, 2).await;
        let mut patient = Box::pin(engine.submit_patiently(input(3)));
        assert!(patient.as_mut().now_or_never().is_none());
        for _ in 0..3 {
            go.send(()).unwrap();
        }
        assert_eq!(patient.await.unwrap()[0].token_ids, [3]);
        for handle in [first, second] {
            handle.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn the_start_deadline_ends_waiting_but_not_work() {
        let (engine, seen, go) = engine(8);
        let soon = Instant::now() + Duration::from_millis(20);
        let running = {
            let engine = engine.clone();
            tokio::spawn(async move { engine.submit(input(1), Some(soon)).await })
        };
        tokio::task::yield_now().await;
        assert_eq!(seen.recv().unwrap(), 1);
        let waited = engine.submit(input(2), Some(soon)).await.unwrap_err();
        assert!(matches!(waited, EngineError::StartDeadline));
        assert!(Instant::now() >= soon);
        go.send(()).unwrap();
        assert_eq!(running.await.unwrap().unwrap()[0].token_ids, [1]);
        engine.close().await;
        assert_eq!(seen.try_iter().count(), 0);
    }

    #[tokio::test]
    async fn closing_finishes_what_waits_and_refuses_what_comes() {
        let (engine, seen, go) = engine(8);
        let handles = [enqueue(&engine, 1).await, enqueue(&engine, 2).await];
        assert_eq!(seen.recv().unwrap(), 1);
        let closing = {
            let engine = engine.clone();
            tokio::spawn(async move { engine.close().await })
        };
        while engine.is_open() {
            tokio::task::yield_now().await;
        }
        let late = engine.submit(input(3), None).await.unwrap_err();
        assert!(matches!(late, EngineError::Closed));
        go.send(()).unwrap();
        go.send(()).unwrap();
        for (handle, id) in handles.into_iter().zip([1, 2]) {
            assert_eq!(handle.await.unwrap().unwrap()[0].token_ids, [id]);
        }
        closing.await.unwrap();
        engine.close().await;
    }
}
