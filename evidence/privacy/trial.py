"""Generated requests with canaries, read and decided as the router does, before a stub cloud that comes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random

import orjson

from evidence.privacy.canaries import ANY_SPELLINGS, KEYWORDS, NUMBERS, WORD_SPELLINGS
from evidence.privacy.requests import FIELDS, FILLERS, Body
from spillway_router.core.money.tariff import Tariff
from spillway_router.core.routing.model import Backend, BackendSignals, Caller, Endpoint, Signals
from spillway_router.core.routing.policy import Policy, decide
from spillway_router.privacy.detectors import PATTERN_NAMES, Detectors
from spillway_router.privacy.stepwise import search_body
from spillway_router.proxy.request.facts import PrivacyRule, read_facts
from spillway_router.proxy.request.large_body import SEARCHED_AT_ONCE, ExaminedBody

_ENDPOINTS: frozenset[Endpoint] = frozenset({"chat", "completions", "embeddings", "responses", "messages"})
_LONG_EVERY = 500
"""One request of so many is longer than what is searched in one go."""
_CONTROL_EVERY = 20
_MOST_SHOWN = 20


@dataclass(slots=True)
class Tally:
    """What the stub cloud saw. A control is the same request with harmless text in place of the canary."""

    requests: int = 0
    leaked_bytes: int = 0
    leaks: list[str] = field(default_factory=list)
    controls: int = 0
    controls_at_cloud: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    spellings: Counter[str] = field(default_factory=Counter)


def _policy() -> Policy:
    backends = {
        name: Backend(
            name=name,
            provider="generic",
            model="m",
            local=tariff is None,
            endpoints=_ENDPOINTS,
            capabilities=frozenset({"tools", "json_schema"}),
            tariff=tariff,
        )
        for name, tariff in (("cloud", Tariff(Decimal(1), Decimal(4))), ("local", None))
    }
    return Policy("v", backends, {"out": ("cloud", "local")})


class StubCloud:
    """Stands first in the chain. `rule` is the router's privacy rule."""

    def __init__(self, rule: PrivacyRule) -> None:
        self._rule = rule
        self._policy = _policy()
        self._signals = Signals(0.0, {"cloud": BackendSignals(), "local": BackendSignals()})

    def receives(self, endpoint: Endpoint, body: Body) -> bool:
        """Return whether a request reaches it."""
        facts = read_facts("r", endpoint, {}, self._read(body), Caller(), self._rule)
        decision = decide(facts, self._signals, self._policy)
        return any(not candidate.backend.local for candidate in decision.candidates)

    def _read(self, body: Body) -> Body:
        text = orjson.dumps(body)
        if len(text) <= SEARCHED_AT_ONCE or self._rule.detectors is None:
            return body
        examined = ExaminedBody(body)
        examined.text_bytes = len(text)
        steps = search_body(self._rule.detectors, body, text)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                examined.kinds = end.value
                return examined


def _canary(random: Random) -> tuple[str, str, str]:
    """Return the kind of a canary, its spelling's name, and its text."""
    if random.random() < 0.5:
        name = random.choice(sorted(WORD_SPELLINGS))
        return "keyword", name, WORD_SPELLINGS[name](random.choice(KEYWORDS), random)
    kind, name = random.choice(sorted(NUMBERS)), random.choice(sorted(ANY_SPELLINGS))
    return kind, name, ANY_SPELLINGS[name](NUMBERS[kind](random), random)


def _around(text: str, random: Random, times: int) -> str:
    before, after = random.choice(FILLERS) * times, random.choice(FILLERS) * times
    return f"{before} {text} {after}"


def trial(requests: int, seed: int, say: Callable[[str], None], *, fault: bool = False) -> Tally:
    """Send the requests. `fault`: the router compares characters only."""
    detectors = Detectors(KEYWORDS, match="anywhere" if fault else "words", patterns=() if fault else PATTERN_NAMES)
    cloud, random, tally = StubCloud(PrivacyRule(detectors=detectors)), Random(seed), Tally()
    names = sorted(FIELDS)
    for i in range(requests):
        kind, spelling, text = _canary(random)
        name = names[i % len(names)]
        times = 400 if i % _LONG_EVERY == 0 else random.randint(0, 3)
        endpoint, body = FIELDS[name](_around(text, random, times), random)
        tally.requests += 1
        tally.kinds[kind] += 1
        tally.fields[name] += 1
        tally.spellings[spelling] += 1
        if cloud.receives(endpoint, body):
            tally.leaked_bytes += len(text.encode())
            if len(tally.leaks) < _MOST_SHOWN:
                tally.leaks.append(f"{kind}, {spelling}, {name}: {text!r}")
        if i % _CONTROL_EVERY == 0:
            tally.controls += 1
            tally.controls_at_cloud += cloud.receives(*FIELDS[name](_around("nothing special", random, times), random))
        if i % 50_000 == 49_999:
            say(f"  {i + 1} requests, {tally.leaked_bytes} bytes leaked")
    return tally
