"""The store of idempotency keys: what a repeated key finds, what frees a key, what is forgotten when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from spillway_router.core.routing.model import Refusal
from spillway_router.proxy.memory.idempotency import (
    DOCUMENTS,
    INFERENCE,
    MAX_KEY_CHARS,
    CallerKey,
    IdempotencyKeys,
    KeyLookup,
    KeyRetention,
    key_flaw,
)

KEY: CallerKey = ("ann", "k")


def begin(keys: IdempotencyKeys[bytes], key: CallerKey = KEY, body: bytes = b"1", at_s: float = 0) -> KeyLookup[bytes]:
    lookup = keys.begin(key, body, f"req_{key[1]}", at_s)
    assert isinstance(lookup, KeyLookup)
    return lookup


def answer(keys: IdempotencyKeys[bytes], key: CallerKey = KEY, reply: bytes | None = b"reply", at_s: float = 0) -> None:
    """Use a key that is free, and finish its request at once."""
    assert not begin(keys, key, at_s=at_s).repeated
    keys.finish(key, reply, len(reply or b""), at_s)


@pytest.mark.parametrize("retention", [INFERENCE, DOCUMENTS])
def test_a_key_is_new_in_progress_and_then_answered(retention: KeyRetention) -> None:
    keys: IdempotencyKeys[bytes] = IdempotencyKeys(retention)
    first = begin(keys)
    assert (first.repeated, first.use.ended_s, first.use.reply) == (False, None, None)
    second = begin(keys)
    assert (second.repeated, second.use) == (True, first.use)
    keys.finish(KEY, b"reply", 5, 7.0)
    third = begin(keys, at_s=8)
    assert (third.repeated, third.use.ended_s, third.use.reply) == (True, 7.0, b"reply")


def test_another_body_is_a_conflict_that_names_the_first_request() -> None:
    keys: IdempotencyKeys[bytes] = IdempotencyKeys(INFERENCE)
    begin(keys)
    for finished in (False, True):
        if finished:
            keys.finish(KEY, None, 0, 1.0)
        refusal = keys.begin(KEY, b"2", "req_2", 2.0)
        assert isinstance(refusal, Refusal)
        assert (refusal.status, refusal.code, refusal.param) == (409, "idempotency_conflict", "idempotency-key")
        assert "req_k" in refusal.message


def test_callers_do_not_share_keys_and_a_failure_releases_its_key() -> None:
    keys: IdempotencyKeys[bytes] = IdempotencyKeys(INFERENCE)
    begin(keys)
    assert not begin(keys, ("bob", "k"), b"2").repeated
    keys.release(KEY)
    assert not begin(keys, body=b"3").repeated


def test_an_undelivered_reply_outlives_a_delivered_one() -> None:
    keys: IdempotencyKeys[bytes] = IdempotencyKeys(DOCUMENTS)
    for name in ("undelivered", "delivered"):
        answer(keys, ("ann", name))
    begin(keys, ("ann", "delivered")).use.delivered = True
    at_s = DOCUMENTS.delivered_s
    assert begin(keys, ("ann", "delivered"), at_s=at_s).repeated
    assert not begin(keys, ("ann", "delivered"), b"other", at_s=at_s + 1).repeated
    assert begin(keys, ("ann", "undelivered"), at_s=DOCUMENTS.undelivered_s).use.reply == b"reply"
    assert not begin(keys, ("ann", "undelivered"), at_s=DOCUMENTS.undelivered_s + 1).repeated


def test_an_expired_key_is_free_however_many_requests_are_in_progress() -> None:
    keys: IdempotencyKeys[bytes] = IdempotencyKeys(INFERENCE)
    for i in range(20):
        begin(keys, ("ann", f"running {i}"))
    answer(keys)
    assert not begin(keys, at_s=INFERENCE.delivered_s + 1).repeated


def test_beyond_the_bytes_the_oldest_reply_goes_and_its_key_as_the_retention_says() -> None:
    for key_outlives_reply in (True, False):
        retention = KeyRetention(600, 600, key_outlives_reply=key_outlives_reply, max_reply_bytes=10)
        keys: IdempotencyKeys[bytes] = IdempotencyKeys(retention)
        for name in ("1", "2", "3"):
            answer(keys, ("ann", name), b"12345")
        oldest = begin(keys, ("ann", "1"))
        assert (oldest.repeated, oldest.use.reply) == (key_outlives_reply, None)
        assert [begin(keys, ("ann", name)).use.reply for name in ("2", "3")] == [b"12345"] * 2


def test_beyond_the_keys_the_oldest_finished_one_goes_but_none_in_progress() -> None:
    keys: IdempotencyKeys[bytes] = IdempotencyKeys(KeyRetention(600, 600, key_outlives_reply=True, max_keys=3))
    begin(keys, ("ann", "running"))
    for name in ("1", "2", "3"):
        answer(keys, ("ann", name))
    assert begin(keys, ("ann", "running")).repeated
    assert [begin(keys, ("ann", name)).repeated for name in ("3", "2", "1")] == [True, True, False]


def test_nobody_pushes_out_the_keys_and_replies_of_others() -> None:
    keys: IdempotencyKeys[bytes] = IdempotencyKeys(KeyRetention(600, 600, key_outlives_reply=True, max_keys=10))
    answer(keys, ("ann", "paid"))
    for number in range(100):
        answer(keys, ("eve", str(number)))
    assert begin(keys, ("ann", "paid")).repeated
    replies: IdempotencyKeys[bytes] = IdempotencyKeys(
        KeyRetention(600, 600, key_outlives_reply=False, max_reply_bytes=100)
    )
    answer(replies, ("ann", "paid"), b"12345")
    for number in range(100):
        answer(replies, ("eve", str(number)), b"12345")
    assert begin(replies, ("ann", "paid")).use.reply == b"12345"


def test_the_length_of_a_key_is_checked() -> None:
    assert key_flaw("x" * MAX_KEY_CHARS) is None
    for key in ("", "x" * (MAX_KEY_CHARS + 1)):
        flaw = key_flaw(key)
        assert flaw is not None
        assert (flaw.status, flaw.param) == (400, "idempotency-key")


NAMES = st.sampled_from("abcdef")
BOUNDS = KeyRetention(10, 40, key_outlives_reply=False, max_keys=4, max_reply_bytes=20)


class Keys(RuleBasedStateMachine):
    """In any order of uses no request is worked on twice at a time, and a repeated one gets its own reply."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: IdempotencyKeys[bytes] = IdempotencyKeys(BOUNDS)
        self.running: set[str] = set()
        self.replies: dict[str, tuple[float, bytes]] = {}
        self.now_s = 0.0

    @rule(name=NAMES, delivered=st.booleans())
    def use(self, name: str, delivered: bool) -> None:
        lookup: Any = self.keys.begin(("ann", name), b"1", name, self.now_s)
        assert lookup.repeated or name not in self.running
        if name in self.running:
            assert lookup.use.ended_s is None
        elif lookup.repeated:
            assert (lookup.use.ended_s, lookup.use.reply) == self.replies[name]
            assert self.now_s - lookup.use.ended_s <= BOUNDS.undelivered_s
            lookup.use.delivered |= delivered
        else:
            self.running.add(name)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), size=st.integers(0, 15))
    def end(self, data: Any, size: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(name)
        if size == 0:
            self.keys.release(("ann", name))
        else:
            self.replies[name] = (self.now_s, b"x" * size)
            self.keys.finish(("ann", name), b"x" * size, size, self.now_s)

    @rule(seconds=st.integers(1, 20))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds


TestKeys = Keys.TestCase
TestKeys.settings = settings(max_examples=60, stateful_step_count=30)
