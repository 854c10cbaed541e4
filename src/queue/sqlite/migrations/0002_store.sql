-- The store's own row: who it is, and how often it changed. Both also stand in a file beside this one,
-- so that an emptied, shortened, exchanged or older file is noticed before it is used.
--
-- Attempts need no columns of their own: jobs.starts and deliveries.attempts rise with every claim,
-- never fall, and are the attempt's number.

CREATE TABLE store (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    identity TEXT    NOT NULL,              -- UUID, made with the file
    commits  BIGINT  NOT NULL DEFAULT 0     -- transactions so far
);
