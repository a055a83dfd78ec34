from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from muster.net.admission import Admission, Limits, source_of
from muster.net.reasons import CloseReason


@dataclass(eq=False)
class Newcomer:
    """A connection that notes when it must give way."""

    address: str
    admission: Admission
    gave_way: list[int] = field(default_factory=list)

    def give_way(self) -> None:
        """Do what a connection does."""
        self.gave_way.append(1)
        self.admission.handshake_ends(self)


def test_caps_hold_and_room_comes_back():
    """Refused beyond the caps, by address and in all; let in again when somebody leaves."""
    admission = Admission(Limits(connections=3, connections_per_address=2))
    one, two, three, other = (Newcomer(address, admission) for address in ("a", "a", "a", "b"))
    assert [admission.enter(one), admission.enter(two)] == [None, None]
    assert admission.enter(three) is CloseReason.TOO_MANY_FROM_ADDRESS
    assert admission.enter(other) is None
    assert admission.enter(Newcomer("c", admission)) is CloseReason.TOO_MANY_CONNECTIONS
    admission.leave(one)
    assert admission.enter(three) is None
    assert admission.total == 3


def test_the_oldest_handshake_gives_way():
    """Of the same address at that cap, of all at the other; finished ones never do."""
    admission = Admission(Limits(handshakes=4, handshakes_per_address=2))
    everyone = [Newcomer(address, admission) for address in "aaabcd"]
    for newcomer in everyone[:2]:
        admission.handshake_begins(newcomer)
    admission.handshake_begins(everyone[2])
    assert [bool(newcomer.gave_way) for newcomer in everyone[:3]] == [True, False, False]
    admission.handshake_ends(everyone[1])
    admission.handshake_ends(everyone[1])
    for newcomer in everyone[3:]:
        admission.handshake_begins(newcomer)
    assert admission.handshaking == 4
    last = Newcomer("e", admission)
    admission.handshake_begins(last)
    assert everyone[2].gave_way == [1]
    assert everyone[1].gave_way == []
    assert admission.handshaking == 4


def test_nothing_is_kept_of_who_left():
    """After everybody left the books are empty, so addresses cannot pile up."""
    admission = Admission(Limits())
    for number in range(1000):
        newcomer = Newcomer(f"10.0.{number // 256}.{number % 256}", admission)
        assert admission.enter(newcomer) is None
        admission.handshake_begins(newcomer)
        admission.leave(newcomer)
    assert (admission.total, admission.handshaking) == (0, 0)
    assert not admission._by_source
    assert not admission._handshaking_by_source


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("not:an:address", "not:an:address"),
    ],
)
def test_what_an_address_counts_under(address, source):
    """IPv4 by itself, IPv6 by its /64."""
    assert source_of(address) == source


@pytest.mark.parametrize(
    "wrong",
    [
        {"connections": 0},
        {"connections_per_address": 0},
        {"handshakes": 0},
        {"handshakes_per_address": 0},
        {"write_low": 70_000},
        {"write_high": 2_000_000},
        {"handshake_timeout": 0},
        {"stall_timeout": -1},
        {"linger_timeout": 0},
    ],
)
def test_contradictory_limits_are_refused(wrong):
    """A configuration that cannot work does not start."""
    with pytest.raises(ValueError, match=r"."):
        Limits(**wrong)
