"""What the detectors of private content miss, and what they take for private by mistake."""

from __future__ import annotations

import importlib.metadata
import re
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

    The files have lists of authors with their e-mail addresses. Such a line is what the pattern is there for, so its
    alarm is counted apart (`share_with_addresses` in the details). Lines about passwords count as false alarms.
    """
    detectors = Detectors(_KEYWORDS, patterns=PATTERN_NAMES)
    shares: dict[str, float] = {}
    kinds: Counter[str] = Counter()
    alarms = addressed = read = 0
    for name, source in (("code", code_lines(lines)), ("prose", prose_lines(lines))):
        count = alarmed = named = 0
        for line in source:
            body = {"model": "auto", "messages": [{"role": "user", "content": line}]}
            raised = detectors.kinds_in_body(body, orjson.dumps(body))
            count += 1
            if raised == {"email"} and names_address(line):
                named += 1
                continue
            alarmed += bool(raised)
            kinds.update(raised)
        shares[f"share_{name}"] = alarmed / max(count, 1)
        alarms, addressed, read = alarms + alarmed, addressed + named, read + count
        say(f"  {name}: {alarmed} of {count} lines, and {named} with e-mail addresses")
    details = {"kinds": dict(kinds), **shares, "share_with_addresses": (alarms + addressed) / max(read, 1)}
    return {FALSE_ALARMS: Measurement(alarms / max(read, 1), read, details)}


_ADDRESS = re.compile(r"(?<![\w.+-])[\w.+-]+@(?:[\w-]+\.)+([a-z]{2,})(?![\w-])", re.IGNORECASE)
_FILE_ENDINGS = frozenset(
    {"css", "gif", "gz", "html", "jpg", "js", "json", "md", "png", "py", "svg", "txt", "whl", "zip"}
)


def names_address(line: str) -> bool:
    """Return whether a line holds an e-mail address, judged without the detectors.

    Pictures (`logo@2x.png`) and versions (`left-pad@1.3.0`) are none.
    """
    return any(ending.lower() not in _FILE_ENDINGS for ending in _ADDRESS.findall(line))
