"""Strategies for the JSON texts of request bodies: strings, field names and ways to write them."""

from __future__ import annotations

from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["model", '"model"', '"model": "x"', "}", "{", ",", ":", "\\", '\\"', "models", "é\u2028🙂"]
)
NAMES = ["model", "stream_options", "logprobs", "top_logprobs", "models", "provider", "messages", ""]
WRITERS = st.sampled_from(
    [
        {"separators": (",", ":")},
        {},
        {"indent": 2},
        {"ensure_ascii": False},
        {"separators": (" ,\t", "\r\n: ")},
    ]
)
