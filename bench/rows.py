"""The rows of the table: what is measured, on whom, and what `targets` asks of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from bench.muster import Muster
from bench.peers import MQTT_PEERS, Cfssl, MqttPeer
from bench.pki import Pki, make_pki
from bench.run import Load, Measured

Measure = Callable[[Path, float], tuple[float, str]]
_IDLE = 2000
# Enough that the first hundred, while caches fill, do not count for much.
_REGISTRATIONS = 1500
_CERTIFICATES = 3000


@dataclass(frozen=True)
class Row:
    """One line of the table. `subjects` maps a name to what measures it once."""

    name: str
    setting: str
    unit: str
    floor: str
    goal: str
    ours: Measure
    theirs: Callable[[], dict[str, Measure]]

    def subjects(self, *, peers: bool) -> dict[str, Measure]:
        return {"muster": self.ours, **(self.theirs() if peers else {})}


def _note(measured: Measured) -> str:
    share = measured.load_share
    return f"generator at {share:.0%} of its core" if share > 0.9 else ""


def _names(count: int) -> list[str]:
    return [f"d{number}" for number in range(count)]


def _devices(directory: Path, count: int, key: str = "p256") -> Pki:
    pki = make_pki(directory / "pki", device_key=key)
    for name in _names(count):
        pki.device(name)
    return pki


def _case(subject: Any, pki: Pki, count: int, **more: Any) -> dict[str, Any]:
    return {
        "host": "localhost",
        "port": subject.port,
        "server_ca": str(subject.server_ca),
        "certificates": str(pki.directory),
        "device_key": str(pki.file("device-key.pem")),
        "name": "d{}",
        "count": count,
        "topic": subject.topic,
        "user_name": subject.user_name,
        "payload": 200,
        **more,
    }


def _mqtt(
    kind: str, count: int, figure: Callable[[Measured, Any], float], **settings: Any
) -> Callable[[type[Any]], Measure]:
    """Return what measures *kind* of load on a class of server."""

    def on(server_class: type[Any]) -> Measure:
        def measure(directory: Path, seconds: float) -> tuple[float, str]:
            pki = _devices(directory, count)
            subject = server_class(pki, directory / "server")
            try:
                subject.prepare(_names(count))
                case = _case(subject, pki, count, warm_up=1.0, seconds=seconds, **settings)
                load = Load(kind, case)
                measured = load.measure(subject.server)
                load.end()
                return figure(measured, subject), _note(measured)
            finally:
                subject.stop()

        return measure

    return on


def _idle(server_class: type[Any]) -> Measure:
    def measure(directory: Path, _seconds: float) -> tuple[float, str]:
        pki = _devices(directory, _IDLE)
        subject = server_class(pki, directory / "server")
        try:
            subject.prepare(_names(_IDLE))
            load = Load("idle", _case(subject, pki, _IDLE, window=1))
            before = subject.server.resident_bytes()
            load.measure(subject.server)
            after = subject.server.resident_bytes()
            load.go()
            load.end()
            return (after - before) / _IDLE / 1024, ""
        finally:
            subject.stop()

    return measure


def _registrations(device_key: str) -> Measure:
    def measure(directory: Path, _seconds: float) -> tuple[float, str]:
        pki = _devices(directory, _REGISTRATIONS, device_key)
        subject = Muster(pki, directory / "server")
        try:
            scope = subject.prepare_provisioning()
            case = _case(subject, pki, _REGISTRATIONS, id_scope=scope, parallel=32, poll=0.2)
            load = Load("registrations", case)
            measured = load.measure(subject.server)
            load.end()
            return measured.per_core, _note(measured)
        finally:
            subject.stop()

    return measure


def _requests(names: list[str]) -> list[str]:
    key = ec.generate_private_key(ec.SECP256R1())
    return [
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
        for name in names
    ]


def _issue_muster(key_type: str) -> Measure:
    def measure(directory: Path, _seconds: float) -> tuple[float, str]:
        subject = Muster(make_pki(directory / "pki"), directory / "server")
        try:
            entry, token = subject.prepare_authority(key_type)
            ids = {"CAID": entry["CAID"], "TemplateID": entry["TemplateID"]}
            me = {"ObjectId": subject.ready["admin"]["object_id"], "ObjectType": "User"}
            names = _names(_CERTIFICATES)
            register = [
                ids | {"Domain": name, "Owners": [me], "Requesters": [me]} for name in names
            ]
            request = [
                ids
                | {"SubjectName": f"CN={name}", "SubjectAltNames": [name], "CSR": csr}
                | {"ValidityInDays": 10}
                for name, csr in zip(names, _requests(names), strict=True)
            ]
            common = {
                "host": "localhost",
                "port": subject.https_port,
                "server_ca": str(subject.server_ca),
                "headers": {"Authorization": f"Bearer {token}"},
                "parallel": 32,
            }
            _post(
                directory,
                subject,
                common,
                "/api/CA/RegisterNewDomain",
                bodies=register,
                expect="true",
            )
            measured = _post(
                directory,
                subject,
                common,
                "/api/CA/RequestSSLCertificate",
                bodies=request,
                expect="BEGIN CERT",
            )
            return measured.per_core, _note(measured)
        finally:
            subject.stop()

    return measure


def _issue_cfssl(key_type: str) -> Measure:
    def measure(directory: Path, _seconds: float) -> tuple[float, str]:
        ca, ca_key = _issuing_ca(directory, key_type)
        subject = Cfssl(ca, ca_key, directory / "server")
        try:
            names = _names(_CERTIFICATES)
            bodies = [{"certificate_request": csr, "hosts": [""]} for csr in _requests(names)]
            common = {
                "host": "127.0.0.1",
                "port": subject.port,
                "server_ca": "",
                "headers": {},
                "parallel": 32,
            }
            measured = _post(
                directory,
                subject,
                common,
                "/api/v1/cfssl/sign",
                bodies=bodies,
                expect='"success":true',
            )
            return measured.per_core, _note(measured)
        finally:
            subject.stop()

    return measure


def _post(
    directory: Path,
    subject: Any,
    common: dict[str, Any],
    path: str,
    *,
    bodies: list[dict[str, Any]],
    expect: str,
) -> Measured:
    file = directory / "bodies"
    file.write_bytes(b"\n".join(json.dumps(body).encode() for body in bodies))
    load = Load("issuance", common | {"path": path, "bodies": str(file), "expect": expect})
    measured = load.measure(subject.server)
    load.end()
    return measured


def _issuing_ca(directory: Path, key_type: str) -> tuple[Path, Path]:
    if key_type == "ECDSA P-256":
        pki = make_pki(directory / "ca")
        return pki.file("ca.pem"), pki.file("ca-key.pem")
    key = rsa.generate_private_key(65537, 4096)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench CA")])
    pki = make_pki(directory / "ca")
    ca = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(pki.ca.not_valid_before_utc)
        .not_valid_after(pki.ca.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = directory / "ca" / "rsa.pem", directory / "ca" / "rsa-key.pem"
    certificate.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return certificate, private


def _start(directory: Path, _seconds: float) -> tuple[float, str]:
    subject = Muster(make_pki(directory / "pki"), directory / "server")
    try:
        return subject.start_seconds, ""
    finally:
        subject.stop()


def _peers(on: Callable[[type[Any]], Measure]) -> Callable[[], dict[str, Measure]]:
    def theirs() -> dict[str, Measure]:
        return {peer.name: _present(peer, on(peer)) for peer in MQTT_PEERS}

    return theirs


def _present(peer: type[MqttPeer | Cfssl], measure: Measure) -> Measure:
    def checked(directory: Path, seconds: float) -> tuple[float, str]:
        missing = peer.missing()
        if missing:
            raise RuntimeError(f"not installed: {missing}")
        return measure(directory, seconds)

    return checked


def _per_core(measured: Measured, _: Any) -> float:
    return measured.per_core


_pipelined = _mqtt("telemetry", 100, _per_core, window=16)
_lockstep = _mqtt("telemetry", 1000, _per_core, window=1)
_connects = _mqtt("connects", 200, _per_core, parallel=16)

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row(
            "telemetry-16",
            "QoS 1 over TLS, 200 B, 100 connections, window 16; Muster durable before PUBACK",
            "messages/core-s",
            "1.2 x mosquitto",
            "2.5 x mosquitto",
            _pipelined(Muster),
            _peers(_pipelined),
        ),
        Row(
            "telemetry-1",
            "the same, 1,000 connections, window 1",
            "messages/core-s",
            "0.5 x mosquitto",
            "1.0 x mosquitto",
            _lockstep(Muster),
            _peers(_lockstep),
        ),
        Row(
            "connects",
            "full mutual TLS (P-256) and CONNECT; Muster authorises against its registry",
            "connects/core-s",
            "1.2 x mosquitto",
            "1.6 x mosquitto",
            _connects(Muster),
            _peers(_connects),
        ),
        Row(
            "registrations-p256",
            "TLS, attestation, hub identity durable, assigned; P-256 device",
            "registrations/core-s",
            "450",
            "800",
            _registrations("p256"),
            dict,
        ),
        Row(
            "registrations-rsa4096",
            "the same, RSA-4096 device",
            "registrations/core-s",
            "400",
            "650",
            _registrations("rsa4096"),
            dict,
        ),
        Row(
            "issuance-p256",
            "HTTPS keep-alive, durable, audited, linted; cfssl: plain HTTP, no policy, no audit",
            "certificates/core-s",
            "0.5 x cfssl",
            "1.2 x cfssl",
            _issue_muster("ECDSA P-256"),
            lambda: {"cfssl": _present(Cfssl, _issue_cfssl("ECDSA P-256"))},
        ),
        Row(
            "issuance-rsa4096",
            "the same, RSA-4096 CA",
            "certificates/core-s",
            "2.5 x cfssl",
            "3.3 x cfssl",
            _issue_muster("RSA 4096"),
            lambda: {"cfssl": _present(Cfssl, _issue_cfssl("RSA 4096"))},
        ),
        Row(
            "idle-memory",
            f"resident memory per idle TLS device, {_IDLE:,} connections",
            "KiB/connection",
            "60",
            "40",
            _idle(Muster),
            _peers(_idle),
        ),
        Row("start", "empty directory to ready", "seconds", "3", "1", _start, dict),
    )
}
