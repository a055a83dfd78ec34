"""The two drivers: `Session` blocks, `AsyncSession` awaits. Nothing else here does I/O.

TLS is verified against the system's roots, or against *server_ca* alone when it is given.
Redirects are not followed: credentials go where they were sent and no further. Proxies of the
environment are used, except for this machine's own addresses.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import httpx2

from muster import __version__
from muster.client.caller import (
    AskCredential,
    Caller,
    Effect,
    Failure,
    Outcome,
    Performance,
    Transmit,
)
from muster.client.errors import ServiceError, refusal
from muster.client.exchange import Answer, Exchange, Request, Wait
from muster.client.tokens import AccessToken, Credential
from muster.clock import Clock, SystemClock
from muster.errors import Kind, Problem

T = TypeVar("T")
Item_co = TypeVar("Item_co", covariant=True)

# Connecting is quick or hopeless; issuing from an HSM-backed CA may take a while.
_TIMEOUT = httpx2.Timeout(60.0, connect=10.0)
# A page of 1,000 devices is about 1 MiB; nothing that is asked for here is larger than this.
_MAX_BODY = 16 * 2**20
# No proxy knows the way to this machine's own addresses.
_DIRECT = ("all://localhost", "all://127.0.0.1", "all://[::1]")


_NEVER_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)


class Stream(Protocol[Item_co]):
    """An answer that is read while it grows: the request, and a decoder of its bytes."""

    @property
    def request(self) -> Request:
        """The request whose answer is the stream."""
        ...

    def receive(self, data: bytes) -> Sequence[Item_co]:
        """Take the next bytes; return the items that they complete."""
        ...


class Session:
    """Performs exchanges, blocking. Threads may share one."""

    def __init__(
        self,
        credential: Credential | None = None,
        *,
        server_ca: Path | None = None,
        clock: Clock | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._credential = credential
        self._caller = Caller(credential, clock or SystemClock())
        self._http = httpx2.Client(**_options(server_ca, transport))

    def call(self, exchange: Exchange[T]) -> T:
        """Return the result of *exchange*; raises `ServiceError` and what the exchange raises."""
        return self._run(self._caller.perform(exchange))

    def token(self, scope: str) -> AccessToken:
        """Return a token of the credential for *scope*; raises `ServiceError`."""
        return self._run(self._caller.token(scope))

    def stream(self, stream: Stream[T]) -> Iterator[T]:
        """Yield the items of *stream* until the service ends it; raises `ServiceError`."""
        transmit = self._run(self._caller.prepare(stream.request))
        try:
            with self._http.stream(**_arguments(transmit)) as response:
                if response.status_code != 200:
                    body = b"".join(_bounded(response.iter_bytes(), stream.request))
                    raise _refused(stream.request, response, body)
                for chunk in response.iter_bytes():
                    yield from stream.receive(chunk)
        except httpx2.TransportError as error:
            raise _broken(stream.request, error) from error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, performance: Performance[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                effect = performance.send(outcome)
            except StopIteration as stop:
                result: T = stop.value
                return result
            outcome = self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> Outcome:
        if isinstance(effect, Wait):
            time.sleep(effect.seconds)
            return None
        if isinstance(effect, AskCredential):
            return _token_of(_get_token(self._credential, effect.scope))
        try:
            with self._http.stream(**_arguments(effect)) as response:
                body = b"".join(_bounded(response.iter_bytes(), effect.request))
        except httpx2.TransportError as error:
            return _failure(error)
        return Answer(response.status_code, _headers(response), body)


class AsyncSession:
    """Performs exchanges, awaiting. Belongs to one event loop."""

    def __init__(
        self,
        credential: Credential | None = None,
        *,
        server_ca: Path | None = None,
        clock: Clock | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._credential = credential
        self._caller = Caller(credential, clock or SystemClock())
        self._http = httpx2.AsyncClient(**_options(server_ca, transport))

    async def call(self, exchange: Exchange[T]) -> T:
        """Return the result of *exchange*; raises `ServiceError` and what the exchange raises."""
        return await self._run(self._caller.perform(exchange))

    async def token(self, scope: str) -> AccessToken:
        """Return a token of the credential for *scope*; raises `ServiceError`."""
        return await self._run(self._caller.token(scope))

    async def stream(self, stream: Stream[T]) -> AsyncIterator[T]:
        """Yield the items of *stream* until the service ends it; raises `ServiceError`."""
        transmit = await self._run(self._caller.prepare(stream.request))
        try:
            async with self._http.stream(**_arguments(transmit)) as response:
                if response.status_code != 200:
                    body = await _bounded_async(response.aiter_bytes(), stream.request)
                    raise _refused(stream.request, response, body)
                async for chunk in response.aiter_bytes():
                    for item in stream.receive(chunk):
                        yield item
        except httpx2.TransportError as error:
            raise _broken(stream.request, error) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _run(self, performance: Performance[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                effect = performance.send(outcome)
            except StopIteration as stop:
                result: T = stop.value
                return result
            outcome = await self._carry_out(effect)

    async def _carry_out(self, effect: Effect) -> Outcome:
        if isinstance(effect, Wait):
            await asyncio.sleep(effect.seconds)
            return None
        if isinstance(effect, AskCredential):
            # A blocking credential runs beside the loop; an awaitable is made there, awaited here.
            answered = await asyncio.to_thread(_get_token, self._credential, effect.scope)
            return _token_of(await answered if inspect.isawaitable(answered) else answered)
        try:
            async with self._http.stream(**_arguments(effect)) as response:
                body = await _bounded_async(response.aiter_bytes(), effect.request)
        except httpx2.TransportError as error:
            return _failure(error)
        return Answer(response.status_code, _headers(response), body)


def _options(server_ca: Path | None, transport: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "timeout": _TIMEOUT,
        "follow_redirects": False,
        # Bodies are bounded as they are read; a compressed one could burst that bound in one go.
        "headers": {"user-agent": f"muster/{__version__}", "accept-encoding": "identity"},
    }
    if transport is not None:
        return {**options, "transport": transport, "trust_env": False}
    if server_ca is not None:
        options["verify"] = _trust(server_ca)
    return {**options, "mounts": dict.fromkeys(_DIRECT)}


def _trust(server_ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(server_ca))
    except OSError as error:
        # ssl.SSLError is an OSError whose strerror speaks of internals.
        reason = "holds no PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise Problem(Kind.MALFORMED, f"server CA file {server_ca}: {reason}") from None


def _arguments(transmit: Transmit) -> dict[str, Any]:
    request = transmit.request
    headers = dict(request.headers)
    if transmit.authorization is not None:
        headers["authorization"] = transmit.authorization
    return {
        "timeout": _TIMEOUT if request.timeout is None else request.timeout,
        "method": request.method,
        "url": request.url,
        "params": dict(request.params) or None,
        "headers": headers,
        "content": request.content or None,
    }


def _headers(response: httpx2.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _bounded(chunks: Iterator[bytes], request: Request) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > _MAX_BODY:
            raise _too_large(request)
        yield chunk


async def _bounded_async(chunks: AsyncIterator[bytes], request: Request) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > _MAX_BODY:
            raise _too_large(request)
    return bytes(body)


def _too_large(request: Request) -> ServiceError:
    return ServiceError(
        Kind.TOO_LARGE, f"could not {request.purpose}: the answer is over {_MAX_BODY} bytes"
    )


def _refused(request: Request, response: httpx2.Response, body: bytes) -> ServiceError:
    return refusal(request.purpose, response.status_code, _headers(response), body)


def _broken(request: Request, error: httpx2.TransportError) -> ServiceError:
    return ServiceError(
        Kind.UNAVAILABLE, f"could not {request.purpose}: {_failure(error).text} ({request.url})"
    )


def _failure(error: httpx2.TransportError) -> Failure:
    never_sent = isinstance(error, _NEVER_SENT)
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        text = (
            "the server's TLS certificate is not trusted here: name the CA that signed it"
            f" ({text.rpartition('failed: ')[2] or text})"
        )
    elif isinstance(error, httpx2.TimeoutException):
        text = "no answer in time"
    return Failure(text or type(error).__name__, sent=not never_sent)


def _get_token(credential: Any, scope: str) -> Any:
    return credential.get_token(scope)


def _token_of(answered: Any) -> AccessToken:
    if inspect.isawaitable(answered):
        raise TypeError("an awaitable credential belongs in an AsyncSession")
    return AccessToken(str(answered.token), float(answered.expires_on))
