"""Adapters by name in the documents; a real engine with two of them is in test_up.py."""

from __future__ import annotations

import re
from typing import Any

import yaml

from spillway_router.config import load
from spillway_router.testing.processes import ROOT


def test_the_configurations_in_the_docs_are_valid() -> None:
    page = (ROOT / "docs" / "convert.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert len(blocks) == 2
    for block in blocks:
        settings = load.parse(block, {})
        data: dict[str, Any] = yaml.safe_load(block)
        assert [backend.model for backend in settings.backends] == [b["model"] for b in data["backends"]]
