"""What the detectors of private content miss, and what they take for private by mistake."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Callable

import orjson

from evidence.privacy.ordinary import code_lines, prose_lines
from evidence.privacy.trial import trial
from evidence.results import Measurement, not_measured
from spillway_router.privacy.detectors import PATTERN_NAMES, Detectors

LEAKED, FALSE_ALARMS = "privacy.leaked_bytes", "trust.false_alarms"
REQUESTS = 500_000
LINES = 100_000
"""Lines of code, and as many of prose."""
_KEYWORDS = ("password", "ssn")
"""The example of the README."""
_LEAST_CONTROLS = 0.99

Say = Callable[[str], None]


def leaked(say: Say, requests: int = REQUESTS, seed: int = 29, *, fault: bool = False) -> dict[str, Measurement]:
    """Count the bytes of canaries in requests that a stub cloud would get, which stands before the local backend.

    Every request is read and decided as in the router, without its sockets. It is void if requests without a canary
    don't reach the cloud. `fault`: keywords are searched by their characters, and no patterns.
    """
    tally = trial(requests, seed, say, fault=fault)
    details = {
        "controls": tally.controls,
        "controls_at_cloud": tally.controls_at_cloud,
        "leaks": tally.leaks,
        "kinds": dict(tally.kinds),
        "fields": dict(tally.fields),
        "spellings": dict(tally.spellings),
    }
    if tally.controls_at_cloud < _LEAST_CONTROLS * tally.controls:
        return {LEAKED: not_measured(f"only {tally.controls_at_cloud} of {tally.controls} controls reached the cloud")}
    versions = {name: importlib.metadata.version(name) for name in ("google-re2", "python-stdnum")}
    return {LEAKED: Measurement(tally.leaked_bytes, tally.requests, details, versions)}


def false_alarms(say: Say, lines: int = LINES) -> dict[str, Measurement]:
    """Search lines of code and of prose, each as a request of its own, with all patterns and the README's keywords.

    Addresses of authors and lines about passwords count as false alarms too, although they are what they are taken for.
    """
    detectors = Detectors(_KEYWORDS, patterns=PATTERN_NAMES)
    shares: dict[str, float] = {}
    kinds: Counter[str] = Counter()
    alarms = read = 0
    for name, source in (("code", code_lines(lines)), ("prose", prose_lines(lines))):
        count = alarmed = 0
        for line in source:
            body = {"model": "auto", "messages": [{"role": "user", "content": line}]}
            raised = detectors.kinds_in_body(body, orjson.dumps(body))
            count += 1
            alarmed += bool(raised)
            kinds.update(raised)
        shares[name] = alarmed / max(count, 1)
        alarms, read = alarms + alarmed, read + count
        say(f"  {name}: {alarmed} of {count} lines")
    details = {"kinds": dict(kinds), **{f"share_{name}": share for name, share in shares.items()}}
    return {FALSE_ALARMS: Measurement(alarms / max(read, 1), read, details)}
