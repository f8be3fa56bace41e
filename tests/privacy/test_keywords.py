"""Keywords are found in every spelling that honest clients send, and nowhere else."""

from __future__ import annotations

import json
import unicodedata

import orjson
import pytest

from spillway_router.privacy.detectors import Detectors
from spillway_router.privacy.folding import neat
from spillway_router.privacy.keywords import KeywordError, keyword_forms
from spillway_router.privacy.word_lists import WORD_LISTS

KEYWORDS = [
    "médical",
    "medical record",
    "confidential",
    "Größe",
    "c:\\secret",
    'say "hush"',
    "İstanbul",
    "пароль",
    "密码",
    "ssn",
    "password",
    "x-ray",
    "driver's license",
    "C++",
    "비밀번호",
    "パスワード",
    "รหัสผ่าน",
]
SPELLINGS = {
    "composed": "dossier médical",
    "decomposed": unicodedata.normalize("NFD", "dossier médical"),
    "ignorable between a letter and its accent": "me\u200d\u0301dical",
    "line wrap": "the medical\nrecord of",
    "wrap of Windows": "the medical\r\nrecord of",
    "tab": "medical\trecord",
    "several spaces": "medical   record",
    "no-break space": "medical\u00a0record",
    "ideographic space": "medical\u3000record",
    "line separator": "medical\u2028record",
    "hyphen": "medical-record",
    "dash": "medical–record",
    "underscore": "medical_record",
    "hyphen at a line end": "confi-\ndential",
    "hyphen of Unicode at a line end": "confi\u2010\r\n  dential",
    "soft hyphen": "confi\u00addential",
    "ligature": "con\ufb01dential",
    "full width": "".join(chr(ord(c) + 0xFEE0) for c in "CONFIDENTIAL"),
    "mathematical letters": "𝐜𝐨𝐧𝐟𝐢𝐝𝐞𝐧𝐭𝐢𝐚𝐥",
    "zero-width space": "pass\u200bword",
    "byte order mark": "pass\ufeffword",
    "capitals with ß": "GRÖSSE",
    "backslash": "c:\\secret",
    "quotes": 'say "hush"',
    "typographic quotes": "say “hush”",
    "typographic apostrophe": "driver’s license",
    "Turkish capitals": "İSTANBUL",
    "Turkish word in English": "istanbul",
    "Cyrillic": "мой ПАРОЛЬ 123",
    "Chinese": "我的密码是",
    "Chinese around Latin": "我的password是",
    "Chinese wrapped": "密\n码",
    "Korean with a particle": "비밀번호는",
    "half-width Japanese": "ﾊﾟｽﾜｰﾄﾞ",
    "Thai": "ใส่รหัสผ่านของคุณ",
    "emphasis": "pass**word**",
    "tags": "<b>pass</b>word",
    "wide setting": "P A S S W O R D",
    "code": "`password`",
    "camel case": "userSsn",
    "camel case and capitals": "patientSSN:",
    "identifier": "user_ssn",
    "plural": "my passwords",
    "quotation": "> medical\n> record",
    "comment": "# medical\n# record",
    "entity": "m&eacute;dical",
    "numeric entity": "m&#233;dical",
    "entity of an entity": "m&amp;eacute;dical",
    "no-break space as entity": "medical&nbsp;record",
    "percent-encoding": "https://x/?q=m%C3%A9dical",
    "percent-encoding in Latin-1": "m%E9dical",
    "encoded space": "medical%20record",
    "escape": "\\u0070assword",
    "escape of JavaScript": "p\\u{61}ssword",
    "bytes of Python": "b'm\\xc3\\xa9dical'",
    "ampersand of Go's JSON": "m\\u0026eacute;dical",
    "x-ray": "an X-Ray",
    "x-ray broken at its hyphen": "an x-\nray",
    "symbols": "I know C++!",
    "surrogates": "\\ud835\\udc29assword",
    "Cyrillic letters in a Latin word": "p\u0430ssw\u043erd",
    "a Greek letter in a Latin word": "medical rec\u03bfrd",
    "small capitals": "\u1d18\u1d00\ua731\ua731\u1d21\u1d0f\u0280\u1d05",
    "struck through": "p\u0336a\u0336s\u0336s\u0336w\u0336o\u0336r\u0336d\u0336",
    "points": "his S.S.N. is",
    "quoted-printable": "le dossier m=C3=A9dical",
    "quoted-printable of every character": "le dossier =6D=C3=A9=64=69=63=61=6C",
    "quoted-printable of single characters": "a=3Db, le dossier m=C3=A9d=69cal",
    "a header in quoted-printable": "Subject: =?UTF-8?Q?dossier_m=C3=A9d=69cal?=",
    "a line of quoted-printable that goes on": "le dossier m=C3=A9di=\r\ncal",
}
ORDINARY = [
    "className",
    "lessness",
    "passwordless",
    "assn",
    "medical the record",
    "recordmedical",
    "пароля",
    "C--",
    "the c: drive",
    "passaword",
    "xray",
    "grosse",
    "pass",
    "hash: 0ssn1",
    "версия 1.2.3 и т.д.",
    "p\u0430sswordless",
    "a.s.s.n.x",
]
DETECTORS = Detectors(KEYWORDS)


