"""Write price lists: take a file of prices in, keep what was billed before.

`read_source` knows LiteLLM's model_prices_and_context_window.json and our own format (price_rows.py). `add` puts its
prices over those already known: a price that changed becomes one more dated row, one that did not keeps the day it
began, nothing is overwritten, so that past days stay priced as they were billed.

The shipped prices.json is made anew with

    python -m spillway_router.prices.imported SOURCE.json 2026-11-20
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import orjson

from spillway_router.prices.book import PRICES_FILE, SOURCE, UNIT, PriceBook, PriceList, parse_list, read_list
from spillway_router.prices.litellm import LICENCE, convert_rows
from spillway_router.prices.rows import dated_price, load_json, model_record
from spillway_router.providers.interface import ProviderError

MAX_BYTES = 64 * 1024 * 1024
_HAND = "Prices given by this file's owner"
_Models = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Source:
    """A file of prices as read: its list, whether it is LiteLLM's, and what was left out: (provider/model, why)."""

    prices: PriceList
    litellm: bool
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Added:
    """The new contents of a price list. `conflicts`: models whose price of the same day was another one before."""

    prices: PriceList
    content: bytes
    models: int
    conflicts: tuple[str, ...]


def read_source(text: bytes, day: date) -> Source:
    """Prices of a file; LiteLLM's name no day, so they hold from `day` on. Raises ProviderError."""
    if len(text) > MAX_BYTES:
        raise ProviderError(f"the file has more than {MAX_BYTES // 1024 // 1024} MB; give a price list")
    data = load_json(text)
    if not isinstance(data, dict):
        raise ProviderError("the price file must be one JSON object: LiteLLM's model -> prices, or {providers: ...}")
    if "providers" in data:
        own = parse_list(data, "the file", SOURCE)
        _check_rows(own)
        return Source(replace(own, checked_on=own.checked_on or day, licence=own.licence or _HAND), False, ())
    made = convert_rows(data, day.isoformat())
    if not made.providers:
        why = "; ".join(f"{name}: {flaw}" for name, flaw in made.skipped[:3])
        raise ProviderError(
            "no price found; give LiteLLM's model_prices_and_context_window.json or a file with `providers`"
            + (f" ({why})" if why else "")
        )
    return Source(PriceList("the file", SOURCE, day, LICENCE, made.providers), True, made.skipped)


def _check_rows(prices: PriceList) -> None:
    for provider, models in prices.providers.items():
        for model, row in models.items():
            try:
                model_record([(prices.source, prices.checked_on, row)])
            except ProviderError as error:
                raise ProviderError(f"{provider}/{model}: {error}") from None


def add(source: Source, known: PriceBook, own: PriceList | None, day: date) -> Added:
    """The list `own` with the prices of `source`, each with the history that `known` has of it.

    Raises ProviderError where `own` is damaged.
    """
    providers: dict[str, _Models] = {}
    if own is not None:
        _check_rows(own)
        for provider, models in own.providers.items():
            providers[provider] = {name: _with_day(row, own.checked_on) for name, row in models.items()}
    conflicts: list[str] = []
    for provider, models in source.prices.providers.items():
        into = providers.setdefault(provider, {})
        for name, row in models.items():
            before = _raw(known, provider, name)
            taken = {p["from"]: p for p in into.get(name, {}).get("prices", ())}
            made = _joined(before, row, source)
            into[name] = _with_day(made, source.prices.checked_on)
            clash = [p["from"] for p in row.get("prices", ()) if p["from"] in taken and not _same(p, taken[p["from"]])]
            conflicts.extend(f"{provider}/{name} from {start}" for start in clash)
    said = [own.licence if own else "", source.prices.licence]
    licences = dict.fromkeys(part for text in said for part in text.split(" | ") if part)
    result = PriceList("the new list", own.source if own else SOURCE, day, " | ".join(licences), providers)
    return Added(result, render(result), sum(len(m) for m in providers.values()), tuple(conflicts))


