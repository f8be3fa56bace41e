"""Explain why an engine ended, in words that a user can act on, from its exit status and its last log lines. Pure."""

from __future__ import annotations

import re

from spillway_server.obstacle import Obstacle

# The first match wins, so causes come before their consequences.
_PATTERNS: tuple[tuple[str, str, str], ...] = (
    (
        r"exit code: -4\b|Illegal instruction",
        "the processor rejected an instruction (SIGILL), often AMX bfloat16 that a hypervisor lists but doesn't allow.",
        "Start with --vllm-arg=--dtype=float32.",
    ),
    (
        r"[Aa]ddress already in use",
        "the port is taken by another process.",
        "Stop that process or choose another port with --port.",
    ),
    (
        r"unrecognized arguments?: .*|error: argument .*",
        "vLLM doesn't know one of its arguments.",
        "Check the vLLM arguments you passed (server.vllm_args, --vllm-arg) against this version of vLLM.",
    ),
    (
        r"CUDA out of memory|No available memory for the cache blocks|Free memory on device .* is less than",
        "the GPU has too little memory, or another process uses part of it.",
        "Check with nvidia-smi; then lower --gpu-memory-utilization or --max-model-len, or use a smaller model.",
    ),
    (
        r"larger than the maximum number of tokens that can be stored in KV cache",
        "the KV cache can't hold one request of the longest length.",
        "Lower --max-model-len.",
    ),
    (
        r"driver .*(?:too old|insufficient)|CUDA driver version is insufficient",
        "the NVIDIA driver is too old for this vLLM.",
        "Update the driver to 580 or newer, or install vLLM's cu129 build.",
    ),
    (
        r"GatedRepoError|gated repo|401 Client Error",
        "the model's hub repository requires a login.",
        "Accept its licence on the hub and set HF_TOKEN.",
    ),
    (
        r"RepositoryNotFoundError|is not a valid model identifier",
        "the hub has no model of that name.",
        "Check the spelling of the model.",
    ),
    (
        r"LocalEntryNotFoundError|Cannot reach|Name or service not known|offline mode is enabled",
        "the model is not on this disk and its hub is unreachable.",
        "Connect this machine to the network, or download the model elsewhere and give its directory.",
    ),
    (
        r"No space left on device",
        "the disk is full.",
        "Free some space: models go to HF_HOME, compiled code to VLLM_CACHE_ROOT.",
    ),
)
_STATUS = {
    137: ("it was killed (SIGKILL), most often because the machine ran out of memory.", "Use a smaller model."),
    139: ("it crashed (SIGSEGV).", "See its log; another version of vLLM or of the driver may help."),
    132: (_PATTERNS[0][1], _PATTERNS[0][2]),
    127: ("the command could not be run.", "Run `spillway doctor`; install the engine with `make install`."),
}


def diagnose(status: int, tail: tuple[str, ...]) -> Obstacle:
    """Explain an engine's end from its last log lines and its exit status (128 + n for signal n)."""
    text = "\n".join(tail)
    for pattern, reason, fix in _PATTERNS:
        match = re.search(pattern, text)
        if match:
            quoted = match[0].strip()[:160]
            return Obstacle(f"vLLM ended: {reason}", f"{fix} (its log says: {quoted})")
    reason, fix = _STATUS.get(status, (f"exit status {status}.", "See the last lines of its log."))
    return Obstacle(f"vLLM ended: {reason}", fix)


TOO_SLOW = Obstacle(
    "vLLM did not generate a token in time.", "See its log; a first start may be downloading the model."
)
HUNG = Obstacle("vLLM has requests but has generated nothing for too long.", "See its log; Spillway restarts it.")
