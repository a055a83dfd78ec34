"""Requests and answers as values, and the conversations made of them.

Nothing here opens a connection. An API method is a generator, an `Exchange`: it yields a
`Request` and is sent the `Answer`, or yields a `Wait` and is sent None, and returns its result.
`session.py` drives it. So each API is written once and serves blocking and awaiting callers.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from muster.client.errors import ServiceError, refusal
from muster.client.shared_access import TOKEN_SECONDS, SharedAccessKey
from muster.errors import Kind, Problem

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bearer:
    """Authorise with a token for *scope* from the session's credential."""

    scope: str


@dataclass(frozen=True, slots=True)
class SharedAccess:
    """Authorise with a token signed over *resource* by a shared access key, good for *seconds*."""

    key: SharedAccessKey
    resource: str
    seconds: int = TOKEN_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request.

    *purpose* completes the sentence "could not …". *repeatable* says that sending it twice does
    what sending it once does, so that it may be retried when nobody knows whether it arrived.
    *timeout* is in seconds; None is the session's own.
    """

    method: str
    url: str
    purpose: str
    repeatable: bool
    authorization: Bearer | SharedAccess | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so many seconds."""

    seconds: float


Exchange = Generator[Request | Wait, Answer | None, T]


def ask(request: Request) -> Exchange[Answer]:
    """Send *request* and return its answer; raises `ServiceError` unless the status is 2xx."""
    answer = yield request
    assert answer is not None, "a session answers every request"
    if not 200 <= answer.status < 300:
        raise refusal(request.purpose, answer.status, answer.headers, answer.body)
    return answer


def ask_if_there(request: Request) -> Exchange[Answer | None]:
    """Like `ask`, but a 404 is None."""
    try:
        return (yield from ask(request))
    except ServiceError as error:
        if error.kind is Kind.NOT_FOUND:
            return None
        raise


def json_request(method: str, url: str, body: Any = None, **details: Any) -> Request:
    """Return a `Request` whose content is *body* as JSON; None sends no content."""
    headers = {"accept": "application/json", **details.pop("headers", {})}
    content = b""
    if body is not None:
        content = msgspec.json.encode(body)
        headers["content-type"] = "application/json; charset=utf-8"
    return Request(method=method, url=url, headers=headers, content=content, **details)


def decode(answer: Answer, kind: type[T], purpose: str) -> T:
    """Return the JSON body of *answer* as *kind*; raises `ServiceError(UNAVAILABLE)`.

    Unknown members are ignored. A body that does not fit is the service's fault, not the caller's.
    """
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ServiceError(
            Kind.UNAVAILABLE,
            f"could not {purpose}: the answer is not what this API promises ({error})",
            status=answer.status,
        ) from error


def base_url(text: str) -> str:
    """Return *text* as an https base URL without a trailing slash; a bare host gets `https://`.

    Raises `Problem(MALFORMED)` for another scheme, and for a user name, query or fragment.
    """
    candidate = text.strip() if "://" in text else f"https://{text.strip()}"
    try:
        parts = urlsplit(candidate)
        _ = parts.port
    except ValueError:
        raise Problem(Kind.MALFORMED, f"{text!r} is not a URL") from None
    if parts.scheme.lower() != "https":
        raise Problem(Kind.MALFORMED, f"{text!r}: only https URLs are called, tokens travel there")
    if not parts.hostname or parts.username or parts.query or parts.fragment:
        raise Problem(Kind.MALFORMED, f"{text!r} is not a base URL such as https://localhost:8443")
    return f"https://{parts.netloc}{parts.path.rstrip('/')}"


def segment(text: str) -> str:
    """Return *text* as one path segment, percent-encoded."""
    encoded = quote(text, safe="")
    # "." and ".." would be resolved away by URL libraries.
    return encoded.replace(".", "%2E") if encoded in {".", ".."} else encoded
