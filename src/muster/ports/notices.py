"""Telling other parts of the program, and being told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from muster.model.notice import Notice

NoticeHandler = Callable[[Notice], Awaitable[None]]


class NoticeBus(Protocol):
    """Delivers committed notices to whoever subscribed, at least once."""

    def subscribe(self, topic: str, handler: NoticeHandler) -> None:
        """Call *handler* for each notice whose topic equals *topic*; its failure is logged."""
        ...

    async def publish(self, notice: Notice) -> None:
        """Deliver *notice* to every subscriber and return when they have all run."""
        ...
