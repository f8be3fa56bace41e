"""Finds what is wrong with an order before it costs money: the names and settings of the target, and the configuration
that the machine will run, which is checked as `spillway check` does.

Whether the model fits the GPU is the arithmetic of `spillway plan`, which the command asks by itself.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel

from spillway_router.config.assemble import Assembly, assemble
from spillway_router.config.documents import document_problems
from spillway_router.config.load import ConfigError, ConfigProblem, ConfigRejected, parse
from spillway_router.config.settings import SQLITE_URL, Settings
from spillway_router.deploy.container import settings_text, stop_s
from spillway_router.deploy.order import PLACEHOLDER_IMAGE, PORT, STOP_REST_S, Accepted, DeploymentOrder

_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STAND_IN = "value-of-a-secret"
"""What a secret is on the machine is unknown here; that it is there is what the check needs."""
_PASSWORD = re.compile(
    r"://[^/\s:@]*:(?!\$\{)[^@\s]+@|://\S*[?&](?:ssl)?(?:password|passwd|token|secret)=(?!\$\{)[^&\s]", re.IGNORECASE
)
"""A password in an address, before its host or among its parameters."""
_SECRET_FIELDS = ("api_key", "password", "secret", "token", "webhook_url")
"""The settings that no log shows either."""
_SECRET_HEADER = re.compile("auth|key|token|secret|cookie", re.IGNORECASE)
_OWN_VARIABLES = frozenset(
    {
        *("PATH", "HOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "HF_HOME"),
        *("VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"),
        *("SPILLWAY_ACCEPT_KEY", "SPILLWAY_CONFIG", "SPILLWAY_WRITES"),
    }
)
_IMAGE = re.compile(
    r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]+)?/)?"  # a registry
    r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_WRITTEN = ("file", "journal", "stop_file")
"""Paths that the router makes itself, or looks for again and again."""
_OWN_HOSTS = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104 - it is compared
_STORE_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def order_problems(order: DeploymentOrder, accepted: Accepted, today: date) -> tuple[str, ...]:
    """Return every reason why the order must not be carried out, each with what to change."""
    machine = machine_problems(order, accepted, today)
    return (*_names(order, accepted), *_stores(order), *_settings(order, accepted), *machine)


def _names(order: DeploymentOrder, accepted: Accepted) -> Iterator[str]:
    if not re.fullmatch(accepted.name, order.name):
        yield f"--name {order.name!r} is not a name there (its form: {accepted.name}); choose another"
    if order.place and not re.fullmatch(accepted.place, order.place):
        yield f"--place {order.place!r} is not a place there (its form: {accepted.place})"
    if order.volume and not accepted.volumes:
        yield "--volume: this target mounts no existing volume; omit it"
    if order.disk_gb < accepted.least_disk_gb:
        yield f"--disk {order.disk_gb}: the machine needs at least {accepted.least_disk_gb} GB"
    for name in order.secrets:
        if not _VARIABLE_NAME.fullmatch(name):
            yield f"--secret {name!r} is not the name of a variable; a secret is named here, never given"
        elif name in _OWN_VARIABLES or name.startswith("SPILLWAY_YAML"):
            yield f"--secret {name} is a variable that the image needs itself; store the secret under another name"
    if order.image != PLACEHOLDER_IMAGE and not _IMAGE.fullmatch(order.image):
        yield (
            f"--image {order.image!r} is not the name of an image; write one in lower case, such as "
            "registry.example.com/spillway:0.1.0"
        )


def _stores(order: DeploymentOrder) -> Iterator[str]:
    """Yield the secrets that the machine lacks to fetch its model from an object store."""
    places = [place for place in (order.model, *order.loras.values()) if place.startswith("s3://")]
    missing = [name for name in _STORE_SECRETS if places and name not in order.secrets]
    if missing:
        yield (
            f"the machine can't fetch {places[0]} without credentials: store them as secrets of the target, and pass "
            + " ".join(f"--secret {name}" for name in missing)
        )


def _settings(order: DeploymentOrder, accepted: Accepted) -> Iterator[str]:
    for name, value in order.options.items():
        form = accepted.settings.get(name)
        if form is None:
            yield f"--set {name}: there is no such setting; there are {', '.join(accepted.settings) or 'none'}"
        elif not re.fullmatch(form, value):
            yield f"--set {name}={value}: the value has the form {form}"
    text = settings_text(order)
    characters = len(base64.b64encode(text.encode()))
    if accepted.most_characters is not None and characters > accepted.most_characters:
        yield (
            f"the configuration has {characters} characters in base64, and the target takes {accepted.most_characters};"
            " shorten it, or mount a file in an image of your own"
        )


def machine_problems(order: DeploymentOrder, accepted: Accepted, today: date) -> Iterator[str]:
    """Yield what is wrong with the configuration that the machine will run."""
    text, origin = settings_text(order), "--send" if order.yaml else "the machine's configuration"
    environment = dict.fromkeys(order.secrets, _STAND_IN)
    try:
        settings = parse(text, environment)
    except ConfigError as error:
        yield from (f"{origin}: {_with_secret(problem)}" for problem in error.problems)
        return
    yield from (f"{origin}: {problem}" for problem in _literal_secrets(yaml.safe_load(text)))
    yield from (f"{origin}: {problem}" for problem in _reachable(settings))
    if order.yaml:
        others = (
            *_books(settings, order),
            *_ledger(settings, order, accepted),
            *_stop(settings, accepted),
            *_files(settings),
        )
        yield from (f"{origin}: {problem}" for problem in others)
    assembled = assemble(settings, environment, today)
    problems = assembled.problems if isinstance(assembled, ConfigRejected) else assembled.disabled
    yield from (f"{origin}: {_with_secret(problem)}" for problem in (*problems, *document_problems(settings)))
    yield from _copied(settings, order)
    if isinstance(assembled, Assembly):
        yield from _engines(assembled, order)
        yield from _unlimited(settings, assembled, order)


def _with_secret(problem: ConfigProblem) -> str:
    """Return a problem, with the way to give the machine a variable that it lacks."""
    missing = re.search(r"export ([A-Z_][A-Z0-9_]*)", problem.problem)
    return f"{problem}; the machine gets it by --secret {missing[1]}" if missing else str(problem)


def _reachable(settings: Settings) -> Iterator[str]:
    if settings.loopback:
        yield f"listen: {settings.listen} can't be reached from outside the machine; write 0.0.0.0:{PORT}"
    elif settings.port != PORT:
        yield f"listen: only port {PORT} of the machine is opened; write 0.0.0.0:{PORT}"
    own = next((one for one in settings.backends if one.provider == "vllm" and one.base_url), None)
    if own is None:
        yield "backends: none is the machine's own engine; add one with provider: vllm and base_url"
        return
    place = urlsplit(own.base_url or "")
    if place.hostname not in _OWN_HOSTS or place.port == PORT:
        yield (
            f"backends.{own.name}: the first vllm backend is the engine that the machine starts, and it can't listen "
            f"at {own.base_url}; write http://127.0.0.1:8001/v1, and other engines after it"
        )


def _books(settings: Settings, order: DeploymentOrder) -> Iterator[str]:
    """Yield where the machine would book another GPU than the one that is rented."""
    gpu = settings.gpu
    if gpu.name is not None and gpu.name != order.gpu:
        yield f"gpu.name: the file says {gpu.name}, and {order.gpu} would be rented; write {order.gpu}"
    if gpu.count != order.count:
        yield f"gpu.count: the file says {gpu.count}, and {order.count} would be rented; write {order.count}"
    if gpu.price_known and gpu.price_per_month is None and gpu.price_per_hour != order.price_per_hour:
        yield (
            f"gpu.price_per_hour: the file says {gpu.price_per_hour}, and the order {order.price_per_hour}; the "
            "machine would book the one and this ledger the other: write the same price"
        )


def _ledger(settings: Settings, order: DeploymentOrder, accepted: Accepted) -> Iterator[str]:
    """Yield why a ledger in a file could not be written, or would be lost with the machine."""
    path = settings.ledger.path
    if path is None:
        return
    if not path.is_absolute():
        if accepted.mounts_file:
            yield (
                f"ledger.url: {path} counts from the folder of the configuration, which can't be written to; write "
                "sqlite:////data/spillway.db"
            )
        return
    roots = [root for root in accepted.volume_roots if order.volume] or ["/data"]
    if not any(path.is_relative_to(root) for root in roots):
        yield (
            f"ledger.url: {path} is on no volume of the machine, so that the ledger could not be written or would be "
            f"lost; put it below {' or '.join(roots)}, such as sqlite:///{roots[0]}/spillway.db"
        )


def _stop(settings: Settings, accepted: Accepted) -> Iterator[str]:
    """Yield why the machine would be ended while it still gives its answers."""
    needed_s = stop_s(settings.limits)
    if accepted.most_stop_s is not None and needed_s > accepted.most_stop_s:
        yield (
            f"limits.stop_s: a stop may take {needed_s} s by the limits (stop_unready_s, stop_s and {STOP_REST_S} s), "
            f"and the machine is ended after {accepted.most_stop_s} s; make stop_s and stop_unready_s at most "
            f"{accepted.most_stop_s - STOP_REST_S} s together"
        )


def _files(part: BaseModel, where: str = "") -> Iterator[str]:
    """Yield the files that the router would read beside its configuration: here they may be there, and the machine gets
    the configuration alone."""
    for name in type(part).model_fields:
        value, place = getattr(part, name), f"{where}.{name}".lstrip(".")
        pending = [*value.values()] if isinstance(value, Mapping) else [*value] if isinstance(value, tuple) else [value]
        for each in pending:
            if isinstance(each, BaseModel):
                yield from _files(each, place)
            elif isinstance(each, Path) and not each.is_absolute() and name not in _WRITTEN:
                yield (
                    f"{place}: {each} is beside the file here, and the machine gets the configuration alone; put it in "
                    "an image of your own, and write its path there"
                )


def _literal_secrets(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the places of passwords and keys that stand in the text: it travels where many can read it."""
    pending: list[tuple[str, Any]] = [("", values)]
    while pending:
        where, value = pending.pop()
        if isinstance(value, dict):
            pending.extend((f"{where}.{name}".lstrip("."), inner) for name, inner in value.items())
        elif isinstance(value, list):
            pending.extend((f"{where}.{place}", inner) for place, inner in enumerate(value))
        elif isinstance(value, str) and _is_secret(where, value):
            yield f"{where} holds a secret, which the provider could see; write ${{NAME}}, and pass --secret NAME"


