"""Percent-encoding, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Kind, Problem
from muster.protocols.percent import decode_percent, encode_percent


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        ("", ""),
        ("plain-._~", "plain-._~"),
        ("a%2Fb%2fc", "a/b/c"),
        ("1+1", "1+1"),
        ("%252F", "%2F"),
        ("%C3%A9é", "éé"),
    ],
)
def test_decoding(wire: str, text: str) -> None:
    """Either case of hexadecimal, plus as it is, and once only."""
    assert decode_percent(wire) == text


@pytest.mark.parametrize(
    "wire", ["%", "%2", "%G0", "a%-1", "%%20", "%FF", "%ED%A0%80", "%00", "\0"]
)
def test_what_is_not_an_encoding_is_refused(wire: str) -> None:
    """No guess is made about bad escapes, bytes that are not UTF-8, or NUL."""
    with pytest.raises(Problem) as caught:
        decode_percent(wire)
    assert caught.value.kind is Kind.MALFORMED


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_round_trip(text: str) -> None:
    """What was encoded is one segment of ASCII, and decodes to itself."""
    wire = encode_percent(text)
    assert wire.isascii()
    assert not set(wire) & set("/&=?#+ $")
    assert decode_percent(wire) == text
