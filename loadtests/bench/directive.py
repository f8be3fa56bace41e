"""How the load generator directs the stub upstream's answer, through any proxy in between.

The text of the last user message carries the directive: proxies re-serialise bodies, drop unknown fields and rename
models, but none of them edits the user's words. It has the form `[[stub events=128 pace_ms=2500 tag=a17]]`: integers,
and a tag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"\[\[stub ([^\]]*)\]\]")


@dataclass(frozen=True, slots=True)
class Directive:
    """What the stub should answer. Times are in milliseconds, sizes in bytes.

    `delay_ms` passes before the first byte of the answer. `pace_ms` is spread over the `events` of a stream; with 0
    they leave as fast as the connection takes them. With `step_ms` paced events leave only at its multiples, those of
    all streams together, like the steps of a batching engine. `event_bytes` pads the text of each event. `tag` names
    the request in the stub's records (empty: the request is not recorded).
    """

    delay_ms: int = 0
    events: int = 128
    pace_ms: int = 0
    step_ms: int = 0
    event_bytes: int = 0
    tag: str = ""

    def text(self) -> str:
        """Return the marker to put into a user message."""
        return (
            f"[[stub delay_ms={self.delay_ms} events={self.events} pace_ms={self.pace_ms} "
            f"step_ms={self.step_ms} "
            f"event_bytes={self.event_bytes} tag={self.tag}]]"
        )


def parse(text: str) -> Directive:
    """Return the directive in `text`, or the default directive where there is none.

    Raises:
        ValueError: there is an unknown field or an invalid number.
    """
    marker = _FORM.search(text)
    if marker is None:
        return Directive()
    fields = dict(part.partition("=")[::2] for part in marker.group(1).split())
    tag = fields.pop("tag", "")
    unknown = fields.keys() - {"delay_ms", "events", "pace_ms", "step_ms", "event_bytes"}
    if unknown:
        raise ValueError(f"unknown stub fields: {', '.join(sorted(unknown))}")
    return Directive(tag=tag, **{name: int(value) for name, value in fields.items()})


def event_text(number: int, event_bytes: int) -> str:
    """Return the text that event `number` (from 0) of a stream carries, so that a reader can check order and loss."""
    return f"{number} ".ljust(event_bytes, ".") if event_bytes else f"{number} "
