"""What a driver knows of any protocol, and what a protocol's user knows of its driver.

A machine never waits, never reads a clock and never raises because of what a peer sent:
bad input becomes a final event and, where the protocol has words for it, closing bytes.
After any call, take `events()` and `data_to_send()`, in that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

Event_co = TypeVar("Event_co", covariant=True)
Event_contra = TypeVar("Event_contra", contravariant=True)


class Machine(Protocol[Event_co]):
    """Bytes and time go in; events, bytes and a deadline come out."""

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that arrived at *now* (monotonic seconds)."""
        ...

    def receive_eof(self, now: float) -> None:
        """Take note that the peer will send no more."""
        ...

    def deadline_passed(self, now: float) -> None:
        """Act on a deadline; harmless when called early."""
        ...

    def events(self) -> Sequence[Event_co]:
        """Return what happened since the last call, in order."""
        ...

    def data_to_send(self) -> bytes:
        """Return the bytes to write since the last call."""
        ...

    def next_deadline(self) -> float | None:
        """Return when `deadline_passed` wants to be called, or None for never."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the connection is to be closed once the bytes are written."""
        ...


class Session(Protocol[Event_contra]):
    """Who uses a machine: an endpoint's side of one connection.

    Called by the driver on the event loop, never re-entered. It may start tasks; what
    they do to the machine later is sent by `Link.flush`.
    """

    def handle(self, events: Sequence[Event_contra]) -> None:
        """Act on events, in order. The driver flushes the machine afterwards."""
        ...

    def closed(self, reason: str) -> None:
        """Take note, exactly once, that the connection is gone; *reason* is for the log."""
        ...


class Link(Protocol):
    """The driver as its session sees it."""

    def flush(self) -> None:
        """Deliver the machine's events and bytes; call after using the machine from a task."""
        ...

    def close(self, reason: str) -> None:
        """Write what the machine has left, then close. Idempotent; the first reason wins."""
        ...

    def pause_reading(self) -> None:
        """Take no more from the peer for now: the session has enough to do."""
        ...

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        ...
