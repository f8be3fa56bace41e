"""One real llama.cpp server for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.engines.processes import LlamaServer, serving_llama


@pytest.fixture(scope="module")
def llama() -> Iterator[LlamaServer]:
    """Return a server with two slots of 1,024 tokens."""
    with serving_llama("--slots", "2") as server:
        yield server
