"""File descriptors: as many as the system permits, and how many requests they suffice for.

A request in progress takes one for its client and one for its upstream, and an escalation another one. What the ledger,
the log, the probes of engines and the listener need is kept back, so that they never meet the limit. Requests that
don't fit are refused with 503 before a call is begun.
"""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass

KEPT_BACK = 64
MOST = 1 << 20
"""More are not asked for: a hard limit may be a thousand times that, and some libraries walk through all of them."""
AMPLE = 1 << 16
"""From here on the number of connections needs no watch."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The limit of this process, and what it is divided into."""

    limit: int

    @property
    def requests(self) -> int:
        """How many requests may be in progress: two fifths for clients, as many for upstreams, the rest for further
        calls and idle connections."""
        return max(1, (self.limit - KEPT_BACK) * 2 // 5)

    @property
    def clients(self) -> int:
        """How many client connections may be open, with those that are only refused."""
        return max(2, (self.limit - KEPT_BACK) // 2)


def of_process() -> Descriptors:
    """Return the descriptors of this process as its limit is now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Descriptors(MOST if soft == resource.RLIM_INFINITY else soft)


def raised() -> Descriptors:
    """Raise the limit of this process as far as the system lets it, and return its descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return of_process()
