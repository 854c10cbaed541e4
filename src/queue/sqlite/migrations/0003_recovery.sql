-- What a process must know of the one before it.

-- The queue's time, which never goes back: the latest that was seen, and how far it is ahead of the
-- calendar, in milliseconds.
CREATE TABLE noted_time (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    high_ms  BIGINT NOT NULL,
    ahead_ms BIGINT NOT NULL
);

-- What was stored before has happened, even if the calendar was set back since. A time more than a
-- day ahead of the calendar is none: that was a broken clock, and going on from it would end every
-- result at once.
INSERT INTO noted_time (id, high_ms, ahead_ms)
SELECT 1, COALESCE(MAX(at_ms), 0), 0
FROM (SELECT created_ms AS at_ms FROM jobs UNION ALL SELECT finished_ms FROM jobs)
WHERE at_ms <= (CAST(strftime('%s', 'now') AS INTEGER) + 86400) * 1000;
