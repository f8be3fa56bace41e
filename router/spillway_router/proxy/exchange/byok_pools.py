"""Connections for calls with a caller's own key: the key travels with one call and is stored nowhere.

The catalogue says where a call goes, never the request; otherwise a request could send content, or make this machine
connect, wherever it likes. All callers of a provider share its connections, as the key is a header of each call.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from spillway_router.core.routing.model import Backend
from spillway_router.http_client.pool import Pool, PoolLimits
from spillway_router.providers.catalogue import provider_for, target
from spillway_router.providers.interface import CatalogueEntry, Provider, ProviderError
from spillway_router.proxy.exchange.active_config import Silence

KEEPALIVE_S = 30.0
MAX_OUTPUT_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class OwnKeyReach:
    """How to reach a provider with a caller's key. `credentials` are whole header lines: never log them."""

    backend: Backend
    provider: Provider
    pool: Pool
    credentials: bytes = field(repr=False)
    silence: Silence
    """The longest silence of its streams by the catalogue."""


class OwnKeys:
    """The providers that may be reached with a caller's key. A provider's pool is made when it is first needed."""

    def __init__(self, catalogue: Mapping[str, CatalogueEntry]) -> None:
        self._entries = {name: e for name, e in catalogue.items() if not e.local and e.base_url and e.auth != "none"}
        self._pools: dict[str, Pool] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of these providers, sorted."""
        return tuple(sorted(self._entries))

    def reach(self, name: str, model: str, key: str) -> OwnKeyReach:
        """How to reach provider `name`. Raises ProviderError for an unknown provider or an unusable key.

        The error never repeats the key.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise ProviderError(f"provider {name[:64]!r} is not one of {', '.join(sorted(self._entries))}")
        if not key:
            raise ProviderError("the key is empty; send it as x-spillway-provider-key")
        keyed = target(entry, None, key)
        count = len(keyed.headers) - len(entry.extra_headers)  # the credentials come first
        pool = self._pools.get(name)
        if pool is None:
            tls = ssl.create_default_context() if keyed.scheme == "https" else None
            without_key = replace(keyed, headers=keyed.headers[count:])
            pool = self._pools[name] = Pool(without_key, PoolLimits(keepalive_s=KEEPALIVE_S), tls)
        backend = Backend(
            f"own-{name}",
            name,
            model,
            local=False,
            endpoints=entry.endpoints,
            capabilities=entry.capabilities,
            tariff=None,
            context_tokens=None,
            max_output_tokens=MAX_OUTPUT_TOKENS,
            collects_data=entry.collects_data,
            knows_preferences="provider" not in entry.drops_fields,
            drops_fields=entry.drops_fields | entry.withheld_fields,
        )
        credentials = b"".join(b"%b: %b\r\n" % header for header in keyed.headers[:count])
        return OwnKeyReach(
            backend=backend,
            provider=provider_for(entry),
            pool=pool,
            credentials=credentials,
            silence=Silence(entry.stall_s, entry.tool_stall_s),
        )

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.close()
