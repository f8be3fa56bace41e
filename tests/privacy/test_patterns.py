"""Numbers and keys are found by their form and their check digits, in the ways in which people write them."""

from __future__ import annotations

import json
from base64 import b64encode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum.fr import nir
from stdnum.no import fodselsnummer

from spillway_router.privacy.detectors import PATTERN_NAMES, Detectors
from spillway_router.privacy.payment import is_card, passes_luhn

DETECTORS = Detectors(patterns=PATTERN_NAMES)
EXAMPLES: dict[str, tuple[str, ...]] = {
    "card": (
        "4111 1111 1111 1111", "4111111111111111", "4111-1111-1111-1111", "5555 5555 5555 4444 123", "378282246310005",
        "3782 822463 10005", "3530 1113 3330 0000", "6011000990139424", "30569309025904", "2223003122003222",
        "６０１１ ０００９ ９０１３ ９４２４", "4111\u00a01111\u00a01111\u00a01111", "4111\n1111\n1111\n1111",
        "4111.1111.1111.1111",
        "4111%201111%201111%201111", "٤١١١١١١١١١١١١١١١", "card4111111111111111,".removeprefix("card"),
        "4111 1111 1111 1111 12/28", "41\u200b11111111111111",
        "id,card\n1,4111111111111111.0\n", "{'card': 4111111111111111.0}", "4111111111111111.00",
        "4111111111111111/1227",
        "4111 1111 1111 1111/12/27/123", "378282246310005/12/2027", "4111_1111_1111_1111", "https://example.com/a?n=4111+1111+1111+1111",
    ),
    "iban": (
        "DE89 3704 0044 0532 0130 00 please", "de89370400440532013000", "GB82 WEST 1234 5698 7654 32",
        "FR1420041010050500013M02606", "NL91ABNA0417164300", "IBAN:DE89-3704-0044-0532-0130-00",
    ),
    "us_ssn": (
        "123-45-6789", "078-05-1120", "SSN 123456789", "SSN\n123456789.0", "social security number: 123 45 6789",
    ),
    "us_itin": ("912-90-3456", "ITIN 912 90 3456"),
    "ca_sin": ("SIN 046 454 286", "046-454-286"),
    "uk_nino": ("AB123456C", "ab 12 34 56 c"),
    "uk_nhs": ("NHS 943 476 5919",),
    "de_tax_id": ("Steuer-ID 36574261809", "36 574 261 809"),
    "fr_nir": ("2 95 10 99 126 111 93", "295109912611193", "2 95 10 99 126 111-93", "2 53 07 2B 073 004 70"),
    "es_dni": ("54362315K", "54362315-K"),
    "es_nie": ("X2482300W", "x-2482300W"),
    "it_codice_fiscale": ("RCCMNL83S18D969H", "rccmnl83s18d969h"),
    "nl_bsn": ("BSN 111222333", "burgerservicenummer: 1112.22.333"),
    "be_national_number": ("85.07.30-033.28",),
    "pl_pesel": ("PESEL: 44051401359",),
    "se_personnummer": ("880320-0016", "19880320-0016"),
    "dk_cpr": ("CPR 211062-5629",),
    "no_fodselsnummer": ("15108695088", "151086 95088"),
    "fi_hetu": ("131052-308T", "131052A308T"),
    "ch_ahv": ("756.9217.0769.85", "7569217076985"),
    "at_svnr": ("Sozialversicherungsnummer 1237 010180",),
    "pt_nif": ("NIF 501964843",),
    "ie_pps": ("PPS 6433435F",),
    "cz_rc": ("710319/2745",),
    "br_cpf": ("390.533.447-05", "CPF 39053344705"),
    "mx_curp": ("BOXW310820HNERXN09",),
    "cn_resident_id": ("11010519491231002X", "身份证11010519491231002x号", "638117 190805257039"),
    "in_aadhaar": ("Aadhaar 2341 2341 2346",),
    "in_pan": ("PAN: ACUPA7085R",),
    "jp_my_number": ("マイナンバー 6214 9832 0257",),
    "kr_rrn": ("971013-9019902",),
    "au_tfn": ("TFN 123 456 782", "tax file number 123-456-782", "TFN 458 710-76"),
    "za_id": ("ID 7503305044089",),
    "tr_tckn": ("TC Kimlik 17291716060",),
    "email": (
        "joe@example.com", "<Jörg.Müller+x@müller.de>", "mail=jane%40example.com", "mailto:a.b@sub.example.org",
        "joe&#64;example.com", "https://example.com/u/jane.doe@example.org", "#/$defs/jane@example.org",
    ),
    "phone": (
        "+49 30 12345678", "+1 212-555-0123", "(212) 555-0123", "212-555-0123", "call 212.555.0123", "Tel. 030/1234567",
        "+44 (0) 20 7946 0958", "+86 138 0013 8000", "手机13800138000",
    ),
    "aws_key": ("AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    "github_token": ("ghp_" + "a1B2" * 9, "github_pat_" + "A1b2" * 20, "https://gho_" + "a1B2" * 9 + "@github.com"),
    "gitlab_token": ("glpat-" + "a1B2" * 5,),
    "slack_token": (
        "xoxb-123456789012-abcdefABCDEF", "https://hooks.slack.com/services/T12345678/B12345678/" + "a1B2" * 6,
    ),
    "ai_key": (
        "sk-proj-" + "a1B2" * 10, "sk-" + "a1B2" * 12, "sk-ant-api03-" + "a1B2_" * 10, "gsk_" + "a1B2" * 13,
        "OPENAI_API_KEY=sk-" + "a1B2" * 12, "hf_" + "aBcD" * 9, "sk-or-v1-" + "0a1b" * 16,
    ),
    "google_key": ("AIza" + "a1B2_" * 7,),
    "stripe_key": ("sk_live_" + "a1B2" * 6,),
    "registry_token": ("npm_" + "a1B2" * 9,),
    "private_key": (
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE", "-----BEGIN PRIVATE KEY-----", "-----BEGIN OPENSSH PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----",
    ),
    "jwt": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",),
}  # fmt: skip
ORDINARY = [
    "4111111111111111.25",
    "4111111111111111.0.1",
    "4111111111111111/1327",
    "4111 1111 1111 1112",
    "1111 1111 1111 1111",
    "0.4111111111111111",
    "1764412345678",
    "4409.722701715714",
    "2026-11-29T12:00:00.123456Z",
    "123e4567-e89b-12d3-a456-426614174000",
    "3.14159265358979",
    "1.2.3.4",
    "192.168.10.20",
    "0xdeadbeef12345678",
    "978-3-16-148410-0",
    "git@github.com:a/b.git",
    "https://jane@example.org/repo",
    "getty@tty1.service",
    "/etc/systemd/system/wg-quick@wg0.service",
    "1234_5678_9012_3456",
    "actions/checkout@v4",
    "noreply@example.com",
    "$12,345,678.00",
    "100 000 000",
    "000-12-3456",
    "44051401359",
    "666-12-3456",
    "@decorator",
    "a@b",
    "x + 4912345678",
    "+0200",
    "sk-learn-contrib-packages-are",
    "eyJ.b.c",
    "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "DE00 3704 0044 0532 0130 00",
    "-----BEGIN CERTIFICATE-----",
    "v2.10.1234-5678",
]


def kinds(text: object, detectors: Detectors = DETECTORS) -> set[str]:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    return set(detectors.kinds_in_body(body, orjson.dumps(body)))


def test_every_pattern_has_an_example() -> None:
    assert EXAMPLES.keys() == set(PATTERN_NAMES)


@pytest.mark.parametrize("name", PATTERN_NAMES)
def test_examples_are_found_in_text_in_nested_json_and_across_parts(name: str) -> None:
    for example in EXAMPLES[name]:
        for text in (
            example,
            f"It is {example}.",
            f"({example})",
            json.dumps({"a": example}),
            json.dumps([json.dumps(example)]),
        ):
            assert name in kinds(text), text
        for at in range(1, len(example)):
            parts = [{"type": "text", "text": part} for part in (example[:at], example[at:])]
            assert name in kinds(parts), parts


@pytest.mark.parametrize("name", PATTERN_NAMES)
def test_each_pattern_is_switched_off_by_its_name(name: str) -> None:
    others = Detectors(patterns=[other for other in PATTERN_NAMES if other != name])
    assert all(name not in kinds(example, others) for example in EXAMPLES[name])


@pytest.mark.parametrize("text", ORDINARY)
def test_what_only_looks_like_one_is_not(text: str) -> None:
    assert kinds(text) == kinds(json.dumps({"a": text})) == set()


@pytest.mark.parametrize("value", [4111111111111111, 4111111111111111.0, 123456789, 11010519491231002])
def test_numbers_of_json_are_searched_like_text(value: float) -> None:
    body = {"ssn": value, "messages": [{"role": "user", "content": "x"}]}
    assert bool(DETECTORS.kinds_in_body(body, orjson.dumps(body))) == (value != 11010519491231002)


@given(st.text("0123456789", min_size=12, max_size=19))
def test_the_check_digit_is_that_of_luhns_formula(digits: str) -> None:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        twice = int(digit) * (2 if place % 2 else 1)
        total += twice if twice < 10 else twice - 9
    assert passes_luhn(digits) == (total % 10 == 0)


@pytest.mark.parametrize(
    ("number", "is_issued"),
    [
        ("4111111111111111", True),
        ("4111111111111112", False),
        ("2200000000000004", True),  # the first number of the first range
        ("2199990000000009", False),  # before it
        ("8172020000000003", True),  # the last range
        ("8172030000000002", False),  # behind it
        ("3059990000000006", True),  # the end of a range
        ("3060000000000001", False),  # between two ranges
        ("411111111111116", False),  # a length that the issuer does not use
    ],
)
def test_a_card_is_one_of_an_issuers_range_and_length(number: str, is_issued: bool) -> None:
    assert is_card(number) is is_issued


SPELLINGS = {
    "keypad": "4\ufe0f\u20e31\ufe0f\u20e31\ufe0f\u20e31\ufe0f\u20e3 1111 1111 1111",
    "dark circles": "\u2779\u2776\u2776\u2776 1111 1111 1111",
    "tag characters": "Hello" + "".join(chr(0xE0000 + ord(c)) for c in "4111 1111 1111 1111"),
    "tag characters between others": "".join(f"x{chr(0xE0000 + ord(c))}" for c in "4111111111111111"),
    "tag characters as noise": "4111 11\U000e006111 1111 1111",
    "variation selectors": "\U0001f600" + "".join(chr(0xE0100 + ord(c) - 16) for c in "4111 1111 1111 1111"),
    "from right to left": "\u202e1111 1111 1111 1114\u202c",
    "colours": "4111 \x1b[01;31m1111\x1b[0m 1111 1111",
    "markup": "4111 <em class='hit'>1111</em> 1111 1111",
    "bold": "**4111** 1111 1111 1111",
    "escape() of JavaScript": "".join(f"%u{ord(c):04x}" for c in "4111 1111 1111 1111"),
    "braces": "".join(f"\\u{{{ord(c):x}}}" for c in "4111 1111 1111 1111"),
    "UTF-16 in base64": b64encode("It is 4111 1111 1111 1111.".encode("utf-16-le")).decode(),
    "UTF-16 of the other order": b64encode("It is 4111 1111 1111 1111.".encode("utf-16-be")).decode(),
    "entities in base64": b64encode("".join(f"&#{ord(c)};" for c in "4111 1111 1111 1111").encode()).decode(),
    "two that a control parts": "1234\x004111111111111111",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_card_is_found_in_every_spelling(spelling: str) -> None:
    for text in (SPELLINGS[spelling], json.dumps({"a": SPELLINGS[spelling]})):
        assert "card" in kinds(text)


@pytest.mark.parametrize("shown", ["1344 8314 7804 1106", "0008 4207 0035 1106"])
def test_a_card_from_right_to_left_is_found_over_two_parts(shown: str) -> None:
    text = f"Pay with \u202e{shown}\u202c"
    detectors = Detectors(patterns=["card"])
    for at in range(1, len(text)):
        parts = [{"type": "text", "text": piece} for piece in (text[:at], text[at:])]
        body = {"messages": [{"role": "user", "content": parts}]}
        assert detectors.kinds_in_body(body, orjson.dumps(body)) == {"card"}, at


@given(st.from_regex(r"[12378][0-9]{4}(?:[0-9]{2}|2A|2B)[0-9]{8}", fullmatch=True))
def test_french_numbers_are_checked_as_by_python_stdnum(number: str) -> None:
    right = nir.calc_check_digits(number)
    for text in (number, number[:13] + right):
        assert ("fr_nir" in kinds(text)) is nir.is_valid(text)


@given(st.from_regex(r"(?:0[1-9]|1[0-9]|2[0-8])(?:0[1-9]|1[0-2])[0-9]{7}", fullmatch=True))
def test_norwegian_numbers_are_checked_as_by_python_stdnum(number: str) -> None:
    first = fodselsnummer.calc_check_digit1(number)
    second = fodselsnummer.calc_check_digit2(number[:9] + first)
    for text in (number, number[:9] + first + second[:1]):
        assert ("no_fodselsnummer" in kinds(text)) is fodselsnummer.is_valid(text)
