//! `JobStore`: the operations through which the rest of this room reaches stored jobs, and the
//! records that travel through them.
//!
//! Every operation is one transaction, and what it answers is durable before it answers. A store
//! holds all state: who runs a job is written down as an owner with a lease, so that several
//! processes can share one store, and nothing breaks when a process forgets everything. Times come
//! in as arguments, in the milliseconds of [`super::timeline`]; a store has no clock.
//!
//! Every store passes the suite in [`super::conformance`]. It must never give one job to two owners,
//! nor store two results for one job.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use uuid::Uuid;

use super::answerer::{JobAnswer, JobRequest};
use super::health::{Fault, StoreHealth};
use super::job::{
    CancelOutcome, Counts, JobError, JobResult, LogLine, NewJob, State, StoredResult,
};
use super::timeline::KeptTime;

/// What an operation promises.
pub(super) type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The store failed. The text is for the log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the job store failed: {text}")]
pub struct StoreError {
    text: String,
    fault: Fault,
}

impl StoreError {
    /// A failure in the store's own words.
    pub(super) fn new(fault: Fault, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { text, fault }
    }

    /// The failure of a store that was closed.
    pub(super) fn closed() -> Self {
        Self::new(Fault::Closed, "it is closed")
    }

    /// The kind of failure.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }
}

/// Stored jobs and webhook deliveries.
pub(super) trait JobStore: Send + Sync + Debug + 'static {
    /// Puts a job in line, unless too many wait for its endpoint.
    fn submit(&self, new: Submission) -> Reply<'_, Admission>;

    /// Hands a waiting job to an owner.
    fn claim(&self, claim: Claim) -> Reply<'_, Claimed>;

    /// Prolongs the leases of attempts that run, and tells which of them are to be cancelled and
    /// which are no longer the job's present one.
    fn renew(&self, renew: Renew) -> Reply<'_, Renewed>;

    /// Stores the one result of a running job, and says whether this was still its attempt.
    fn finish(&self, finish: Finish) -> Reply<'_, bool>;

    /// Puts a running job back in line, and says whether this was still its attempt. A job that is to
    /// be cancelled goes back too; its next owner is told at once.
    fn put_back(&self, put_back: PutBack) -> Reply<'_, bool>;

    /// Deals with the running jobs and sent deliveries of owners that are gone: back in line under
    /// suspicion, or done if the job is to be cancelled or has killed too many processes while it ran
    /// alone.
    fn recover(&self, recover: Recover) -> Reply<'_, Recovered>;

    /// Takes a waiting job out of the line with this result, or marks a running one as to be
    /// cancelled.
    fn cancel(&self, id: Uuid, completion: Completion) -> Reply<'_, CancelOutcome>;

    /// Looks at a job that has not expired.
    fn status(&self, id: Uuid, now_ms: i64) -> Reply<'_, Option<StoredStatus>>;

    /// Fetches the result of a job that has not expired.
    fn result(&self, id: Uuid, now_ms: i64) -> Reply<'_, Option<JobResult>>;

    /// Counts the jobs that are not done.
    fn counts(&self) -> Reply<'_, Counts>;

    /// Deletes up to `limit` expired jobs with everything that belongs to them, gives some space back,
    /// and says whether there is more to do.
    fn expire(&self, now_ms: i64, limit: u32) -> Reply<'_, bool>;

    /// Hands a due webhook delivery to an owner.
    fn claim_delivery(&self, claim: ClaimDelivery) -> Reply<'_, ClaimedDelivery>;

    /// Notes what came of a delivery, and says whether this was still its attempt.
    fn settle_delivery(&self, settle: Settle) -> Reply<'_, bool>;

    /// Whose places held work waits for.
    fn held(&self) -> Reply<'_, HeldWork>;

    /// The time that was noted last; zeros if none ever was.
    fn time(&self) -> Reply<'_, KeptTime>;

    /// Notes the time in place of what was noted before.
    fn note_time(&self, time: KeptTime) -> Reply<'_, ()>;

    /// The store's health at this moment.
    fn health(&self) -> StoreHealth;

    /// Finishes what is under way and lets go of the store.
    fn close(&self) -> Reply<'_, ()>;
}

