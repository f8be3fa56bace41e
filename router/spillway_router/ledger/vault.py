"""The vault: provider keys of callers are stored sealed, with AES-256-GCM (NIST SP 800-38D).

A sealed secret is bound to the row for which it was sealed: copied to another key, user or provider it does not open.
The secret keys come from the environment or a file of the operator, never from the database. Of several the first one
seals and all of them open, so that a new one can be put in front, the rows be sealed again, and the old one be taken
away.

    version (1 byte, 1) | tag of the secret key (4 bytes) | nonce (12 bytes) | ciphertext with its tag
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from hashlib import sha256

from spillway_router.ledger.errors import LedgerError

KEY_BYTES = 32
NOT_CONFIGURED = (
    "provider keys are stored only with a secret key: set SPILLWAY_SECRET_KEY to the output of "
    "`openssl rand -base64 32`, or keys.secret_key_file to a file that holds it"
)
NONCE_BYTES = 12
_VERSION = b"\x01"
_TAG_BYTES = 4
_HEAD_BYTES = len(_VERSION) + _TAG_BYTES + NONCE_BYTES


class VaultError(LedgerError):
    """A secret can't be sealed or opened; the message says what to change, and never shows a secret."""


class Vault:
    """Seals and opens secrets. `keys` are of 32 bytes each: the first one seals, all of them open.

    Raises VaultError if there is none, or if the package `cryptography` is not installed.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise VaultError(NOT_CONFIGURED)
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise VaultError("provider keys need the package cryptography: install spillway-llm[vault]") from None
        self._ciphers = {_tag(key): AESGCM(key) for key in reversed(keys)}
        self._first = _tag(keys[0])

    def seal(self, secret: str, row: str, nonce: bytes) -> bytes:
        """Return a secret sealed for a row. `nonce` are 12 random bytes that are never used twice."""
        ciphertext = self._ciphers[self._first].encrypt(nonce, secret.encode(), row.encode())
        return _VERSION + self._first + nonce + ciphertext

    def open(self, sealed: bytes, row: str) -> str:
        """Return the secret that was sealed for a row. Raises VaultError."""
        from cryptography.exceptions import InvalidTag

        tag, nonce = sealed[1 : 1 + _TAG_BYTES], sealed[_HEAD_BYTES - NONCE_BYTES : _HEAD_BYTES]
        cipher = self._ciphers.get(tag)
        if sealed[:1] != _VERSION or cipher is None:
            raise VaultError("it was sealed with a secret key that this router does not have")
        try:
            return cipher.decrypt(nonce, sealed[_HEAD_BYTES:], row.encode()).decode()
        except InvalidTag:
            raise VaultError("what is stored was changed, or belongs to another row") from None


def read_secret_keys(text: str) -> tuple[bytes, ...]:
    """Read secret keys in base64, separated by commas or white space. Raises VaultError, which does not show them."""
    keys = []
    for number, word in enumerate(filter(None, re.split(r"[,\s]+", text)), 1):
        try:
            key = base64.b64decode(word.replace("-", "+").replace("_", "/"), validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise VaultError(f"secret key {number} is not {KEY_BYTES} bytes in base64; use `openssl rand -base64 32`")
        keys.append(key)
    return tuple(keys)


def _tag(key: bytes) -> bytes:
    return sha256(b"spillway secret key\0" + key).digest()[:_TAG_BYTES]
