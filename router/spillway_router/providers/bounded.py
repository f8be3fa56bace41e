"""Reads bounded_fields.yaml: what a request may contain at each provider so that the hold covers its cost."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from spillway_router.core.money.bounds import ItemRule, ItemRules, UnboundedModel, UseLimit
from spillway_router.core.routing.model import Endpoint
from spillway_router.providers.interface import ProviderError
from spillway_router.providers.table_files import read_table

BOUNDED_FILE = Path(__file__).with_name("bounded_fields.yaml")
_ROW_KEYS = frozenset({"items", "tokens", "context", "as_output", "limit", "most_uses", "fee", "source"})
_PROVIDER_KEYS = frozenset(
    {"fees", "unbounded_models", "per_request_models", "reasoning_beyond", "usual_service", "default_modes"}
    | {"surcharges", "output_fields", *get_args(Endpoint)}
)
_SURCHARGE_KEYS = frozenset({"hosts", "factor", "source"})
_FEE_KEYS = frozenset({"usd", "checked_on", "source"})
_HOST_KEYS = frozenset({"hosts", "source"})


@dataclass(frozen=True, slots=True)
class ToolFee:
    """The price of one use of a provider's tool in USD, the day on which somebody last checked it, and where."""

    usd: Decimal
    checked_on: date
    source: str


@dataclass(frozen=True, slots=True)
class Surcharge:
    """Hosts (patterns) at which the prices of the list are multiplied by `factor`."""

    hosts: tuple[str, ...]
    factor: Decimal


@dataclass(frozen=True, slots=True)
class BoundedProvider:
    """What is bounded at one provider. `rules` are the lists by endpoint."""

    rules: Mapping[Endpoint, ItemRules] = field(default_factory=dict)
    fees: Mapping[str, ToolFee] = field(default_factory=dict)
    unbounded_models: tuple[str, ...] = ()
    per_request_models: tuple[str, ...] = ()
    """Models of which every request has a fee besides its tokens."""
    reasoning_beyond: tuple[str, ...] = ()
    """Hosts whose bound of a chat's output leaves the reasoning out."""
    usual_service: str = ""
    """The value of service_tier for the usual service; empty if there is nothing to send."""
    default_modes: tuple[str, ...] = ()
    """Modes that may serve a request that asks for none."""
    surcharges: tuple[Surcharge, ...] = ()
    chat_output_fields: tuple[str, ...] = ("max_tokens",)
    """The fields by which it bounds the output of a chat; the first one is sent."""
    output_field_unsure: bool = False
    """Whether nobody knows which field it obeys."""

    def unbounded_model(self, model: str, host: str, *, fee_known: bool, field_known: bool) -> UnboundedModel | None:
        """Return why the cost of a request to this model at this host is not bounded, whatever it contains; None if it
        is.

        `fee_known`: its price per request is stated. `field_known`: somebody said which field bounds a chat's output.
        """
        if _matches(model, self.unbounded_models):
            return UnboundedModel(f"the cost of a request to {model} is not bounded")
        if not fee_known and _matches(model, self.per_request_models):
            return UnboundedModel(f"every request to {model} has a fee besides its tokens", "price.per_request")
        if not field_known and _matches(host, self.reasoning_beyond):
            field = self.chat_output_fields[0]
            return UnboundedModel(f"{host} bills reasoning beyond {field}", "output_bound_field")
        return None

    def factor(self, host: str) -> Decimal:
        """Return by what the prices of the list are multiplied at this host."""
        for surcharge in self.surcharges:
            if _matches(host, surcharge.hosts):
                return surcharge.factor
        return Decimal(1)

    def output_fields(self, chat_field: str | None) -> Mapping[Endpoint, tuple[str, ...]]:
        """Return the fields that bound an output, by endpoint. `chat_field` is the configured one for chats, if any."""
        return {
            "chat": self.chat_output_fields if chat_field is None else (chat_field,),
            "completions": ("max_tokens",),
            "responses": ("max_output_tokens",),
            "messages": ("max_tokens",),
        }


@dataclass(frozen=True, slots=True)
class BoundedLists:
    """All lists, and what the reading of a body must know of them."""

    providers: Mapping[str, BoundedProvider]
    names: frozenset[str]
    """The names of all items."""
    plain_names: frozenset[str]
    """The names of items whose own bytes cover their cost everywhere, so that their number doesn't matter."""
    sized_names: frozenset[str]
    """The names of items of which the size matters."""
    context_names: frozenset[str]
    """The names of items that stand for input which the bytes don't show."""
    valued_fields: frozenset[str]
    """Fields that a list names with a value."""
    keyed_fields: frozenset[str]
    """Fields that a list names with a key."""
    mode_fields: Mapping[str, str]
    """Fields that choose a mode with prices of its own, each with the value of the usual mode."""
    sources: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    """The source of each rule by provider, endpoint and name."""


@functools.cache
def bounded_lists() -> BoundedLists:
    """Return the lists of the shipped file, read once."""
    return load_bounded(BOUNDED_FILE)


