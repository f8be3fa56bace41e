"""The vault: what is sealed opens for its row only, with the key that sealed it, and no bit of it can be changed."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.ledger.vault import KEY_BYTES, NONCE_BYTES, Vault, VaultError, read_secret_keys

OLD, NEW = bytes(KEY_BYTES), bytes(range(KEY_BYTES))
NONCE = bytes(NONCE_BYTES)
SECRETS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=100)


@given(SECRETS, SECRETS)
def test_what_is_sealed_opens_for_its_row_alone(secret: str, row: str) -> None:
    sealed = Vault([OLD]).seal(secret, row, NONCE)
    assert Vault([NEW, OLD]).open(sealed, row) == secret
    with pytest.raises(VaultError):
        Vault([OLD]).open(sealed, row + "x")
    with pytest.raises(VaultError, match="does not have"):
        Vault([NEW]).open(sealed, row)
    assert len(secret) < 12 or secret.encode() not in sealed


@given(SECRETS, st.data())
def test_a_changed_bit_is_noticed(secret: str, data: st.DataObject) -> None:
    vault = Vault([OLD])
    sealed = bytearray(vault.seal(secret, "row", NONCE))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(VaultError):
        vault.open(bytes(sealed), "row")


@pytest.mark.parametrize("text", ["", "short", "x" * 43, base64.b64encode(bytes(31)).decode()])
def test_what_is_no_secret_key_is_refused_without_its_text(text: str) -> None:
    with pytest.raises(VaultError) as refused:
        Vault(read_secret_keys(text))
    assert not text or text not in str(refused.value)
