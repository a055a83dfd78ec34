"""What a device's credentials may be, and how a provisioned device is to be known.

Pure but for fresh keys, which come from the operating system's random source.
"""

from __future__ import annotations

import secrets
from datetime import datetime

from muster.certs.chain import load_chain, verify_client_chain
from muster.certs.identity import sha256_thumbprint, verify_device_identity
from muster.errors import Kind, Problem
from muster.hub.trust import anchors_of
from muster.model.device import AuthenticationType, DeviceAuthentication, ProvisionedDevice
from muster.model.resource import Hub
from muster.protocols.shared_key import format_key, parse_key

# As long as a key may be, which is HMAC-SHA256's whole block: a device keeps its key for life.
_NEW_KEY_BYTES = 64


def new_key() -> str:
    """Return a fresh key, base64."""
    return format_key(secrets.token_bytes(_NEW_KEY_BYTES))


def settled_credentials(
    wanted: DeviceAuthentication | None, stored: DeviceAuthentication | None
) -> DeviceAuthentication:
    """Return what to store for a caller who asked for *wanted* where *stored* is kept now.

    Nothing asked: what is stored stays, and a new device gets keys. Keys that a caller leaves
    out are kept, or made. Raises `Problem(MALFORMED)` for what is no key
    (`shared_key.parse_key`), and for thumbprint authentication without a thumbprint.
    """
    if wanted is None:
        if stored is not None:
            return stored
        wanted = DeviceAuthentication(AuthenticationType.SAS)
    match wanted.type:
        case AuthenticationType.SAS:
            return DeviceAuthentication(
                AuthenticationType.SAS,
                primary_key=_key(wanted.primary_key, stored.primary_key if stored else None),
                secondary_key=_key(wanted.secondary_key, stored.secondary_key if stored else None),
            )
        case AuthenticationType.SELF_SIGNED:
            if wanted.primary_thumbprint is None and wanted.secondary_thumbprint is None:
                raise Problem(
                    Kind.MALFORMED, "selfSigned authentication needs at least one thumbprint"
                )
            return DeviceAuthentication(
                AuthenticationType.SELF_SIGNED,
                primary_thumbprint=wanted.primary_thumbprint,
                secondary_thumbprint=wanted.secondary_thumbprint,
            )
        case AuthenticationType.CERTIFICATE_AUTHORITY | AuthenticationType.NONE:
            return DeviceAuthentication(wanted.type)


def provisioned_credentials(
    hub: Hub, device: ProvisionedDevice, *, now: datetime
) -> DeviceAuthentication:
    """Return how *hub* shall know a device that provisioning attested (docs/decisions/0011).

    By its CA where the hub would let the device in with this very chain: it leads to a
    verified CA of the hub now, and the leaf is named after the device. By the leaf's SHA-256
    thumbprint where it would not. Raises `Problem(UNSUPPORTED)` when there is no certificate.
    """
    if not device.chain:
        raise Problem(Kind.UNSUPPORTED, "a device is linked by its certificate; there is none")
    try:
        path = verify_client_chain(load_chain(device.chain), anchors_of(hub), now=now)
        verify_device_identity(path.leaf, device.device_id, now=now)
    except Problem:
        return DeviceAuthentication(
            AuthenticationType.SELF_SIGNED, primary_thumbprint=sha256_thumbprint(device.chain[0])
        )
    return DeviceAuthentication(AuthenticationType.CERTIFICATE_AUTHORITY)


def _key(wanted: str | None, stored: str | None) -> str:
    if not wanted:  # Node sends "" where it means "make one"
        return stored or new_key()
    parse_key(wanted)
    return wanted
