-- The provider keys that callers have stored, sealed (vault.py), by API key, pseudonym of the end user and provider.
CREATE TABLE provider_keys (
    key_id    TEXT    NOT NULL,
    user_id   TEXT    NOT NULL,
    provider  TEXT    NOT NULL,
    sealed    BLOB    NOT NULL,
    stored_ms INTEGER NOT NULL,
    PRIMARY KEY (key_id, user_id, provider)
) STRICT, WITHOUT ROWID;