def load_bounded(path: Path) -> BoundedLists:
    """Read the lists. Raises ProviderError, which names the row or key at fault."""
    try:
        raw = read_table(path)
        lists = {name: tuple(rows) for name, rows in raw["lists"].items()}
        sources: dict[tuple[str, str, str], str] = {}
        providers = {name: _provider(name, row, lists, sources) for name, row in raw["providers"].items()}
    except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise ProviderError(f"{path}: not a usable list of bounded fields: {error!r}") from None
    names = frozenset(name for _, _, name in sources)
    named = [item for bounded in providers.values() for rules in bounded.rules.values() for item in rules.items()]
    plain = [name for name in names if ":" not in name and not name.startswith("messages.")]
    return BoundedLists(
        providers=MappingProxyType(providers),
        names=names,
        plain_names=names - {name for name, rule in named if rule != ItemRule()},
        sized_names=frozenset(name for name, rule in named if rule.as_output),
        context_names=frozenset(name for name, rule in named if rule.context or rule.limit),
        valued_fields=frozenset(name.partition("=")[0] for name in plain if "=" in name),
        keyed_fields=frozenset(name.partition(".")[0] for name in plain if "." in name),
        mode_fields=MappingProxyType({str(name): str(usual) for name, usual in raw["mode_fields"].items()}),
        sources=MappingProxyType(sources),
    )


def _provider(
    provider: str,
    row: Mapping[str, Any],
    lists: Mapping[str, Sequence[Mapping[str, Any]]],
    sources: dict[tuple[str, str, str], str],
) -> BoundedProvider:
    _only(row, _PROVIDER_KEYS, f"provider {provider}")
    fees = {name: _fee(f"{provider}: fee {name}", fee) for name, fee in row.get("fees", {}).items()}
    rules: dict[Endpoint, ItemRules] = {}
    for endpoint in get_args(Endpoint):
        if endpoint not in row:
            continue
        of_endpoint: dict[str, ItemRule] = {}
        for rule_row in _rows(row[endpoint], lists):
            where = f"{provider} {endpoint}"
            rule = _rule(where, rule_row)
            if rule.fee and rule.fee not in fees:
                raise ProviderError(f"{where}: fee {rule.fee!r} has no price")
            for name in rule_row["items"]:
                of_endpoint[name] = rule
                sources[provider, endpoint, name] = str(rule_row["source"])
        rules[endpoint] = MappingProxyType(of_endpoint)
    return BoundedProvider(
        rules=MappingProxyType(rules),
        fees=MappingProxyType(fees),
        unbounded_models=tuple(str(pattern).lower() for pattern in row.get("unbounded_models", ())),
        per_request_models=tuple(str(pattern).lower() for pattern in row.get("per_request_models", ())),
        reasoning_beyond=tuple(host for hosts in row.get("reasoning_beyond", ()) for host in _hosts(provider, hosts)),
        usual_service=str(row.get("usual_service", "")),
        default_modes=tuple(str(mode) for mode in row.get("default_modes", ())),
        chat_output_fields=tuple(row["output_fields"]["chat"]),
        output_field_unsure=bool(row["output_fields"].get("unsure", False)),
        surcharges=tuple(_surcharge(provider, surcharge) for surcharge in row.get("surcharges", ())),
    )


def _rows(entries: Sequence[Any], lists: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Mapping[str, Any]]:
    for entry in entries:
        if isinstance(entry, str):
            yield from lists[entry]
        else:
            yield entry


def _rule(where: str, row: Mapping[str, Any]) -> ItemRule:
    _only(row, _ROW_KEYS, where)
    limit = row.get("limit", "")
    if not row["items"] or not row.get("source") or limit not in get_args(UseLimit):
        raise ProviderError(f"{where}: a row needs items, a source and a known limit: {row!r:.200}")
    if bool(row.get("most_uses")) != (limit in ("max_uses", "max_tool_calls")):
        raise ProviderError(f"{where}: most_uses stands exactly where a limit can be sent: {row!r:.200}")
    return ItemRule(
        tokens=int(row.get("tokens", 0)),
        context=bool(row.get("context", False)),
        as_output=bool(row.get("as_output", False)),
        limit=limit,
        fee=str(row.get("fee", "")),
        most_uses=int(row.get("most_uses", 0)),
    )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for pattern in patterns)


def _hosts(provider: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    _only(row, _HOST_KEYS, f"{provider}: hosts with reasoning beyond the bound")
    if not row["source"]:
        raise ProviderError(f"{provider}: hosts with reasoning beyond the bound need a source")
    return tuple(str(host) for host in row["hosts"])


def _surcharge(provider: str, row: Mapping[str, Any]) -> Surcharge:
    _only(row, _SURCHARGE_KEYS, f"{provider}: a surcharge")
    if not isinstance(row["factor"], str) or not row["source"]:
        raise ProviderError(f"{provider}: a surcharge needs a factor as decimal text and a source")
    return Surcharge(tuple(str(host) for host in row["hosts"]), Decimal(row["factor"]))


def _fee(where: str, row: Mapping[str, Any]) -> ToolFee:
    _only(row, _FEE_KEYS, where)
    if not isinstance(row["usd"], str) or not isinstance(row["checked_on"], date):
        raise ProviderError(f"{where}: usd is decimal text and checked_on a date")
    return ToolFee(Decimal(row["usd"]), row["checked_on"], str(row["source"]))


def _only(row: Mapping[str, Any], allowed: frozenset[str], where: str) -> None:
    unknown = sorted(str(name) for name in row if name not in allowed)
    if unknown:
        raise ProviderError(f"{where}: unknown key {unknown[0]!r}")
