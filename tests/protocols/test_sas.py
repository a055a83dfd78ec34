"""Shared access signatures in every dialect, and every trick that must fail."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, quote_plus

import pytest
from azure.iot.device.common.auth.sastoken import RenewableSasToken
from azure.iot.device.common.auth.signing_mechanism import SymmetricKeySigningMechanism
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Kind, Problem
from muster.protocols.sas import (
    CLOCK_SKEW,
    MAX_TOKEN_LENGTH,
    SasToken,
    build_token,
    derive_device_key,
    parse_token,
)

KEY = b64encode(bytes(range(32))).decode()
OTHER_KEY = b64encode(bytes(32)).decode()
DEVICE = "hub1.azure-devices.net/devices/dev1"
SCOPE = "0ne004A9EDB/registrations/reg-1"


def signature(raw_resource: str, expiry: object, key: str = KEY) -> str:
    """Return the base64 signature over the text as it stands."""
    text = f"{raw_resource}\n{expiry}".encode()
    return b64encode(hmac.digest(b64decode(key), text, "sha256")).decode()


def signature_with(raw_resource: str, letters: str) -> tuple[str, int]:
    """Return a signature that holds all of *letters*, and the expiry that leads to it."""
    for expiry in range(2_000_000_000, 2_000_001_000):
        found = signature(raw_resource, expiry)
        if all(letter in found for letter in letters):
            return found, expiry
    raise AssertionError


def lower_hex(text: str) -> str:
    """Encode as the C SDK does."""
    return "".join(
        f"%{byte:02x}" if not chr(byte).isalnum() else chr(byte) for byte in text.encode()
    )


# What is signed (given the resource), and the token around it.
DIALECTS = {
    "python device": (lambda r: quote(r, safe=""), "sr={sr}&sig={enc}&se={se}", None),
    "python REST": (quote_plus, "sr={sr}&sig={enc}&se={se}&skn=service", "service"),
    "python uamqp": (lambda r: r, "sr={sr}&sig={slashed}&se={se}&skn=service", "service"),
    "node device": (lambda r: quote(r, safe=""), "sr={sr}&sig={enc}&se={se}", None),
    "node provisioning": (
        lambda r: r,
        "sr={sr}&sig={enc}&skn=registration&se={se}",
        "registration",
    ),
    "node service": (lambda r: r, "sr={sr}&sig={enc}&skn=my%20key&se={se}", "my key"),
    "C": (lower_hex, "sr={sr}&sig={low}&se={se}&skn=", None),
    ".NET": (quote_plus, "sr={sr}&sig={enc}&se={se}&skn=registration", "registration"),
    "raw signature": (lambda r: quote(r, safe=""), "se={se}&sig={sig}&sr={sr}", None),
}


@pytest.mark.parametrize("resource", [DEVICE, SCOPE])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_verifies(dialect: str, resource: str) -> None:
    """The signature is over the resource as it was sent, in whatever order and spelling."""
    spell, layout, key_name = DIALECTS[dialect]
    raw = spell(resource)
    sig, expiry = signature_with(raw, "/+")
    token = parse_token(
        "SharedAccessSignature "
        + layout.format(
            sr=raw,
            sig=sig,
            se=expiry,
            enc=quote(sig, safe=""),
            slashed=quote(sig),
            low=lower_hex(sig),
        ).removesuffix("&skn=")
    )
    assert token.resource == resource
    assert token.raw_resource == raw
    assert token.expiry == expiry
    assert token.key_name == key_name
    assert token.is_signed_by(KEY)
    assert not token.is_signed_by(OTHER_KEY)
    assert token.covers(resource)


@pytest.mark.parametrize("resource", [DEVICE, SCOPE, "localhost:18883/devices/a%b/modules/$m"])
def test_the_python_sdk_and_this_module_agree(resource: str) -> None:
    """A token that azure-iot-device made is ours to check, and says what ours would say."""
    theirs = RenewableSasToken(resource, SymmetricKeySigningMechanism(KEY), ttl=60)
    token = parse_token(str(theirs))
    assert token.is_signed_by(KEY)
    assert token.covers(resource)
    assert token.expiry == theirs.expiry_time
    assert build_token(resource, KEY, token.expiry) == str(theirs)


def test_a_built_token_is_read_back() -> None:
    """Building and parsing are each other's inverse."""
    token = parse_token(build_token(DEVICE, KEY, 1_900_000_000, "a policy&more"))
    expected = SasToken(
        DEVICE, quote(DEVICE, safe=""), token.signature, 1_900_000_000, "a policy&more"
    )
    assert token == expected
    assert token.expires == datetime.fromtimestamp(1_900_000_000, UTC)


def test_a_token_does_not_show_its_signature() -> None:
    """What is logged of a token cannot be used."""
    token = parse_token(build_token(DEVICE, KEY, 1_900_000_000))
    assert repr(token.signature) not in repr(token)


