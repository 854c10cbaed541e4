//! The health of the store: whether it takes changes, why not, and how often it failed.
//!
//! The store writes it; readiness and metrics read it. It mends itself: a store that failed tries an
//! empty change of its own from time to time until one is on disk, so that nobody has to hand in a
//! job to find out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Reason for which a store cannot do its work, as far as it can be told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No room for another byte, or the quota is used up.
    DiskFull,
    /// The disk, the directory or a file may only be read.
    ReadOnly,
    /// The system failed to read or write.
    InputOutput,
    /// Another program holds the file.
    Locked,
    /// The file is not what was written.
    Damaged,
    /// A change is under way for much longer than any should take.
    Stalled,
    /// The store was closed.
    Closed,
    /// Anything else; the log says what.
    Other,
}

impl Fault {
    /// The fault as a sentence, without anything that a stranger should not know.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::DiskFull => "The disk of the job store is full.",
            Self::ReadOnly => "The disk of the job store is read-only.",
            Self::InputOutput => "The disk of the job store fails.",
            Self::Locked => "Another program holds the job store.",
            Self::Damaged => "The job store is damaged.",
            Self::Stalled => "The disk of the job store does not answer.",
            Self::Closed => "The job store is closed.",
            Self::Other => "The job store fails.",
        }
    }
}

/// Kind of work that a store failed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreWork {
    /// A change.
    Write,
    /// A look at what is stored.
    Read,
    /// Moving the write-ahead log into the file.
    Checkpoint,
}

impl StoreWork {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Write, Self::Read, Self::Checkpoint];

    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// The store's health at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Why changes are not taken; none while they are.
    pub fault: Option<Fault>,
    /// Failures since the start, in the order of [`StoreWork::ALL`].
    pub errors: [u64; 3],
}

/// The health of a store that runs.
#[derive(Debug, Default)]
pub(super) struct Health {
    fault: Mutex<Option<Fault>>,
    errors: [AtomicU64; 3],
}

impl Health {
    /// Counts a failure that does not keep the store from taking changes.
    pub(super) fn count(&self, work: StoreWork) {
        if let Some(errors) = self.errors.get(work as usize) {
            errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that changes are not taken, and says whether they were until now.
    pub(super) fn fail(&self, fault: Fault) -> bool {
        self.lock().replace(fault).is_none()
    }

    /// Notes that a change was taken, and says which fault is over.
    pub(super) fn mend(&self) -> Option<Fault> {
        self.lock().take()
    }

    /// Whether changes are not taken.
    pub(super) fn is_failing(&self) -> bool {
        self.lock().is_some()
    }

    /// Everything at this moment.
    pub(super) fn now(&self) -> StoreHealth {
        let errors = &self.errors;
        StoreHealth {
            fault: *self.lock(),
            errors: errors.each_ref().map(|count| count.load(Ordering::Relaxed)),
        }
    }

    /// The value is replaced whole, so a panic elsewhere cannot leave it half done.
    fn lock(&self) -> MutexGuard<'_, Option<Fault>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
