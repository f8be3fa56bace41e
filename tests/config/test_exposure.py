"""Warnings about who can reach a router without a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from spillway_router.config.exposure import exposure_warnings
from spillway_router.config.load import parse
from spillway_router.config.running_proxies import running_proxies


@pytest.mark.parametrize(
    ("text", "proxies", "places"),
    [
        ("", [], []),
        ("", ["nginx"], ["keys.required"]),
        ("keys: {required: true}", ["nginx"], []),
        ("listen: 0.0.0.0:8080", [], ["listen"]),
        ("listen: '[::]:8080'", ["caddy"], ["listen"]),
        ("listen: 10.0.0.5:8080\nkeys: {required: true}", [], ["listen"]),
        ("listen: 127.0.0.1:8080\ncors: {origins: ['https://a.example']}", [], ["cors.origins"]),
        ("cors: {origins: ['*']}", [], []),
    ],
)
def test_what_opens_a_router_to_others_is_warned_of(text: str, proxies: list[str], places: list[str]) -> None:
    assert [problem.where for problem in exposure_warnings(parse(text, {}), proxies)] == places


def test_proxies_are_found_by_their_processes(tmp_path: Path) -> None:
    for number, name in ((1, "init"), (20, "nginx"), (21, "nginx"), (30, "cloudflared"), (31, "notnginx")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "comm").write_text(f"{name}\n")
    (tmp_path / "40").mkdir()  # it has ended
    (tmp_path / "self").mkdir()
    assert running_proxies(tmp_path) == ["cloudflared", "nginx"]
