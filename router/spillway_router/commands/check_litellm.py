"""Convert a LiteLLM proxy `config.yaml` into a spillway.yaml, with a note for everything that has no counterpart.

Each entry of `model_list` becomes a backend. Each `model_name` becomes an alias whose chain holds its deployments and,
after them, those of its `fallbacks`. Backends on the user's own hardware come first, so that `auto` asks them first.
Secrets in the file are never copied: a note names the environment variable to put them into.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

import yaml

from spillway_router.config.yaml_faults import YAML_ERRORS, yaml_line, yaml_problem
from spillway_router.prices import book
from spillway_router.prices.litellm import is_price, price_of
from spillway_router.prices.rows import RATES, PriceError
from spillway_router.providers.catalogue import load_catalogue
from spillway_router.providers.interface import CatalogueEntry

PROVIDERS: Mapping[str, str] = {
    "groq": "groq",
    "together_ai": "together",
    "openai": "openai",
    "text-completion-openai": "openai",
    "openrouter": "openrouter",
    "huggingface": "huggingface",
    "cerebras": "cerebras",
    "anthropic": "anthropic",
    "fireworks_ai": "fireworks",
    "hosted_vllm": "vllm",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "custom_openai": "generic",
    "openai_like": "generic",
    "litellm_proxy": "generic",
}
"""The prefix of a LiteLLM model name -> the provider's name in the catalogue."""
_ENVIRONMENT = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")
_PERIODS = {"1h": "hour", "1d": "day", "24h": "day", "30d": "month", "1mo": "month"}
_READ = frozenset({"model", "api_key", "api_base", "base_url", "max_tokens", "order"})
_LEARNED = frozenset({"rpm", "tpm", "max_parallel_requests"})


class LiteLLMError(ValueError):
    """The file is not a LiteLLM configuration; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A converted configuration: `settings` in the shape of spillway.yaml, and a note per setting that was not
    converted."""

    settings: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """The text of the spillway.yaml, with the notes as comments on top."""
        head = ["# spillway.yaml, made from a LiteLLM configuration."]
        if self.notes:
            head.append("# Not converted, or worth checking:")
            head.extend(f"#   - {note}" for note in self.notes)
        return "\n".join(head) + "\n" + yaml.safe_dump(dict(self.settings), sort_keys=False, allow_unicode=True)


