"""Refusals of five services, read as one line."""

from __future__ import annotations

import pytest

from muster.client.errors import explain, kind_of_status, one_line, refusal, retry_after
from muster.errors import Kind

SHAPES = [
    ("resource manager", {},
     b'{"error":{"code":"NotFound","message":"no hub"}}', "NotFound", "no hub"),
    ("oauth", {},
     b'{"error":"invalid_client","error_description":"AADSTS1"}', "invalid_client", "AADSTS1"),
    ("managed identity", {}, b'{"statusCode":401,"message":"bad header"}', None, "bad header"),
    ("ezca wrapped", {}, b'{"Success":false,"Message":"not yours"}', None, "not yours"),
    ("ezca text", {"content-type": "text/plain"}, b"Error: not yours", None, "not yours"),
    ("provisioning", {}, b'{"errorCode":401002,"message":"CA unknown"}', "401002", "CA unknown"),
    ("registry", {"iothub-errorcode": "DeviceNotFound"},
     b'{"Message":"ErrorCode:DeviceNotFound;it is gone"}', "DeviceNotFound", "it is gone"),
    ("twin", {},
     b'{"Message":"{\\"errorCode\\":404103,\\"message\\":\\"offline\\"}"}', "404103", "offline"),
    ("half a twin", {}, b'{"Message":"{broken"}', None, "{broken"),
    ("html", {"content-type": "text/html"}, b"<html>503</html>", None, ""),
    ("a list", {}, b"[1]", None, ""),
    ("not utf-8", {}, b"\xff\xfe", None, "��"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "body", "code", "reason"),
    [shape[1:] for shape in SHAPES],
    ids=[shape[0] for shape in SHAPES],
)
def test_every_shape_of_refusal_is_read(headers, body, code, reason):
    """A person sees the service's code and words, whichever service it was."""
    assert explain(headers, body) == (code, reason)


def test_a_refusal_is_one_line_that_says_what_failed():
    """The text names the attempt, the reason, the status and the code."""
    error = refusal(
        "read the hub 'h'", 404, {}, b'{"error":{"code":"Gone","message":"not\\nhere"}}'
    )
    assert str(error) == "could not read the hub 'h': not here (404 Gone)"
    assert (error.kind, error.status, error.code) == (Kind.NOT_FOUND, 404, "Gone")


def test_a_reason_cannot_flood_or_steer_a_terminal():
    """Control characters become spaces and a page is cut."""
    assert one_line("a\x1b[31m\r\nb") == "a [31m b"
    assert len(one_line("x" * 10_000)) == 600


@pytest.mark.parametrize(
    ("status", "kind"),
    [(302, Kind.MALFORMED), (400, Kind.MALFORMED), (401, Kind.UNAUTHENTICATED),
     (408, Kind.UNAVAILABLE), (418, Kind.MALFORMED), (429, Kind.THROTTLED),
     (500, Kind.UNAVAILABLE), (501, Kind.UNSUPPORTED), (503, Kind.UNAVAILABLE)],
)  # fmt: skip
def test_statuses_have_kinds(status, kind):
    """Every status that is not a success means one of our kinds."""
    assert kind_of_status(status) is kind


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-1", None), ("inf", None), ("nan", None), ("Tue, 1 Jan", None)],
)
def test_retry_after_is_seconds_or_nothing(value, seconds):
    """A date, a negative or an endless wait is no advice."""
    assert retry_after({"retry-after": value}) == seconds
