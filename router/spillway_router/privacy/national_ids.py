"""National identity, tax and insurance numbers. python-stdnum checks them; it is imported when a number needs it.

Numbers that are mere digits with a weak check are common by chance, so that they need a word nearby that says what they
are, unless they are written in the usual groups.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from operator import mul

from spillway_router.privacy.patterns import Pattern, compact, digits_of, number
from spillway_router.privacy.payment import passes_luhn


def by_stdnum(module: str, *, with_signs: bool = False) -> Callable[[str], bool]:
    """Return the check of a module of python-stdnum, which knows some of the separators that people use: it gets the
    letters and digits alone, or all signs where one says the century.

    A number on whose data the library breaks has passed its check digits, and counts as valid.
    """

    def is_valid(text: str) -> bool:
        try:
            return bool(import_module(f"stdnum.{module}").is_valid(text if with_signs else compact(text)))
        except LookupError:  # of a place of birth that its tables only half know
            return True

    return is_valid


def _is_ssn(text: str) -> bool:
    digits = digits_of(text)
    return digits[:3] not in ("000", "666") and digits[3:5] != "00" and digits[5:] != "0000"


def _is_nino(text: str) -> bool:
    return compact(text)[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def _is_sin(text: str) -> bool:
    digits = digits_of(text)
    return len(set(digits)) > 1 and passes_luhn(digits)


def _is_personnummer(text: str) -> bool:
    return passes_luhn(digits_of(text)[-10:]) and _PERSONNUMMER(text)


_PERSONNUMMER = by_stdnum("se.personnummer", with_signs=True)


def _is_nir(text: str) -> bool:
    """Return whether the last two digits are right. Any table of numbers has many matches, for which python-stdnum
    takes twenty times as long."""
    code = compact(text)
    department = _CORSICA.get(code[5:7])
    if department is not None:
        code = code[:5] + department + code[7:]
    return code.isdecimal() and 97 - int(code[:13]) % 97 == int(code[13:])


_CORSICA = {"2A": "19", "2B": "18"}
"""The numbers that count for the letters of the island's departments."""


def _is_fodselsnummer(text: str) -> bool:
    return sum(map(mul, _FODSELSNUMMER_WEIGHTS, map(int, digits_of(text)))) % 11 == 0 and _FODSELSNUMMER(text)


_FODSELSNUMMER_WEIGHTS = (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)
_FODSELSNUMMER = by_stdnum("no.fodselsnummer")


def _is_of_varied_digits(module: str) -> Callable[[str], bool]:
    """Return a check that refuses numbers such as 00000000000 as well, which pass as placeholders."""
    valid = by_stdnum(module)

    def is_valid(text: str) -> bool:
        return len(set(digits_of(text))) > 1 and valid(text)

    return is_valid


