"""LangChain's standard tests of its chat models and embeddings, with the server that `CONFORMANCE_URL` names.

pytest runs this module in the suites' environment, where LangChain is installed (conformance/suites/langchain.py).
"""

from __future__ import annotations

import os
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

URL = os.environ["CONFORMANCE_URL"]
MODEL = os.environ["CONFORMANCE_MODEL"]


class TestChatCompletions(ChatModelIntegrationTests):
    """ChatOpenAI on chat completions."""

    chat_model_class = ChatOpenAI
    chat_model_params = {"model": MODEL, "base_url": f"{URL}/v1", "api_key": "unused", "stream_usage": True}  # noqa: RUF012
    supports_json_mode = True
    supports_image_inputs = True
    model_override_value = MODEL
    supports_image_tool_message = False
    supports_pdf_inputs = True
    supports_audio_inputs = True


class TestResponses(ChatModelIntegrationTests):
    """ChatOpenAI on the Responses API."""

    chat_model_class = ChatOpenAI
    chat_model_params = {**TestChatCompletions.chat_model_params, "use_responses_api": True}  # noqa: RUF012
    supports_json_mode = True
    supports_image_inputs = True
    model_override_value = MODEL
    supports_pdf_inputs = True


class TestMessages(ChatModelIntegrationTests):
    """ChatAnthropic."""

    chat_model_class = ChatAnthropic
    chat_model_params = {"model": MODEL, "base_url": URL, "api_key": "unused", "max_tokens": 256}  # noqa: RUF012
    supports_image_inputs = True
    model_override_value = MODEL
    supports_image_tool_message = True
    supports_pdf_inputs = True
    supports_pdf_tool_message = True
    supports_anthropic_inputs = True


class TestEmbeddings(EmbeddingsIntegrationTests):
    """OpenAIEmbeddings, without the tokenizer that it would fetch from the internet."""

    embeddings_class = OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        """Return what the embeddings are made with."""
        address = {"base_url": f"{URL}/v1", "api_key": "unused"}
        return {"model": MODEL, **address, "check_embedding_ctx_length": False}