def kinds(text: object, detectors: Detectors = DETECTORS) -> set[str]:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    return set(detectors.kinds_in_body(body, orjson.dumps(body)))


def nested(text: str, depth: int) -> str:
    """The text as `json.dumps` of Python writes it within JSON, `depth` times."""
    for _ in range(depth):
        text = json.dumps({"note": text})
    return text


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_usual_spelling_is_found(spelling: str, depth: int) -> None:
    assert kinds(nested(SPELLINGS[spelling], depth)) == {"keyword"}


@pytest.mark.parametrize("text", ORDINARY)
def test_parts_of_longer_words_are_not_keywords(text: str) -> None:
    assert kinds(text) == kinds(nested(text, 2)) == set()


@pytest.mark.parametrize("text", ["className", "Passwortliste", "prepassworded"])
def test_keywords_are_found_anywhere_if_so_configured(text: str) -> None:
    assert kinds(text, Detectors(["ssn", "passwort", "password"], match="anywhere")) == {"keyword"}


@pytest.mark.parametrize("at", range(1, len("my medical record")))
def test_texts_are_read_across_their_seams(at: int) -> None:
    head, tail = "my medical record"[:at], "my medical record"[at:]
    assert kinds([{"type": "text", "text": head}, {"type": "text", "text": tail}]) == {"keyword"}
    messages = {"messages": [{"role": "user", "content": head}, {"role": "user", "content": tail}]}
    items = {"input": [{"role": "user", "content": [{"type": "input_text", "text": t}]} for t in (head, tail)]}
    results = {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "tool_result", "content": [{"type": "text", "text": t}]} for t in (head, tail)],
            }
        ]
    }
    for body in (messages, {"prompt": [head, tail]}, {"input": [head, tail]}, items, results):
        assert set(DETECTORS.kinds_in_body(body, orjson.dumps(body))) == {"keyword"}, body


FIELDS: dict[str, dict[str, object]] = {
    "system": {"system": "password"},
    "instructions": {"instructions": "password"},
    "suffix": {"suffix": "password"},
    "stop": {"stop": ["password"]},
    "user": {"user": "password"},
    "metadata": {"metadata": {"k": "password"}},
    "name of a member": {"metadata": {"password": "k"}},
    "tool schema": {"tools": [{"type": "function", "function": {"parameters": {"properties": {"password": {}}}}}]},
    "tool description": {"tools": [{"name": "f", "description": "asks for the password", "input_schema": {}}]},
    "address": {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://x/password.png"}}]}]},
    "tool arguments": {"messages": [{"tool_calls": [{"function": {"arguments": json.dumps({"a": "password"})}}]}]},
    "tool use": {"messages": [{"content": [{"type": "tool_use", "input": {"deep": [{"x": "password"}]}}]}]},
    "text document": {"messages": [{"content": [{"type": "document", "source": {"data": "the password"}}]}]},
    "json schema": {"response_format": {"json_schema": {"schema": {"title": "password"}}}},
    "unknown field": {"whatever": {"deep": [["password"]]}},
}


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_searched(field: str) -> None:
    body = {"model": "auto", **FIELDS[field]}
    assert set(DETECTORS.kinds_in_body(body, orjson.dumps(body))) == {"keyword"}


@pytest.mark.parametrize("language", WORD_LISTS)
def test_the_words_of_every_list_are_found_and_named_by_their_language(language: str) -> None:
    detectors = Detectors(word_lists=[language])
    for word in WORD_LISTS[language]:
        assert kinds(f"... {word.upper()}, ...", detectors) == {f"words:{language}"}, word


@pytest.mark.parametrize("keyword", ["", " ", "---", "\u200b", "__"])
def test_a_keyword_of_separators_is_refused(keyword: str) -> None:
    with pytest.raises(KeywordError, match="neither a letter"):
        keyword_forms(keyword)


def test_thousands_of_keywords_are_searched_together() -> None:
    detectors = Detectors([f"codename{i:05}" for i in range(5000)])
    assert kinds("about CODENAME04711, please", detectors) == {"keyword"}
    assert kinds("about codename9999, please", detectors) == set()


@pytest.mark.parametrize(
    "mark", ["\u00ad", "\u200d", "\u0336", "\u2011", "\u2028", "\u2019", "\u201d", "\u0663", "\uff41", "e\u0301"]
)
def test_one_unusual_character_in_a_long_foreign_text_is_made_plain(mark: str) -> None:
    text = "Größe über Vorderkammer, " * 400
    for at in (0, 4_000, len(text)):
        assert neat(text[:at] + mark + text[at:]) == text[:at] + neat(mark) + text[at:]
        assert neat(mark) != mark
    assert neat(text) == text
