"""Reduce LiteLLM's model_prices_and_context_window file to prices.json: exact decimal text, one line per model.

LiteLLM keeps prices in USD per token as JSON numbers. `Decimal(str(x)) * 10^6` is the price per million that was
meant: Python prints a float as the shortest decimal that reads back as it, and everything after that is exact. An
import keeps the older dated prices of a model, so that past days are priced as they were billed.

    python -m spillway_router.providers.import_prices SOURCE.json 2026-11-20
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from spillway_router.providers.base import ProviderError
from spillway_router.providers.prices import PRICES_FILE

LICENCE = (
    "Prices derived from model_prices_and_context_window.json of LiteLLM, MIT License, Copyright (c) 2023 Berri AI, "
    "https://github.com/BerriAI/litellm"
)
SOURCES: Mapping[str, tuple[str, str]] = {
    "groq": ("groq", "groq/"),
    "together": ("together_ai", "together_ai/"),
    "openai": ("openai", ""),
    "cerebras": ("cerebras", "cerebras/"),
    "anthropic": ("anthropic", ""),
}
"""Our provider -> LiteLLM's provider and the prefix of its model names (together's size classes have none)."""
_TIER = re.compile(r"^(?:input|output|cache_read_input_token)_cost(?:_per_token)?_above_(\d+)k_tokens$")


@dataclass(frozen=True, slots=True)
class Imported:
    """The new contents of prices.json, how many models it prices, and what was left out: (model, why)."""

    content: bytes
    models: int
    skipped: tuple[tuple[str, str], ...]


def convert(source: bytes, snapshot: date, previous: bytes | None = None) -> Imported:
    """Prices of `source` as of `snapshot`, on top of the dated ones in `previous`.

    Raises ProviderError where `source` isn't a LiteLLM price file.
    """
    raw = _object(source)
    before = _object(previous)["providers"] if previous else {}
    skipped: list[tuple[str, str]] = []
    providers: dict[str, dict[str, Any]] = {}
    for provider, (theirs, prefix) in SOURCES.items():
        models = dict(before.get(provider, {}))
        for name, row in sorted(_rows(raw, theirs, prefix)):
            flaw = _flaw(row)
            if flaw is not None:
                skipped.append((f"{provider}/{name}", flaw))
                continue
            models[name] = _model(row, snapshot, models.get(name, {}).get("prices", []))
        providers[provider] = models
    count = sum(len(models) for models in providers.values())
    if not count:
        raise ProviderError("no price found; give LiteLLM's model_prices_and_context_window.json")
    return Imported(_render(providers, snapshot), count, tuple(skipped))


def _object(text: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ProviderError(f"the price file is not valid JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ProviderError("the price file must be one JSON object: model name -> prices")
    return parsed


def _rows(raw: Mapping[str, Any], theirs: str, prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, row in raw.items():
        if isinstance(row, dict) and row.get("litellm_provider") == theirs and name.startswith(prefix):
            yield name.removeprefix(prefix), row


def _flaw(row: Mapping[str, Any]) -> str | None:
    costs = [row.get("input_cost_per_token"), row.get("output_cost_per_token")]
    if not all(isinstance(c, int | float) and not isinstance(c, bool) and c >= 0 for c in costs):
        return "no price per token"
    # A price of nothing at a paid API is a gap in the source, and an unknown price is never 0.
    return "a price of 0" if not any(costs) else None


def _per_million(per_token: object) -> str:
    value = Decimal(str(per_token)) * 10**6
    return f"{value.normalize():f}"


def _model(row: Mapping[str, Any], snapshot: date, older: list[dict[str, str]]) -> dict[str, Any]:
    price = {
        "from": snapshot.isoformat(),
        "input": _per_million(row["input_cost_per_token"]),
        "output": _per_million(row["output_cost_per_token"]),
    }
    if row.get("cache_read_input_token_cost") is not None:
        price["cached_input"] = _per_million(row["cache_read_input_token_cost"])
    model: dict[str, Any] = {"prices": _history(older, price)}
    if isinstance(row.get("max_input_tokens"), int):
        model["context_tokens"] = row["max_input_tokens"]
    if isinstance(row.get("max_output_tokens"), int):
        model["max_output_tokens"] = row["max_output_tokens"]
    tiers = [int(found.group(1)) * 1000 for key in row if (found := _TIER.match(key))]
    if tiers:
        model["dearer_above_tokens"] = min(tiers)
    if row.get("deprecation_date"):
        model["retired_on"] = str(row["deprecation_date"])
    if row.get("supports_vision"):
        model["vision"] = True
    return model


def _history(older: list[dict[str, str]], price: dict[str, str]) -> list[dict[str, str]]:
    """Prices oldest first; a price that did not change keeps the date it began."""
    earlier = [p for p in older if p["from"] < price["from"]]
    later = [p for p in older if p["from"] > price["from"]]
    if earlier and {**earlier[-1], "from": ""} == {**price, "from": ""}:
        return [*earlier, *later]
    return [*earlier, price, *later]


def _render(providers: Mapping[str, Mapping[str, Any]], snapshot: date) -> bytes:
    """One line per model, so that a change of price is one line in a diff."""
    head = orjson.dumps(
        {"licence": LICENCE, "snapshot": snapshot.isoformat(), "unit": "USD per million tokens"},
        option=orjson.OPT_INDENT_2,
    )
    blocks = []
    for provider, models in providers.items():
        lines = ",\n".join(
            f"    {orjson.dumps(name).decode()}: {orjson.dumps(model).decode()}"
            for name, model in sorted(models.items())
        )
        blocks.append(f"  {orjson.dumps(provider).decode()}: {{\n{lines}\n  }}")
    body = ",\n".join(blocks)
    return head[:-2] + f',\n  "providers": {{\n{body}\n  }}\n}}\n'.encode()


def main() -> None:
    """Write prices.json from a LiteLLM price file and say what was left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="LiteLLM's model_prices_and_context_window.json")
    parser.add_argument("snapshot", type=date.fromisoformat, help="day of that file, like 2026-11-20")
    parser.add_argument("--out", type=Path, default=PRICES_FILE)
    given = parser.parse_args()
    previous = given.out.read_bytes() if given.out.exists() else None
    imported = convert(given.source.read_bytes(), given.snapshot, previous)
    given.out.write_bytes(imported.content)
    print(f"{imported.models} models priced in {given.out}")
    for name, why in imported.skipped:
        print(f"left out {name}: {why}")


if __name__ == "__main__":
    main()
