"""A blocking MQTT client on our own machine, for what no SDK would send or tell."""

from __future__ import annotations

import json
import socket
import ssl
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from muster.protocols.mqtt.client import ClientConnection
from muster.protocols.mqtt.events import (
    ConnectAnswered,
    ConnectionEnded,
    Event,
    PublishAcknowledged,
    PublishReceived,
    SubscribeAnswered,
)

E = TypeVar("E")
_SECONDS = 15.0


class RawClient:
    """One TLS connection to a server, with or without a client certificate."""

    def __init__(
        self,
        server_ca: str,
        port: int,
        *,
        chain: Path | None = None,
        key: Path | None = None,
        host: str = "localhost",
    ) -> None:
        context = ssl.create_default_context(cafile=server_ca)
        if chain is not None:
            context.load_cert_chain(chain, key)
        address = "127.0.0.1" if host == "localhost" else host
        raw = socket.create_connection((address, port), timeout=_SECONDS)
        try:
            self.socket = context.wrap_socket(raw, server_hostname=host)
        except BaseException:
            raw.close()
            raise
        self.machine = ClientConnection()
        self._events: list[Event] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def connect(self, client_id: str, user_name: str, password: bytes | None = None) -> int:
        """Send CONNECT; return the CONNACK code."""
        self.machine.connect(
            client_id, username=user_name, password=password, keep_alive=60, now=time.monotonic()
        )
        return self.wait_for(ConnectAnswered).code

    def flush(self) -> None:
        """Send what the machine has."""
        self.socket.sendall(self.machine.data_to_send())

    def wait_for(self, kind: type[E]) -> E:
        """Return the next event of *kind*; other events before it are dropped."""
        self.flush()
        deadline = time.monotonic() + _SECONDS
        while True:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, kind):
                    return event
                if isinstance(event, ConnectionEnded):
                    raise ConnectionError(event.reason)
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {kind.__name__}")
            self._receive()

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        if data:
            self.machine.receive(data, time.monotonic())
        else:
            self.machine.receive_eof(time.monotonic())
        self._events += self.machine.events()
        self.flush()

    def wait_until_closed(self) -> str:
        """Return once the server has closed this connection; says how the machine saw it."""
        return self.wait_for(ConnectionEnded).reason

    def subscribe(self, topic_filter: str, qos: int = 1) -> int:
        """Subscribe to one filter; return the granted QoS or 0x80."""
        self.machine.subscribe([(topic_filter, qos)])
        return self.wait_for(SubscribeAnswered).codes[0]

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 1 and return when it was acknowledged."""
        packet_id = self.machine.publish(topic, payload, qos=1)
        while self.wait_for(PublishAcknowledged).packet_id != packet_id:
            pass

    def request(self, topic: str, payload: bytes) -> PublishReceived:
        """Publish at QoS 1; return the next message that comes in."""
        self.machine.publish(topic, payload, qos=1)
        answer = self.wait_for(PublishReceived)
        if answer.qos:
            self.machine.acknowledge([answer.packet_id])
            self.flush()
        return answer


def register(client: RawClient, id_scope: str, registration_id: str) -> tuple[int, dict[str, Any]]:
    """Provision over an open connection; return the last status and body. Polls as told."""
    client.subscribe("$dps/registrations/res/#")
    body = json.dumps({"registrationId": registration_id}).encode()
    answer = client.request("$dps/registrations/PUT/iotdps-register/?$rid=1", body)
    rid = 1
    while True:
        status = int(answer.topic.split("/")[3])
        said = json.loads(answer.payload)
        if status != 202:
            return status, said
        retry_after = float(answer.topic.partition("retry-after=")[2])
        time.sleep(min(retry_after, 3))  # the wire's own rule: poll no sooner than told
        rid += 1
        operation = said["operationId"]
        answer = client.request(
            "$dps/registrations/GET/iotdps-get-operationstatus/"
            f"?$rid={rid}&operationId={operation}",
            b" ",
        )
