"""The JSON of provisioning that its wires share: what devices send and are told, and errors.

Rules (facts/dps.md 1.1, 1.2):

1. What is not known is left out: the embedded client takes a null for an error.
2. Everything beyond ASCII is escaped: Node reads bodies as ASCII.
3. A body is always one object, for errors as well: Node crashes on anything else.
4. An assigned registration always has its hub, its device id and its substatus as strings: the
   Python client waits for ever without.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from muster.endpoints.codes import PROVISIONING_CODE
from muster.endpoints.rendering import encode_json
from muster.errors import Kind, Problem
from muster.ids import ETag, RegistrationId, new_uuid
from muster.model.registration import Registration, RegistrationStatus
from muster.provisioning.registration import OperationStatus

T = TypeVar("T")

# The service's own limit on a device's message (facts/dps.md 6).
MAX_DEVICE_BODY = 96 * 1024


class RegisterBody(msgspec.Struct, rename="camel"):
    """What a device may say when it registers. Other members are passed over."""

    registration_id: str | None = None
    payload: dict[str, Any] | None = None
    tpm: Any = None
    csr: Any = None


def parse_json(body: bytes, type_: type[T]) -> T:
    """Return *body* as *type_*; raises `Problem(MALFORMED)` that names what is wrong and where."""
    try:
        return msgspec.json.decode(body, type=type_)
    except RecursionError:
        # Not a DecodeError of msgspec's: nesting of a thousand levels.
        raise Problem(Kind.MALFORMED, "the body is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Problem(Kind.MALFORMED, f"the body is not as documented: {error}") from None


def check_register_body(body: bytes, registration_id: RegistrationId) -> None:
    """Check what a device sent along with its register call; nothing of it is kept.

    An empty body, and one without a registration id, are fine: .NET sends those. A registration
    id must be that of the connection. A payload is for custom allocation, which is not served:
    it is checked and dropped.

    Raises `Problem(TOO_LARGE)`, `Problem(MALFORMED)`, `Problem(UNAUTHENTICATED)` for another
    registration id, and `Problem(UNSUPPORTED)` for TPM and for certificate requests.
    """
    if len(body) > MAX_DEVICE_BODY:
        raise Problem(Kind.TOO_LARGE, f"a message has at most {MAX_DEVICE_BODY} bytes")
    if not body.strip():
        return
    document = parse_json(body, RegisterBody)
    if document.tpm is not None:
        raise Problem(Kind.UNSUPPORTED, "TPM attestation is not offered here")
    if document.csr is not None:
        raise Problem(Kind.UNSUPPORTED, "certificates are not issued with a registration here")
    named = document.registration_id
    if named is not None and named.lower() != registration_id.folded:
        raise Problem(Kind.UNAUTHENTICATED, "the registrationId of the body is another's")


def begun_document(status: OperationStatus) -> dict[str, Any]:
    """Return the answer to a register call."""
    return {"operationId": status.operation_id, "status": RegistrationStatus.ASSIGNING.value}


def status_document(status: OperationStatus) -> dict[str, Any]:
    """Return the answer to a poll."""
    registration = status.registration
    state: dict[str, Any]
    if status.is_under_way:
        state = {
            "registrationId": registration.registration_id,
            "status": registration.status.value,
        }
    else:
        state = registration_document(registration)
        if registration.status is RegistrationStatus.ASSIGNED:
            state = {"x509": {"enrollmentGroupId": registration.group_id}, **state}
    return {
        "operationId": status.operation_id,
        "status": registration.status.value,
        "registrationState": state,
    }


def registration_document(registration: Registration) -> dict[str, Any]:
    """Return a registration as operators and devices see it (DeviceRegistrationState)."""
    document: dict[str, Any] = {
        "registrationId": registration.registration_id,
        "createdDateTimeUtc": moment_text(registration.created),
    }
    if registration.status is RegistrationStatus.ASSIGNED:
        document["assignedHub"] = registration.assigned_hub
        document["deviceId"] = registration.device_id
    document["status"] = registration.status.value
    if registration.status is RegistrationStatus.ASSIGNED and registration.substatus is not None:
        document["substatus"] = registration.substatus.value
    if registration.status is RegistrationStatus.FAILED:
        document["errorCode"] = registration.error_code
        document["errorMessage"] = registration.error_message
    document["lastUpdatedDateTimeUtc"] = moment_text(registration.updated)
    document["etag"] = registration_etag(registration.etag)
    return document


def registration_etag(etag: ETag) -> str:
    """Return a registration's entity tag as the service writes it: base64 of the quoted tag."""
    return base64.b64encode(f'"{etag}"'.encode()).decode()


def error_document(code: int, message: str, *, tracking_id: str, now: datetime) -> dict[str, Any]:
    """Return the body of an error. *tracking_id* finds it in the log."""
    return {
        "errorCode": code,
        "trackingId": tracking_id,
        "message": message,
        "timestampUtc": moment_text(now),
    }


def problem_document(problem: Problem, now: datetime) -> dict[str, Any]:
    """Return the body that tells a peer of *problem*."""
    code = PROVISIONING_CODE[problem.kind]
    return error_document(code, problem.detail, tracking_id=new_uuid(), now=now)


def encode(document: object) -> bytes:
    """Return *document* as JSON in ASCII."""
    return encode_json(document, ascii_only=True)


def moment_text(moment: datetime) -> str:
    """Return *moment* in UTC with seven fraction digits, as the service writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
