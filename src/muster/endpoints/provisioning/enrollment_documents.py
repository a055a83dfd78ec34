"""Enrolment groups as JSON: what operators send, checked, and what they are shown.

Rules (facts/dps.md 2.2, 3):

1. Unknown members are passed over, for SDKs send their whole model. What is known and cannot be
   served (symmetric keys, TPM, custom allocation) is refused, never ignored.
2. A certificate comes as PEM, as base64 of DER, or as base64 of PEM; it is shown as base64 of DER
   with `info`, so that what was read can be written again.
3. An entity tag is shown with its quotes inside the JSON string, as the service does.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from cryptography import x509

from muster.certs.encoding import certificate_der
from muster.certs.identity import sha1_thumbprint, sha256_thumbprint
from muster.endpoints.provisioning.documents import moment_text, parse_json
from muster.errors import Kind, Problem
from muster.ids import ETag
from muster.model.device import InitialTwin
from muster.model.enrollment import (
    CaReferences,
    EnrollmentGroup,
    GroupAttestation,
    ProvisioningStatus,
    ReprovisionPolicy,
    SigningCertificates,
)
from muster.model.resource import AllocationPolicy
from muster.provisioning.enrollments import GroupSettings

# The most hubs that a service may have (facts/dps.md 6).
_MAX_HUBS = 50
_STATUSES = {status.value: status for status in ProvisioningStatus}
_POLICIES = {policy.value.lower(): policy for policy in AllocationPolicy}
# On enrolments the policies are spelled in camel case, on services in Pascal case.
_POLICY_WORDS = {
    AllocationPolicy.HASHED: "hashed",
    AllocationPolicy.GEO_LATENCY: "geoLatency",
    AllocationPolicy.STATIC: "static",
}


class _Certificate(msgspec.Struct):
    certificate: str | None = None


class _Certificates(msgspec.Struct):
    primary: _Certificate | None = None
    secondary: _Certificate | None = None


class _References(msgspec.Struct):
    primary: str | None = None
    secondary: str | None = None


class _X509(msgspec.Struct, rename="camel"):
    client_certificates: Any = None
    signing_certificates: _Certificates | None = None
    ca_references: _References | None = None


class _Attestation(msgspec.Struct, rename="camel"):
    type: str
    x509: _X509 | None = None


class _Properties(msgspec.Struct):
    desired: dict[str, Any] | None = None


class _Twin(msgspec.Struct):
    tags: dict[str, Any] | None = None
    properties: _Properties | None = None


class _Capabilities(msgspec.Struct, rename="camel"):
    iot_edge: bool | None = None


class _Reprovision(msgspec.Struct, rename="camel"):
    update_hub_assignment: bool | None = None
    migrate_device_data: bool | None = None


class _Group(msgspec.Struct, rename="camel"):
    attestation: _Attestation
    enrollment_group_id: str | None = None
    capabilities: _Capabilities | None = None
    iot_hub_host_name: str | None = None
    initial_twin: _Twin | None = None
    etag: str | None = None
    provisioning_status: str | None = None
    reprovision_policy: _Reprovision | None = None
    allocation_policy: str | None = None
    iot_hubs: list[str] | None = None
    custom_allocation_definition: Any = None


def parse_group(body: bytes, group_id: str) -> tuple[GroupSettings, ETag | None]:
    """Return the settings in a PUT of the group *group_id*, and the entity tag in it, if any.

    Checks form and rule 1; `Enrollments.put_group` checks what the settings mean. Raises
    `Problem(MALFORMED)` and `Problem(UNSUPPORTED)`.
    """
    document = parse_json(body, _Group)
    named = document.enrollment_group_id
    if named is not None and named.lower() != group_id.lower():
        raise Problem(
            Kind.MALFORMED, "the enrollmentGroupId of the body is not the one of the path"
        )
    if document.custom_allocation_definition is not None:
        raise _custom_allocation()
    policy = document.reprovision_policy or _Reprovision()
    twin = document.initial_twin or _Twin()
    capabilities = document.capabilities or _Capabilities()
    hubs = document.iot_hubs or []
    if len(hubs) > _MAX_HUBS:
        raise Problem(Kind.MALFORMED, f"iotHubs names at most {_MAX_HUBS} hubs")
    settings = GroupSettings(
        group_id=named or group_id,
        attestation=_attestation(document.attestation),
        status=_status(document.provisioning_status),
        reprovision_policy=ReprovisionPolicy(
            policy.update_hub_assignment is not False, policy.migrate_device_data is not False
        ),
        allocation_policy=_allocation_policy(document.allocation_policy),
        iot_hub_hostname=document.iot_hub_host_name or None,
        iot_hubs=tuple(hubs),
        initial_twin=InitialTwin(
            twin.tags or {}, (twin.properties.desired if twin.properties else None) or {}
        ),
        iot_edge=bool(capabilities.iot_edge),
    )
    return settings, ETag.parse(document.etag) if document.etag else None


def group_document(group: EnrollmentGroup) -> dict[str, Any]:
    """Return *group* as operators see it."""
    document: dict[str, Any] = {
        "enrollmentGroupId": group.group_id,
        "attestation": attestation_document(group.attestation),
        "capabilities": {"iotEdge": group.iot_edge},
        "etag": f'"{group.etag}"',
        "provisioningStatus": group.status.value,
        "reprovisionPolicy": {
            "updateHubAssignment": group.reprovision_policy.update_hub_assignment,
            "migrateDeviceData": group.reprovision_policy.migrate_device_data,
        },
        "createdDateTimeUtc": moment_text(group.created),
        "lastUpdatedDateTimeUtc": moment_text(group.updated),
        "initialTwin": {
            "tags": group.initial_twin.tags,
            "properties": {"desired": group.initial_twin.desired},
        },
    }
    if group.allocation_policy is not None:
        document["allocationPolicy"] = _POLICY_WORDS[group.allocation_policy]
    if group.iot_hub_hostname is not None:
        document["iotHubHostName"] = group.iot_hub_hostname
    if group.iot_hubs:
        document["iotHubs"] = list(group.iot_hubs)
    return document


def attestation_document(attestation: GroupAttestation) -> dict[str, Any]:
    """Return the attestation mechanism. X.509 has nothing secret."""
    pairs: dict[str, Any]
    if isinstance(attestation, CaReferences):
        pairs = {"primary": attestation.primary, "secondary": attestation.secondary}
        style = "caReferences"
    else:
        pairs = {
            "primary": attestation.primary and _certificate_document(attestation.primary),
            "secondary": attestation.secondary and _certificate_document(attestation.secondary),
        }
        style = "signingCertificates"
    return {
        "type": "x509",
        "x509": {style: {name: value for name, value in pairs.items() if value is not None}},
    }


def _attestation(attestation: _Attestation) -> GroupAttestation:
    if attestation.type.lower() != "x509":
        raise Problem(Kind.UNSUPPORTED, "enrolment groups have X.509 attestation here, no other")
    x509_ = attestation.x509 or _X509()
    if x509_.client_certificates is not None:
        raise Problem(Kind.MALFORMED, "an enrolment group has no client certificates")
    carried, references = x509_.signing_certificates, x509_.ca_references
    if carried is not None and references is not None:
        raise Problem(
            Kind.MALFORMED, "an enrolment has signing certificates or CA references, not both"
        )
    if carried is not None:
        return SigningCertificates(_carried(carried.primary), _carried(carried.secondary))
    if references is not None:
        return CaReferences(references.primary or None, references.secondary or None)
    raise Problem(Kind.MALFORMED, "an X.509 enrolment group needs a CA certificate")


def _carried(document: _Certificate | None) -> bytes | None:
    if document is None:
        return None
    if not document.certificate:
        raise Problem(Kind.MALFORMED, "a signing certificate lacks its certificate")
    return certificate_der(document.certificate)


def _status(text: str | None) -> ProvisioningStatus:
    if text is None:
        return ProvisioningStatus.ENABLED
    try:
        return _STATUSES[text.lower()]
    except KeyError:
        raise Problem(Kind.MALFORMED, "provisioningStatus is enabled or disabled") from None


def _allocation_policy(text: str | None) -> AllocationPolicy | None:
    if text is None:
        return None
    if text.lower() == "custom":
        raise _custom_allocation()
    try:
        return _POLICIES[text.lower()]
    except KeyError:
        raise Problem(
            Kind.MALFORMED, "allocationPolicy is hashed, geoLatency, static or custom"
        ) from None


def _certificate_document(der: bytes) -> dict[str, Any]:
    certificate = x509.load_der_x509_certificate(der)
    return {
        "certificate": base64.b64encode(der).decode(),
        "info": {
            "subjectName": certificate.subject.rfc4514_string(),
            "sha1Thumbprint": sha1_thumbprint(der),
            "sha256Thumbprint": sha256_thumbprint(der),
            "issuerName": certificate.issuer.rfc4514_string(),
            "notBeforeUtc": moment_text(certificate.not_valid_before_utc),
            "notAfterUtc": moment_text(certificate.not_valid_after_utc),
            "serialNumber": f"{certificate.serial_number:X}",
            "version": certificate.version.value + 1,  # RFC 5280 section 4.1.2.1: v3 is 2
        },
    }


def _custom_allocation() -> Problem:
    return Problem(Kind.UNSUPPORTED, "custom allocation is not offered here")
