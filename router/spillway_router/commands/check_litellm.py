"""A LiteLLM proxy `config.yaml` as a spillway.yaml, with a note for everything that has no counterpart here.

Each entry of `model_list` becomes a backend, each `model_name` an alias whose chain holds its deployments and, after
them, those of its `fallbacks`. Backends on our own hardware come first, so that `auto` asks them first. Secrets that
stand in the file are never repeated: the note says which environment variable to put them into.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

import yaml

from spillway_router.prices import book
from spillway_router.prices.litellm import is_price, price_of
from spillway_router.prices.rows import RATES
from spillway_router.providers.catalogue import load_catalogue
from spillway_router.providers.interface import CatalogueEntry, ProviderError

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
"""The prefix of a LiteLLM model name -> our provider."""
_ENVIRONMENT = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")
_PERIODS = {"1h": "hour", "1d": "day", "24h": "day", "30d": "month", "1mo": "month"}
_READ = frozenset({"model", "api_key", "api_base", "base_url", "max_tokens", "order"})
_LEARNED = frozenset({"rpm", "tpm", "max_parallel_requests"})


class LiteLLMError(ValueError):
    """The file is no LiteLLM configuration; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Imported:
    """`settings` in the shape of spillway.yaml, and one sentence for each thing that could not be carried over."""

    settings: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """The spillway.yaml, the notes as comments on top."""
        head = ["# spillway.yaml, made from a LiteLLM configuration."]
        if self.notes:
            head.append("# Not carried over, or worth a look:")
            head.extend(f"#   - {note}" for note in self.notes)
        return "\n".join(head) + "\n" + yaml.safe_dump(dict(self.settings), sort_keys=False, allow_unicode=True)


@dataclass(slots=True)
class _Import:
    """What was made so far. `groups`: model_name -> [(order, backend name)]."""

    catalogue: Mapping[str, CatalogueEntry]
    backends: list[dict[str, Any]] = field(default_factory=list)
    groups: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say it once."""
        if text not in self.notes:
            self.notes.append(text)


def convert(text: str) -> Imported:
    """The spillway.yaml of a LiteLLM config.yaml. Raises LiteLLMError."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LiteLLMError(f"not valid YAML: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("model_list"), list):
        raise LiteLLMError("no `model_list` found; give the config.yaml that `litellm --config` reads")
    made = _Import(load_catalogue())
    for index, row in enumerate(data["model_list"]):
        _deployment(made, index, row)
    if not made.backends:
        raise LiteLLMError("none of its models can be converted:\n" + "\n".join(f"  - {n}" for n in made.notes))
    made.backends.sort(key=lambda backend: not _local(made, backend))
    settings: dict[str, Any] = {"listen": "127.0.0.1:8080", "backends": made.backends}
    aliases = _aliases(made, data)
    if aliases:
        settings["aliases"] = aliases
    settings |= _globals(made, data)
    return Imported(settings, tuple(made.notes))


def _local(made: _Import, backend: Mapping[str, Any]) -> bool:
    return bool(backend.get("local", made.catalogue[backend["provider"]].local))


def _deployment(made: _Import, index: int, row: object) -> None:
    params = row.get("litellm_params") if isinstance(row, dict) else None
    name = row.get("model_name") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(params, dict) or not isinstance(params.get("model"), str):
        made.note(f"model_list[{index}]: has no litellm_params.model; left out")
        return
    model, shown = params["model"], f"{name or params['model']} ({params['model']})"
    if "*" in model or "*" in str(name):
        made.note(f"{shown}: wildcards are not converted; list the models one by one")
        return
    base = params.get("api_base") or params.get("base_url")
    found = _provider(model, base is not None)
    if found is None:
        prefix = model.partition("/")[0]
        made.note(f"{shown}: no provider here for {prefix!r}; if it speaks the OpenAI API, add it as `generic`")
        return
    provider, model = found
    backend: dict[str, Any] = {"name": _name(made, provider, model), "provider": provider, "model": model}
    backend |= _address(made, shown, provider, base)
    backend |= _key(made, shown, provider, params.get("api_key"))
    backend |= _price(made, shown, provider, model, {**(row.get("model_info") or {}), **params})
    if isinstance(params.get("max_tokens"), int):
        backend["max_output_tokens"] = params["max_tokens"]
    _note_rest(made, shown, params)
    made.backends.append(backend)
    order = params["order"] if isinstance(params.get("order"), int) else 1
    made.groups.setdefault(str(name or model), []).append((order, backend["name"]))


def _provider(model: str, has_base: bool) -> tuple[str, str] | None:
    """(our provider, its model name). An OpenAI model at an address of its own is someone else's: `generic`."""
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


