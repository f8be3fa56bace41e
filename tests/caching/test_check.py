"""`spillway check` and the server that stores answers: said where it does not answer, silent where it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.testing.redis_server import RedisServer


def warnings(folder: Path, store: str, *options: str) -> list[dict[str, Any]]:
    """What `spillway check` warns of about the cache."""
    path = folder / "spillway.yaml"
    path.write_text(
        f"ledger: {{url: 'sqlite:///{folder / 'ledger.db'}'}}\n"
        "backends: [{name: local, provider: vllm, local: true, model: m, base_url: 'http://127.0.0.1:1/v1'}]\n"
        f"cache: {{enabled: true, store: '{store}'}}\n"
    )
    result = CliRunner().invoke(app, ["check", "--json", "--config", str(path), *options])
    assert result.exit_code == 0, result.output
    return [warning for warning in json.loads(result.stdout)["warnings"] if "cache" in warning["where"]]


def test_a_redis_that_answers_is_no_news(redis: RedisServer, tmp_path: Path) -> None:
    assert warnings(tmp_path, redis.url) == []
    redis.stop()
    assert len(warnings(tmp_path, redis.url)) == 1


def test_a_redis_that_is_gone_is_said_with_its_line_and_without_its_password(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    absent = "redis://:hunter2@127.0.0.1:1/0"
    (gone,) = warnings(tmp_path, absent)
    assert (gone["where"], gone["line"]) == ("cache.store", 3)
    assert gone["problem"].startswith("no answer (ConnectionError of Redis); start the server")
    assert "hunter2" not in json.dumps(gone)
    assert warnings(tmp_path, absent, "--offline") == []


def test_a_store_on_this_machine_is_not_asked(tmp_path: Path) -> None:
    assert warnings(tmp_path, "memory") == []
