"""The one place of the server that reads the process's environment and the user's folders."""

from __future__ import annotations

import os
from pathlib import Path

# Opens debug endpoints that take the engine over; never passed on, whoever set it.
_FORBIDDEN = ("VLLM_SERVER_DEV_MODE",)


def engine_environment(extra: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """The environment for vLLM: the user's own, without what is dangerous; what the user set wins over `extra`."""
    inherited = {name: value for name, value in os.environ.items() if name not in _FORBIDDEN}
    return {**dict(extra), **inherited}


def engine_api_key() -> str | None:
    """The key that the engine will ask for, from VLLM_API_KEY."""
    return os.environ.get("VLLM_API_KEY") or None


def hub_cache() -> Path:
    """The folder of downloaded hub models."""
    home = os.environ.get("HF_HOME", str(Path.home() / ".cache" / "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", str(Path(home) / "hub")))


def project_root() -> Path:
    """The checkout that this package was installed from in place; meaningless for an installed wheel."""
    return Path(__file__).resolve().parents[2]
