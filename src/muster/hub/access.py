"""Judge a device's CONNECT: may it in, and until when.

Pure: the caller looks hub and device up and says what time it is.

Rules, in this order; the first that fails is the reason, for the log and not for the wire, which
has one word for all of them:

1. The client id is the device id of the user name.
2. The device exists at this hub and is enabled.
3. A password is a SAS token and nothing else is looked at. Without a key name it is signed by
   one of the device's own keys, which a device of another authentication type does not have.
   With one it is signed by a policy of the hub that may connect devices.
4. A token covers `{host}/devices/{device id}`, compared by whole segments, and ends within
   `MAX_TOKEN_LIFE` from now. The host is the hub's own or, where the hub answers to others as
   well, the one that the device dialled.
5. Without a password the client certificate speaks: for `certificateAuthority` its chain leads to
   a CA that the hub has verified, now, and its common name is the device id; for `selfSigned` its
   whole digest is one of the device's thumbprints and it is within its validity.
6. What let the device in bounds its stay: the token's expiry, or the first certificate of the
   path to expire.

Does not ask whether a certificate was revoked: IoT Hub does not either, and revoking one
disables the device. The handshake proved possession of the leaf's key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from cryptography import x509

from muster.certs.chain import load_chain, verify_client_chain
from muster.certs.identity import (
    check_validity,
    matches_thumbprint,
    sha256_thumbprint,
    verify_device_identity,
)
from muster.errors import Kind, Problem
from muster.hub.envelope import Sender
from muster.hub.trust import anchors_of
from muster.ids import DeviceId, Thumbprint
from muster.model.device import AuthenticationType, Device, DeviceStatus
from muster.model.resource import Hub, Right
from muster.protocols.sas import SasToken, parse_token
from muster.protocols.sas_policy import (
    check_life,
    check_resource,
    check_signature,
    judge_policy_token,
)


class AuthMethod(Enum):
    """How a caller proved who it is, as the readers of its events are told (facts/hub.md 4.3)."""

    DEVICE_KEY = '{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}'
    HUB_POLICY = '{"scope":"hub","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}'
    CERTIFICATE = (
        '{"scope":"device","type":"x509Certificate","issuer":"external",'
        '"acceptingIpFilterRule":null}'
    )


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a device brought to its CONNECT.

    `host` is the hub's name as the device spells it, without a port. `chain` is what the TLS
    handshake brought, unverified.
    """

    host: str
    device_id: DeviceId
    module_id: str | None
    client_id: str
    password: bytes | None = field(repr=False)
    chain: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Admission:
    """The verdict that lets a device in. Valid up to, and not at, `valid_until`."""

    hub: Hub
    device: Device
    auth_method: AuthMethod
    valid_until: datetime
    certificate: Thumbprint | None = None

    @property
    def sender(self) -> Sender:
        """Whom the device's messages name."""
        return Sender(
            device_id=self.device.device_id,
            module_id=None,
            generation_id=self.device.generation_id,
            auth_method=self.auth_method.value,
        )


def admit(hub: Hub, device: Device | None, attempt: Attempt, *, now: datetime) -> Admission:
    """Admit *attempt* to *hub*, whose registry holds *device* under the attempt's device id.

    Raises `Problem` with the precise reason: `MALFORMED`, `UNAUTHENTICATED`, `FORBIDDEN`,
    `NOT_FOUND` or `UNSUPPORTED`.
    """
    if attempt.module_id is not None:
        raise Problem(Kind.UNSUPPORTED, "modules are not supported")
    if attempt.client_id != attempt.device_id:
        raise Problem(Kind.FORBIDDEN, "the client id is not the device id of the user name")
    if device is None:
        raise Problem(Kind.NOT_FOUND, f"the device {attempt.device_id} is not registered")
    if device.status is not DeviceStatus.ENABLED:
        raise Problem(Kind.FORBIDDEN, f"the device {attempt.device_id} is disabled")
    if attempt.password:
        return _admit_token(hub, device, attempt, now)
    return _admit_certificate(hub, device, attempt.chain, now)


def _admit_certificate(
    hub: Hub, device: Device, chain: Sequence[bytes], now: datetime
) -> Admission:
    if not chain:
        raise _unauthenticated("neither a token nor a client certificate was sent")
    proof = device.authentication
    match proof.type:
        case AuthenticationType.CERTIFICATE_AUTHORITY:
            path = verify_client_chain(load_chain(chain), anchors_of(hub), now=now).certificates
            verify_device_identity(path[0], device.device_id, now=now)
        case AuthenticationType.SELF_SIGNED:
            # The rest of the chain proves nothing here, so it is not even parsed.
            path = load_chain(chain[:1])
            known = (proof.primary_thumbprint, proof.secondary_thumbprint)
            # Both are compared, whatever the first says: time must not tell which one matched.
            matches = [matches_thumbprint(chain[0], one) for one in known if one is not None]
            if not any(matches):
                raise _unauthenticated(
                    "the certificate is not the registered one: its SHA-256 thumbprint is "
                    f"{sha256_thumbprint(chain[0])}"
                )
            check_validity(path[0], now)
        case AuthenticationType.SAS | AuthenticationType.NONE:
            raise _unauthenticated(
                f"a certificate was sent, but the device authenticates by {proof.type.value}"
            )
    return Admission(
        hub,
        device,
        AuthMethod.CERTIFICATE,
        valid_until=_end_of(path),
        certificate=sha256_thumbprint(chain[0]),
    )


def _admit_token(hub: Hub, device: Device, attempt: Attempt, now: datetime) -> Admission:
    token = _parsed_token(attempt.password or b"")
    hosts, segments = (hub.hostname, attempt.host), ("devices", device.device_id)
    if token.key_name is not None:
        right = Right.DEVICE_CONNECT
        judge_policy_token(
            token, hub.policies, hosts=hosts, segments=segments, right=right, now=now
        )
        method = AuthMethod.HUB_POLICY
    else:
        check_life(token, now)
        check_resource(token, hosts, segments)
        proof = device.authentication
        if proof.type is not AuthenticationType.SAS:
            raise _unauthenticated(
                f"a token was sent, but the device authenticates by {proof.type.value}"
            )
        check_signature(token, proof.primary_key, proof.secondary_key)
        method = AuthMethod.DEVICE_KEY
    return Admission(hub, device, method, valid_until=token.expires)


def _parsed_token(password: bytes) -> SasToken:
    try:
        return parse_token(password.decode("ascii"))
    except UnicodeDecodeError:
        raise _unauthenticated("the password is not a shared access signature") from None


def _end_of(path: Sequence[x509.Certificate]) -> datetime:
    # RFC 5280 section 4.1.2.5: the last second is included.
    return min(one.not_valid_after_utc for one in path) + timedelta(seconds=1)


def _unauthenticated(why: str) -> Problem:
    return Problem(Kind.UNAUTHENTICATED, why)