RAW = quote(DEVICE, safe="")
GOOD = f"sr={RAW}&sig={quote(signature(RAW, 2_000_000_000), safe='')}&se=2000000000"
SIG = GOOD.split("&")[1]
BAD = {
    "empty": "",
    "no scheme": GOOD,
    "another scheme": f"Bearer {GOOD}",
    "scheme alone": "SharedAccessSignature ",
    "two spaces": f"SharedAccessSignature  {GOOD}",
    "no sr": f"SharedAccessSignature {SIG}&se=2000000000",
    "no sig": "SharedAccessSignature sr=a&se=2000000000",
    "no se": f"SharedAccessSignature sr=a&{SIG}",
    "empty sr": f"SharedAccessSignature sr=&{SIG}&se=2000000000",
    "empty skn": f"SharedAccessSignature {GOOD}&skn=",
    "two sr": f"SharedAccessSignature {GOOD}&sr=b",
    "two se": f"SharedAccessSignature {GOOD}&se=2000000000",
    "two sig": f"SharedAccessSignature {GOOD}&{SIG}",
    "two skn": f"SharedAccessSignature {GOOD}&skn=a&skn=b",
    "skn injected by another case": f"SharedAccessSignature {GOOD}&SKN=iothubowner",
    "unknown field": f"SharedAccessSignature {GOOD}&sp=rw",
    "trailing &": f"SharedAccessSignature {GOOD}&",
    "negative se": f"SharedAccessSignature sr=a&{SIG}&se=-1",
    "se of 10^18": f"SharedAccessSignature sr=a&{SIG}&se=1000000000000000000",
    "se after the year 9999": f"SharedAccessSignature sr=a&{SIG}&se=253402300800",
    "se with a sign": f"SharedAccessSignature sr=a&{SIG}&se=+2000000000",
    "se with a leading zero": f"SharedAccessSignature sr=a&{SIG}&se=02000000000",
    "se with a fraction": f"SharedAccessSignature sr=a&{SIG}&se=2000000000.5",
    "se in Arabic digits": f"SharedAccessSignature sr=a&{SIG}&se=\u0661",
    "se with a line feed": f"SharedAccessSignature sr=a&{SIG}&se=2000000000\n",
    "se encoded": f"SharedAccessSignature sr=a&{SIG}&se=%32",
    "sig without padding": f"SharedAccessSignature {GOOD}".replace("%3D", ""),
    "sig too short": "SharedAccessSignature sr=a&sig=AAAA&se=2000000000",
    "sig too long": f"SharedAccessSignature sr=a&sig={'A' * 44}&se=2000000000",
    "sig with stray bits": f"SharedAccessSignature sr=a&sig={'A' * 42}B=&se=2000000000",
    "sig in the URL alphabet": f"SharedAccessSignature sr=a&sig={'-' * 43}=&se=2000000000",
    "sig with spaces for plus": f"SharedAccessSignature sr=a&sig={'A' * 42} =&se=2000000000",
    "sig encoded twice": f"SharedAccessSignature sr=a&sig={'A' * 43}%253D&se=2000000000",
    "line feed in sr": f"SharedAccessSignature sr=a\nb&{SIG}&se=2000000000",
    "encoded line feed in sr": f"SharedAccessSignature sr=a%0Ab&{SIG}&se=2000000000",
    "bad escape in sr": f"SharedAccessSignature sr=a%2&{SIG}&se=2000000000",
    "bad UTF-8 in sr": f"SharedAccessSignature sr=%FF&{SIG}&se=2000000000",
    "NUL in sr": f"SharedAccessSignature sr=a%00&{SIG}&se=2000000000",
    "raw non-ASCII in sr": f"SharedAccessSignature sr=é&{SIG}&se=2000000000",
    "too long": f"SharedAccessSignature sr={'a' * MAX_TOKEN_LENGTH}&{SIG}&se=2000000000",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_tokens_are_refused(name: str) -> None:
    """Each is unauthenticated, and the answer does not repeat the token."""
    with pytest.raises(Problem) as caught:
        parse_token(BAD[name])
    assert caught.value.kind is Kind.UNAUTHENTICATED
    assert SIG[4:] not in caught.value.detail


def test_the_good_token_that_the_bad_ones_vary_is_good() -> None:
    """Otherwise the table above would prove nothing."""
    assert parse_token(f"SharedAccessSignature {GOOD}").is_signed_by(KEY)
    assert parse_token(f"sharedaccesssignature {GOOD}").is_signed_by(KEY)


def test_any_change_to_what_is_signed_breaks_the_signature() -> None:
    """Resource and expiry are bound; even another spelling of the same resource is another text."""
    good = f"SharedAccessSignature {GOOD}"
    for old, new in (("dev1", "dev2"), ("2000000000", "2000000001"), ("%2F", "%2f"), ("%2F", "/")):
        assert not parse_token(good.replace(old, new)).is_signed_by(KEY)


@pytest.mark.parametrize("key", ["", "=", "not base64", "AAA", KEY[:-1], KEY + "\n", " " + KEY])
def test_a_bad_key_signs_nothing(key: str) -> None:
    """A device without a key cannot be spoken for with an empty one."""
    empty = b64encode(hmac.digest(b"", b"a\n2000000000", "sha256")).decode()
    token = parse_token(f"SharedAccessSignature sr=a&sig={quote(empty, safe='')}&se=2000000000")
    assert not token.is_signed_by(key)
    for make in (lambda: build_token("a", key, 1), lambda: derive_device_key(key, "a")):
        with pytest.raises(Problem) as caught:
            make()
        assert caught.value.kind is Kind.MALFORMED


COVERS = [
    (DEVICE, DEVICE, True),
    ("hub1.azure-devices.net", DEVICE, True),
    ("hub1.azure-devices.net/devices", DEVICE, True),
    ("HUB1.Azure-Devices.NET/devices/dev1", DEVICE, True),
    ("hub1.azure-devices.net:8883/devices/dev1", DEVICE, True),
    (DEVICE, DEVICE.replace("/", ":18443/", 1), True),
    (DEVICE, f"{DEVICE}/modules/m", True),
    (f"{DEVICE}/", DEVICE, True),
    ("sb://hub1.azure-devices.net/devices/dev1", DEVICE, True),
    (DEVICE, DEVICE + "0", False),
    (DEVICE, DEVICE[:-1], False),
    (f"{DEVICE}/modules/m", DEVICE, False),
    ("hub1.azure-devices.net/devices/DEV1", DEVICE, False),
    ("hub1.azure-devices.net/Devices/dev1", DEVICE, False),
    ("hub1.azure-devices", DEVICE, False),
    ("hub2.azure-devices.net", DEVICE, False),
    ("evil/hub1.azure-devices.net/devices/dev1", DEVICE, False),
    ("/", DEVICE, False),
    ("//", DEVICE, False),
    ("sb://", DEVICE, False),
    (":443", DEVICE, False),
    ("hub1.azure-devices.net//devices/dev1", DEVICE, False),
    ("hub1.azure-devices.net/devices/x/../dev1", DEVICE, False),
    ("hub1.azure-devices.net/devices/.", DEVICE, False),
    ("hub1.azure-devices.net/devices/..", "hub1.azure-devices.net/devices/..", True),
    ("hub1.azure-devices.net/devices/a:1", "hub1.azure-devices.net/devices/a:2", False),
    (SCOPE, SCOPE, True),
    (SCOPE, SCOPE.upper(), False),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "path", "covered"), COVERS)
