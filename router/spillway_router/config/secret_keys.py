"""The secret keys with which stored provider keys are sealed: from a file of their own, else from the environment."""

from __future__ import annotations

import stat
from pathlib import Path

from spillway_router.config.load import ConfigError, ConfigProblem, Loaded
from spillway_router.ledger.vault import Vault, VaultError, read_secret_keys

SECRET_KEY_VARIABLE = "SPILLWAY_SECRET_KEY"  # noqa: S105 - its name
_WHERE = "keys.secret_key_file"


def vault_of(loaded: Loaded) -> Vault | None:
    """Return what seals and opens stored provider keys; None if no secret key is configured.

    Raises ConfigError if the file can't be read, may be read by others, or holds no key.
    """
    file = loaded.settings.keys.secret_key_file
    where = SECRET_KEY_VARIABLE if file is None else _WHERE
    text = loaded.environment.get(SECRET_KEY_VARIABLE, "") if file is None else _text_of(file)
    if file is None and not text.strip():
        return None
    try:
        return Vault(read_secret_keys(text))
    except VaultError as error:
        raise ConfigError([ConfigProblem(where, 0, str(error))]) from None


def _text_of(path: Path) -> str:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text("ascii")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError([ConfigProblem(_WHERE, 0, f"can't read {path}: {reason}")]) from None
    if mode & 0o077:
        problem = f"{path} may be read by others (mode {mode:o}); run `chmod 600 {path}`"
        raise ConfigError([ConfigProblem(_WHERE, 0, problem)])
    return text
