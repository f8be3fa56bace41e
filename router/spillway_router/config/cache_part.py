"""The settings of the cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, field_validator

from spillway_router.caching.urls import MEMORY, REDIS, SQLITE, VALKEY
from spillway_router.config.part import Part


class SemanticPart(Part):
    """Stored answers for similar questions too: single turns without tools, within one API key.

    `embedder` is a local backend that serves embeddings; one that takes longer than `timeout_ms` is passed over.
    `certificate` is a file of `spillway calibrate-cache` for the embedder's model, whose threshold applies. Without it
    only requests of the same content get a stored answer.
    """

    embedder: str
    certificate: Path | None = None
    timeout_ms: float = Field(100, ge=1, le=5_000)


class CachePart(Part):
    """Answers that are given again to requests of the same content, within one API key.

    Requests use the cache that say so (`x-spillway-cache`), those of the `scopes` key:ID and tier:NAME that are true
    here, and with `default: true` all others too. An answer is given again for `ttl_s` seconds. `store` is memory, a
    file (sqlite:///PATH) or the URL of a Redis or Valkey (redis://, rediss://, unix://); private requests are only
    cached in memory. `max_mb` bounds memory and file; a Redis bounds itself by its maxmemory. Answers above
    `max_answer_mb` are not stored. A store that takes longer than `timeout_ms` is passed over.

    `sampled: true` takes requests with a temperature above 0 too, which get a new answer every time otherwise.
    `users_apart: true` keeps apart the end users of a key (`user`, `safety_identifier`, `metadata.user_id`).
    """

    enabled: bool = False
    default: bool = False
    scopes: Mapping[str, bool] = {}
    ttl_s: float = Field(3600, gt=0, le=31 * 86_400)
    store: str = Field(MEMORY, repr=False)
    max_mb: float = Field(64, gt=0, le=65_536)
    max_answer_mb: float = Field(1, gt=0, le=8)
    timeout_ms: float = Field(50, ge=1, le=5_000)
    sampled: bool = False
    users_apart: bool = False
    semantic: SemanticPart | None = None

    @field_validator("scopes")
    @classmethod
    def _scopes(cls, value: Mapping[str, bool]) -> Mapping[str, bool]:
        for scope in value:
            kind, _, name = scope.partition(":")
            if kind not in ("key", "tier") or not name:
                raise ValueError(f"{scope!r} is no scope of the cache; write key:ID or tier:NAME")
        return value

    @field_validator("store")
    @classmethod
    def _store(cls, value: str) -> str:
        for name, url in VALKEY.items():
            value = url + value.removeprefix(name) if value.startswith(name) else value
        path = value.removeprefix(SQLITE)
        is_file = path != value and path and not path.endswith("/")
        if value != MEMORY and not is_file and not value.startswith(REDIS):
            raise ValueError("write memory, sqlite:///PATH, or the URL of a Redis or Valkey (redis://HOST:PORT/0)")
        return value

    def with_paths_from(self, folder: Path) -> CachePart:
        """Return the settings with the paths of files counted from a folder."""
        update: dict[str, object] = {}
        if self.store.startswith(SQLITE):
            update["store"] = f"{SQLITE}{folder / Path(self.store.removeprefix(SQLITE)).expanduser()}"
        if self.semantic is not None and self.semantic.certificate is not None:
            file = folder / self.semantic.certificate.expanduser()
            update["semantic"] = self.semantic.model_copy(update={"certificate": file})
        return self.model_copy(update=update)

    @property
    def needs_redis(self) -> bool:
        """Whether the store is a Redis or Valkey."""
        return self.enabled and self.store.startswith(REDIS)
