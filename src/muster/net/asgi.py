"""What surrounds an ASGI application here: the peer in its scope, and a bound on what it reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect

from muster.errors import Kind, Problem
from muster.model.peer import Peer

# Where an application finds the `Peer`, in `scope["extensions"]`.
PEER = "muster.peer"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApplication = Callable[[Scope, Receive, Send], Awaitable[None]]


def with_peer(app: AsgiApplication, peer: Peer, body_bytes: int) -> AsgiApplication:
    """Return *app* with the peer in its scope and a bound on what it receives."""

    async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("extensions", {})[PEER] = peer
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        body = _Body(scope, receive, send, body_bytes)
        try:
            await app(scope, body.receive, body.send)
        except ClientDisconnect:
            return  # nobody is left to answer, and whoever leaves early must not fill the log
        except Problem:
            if not body.refused:
                raise
            await body.refuse()

    return bounded


class _Body:
    """Counts one request's body, and has the last word when it is too large.

    The application hears of it as `Problem(TOO_LARGE)` and may answer in its wire's own form; an
    answer of 500 and above, or none, becomes a plain 413.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._size = 0
        self._started = False
        self._replaced = False
        self.refused = _declared_length(scope) > limit

    async def receive(self) -> Message:
        if self.refused:
            raise self._problem()
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            self.refused = True
            raise self._problem()
        return message

    async def send(self, message: Message) -> None:
        if self.refused and not self._started and message.get("status", 0) >= 500:
            await self.refuse()
            return
        if self._replaced:
            return
        if self.refused and message["type"] == "http.response.start":
            # The rest of the body is not read, so the connection cannot be used again.
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        self._started = True
        await self._send(message)

    async def refuse(self) -> None:
        if self._started:
            return
        self._started = self._replaced = True
        body = f"{self._problem().detail}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await self._send({"type": "http.response.start", "status": 413, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _problem(self) -> Problem:
        return Problem(Kind.TOO_LARGE, f"a request's body has at most {self._limit} bytes")


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0