/// A job on its way in.
#[derive(Clone, Debug)]
pub(super) struct Submission {
    pub(super) id: Uuid,
    pub(super) job: NewJob,
    pub(super) now_ms: i64,
}

/// What came of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is in line.
    Accepted {
        /// Jobs ahead of it for its endpoint.
        position: u64,
    },
    /// Its own limit on the line's length refuses it.
    Full {
        /// Jobs that wait for its endpoint.
        waiting: u64,
    },
}

/// One attempt at a job, or at the delivery of its result: the name under which it may be changed.
///
/// Every claim makes a new attempt with a higher number. What comes in the name of an earlier one is
/// refused, although its owner may be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// The job.
    pub(super) id: Uuid,
    /// Who claimed it.
    pub(super) owner: Uuid,
    /// Claims of this job, or of this delivery, up to and including this one.
    pub(super) number: u32,
}

/// Who wants a job, and which.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) owner: Uuid,
    pub(super) now_ms: i64,
    pub(super) lease_until_ms: i64,
    pub(super) which: Which,
    /// A source for whose place jobs may be held. Theirs are in line with all others this time.
    pub(super) source: Option<String>,
}

/// Which job is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The oldest of the highest priority that is neither in a pause, nor held, nor under suspicion.
    Next,
    /// One that never ran and whose start deadline has passed. It comes without its body, because it
    /// will be refused.
    Overdue,
    /// One under suspicion: of those with the fewest crashes the oldest.
    Suspect {
        /// Crashes that it may have.
        most_crashes: u32,
        /// Whether it waits for all that [`Which::Next`] would give.
        goes_last: bool,
    },
}

/// What came of a claim.
#[derive(Clone, Debug)]
pub(super) enum Claimed {
    /// A job; it is running now.
    Job(Box<ClaimedJob>),
    /// No job can be had.
    Nothing {
        /// When the pause of the first waiting job ends, if one is in a pause. For
        /// [`Which::Suspect`]: not before then, if one waits at all.
        next_due_ms: Option<i64>,
    },
}

/// A job with its owner.
#[derive(Clone, Debug)]
pub(super) struct ClaimedJob {
    pub(super) attempt: Attempt,
    pub(super) request: JobRequest,
    /// Latest moment to begin; none once it has begun before.
    pub(super) start_by_ms: Option<i64>,
    pub(super) may_retry: bool,
    /// Attempts that ended in a failure of ours.
    pub(super) failures: u32,
    /// Whether it is to be cancelled instead of run.
    pub(super) cancel_requested: bool,
    pub(super) log: Vec<LogLine>,
}

/// The end of a job.
#[derive(Clone, Debug)]
pub(super) struct Completion {
    pub(super) answer: JobAnswer,
    pub(super) now_ms: i64,
    pub(super) expires_ms: i64,
    /// Whether the request stays, if the caller allows it, for a person to look at.
    pub(super) keeps_request: bool,
}

/// A running job's end.
#[derive(Clone, Debug)]
pub(super) struct Finish {
    pub(super) attempt: Attempt,
    pub(super) completion: Completion,
    /// How long the last attempt ran.
    pub(super) inference_us: Option<i64>,
    pub(super) log: Vec<LogLine>,
}

/// A running job's way back into the line.
#[derive(Clone, Debug)]
pub(super) struct PutBack {
    pub(super) attempt: Attempt,
    /// End of the pause before it may be claimed again.
    pub(super) not_before_ms: i64,
    /// Whether we failed, as opposed to stopped.
    pub(super) failed: bool,
    /// Whether it has met its start deadline; else it keeps that.
    pub(super) has_begun: bool,
    /// The source for whose place it is held.
    pub(super) held: Option<String>,
    pub(super) log: Vec<LogLine>,
}

