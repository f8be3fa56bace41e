"""The process's environment and the user's folders; no other module of the server reads them."""

from __future__ import annotations

import os
from pathlib import Path

PASSED_VARIABLE = "SPILLWAY_ENGINE_VARIABLES"
"""Names of further variables for the engine, separated by commas."""
_FORBIDDEN = frozenset({"VLLM_SERVER_DEV_MODE"})
"""It opens debug endpoints that control the engine."""
_PASSED = frozenset(
    [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TEMP",
        "TMP",
        "HOSTNAME",
        "TERM",
        "CC",
        "CXX",
        "CPATH",
        "LIBRARY_PATH",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "MAX_JOBS",
        "TOKENIZERS_PARALLELISM",
        "DO_NOT_TRACK",
        "VIRTUAL_ENV",
    ]
)
_PASSED_BEGINNINGS = (
    "LC_",
    "XDG_",
    "PYTHON",
    "VLLM_",
    "HF_",
    "HUGGING_FACE_",
    "HUGGINGFACE_",
    "TRANSFORMERS_",
    "SAFETENSORS_",
    "TORCH",
    "PYTORCH_",
    "TRITON_",
    "CUDA_",
    "CUDNN_",
    "CUBLAS_",
    "NVIDIA_",
    "NCCL_",
    "FLASHINFER_",
    "FLASH_ATTENTION_",
    "OMP_",
    "KMP_",
    "MKL_",
    "OPENBLAS_",
    "GOMP_",
    "NUMEXPR_",
    "MALLOC_",
    "GLOO_",
    "RAY_",
    "UCX_",
    "ROCM_",
    "HIP_",
    "HSA_",
    "ONEDNN_",
    "DNNL_",
    "CCL_",
    "MASTER_",
    "NUMBA_",
)
"""What vLLM and its libraries read. Everything else stays with the router: keys of providers, passwords of databases,
the configuration."""


def engine_environment(extra: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Return the environment for vLLM: of the user's own what an engine reads, which wins over `extra`."""
    named = {name.strip() for name in os.environ.get(PASSED_VARIABLE, "").split(",")}
    inherited = {name: value for name, value in os.environ.items() if name in named or _is_passed(name)}
    return {**dict(extra), **inherited}


def _is_passed(name: str) -> bool:
    return name not in _FORBIDDEN and (name in _PASSED or name.startswith(_PASSED_BEGINNINGS))


def engine_api_key() -> str | None:
    """Return the API key that the engine will require, from VLLM_API_KEY."""
    return os.environ.get("VLLM_API_KEY") or None


def hub_cache() -> Path:
    """Return the folder of downloaded hub models."""
    home = os.environ.get("HF_HOME", str(Path.home() / ".cache" / "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", str(Path(home) / "hub")))


def stored_models() -> Path:
    """Return the folder of models that were fetched from object stores, beside that of the hub's."""
    return hub_cache().parent / "stores"


def has_store_endpoint() -> bool:
    """Return whether the object store is not Amazon's (AWS_ENDPOINT_URL)."""
    return any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"))


def hub_endpoint() -> str:
    """Return the address of the model hub, from HF_ENDPOINT; empty where HF_HUB_OFFLINE forbids asking one."""
    if os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on"):
        return ""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def hub_token() -> str:
    """Return the token for the model hub: from HF_TOKEN, or as `hf auth login` stored it; empty without one."""
    named = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    if named:
        return named.strip()
    home = Path(os.environ.get("HF_HOME", str(Path.home() / ".cache" / "huggingface")))
    try:
        return Path(os.environ.get("HF_TOKEN_PATH", str(home / "token"))).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def project_root() -> Path:
    """Return the checkout of an editable installation; meaningless for an installed wheel."""
    return Path(__file__).resolve().parents[2]
