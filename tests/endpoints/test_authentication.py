"""Bearer tokens are taken from one Authorization header and judged for the wire's audience."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from starlette.requests import Request

from muster.endpoints.authentication import bearer, bearer_token
from muster.errors import Kind, Problem
from muster.model.principal import Principal, PrincipalKind

CALLER = Principal("tenant", "object", PrincipalKind.APPLICATION, "name")


class Validator:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Collection[str]]] = []

    async def validate(self, token: str, audiences: Collection[str]) -> Principal:
        """Accept everything."""
        self.asked.append((token, audiences))
        return CALLER


def a_request(*authorization: str) -> Request:
    """Return a request with these Authorization headers."""
    headers = [(b"authorization", value.encode("latin-1")) for value in authorization]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": headers})


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER   abc "])
async def test_the_token_is_judged(header: str) -> None:
    """The scheme is compared without case; both spellings of each audience are accepted."""
    validator = Validator()
    authenticate = bearer(validator)  # type: ignore[arg-type]  # a stand-in of the same shape
    assert await authenticate(a_request(header)) == CALLER
    assert validator.asked == [
        (
            "abc",
            {
                "https://management.azure.com",
                "https://management.azure.com/",
                "https://management.core.windows.net",
                "https://management.core.windows.net/",
            },
        )
    ]


async def test_a_wire_names_its_audience() -> None:
    """A token for the resource manager is none for a hub."""
    validator = Validator()
    await bearer(validator, ["https://iothubs.azure.net"])(  # type: ignore[arg-type]  # as above
        a_request("Bearer abc")
    )
    assert validator.asked[0][1] == {"https://iothubs.azure.net", "https://iothubs.azure.net/"}


@pytest.mark.parametrize(
    "headers",
    [[], ["Bearer"], ["Bearer "], ["Basic abc"], ["abc"], [""], ["Bearer a", "Bearer a"]],
)
def test_anything_else_is_refused(headers: list[str]) -> None:
    """None, two, another scheme: whoever sends that is not known."""
    with pytest.raises(Problem) as caught:
        bearer_token(a_request(*headers))
    assert caught.value.kind is Kind.UNAUTHENTICATED
