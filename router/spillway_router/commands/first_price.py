"""Ask what the GPU costs when `spillway up` starts for the first time and nobody has said it."""

from __future__ import annotations

import sys
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import typer
import yaml

from spillway_router.config import load as config
from spillway_router.config.load import DEFAULT_FILE
from spillway_router.config.yaml_faults import YAML_ERRORS
from spillway_router.core.money.tariff import TariffError, amount_of

if TYPE_CHECKING:
    from spillway_router.config.load import Loaded

_QUESTION = "What does one GPU of this machine cost in USD per hour? (0 if it is your own, Enter if you don't know)"
_UNKNOWN = (
    "The price of the GPU is unknown: reports will have its hours at 0 and say so. Set it in {file}: "
    'gpu: {{price_per_hour: "1.39"}}, or "0" for a machine of your own.'
)


def with_price(loaded: Loaded) -> Loaded:
    """Return the configuration with a price of the GPU, if it has one or somebody at the terminal tells it.

    The answer is written into the configuration file, so it is asked once.
    """
    if loaded.settings.gpu.price_known:
        return loaded
    price = _asked() if sys.stdin.isatty() and sys.stdout.isatty() else None
    if price is None:
        typer.echo(_UNKNOWN.format(file=loaded.path or DEFAULT_FILE))
        return loaded
    line = f'gpu: {{price_per_hour: "{price:f}"}}'
    if _write(loaded, line):
        typer.echo(f"{loaded.path or DEFAULT_FILE} has it now: {line}")
        return config.read(str(loaded.path or DEFAULT_FILE), loaded.environment)
    typer.echo(f"It holds for this run. To keep it, write {line} into your configuration.")
    gpu = loaded.settings.gpu.model_copy(update={"price_per_hour": price})
    return loaded.served_by(lambda settings: settings.model_copy(update={"gpu": gpu}))


def _asked() -> Decimal | None:
    while True:
        text = typer.prompt(_QUESTION, default="", show_default=False).strip().removeprefix("$")
        if not text:
            return None
        with suppress(TariffError):
            price = amount_of(text)
            if 0 <= price <= 1000:
                return price
        typer.echo("Write an amount in USD, such as 1.39.")


def _write(loaded: Loaded, line: str) -> bool:
    """Add a line to the configuration file; return False where that can't be done safely."""
    if loaded.path is None and loaded.text:
        return False  # the configuration is in a variable
    file = loaded.path or Path(DEFAULT_FILE)
    try:
        present = yaml.safe_load(loaded.text) or {}
        if not isinstance(present, dict) or "gpu" in present:
            return False
        text = loaded.text if not loaded.text or loaded.text.endswith("\n") else f"{loaded.text}\n"
        file.write_text(f"{text}{line}\n", encoding="utf-8")
    except (OSError, *YAML_ERRORS):
        return False
    return True
