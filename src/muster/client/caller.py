"""How requests are authorised, repeated and reported: the part both sessions share.

Pure but for the clock it is given. `Caller.perform` turns an `Exchange` into effects that a
session carries out one by one: send these bytes, wait, ask a foreign credential for a token.

Rules:

1. A request is sent again only when that is safe: the service said that it did nothing (429), or
   the request is repeatable and the failure may pass (408, 5xx, a broken connection).
2. A connection that could not be opened is reported at once; the caller decides about patience.
3. Credentials travel over https only.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from muster.client.errors import ServiceError, retry_after
from muster.client.exchange import Answer, Bearer, Exchange, Request, SharedAccess, Wait
from muster.client.tokens import AccessToken, Credential, TokenSource
from muster.clock import Clock
from muster.errors import Kind

T = TypeVar("T")

# Waits of 0.5, 1 and 2 s ride out a restart; a longer outage is for the caller to judge.
_ATTEMPTS = 4
_FIRST_PAUSE = 0.5
# A service that asks for more patience than this gets it from the caller, not from in here.
_LONGEST_PAUSE = 30.0
_PASSING = frozenset({408, 500, 502, 503, 504})
# Tokens are renewed this long before they end, so that none ends on its way.
_TOKEN_MARGIN = 300.0


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send *request* with *authorization* as its header, unless that is None."""

    request: Request
    authorization: str | None


@dataclass(frozen=True, slots=True)
class AskCredential:
    """Call the session's azure-identity style credential for a token for *scope*."""

    scope: str


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer came. *sent* says that the request may have arrived all the same."""

    text: str
    sent: bool


Effect = Transmit | Wait | AskCredential
Outcome = Answer | Failure | AccessToken | None
Performance = Generator[Effect, Outcome, T]


class Caller:
    """Performs exchanges on behalf of one session; keeps its tokens."""

    def __init__(self, credential: Credential | None, clock: Clock) -> None:
        self._credential = credential
        self._clock = clock
        self._tokens: dict[str, AccessToken] = {}

    def perform(self, exchange: Exchange[T]) -> Performance[T]:
        """Return the result of *exchange*; raises what it raises and `ServiceError`."""
        answer: Answer | None = None
        problem: ServiceError | None = None
        while True:
            try:
                step = exchange.send(answer) if problem is None else exchange.throw(problem)
            except StopIteration as stop:
                result: T = stop.value
                return result
            answer = problem = None
            if isinstance(step, Wait):
                yield step
                continue
            try:
                answer = yield from self._deliver(step)
            except ServiceError as error:
                # Thrown where the request was made: an exchange may know what to do without it.
                problem = error

    def prepare(self, request: Request) -> Performance[Transmit]:
        """Return *request* with its authorization worked out."""
        wanted = request.authorization
        if wanted is None:
            return Transmit(request, None)
        if not request.url.startswith("https://"):
            raise ServiceError(
                Kind.MALFORMED, f"could not {request.purpose}: credentials travel over https only"
            )
        if isinstance(wanted, SharedAccess):
            now = self._clock.now()
            return Transmit(request, wanted.key.token(wanted.resource, now, wanted.seconds))
        token = yield from self.token(wanted.scope, request.purpose)
        return Transmit(request, f"Bearer {token.token}")

    def _deliver(self, request: Request) -> Performance[Answer]:
        attempt = 0
        while True:
            transmit = yield from self.prepare(request)
            outcome = yield transmit
            assert isinstance(outcome, Answer | Failure), "a transmission ends in one of these"
            if isinstance(outcome, Answer) and outcome.status == 401:
                self._forget(request)
            attempt += 1
            pause = pause_before_retry(request, outcome, attempt)
            if pause is None:
                break
            yield Wait(pause)
        if isinstance(outcome, Failure):
            raise ServiceError(
                Kind.UNAVAILABLE, f"could not {request.purpose}: {outcome.text} ({request.url})"
            )
        return outcome

    def token(self, scope: str, purpose: str = "get a token") -> Performance[AccessToken]:
        """Return a token for *scope*, kept until shortly before it ends; raises `ServiceError`."""
        now = self._clock.now().timestamp()
        kept = self._tokens.get(scope)
        if kept is not None and kept.expires_on - now > _TOKEN_MARGIN:
            return kept
        if self._credential is None:
            raise ServiceError(
                Kind.UNAUTHENTICATED, f"could not {purpose}: no credential was given"
            )
        if isinstance(self._credential, TokenSource):
            token = yield from self.perform(self._credential.token(scope, self._clock.now()))
        else:
            answered = yield AskCredential(scope)
            assert isinstance(answered, AccessToken), "a session answers AskCredential with a token"
            token = answered
        self._tokens[scope] = token
        return token

    def _forget(self, request: Request) -> None:
        if isinstance(request.authorization, Bearer):
            self._tokens.pop(request.authorization.scope, None)


def pause_before_retry(request: Request, outcome: Answer | Failure, attempt: int) -> float | None:
    """Return the seconds to wait before sending *request* again, or None not to.

    *attempt* counts the transmissions made so far.
    """
    if attempt >= _ATTEMPTS:
        return None
    pause = _FIRST_PAUSE * float(2 ** (attempt - 1))
    if isinstance(outcome, Failure):
        return pause if outcome.sent and request.repeatable else None
    if outcome.status == 429 or (outcome.status in _PASSING and request.repeatable):
        asked = retry_after(outcome.headers)
        if asked is not None and asked > _LONGEST_PAUSE:
            return None
        return max(pause, asked or 0.0)
    return None
