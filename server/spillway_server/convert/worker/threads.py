"""Choose how many threads a job's arithmetic uses."""

from __future__ import annotations

from typing import Any

_SMALL = 50_000_000


def fit_threads(model: Any) -> None:
    """Use one thread for a small model: its matrices are too small to split, and on a busy machine threads that wait
    for each other cost ten times what they save."""
    import torch

    if sum(parameter.numel() for parameter in model.parameters()) < _SMALL:
        torch.set_num_threads(1)