def _raw(known: PriceBook, provider: str, model: str) -> dict[str, Any]:
    """The rows of all lists as one, prices joined by their first day."""
    dated: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for prices in known.lists:
        row = prices.providers.get(provider, {}).get(model, {})
        merged |= row
        dated |= {price["from"]: price for price in row.get("prices", ())}
    return {**merged, "prices": [dated[start] for start in sorted(dated)]}


def _joined(before: Mapping[str, Any], row: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """A model's row: the source's word on it, with the prices from before."""
    prices = list(before.get("prices", ()))
    for price in row.get("prices", ()):
        prices = _history(prices, price)
    joined = {**row, "prices": prices}
    if source.litellm:
        # LiteLLM takes the date back by leaving it out.
        joined |= {key: None for key in ("retired_on", "deprecated_on") if before.get(key) and not row.get(key)}
    else:
        joined = {**before, **joined}
    joined.pop("checked_on", None)
    return {**joined, **({"checked_on": row["checked_on"]} if row.get("checked_on") else {})}


def _history(older: list[dict[str, Any]], price: dict[str, Any]) -> list[dict[str, Any]]:
    """Prices oldest first; a price that did not change keeps the date it began."""
    earlier = [p for p in older if p["from"] < price["from"]]
    later = [p for p in older if p["from"] > price["from"]]
    if earlier and _same(earlier[-1], price):
        return [*earlier, *later]
    return [*earlier, price, *later]


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True if two prices are the same money, however they are written."""
    return dated_price({**one, "from": "2000-01-01"}, "") == dated_price({**other, "from": "2000-01-01"}, "")


def _with_day(row: Mapping[str, Any], day: date | None) -> dict[str, Any]:
    return {**row, "checked_on": row.get("checked_on") or (None if day is None else day.isoformat())}


def render(prices: PriceList) -> bytes:
    """The file of a list, one line per model, so that a change of price is one line in a diff."""
    snapshot = None if prices.checked_on is None else prices.checked_on.isoformat()
    head = orjson.dumps(
        {"licence": prices.licence, "snapshot": snapshot, "unit": UNIT},
        option=orjson.OPT_INDENT_2,
    )
    blocks = []
    for provider, models in prices.providers.items():
        lines = ",\n".join(
            f"    {_json(name)}: {_json(_shown(model, snapshot))}" for name, model in sorted(models.items())
        )
        blocks.append(f"  {_json(provider)}: {{\n{lines}\n  }}")
    body = ",\n".join(blocks)
    return head[:-2] + f',\n  "providers": {{\n{body}\n  }}\n}}\n'.encode()


def _shown(row: Mapping[str, Any], snapshot: str | None) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not (key == "checked_on" and value in (None, snapshot))}


def _json(value: object) -> str:
    return orjson.dumps(value, default="{:f}".format).decode()  # a Decimal of the source becomes decimal text


def write(path: Path, content: bytes) -> None:
    """Replace a price list at once: readers see the old file or the new one. Raises ProviderError."""
    beside = path.with_name(f".{path.name}.new")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ProviderError(f"{path} can't be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the folder of a price list, so that two imports don't lose each other's rows. Raises ProviderError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise ProviderError(f"{path.parent} can't be used for the price list: {error.strerror or error}") from None
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ProviderError(f"another import is writing to {path.parent}; try again when it is done") from None
        yield
    finally:
        os.close(folder)


def main() -> None:
    """Write prices.json from a LiteLLM price file and say what was left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="LiteLLM's model_prices_and_context_window.json")
    parser.add_argument("snapshot", type=date.fromisoformat, help="day of that file, like 2026-11-20")
    parser.add_argument("--out", type=Path, default=PRICES_FILE)
    given = parser.parse_args()
    own = read_list(given.out, SOURCE) if given.out.exists() else None
    source = read_source(given.source.read_bytes(), given.snapshot)
    added = add(source, PriceBook(() if own is None else (own,)), own, given.snapshot)
    write(given.out, added.content)
    print(f"{added.models} models priced in {given.out}")
    for name, why in source.skipped:
        print(f"left out {name}: {why}")


if __name__ == "__main__":
    main()
