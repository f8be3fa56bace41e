"""Import price lists, and keep the prices of the past.

`read_source` reads LiteLLM's model_prices_and_context_window.json and Spillway's own format (rows.py). `add` adds its
prices to those already known: a changed price becomes another dated row, and an unchanged one keeps its first day.
Nothing is overwritten, so past days keep the prices at which they were billed.

This command updates the shipped prices.json:

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
from spillway_router.prices.rows import PriceError, dated_price, load_json, model_record

MAX_BYTES = 64 * 1024 * 1024
_HAND = "Prices given by this file's owner"
_Models = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed file of prices: its list, whether it is LiteLLM's, and the skipped models as (provider/model,
    reason)."""

    prices: PriceList
    litellm: bool
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Added:
    """The new content of a price list; `conflicts` names models that had another price for the same first day."""

    prices: PriceList
    content: bytes
    models: int
    conflicts: tuple[str, ...]


def read_source(text: bytes, day: date) -> Source:
    """Parse a file of prices. LiteLLM's prices have no date, so they apply from `day` on. Raises PriceError."""
    if len(text) > MAX_BYTES:
        raise PriceError(f"the file has more than {MAX_BYTES // 1024 // 1024} MB; use a price list")
    data = load_json(text)
    if not isinstance(data, dict):
        raise PriceError("the price file must be one JSON object: LiteLLM's model -> prices, or {providers: ...}")
    if "providers" in data:
        prices = parse_list(data, "the file", SOURCE)
        _check_rows(prices)
        return Source(replace(prices, checked_on=prices.checked_on or day, licence=prices.licence or _HAND), False, ())
    converted = convert_rows(data, day.isoformat())
    if not converted.providers:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in converted.skipped[:3])
        raise PriceError(
            "no price found; use LiteLLM's model_prices_and_context_window.json or a file with `providers`"
            + (f" ({reasons})" if reasons else "")
        )
    return Source(
        PriceList(name="the file", source=SOURCE, checked_on=day, licence=LICENCE, providers=converted.providers),
        True,
        converted.skipped,
    )


def _check_rows(prices: PriceList) -> None:
    for provider, models in prices.providers.items():
        for model, row in models.items():
            try:
                model_record([(prices.source, prices.checked_on, row)])
            except PriceError as error:
                raise PriceError(f"{provider}/{model}: {error}") from None


def add(source: Source, book: PriceBook, own_list: PriceList | None, day: date) -> Added:
    """Return the list `own_list` with the prices of `source` added, each with its history from `book`.

    Raises PriceError if `own_list` is damaged.
    """
    providers: dict[str, _Models] = {}
    if own_list is not None:
        _check_rows(own_list)
        for provider, models in own_list.providers.items():
            providers[provider] = {name: _with_day(row, own_list.checked_on) for name, row in models.items()}
    conflicts: list[str] = []
    for provider, models in source.prices.providers.items():
        into = providers.setdefault(provider, {})
        for name, row in models.items():
            before = _raw(book, provider, name)
            taken = {p["from"]: p for p in into.get(name, {}).get("prices", ())}
            into[name] = _with_day(_joined(before, row, source), source.prices.checked_on)
            clash = [p["from"] for p in row.get("prices", ()) if p["from"] in taken and not _same(p, taken[p["from"]])]
            conflicts.extend(f"{provider}/{name} from {start}" for start in clash)
    texts = [own_list.licence if own_list else "", source.prices.licence]
    licences = dict.fromkeys(part for text in texts for part in text.split(" | ") if part)
    result = PriceList(
        name="the new list",
        source=own_list.source if own_list else SOURCE,
        checked_on=day,
        licence=" | ".join(licences),
        providers=providers,
    )
    return Added(result, render(result), sum(len(m) for m in providers.values()), tuple(conflicts))


def _raw(book: PriceBook, provider: str, model: str) -> dict[str, Any]:
    """Return the rows of all lists as one, with their prices merged by first day."""
    dated: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for prices in book.lists:
        row = prices.providers.get(provider, {}).get(model, {})
        merged |= row
        dated |= {price["from"]: price for price in row.get("prices", ())}
    return {**merged, "prices": [dated[start] for start in sorted(dated)]}


def _joined(before: Mapping[str, Any], row: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """Return the row of the source, with the earlier prices added."""
    prices = list(before.get("prices", ()))
    for price in row.get("prices", ()):
        prices = _history(prices, price)
    joined = {**row, "prices": prices}
    if source.litellm:
        # LiteLLM withdraws such a date by leaving it out.
        joined |= {key: None for key in ("retired_on", "deprecated_on") if before.get(key) and not row.get(key)}
    else:
        joined = {**before, **joined}
    joined.pop("checked_on", None)
    return {**joined, **({"checked_on": row["checked_on"]} if row.get("checked_on") else {})}


def _history(older: list[dict[str, Any]], price: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the prices with one more, oldest first; an unchanged price keeps its first day."""
    earlier = [p for p in older if p["from"] < price["from"]]
    later = [p for p in older if p["from"] > price["from"]]
    if earlier and _same(earlier[-1], price):
        return [*earlier, *later]
    return [*earlier, price, *later]


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two prices are the same amounts, however they are written."""
    return dated_price({**one, "from": "2000-01-01"}, "") == dated_price({**other, "from": "2000-01-01"}, "")


def _with_day(row: Mapping[str, Any], day: date | None) -> dict[str, Any]:
    return {**row, "checked_on": row.get("checked_on") or (None if day is None else day.isoformat())}


def render(prices: PriceList) -> bytes:
    """Return the file of a price list, with one line per model, so that a changed price is one line in a diff."""
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
    """Replace a price list atomically, so that readers see the old file or the new one. Raises PriceError."""
    new = path.with_name(f".{path.name}.new")
    try:
        with open(new, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise PriceError(f"{path} can't be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            new.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the folder of a price list, so that two imports can't lose each other's rows. Raises PriceError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise PriceError(f"{path.parent} can't be used for the price list: {error.strerror or error}") from None
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PriceError(f"another import is writing to {path.parent}; retry when it has finished") from None
        yield
    finally:
        os.close(folder)


def main() -> None:
    """Write prices.json from a LiteLLM price file, and print what was skipped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="LiteLLM's model_prices_and_context_window.json")
    parser.add_argument("snapshot", type=date.fromisoformat, help="date of that file, like 2026-11-20")
    parser.add_argument("--out", type=Path, default=PRICES_FILE)
    arguments = parser.parse_args()
    own_list = read_list(arguments.out, SOURCE) if arguments.out.exists() else None
    source = read_source(arguments.source.read_bytes(), arguments.snapshot)
    added = add(source, PriceBook(() if own_list is None else (own_list,)), own_list, arguments.snapshot)
    write(arguments.out, added.content)
    print(f"{added.models} models priced in {arguments.out}")
    for name, reason in source.skipped:
        print(f"skipped {name}: {reason}")


if __name__ == "__main__":
    main()
