"""Shared access keys: one spelling each, of a length that HMAC-SHA256 can use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Kind, Problem
from muster.protocols.sas import build_token, parse_token
from muster.protocols.shared_key import LONGEST, SHORTEST, format_key, parse_key


@given(st.binary(min_size=SHORTEST, max_size=LONGEST))
def test_a_key_that_is_taken_signs(key: bytes) -> None:
    """Every key reads back to its bytes, and verifies what it signed."""
    text = format_key(key)
    assert parse_key(text) == key
    assert parse_token(build_token("host", text, 2_000_000_000)).is_signed_by(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hunter2! hunter2! hunter2!",
        "\u0661" * 24,
        "AAAAAAAAAAAAAAAAAAAAAB==",  # stray bits: 16 bytes in another spelling
        "AAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAA==\n",
        format_key(bytes(SHORTEST - 1)),
        format_key(bytes(LONGEST + 1)),
    ],
)
def test_what_could_not_sign_is_refused(text: str) -> None:
    """Other spellings, other lengths; and the refusal does not hold the key."""
    with pytest.raises(Problem) as caught:
        parse_key(text)
    assert caught.value.kind is Kind.MALFORMED
    assert not text or text not in caught.value.detail


@given(st.text(max_size=100))
def test_no_key_text_is_a_bug(text: str) -> None:
    """Whatever stands in a key's place is a key or a problem, and a key has one spelling."""
    try:
        key = parse_key(text)
    except Problem:
        return
    assert format_key(key) == text
