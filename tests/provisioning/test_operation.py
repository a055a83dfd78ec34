"""The life of a registration."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from muster.errors import Kind, Problem
from muster.ids import DeviceId, ETag, RegistrationId, Thumbprint
from muster.model.registration import Registration, RegistrationStatus, Substatus
from muster.provisioning import operation
from muster.provisioning.operation import (
    ASSIGNMENT_DEADLINE,
    MAX_OPERATIONS,
    OPERATION_LIFE,
    TRANSITIONS,
    Request,
    Trigger,
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
REQUEST = Request("s", RegistrationId("Dev-1"), "factory", Thumbprint("A" * 64), "Dev-1")


def begun(
    stored: Registration | None = None, *, number: int = 1, now: datetime = NOW
) -> Registration:
    """A registration with an assignment under way."""
    return operation.begin(
        stored, REQUEST, operation_id=f"op-{number}", etag=ETag(f"e-{number}"), now=now
    )


def assigned(stored: Registration) -> Registration:
    """The same with its assignment made."""
    return operation.assign(
        stored,
        hub="hub.example",
        device_id=DeviceId("Dev-1"),
        substatus=Substatus.INITIAL_ASSIGNMENT,
        etag=ETag("e-a"),
        now=NOW,
    )


def failed(stored: Registration) -> Registration:
    """The same with its assignment failed."""
    return operation.fail(stored, code=400208, message="no hub", etag=ETag("e-f"), now=NOW)


def test_every_status_can_be_registered_again() -> None:
    """A device is never stuck: registering works from every status."""
    for status in (None, *RegistrationStatus):
        assert TRANSITIONS[status, Trigger.REGISTER] is RegistrationStatus.ASSIGNING


def test_only_an_assignment_under_way_can_end() -> None:
    """An outcome for what has one already is a bug, and changes nothing."""
    for done in (assigned(begun()), failed(begun())):
        with pytest.raises(KeyError):
            assigned(done)
        with pytest.raises(KeyError):
            failed(done)


def test_first_registration() -> None:
    """A new registration is under way, with one handle and nothing assigned."""
    new = begun()
    assert new.status is RegistrationStatus.ASSIGNING
    assert (new.assigned_hub, new.device_id, new.substatus) == (None, None, None)
    assert new.operation("op-1", NOW) is not None
    assert new.key == "dev-1"


def test_handle_expires() -> None:
    """A handle is good for its life and not a moment longer."""
    new = begun()
    assert new.operation("op-1", NOW + OPERATION_LIFE - timedelta(seconds=1)) is not None
    assert new.operation("op-1", NOW + OPERATION_LIFE) is None
    assert new.operation("op-2", NOW) is None


def test_same_credential_joins() -> None:
    """Parallel calls share the handle of the assignment under way."""
    shared = operation.joins(begun(), REQUEST, now=NOW)
    assert shared is not None
    assert shared.operation_id == "op-1"


def test_nothing_to_join() -> None:
    """What is not there, has ended, or ran past its deadline is not joined."""
    late = NOW + ASSIGNMENT_DEADLINE
    assert operation.joins(None, REQUEST, now=NOW) is None
    assert operation.joins(assigned(begun()), REQUEST, now=NOW) is None
    assert operation.joins(failed(begun()), REQUEST, now=NOW) is None
    assert operation.joins(begun(), REQUEST, now=late) is None


@pytest.mark.parametrize(
    "other",
    [replace(REQUEST, leaf=Thumbprint("B" * 64)), replace(REQUEST, group_id="other")],
    ids=["certificate", "enrolment"],
)
def test_another_credential_waits(other: Request) -> None:
    """Two credentials do not race for one device; the second may try later."""
    with pytest.raises(Problem) as caught:
        operation.joins(begun(), other, now=NOW)
    assert caught.value.kind is Kind.CONFLICT
    assert operation.joins(begun(), other, now=NOW + ASSIGNMENT_DEADLINE) is None
    assert operation.joins(assigned(begun()), other, now=NOW) is None


def test_another_spelling_is_another_device() -> None:
    """A certificate that spells the name otherwise cannot take a device over."""
    with pytest.raises(Problem) as caught:
        operation.joins(assigned(begun()), replace(REQUEST, common_name="DEV-1"), now=NOW)
    assert caught.value.kind is Kind.CONFLICT


def test_registering_again_keeps_the_assignment_and_the_handles() -> None:
    """The former hub stays readable, and earlier handles go on working."""
    again = begun(assigned(begun()), number=2)
    assert again.status is RegistrationStatus.ASSIGNING
    assert (again.assigned_hub, again.device_id) == ("hub.example", "Dev-1")
    assert [one.operation_id for one in again.operations] == ["op-1", "op-2"]
    assert again.created == NOW


def test_registering_again_forgets_the_failure() -> None:
    """An error belongs to the assignment that had it."""
    again = begun(failed(begun()), number=2)
    assert (again.error_code, again.error_message) == (None, None)


def test_handles_are_bounded_and_expired_ones_go() -> None:
    """A device that registers for ever does not grow its row."""
    current = begun()
    for number in range(2, 100):
        current = begun(assigned(current), number=number)
    assert len(current.operations) == MAX_OPERATIONS
    assert current.operations[-1].operation_id == "op-99"
    later = begun(assigned(current), number=100, now=NOW + OPERATION_LIFE)
    assert [one.operation_id for one in later.operations] == ["op-100"]
