"""Stand-ins for the pictures, sounds and PDFs that LangChain's tests would fetch from the internet."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

_PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def files_without_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer every `httpx.get` to another machine with the bytes of one small picture."""
    real = httpx.get

    def fetch(url: str, **options: Any) -> httpx.Response:
        if "127.0.0.1" in url:
            return real(url, **options)
        return httpx.Response(200, content=_PICTURE, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", fetch)
