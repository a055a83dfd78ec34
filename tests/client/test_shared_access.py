"""Shared access signatures and connection strings."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import parse_qs, unquote

import pytest

from muster.client.shared_access import ConnectionString, SharedAccessKey
from muster.errors import Kind, Problem

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def test_a_token_is_signed_over_its_text_and_ends():
    """The signature covers `sr` as it stands in the token, a line feed, and `se`."""
    key = SharedAccessKey("service", base64.b64encode(b"k" * 32).decode())
    token = key.token("localhost:8443", NOW, 60)
    fields = dict(
        part.split("=", 1) for part in token.removeprefix("SharedAccessSignature ").split("&")
    )
    assert fields["sr"] == "localhost%3A8443"
    assert fields["se"] == str(int(NOW.timestamp()) + 60)
    assert fields["skn"] == "service"
    signed = f"{fields['sr']}\n{fields['se']}".encode()
    expected = hmac.new(b"k" * 32, signed, hashlib.sha256).digest()
    assert base64.b64decode(unquote(fields["sig"])) == expected
    assert parse_qs(token.partition(" ")[2])["sr"] == ["localhost:8443"]


@pytest.mark.parametrize("value", ["hunter2!", "aHVudGVyMg==", "hunter2hunter2hunter2B=="])
def test_a_key_that_no_service_takes_is_named_and_not_shown(value):
    """Not base64, too short, or another spelling: the error says which key, never what it is."""
    with pytest.raises(Problem) as caught:
        SharedAccessKey("owner", value).token("h", NOW)
    assert caught.value.kind is Kind.MALFORMED
    assert "'owner'" in caught.value.detail
    assert value not in caught.value.detail


def test_connection_strings_round_trip():
    """What is parsed renders to the same, padding of the key included."""
    text = "HostName=localhost:8443;SharedAccessKeyName=service;SharedAccessKey=a2V5a2V5a2V5a2V5=="
    assert ConnectionString.parse(text).render() == text
    assert ConnectionString.parse(f" {text}; ").hostname == "localhost:8443"


@pytest.mark.parametrize(
    "text",
    ["", "HostName=h", "HostName=h;SharedAccessKeyName=n;SharedAccessKey=",
     "HostName=h;HostName=i;SharedAccessKeyName=n;SharedAccessKey=c2VjcmV0",
     "HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0", "c2VjcmV0"],
)  # fmt: skip
def test_other_texts_are_refused_without_repeating_them(text):
    """A connection string is a secret even when it is wrong."""
    with pytest.raises(Problem) as caught:
        ConnectionString.parse(text)
    assert caught.value.kind is Kind.MALFORMED
    assert "c2VjcmV0" not in caught.value.detail


def test_keys_are_not_in_reprs():
    """A log line or an assertion does not show a key."""
    key = SharedAccessKey("n", "c2VjcmV0")
    assert "c2VjcmV0" not in repr(ConnectionString("h", key))
