"""What the acts of the ledger tell of a reload: which policy it replaced, and which parts of the file changed."""

from __future__ import annotations

from hashlib import sha256

from spillway_router.config.derived import DerivedConfig
from spillway_router.config.settings import Settings
from spillway_router.ledger.tables.acts import Change


def reload_done(before: DerivedConfig, after: DerivedConfig, by: str) -> Change:
    """Return the act of a reload. The values of settings may be secret, so that only the names of parts are in it."""
    old, new = before.loaded.settings, after.loaded.settings
    changed = [name for name in Settings.model_fields if getattr(old, name) != getattr(new, name)]
    fields = {
        "changed": changed,
        "policy_before": before.assembly.policy.version,
        "text_sha256": sha256(after.loaded.text.encode()).hexdigest(),
    }
    return Change("config.reload", after.assembly.policy.version, fields, by)


def needs_restart(started: Settings, now: Settings) -> tuple[str, ...]:
    """Return the names of settings that only a start reads, and that differ from those of the start."""
    pairs = {
        "listen": (started.listen, now.listen),
        "tls": (started.tls is None, now.tls is None),
        "ledger.url": (started.ledger.url, now.ledger.url),
        "limits.stop_s": (started.limits.stop_s, now.limits.stop_s),
        "server": (started.server, now.server),
        "telemetry": (started.telemetry, now.telemetry),
    }
    return tuple(name for name, (before, after) in pairs.items() if before != after)


def refused_reload(running: DerivedConfig, problems: int, by: str) -> Change:
    """Return the act of a reload that changed nothing, because the file has problems."""
    return Change("config.refuse", running.assembly.policy.version, {"problems": problems}, by)
