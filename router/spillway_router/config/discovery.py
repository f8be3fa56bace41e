"""Backends that are discovered: one line of the configuration stands for the engines that are found at the moment.

Each engine becomes a backend of its own, named after the line and its address, so that what is learned of it stays
with it. The chains of aliases in which the line stands have all of them. Before any engine was found, the line stands
for one that does not answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from spillway_router.config.experiments import experiment_backends
from spillway_router.config.load import ConfigError, ConfigProblem, Loaded
from spillway_router.config.rules import named_backends
from spillway_router.config.settings import BackendPart, Settings

Engines = Mapping[str, tuple[str, ...]]
"""The base URLs of the engines that were found, by the name of the backend."""
NOBODY = "http://127.0.0.1:9/v1"
"""The address of an engine that does not answer: the discard port."""
MOST_ENGINES = 256
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class DiscoveryError(ValueError):
    """What was found is no list of engines; the message says why."""


def discovered_names(settings: Settings) -> tuple[str, ...]:
    """Return the names of the backends that are discovered."""
    return tuple(part.name for part in settings.backends if part.discover is not None)


def engine_urls(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the base URLs of lines like `10.0.0.7:8000` or `https://engine:8000/v1`, sorted and without repetition.

    Empty lines and what follows a # are passed over. Raises DiscoveryError for anything else.
    """
    urls: set[str] = set()
    for line in lines:
        words = line.partition("#")[0].split()
        if not words:
            continue
        url = words[0] if "://" in words[0] else f"http://{words[0]}/v1"
        try:
            parsed = urlsplit(url)
            valid = bool(parsed.hostname) and (parsed.port or 0) >= 0
        except ValueError:
            valid = False
        if len(words) > 1 or not valid or parsed.scheme not in ("http", "https"):
            raise DiscoveryError(f"{line.strip()!r} is no engine; write one address a line, such as 10.0.0.7:8000")
        urls.add(url)
    if len(urls) > MOST_ENGINES:
        raise DiscoveryError(f"{len(urls)} engines were found; at most {MOST_ENGINES} can be used")
    return tuple(sorted(urls))


def with_engines(written: Settings, engines: Engines) -> Settings:
    """Return the settings with the engines in the place of each discovered backend.

    Raises ConfigError if a discovered backend stands elsewhere than in the chains of aliases.
    """
    names = discovered_names(written)
    if not names:
        return written
    _check_places(written, names)
    parts: list[BackendPart] = []
    replaced: dict[str, tuple[str, ...]] = {}
    for part in written.backends:
        engine_parts = _engines_of(part, engines.get(part.name, ())) if part.discover is not None else (part,)
        parts.extend(engine_parts)
        replaced[part.name] = tuple(one.name for one in engine_parts)
    aliases = {
        alias: one.model_copy(update={"chain": tuple(new for name in one.chain for new in replaced.get(name, (name,)))})
        for alias, one in written.aliases.items()
    }
    # The engines come and go; the machine on whose account they run stays.
    machine = written.gpu.machine or f"discovered: {', '.join(names)}"
    gpu = written.gpu.model_copy(update={"machine": machine[:200]})
    return written.model_copy(update={"backends": tuple(parts), "aliases": aliases, "gpu": gpu})


def _engines_of(part: BackendPart, urls: tuple[str, ...]) -> tuple[BackendPart, ...]:
    alone = {"discover": None, "discover_from": "", "discover_api": "", "discover_token_file": None}
    alone["discover_ca_file"] = None
    if not urls:
        return (part.model_copy(update={**alone, "base_url": NOBODY}),)
    return tuple(
        part.model_copy(update={**alone, "base_url": url, "name": f"{part.name}.{_address(url)}"}) for url in urls
    )


def _address(url: str) -> str:
    """Return the address of an engine as a part of a name."""
    parsed = urlsplit(url)
    return _NO_NAME.sub("-", parsed.netloc + parsed.path.rstrip("/").removesuffix("/v1")).strip("-")


def _check_places(settings: Settings, names: tuple[str, ...]) -> None:
    places = (
        ("documents.external", settings.documents.external),
        *named_backends(settings.policy),
        *experiment_backends(settings.experiments),
    )
    problem = "is discovered, and may stand in the chains of aliases only; name an alias with it there instead"
    problems = [
        ConfigProblem(where, 0, f"{name} {problem}") for where, listed in places for name in listed if name in names
    ]
    if problems:
        raise ConfigError(problems)


def loaded_with(written: Loaded, engines: Engines) -> Loaded:
    """Return a configuration with the engines that were found. Raises ConfigError as `with_engines` does."""
    return replace(written, settings=with_engines(written.settings, engines))
