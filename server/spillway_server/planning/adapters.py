"""LoRA adapters that the engine serves in addition to its model, each under its own name.

vLLM uses an adapter when a request names it as the model, so the router reaches it through a backend whose `model` is
the adapter's name (docs/convert.md).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from spillway_server.obstacle import Obstacle

# The ranks that vLLM can reserve memory for (--max-lora-rank); an adapter takes the next larger one.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter: the name that clients use, its directory, and the rank of its matrices."""

    name: str
    path: Path
    rank: int


def read(words: tuple[str, ...], served_name: str) -> tuple[Adapter, ...] | Obstacle:
    """Parse adapters written as NAME=DIRECTORY, and read each directory's adapter_config.json."""
    adapters: list[Adapter] = []
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or not _NAME.match(name):
            return Obstacle(
                f"{word!r} is not an adapter.", "Write NAME=DIRECTORY; a name has letters, digits, dots and dashes."
            )
        if name == served_name or any(adapter.name == name for adapter in adapters):
            return Obstacle(f"the name {name!r} is used twice.", "Give each adapter its own name.")
        adapter = _adapter(name, Path(path).expanduser().absolute())
        if isinstance(adapter, Obstacle):
            return adapter
        adapters.append(adapter)
    return tuple(adapters)


def _adapter(name: str, path: Path) -> Adapter | Obstacle:
    try:
        config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
        kind, rank = config["peft_type"], int(config["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Obstacle(
            f"{path} is not a LoRA adapter: {error!r}.",
            "Name the folder that PEFT saved, with adapter_config.json and adapter_model.safetensors.",
        )
    if kind != "LORA" or not 1 <= rank <= RANKS[-1]:
        return Obstacle(f"{path} is a {kind} adapter of rank {rank}.", f"vLLM serves LoRA up to rank {RANKS[-1]}.")
    return Adapter(name, path, rank)


def argv(adapters: tuple[Adapter, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return vLLM's flags for these adapters as (name, values); none without adapters."""
    if not adapters:
        return ()
    rank = next(rank for rank in RANKS if rank >= max(adapter.rank for adapter in adapters))
    return (
        ("--enable-lora", ()),
        ("--lora-modules", tuple(f"{adapter.name}={adapter.path}" for adapter in adapters)),
        # How many different adapters one batch may mix.
        ("--max-loras", (str(min(len(adapters), 8)),)),
        ("--max-lora-rank", (str(rank),)),
    )
