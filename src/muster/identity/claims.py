"""What the claims of a JSON Web Token say about time. Pure.

PyJWT asks the machine's clock by itself, so that check is switched off there and done here, with
the moment as an argument.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from muster.errors import Kind, Problem

# Seconds by which two honest clocks may differ. @azure/identity sends a "not before" one
# second ahead of its own clock (facts/control-plane.md 2.4).
LEEWAY = 60.0


def numeric_date(value: Any) -> float | None:
    """Return a NumericDate (RFC 7519 section 2) in seconds, or None when it is none.

    MSAL for .NET writes the number as a JSON string; Python's MSAL writes a fraction.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    # A year-9999 date has twelve digits. float() would also take "1_0" and " 1 ", and an
    # integer of a thousand digits takes it down.
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= 12):
        return None
    if isinstance(value, int) and abs(value) > 10**12:
        return None
    seconds = float(value)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def check_times(claims: Mapping[str, Any], now: datetime, *, longest: float | None = None) -> float:
    """Check `exp` (required) and `nbf` (if there) at *now*, with `LEEWAY`; return `exp`.

    With *longest*, `exp` may be at most that many seconds (and the leeway) away.
    Does not check `iat`, which says nothing about validity. Raises `Problem(UNAUTHENTICATED)`.
    """
    moment = now.timestamp()
    expires = numeric_date(claims.get("exp"))
    if expires is None:
        raise Problem(Kind.UNAUTHENTICATED, "the token's exp is missing or not a number of seconds")
    if expires + LEEWAY <= moment:
        raise Problem(Kind.UNAUTHENTICATED, "the token has expired")
    if longest is not None and expires > moment + longest + LEEWAY:
        raise Problem(
            Kind.UNAUTHENTICATED, f"the token's exp is more than {longest:.0f} seconds away"
        )
    if "nbf" in claims:
        begins = numeric_date(claims["nbf"])
        if begins is None:
            raise Problem(Kind.UNAUTHENTICATED, "the token's nbf is not a number of seconds")
        if begins - LEEWAY > moment:
            raise Problem(Kind.UNAUTHENTICATED, "the token is not valid yet")
    return expires
