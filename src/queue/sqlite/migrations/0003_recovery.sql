-- What a process must know of the one before it, and what waits for a place.

-- The queue's time, which never goes back: the latest that was seen, and how far it is ahead of the
-- calendar, in milliseconds; and whether whoever noted it was still at work.
CREATE TABLE noted_time (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    high_ms  BIGINT  NOT NULL,
    ahead_ms BIGINT  NOT NULL,
    is_open  BOOLEAN NOT NULL
);

-- What was stored before has happened, even if the calendar was set back since. A time more than a
-- day ahead of the calendar is none: that was a broken clock, and going on from it would end every
-- result at once.
INSERT INTO noted_time (id, high_ms, ahead_ms, is_open)
SELECT 1, COALESCE(MAX(at_ms), 0), 0, FALSE
FROM (SELECT created_ms AS at_ms FROM jobs UNION ALL SELECT finished_ms FROM jobs)
WHERE at_ms <= (CAST(strftime('%s', 'now') AS INTEGER) + 86400) * 1000;

-- A job that ran when a process died is under suspicion: it runs alone, after all others. From here
-- on jobs.crashes counts only deaths while it ran alone; before, it counted every death.
ALTER TABLE jobs ADD COLUMN suspect BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE jobs SET suspect = TRUE, crashes = 0 WHERE crashes > 0 AND state <> 'done';

-- The host for whose place a waiting job is held back; none when it is in line like all others.
ALTER TABLE jobs ADD COLUMN held TEXT;

-- From here on a job that has begun has no start deadline any more, however often it waits again.
UPDATE jobs SET start_by_ms = NULL WHERE starts > 0 AND state = 'waiting';

DROP INDEX jobs_in_line;
CREATE INDEX jobs_in_line ON jobs (priority, seq, not_before_ms)
    WHERE state = 'waiting' AND suspect = FALSE AND held IS NULL;
CREATE INDEX jobs_held ON jobs (held, priority, seq, not_before_ms)
    WHERE state = 'waiting' AND suspect = FALSE AND held IS NOT NULL;
CREATE INDEX jobs_suspected ON jobs (crashes, seq, not_before_ms)
    WHERE state = 'waiting' AND suspect = TRUE;

-- The same of deliveries, and how often: being held back is no attempt.
ALTER TABLE deliveries ADD COLUMN held TEXT;
ALTER TABLE deliveries ADD COLUMN holds INTEGER NOT NULL DEFAULT 0;

DROP INDEX deliveries_due;
CREATE INDEX deliveries_due ON deliveries (due_ms)
    WHERE state = 'pending' AND owner IS NULL AND held IS NULL;
CREATE INDEX deliveries_held ON deliveries (held, due_ms)
    WHERE state = 'pending' AND owner IS NULL AND held IS NOT NULL;