@dataclass(slots=True)
class _Import:
    """What has been converted so far. `groups` maps a model_name to [(order, backend name)]."""

    catalogue: Mapping[str, CatalogueEntry]
    backends: list[dict[str, Any]] = field(default_factory=list)
    groups: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a note unless it is there already."""
        if text not in self.notes:
            self.notes.append(text)


def convert(text: str) -> Imported:
    """Convert the text of a LiteLLM config.yaml. Raises `LiteLLMError`."""
    try:
        data = yaml.safe_load(text)
    except YAML_ERRORS as error:
        raise LiteLLMError(f"not valid YAML, line {yaml_line(error)}: {yaml_problem(error)}") from None
    if not isinstance(data, dict) or not isinstance(data.get("model_list"), list):
        raise LiteLLMError("no `model_list` found; give the config.yaml that `litellm --config` reads")
    draft = _Import(load_catalogue())
    for index, row in enumerate(data["model_list"]):
        _deployment(draft, index, row)
    if not draft.backends:
        raise LiteLLMError("none of its models can be converted:\n" + "\n".join(f"  - {n}" for n in draft.notes))
    draft.backends.sort(key=lambda backend: not _local(draft, backend))
    settings: dict[str, Any] = {"listen": "127.0.0.1:8080", "backends": draft.backends}
    aliases = _aliases(draft, data)
    if aliases:
        settings["aliases"] = aliases
    settings |= _globals(draft, data)
    return Imported(settings, tuple(draft.notes))


def _local(draft: _Import, backend: Mapping[str, Any]) -> bool:
    return bool(backend.get("local", draft.catalogue[backend["provider"]].local))


def _deployment(draft: _Import, index: int, row: object) -> None:
    params = row.get("litellm_params") if isinstance(row, dict) else None
    name = row.get("model_name") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(params, dict) or not isinstance(params.get("model"), str):
        draft.note(f"model_list[{index}]: it has no litellm_params.model and was left out")
        return
    model, shown = params["model"], f"{name or params['model']} ({params['model']})"
    if "*" in model or "*" in str(name):
        draft.note(f'{shown}: wildcards are not converted; add a backend of that provider with the model "*"')
        return
    base = params.get("api_base") or params.get("base_url")
    match = _provider(model, base is not None)
    if match is None:
        prefix = model.partition("/")[0]
        draft.note(
            f"{shown}: Spillway has no provider for {prefix!r}; if it speaks the OpenAI API, add it as `generic`"
        )
        return
    provider, model = match
    backend: dict[str, Any] = {"name": _name(draft, provider, model), "provider": provider, "model": model}
    backend |= _address(draft, shown, provider, base)
    backend |= _key(draft, shown, provider, params.get("api_key"))
    backend |= _price(
        draft=draft, shown=shown, provider=provider, model=model, row={**(row.get("model_info") or {}), **params}
    )
    if isinstance(params.get("max_tokens"), int):
        backend["max_output_tokens"] = params["max_tokens"]
    _note_rest(draft, shown, params)
    draft.backends.append(backend)
    order = params["order"] if isinstance(params.get("order"), int) else 1
    draft.groups.setdefault(str(name or model), []).append((order, backend["name"]))


def _provider(model: str, has_base: bool) -> tuple[str, str] | None:
    """Return (provider, model name). An OpenAI model with a base URL of its own is served by someone else:
    `generic`."""
    prefix, slash, rest = model.partition("/")
    if slash and prefix in PROVIDERS:
        provider = PROVIDERS[prefix]
        return ("generic" if provider == "openai" and has_base else provider), rest
    if has_base and not slash:
        return "generic", model
    for provider in ("openai", "anthropic"):
        if book.record(provider, model) is not None:
            return provider, model
    return None


def _name(draft: _Import, provider: str, model: str) -> str:
    tail = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rpartition("/")[2]).strip("-.")
    base = f"{provider}-{tail}"[:60].rstrip("-.")
    taken = {backend["name"] for backend in draft.backends}
    return next(n for n in (base, *(f"{base}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def _address(draft: _Import, shown: str, provider: str, base: object) -> dict[str, Any]:
    if base is None:
        return {}
    url = _ENVIRONMENT.sub(r"${\1}", str(base)).rstrip("/")
    if draft.catalogue[provider].local and not url.startswith("${") and urlsplit(url).path == "":
        url += "/v1"
        draft.note(f"{shown}: /v1 was added to its base URL")
    if provider == "generic":
        draft.note(f"{shown}: it counts as a paid cloud; write `local: true` if it runs on your own hardware")
    return {"base_url": url}


def _key(draft: _Import, shown: str, provider: str, key: object) -> dict[str, Any]:
    usual = draft.catalogue[provider].key_variable
    if key is None:
        return {}
    variable = _ENVIRONMENT.fullmatch(str(key))
    if variable is not None:
        return {} if variable.group(1) == usual else {"api_key": f"${{{variable.group(1)}}}"}
    if usual:
        draft.note(f"{shown}: the key in the file was not copied; export {usual}")
    elif str(key).lower() not in ("none", "fake-key", "empty", "sk-1234", "dummy", ""):
        draft.note(f"{shown}: the key in the file was not copied; write api_key: ${{A_VARIABLE}}")
    return {}


def _price(draft: _Import, shown: str, provider: str, model: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return `price:` in USD per million tokens, exactly what the file says per token."""
    if draft.catalogue[provider].local:
        return {}
    prices: dict[str, Decimal] = {}
    for name, value in row.items():
        if not is_price(str(name)) or value is None:
            continue
        try:
            prices[name] = Decimal(
                str(value)
            )  # str() gives the digits of the file, whether YAML read a number or a text
        except InvalidOperation:
            draft.note(f"{shown}: {name} is not a number")
    try:
        return {"price": _named(price_of(prices))} if prices else _unpriced(draft, shown, provider, model)
    except PriceError as error:
        if "no price per token" not in str(error):
            draft.note(f"{shown}: its price was not copied: {error}")
        return _unpriced(draft, shown, provider, model)


