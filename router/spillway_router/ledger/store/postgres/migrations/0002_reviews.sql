-- Documents that wait for a person, and what became of them (reviews.py). content and outcome hold what was said, the
-- only place where anything does; both are emptied some days after the decision.
CREATE TABLE reviews (
    id          text    COLLATE "C" PRIMARY KEY CHECK (id <> ''),
    request_id  text    COLLATE "C" NOT NULL,
    created_ms  bigint  NOT NULL,
    state       text    COLLATE "C" NOT NULL CHECK (state IN ('open', 'accepted', 'corrected', 'dismissed')),
    schema_name text    COLLATE "C" NOT NULL,
    key_id      text    COLLATE "C" NOT NULL,
    private     boolean NOT NULL,
    step        text    COLLATE "C" NOT NULL,
    backend     text    COLLATE "C" NOT NULL,
    model       text    COLLATE "C" NOT NULL,
    confidence  double precision,
    why         text    COLLATE "C" NOT NULL,
    scores      text    COLLATE "C" NOT NULL,
    content     text    COLLATE "C",
    outcome     text    COLLATE "C",
    label       text    COLLATE "C",
    decided_ms  bigint  CHECK (decided_ms >= 0),
    decided_by  text    COLLATE "C" NOT NULL,
    CHECK ((state = 'open') = (decided_ms IS NULL))
);

CREATE INDEX reviews_created ON reviews (created_ms, id);
CREATE INDEX reviews_kept ON reviews (decided_ms) WHERE content IS NOT NULL;
