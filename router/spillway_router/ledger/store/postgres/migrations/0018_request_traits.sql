-- What requests asked for where rules look at it, for replays (tables/request_traits.py). It holds no text.
CREATE TABLE request_traits (
    request_id  text    COLLATE "C" PRIMARY KEY CHECK (request_id <> ''),
    model       text    COLLATE "C" NOT NULL,
    complexity  integer NOT NULL,
    language    text    COLLATE "C" NOT NULL
);
