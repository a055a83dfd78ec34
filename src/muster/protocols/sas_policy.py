"""Judge the shared access signature of a service or an operator: does a policy stand behind it?

Rules, in this order; the first that fails is the reason:

1. A token is in force, to the second, and ends within `MAX_TOKEN_LIFE` from now.
2. Its resource covers what is asked for, compared by whole segments of the path as it was sent.
3. It names a policy, and one of the policy's two keys signed it. A policy that does not exist is
   refused in the same words as a wrong signature: names are not to be guessed.
4. The policy has the right that the call takes.

Devices' tokens are judged by `hub/access.py` with the same pieces.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol, TypeVar

from muster.errors import Kind, Problem
from muster.protocols.sas import SasToken

# A token is a bearer's secret: one that never ends cannot be lost safely. IoT Hub sets no limit
# and its tools make tokens of a year; ten years is beyond the life of the keys that sign them.
MAX_TOKEN_LIFE = timedelta(days=3660)
_WRONG_SIGNATURE = "the token is not signed by a current key"


class Policy(Protocol):
    """What is looked at of a shared access policy. Keys are base64."""

    @property
    def key_name(self) -> str:
        """The name that tokens give it, compared to the letter."""

    @property
    def primary_key(self) -> str:
        """One of its two keys."""

    @property
    def secondary_key(self) -> str:
        """The other."""

    @property
    def rights(self) -> Collection[Enum]:
        """What it allows."""


P = TypeVar("P", bound=Policy)


def judge_policy_token(
    token: SasToken,
    policies: Iterable[P],
    *,
    hosts: Sequence[str],
    segments: Sequence[str],
    right: Enum,
    now: datetime,
) -> P:
    """Return the one of *policies* that *token* speaks for and that has *right*.

    *hosts* are the names under which the resource answers, with or without a port; the first is
    quoted in a refusal, so it is the one that the caller dialled. *segments* are those of the
    path asked for, each decoded on its own. Does not check that *policies* are the host's.

    Raises `Problem(UNAUTHENTICATED)`, or `Problem(FORBIDDEN)` for a policy without *right*.
    """
    check_life(token, now)
    check_resource(token, hosts, segments)
    if token.key_name is None:
        raise _unauthenticated("the token names no shared access policy (skn)")
    policy = find_signer(token, policies)
    if right not in policy.rights:
        raise Problem(Kind.FORBIDDEN, f"the policy {policy.key_name} does not allow {right.value}")
    return policy


def find_signer(token: SasToken, policies: Iterable[P]) -> P:
    """Return the one of *policies* that *token* names and that signed it.

    Checks neither life, resource nor rights. Raises `Problem(UNAUTHENTICATED)`.
    """
    for policy in policies:
        if policy.key_name == token.key_name:
            check_signature(token, policy.primary_key, policy.secondary_key)
            return policy
    raise _unauthenticated(_WRONG_SIGNATURE)


def check_life(token: SasToken, now: datetime) -> None:
    """Raise `Problem(UNAUTHENTICATED)` unless *token* is in force at *now*, and not for ever."""
    # Without tolerance: what the token opens would have to end at the expiry, which is now.
    if token.expires <= now:
        raise _unauthenticated(f"the token expired at {token.expires:%Y-%m-%dT%H:%M:%SZ}")
    if token.expires - now > MAX_TOKEN_LIFE:
        raise _unauthenticated(f"the token would last longer than {MAX_TOKEN_LIFE.days} days")


def check_resource(token: SasToken, hosts: Sequence[str], segments: Sequence[str]) -> None:
    """Raise `Problem(UNAUTHENTICATED)` unless *token* is for *segments* at one of *hosts*."""
    # A segment with an encoded slash in it is one segment, which no resource can spell: only a
    # token for what stands above it covers it.
    plain = next((i for i, one in enumerate(segments) if "/" in one), len(segments))
    path = "/".join(segments[:plain])
    if not any(token.covers(f"{host}/{path}") for host in hosts):
        shown = "/".join(segments)[:200]
        raise _unauthenticated(f"the token's resource does not cover {hosts[0][:100]}/{shown}")


def check_signature(token: SasToken, *keys: str | None) -> None:
    """Raise `Problem(UNAUTHENTICATED)` unless one of *keys* (base64) signed *token*."""
    # All are tried, whatever the first says: time must not tell which one matched.
    matches = [token.is_signed_by(key) for key in keys if key]
    if not any(matches):
        raise _unauthenticated(_WRONG_SIGNATURE)


def _unauthenticated(why: str) -> Problem:
    return Problem(Kind.UNAUTHENTICATED, why)
