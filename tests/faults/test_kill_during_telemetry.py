"""`kill -9` at full speed: whatever was acknowledged is in the stream, in order per device."""

from __future__ import annotations

import json
import random
import socket
import ssl
import struct
import threading
from pathlib import Path

import pytest
from tests.support.device import client, token
from tests.support.fleet import HUB, make_fleet
from tests.support.server import MusterProcess, running

pytestmark = [pytest.mark.faults, pytest.mark.slow]

KILLS = 20
DEVICES = [f"kill-{number}" for number in range(4)]
WINDOW = 64
# Rounds differ, and differ the same way every time.
CHANCE = random.Random(20261123)


class Sender(threading.Thread):
    """Publishes numbers 0, 1, 2 … as one device, WINDOW unacknowledged at most, until cut off."""

    def __init__(
        self, server: MusterProcess, name: str, files: tuple[Path, Path], begin: int
    ) -> None:
        super().__init__(name=name)
        self.sent = begin
        self.acknowledged: list[int] = []
        self.failure: BaseException | None = None
        self._device = name
        context = ssl.create_default_context(cafile=server.ca_file)
        context.load_cert_chain(*files)
        raw = socket.create_connection(("127.0.0.1", server.mqtts_port), timeout=15)
        self._socket = context.wrap_socket(raw, server_hostname="localhost")
        self._topic = f"devices/{name}/messages/events/".encode()
        self._connect()

    def _connect(self) -> None:
        client_id = self._device.encode()
        user = f"localhost/{self._device}/?api-version=2021-04-12".encode()
        body = b"\x00\x04MQTT\x04\x82\x00\x3c"
        body += struct.pack(">H", len(client_id)) + client_id + struct.pack(">H", len(user)) + user
        self._socket.sendall(bytes([0x10, len(body)]) + body)
        answer = self._socket.recv(4)
        assert answer == b"\x20\x02\x00\x00", answer.hex()

    def _packet(self, number: int) -> bytes:
        payload = str(number).encode()
        topic = struct.pack(">H", len(self._topic)) + self._topic
        body = topic + struct.pack(">H", number % 65535 + 1) + payload
        return bytes([0x32, len(body)]) + body

    def run(self) -> None:
        """Send until the connection breaks; any other failure is kept for the test."""
        waiting: list[int] = []
        rest = b""
        try:
            while True:
                burst = range(self.sent, self.sent + WINDOW - len(waiting))
                self._socket.sendall(b"".join(map(self._packet, burst)))
                waiting += burst
                self.sent = burst.stop
                data = rest + self._socket.recv(4096)
                if not data:
                    return
                count, left = divmod(len(data), 4)
                rest = data[len(data) - left :] if left else b""
                for position in range(count):
                    number = waiting.pop(0)
                    expected = b"\x40\x02" + struct.pack(">H", number % 65535 + 1)
                    assert data[4 * position : 4 * position + 4] == expected, "PUBACK out of order"
                    self.acknowledged.append(number)
        except (OSError, ssl.SSLError):
            return  # cut off, as it should be
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failure = error
        finally:
            self._socket.close()


def test_no_acknowledged_message_is_lost_over_twenty_kills(tmp_path: Path) -> None:
    """Twenty random deaths under load; then the stream is read whole and compared."""
    acknowledged: dict[str, list[int]] = {name: [] for name in DEVICES}
    begin = dict.fromkeys(DEVICES, 0)
    server = MusterProcess(tmp_path)
    server.start()
    try:
        files = make_fleet(server, tmp_path / "fleet", DEVICES)
        for _ in range(KILLS):
            senders = [Sender(server, name, files[name], begin[name]) for name in DEVICES]
            for sender in senders:
                sender.start()
            # Not a wait for something to happen: the moment of death is the test's random input.
            threading.Event().wait(CHANCE.uniform(0.02, 0.3))
            server.kill()
            for sender in senders:
                sender.join(timeout=30)
                assert sender.failure is None, sender.failure
                acknowledged[sender.name] += sender.acknowledged
                begin[sender.name] = sender.sent
            server.start()
        stored = _read_all(server)
    finally:
        server.kill()
    assert sum(map(len, acknowledged.values())) > KILLS * 100, "the load was no load"
    for name in DEVICES:
        assert stored[name] == sorted(set(stored[name])), f"{name}: out of order or repeated"
        missing = set(acknowledged[name]) - set(stored[name])
        assert not missing, f"{name}: {len(missing)} acknowledged messages are gone"


def _read_all(server: MusterProcess) -> dict[str, list[int]]:
    stored: dict[str, list[int]] = {name: [] for name in DEVICES}
    with client(server, token(server, HUB)) as http:
        parameters = {"from": "earliest", "waitSeconds": "0"}
        with http.stream("GET", "/messages/events", params=parameters, timeout=60) as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                if line.strip():
                    event = json.loads(line)
                    device = event["annotations"]["iothub-connection-device-id"]
                    stored[device].append(int(event["body"]))
    return stored


def test_a_stop_loses_nothing_either(tmp_path: Path) -> None:
    """SIGTERM: what is in flight is finished, and the exit code is 0."""
    with running(MusterProcess(tmp_path)) as server:
        files = make_fleet(server, tmp_path / "fleet", DEVICES[:1])
        sender = Sender(server, DEVICES[0], files[DEVICES[0]], 0)
        sender.start()
        threading.Event().wait(0.3)  # some load, however much
        assert server.stop() == 0
        sender.join(timeout=30)
        assert sender.failure is None
        server.start()
        stored = _read_all(server)[DEVICES[0]]
        assert set(sender.acknowledged) <= set(stored)
