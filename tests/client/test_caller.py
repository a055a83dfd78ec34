"""When a request is sent again, and with which credential."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx2
import pytest

from muster.client.caller import Failure, pause_before_retry
from muster.client.errors import ServiceError
from muster.client.exchange import Answer, Bearer, Request, Wait, ask
from muster.client.tokens import AccessToken
from muster.errors import Kind, Problem

# What the sessions of conftest.py take for the present.
MOMENT = datetime(2026, 11, 23, 12, tzinfo=UTC)


def request(*, repeatable: bool = True, url: str = "https://x.test/", **details) -> Request:
    """Return a request to be varied."""
    return Request(method="POST", url=url, purpose="do it", repeatable=repeatable, **details)


RETRIES = [
    # outcome, repeatable: pause, not repeatable: pause
    (Answer(200, {}, b""), None, None),
    (Answer(400, {}, b""), None, None),
    (Answer(401, {}, b""), None, None),
    (Answer(429, {}, b""), 0.5, 0.5),
    (Answer(429, {"retry-after": "7"}, b""), 7.0, 7.0),
    (Answer(429, {"retry-after": "31"}, b""), None, None),
    (Answer(500, {}, b""), 0.5, None),
    (Answer(501, {}, b""), None, None),
    (Answer(503, {"retry-after": "0"}, b""), 0.5, None),
    (Failure("refused", sent=False), None, None),
    (Failure("reset", sent=True), 0.5, None),
]


@pytest.mark.parametrize(("outcome", "repeatable", "once"), RETRIES)
def test_only_safe_requests_are_sent_again(outcome, repeatable, once):
    """Twice must do what once does, unless the service said that it did nothing."""
    assert pause_before_retry(request(), outcome, 1) == repeatable
    assert pause_before_retry(request(repeatable=False), outcome, 1) == once


def test_retries_end():
    """Three waits, each twice the one before, then the error is the answer."""
    outage = Answer(503, {}, b"")
    assert [pause_before_retry(request(), outage, n) for n in (1, 2, 3, 4)] == [0.5, 1, 2, None]


def test_a_passing_failure_is_ridden_out(service, both, waits):
    """A broken connection and a 503 are waited for; the caller sees the success."""
    service.fail(httpx2.ReadError("reset")).answer(503).answer(text="done")
    assert both(ask(request())).body == b"done"
    assert waits == [0.5, 1.0]


def test_what_cannot_be_reached_is_said_at_once(service, both, waits):
    """A refused connection is not waited for, and the error names the address."""
    service.fail(httpx2.ConnectError("Connection refused"))
    with pytest.raises(ServiceError) as caught:
        both(ask(request()))
    assert str(caught.value) == "could not do it: Connection refused (https://x.test/)"
    assert caught.value.kind is Kind.UNAVAILABLE
    assert waits == []


def test_an_exchange_may_go_on_without_an_answer(service, both):
    """A failure is thrown where the request was made, so that it can be handled there."""

    def tolerant():
        try:
            yield from ask(request(repeatable=False))
        except ServiceError:
            return (yield from ask(request()))

    service.fail(httpx2.ReadError("reset")).answer(text="plan B")
    assert both(tolerant()).body == b"plan B"


def test_an_exchange_can_wait(service, both, waits):
    """A wait is carried out and answered with nothing."""

    def patient():
        assert (yield Wait(3.0)) is None
        return 7

    assert both(patient()) == 7
    assert waits == [3.0]


def test_tokens_are_kept_until_shortly_before_they_end(service, both):
    """Two requests, one token; a token about to end is not used."""
    bearer = request(authorization=Bearer("scope"))

    def twice():
        yield from ask(bearer)
        yield from ask(bearer)

    service.answer().answer()
    both(twice())
    assert service.credential.asked == [("scope",)]
    assert {sent.headers["authorization"] for sent in service.requests} == {"Bearer token-1"}

    service.credential.get_token = lambda *_: AccessToken("brief", MOMENT.timestamp() + 299)
    service.answer().answer()
    both(twice())
    assert service.requests[-1].headers["authorization"] == "Bearer brief"


def test_a_refused_token_is_forgotten(service, both):
    """After a 401 the next request asks the credential anew; this one is not sent twice."""
    bearer = request(authorization=Bearer("scope"))

    def twice():
        with pytest.raises(ServiceError):
            yield from ask(bearer)
        yield from ask(bearer)

    service.answer(401).answer()
    both(twice())
    assert [sent.headers["authorization"] for sent in service.requests] == [
        "Bearer token-1",
        "Bearer token-2",
    ]


def test_credentials_travel_over_https_only(service, both):
    """A token for a plain HTTP address is never even asked for."""
    with pytest.raises(Problem, match="https only"):
        both(ask(request(url="http://x.test/", authorization=Bearer("scope"))))
    assert service.credential.asked == []


def test_no_credential_is_a_clear_error(service, both):
    """An API that needs a token says so before anything is sent."""
    service.credential = None
    with pytest.raises(ServiceError, match="could not do it: no credential was given"):
        both(ask(request(authorization=Bearer("scope"))))
