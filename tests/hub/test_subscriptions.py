"""What devices subscribed to is remembered between their connections."""

from __future__ import annotations

from muster.hub.subscriptions import Subscriptions

KEY = ("hub-1", "dev1", "generation-1")


def test_a_kept_session_is_found_again() -> None:
    """What was subscribed in one connection is there in the next, and announced."""
    kept = Subscriptions()
    filters, present = kept.begin(KEY, clean=False)
    assert (filters, present) == ({}, False)
    filters["$iothub/twin/res/#"] = 1
    again, present = kept.begin(KEY, clean=False)
    assert (again, present) == ({"$iothub/twin/res/#": 1}, True)


def test_a_clean_session_leaves_nothing() -> None:
    """It forgets what there was and is not remembered itself (MQTT-3.1.2-6)."""
    kept = Subscriptions()
    kept.begin(KEY, clean=False)[0]["a"] = 1
    filters, present = kept.begin(KEY, clean=True)
    assert (filters, present) == ({}, False)
    filters["b"] = 1
    assert kept.begin(KEY, clean=False) == ({}, False)


def test_a_device_created_anew_inherits_nothing() -> None:
    """Another generation is another device."""
    kept = Subscriptions()
    kept.begin(KEY, clean=False)[0]["a"] = 1
    assert kept.begin(("hub-1", "dev1", "generation-2"), clean=False) == ({}, False)


def test_the_longest_away_are_forgotten_first() -> None:
    """What is remembered is bounded."""
    kept = Subscriptions(remembered=2)
    for name in ("a", "b", "a", "c"):
        kept.begin(("hub-1", name, "g"), clean=False)
    assert [kept.begin(("hub-1", name, "g"), clean=False)[1] for name in ("a", "c")] == [True, True]
    assert not kept.begin(("hub-1", "b", "g"), clean=False)[1]
