"""What `spillway check` says of rules on how busy the GPUs are, where nothing can be known of that."""

from __future__ import annotations

from collections.abc import Iterator

from spillway_router.config.assemble import Assembly
from spillway_router.config.load import ConfigProblem


def looks_at_gpus(assembly: Assembly) -> bool:
    """Return whether overflow or a rule of the policy looks at how busy the GPUs are."""
    return assembly.policy.gpu_busy_above is not None or assembly.rules.read_gpus


def unread_gpus(assembly: Assembly, reason: str) -> Iterator[ConfigProblem]:
    """Yield a warning if a rule looks at the GPUs and `reason` says why they can't be read, or no engine is beside
    them."""
    if not looks_at_gpus(assembly):
        return
    where = "policy.rules" if assembly.policy.gpu_busy_above is None else "overflow.gpu_utilisation"
    if reason:
        yield ConfigProblem(where, 0, f"moves nothing here, because the GPUs can't be read: {reason}")
    elif not any(target.is_on_this_machine for target in assembly.targets.values() if target.backend.local):
        problem = (
            "moves nothing, because no local engine is at a loopback address or a socket: NVML reads the GPUs of the "
            "router's own machine"
        )
        yield ConfigProblem(where, 0, problem)
