"""Connection strings: one reading for those who store them, use them and type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Kind, Problem
from muster.protocols.connection_string import (
    MASK,
    MAX_LENGTH,
    ConnectionString,
    mask_connection_string,
    parse_connection_string,
)

KEY = "c2VjcmV0LXNlY3JldC1zZWNyZXQ="
STRING = f"HostName=Hub.example:8443;SharedAccessKeyName=owner;SharedAccessKey={KEY}"
SPELLINGS = [
    STRING,
    f" {STRING}; ",
    STRING.lower().replace(KEY.lower(), KEY).replace("hub", "Hub"),
    f"SharedAccessKey = {KEY} ;HOSTNAME= Hub.example:8443;\tsharedAccessKeyName =owner;;",
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_reads_alike(text: str) -> None:
    """Case and spaces do not count, nor does the order; the key keeps its padding."""
    parsed = parse_connection_string(text)
    assert parsed == ConnectionString("Hub.example:8443", "owner", KEY)
    assert parsed.render() == STRING
    assert KEY not in repr(parsed)


def test_other_fields_are_named_to_the_caller() -> None:
    """Each caller has its own mind about them; they are not written again."""
    parsed = parse_connection_string(f"{STRING};EntityPath=muster-hub")
    assert parsed.others == ("entitypath",)
    assert parsed.render() == STRING


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        KEY,
        "HostName=h",
        f"HostName=h;SharedAccessKeyName=;SharedAccessKey={KEY}",
        f"HostName=h;DeviceId=d;SharedAccessKey={KEY}",
        f"{STRING};hostname=other",
        f"{STRING};a=1;A=2",
        f"{STRING};EntityPath",
        f"{STRING};a={'x' * MAX_LENGTH}",
    ],
)
def test_other_texts_are_refused_without_repeating_them(text: str) -> None:
    """Missing, empty and doubled fields, and what is too long."""
    with pytest.raises(Problem) as caught:
        parse_connection_string(text)
    assert caught.value.kind is Kind.MALFORMED
    assert KEY not in caught.value.detail


@pytest.mark.parametrize("text", [*SPELLINGS, f"sharedaccesskey={KEY};HostName=h"])
def test_the_key_is_masked(text: str) -> None:
    """As the public service shows it, in every spelling; masking twice changes nothing."""
    masked = mask_connection_string(text)
    assert KEY not in masked
    assert MASK in masked
    assert mask_connection_string(masked) == masked


def test_a_masked_one_is_known_as_such() -> None:
    """What was shown and comes back carries no key."""
    assert not parse_connection_string(STRING).is_masked
    assert parse_connection_string(mask_connection_string(STRING)).is_masked


@given(st.text(max_size=200))
def test_whatever_parses_round_trips_and_masks(text: str) -> None:
    """Any text is a connection string or a problem, and no connection string shows its key."""
    for candidate in (text, f"{STRING};{text}", f"SharedAccessKey {text}={KEY};{STRING[:40]}"):
        try:
            parsed = parse_connection_string(candidate)
        except Problem:
            continue
        assert parse_connection_string(parsed.render()).key == parsed.key
        assert parse_connection_string(mask_connection_string(candidate)).is_masked
