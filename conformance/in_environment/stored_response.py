"""A plugin for pytest: the stored response that a test of openai-python names exists before the test begins.

The ids are examples that no server has made. The scripted upstream gives a response the id that its metadata asks for.
"""

from __future__ import annotations

import os
import re

import httpx
import pytest

_NAMED = (
    (re.compile(r"test_input_items\.py"), "response_id"),
    (re.compile(r"test_responses\.py.*::test_\w*(retrieve|delete|cancel)"), "resp_677efb5139a88190b512bc3fef8e535d"),
)
"""The ids that the tests name."""


@pytest.fixture(autouse=True)
def stored_response(request: pytest.FixtureRequest) -> None:
    """Make the response where the test needs it."""
    for tests, response_id in _NAMED:
        if tests.search(request.node.nodeid):
            body = {"model": "gpt-6-astra", "input": "Hello", "metadata": {"scripted_id": response_id}}
            httpx.post(f"{os.environ['TEST_API_BASE_URL']}/responses", json=body, timeout=20).raise_for_status()
