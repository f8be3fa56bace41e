-- Which backend made a response of /v1/responses, and for which key (tables/stored_responses.py). It holds no text.
CREATE TABLE stored_responses (
    response_id  text   COLLATE "C" PRIMARY KEY CHECK (response_id <> ''),
    key_id       text   COLLATE "C" NOT NULL,
    backend      text   COLLATE "C" NOT NULL,
    made_ms      bigint NOT NULL,
    private      bigint NOT NULL CHECK (private IN (0, 1))
);

CREATE INDEX stored_responses_made ON stored_responses (made_ms);
