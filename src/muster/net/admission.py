"""How many connections there may be: in all, from one address, and before their handshake is done.

Rules:

1. A newcomer beyond the caps on open connections is refused; whoever is connected stays.
2. A newcomer beyond the caps on unfinished handshakes is let in, and the oldest unfinished one
   gives way: a healthy client is done in milliseconds, so the oldest is the one that stalls.
   A flood of half-open connections therefore cannot keep others out.
3. IPv6 clients are counted by their /64: a host owns all of it.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Protocol

from muster.net.reasons import CloseReason


@dataclass(frozen=True, slots=True)
class Limits:
    """What one listener bears. Seconds and bytes.

    `connections`: the project's goal for one node. `connections_per_address`: half of that, so that
    one address (a site behind NAT, or a load test) cannot lock out everybody else.
    `handshakes`, `handshakes_per_address`: some 60 KiB each while they last.
    `handshake_timeout`: a device on a 2 s round trip gets through.
    `write_high`, `write_low`: bytes waiting for a peer at which it is told to wait, and to go on.
    `write_most`: beyond it a peer that is already told to wait is cut at once.
    `stall_timeout`, `stall_progress`: a peer that takes fewer bytes in that time is cut.
    `linger_timeout`: how long a closed connection waits for the peer's own end, so that
    the last words are not destroyed by a reset. `linger_bytes`: what it discards meanwhile.
    """

    connections: int = 50_000
    connections_per_address: int = 25_000
    handshakes: int = 4096
    handshakes_per_address: int = 1024
    handshake_timeout: float = 5.0
    write_high: int = 65_536
    write_low: int = 16_384
    write_most: int = 1_048_576
    stall_timeout: float = 10.0
    stall_progress: int = 16_384
    linger_timeout: float = 2.0
    linger_bytes: int = 1_048_576

    def __post_init__(self) -> None:
        if min(self.connections, self.connections_per_address) < 1:
            raise ValueError("a listener needs room for a connection")
        if min(self.handshakes, self.handshakes_per_address) < 1:
            raise ValueError("a listener needs room for a handshake")
        if not self.write_low <= self.write_high <= self.write_most:
            raise ValueError("write_low, write_high and write_most rise in this order")
        if min(self.handshake_timeout, self.stall_timeout, self.linger_timeout) <= 0:
            raise ValueError("a time-out is above zero seconds")


class Newcomer(Protocol):
    """A connection as admission sees it."""

    @property
    def address(self) -> str:
        """The peer's IP address."""
        ...

    def give_way(self) -> None:
        """End an unfinished handshake; calls `Admission.leave` by and by."""
        ...


class Admission:
    """Counts connections and says who gets in."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_source: Counter[str] = Counter()
        self._total = 0
        self._handshaking: OrderedDict[Newcomer, None] = OrderedDict()
        self._handshaking_by_source: dict[str, OrderedDict[Newcomer, None]] = {}

    @property
    def total(self) -> int:
        """How many connections are counted in."""
        return self._total

    @property
    def handshaking(self) -> int:
        """How many of them have not finished their handshake."""
        return len(self._handshaking)

    def enter(self, connection: Newcomer) -> CloseReason | None:
        """Count *connection* in, or return why it is refused (and then is not counted)."""
        if self._total >= self._limits.connections:
            return CloseReason.TOO_MANY_CONNECTIONS
        source = source_of(connection.address)
        if self._by_source[source] >= self._limits.connections_per_address:
            return CloseReason.TOO_MANY_FROM_ADDRESS
        self._total += 1
        self._by_source[source] += 1
        return None

    def handshake_begins(self, connection: Newcomer) -> None:
        """Count an unfinished handshake; the oldest gives way beyond the caps."""
        source = source_of(connection.address)
        same_source = self._handshaking_by_source.setdefault(source, OrderedDict())
        if len(same_source) >= self._limits.handshakes_per_address:
            next(iter(same_source)).give_way()
        elif len(self._handshaking) >= self._limits.handshakes:
            next(iter(self._handshaking)).give_way()
        self._handshaking[connection] = None
        # Looked up again: the one that gave way may have been the last of its source.
        self._handshaking_by_source.setdefault(source, OrderedDict())[connection] = None

    def handshake_ends(self, connection: Newcomer) -> None:
        """Take note that a handshake is done or given up. Idempotent."""
        if self._handshaking.pop(connection, _ABSENT) is _ABSENT:
            return
        source = source_of(connection.address)
        same_source = self._handshaking_by_source[source]
        del same_source[connection]
        if not same_source:
            del self._handshaking_by_source[source]

    def leave(self, connection: Newcomer) -> None:
        """Count *connection* out; once for each that entered."""
        self.handshake_ends(connection)
        source = source_of(connection.address)
        self._total -= 1
        self._by_source[source] -= 1
        if self._by_source[source] <= 0:
            del self._by_source[source]


_ABSENT = object()


def source_of(address: str) -> str:
    """Return what *address* is counted under: itself, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
