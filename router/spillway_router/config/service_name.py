"""The name of a Service of Kubernetes, as a configuration writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_PORT = r"[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?"
_SERVICE = re.compile(rf"(?P<namespace>{_LABEL})/(?P<name>{_LABEL})(:(?P<port>{_PORT}))?")


@dataclass(frozen=True, slots=True)
class ServiceName:
    """A Service, and the name or number of its port ("": the only one, or the one that is named http)."""

    namespace: str
    name: str
    port: str = ""

    @classmethod
    def of(cls, text: str) -> ServiceName:
        """Read `namespace/service` or `namespace/service:port`. Raises ValueError."""
        match = _SERVICE.fullmatch(text)
        if match is None:
            raise ValueError(
                "write namespace/service or namespace/service:port in discover_from, such as llm/engines:8000"
            )
        return cls(match["namespace"], match["name"], match["port"] or "")
