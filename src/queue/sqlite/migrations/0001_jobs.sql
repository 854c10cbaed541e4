-- Jobs, what they were asked, what they answered, and who is told.
-- Times are milliseconds since the epoch. Large bodies stand in tables of their own, so that looking
-- at a job does not read them.

CREATE TABLE jobs (
    seq              INTEGER PRIMARY KEY,       -- order of arrival
    id               TEXT    NOT NULL UNIQUE,   -- UUID
    endpoint         TEXT    NOT NULL,
    priority         INTEGER NOT NULL,          -- 0 normal, 1 low
    state            TEXT    NOT NULL CHECK (state IN ('waiting', 'running', 'done')),
    created_ms       BIGINT  NOT NULL,
    not_before_ms    BIGINT  NOT NULL,          -- end of the pause after a failure
    start_by_ms      BIGINT,                    -- the caller's start deadline
    may_retry        BOOLEAN NOT NULL,
    keep_payload     BOOLEAN NOT NULL,
    webhook          TEXT,
    owner            TEXT,                      -- who runs it, while it runs
    lease_until_ms   BIGINT,
    starts           INTEGER NOT NULL DEFAULT 0,
    failures         INTEGER NOT NULL DEFAULT 0, -- attempts that ended in a failure of ours
    crashes          INTEGER NOT NULL DEFAULT 0, -- attempts that ended with the process
    cancel_requested BOOLEAN NOT NULL DEFAULT FALSE,
    log              TEXT    NOT NULL DEFAULT '[]', -- JSON
    finished_ms      BIGINT,
    expires_ms       BIGINT,
    inference_us     BIGINT,
    error            TEXT,
    error_type       TEXT
);

-- Who is next; the pause is in the index, so that jobs in a pause are passed over without a look.
CREATE INDEX jobs_in_line ON jobs (priority, seq, not_before_ms) WHERE state = 'waiting';
-- Who is ahead.
CREATE INDEX jobs_ahead ON jobs (endpoint, priority, seq) WHERE state = 'waiting';
-- Whose deadline has passed.
CREATE INDEX jobs_overdue ON jobs (start_by_ms) WHERE state = 'waiting' AND start_by_ms IS NOT NULL;
CREATE INDEX jobs_running ON jobs (owner) WHERE state = 'running';
CREATE INDEX jobs_expiring ON jobs (expires_ms) WHERE state = 'done';

-- What was asked. Deleted when the job ends, unless it failed by our fault.
CREATE TABLE requests (
    job          INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    content_type TEXT,
    base         TEXT NOT NULL,
    lifecycle    TEXT,                          -- of files that the answer produces
    body         BLOB NOT NULL
);

-- What is answered. The key makes a second result impossible.
CREATE TABLE results (
    job     INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    status  INTEGER NOT NULL,
    headers TEXT    NOT NULL, -- JSON
    body    BLOB    NOT NULL
);

-- Who is told.
CREATE TABLE deliveries (
    job            INTEGER PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
    url            TEXT    NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts       INTEGER NOT NULL DEFAULT 0,
    due_ms         BIGINT  NOT NULL,
    owner          TEXT,
    lease_until_ms BIGINT,
    last_error     TEXT
);

CREATE INDEX deliveries_due ON deliveries (due_ms) WHERE state = 'pending' AND owner IS NULL;
CREATE INDEX deliveries_under_way ON deliveries (owner) WHERE owner IS NOT NULL;
