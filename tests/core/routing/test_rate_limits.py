"""Rate limits: every form in which a provider says when to come back."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.routing.rate_limits import (
    DEFAULT_WAIT_S,
    LONGEST_WAIT_S,
    duration_s,
    exhausted_for_s,
    retry_after_s,
    text_wait_s,
    wait_s,
)

WALL = datetime.fromisoformat("1994-11-06T08:49:07Z").timestamp()
"""Half a minute before the date that RFC 9110 uses in its examples."""


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("12s", None),
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("86400", LONGEST_WAIT_S),
        ("inf", LONGEST_WAIT_S),
        ("1e400", LONGEST_WAIT_S),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 30.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 30.0),
        ("Sun Nov  6 08:49:37 1994", 30.0),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 30.0),
        ("Sun, 06 Nov 1994 09:49:37 +0100", 30.0),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0.0),
        ("Fri, 20 Nov 2026 12:00:00 GMT", LONGEST_WAIT_S),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, WALL) == seconds


def test_a_date_without_a_zone_is_utc_wherever_we_run() -> None:
    code = (
        "from spillway_router.core.routing.rate_limits import retry_after_s\n"
        f"print(retry_after_s('Sun Nov  6 08:49:37 1994', {WALL}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "TZ": "Asia/Tokyo"},
    )
    assert float(ran.stdout) == 30.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "1", "retry-after-ms": "842"}, 0.842),
        ({"retry-after-ms": "250.5"}, 0.2505),
        ({"retry-after-ms": "-1"}, 0.0),
        ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "inf", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "999999999"}, LONGEST_WAIT_S),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 30.0),
    ],
)
def test_the_finer_header_wins(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_s(headers, WALL) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7.66s", 7.66),
        ("2m59.56s", 179.56),
        ("120ms", 0.12),
        ("1h", 3600.0),
        ("1d2h3m4s5ms", 93784.005),
        ("11.38", 11.38),
        ("0s", 0.0),
        ("-5", 0.0),
        ("", None),
        ("s", None),
        ("5x", None),
        ("5 s", None),
        ("1m 2s", None),
    ],
)
def test_durations(value: str, seconds: float | None) -> None:
    seconds_read = duration_s(value)
    assert seconds_read == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "9s"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s"}, 9.0),
        ({"x-ratelimit-remaining-requests": "0"}, 1.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "later"}, 1.0),
        ({"x-ratelimit-remaining-requests": "x", "x-ratelimit-reset-requests": "9s"}, 0.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2m"}, 120.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "3d"}, LONGEST_WAIT_S),
        ({"x-ratelimit-remaining-tokens-minute": "0", "x-ratelimit-reset-tokens-minute": "11.38"}, 11.38),
        (
            {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "1994-11-06T08:49:37Z"},
            30.0,
        ),
        (
            {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "1994-11-06T08:49:00Z"},
            0.0,
        ),
        ({"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "?"}, 1.0),
        (
            {"anthropic-ratelimit-tokens-remaining": "9", "anthropic-ratelimit-tokens-reset": "1994-11-06T08:49:37Z"},
            0.0,
        ),
    ],
)
def test_an_exhausted_limit(headers: dict[str, str], seconds: float) -> None:
    assert exhausted_for_s(headers, WALL) == seconds


def test_the_longest_of_several_limits_counts() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "2s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "40s",
    }
    assert exhausted_for_s(headers) == 40.0


@given(st.text(), st.floats(0, 4e9))
def test_no_header_can_hurt(value: str, wall: float) -> None:
    names = ["retry-after", "retry-after-ms", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]
    names += ["anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"]
    headers = dict.fromkeys(names, value)
    for wait in (wait_s(headers, wall), retry_after_s(value, wall), exhausted_for_s(headers, wall)):
        assert wait is None or (0 <= wait <= LONGEST_WAIT_S and not math.isnan(wait))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Rate limit reached for model `m` on tokens per minute (TPM). Please try again in 7.66s. Need more?", 7.66),
        ("Limit 500000, Used 499000, Requested 9. Please try again in 2m59.56s. Visit https://a.b", 179.56),
        ("Please try again in 920ms.", 0.92),
        ("Please retry in 38.5s.", 38.5),
        ("Too fast: wait 20 seconds.", 20.0),
        ("You may retry after 2 minutes", 120.0),
        ("Try again in 1h2m", LONGEST_WAIT_S),
        ("Try again in 3 days", LONGEST_WAIT_S),
        ("Please try again later. The limit is 20 seconds of audio.", None),
        ("Please try again in 5 attempts", None),
        ("", None),
    ],
)
def test_a_wait_that_only_the_message_names(text: str, seconds: float | None) -> None:
    assert text_wait_s(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.text())
def test_any_message_is_read(text: str) -> None:
    wait = text_wait_s("try again in " + text)
    assert wait is None or 0 <= wait <= LONGEST_WAIT_S


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        (str(round((WALL + 42) * 1000)), 42.0),
        (str(round(WALL + 42)), 42.0),
        ("42", 42.0),
        ("1m", 60.0),
        (str(round((WALL - 42) * 1000)), DEFAULT_WAIT_S),
        ("soon", DEFAULT_WAIT_S),
        (None, DEFAULT_WAIT_S),
    ],
)
def test_a_limit_without_a_unit_and_its_reset_in_every_form(reset: str | None, seconds: float) -> None:
    headers = {"x-ratelimit-remaining": "0"} | ({} if reset is None else {"x-ratelimit-reset": reset})
    assert exhausted_for_s(headers, WALL) == pytest.approx(seconds, abs=0.6)
    assert exhausted_for_s({**headers, "x-ratelimit-remaining": "1"}, WALL) == 0.0
