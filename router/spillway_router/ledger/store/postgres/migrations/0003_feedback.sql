-- What people thought of answers (feedback.py): a rating, and which answer was asked for as a better one. The only text is
-- the reason that whoever rated gave.
CREATE TABLE feedback (
    request_id  text    COLLATE "C" PRIMARY KEY CHECK (request_id <> ''),
    ts          bigint  NOT NULL,
    key_id      text    COLLATE "C" NOT NULL,
    backend     text    COLLATE "C" NOT NULL,
    model       text    COLLATE "C" NOT NULL,
    rating      integer CHECK (rating BETWEEN 1 AND 5),
    reason      text    COLLATE "C" NOT NULL,
    better_id   text    COLLATE "C" NOT NULL
);

CREATE INDEX feedback_ts ON feedback (ts);
