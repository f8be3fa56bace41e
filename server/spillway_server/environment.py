"""The process's environment and the user's folders; no other module of the server reads them."""

from __future__ import annotations

import os
from pathlib import Path

# The first opens debug endpoints that control the engine; the others are the router's configuration, perhaps with keys.
_FORBIDDEN = ("VLLM_SERVER_DEV_MODE", "SPILLWAY_YAML", "SPILLWAY_YAML_BASE64")


def engine_environment(extra: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Return the environment for vLLM: the user's own without dangerous variables, which wins over `extra`."""
    inherited = {name: value for name, value in os.environ.items() if name not in _FORBIDDEN}
    return {**dict(extra), **inherited}


def engine_api_key() -> str | None:
    """Return the API key that the engine will require, from VLLM_API_KEY."""
    return os.environ.get("VLLM_API_KEY") or None


def hub_cache() -> Path:
    """Return the folder of downloaded hub models."""
    home = os.environ.get("HF_HOME", str(Path.home() / ".cache" / "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", str(Path(home) / "hub")))


def project_root() -> Path:
    """Return the checkout of an editable installation; meaningless for an installed wheel."""
    return Path(__file__).resolve().parents[2]
