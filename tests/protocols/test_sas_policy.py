"""The tokens of services and operators: one set of rules for the hub and for provisioning."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

import pytest

from muster.errors import Kind, Problem
from muster.protocols.sas import build_token, parse_token
from muster.protocols.sas_policy import (
    MAX_TOKEN_LIFE,
    check_signature,
    find_signer,
    judge_policy_token,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOST = "hub1.example"
FIRST, SECOND, OTHER = (b64encode(letter * 32).decode() for letter in (b"a", b"b", b"c"))


class Right(Enum):
    """What can be allowed here."""

    READ = "Read"
    WRITE = "Write"


@dataclass(frozen=True)
class APolicy:
    """A policy of the hub."""

    key_name: str
    rights: frozenset[Right]
    primary_key: str = FIRST
    secondary_key: str = SECOND


OWNER = APolicy("owner", frozenset(Right))
READER = APolicy("reader", frozenset({Right.READ}))
POLICIES = (OWNER, READER)


def judge(
    resource: str = HOST,
    key: str = FIRST,
    name: str | None = "owner",
    *,
    life: timedelta = timedelta(hours=1),
    segments: tuple[str, ...] = ("devices", "dev1"),
    right: Right = Right.WRITE,
    hosts: tuple[str, ...] = ("127.0.0.2:8443", HOST),
    policies: tuple[APolicy, ...] = POLICIES,
) -> APolicy:
    """Judge a token that is good but for what is said."""
    token = parse_token(build_token(resource, key, int((NOW + life).timestamp()), name))
    return judge_policy_token(token, policies, hosts=hosts, segments=segments, right=right, now=NOW)


@pytest.mark.parametrize(
    "resource",
    [HOST, HOST.upper(), f"https://{HOST}:443", "127.0.0.2", f"{HOST}/devices",
     f"{HOST}/devices/dev1", f"{HOST}/devices/dev1/"],
)  # fmt: skip
@pytest.mark.parametrize("key", [FIRST, SECOND])
def test_a_good_token_speaks_for_its_policy(resource: str, key: str) -> None:
    """By either key, for either host, for the path or what stands above it."""
    assert judge(resource, key) is OWNER
    assert judge(resource, key, "reader", right=Right.READ) is READER


def test_the_life_of_a_token_has_two_ends() -> None:
    """To the second, in both directions."""
    assert judge(life=timedelta(seconds=1)) is OWNER
    assert judge(life=MAX_TOKEN_LIFE) is OWNER
    for life in (timedelta(0), timedelta(seconds=-1), MAX_TOKEN_LIFE + timedelta(seconds=1)):
        with pytest.raises(Problem) as caught:
            judge(life=life)
        assert caught.value.kind is Kind.UNAUTHENTICATED


@pytest.mark.parametrize(
    "resource",
    ["hub2.example", f"{HOST}/devices/dev", f"{HOST}/devices/dev10", f"{HOST}/devices/DEV1",
     f"{HOST}/devices/dev1/modules/m", f"{HOST}/devices/x/../dev1", f"{HOST}/", f"{HOST}//devices"],
)  # fmt: skip
def test_a_resource_covers_by_whole_segments(resource: str) -> None:
    """Nothing is normalised and nothing matches by a prefix of a name."""
    if resource == f"{HOST}/":  # one slash at the end is nobody's segment
        assert judge(resource) is OWNER
        return
    with pytest.raises(Problem) as caught:
        judge(resource)
    assert caught.value.kind is Kind.UNAUTHENTICATED
    assert "127.0.0.2" in caught.value.detail
    assert HOST not in caught.value.detail  # what the caller did not dial, it is not told


def test_an_encoded_slash_does_not_make_two_segments() -> None:
    """A token for a device does not cover another whose name holds the first's path."""
    odd = ("devices", "dev1/x")
    assert judge(f"{HOST}/devices", segments=odd) is OWNER
    for resource in (f"{HOST}/devices/dev1", f"{HOST}/devices/dev1/x"):
        with pytest.raises(Problem):
            judge(resource, segments=odd)


def test_what_cannot_be_told_apart() -> None:
    """A policy that is not there, a wrong key and a resource without policies read alike."""
    details = set()
    for change in ({"name": "nobody"}, {"key": OTHER}, {"policies": ()}):
        with pytest.raises(Problem) as caught:
            judge(**change)  # type: ignore[arg-type]  # one of several types each
        assert caught.value.kind is Kind.UNAUTHENTICATED
        details.add(caught.value.detail)
    assert len(details) == 1


def test_a_token_without_a_policy_is_a_device_s() -> None:
    """Services name theirs."""
    with pytest.raises(Problem, match="skn") as caught:
        judge(name=None)
    assert caught.value.kind is Kind.UNAUTHENTICATED


def test_a_policy_allows_what_it_says() -> None:
    """That it does not is another matter than who calls."""
    with pytest.raises(Problem, match="reader does not allow Write") as caught:
        judge(name="reader")
    assert caught.value.kind is Kind.FORBIDDEN


def test_keys_that_are_not_there_sign_nothing() -> None:
    """None and the empty text are no keys."""
    token = parse_token(build_token(HOST, FIRST, 1, "owner"))
    check_signature(token, None, "", FIRST)
    with pytest.raises(Problem):
        check_signature(token, None, "")
    with pytest.raises(Problem):
        find_signer(token, [APolicy("owner", frozenset(), "", "")])
