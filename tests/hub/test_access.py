"""Who is let in, who is not and why, and until when."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.hub import (
    HOST,
    NOW,
    OTHER,
    POLICY_KEY,
    POLICY_KEY_2,
    PRIMARY,
    SECONDARY,
    a_ca,
    a_device,
    a_hub,
    an_attempt,
    by_ca,
    chain,
    token,
)
from tests.support.pki import TestAuthority

from muster.certs.identity import sha1_thumbprint, sha256_thumbprint
from muster.errors import Kind, Problem
from muster.hub.access import AuthMethod, admit
from muster.ids import DeviceId, Thumbprint
from muster.model.device import AuthenticationType, Device, DeviceAuthentication, DeviceStatus
from muster.protocols.sas_policy import MAX_TOKEN_LIFE

ROOT = TestAuthority("root")
ISSUING = ROOT.below("issuing")
STRANGER = TestAuthority("stranger")
LATER = NOW + timedelta(hours=1)


def refusal(
    device: Device | None, *, hub: Any = None, now: datetime = NOW, **attempt: Any
) -> Problem:
    """Return why the attempt is refused."""
    with pytest.raises(Problem) as caught:
        admit(hub or a_hub(ROOT), device, an_attempt(**attempt), now=now)
    return caught.value


# Tokens -----------------------------------------------------------------------------------------

GOOD_TOKENS = {
    "primary key": (token(), AuthMethod.DEVICE_KEY),
    "secondary key": (token(key=SECONDARY), AuthMethod.DEVICE_KEY),
    "host in capitals and with a port": (
        token("HUB1.example:8883/devices/dev1"),
        AuthMethod.DEVICE_KEY,
    ),
    "policy for the device": (token(key=POLICY_KEY, name="device"), AuthMethod.HUB_POLICY),
    "policy for the hub, second key": (
        token(HOST, POLICY_KEY_2, name="device"),
        AuthMethod.HUB_POLICY,
    ),
}


@pytest.mark.parametrize("name", GOOD_TOKENS)
def test_a_good_token_admits_until_it_expires(name: str) -> None:
    """A token by a current key that covers the device lets it in, no longer than it says."""
    password, method = GOOD_TOKENS[name]
    admission = admit(a_hub(), a_device(), an_attempt(password=password), now=NOW)
    assert (admission.auth_method, admission.valid_until) == (method, LATER)
    assert admission.sender.device_id == "dev1"
    assert admission.sender.generation_id == "generation-1"


TOKEN_FOR = b"SharedAccessSignature sr="
BAD_TOKENS = {
    "another key": token(key=OTHER),
    "expired a second ago": token(expires=NOW - timedelta(seconds=1)),
    "expires now": token(expires=NOW),
    "the next device by prefix": token(f"{HOST}/devices/dev10"),
    "the shorter device": token(f"{HOST}/devices/dev"),
    "another spelling of the device": token(f"{HOST}/devices/DEV1"),
    "another host": token("hub2.example/devices/dev1"),
    "a module of the device": token(f"{HOST}/devices/dev1/modules/m"),
    "an endless expiry": token(expires=NOW + MAX_TOKEN_LIFE + timedelta(seconds=1)),
    "an expiry beyond all calendars": token().replace(
        str(int(LATER.timestamp())).encode(), b"1000000000000000000"
    ),
    "a negative expiry": token().replace(str(int(LATER.timestamp())).encode(), b"-1"),
    "a longer expiry than signed": token().replace(
        str(int(LATER.timestamp())).encode(), str(int(LATER.timestamp()) + 9).encode()
    ),
    "two expiries": token() + b"&se=9999999999",
    "a policy injected": token() + b"&skn=device",
    "two policies": token(key=POLICY_KEY, name="device") + b"&skn=iothubowner",
    "a policy that is not there": token(key=POLICY_KEY, name="nobody"),
    "another policy's key": token(key=OTHER, name="device"),
    "an empty policy name": token(key=POLICY_KEY, name=""),
    "a signature cut short": token().replace(b"%3D&se", b"&se"),
    "no signature": TOKEN_FOR + b"hub1.example%2Fdevices%2Fdev1&sig=&se=9999999999",
    "not a token": b"secret",
    "not text": b"\xff\xfe",
    "a key instead of a token": PRIMARY.encode(),
    "dots in the resource": token(f"{HOST}/devices/other/../dev1"),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_a_bad_token_is_refused(name: str) -> None:
    """What does not prove a current key for this very device, now, lets nobody in."""
    problem = refusal(a_device(), password=BAD_TOKENS[name])
    assert problem.kind is Kind.UNAUTHENTICATED
    assert PRIMARY not in problem.detail
    assert POLICY_KEY not in problem.detail


def test_a_policy_without_device_connect_is_forbidden() -> None:
    """A service's policy is no device's, although its signature is good."""
    problem = refusal(a_device(), password=token(key=POLICY_KEY, name="service"))
    assert problem.kind is Kind.FORBIDDEN
    assert "DeviceConnect" in problem.detail


def test_device_keys_count_only_for_devices_with_keys() -> None:
    """A device that changed to certificates cannot go on with the keys it had."""
    proof = DeviceAuthentication(AuthenticationType.CERTIFICATE_AUTHORITY, PRIMARY, SECONDARY)
    problem = refusal(a_device(authentication=proof), password=token())
    assert "certificateAuthority" in problem.detail
    keyless = DeviceAuthentication(AuthenticationType.SAS)
    assert refusal(a_device(authentication=keyless)).kind is Kind.UNAUTHENTICATED


def test_a_policy_may_connect_any_device() -> None:
    """A gateway with a policy key connects devices whatever their own credentials are."""
    password = token(key=POLICY_KEY, name="device")
    admission = admit(a_hub(), by_ca(), an_attempt(password=password), now=NOW)
    assert admission.auth_method is AuthMethod.HUB_POLICY


def test_a_token_for_the_name_that_was_dialled() -> None:
    """A hub that answers to another name too takes tokens made for that name."""
    attempt = an_attempt(host="127.0.0.1", password=token("127.0.0.1/devices/dev1"))
    assert admit(a_hub(), a_device(), attempt, now=NOW).valid_until == LATER


# Who it is --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "client_id", ["", "dev2", "DEV1", "dev1/", "dev1/m", "a/../dev1", "dev%31", "+", "#"]
)
def test_the_client_id_is_the_device_id(client_id: str) -> None:
    """One connection has one name: whoever spells it in two ways is refused."""
    assert refusal(a_device(), client_id=client_id).kind is Kind.FORBIDDEN


def test_unknown_disabled_and_modules() -> None:
    """Good credentials do not help a device that is not there, or not wanted."""
    assert refusal(None).kind is Kind.NOT_FOUND
    disabled = a_device(status=DeviceStatus.DISABLED)
    problem = refusal(disabled)
    assert (problem.kind, "disabled" in problem.detail) == (Kind.FORBIDDEN, True)
    assert refusal(a_device(), module_id=DeviceId("m")).kind is Kind.UNSUPPORTED
    assert refusal(a_device(), password=None).kind is Kind.UNAUTHENTICATED
    assert refusal(a_device(), password=b"").kind is Kind.UNAUTHENTICATED


# Certificates signed by a CA --------------------------------------------------------------------


@pytest.mark.parametrize("length", [2, 3])
def test_a_chain_to_a_verified_ca_admits(length: int) -> None:
    """The leaf with its issuer leads to the root; the root itself may be sent or left out."""
    leaf = ISSUING.leaf("dev1")
    attempt = an_attempt(password=None, chain=chain(leaf, length))
    admission = admit(a_hub(ROOT), by_ca(), attempt, now=NOW)
    assert admission.auth_method is AuthMethod.CERTIFICATE
    end = leaf.certificate.not_valid_after_utc + timedelta(seconds=1)
    assert admission.valid_until == end
    assert admission.certificate == sha256_thumbprint(chain(leaf)[0])


def test_the_first_certificate_to_expire_ends_the_session() -> None:
    """A leaf that outlives its CA is good for as long as the CA is."""
    leaf = ISSUING.leaf("dev1", ends=timedelta(days=4000))
    attempt = an_attempt(password=None, chain=chain(leaf, 2))
    admission = admit(a_hub(ROOT), by_ca(), attempt, now=NOW)
    shortest = min(one.not_valid_after_utc for one in (*leaf.issuers, leaf.certificate))
    assert admission.valid_until == shortest + timedelta(seconds=1)


BAD_CHAINS = {
    "an unknown CA": (chain(STRANGER.leaf("dev1")), Kind.UNAUTHENTICATED),
    "the intermediate left out": (chain(ISSUING.leaf("dev1")), Kind.UNAUTHENTICATED),
    "expired": (
        chain(ISSUING.leaf("dev1", begins=timedelta(days=-9), ends=timedelta(days=-1)), 2),
        Kind.UNAUTHENTICATED,
    ),
    "not yet valid": (
        chain(ISSUING.leaf("dev1", begins=timedelta(days=1), ends=timedelta(days=2)), 2),
        Kind.UNAUTHENTICATED,
    ),
    "another device's": (chain(ISSUING.leaf("dev2"), 2), Kind.FORBIDDEN),
    "another spelling": (chain(ISSUING.leaf("DEV1"), 2), Kind.FORBIDDEN),
    "the CA itself": (
        (ISSUING.certificate.public_bytes(Encoding.DER),),
        Kind.UNAUTHENTICATED,
    ),
    "garbage": ((b"\x30\x03\x02\x01\x00",), Kind.MALFORMED),
    "a thousand certificates": (chain(ISSUING.leaf("dev1"), 2) * 500, Kind.MALFORMED),
    "none": ((), Kind.UNAUTHENTICATED),
}


@pytest.mark.parametrize("name", BAD_CHAINS)
def test_a_chain_that_proves_nothing_is_refused(name: str) -> None:
    """The chain leads to a verified CA, now, and its leaf is named after the device."""
    sent, kind = BAD_CHAINS[name]
    problem = refusal(by_ca(), password=None, chain=sent)
    assert problem.kind is kind


def test_an_unverified_ca_authenticates_nobody() -> None:
    """An upload without proof of possession trusts nothing."""
    hub = a_hub(certificates=(a_ca(ROOT, verified=False),))
    problem = refusal(by_ca(), hub=hub, password=None, chain=chain(ROOT.leaf("dev1")))
    assert problem.kind is Kind.UNAUTHENTICATED


# Thumbprints ------------------------------------------------------------------------------------

LEAF = STRANGER.leaf("whatever it says")
DER = chain(LEAF)[0]
SHA1, SHA256 = sha1_thumbprint(DER), sha256_thumbprint(DER)


def by_thumbprint(primary: str | None, secondary: str | None = None) -> Device:
    """Return a device that is known by thumbprints."""
    proof = DeviceAuthentication(
        AuthenticationType.SELF_SIGNED,
        primary_thumbprint=None if primary is None else Thumbprint(primary),
        secondary_thumbprint=None if secondary is None else Thumbprint(secondary),
    )
    return a_device(authentication=proof)


@pytest.mark.parametrize(
    "device",
    [by_thumbprint(SHA1), by_thumbprint(SHA256), by_thumbprint("0" * 64, SHA256)],
    ids=["SHA-1", "SHA-256", "secondary"],
)
def test_a_whole_thumbprint_admits_any_issuer(device: Device) -> None:
    """The certificate itself is what was registered: who signed it does not matter."""
    attempt = an_attempt(password=None, chain=(DER,))
    admission = admit(a_hub(), device, attempt, now=NOW)
    assert admission.valid_until == LEAF.certificate.not_valid_after_utc + timedelta(seconds=1)


@pytest.mark.parametrize(
    "registered",
    ["0" * 64, SHA256[:40], SHA256[:-1] + ("0" if SHA256[-1] != "0" else "1"), SHA1 + "0" * 24],
    ids=["another", "prefix", "last digit", "padded"],
)
def test_part_of_a_thumbprint_is_none(registered: str) -> None:
    """Only the whole digest counts; the refusal tells the operator which one was shown."""
    problem = refusal(by_thumbprint(registered), password=None, chain=(DER,))
    assert problem.kind is Kind.UNAUTHENTICATED
    assert SHA256 in problem.detail


def test_a_registered_certificate_expires_all_the_same() -> None:
    """Validity is checked for pinned certificates too."""
    after = LEAF.certificate.not_valid_after_utc + timedelta(seconds=1)
    problem = refusal(by_thumbprint(SHA256), password=None, chain=(DER,), now=after)
    assert "expired" in problem.detail


@pytest.mark.parametrize("kind", [AuthenticationType.SAS, AuthenticationType.NONE])
def test_a_certificate_is_nothing_to_a_device_without_one(kind: AuthenticationType) -> None:
    """A good certificate does not make up for a missing token."""
    device = a_device(authentication=DeviceAuthentication(kind, PRIMARY, SECONDARY))
    problem = refusal(device, password=None, chain=chain(ROOT.leaf("dev1")))
    assert problem.kind is Kind.UNAUTHENTICATED