/// Attempts that go on, and until when they are safe from recovery.
#[derive(Clone, Debug)]
pub(super) struct Renew {
    pub(super) attempts: Vec<Attempt>,
    pub(super) lease_until_ms: i64,
}

/// What became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Renewed {
    /// Jobs that are to be cancelled.
    pub(super) unwanted: Vec<Uuid>,
    /// Attempts whose jobs were taken from them; nothing that they answer is stored.
    pub(super) lost: Vec<Attempt>,
}

/// How to deal with what dead owners left behind.
#[derive(Clone, Debug)]
pub(super) struct Recover {
    /// The owner who asks; its own jobs are left alone.
    pub(super) owner: Uuid,
    /// Leases that ended by then are void.
    pub(super) lease_before_ms: i64,
    /// Deaths of a process, while it ran this job and no other, after which a job is not tried again.
    pub(super) max_crashes: u32,
    /// Whether the process before died. Else no job was the cause of anything. If it died and no job
    /// ran then, none was its cause, and none is held guilty of the deaths before.
    pub(super) died: bool,
    /// The end of a job that was to be cancelled.
    pub(super) cancelled: Completion,
    /// The end of a job that has killed too many processes.
    pub(super) poisoned: Completion,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recovered {
    /// Jobs that are back in line, all under suspicion.
    pub(super) back: u64,
    /// Jobs that are done now, because they were cancelled or killed too many processes.
    pub(super) done: Vec<Uuid>,
    /// Jobs that wait under suspicion, whenever that fell on them.
    pub(super) suspects: u64,
}

/// Parties for whose places work is held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldWork {
    /// Of jobs.
    pub(super) sources: Vec<String>,
    /// Of deliveries.
    pub(super) receivers: Vec<String>,
}

/// A job as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StoredStatus {
    pub(super) endpoint: String,
    pub(super) state: State,
    /// Jobs ahead of it for its endpoint, while it waits.
    pub(super) ahead: u64,
    pub(super) inference_us: Option<i64>,
    pub(super) error: Option<JobError>,
    pub(super) log: Vec<LogLine>,
}

/// Who wants a delivery.
#[derive(Clone, Debug)]
pub(super) struct ClaimDelivery {
    pub(super) owner: Uuid,
    pub(super) now_ms: i64,
    pub(super) lease_until_ms: i64,
    /// A receiver for whose place deliveries may be held. Theirs are due like all others this time.
    pub(super) receiver: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClaimedDelivery {
    /// A delivery to try.
    Due(Box<Delivery>),
    /// Nothing is due.
    Nothing {
        /// When the first one will be.
        next_due_ms: Option<i64>,
    },
}

/// The news of a job's end, for whoever asked to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) attempt: Attempt,
    pub(super) url: String,
    /// Attempts before this one at which the receiver was asked.
    pub(super) earlier_attempts: u32,
    /// When the result expires, and the delivery with it.
    pub(super) expires_ms: i64,
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// The end of an attempt to deliver.
#[derive(Clone, Debug)]
pub(super) struct Settle {
    pub(super) attempt: Attempt,
    pub(super) outcome: Settled,
}

/// What came of an attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The receiver has it.
    Delivered,
    /// It will never have it.
    Failed {
        /// Why, for a person who looks into the store.
        reason: String,
    },
    /// Another attempt is due at some moment.
    Again {
        /// That moment.
        at_ms: i64,
        /// Why, for a person who looks into the store.
        reason: String,
    },
    /// There was no attempt: it is held until there is a place for its receiver.
    Held {
        /// The receiver.
        receiver: String,
    },
}

impl From<&JobAnswer> for StoredResult {
    fn from(answer: &JobAnswer) -> Self {
        Self {
            status: answer.status,
            headers: answer.headers.clone(),
            body: answer.body.clone(),
        }
    }
}
