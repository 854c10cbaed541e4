//! Memory that is used again from picture to picture, so that no time goes to the system's zeroing of
//! pages.

use std::sync::{Mutex, PoisonError};

use crate::florence2::kernels::packed::RowBuffer;
use crate::florence2::kernels::packed::buffer::Buffer;

/// Room for the CPU's work: one [`Worker`] for every task at a time, and the large maps.
#[derive(Debug, Default)]
pub(in crate::florence2) struct Scratch {
    workers: Mutex<Vec<Worker>>,
    maps: Mutex<Vec<Buffer<f32>>>,
}

/// Room for one task. What the fields hold between uses is of no meaning.
#[derive(Debug, Default)]
pub(super) struct Worker {
    pub(super) rows: RowBuffer,
    pub(super) normed: Floats,
    pub(super) joined: Floats,
    pub(super) attended: Floats,
    pub(super) scores: Floats,
    pub(super) transposed: Floats,
    pub(super) stream: Floats,
    pub(super) hidden: Floats,
}

/// A growing slice of f32.
#[derive(Debug, Default)]
pub(super) struct Floats(Vec<f32>);

impl Floats {
    /// `len` values of no meaning.
    pub(super) fn of(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len {
            self.0.resize(len, 0.0);
        }
        &mut self.0[..len]
    }
}

impl Scratch {
    /// Runs `work` on a thread of the compute pool, where splitting work costs least.
    pub(in crate::florence2) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        rayon::scope(|_| work())
    }

    /// Lends a worker to a task.
    pub(super) fn with<T>(&self, task: impl FnOnce(&mut Worker) -> T) -> T {
        let idle = self
            .workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut worker = idle.unwrap_or_default();
        let result = task(&mut worker);
        self.workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(worker);
        result
    }

    /// A map of at least `len` values of no meaning.
    pub(super) fn map(&self, len: usize) -> Buffer<f32> {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        match maps.iter().position(|map| map.len() >= len) {
            Some(at) => maps.swap_remove(at),
            None => {
                // A picture of another size: what is too small is of no more use.
                maps.clear();
                Buffer::zeroed(len)
            }
        }
    }

    /// Takes a map back.
    pub(super) fn give_back(&self, map: Buffer<f32>) {
        self.maps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(map);
    }
}
