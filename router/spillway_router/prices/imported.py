"""Import price lists, and keep the prices of the past.

`read_source` reads Spillway's own format (rows.py), LiteLLM's model_prices_and_context_window.json, the lists of models
of OpenRouter and Hugging Face, and the data.json of genai-prices. `add` adds its prices to those already known: a
changed price becomes another dated row, and an unchanged one keeps its first day. Nothing is overwritten, so past days
keep the prices at which they were billed.

This command updates the shipped lists, of all providers of the file or of some:

    python -m spillway_router.prices.imported SOURCE.json 2026-11-20 --origin "litellm 1.110.2" --only groq,openai
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import orjson

from spillway_router.prices import genai_prices, huggingface, litellm, openrouter
from spillway_router.prices.book import LISTS, SOURCE, UNIT, PriceBook, PriceList, parse_list, read_list
from spillway_router.prices.converted import ConvertedPrices, with_hour_writes
from spillway_router.prices.rows import PriceError, dated_price, load_json, model_record

MAX_BYTES = 64 * 1024 * 1024
_HAND = "Prices given by this file's owner"
_Models = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed file of prices: its list, whether it repeats all that its source knows of a model, and what was left out
    as (provider/model, reason)."""

    prices: PriceList
    complete: bool
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Added:
    """The new content of a price list; `conflicts` names models that had another price for the same first day."""

    prices: PriceList
    content: bytes
    models: int
    conflicts: tuple[str, ...]


_FORMATS: tuple[tuple[Callable[[object], bool], Callable[[Any, str], ConvertedPrices]], ...] = (
    (openrouter.recognises, openrouter.convert),
    (huggingface.recognises, huggingface.convert),
    (genai_prices.recognises, genai_prices.convert),
    (lambda data: isinstance(data, dict), litellm.convert_rows),
)
"""How each kind of file is recognised and converted; the first that recognises a file is taken."""


def read_source(content: bytes, day: date, origin: str = "") -> Source:
    """Parse a file of prices. Prices without a date apply from `day` on. `origin` says who published them.

    Raises PriceError.
    """
    if len(content) > MAX_BYTES:
        raise PriceError(f"the file has more than {MAX_BYTES // 1024 // 1024} MB; use a price list")
    data = load_json(content)
    if isinstance(data, dict) and "providers" in data:
        prices = parse_list(data, "the file", SOURCE)
        _check_rows(prices)
        return Source(
            replace(
                prices,
                checked_on=prices.checked_on or day,
                licence=prices.licence or _HAND,
                origin=prices.origin or origin,
            ),
            False,
            (),
        )
    converted = _converted(data, day)
    if not converted.providers:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in converted.skipped[:3])
        raise PriceError(
            "no price found; use LiteLLM's model_prices_and_context_window.json, the list of models of OpenRouter or "
            "Hugging Face, or a file with `providers`" + (f" ({reasons})" if reasons else "")
        )
    return Source(
        PriceList(
            name="the file",
            source=SOURCE,
            checked_on=day,
            licence=converted.licence,
            providers=_published(converted.providers, origin),
            origin=origin,
        ),
        converted.complete,
        converted.skipped,
    )


def _published(providers: Mapping[str, Mapping[str, dict[str, Any]]], origin: str) -> Mapping[str, _Models]:
    """Return the rows with `origin` before what the converter says of where a price comes from."""

    def named(price: dict[str, Any]) -> dict[str, Any]:
        note = price.get("origin")
        return {**price, "origin": f"{origin}: {note}"} if note and origin else price

    return {
        provider: {name: {**row, "prices": [named(price) for price in row["prices"]]} for name, row in models.items()}
        for provider, models in providers.items()
    }


