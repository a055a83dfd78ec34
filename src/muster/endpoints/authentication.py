"""Who sends this HTTP request: bearer tokens for every API.

What a failure is called (`WWW-Authenticate`, the body) is each wire's own business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from starlette.requests import Request

from muster.errors import Kind, Problem
from muster.identity.audiences import RESOURCE_MANAGER, spellings
from muster.identity.tokens import TokenValidator
from muster.model.principal import Principal

Authenticate = Callable[[Request], Awaitable[Principal]]


def bearer(
    validator: TokenValidator, audiences: Collection[str] = RESOURCE_MANAGER
) -> Authenticate:
    """Return a function that tells who sends a request by its bearer token (RFC 6750).

    The token must be for one of *audiences*, with or without a trailing slash; by default the
    resource manager's, which EZCA's clients ask for too. The function raises
    `Problem(UNAUTHENTICATED)` and does not check what the caller may do.
    """
    accepted = spellings(audiences)

    async def authenticate(request: Request) -> Principal:
        return await validator.validate(bearer_token(request), accepted)

    return authenticate


def bearer_token(request: Request) -> str:
    """Return the token of the one Authorization header; raises `Problem(UNAUTHENTICATED)`."""
    headers = request.headers.getlist("authorization")
    # Two would leave it to chance which of them a proxy in front looked at.
    if len(headers) != 1:
        raise Problem(Kind.UNAUTHENTICATED, "the request needs one Authorization header")
    scheme, _, token = headers[0].partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Problem(Kind.UNAUTHENTICATED, "the Authorization header is not a bearer token")
    return token.strip()
