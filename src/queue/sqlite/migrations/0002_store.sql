-- The store's own row: how often it changed. The same number stands in a file beside this one, so that
-- an emptied, shortened, exchanged or older file is noticed before it is used.
--
-- Attempts need no columns of their own: jobs.starts and deliveries.attempts rise with every claim,
-- never fall, and are the attempt's number.

CREATE TABLE store (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    commits  BIGINT  NOT NULL               -- transactions so far
);

INSERT INTO store (only_row, commits) VALUES (1, 0);
