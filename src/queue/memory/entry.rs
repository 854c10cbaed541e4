//! One job as the memory store holds it, with the moves it can make.

use uuid::Uuid;

use crate::queue::job::{JobError, LogLine, NewJob, Priority, State, StoredResult, Transition};
use crate::queue::store::{Attempt, Completion, Submission};

/// An owner and the end of its lease.
pub(super) type Lease = Option<(Uuid, i64)>;

#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: Uuid,
    pub(super) job: NewJob,
    pub(super) state: State,
    pub(super) lease: Lease,
    pub(super) not_before_ms: i64,
    pub(super) starts: u32,
    pub(super) failures: u32,
    pub(super) crashes: u32,
    pub(super) suspect: bool,
    pub(super) held: Option<String>,
    pub(super) cancel_requested: bool,
    pub(super) log: Vec<LogLine>,
    pub(super) inference_us: Option<i64>,
    pub(super) end: Option<End>,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) result: StoredResult,
    pub(super) error: Option<JobError>,
    pub(super) expires_ms: i64,
    pub(super) delivery: Option<Pending>,
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) url: String,
    pub(super) attempts: u32,
    pub(super) due_ms: i64,
    pub(super) lease: Lease,
    pub(super) held: Option<String>,
    pub(super) holds: u32,
}

impl Pending {
    /// Whether this is the attempt that is under way.
    pub(super) fn is_of(&self, attempt: Attempt) -> bool {
        self.attempts == attempt.number && is_held_by(self.lease, attempt.owner)
    }
}

fn is_held_by(lease: Lease, owner: Uuid) -> bool {
    lease.is_some_and(|(holder, _)| holder == owner)
}

impl Job {
    /// A job that has just been handed in.
    pub(super) fn new(new: Submission) -> Self {
        Self {
            id: new.id,
            job: new.job,
            state: State::Waiting,
            lease: None,
            not_before_ms: new.now_ms,
            starts: 0,
            failures: 0,
            crashes: 0,
            suspect: false,
            held: None,
            cancel_requested: false,
            log: Vec::new(),
            inference_us: None,
            end: None,
        }
    }

    /// Makes a move if it is legal from where the job stands.
    pub(super) fn make(&mut self, transition: Transition) -> bool {
        let is_legal = self.state == transition.from();
        if is_legal {
            self.state = transition.to();
        }
        is_legal
    }

    /// Whether this is the attempt that runs.
    pub(super) fn is_of(&self, attempt: Attempt) -> bool {
        self.starts == attempt.number && is_held_by(self.lease, attempt.owner)
    }

    /// Its place among those that wait, given where it stands in the order of arrival.
    pub(super) fn place(&self, arrival: usize) -> (bool, u32, Priority, usize) {
        let priority = if self.suspect {
            Priority::Normal
        } else {
            self.job.priority
        };
        (self.suspect, self.crashes, priority, arrival)
    }

    pub(super) fn waits_for(&self, endpoint: &str) -> bool {
        self.state == State::Waiting && self.job.endpoint == endpoint
    }

    pub(super) fn is_expired(&self, now_ms: i64) -> bool {
        self.end
            .as_ref()
            .is_some_and(|end| end.expires_ms <= now_ms)
    }

    pub(super) fn complete(&mut self, completion: &Completion) {
        let delivery = self.job.webhook.clone().map(|url| Pending {
            url,
            attempts: 0,
            due_ms: completion.now_ms,
            lease: None,
            held: None,
            holds: 0,
        });
        self.lease = None;
        if !(completion.keeps_request && self.job.keep_payload) {
            self.job.body.clear();
        }
        self.end = Some(End {
            result: StoredResult::from(&completion.answer),
            error: completion.answer.error.clone(),
            expires_ms: completion.expires_ms,
            delivery,
        });
    }
}