def _unpriced(draft: _Import, shown: str, provider: str, model: str) -> dict[str, Any]:
    if book.record(provider, model) is None:
        draft.note(f"{shown}: its price is unknown; add price: {{input_per_million: ..., output_per_million: ...}}")
    return {}


def _named(price: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the fields of a price-list row as the configuration calls them."""
    named = {f"{name}_per_million" if name in RATES else name: value for name, value in price.items()}
    if "steps" in price:
        named["steps"] = [_named(step) for step in price["steps"]]
    return named


def _note_rest(draft: _Import, shown: str, params: Mapping[str, Any]) -> None:
    for key in sorted(params.keys() - _READ):
        if is_price(key):
            continue
        if key in _LEARNED:
            draft.note(f"{shown}: {key} was left out; Spillway follows the provider's own x-ratelimit-* headers")
        else:
            draft.note(f"{shown}: litellm_params.{key} has no counterpart; clients can send it themselves")


def _aliases(draft: _Import, data: Mapping[str, Any]) -> dict[str, Any]:
    chains = {group: [name for _, name in sorted(rows, key=lambda r: r[0])] for group, rows in draft.groups.items()}
    router, requests = _part(data, "router_settings"), _part(data, "litellm_settings")
    deployments = {group: list(chain) for group, chain in chains.items()}
    for row in [*_rows(requests.get("fallbacks")), *_rows(router.get("fallbacks"))]:
        for group, others in row.items():
            for other in others if isinstance(others, list) else []:
                if group in deployments and other in deployments:
                    chains[group].extend(n for n in deployments[other] if n not in chains[group])
                else:
                    draft.note(f"fallback {group} -> {other}: one of them was not converted")
    for alias, group in (router.get("model_group_alias") or {}).items():
        if isinstance(group, str) and group in chains:
            chains[alias] = list(chains[group])
        else:
            draft.note(f"model_group_alias {alias}: its group was not converted")
    return {group: {"chain": chain} for group, chain in chains.items()}


def _rows(value: object) -> Sequence[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _part(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = data.get(name)
    return part if isinstance(part, dict) else {}


def _globals(draft: _Import, data: Mapping[str, Any]) -> dict[str, Any]:
    """Convert keys, budget and time limit from the other sections, and note every other setting."""
    converted: dict[str, Any] = {}
    for section, settings in data.items():
        if section == "model_list":
            continue
        for key, value in settings.items() if isinstance(settings, dict) else [("", None)]:
            where = f"{section}.{key}".rstrip(".")
            if key in ("fallbacks", "model_group_alias", "budget_duration"):
                continue
            if where == "general_settings.master_key":
                converted["keys"] = {"required": True}
                draft.note(
                    "general_settings.master_key: keys are created with `spillway keys create NAME --role admin`"
                )
            elif where == "litellm_settings.max_budget":
                converted |= _budget(draft, value, settings.get("budget_duration"))
            elif key == "drop_params":
                draft.note(f"{where}: Spillway always drops fields that a provider rejects, where that is harmless")
            elif key in ("request_timeout", "timeout") and isinstance(value, int | float):
                converted["limits"] = {"answer_s": float(value)}
            else:
                draft.note(f"{where}: it has no counterpart")
    return converted


def _budget(draft: _Import, limit: object, duration: object) -> dict[str, Any]:
    period = _PERIODS.get(str(duration))
    if period is None:
        draft.note(f"litellm_settings.max_budget: a budget needs a period of an hour, a day or a month, not {duration}")
        return {}
    return {"budgets": [{"scope": "all", "period": period, "limit_usd": str(limit)}]}
