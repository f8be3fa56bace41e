"""The suites, in the order of the page."""

from __future__ import annotations

from conformance.model import Suite
from conformance.suites import (
    anthropic_python,
    http1,
    langchain,
    llama_cpp,
    llm_comply,
    open_responses,
    openai_python,
    openai_python_vllm,
    openapi,
)

SUITES: tuple[Suite, ...] = (
    openai_python.SUITE,
    openai_python_vllm.SUITE,
    anthropic_python.SUITE,
    langchain.SUITE,
    open_responses.SUITE,
    llm_comply.SUITE,
    llama_cpp.SUITE,
    openapi.SUITE,
    http1.SUITE,
)
