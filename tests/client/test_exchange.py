"""URLs, requests and answers as values."""

from __future__ import annotations

import pytest

from muster.client.errors import ServiceError
from muster.client.exchange import ask, ask_if_there, base_url, decode, json_request, segment
from muster.errors import Kind, Problem


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:8443", "https://localhost:8443"),
        ("https://portal.ezca.io/", "https://portal.ezca.io"),
        ("HTTPS://Host/prefix/", "https://Host/prefix"),
        (" https://[::1]:8443 ", "https://[::1]:8443"),
    ],
)
def test_base_urls(text, url):
    """A bare host means https, and a trailing slash means nothing."""
    assert base_url(text) == url


@pytest.mark.parametrize(
    "text",
    ["http://localhost", "ftp://x", "", "https://", "https://u:p@host", "https://h?x=1",
     "https://h#x", "https://h:port", "https://[::1"],
)  # fmt: skip
def test_credentials_are_not_sent_to_odd_places(text):
    """Only plain https base URLs are called."""
    with pytest.raises(Problem) as caught:
        base_url(text)
    assert caught.value.kind is Kind.MALFORMED


@pytest.mark.parametrize(
    ("text", "encoded"), [("a b/c", "a%20b%2Fc"), ("..", "%2E%2E"), (".", "%2E"), ("a.b", "a.b")]
)
def test_a_name_stays_one_segment(text, encoded):
    """A name cannot climb out of its place in a path."""
    assert segment(text) == encoded


def test_decoding_ignores_what_is_unknown_and_reports_what_is_wrong(service, both):
    """Services add members; a body of another type is the service's fault."""
    request = json_request("GET", "https://x.test/", purpose="look", repeatable=False)

    def reading():
        return decode((yield from ask(request)), list[int], "look")

    service.answer(json=[1, 2])
    assert both(reading()) == [1, 2]
    service.answer(json={"a": 1})
    with pytest.raises(ServiceError, match="could not look: the answer is not what") as caught:
        both(reading())
    assert caught.value.kind is Kind.UNAVAILABLE


def test_only_a_404_means_that_it_is_not_there(service, both):
    """Any other refusal stays a refusal."""
    request = json_request("GET", "https://x.test/", purpose="look", repeatable=False)
    service.answer(404).answer(403)
    assert both(ask_if_there(request)) is None
    with pytest.raises(ServiceError) as caught:
        both(ask_if_there(request))
    assert caught.value.kind is Kind.FORBIDDEN
