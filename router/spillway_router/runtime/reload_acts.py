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


def refused_reload(running: DerivedConfig, problems: int, by: str) -> Change:
    """Return the act of a reload that changed nothing, because the file has problems."""
    return Change("config.refuse", running.assembly.policy.version, {"problems": problems}, by)
