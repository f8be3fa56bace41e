"""A configuration that can't be read: the message says where and what, and repeats nothing that may be a secret."""

from __future__ import annotations

import pytest
from evidence.secrets.canaries import Search
from evidence.secrets.router import BROKEN

from spillway_router.commands.check_litellm import LiteLLMError, convert
from spillway_router.config.load import ConfigError, parse
from spillway_router.documents.parser_files import ParserError, read_parser

SECRET = "Qx7TzW4nLm2vRk9sYb3dHc8g"


def problems_of(text: str) -> str:
    try:
        parse(text, {})
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_configuration_repeats_no_secret(text: str) -> None:
    assert not Search({"secret": SECRET}).names(problems_of(text.replace("KEY", SECRET)).encode())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "slo: {secret:abc123def}",
            "line 1, slo.secret…: unknown setting; check the spelling or remove it. "
            "The settings of slo are ttft_ms, tpot_ms.",
        ),
        ("server: {modle: x}", "line 1, server.modle: unknown setting; did you mean model?"),
        ("a: *abc ", "line 1, YAML: found undefined alias; check the indentation and quotes"),
        ("a: [b", "line 1, YAML: the [ that opens in this line is never closed; add ]"),
        ("a: [b, {c: 1},", "line 1, YAML: the [ that opens in this line is never closed; add ]"),
        ("a:\n  - {b: [c], d: ", "line 2, YAML: the { that opens in this line is never closed; add }"),
        ("a: 'b\nc: d", "line 1, YAML: a quotation mark opens in this line and is not closed there; close it"),
        ("a: @b", "line 1, YAML: a value can't begin with @; put quotes around it"),
        (
            "a: b: c",
            "line 1, YAML: a colon and a blank stand where no setting can begin; put quotes around a text with a colon,"
            " or correct the indentation",
        ),
        ("a: 1\nbcd\ne: 2", "line 3, YAML: a setting has no colon after its name; write NAME: VALUE"),
        ("a: !!bool x", "YAML: a date, a number or a value after !! can't be read; check the indentation and quotes"),
        ("[" * 50_000, "YAML: it is nested too deeply; check the indentation and quotes"),
    ],
)
def test_the_message_says_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(text, {})
    assert str(raised.value.problems[0]) == problem


def test_a_broken_configuration_of_litellm_repeats_no_secret() -> None:
    text = f"model_list:\n- litellm_params: {{model: a, api_key: {SECRET}, b: ]}}\n"
    with pytest.raises(LiteLLMError, match="not valid YAML, line 2") as raised:
        convert(text)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("tag", ["bool", "int", "timestamp"])
def test_a_value_that_its_tag_does_not_fit_is_refused_in_a_parser_too(tag: str) -> None:
    with pytest.raises(ParserError, match="not valid YAML"):
        read_parser(f"name: !!{tag} ''", "x")
