"""Which hub a device is assigned to."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.provisioning import a_group, a_service, linked

from muster.errors import Kind, Problem
from muster.ids import RegistrationId
from muster.model.enrollment import ReprovisionPolicy
from muster.model.registration import Substatus
from muster.model.resource import AllocationPolicy, LinkedHub
from muster.provisioning.allocation import begins_anew, choose_hub, substatus_of

A, B, C = linked("a.example"), linked("b.example"), linked("c.example")
NEVER = ReprovisionPolicy(update_hub_assignment=False)
RESET = ReprovisionPolicy(migrate_device_data=False)


def choose(
    *hubs: LinkedHub, name: str = "dev-1", current: str | None = None, **group: Any
) -> LinkedHub:
    """Choose among *hubs* under a group with these settings."""
    service = a_service(linked_hubs=hubs)
    return choose_hub(RegistrationId(name), service, a_group(**group), current=current)


def refusal(*hubs: LinkedHub, **group: Any) -> str:
    """The reason why there is no hub to choose."""
    with pytest.raises(Problem) as caught:
        choose(*hubs, **group)
    assert caught.value.kind is Kind.NOT_FOUND
    return caught.value.detail


def spread(*hubs: LinkedHub, devices: int = 4000) -> Counter[str]:
    """How many devices each hub gets."""
    return Counter(choose(*hubs, name=f"device-{n}").hostname for n in range(devices))


def test_the_only_hub_is_chosen() -> None:
    """One linked hub gets everything."""
    assert choose(A) == A


def test_choice_is_stable() -> None:
    """The order of the links and the case of the id do not matter."""
    for n in range(50):
        name = f"Device-{n}"
        assert choose(A, B, C, name=name) == choose(C, B, A, name=name.lower())


def test_shares_follow_weights() -> None:
    """A hub of weight 3 gets three times the devices of one of weight 1."""
    counts = spread(linked("a.example", allocation_weight=3), B)
    assert counts["a.example"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_unlinking_a_hub_moves_only_its_own_devices() -> None:
    """Rendezvous: whoever was elsewhere stays there."""
    for n in range(500):
        before = choose(A, B, C, name=f"device-{n}")
        if before != C:
            assert choose(A, B, name=f"device-{n}") == before


def test_current_hub_is_kept_while_it_is_a_candidate() -> None:
    """Linking more hubs moves nobody."""
    for n in range(50):
        assert choose(A, B, C, name=f"device-{n}", current="B.example") == B


def test_current_hub_is_left_when_it_is_no_candidate() -> None:
    """A hub kept out, narrowed out or unlinked gives its devices up."""
    closed = linked("b.example", apply_allocation_policy=False)
    assert choose(A, closed, current="b.example") == A
    assert choose(A, B, current="b.example", iot_hubs=("a.example",)) == A
    assert choose(A, current="b.example") == A


def test_never_reprovision_keeps_the_hub_whatever_happens() -> None:
    """Without hub updates a device stays, candidate or not."""
    closed = linked("b.example", apply_allocation_policy=False)
    kept = choose(A, closed, current="b.example", iot_hubs=("a.example",), reprovision_policy=NEVER)
    assert kept == closed
    assert "no longer linked" in refusal(A, current="b.example", reprovision_policy=NEVER)


def test_enrolment_narrows_the_hubs() -> None:
    """Only hubs that the enrolment names are candidates; case does not matter."""
    for n in range(50):
        assert choose(A, B, C, name=f"device-{n}", iot_hubs=("C.EXAMPLE",)) == C


def test_static_names_exactly_one() -> None:
    """Static goes where it says, wherever the device was, closed to the policy or not."""
    closed = linked("b.example", apply_allocation_policy=False)
    static = AllocationPolicy.STATIC
    assert choose(A, closed, allocation_policy=static, iot_hubs=("b.example",)) == closed
    assert (
        choose(
            A,
            closed,
            allocation_policy=static,
            iot_hub_hostname="b.example",
            current="a.example",
        )
        == closed
    )
    assert "names 0" in refusal(A, allocation_policy=static)
    assert "names 2" in refusal(A, B, allocation_policy=static, iot_hubs=("a.example", "b.example"))
    assert "not linked" in refusal(A, allocation_policy=static, iot_hubs=("x.example",))


def test_enrolment_policy_beats_the_service_s() -> None:
    """The service's policy is only the default."""
    service = a_service(linked_hubs=(A, B), allocation_policy=AllocationPolicy.STATIC)
    hashed = a_group(allocation_policy=AllocationPolicy.HASHED)
    assert choose_hub(RegistrationId("dev"), service, hashed, current=None) in (A, B)
    with pytest.raises(Problem):
        choose_hub(RegistrationId("dev"), service, a_group(), current=None)


def test_lowest_latency_falls_back_to_the_hash() -> None:
    """Latency of devices is unknown here, so both policies agree."""
    for n in range(50):
        name = f"device-{n}"
        latency = choose(A, B, C, name=name, allocation_policy=AllocationPolicy.GEO_LATENCY)
        assert latency == choose(A, B, C, name=name)


def test_reasons_tell_apart_why_there_is_no_hub() -> None:
    """The failed registration says which rule left nothing."""
    closed = linked("a.example", apply_allocation_policy=False)
    assert "no hub is linked" in refusal()
    assert "enrolment names" in refusal(A, iot_hubs=("x.example",))
    assert "kept out" in refusal(closed)


@given(st.from_regex(r"[a-z0-9]{1,128}", fullmatch=True), st.integers(0, 1000))
def test_any_id_and_weight_find_a_hub(name: str, weight: int) -> None:
    """No id and no weight break the arithmetic."""
    assert choose(linked("a.example", allocation_weight=weight), B, name=name) is not None


@pytest.mark.parametrize(
    ("policy", "former", "chosen", "expected"),
    [
        (ReprovisionPolicy(), None, "a", Substatus.INITIAL_ASSIGNMENT),
        (RESET, None, "a", Substatus.INITIAL_ASSIGNMENT),
        (ReprovisionPolicy(), "a", "A", Substatus.REPROVISIONED_TO_INITIAL_ASSIGNMENT),
        (ReprovisionPolicy(), "a", "b", Substatus.DEVICE_DATA_MIGRATED),
        (RESET, "a", "b", Substatus.DEVICE_DATA_RESET),
        (RESET, "a", "a", Substatus.DEVICE_DATA_RESET),
        (NEVER, "a", "a", Substatus.REPROVISIONED_TO_INITIAL_ASSIGNMENT),
        (
            ReprovisionPolicy(False, False),
            "a",
            "a",
            Substatus.REPROVISIONED_TO_INITIAL_ASSIGNMENT,
        ),
    ],
)
def test_substatus(
    policy: ReprovisionPolicy, former: str | None, chosen: str, expected: Substatus
) -> None:
    """How an assignment is called, and that data begin anew exactly when it says so."""
    group = a_group(reprovision_policy=policy)
    assert substatus_of(group, former=former, chosen=chosen) is expected
    assert begins_anew(group, former=former) == (expected is Substatus.DEVICE_DATA_RESET)
