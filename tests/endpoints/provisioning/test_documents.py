"""Provisioning's JSON: what devices may send, and the exact forms of what they are told."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.endpoints.codes import PROVISIONING_CODE
from muster.endpoints.provisioning.documents import (
    check_register_body,
    encode,
    moment_text,
    problem_document,
    registration_document,
    registration_etag,
)
from muster.endpoints.provisioning.enrollment_documents import parse_group
from muster.errors import Kind, Problem
from muster.ids import DeviceId, ETag, RegistrationId, Thumbprint
from muster.model.registration import Registration, RegistrationStatus, Substatus

NOW = datetime(2026, 11, 23, 12, 0, 0, 120000, tzinfo=UTC)
NAME = RegistrationId("dev-1")


def test_moments_have_seven_digits_and_a_z() -> None:
    """As the service writes them, whatever zone they come in."""
    assert moment_text(NOW) == "2026-11-23T12:00:00.1200000Z"
    assert moment_text(NOW.astimezone(timezone(timedelta(hours=2)))) == moment_text(NOW)


def test_entity_tag_of_a_registration() -> None:
    """Base64 of the quoted tag."""
    assert registration_etag(ETag("5f00")) == "IjVmMDAi"


@given(st.text(), st.dictionaries(st.text(), st.integers()))
def test_everything_is_written_in_ascii(text: str, more: dict[str, int]) -> None:
    """Node reads bodies as ASCII; nothing is lost by that."""
    document = {"a": text, "b": more}
    written = encode(document)
    assert written.isascii()
    assert json.loads(written) == document


@pytest.mark.parametrize("kind", list(Kind))
def test_every_problem_is_an_object_with_a_number(kind: Kind) -> None:
    """The four members that clients read are always there."""
    document = problem_document(Problem(kind, "why"), NOW)
    assert document["errorCode"] == PROVISIONING_CODE[kind]
    assert (document["message"], document["timestampUtc"]) == ("why", moment_text(NOW))
    assert len(document["trackingId"]) == 36


@given(st.binary(max_size=200))
def test_no_body_is_a_bug(body: bytes) -> None:
    """Whatever a device sends, it is taken or refused."""
    with contextlib.suppress(Problem):
        check_register_body(body, NAME)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_no_group_is_a_bug(value: object) -> None:
    """Whatever JSON stands in a group's place, it is taken or refused."""
    for document in (
        value,
        {"attestation": value},
        {"attestation": {"type": "x509"}, "etag": value},
    ):
        with pytest.raises(Problem):
            parse_group(json.dumps(document).encode(), "group")


@pytest.mark.parametrize("status", list(RegistrationStatus))
def test_no_registration_has_nulls(status: RegistrationStatus) -> None:
    """What is not known is left out, in every status."""
    registration = Registration(
        service_id="s",
        registration_id=NAME,
        group_id="g",
        leaf=Thumbprint("A" * 64),
        status=status,
        etag=ETag("e"),
        created=NOW,
        updated=NOW,
        deadline=NOW,
        operations=(),
        substatus=Substatus.INITIAL_ASSIGNMENT,
        assigned_hub="hub.example",
        device_id=DeviceId("dev-1"),
        error_code=400208 if status is RegistrationStatus.FAILED else None,
        error_message="no hub" if status is RegistrationStatus.FAILED else None,
    )
    document = registration_document(registration)
    assert None not in document.values()
    # The embedded client takes one without the other for an error.
    assert ("assignedHub" in document) == ("deviceId" in document)
    assert ("assignedHub" in document) == (status is RegistrationStatus.ASSIGNED)