def _name(made: _Import, provider: str, model: str) -> str:
    tail = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rpartition("/")[2]).strip("-.")
    base = f"{provider}-{tail}"[:60].rstrip("-.")
    taken = {backend["name"] for backend in made.backends}
    return next(n for n in (base, *(f"{base}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def _address(made: _Import, shown: str, provider: str, base: object) -> dict[str, Any]:
    if base is None:
        return {}
    url = _ENVIRONMENT.sub(r"${\1}", str(base)).rstrip("/")
    if made.catalogue[provider].local and not url.startswith("${") and urlsplit(url).path == "":
        url += "/v1"
        made.note(f"{shown}: /v1 was added to its address")
    if provider == "generic":
        made.note(f"{shown}: counts as a paid cloud; write `local: true` if it runs on your own hardware")
    return {"base_url": url}


def _key(made: _Import, shown: str, provider: str, key: object) -> dict[str, Any]:
    usual = made.catalogue[provider].key_variable
    if key is None:
        return {}
    found = _ENVIRONMENT.fullmatch(str(key))
    if found is not None:
        return {} if found.group(1) == usual else {"api_key": f"${{{found.group(1)}}}"}
    if usual:
        made.note(f"{shown}: its key stands in the file and was not copied; export {usual}")
    elif str(key).lower() not in ("none", "fake-key", "empty", "sk-1234", "dummy", ""):
        made.note(f"{shown}: its key stands in the file and was not copied; write api_key: ${{A_VARIABLE}}")
    return {}


def _price(made: _Import, shown: str, provider: str, model: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """`price:` in USD per million tokens, exactly what the file says per token."""
    if made.catalogue[provider].local:
        return {}
    found: dict[str, Decimal] = {}
    for theirs, value in row.items():
        if not is_price(str(theirs)) or value is None:
            continue
        try:
            found[theirs] = Decimal(str(value))  # as it stands in the file: YAML has read it, as number or text
        except InvalidOperation:
            made.note(f"{shown}: {theirs} is no number")
    try:
        return {"price": _named(price_of(found))} if found else _unpriced(made, shown, provider, model)
    except ProviderError as error:
        if "no price per token" not in str(error):
            made.note(f"{shown}: its price was not copied: {error}")
        return _unpriced(made, shown, provider, model)


def _unpriced(made: _Import, shown: str, provider: str, model: str) -> dict[str, Any]:
    if book.record(provider, model) is None:
        made.note(f"{shown}: has no known price; add price: {{input_per_million: ..., output_per_million: ...}}")
    return {}


def _named(price: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a price list in the names of the configuration."""
    named = {f"{name}_per_million" if name in RATES else name: value for name, value in price.items()}
    if "steps" in price:
        named["steps"] = [_named(step) for step in price["steps"]]
    return named


def _note_rest(made: _Import, shown: str, params: Mapping[str, Any]) -> None:
    for key in sorted(params.keys() - _READ):
        if is_price(key):
            continue
        if key in _LEARNED:
            made.note(f"{shown}: {key} is left out: the provider's own x-ratelimit-* headers are followed")
        else:
            made.note(f"{shown}: litellm_params.{key} has no counterpart; clients send it themselves")


def _aliases(made: _Import, data: Mapping[str, Any]) -> dict[str, Any]:
    chains = {group: [name for _, name in sorted(found, key=lambda f: f[0])] for group, found in made.groups.items()}
    router, calls = _part(data, "router_settings"), _part(data, "litellm_settings")
    own = {group: list(chain) for group, chain in chains.items()}
    for row in [*_rows(calls.get("fallbacks")), *_rows(router.get("fallbacks"))]:
        for group, others in row.items():
            for other in others if isinstance(others, list) else []:
                if group in own and other in own:
                    chains[group].extend(n for n in own[other] if n not in chains[group])
                else:
                    made.note(f"fallback {group} -> {other}: one of them was not converted")
    for alias, group in (router.get("model_group_alias") or {}).items():
        if isinstance(group, str) and group in chains:
            chains[alias] = list(chains[group])
        else:
            made.note(f"model_group_alias {alias}: its group was not converted")
    return {group: {"chain": chain} for group, chain in chains.items()}


def _rows(value: object) -> Sequence[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _part(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = data.get(name)
    return part if isinstance(part, dict) else {}


def _globals(made: _Import, data: Mapping[str, Any]) -> dict[str, Any]:
    """Keys, budget and time limit from the other sections; a note for every other setting."""
    found: dict[str, Any] = {}
    for section, settings in data.items():
        if section == "model_list":
            continue
        for key, value in settings.items() if isinstance(settings, dict) else [("", None)]:
            where = f"{section}.{key}".rstrip(".")
            if key in ("fallbacks", "model_group_alias", "budget_duration"):
                continue
            if where == "general_settings.master_key":
                found["keys"] = {"required": True}
                made.note("general_settings.master_key: keys are made with `spillway keys create NAME --role admin`")
            elif where == "litellm_settings.max_budget":
                found |= _budget(made, value, settings.get("budget_duration"))
            elif key == "drop_params":
                made.note(f"{where}: always so here: fields that a provider rejects are dropped where that is harmless")
            elif key in ("request_timeout", "timeout") and isinstance(value, int | float):
                found["limits"] = {"answer_s": float(value)}
            else:
                made.note(f"{where}: has no counterpart")
    return found


def _budget(made: _Import, limit: object, duration: object) -> dict[str, Any]:
    period = _PERIODS.get(str(duration))
    if period is None:
        made.note(f"litellm_settings.max_budget: a budget needs a period of an hour, a day or a month, not {duration}")
        return {}
    return {"budgets": [{"scope": "all", "period": period, "limit_usd": str(limit)}]}