def _is_secret(where: str, value: str) -> bool:
    if not value:
        return False
    if _PASSWORD.search(value) is not None:
        return True
    *above, name = where.split(".")
    is_field = name in _SECRET_FIELDS or ("headers" in above[-1:] and _SECRET_HEADER.search(name) is not None)
    return is_field and "${" not in value


def _copied(settings: Settings, order: DeploymentOrder) -> Iterator[str]:
    """Yield why several machines with a ledger each would spend a budget several times."""
    workers = order.options.get("workers_max", "2") if order.options.get("serverless") == "1" else "1"
    text = order.options.get("replicas", workers)
    copies = int(text) if text.isdecimal() else 1
    if copies > 1 and settings.budgets and settings.ledger.url.startswith(SQLITE_URL):
        yield (
            f"up to {copies} machines would each have a SQLite ledger, and every budget would count once per machine; "
            "send a configuration with the ledger in PostgreSQL, or let only one machine run"
        )


def _engines(assembly: Assembly, order: DeploymentOrder) -> Iterator[str]:
    """Yield the clouds of an order that are none: the machine has one engine, which is there already."""
    ordered = {provider for provider, _ in order.clouds}
    for backend in assembly.backends:
        if backend.local and backend.name in ordered:
            yield f"--cloud {backend.name} is an engine of one's own and no cloud; omit it"


def _unlimited(settings: Settings, assembly: Assembly, order: DeploymentOrder) -> Iterator[str]:
    clouds = [backend.name for backend in assembly.backends if not backend.local]
    limited = any(budget.scope == "all" for budget in settings.budgets)
    if clouds and not limited and not order.unlimited:
        yield (
            f"{' and '.join(clouds)} could be paid without limit; add --budget USD per day, or in what you send "
            "`budgets` with scope: all (--budget none: no limit is wanted)"
        )
