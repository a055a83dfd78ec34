"""What a listener learnt of the other end: evidence, never a verdict."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """The far end of one connection.

    `chain` is every certificate the peer sent, DER, leaf first, **unverified**: any
    issuer, self-signed or expired. The handshake proves possession of the leaf's key and
    nothing else; who is trusted is decided after it, from stored state. Empty when the
    peer sent none.
    """

    address: str
    chain: tuple[bytes, ...] = ()
    server_name: str | None = None
    tls_version: str | None = None
