"""A service that answers from a script, under both sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from muster.client.exchange import Exchange
from muster.client.session import AsyncSession, Session
from muster.client.tokens import AccessToken

MOMENT = datetime(2026, 11, 23, 12, tzinfo=UTC)


class FixedClock:
    """A clock that stands still."""

    def now(self) -> datetime:
        """Return the one moment there is."""
        return MOMENT

    def monotonic(self) -> float:
        """Return no seconds."""
        return 0.0


class Signed:
    """An azure-identity style credential that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def get_token(self, *scopes: str) -> AccessToken:
        """Return another token each time."""
        self.asked.append(scopes)
        return AccessToken(f"token-{len(self.asked)}", MOMENT.timestamp() + 3600)


@dataclass
class Service:
    """Answers requests in the order of *script*; records what it was asked."""

    script: list[Any] = field(default_factory=list)
    requests: list[httpx2.Request] = field(default_factory=list)
    credential: Any = field(default_factory=Signed)

    def answer(
        self, status: int = 200, json: Any = None, text: str | None = None, **headers: str
    ) -> Service:
        """Append an answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if json is not None:
            self.script.append(httpx2.Response(status, json=json, headers=named))
        else:
            self.script.append(httpx2.Response(status, text=text or "", headers=named))
        return self

    def fail(self, error: Exception) -> Service:
        """Append a failure of the connection."""
        self.script.append(error)
        return self

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        """Take the next step of the script."""
        self.requests.append(request)
        assert self.script, f"nobody expected {request.method} {request.url}"
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def call(self, exchange: Exchange[Any]) -> Any:
        """Perform *exchange* with a blocking session."""
        with Session(
            self.credential, clock=FixedClock(), transport=httpx2.MockTransport(self.handle)
        ) as session:
            return session.call(exchange)

    def call_async(self, exchange: Exchange[Any]) -> Any:
        """Perform *exchange* with an awaiting session."""

        async def perform() -> Any:
            async with AsyncSession(
                self.credential, clock=FixedClock(), transport=httpx2.MockTransport(self.handle)
            ) as session:
                return await session.call(exchange)

        return asyncio.run(perform())


@pytest.fixture
def service() -> Iterator[Service]:
    """A scripted service; a test must use its whole script."""
    made = Service()
    yield made
    assert not made.script, f"{len(made.script)} answers were not asked for"


@pytest.fixture(params=["blocking", "awaiting"])
def both(request: pytest.FixtureRequest, service: Service) -> Callable[[Exchange[Any]], Any]:
    """Perform an exchange with each of the two sessions in turn."""
    return service.call if request.param == "blocking" else service.call_async


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record waits in place of spending them."""
    spent: list[float] = []

    async def record(seconds: float) -> None:
        spent.append(seconds)

    monkeypatch.setattr("muster.client.session.time.sleep", spent.append)
    monkeypatch.setattr("muster.client.session.asyncio.sleep", record)
    return spent
