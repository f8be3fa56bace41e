"""Explain why an engine ended, in words that a user can act on, from its exit status and its last log lines. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from spillway_server.obstacle import Obstacle

# The first match wins, so causes come before their consequences. True marks a cause that a new start can't change.
_PATTERNS: tuple[tuple[str, str, str, bool], ...] = (
    (
        r"exit code: -4\b|Illegal instruction",
        "the processor rejected an instruction (SIGILL), often AMX bfloat16 that a hypervisor lists but doesn't allow.",
        "Start with --vllm-arg=--dtype=float32.",
        True,
    ),
    (
        r"[Aa]ddress already in use",
        "the port is taken by another process.",
        "Stop that process or choose another port with --port.",
        False,
    ),
    (
        r"unrecognized arguments?: .*|error: argument .*",
        "vLLM doesn't know one of its arguments.",
        "Check the vLLM arguments you passed (server.vllm_args, --vllm-arg) against this version of vLLM.",
        True,
    ),
    (
        r"CUDA out of memory|No available memory for the cache blocks|Free memory on device .* is less than",
        "the GPU has too little memory, or another process uses part of it.",
        "Check with nvidia-smi; then lower --gpu-memory-utilization or --max-model-len, or use a smaller model.",
        False,
    ),
    (
        r"larger than the maximum number of tokens that can be stored in KV cache",
        "the KV cache can't hold one request of the longest length.",
        "Lower --max-model-len.",
        True,
    ),
    (
        r"driver .*(?:too old|insufficient)|CUDA driver version is insufficient",
        "the NVIDIA driver is too old for this vLLM.",
        "Update the driver to 580 or newer, or install vLLM's cu129 build.",
        True,
    ),
    (
        r"GatedRepoError|gated repo|401 Client Error",
        "the model's hub repository requires a login.",
        "Accept its licence on the hub and set HF_TOKEN.",
        True,
    ),
    (
        r"RepositoryNotFoundError|is not a valid model identifier",
        "the hub has no model of that name.",
        "Check the spelling of the model.",
        True,
    ),
    (
        r"LocalEntryNotFoundError|Cannot reach|Name or service not known|offline mode is enabled",
        "the model is not on this disk and its hub is unreachable.",
        "Connect this machine to the network, or download the model elsewhere and give its directory.",
        True,
    ),
    (
        r"No space left on device",
        "the disk is full.",
        "Free some space: models go to HF_HOME, compiled code to VLLM_CACHE_ROOT.",
        True,
    ),
    (
        r"(?:must be divisible by|is not divisible by) .{0,60}(?:parallel|group|block)",
        "the model can't be divided over that many devices.",
        "Use a smaller --tensor-parallel-size; `spillway plan` chooses one that fits.",
        True,
    ),
    (
        r"max_model_len \(\d+\) is greater than the derived max_model_len",
        "the model reads fewer tokens than --max-model-len asks for.",
        "Lower --max-model-len.",
        True,
    ),
    (
        r"Model architectures? .{0,120}(?:not supported|failed to be inspected)",
        "this vLLM doesn't know the model's architecture.",
        "Use a newer vLLM, or another model.",
        True,
    ),
    (
        r"Invalid repository ID or local directory|does not appear to have a file named config\.json",
        "there is no model at that place.",
        "Check the spelling of the model.",
        True,
    ),
)
_STATUS = {
    137: ("it was killed (SIGKILL), most often because the machine ran out of memory.", "Use a smaller model."),
    139: ("it crashed (SIGSEGV).", "See its log; another version of vLLM or of the driver may help."),
    132: (_PATTERNS[0][1], _PATTERNS[0][2]),
    127: ("the command could not be run.", "Run `spillway doctor`; install the engine with `make install`."),
}


_LASTING = frozenset({132, 127})
"""Exit statuses that a new start can't change: an instruction that the processor lacks, a command that isn't there."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why an engine ended, and whether it would end the same way after a new start."""

    obstacle: Obstacle
    permanent: bool = False


def diagnose(status: int, tail: tuple[str, ...]) -> Diagnosis:
    """Explain an engine's end from its last log lines and its exit status (128 + n for signal n)."""
    text = "\n".join(tail)
    for pattern, reason, fix, permanent in _PATTERNS:
        match = re.search(pattern, text)
        if match:
            quoted = match[0].strip()[:160]
            return Diagnosis(Obstacle(f"vLLM ended: {reason}", f"{fix} (its log says: {quoted})"), permanent)
    reason, fix = _STATUS.get(status, (f"exit status {status}.", "See the last lines of its log."))
    return Diagnosis(Obstacle(f"vLLM ended: {reason}", fix), status in _LASTING)


TOO_SLOW = Obstacle(
    "vLLM did not generate a token in time.", "See its log; a first start may be downloading the model."
)
HUNG = Obstacle("vLLM has requests but has generated nothing for too long.", "See its log; Spillway restarts it.")