NATIONAL_IDS: tuple[Pattern, ...] = (
    number("us_ssn", r"[0-8]\d{2}[- ]?\d{2}[- ]?\d{4}", _is_ssn, r"\bssn|social.security", r"\d{3}-\d{2}-\d{4}"),
    number(
        "us_itin", r"9\d{2}[- ]?[5-9]\d[- ]?\d{4}", by_stdnum("us.itin"), r"\bitin\b|taxpayer", r"\d{3}-\d{2}-\d{4}"
    ),
    number(
        "ca_sin",
        r"\d{3}[- ]?\d{3}[- ]?\d{3}",
        _is_sin,
        r"\bsin\b|social.insurance|\bnas\b|assurance.sociale",
        r"\d{3}-\d{3}-\d{3}",
    ),
    number("uk_nino", r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?: ?\d{2}){3} ?[A-D]", _is_nino),
    number("uk_nhs", r"\d{3}[- ]?\d{3}[- ]?\d{4}", _is_of_varied_digits("gb.nhs"), r"\bnhs\b"),
    number(
        "de_tax_id",
        r"\d{2}[ /]?\d{3}[ /]?\d{3}[ /]?\d{3}",
        by_stdnum("de.idnr"),
        r"steuer|\bidnr|\btax|\btin\b|identifikationsnummer",
        r"\d{2}[ /]\d{3}[ /]\d{3}[ /]\d{3}",
    ),
    number("fr_nir", r"[12378](?: ?\d{2}){2} ?\d[0-9AB](?: ?\d{3}){2}[ -]?\d{2}", _is_nir),
    number("es_dni", r"\d{8}-?[A-HJ-NP-TV-Z]", by_stdnum("es.dni")),
    number("es_nie", r"[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z]", by_stdnum("es.nie")),
    number(
        "it_codice_fiscale",
        r"[A-Z]{6} ?[0-9LMNPQRSTUV]{2}[A-EHLMPRST][0-9LMNPQRSTUV]{2} ?[A-Z][0-9LMNPQRSTUV]{3}[A-Z]",
        by_stdnum("it.codicefiscale"),
    ),
    number("nl_bsn", r"\d{4}[. ]?\d{2}[. ]?\d{3}", _is_of_varied_digits("nl.bsn"), r"\bbsn|burgerservice|sofi"),
    number(
        "be_national_number",
        r"\d{2}[. ]?\d{2}[. ]?\d{2}[- ]?\d{3}[. ]?\d{2}",
        by_stdnum("be.nn"),
        r"rijksregister|registre.national|national.(?:register|number)|\b(?:insz|niss)\b",
        r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}",
    ),
    number("pl_pesel", r"\d{11}", by_stdnum("pl.pesel"), r"pesel"),
    number("se_personnummer", r"(?:\d{2})?\d{6}[-+]\d{4}", _is_personnummer),
    number("dk_cpr", r"\d{6}[- ]?\d{4}", by_stdnum("dk.cpr"), r"\bcpr|personnummer|f.{1,2}dsel"),
    number("no_fodselsnummer", r"\d{6} ?\d{5}", _is_fodselsnummer),
    number("fi_hetu", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]", by_stdnum("fi.hetu", with_signs=True)),
    number("ch_ahv", r"756[. ]?\d{4}[. ]?\d{4}[. ]?\d{2}", by_stdnum("ch.ssn")),
    number("at_svnr", r"\d{4} ?\d{6}", by_stdnum("at.vnr"), r"sozialversicherung|\bsv[- ]?n"),
    number("pt_nif", r"\d{3} ?\d{3} ?\d{3}", by_stdnum("pt.nif"), r"\bnif\b|contribuinte"),
    number("ie_pps", r"\d{7}[A-W][A-IW]?", by_stdnum("ie.pps"), r"\bpps|\brsi\b"),
    number("cz_rc", r"\d{6}/\d{3,4}", by_stdnum("cz.rc")),
    number(
        "br_cpf",
        r"\d{3}\.?\d{3}\.?\d{3}-?\d{2}",
        _is_of_varied_digits("br.cpf"),
        r"\bcpf",
        r"\d{3}\.\d{3}\.\d{3}-\d{2}",
    ),
    number("mx_curp", r"[A-Z]{4}\d{6}[A-Z]{6}[0-9A-Z]\d", by_stdnum("mx.curp")),
    number("cn_resident_id", r"[1-9]\d{5} ?(?:19|20)\d{6} ?\d{3}[0-9X]", by_stdnum("cn.ric")),
    number("in_aadhaar", r"[2-9]\d{3}[ -]?\d{4}[ -]?\d{4}", by_stdnum("in_.aadhaar"), r"aadhaa?r|\buid|आधार"),
    number(
        "in_pan", r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]", by_stdnum("in_.pan"), r"\bpan\b|income.tax|permanent.account"
    ),
    number("jp_my_number", r"\d{4}[ -]?\d{4}[ -]?\d{4}", by_stdnum("jp.in_"), r"my.?number|マイナンバー|個人番号"),
    number("kr_rrn", r"\d{6}-\d{7}", by_stdnum("kr.rrn")),
    number("au_tfn", r"\d{3}[ -]?\d{3}[ -]?\d{2,3}", by_stdnum("au.tfn"), r"\btfn\b|tax.file"),
    number("za_id", r"\d{6} ?\d{4} ?\d{3}", by_stdnum("za.idnr"), r"\bid\b|identity|south.afric"),
    number("tr_tckn", r"[1-9]\d{10}", by_stdnum("tr.tckimlik"), r"\bt\.?c\.?(?: ?kimlik|kn|\b)|kimlik"),
)
