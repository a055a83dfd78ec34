"""The official device SDK (azure-iot-device), with a limit on every wait and one-line errors.

The SDK is an extra (`pip install 'muster-iot[device]'`), so it is imported on first use. Its MQTT
port is 8883, always.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from muster.client.errors import ServiceError
from muster.errors import Kind, Problem

T = TypeVar("T")

MQTT_PORT = 8883

# Provisioning polls every few seconds while the service works; ten minutes would be a fault,
# two are patience enough for a person who watches.
_REGISTER_SECONDS = 120.0
# One message, or one connection: TLS and a durable acknowledgement.
_ACTION_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """Where a device's key and certificate chain lie, as the SDK wants them."""

    key: Path
    chain: Path


@dataclass(frozen=True, slots=True)
class Assignment:
    """What provisioning decided."""

    status: str
    hub: str
    device_id: str


@dataclass(frozen=True, slots=True)
class Telemetry:
    """One message to send: its body and its application properties."""

    body: str
    properties: Mapping[str, str]


def register(
    global_endpoint: str,
    id_scope: str,
    registration_id: str,
    files: IdentityFiles,
    server_ca: Path | None,
) -> Assignment:
    """Provision over MQTT; return the assignment, whose status may be other than "assigned".

    Raises `ServiceError`: the service is not there, refuses the certificate, or does not decide.
    """
    sdk = _load()
    client = sdk.ProvisioningDeviceClient.create_from_x509_certificate(
        provisioning_host=global_endpoint,
        registration_id=registration_id,
        id_scope=id_scope,
        x509=_x509(sdk, files),
        **_trust(server_ca),
    )
    purpose = f"provision {registration_id!r} at {global_endpoint}"
    result = _within(_REGISTER_SECONDS, purpose, client.register)
    state = getattr(result, "registration_state", None)
    return Assignment(
        str(getattr(result, "status", "unknown")),
        str(getattr(state, "assigned_hub", None) or ""),
        str(getattr(state, "device_id", None) or ""),
    )


@contextmanager
def connection(
    hub: str, device_id: str, files: IdentityFiles, server_ca: Path | None
) -> Iterator[Callable[[Telemetry], None]]:
    """Connect to *hub* over MQTT as *device_id*; yield the function that sends one message.

    It returns when the hub has acknowledged. Raises `ServiceError`.
    """
    sdk = _load()
    client = sdk.IoTHubDeviceClient.create_from_x509_certificate(
        x509=_x509(sdk, files),
        hostname=hub,
        device_id=device_id,
        # Reconnecting for ever would turn a refusal into silence.
        connection_retry=False,
        auto_connect=False,
        **_trust(server_ca),
    )

    def send(telemetry: Telemetry) -> None:
        message = sdk.Message(telemetry.body)
        message.custom_properties.update(telemetry.properties)
        _within(_ACTION_SECONDS, f"send a message to {hub}", lambda: client.send_message(message))

    try:
        _within(_ACTION_SECONDS, f"connect {device_id!r} to the hub {hub}", client.connect)
        yield send
    finally:
        # Everything sent was acknowledged: a farewell that fails loses nothing.
        with suppress(ServiceError):
            _within(_ACTION_SECONDS, f"disconnect from {hub}", client.shutdown)


def _load() -> Any:
    try:
        import azure.iot.device  # noqa: PLC0415 - an extra: most programs live without it
    except ImportError:
        raise Problem(
            Kind.UNSUPPORTED,
            "the device SDK is not installed: pip install 'muster-iot[device]'",
        ) from None
    return azure.iot.device


def _x509(sdk: Any, files: IdentityFiles) -> Any:
    return sdk.X509(cert_file=str(files.chain), key_file=str(files.key))


def _trust(server_ca: Path | None) -> dict[str, str]:
    if server_ca is None:
        return {}
    try:
        return {"server_verification_cert": server_ca.read_text(encoding="ascii")}
    except (OSError, UnicodeDecodeError):
        raise Problem(Kind.MALFORMED, f"server CA file {server_ca} cannot be read") from None


def _within(seconds: float, purpose: str, action: Callable[[], T]) -> T:
    """Run *action*, which may block for ever, for at most *seconds*; its failure in one line."""
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(action())
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
            failures.append(error)

    # A daemon: what never returns must not keep the process from ending.
    thread = threading.Thread(target=work, name="muster-device-sdk", daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise _explained(purpose, failures[0]) from failures[0]
    if not results:
        raise ServiceError(Kind.UNAVAILABLE, f"could not {purpose}: no answer in {seconds:g} s")
    return results[0]


def _explained(purpose: str, error: BaseException) -> BaseException:
    sdk = _load()
    known = sdk.exceptions
    if isinstance(error, known.CredentialError):
        return ServiceError(
            Kind.FORBIDDEN, f"could not {purpose}: the device's certificate was refused"
        )
    expected = (
        known.ClientError,
        known.ServiceError,
        known.OperationTimeout,
        known.OperationCancelled,
        OSError,
        ValueError,
    )
    if isinstance(error, expected):
        reasons = dict.fromkeys(str(cause) or type(cause).__name__ for cause in _causes(error))
        return ServiceError(Kind.UNAVAILABLE, f"could not {purpose}: {': '.join(reasons)}")
    return error


def _causes(error: BaseException) -> Iterable[BaseException]:
    # The SDK wraps a reason in up to four exceptions; cycles do not occur, depth is bounded anyway.
    current: BaseException | None = error
    for _ in range(6):
        if current is None:
            return
        yield current
        current = current.__cause__