def _converted(data: object, day: date) -> ConvertedPrices:
    convert = next((convert for recognises, convert in _FORMATS if recognises(data)), None)
    if convert is None:
        raise PriceError("the price file must be LiteLLM's model -> prices, a list of models, or {providers: ...}")
    try:
        converted = convert(data, day.isoformat())
        rows = {
            provider: {model: with_hour_writes(model, row) for model, row in models.items()}
            for provider, models in converted.providers.items()
        }
        return replace(converted, providers=rows)
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        if isinstance(error, PriceError):
            raise
        raise PriceError(f"the file looks like a list of models, but a part of it is not as usual: {error!r}") from None


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
            providers[provider] = {name: _dated(row, own_list) for name, row in models.items()}
    conflicts: list[str] = []
    for provider, models in source.prices.providers.items():
        into = providers.setdefault(provider, {})
        for name, row in models.items():
            before = _raw(book, provider, name)
            taken = {p["from"]: p for p in into.get(name, {}).get("prices", ())}
            joined = _joined(before, source.prices.with_origin(row), source)
            into[name] = _dated(joined, replace(source.prices, origin=""))
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
        row = prices.with_origin(prices.providers.get(provider, {}).get(model, {}))
        merged |= {name: value for name, value in row.items() if name != "prices"}
        dated |= {price["from"]: price for price in row.get("prices", ())}
    return {**merged, "prices": [dated[start] for start in sorted(dated)]}


def _joined(before: Mapping[str, Any], row: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """Return the row of the source, with the earlier prices added."""
    prices = list(before.get("prices", ()))
    for price in row.get("prices", ()):
        prices = _history(prices, price)
    joined = {**row, "prices": prices}
    if source.complete:
        # Such a source withdraws a date by leaving it out.
        leaves_out = ("retired_on", "deprecated_on", "successor")
        joined |= {key: None for key in leaves_out if before.get(key) and not row.get(key)}
    else:
        joined = {**before, **joined}
        if "capabilities" in before and "capabilities" in row:
            joined["capabilities"] = {**before["capabilities"], **row["capabilities"]}
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


def _dated(row: Mapping[str, Any], prices: PriceList) -> dict[str, Any]:
    """Return a row of a list with what the list says for all of its rows: the day of the check, and who published."""
    day = prices.checked_on
    return {
        **prices.with_origin(row),
        "checked_on": row.get("checked_on") or (None if day is None else day.isoformat()),
    }


def render(prices: PriceList) -> bytes:
    """Return the file of a price list, with one line per model, so that a changed price is one line in a diff."""
    snapshot = None if prices.checked_on is None else prices.checked_on.isoformat()
    about = {"licence": prices.licence, "origin": prices.origin, "snapshot": snapshot, "unit": UNIT}
    head = orjson.dumps({key: value for key, value in about.items() if value != ""}, option=orjson.OPT_INDENT_2)
    blocks = []
    for provider, models in prices.providers.items():
        lines = ",\n".join(
            f"    {_json(name)}: {_json(_shown(model, prices.origin, snapshot))}"
            for name, model in sorted(models.items())
        )
        blocks.append(f"  {_json(provider)}: {{\n{lines}\n  }}")
    body = ",\n".join(blocks)
    return head[:-2] + f',\n  "providers": {{\n{body}\n  }}\n}}\n'.encode()


def _shown(row: Mapping[str, Any], origin: str, snapshot: str | None) -> dict[str, Any]:
    """Return a row without what the head of its list says for it."""
    shown = {key: value for key, value in row.items() if not (key == "checked_on" and value in (None, snapshot))}
    shown["prices"] = [
        {key: value for key, value in price.items() if not (key == "origin" and value == origin)}
        for price in row.get("prices", ())
    ]
    return shown


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
    """Write the shipped lists from a price file, one per provider, and print what was left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "source", type=Path, help="LiteLLM's model_prices_and_context_window.json, or another such file"
    )
    parser.add_argument("snapshot", type=date.fromisoformat, help="date of that file, like 2026-11-20")
    parser.add_argument("--origin", default="", help="who published it, such as litellm 1.110.2")
    parser.add_argument("--only", default="", help="providers to update, separated by commas")
    parser.add_argument("--out", type=Path, default=LISTS)
    arguments = parser.parse_args()
    source = read_source(arguments.source.read_bytes(), arguments.snapshot, arguments.origin)
    for provider, models in source.prices.providers.items():
        if arguments.only and provider not in arguments.only.split(","):
            continue
        target = arguments.out / f"{provider}.json"
        own_list = read_list(target, SOURCE) if target.exists() else None
        book = PriceBook(() if own_list is None else (own_list,))
        part = replace(source, prices=replace(source.prices, providers={provider: models}))
        added = add(part, book, own_list, arguments.snapshot)
        write(target, render(replace(added.prices, origin=arguments.origin)))
        print(f"{added.models} models priced in {target}")
    for name, reason in source.skipped:
        print(f"left out {name}: {reason}")


if __name__ == "__main__":
    main()
