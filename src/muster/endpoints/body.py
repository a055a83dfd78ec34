"""Read a request's body without letting the peer decide how much memory that takes."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from muster.errors import Kind, Problem


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body of *request*, of at most *limit* bytes.

    Does not bound how slowly it comes: the listener does.

    Raises `Problem(TOO_LARGE)` as soon as that is known, from the declared length if there is
    one; `Problem(MALFORMED)` when the peer leaves before the end.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > limit:
                raise _too_large(limit)
    except ClientDisconnect as error:
        raise Problem(Kind.MALFORMED, "the request ended before its body did") from error
    return bytes(body)


def _too_large(limit: int) -> Problem:
    return Problem(Kind.TOO_LARGE, f"the body has more than {limit} bytes")
