-- What bodies have beyond their first mebibyte, in pieces of one mebibyte, so that writing and reading
-- one takes no more memory than the body itself and a few pieces. The first piece stands in
-- requests.body and results.body. Bodies from before stand there whole.

CREATE TABLE request_pieces (
    job    INTEGER NOT NULL REFERENCES requests (job) ON DELETE CASCADE,
    number INTEGER NOT NULL,                    -- from 1
    bytes  BLOB    NOT NULL,
    PRIMARY KEY (job, number)
);

CREATE TABLE result_pieces (
    job    INTEGER NOT NULL REFERENCES results (job) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    bytes  BLOB    NOT NULL,
    PRIMARY KEY (job, number)
);
