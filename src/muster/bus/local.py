"""The notice bus of one process: whoever subscribed is called, in the order of subscription.

One handler's failure, or its taking for ever, never keeps a notice from the others.
"""

from __future__ import annotations

import asyncio

import structlog

from muster.errors import Kind, Problem
from muster.model.notice import Notice
from muster.ports.notices import NoticeHandler

_logger = structlog.get_logger(__name__)

# How long one handler may take with one notice. Handlers drop a cache entry or start a task; the
# slowest closes some thousand sessions. Longer means stuck, and stuck would stop every notice.
_HANDLER_SECONDS = 30.0
# Subscriptions of one topic. Each part of the program has one; more is a leak.
_SUBSCRIPTIONS = 256


class LocalBus:
    """The `NoticeBus` port within one event loop."""

    def __init__(self, *, handler_seconds: float = _HANDLER_SECONDS) -> None:
        self._handlers: dict[str, list[NoticeHandler]] = {}
        self._handler_seconds = handler_seconds

    def subscribe(self, topic: str, handler: NoticeHandler) -> None:
        """Call *handler* for each notice whose topic equals *topic*; its failure is logged.

        Raises `Problem(THROTTLED)` when the topic has an absurd number of subscribers.
        """
        handlers = self._handlers.setdefault(topic, [])
        if len(handlers) >= _SUBSCRIPTIONS:
            raise Problem(Kind.THROTTLED, f"too many subscribers to {topic}")
        handlers.append(handler)

    async def publish(self, notice: Notice) -> None:
        """Deliver *notice* to every subscriber and return when they have all run."""
        handlers = self._handlers.get(notice.topic)
        if handlers:
            await asyncio.gather(*(self._deliver(handler, notice) for handler in handlers))

    async def _deliver(self, handler: NoticeHandler, notice: Notice) -> None:
        try:
            async with asyncio.timeout(self._handler_seconds):
                await handler(notice)
        except Exception:
            _logger.exception("notice handler failed", topic=notice.topic, subject=notice.subject)
