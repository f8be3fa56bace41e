-- The provider keys that callers have stored, sealed (vault.py), by API key, pseudonym of the end user and provider.
CREATE TABLE provider_keys (
    key_id    text   COLLATE "C" NOT NULL,
    user_id   text   COLLATE "C" NOT NULL,
    provider  text   COLLATE "C" NOT NULL,
    sealed    bytea  NOT NULL,
    stored_ms bigint NOT NULL,
    PRIMARY KEY (key_id, user_id, provider)
);
