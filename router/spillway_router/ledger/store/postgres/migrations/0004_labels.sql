-- What audits found of local answers (labels.py): right or wrong, per field, with the scores. No content.
CREATE TABLE labels (
    request_id  text    COLLATE "C" PRIMARY KEY CHECK (request_id <> ''),
    ts          bigint  NOT NULL,
    task        text    COLLATE "C" NOT NULL,
    backend     text    COLLATE "C" NOT NULL,
    model       text    COLLATE "C" NOT NULL,
    judge       text    COLLATE "C" NOT NULL,
    confidence  double precision,
    "right"     boolean NOT NULL,
    scores      text    COLLATE "C" NOT NULL,
    fields      text    COLLATE "C" NOT NULL
);

CREATE INDEX labels_ts ON labels (ts, request_id);

-- How many reviews wait, and since when, is asked with every document that goes there and with every look at metrics.
CREATE INDEX reviews_open ON reviews (created_ms) WHERE state = 'open';
