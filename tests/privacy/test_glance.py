"""The glance at a text says the same in C as its reference in Python does, for any bytes."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spillway_router.compiled import SUFFIX, source_of
from spillway_router.privacy import glance as shipped
from spillway_router.privacy.glance import ENCODED, ESCAPED, FOREIGN, HOLDS, MATCHES, glance, may_embed

WORDS = (
    *(
        "sk-",
        "gsk_",
        "rk_",
        "hf_",
        "r8_",
        "tgp_",
        "npm_",
        "pypi-",
        "dckr_",
        "whsec_",
        "xai-",
        "pplx-",
        "xapp-",
        "xoxb-",
    ),
    *("xoxb-", "ghp_", "ghx_", "github_pat_", "glpat-", "glcbt-", "gldt-", "AIza", "GOCSPX-", "ya29.", "hooks.slack"),
    *("eyJ", "aws", "AWS_Secret", "awssecret", "PRIVATE KEY", "PuTTY-", "BEGI", "BEGIN", "AKIA", "ASIA"),
    *(
        "0123456789ABCDEF",
        "ABCDE1234F",
        "RSSMRA 85T",
        "abcdef L1a",
        "4111 1111",
        "1",
        "23",
        "  ",
        " ",
        "u",
        "x",
        "ux",
        "w",
        "A",
    ),
    *(
        "=",
        "=3D",
        "=70=61",
        "=?UTF",
        "=\\n",
        "\\u00e9",
        "\\x41",
        "\\U0001F600",
        "\\U",
        "\\n",
        "\\",
        "%41",
        "%u0041",
        "\\u{4",
        "%",
        "&#",
        "&a",
        "&",
        "@a",
        "@",
        '"',
        "-",
        "_",
        ".",
    ),
)
TEXTS = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=12).map("".join),
    st.text(alphabet='=?D0189ABEGINLVZaefuxwz @%&\\"_-.\n\0', max_size=40),
).map(str.encode)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The module in Python, whatever was compiled."""
    spec = importlib.util.spec_from_file_location("reference_glance", source_of("privacy.glance"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@settings(max_examples=3000, deadline=None)
@given(text=st.one_of(TEXTS, st.binary(max_size=60), st.tuples(st.binary(max_size=9), TEXTS).map(b"".join)))
@example(b"")
def test_both_see_the_same(reference: ModuleType, text: bytes) -> None:
    if not str(shipped.__file__).endswith(SUFFIX):
        pytest.skip("glance.c is not compiled here")
    assert glance(text) == reference.glance(text)
    assert may_embed(text) == reference.may_embed(text)


@pytest.mark.parametrize(
    ("text", "may"),
    [
        (b'{"content": "the quick brown fox, 12 times"}', False),
        (b'{"url": "data:text/plain;base64,c2tpcA=="}', True),
        (b'{"data": "c2tpcHBlZCBo"}', True),
        (b"YWJjZGVmZ2hpamtsbW5vcHFyc3Q", True),
    ],
)
def test_where_base64_may_be(reference: ModuleType, text: bytes, may: bool) -> None:
    assert may_embed(text) is may
    assert reference.may_embed(text) is may


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (b"the quick brown fox jumps over the lazy dog, 12 times.", 0),
        (b"call 555 0123 45", HOLDS | MATCHES),
        (b"sk-abc", MATCHES),
        (b"two w%6frds", HOLDS | ENCODED),
        (b"a line\\n", ESCAPED),
        (b"caf=C3=A9", ENCODED),
        (b"a =20 b", 0),
        (b"\\u0041", HOLDS | ENCODED | ESCAPED),
        (b"\\u{41}", HOLDS | ENCODED | ESCAPED),
        (b"%u0041", HOLDS | ENCODED),
        (b"%unless", HOLDS),
        ("na\u00efve sk-abc".encode(), FOREIGN),
    ],
)
def test_what_it_sees(reference: ModuleType, text: bytes, seen: int) -> None:
    assert glance(text) == seen
    assert reference.glance(text) == seen
