"""Judge the head of an HTTP request before anything is done about it.

Pure. The parser has settled the grammar; here is decided what must not be served although it
parses: what two readers could read in two ways, and what is larger than this server bears.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    names = [name for name, _value in head.headers]
    size = len(head.target) + sum(len(name) + len(value) + 4 for name, value in head.headers)
    if size > most_bytes or len(names) > most_headers:
        return 431, "the request's head is too long"
    if names.count(b"host") != 1 and head.version == "1.1":
        return 400, "a request has exactly one Host header"
    if b"transfer-encoding" in names and b"content-length" in names:
        return 400, "a request has Content-Length or Transfer-Encoding, not both"
    return None


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
