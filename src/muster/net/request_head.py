"""Judge the head of an HTTP request before anything is done about it.

Pure. The parser has settled the grammar; here is decided what must not be served although it
parses: what two readers could read in two ways, and what is larger than this server bears.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_VERSIONS = ("1.0", "1.1")

# A status and the words for the peer.
Refusal = tuple[int, str]


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request line and its headers, whose names are in lower case."""

    method: bytes
    target: bytes
    version: str
    headers: Sequence[tuple[bytes, bytes]]


def judge_head(head: RequestHead, *, most_bytes: int, most_headers: int) -> Refusal | None:
    """Return why *head* is refused, or None."""
    if head.version not in _VERSIONS:
        return 505, "a request is HTTP/1.1 or HTTP/1.0"
    names = [name for name, _value in head.headers]
    size = len(head.target) + sum(len(name) + len(value) + 4 for name, value in head.headers)
    if size > most_bytes or len(names) > most_headers:
        return 431, "the request's head is too long"
    hosts = names.count(b"host")
    if hosts > 1 or (hosts == 0 and head.version == "1.1"):
        return 400, "a request has exactly one Host header"
    if head.method == b"CONNECT":  # what follows would not be HTTP
        return 501, "this is no proxy"
    if not head.target.startswith((b"/", b"*")):
        return _judge_absolute_form(head)
    return _judge_framing(head)


def _judge_absolute_form(head: RequestHead) -> Refusal | None:
    # RFC 9112 section 3.2.2 has the target's authority win over Host, and all that is behind us
    # goes by Host: so they must agree.
    authority = head.target.partition(b"://")[2].partition(b"/")[0]
    if authority.lower() != dict(head.headers).get(b"host", b"").lower():
        return 400, "the request's target and its Host header differ"
    return _judge_framing(head)


def _judge_framing(head: RequestHead) -> Refusal | None:
    codings = [value for name, value in head.headers if name == b"transfer-encoding"]
    if not codings:
        return None
    if head.version == "1.0":  # RFC 9112 section 6.1
        return 400, "HTTP/1.0 has no Transfer-Encoding"
    if any(name == b"content-length" for name, _value in head.headers):
        return 400, "a request has Content-Length or Transfer-Encoding, not both"
    *others, last = [coding.strip(b" \t").lower() for coding in b",".join(codings).split(b",")]
    if last == b"chunked" and not others:
        return None
    if last != b"chunked":  # section 6.3: nobody knows where such a body ends
        return 400, "a request's body ends with its last chunk"
    return 501, "a body may be chunked, and nothing else"


def judge_upgrade(head: RequestHead) -> Refusal | None:
    """Return why *head*, which `judge_head` passed and asks for a WebSocket, is refused, or None.

    Does not check the WebSocket's own headers: its protocol does.
    """
    headers = dict(head.headers)
    if b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0":
        return 400, "a WebSocket's opening handshake has no body"
    if head.version != "1.1":  # RFC 9110 section 7.8
        return 400, "a WebSocket begins with HTTP/1.1"
    return None
