"""The suites, in the order of the page."""

from __future__ import annotations

from conformance.model import Suite
from conformance.suites import anthropic_python, http1, langchain, open_responses, openai_python, openapi

SUITES: tuple[Suite, ...] = (
    openai_python.SUITE,
    anthropic_python.SUITE,
    langchain.SUITE,
    open_responses.SUITE,
    openapi.SUITE,
    http1.SUITE,
)
