"""How the load generator tells the stub upstream what to answer, through any proxy in between.

The text of the last user message carries it: proxies re-serialise bodies, drop unknown fields and rename models,
but none of them edits the user's words. Form: `[[stub events=128 pace_ms=2500 tag=a17]]`, integers and a tag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"\[\[stub ([^\]]*)\]\]")


@dataclass(frozen=True, slots=True)
class Directive:
    """What the stub is to answer. Times in milliseconds, sizes in bytes.

    `delay_ms` passes before the first byte of the answer. `pace_ms` is spread over the `events` of a stream; 0 sends
    them as fast as the connection takes them. `step_ms` lets paced events leave only at its multiples, all streams
    together, as the steps of a batching engine do. `event_bytes` pads the text of each event. `tag` names the
    request in the stub's records (empty: not recorded).
    """

    delay_ms: int = 0
    events: int = 128
    pace_ms: int = 0
    step_ms: int = 0
    event_bytes: int = 0
    tag: str = ""

    def text(self) -> str:
        """The marker to put into a user message."""
        return (
            f"[[stub delay_ms={self.delay_ms} events={self.events} pace_ms={self.pace_ms} "
            f"step_ms={self.step_ms} "
            f"event_bytes={self.event_bytes} tag={self.tag}]]"
        )


def parse(text: str) -> Directive:
    """The directive in `text`; the defaults where there is none.

    Raises:
        ValueError: an unknown field or a number that is none.
    """
    found = _FORM.search(text)
    if found is None:
        return Directive()
    fields = dict(part.partition("=")[::2] for part in found.group(1).split())
    tag = fields.pop("tag", "")
    unknown = fields.keys() - {"delay_ms", "events", "pace_ms", "step_ms", "event_bytes"}
    if unknown:
        raise ValueError(f"unknown stub fields: {', '.join(sorted(unknown))}")
    return Directive(tag=tag, **{name: int(value) for name, value in fields.items()})


def event_text(number: int, event_bytes: int) -> str:
    """The text that event `number` (from 0) of a stream carries, so that a reader can check order and loss."""
    return f"{number} ".ljust(event_bytes, ".") if event_bytes else f"{number} "