def test_coverage_goes_by_whole_segments(resource: str, path: str, covered: bool) -> None:
    """The host without regard to case and port, the rest to the letter."""
    assert SasToken(resource, resource, bytes(32), 0).covers(path) is covered


def test_coverage_can_ignore_case() -> None:
    """Registration ids are case-insensitive, whole segments still whole."""
    token = SasToken(SCOPE.upper(), SCOPE.upper(), bytes(32), 0)
    assert token.covers(SCOPE, ignore_case=True)
    assert not token.covers(f"{SCOPE}0", ignore_case=True)


def test_expiry_tolerates_a_bounded_skew() -> None:
    """The last second counts, and a device's clock may be a little behind."""
    token = SasToken("a", "a", bytes(32), 1_000_000)
    end = token.expires
    assert not token.is_expired(end, timedelta(0))
    assert token.is_expired(end + timedelta(seconds=1), timedelta(0))
    assert not token.is_expired(end + CLOCK_SKEW)
    assert token.is_expired(end + CLOCK_SKEW + timedelta(seconds=1))


def test_the_latest_expiry_is_a_moment() -> None:
    """Whoever asks when a session must end gets an answer for every token that parses."""
    token = parse_token(f"SharedAccessSignature sr=a&{SIG}&se=253402300799")
    assert token.expires.year == 9999


def test_derived_keys_match_the_published_vector() -> None:
    """Azure's documentation of symmetric key attestation (facts/dps.md 2.3)."""
    group = (
        "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="
    )
    derived = derive_device_key(group, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6")
    assert derived == "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="


@given(
    st.text()
    | st.text().map("SharedAccessSignature ".__add__)
    | st.builds(
        lambda a, b, c: f"SharedAccessSignature sr={a}&sig={b}&se={c}",
        st.text(),
        st.text(),
        st.text(),
    )
)
def test_random_text_never_raises_anything_else(text: str) -> None:
    """A token is a token or a Problem."""
    try:
        token = parse_token(text)
    except Problem:
        return
    assert not token.is_signed_by(KEY)
    token.covers(DEVICE)
    assert token.expires
