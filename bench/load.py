"""The load generator: one process, run as `python -m bench.load KIND JSON`.

It prints `ready`, waits for a line, runs, and prints one JSON line. MQTT packets are made
beforehand and acknowledgements counted by their bytes, so that the generator costs less than any
server it measures.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.processes import LOAD_CORE

_CONNACK = 4
_PUBACK = 4


def _text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def _packet(head: int, body: bytes) -> bytes:
    length, size = len(body), b""
    while True:
        length, low = divmod(length, 128)
        size += bytes([low | (0x80 if length else 0)])
        if not length:
            return bytes([head]) + size + body


def connect_packet(client_id: str, user_name: str) -> bytes:
    body = _text("MQTT") + b"\x04" + b"\x82" + (240).to_bytes(2, "big")
    return _packet(0x10, body + _text(client_id) + _text(user_name))


def publish_packet(topic: str, payload: bytes, packet_id: int) -> bytes:
    return _packet(0x32, _text(topic) + packet_id.to_bytes(2, "big") + payload)


def subscribe_packet(topic: str, packet_id: int) -> bytes:
    return _packet(0x82, packet_id.to_bytes(2, "big") + _text(topic) + b"\x01")


def tls_context(case: dict[str, Any], name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=case["server_ca"])
    context.load_cert_chain(f"{case['certificates']}/{name}.pem", case["device_key"])
    return context


class Publisher(asyncio.Protocol):
    """Keeps *window* publishes in flight on one connection."""

    def __init__(self, case: dict[str, Any], name: str, connected: asyncio.Future[None]) -> None:
        self._hello = connect_packet(name, case["user_name"].format(name=name))
        topic = case["topic"].format(name=name)
        payload = os.urandom(case["payload"] // 2).hex().encode()
        window = case["window"]
        packets = [publish_packet(topic, payload, number + 1) for number in range(window)]
        self._size = len(packets[0])
        self._ring = b"".join(packets * 2)
        self._window = window
        self._next = 0
        self._connected = connected
        self._left = 0
        self.acknowledged = 0
        self.running = True

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        if not self._connected.done():
            if data[:4] != b"\x20\x02\x00\x00":
                self._connected.set_exception(RuntimeError(f"CONNACK {data[:4].hex()}"))
                return
            self._connected.set_result(None)
            data = data[_CONNACK:]
            if not data:
                return
        count, self._left = divmod(self._left + len(data), _PUBACK)
        self.acknowledged += count
        if self.running and count:
            self.send(count)

    def send(self, count: int) -> None:
        start = self._next * self._size
        self._transport.write(self._ring[start : start + count * self._size])
        self._next = (self._next + count) % self._window

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._connected.done():
            self._connected.set_exception(exc or ConnectionError("closed before CONNACK"))
        elif self.running:
            sys.stderr.write(f"connection lost while running: {exc}\n")
            os._exit(3)

    def close(self) -> None:
        self._transport.abort()


async def _open(case: dict[str, Any], name: str) -> Publisher:
    loop = asyncio.get_running_loop()
    connected: asyncio.Future[None] = loop.create_future()
    _, publisher = await loop.create_connection(
        lambda: Publisher(case, name, connected),
        case["host"],
        case["port"],
        ssl=tls_context(case, name),
        server_hostname="localhost",
    )
    await connected
    return publisher


async def _open_all(case: dict[str, Any]) -> list[Publisher]:
    publishers: list[Publisher] = []
    names = case["names"]
    for start in range(0, len(names), 50):
        publishers += await asyncio.gather(
            *(_open(case, name) for name in names[start : start + 50])
        )
    return publishers


async def telemetry(case: dict[str, Any]) -> None:
    """Count acknowledged publishes over a stretch of time, after a warm-up."""
    publishers = await _open_all(case)
    _say("ready")
    await _wait_for_line()
    for publisher in publishers:
        publisher.send(case["window"])
    await asyncio.sleep(case["warm_up"])
    before = sum(p.acknowledged for p in publishers)
    _say("begin")
    begin = time.perf_counter()
    cpu = time.process_time()
    await asyncio.sleep(case["seconds"])
    count = sum(p.acknowledged for p in publishers) - before
    _result(count, begin, cpu)
    for publisher in publishers:
        publisher.running = False
        publisher.close()


async def idle(case: dict[str, Any]) -> None:
    """Open connections and hold them until told to go."""
    _say("ready")
    await _wait_for_line()
    publishers = await _open_all(case)
    _say("begin")
    _result(len(publishers), time.perf_counter(), time.process_time())
    await _wait_for_line()
    for publisher in publishers:
        publisher.running = False
        publisher.close()


async def connects(case: dict[str, Any]) -> None:
    """Full handshake, CONNECT, CONNACK, close; over and over, *parallel* at a time."""
    contexts = {name: tls_context(case, name) for name in case["names"]}
    names = iter(case["names"] * 1000)
    stop = time.perf_counter() + 3600
    done = 0

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < stop:
            name = next(names)
            reader, writer = await asyncio.open_connection(
                case["host"], case["port"], ssl=contexts[name], server_hostname="localhost"
            )
            writer.write(connect_packet(name, case["user_name"].format(name=name)))
            answer = await reader.readexactly(4)
            if answer[3]:
                raise RuntimeError(f"CONNACK {answer.hex()}")
            writer.transport.abort()
            done += 1

    _say("ready")
    await _wait_for_line()
    workers = [asyncio.create_task(worker()) for _ in range(case["parallel"])]
    await asyncio.sleep(case["warm_up"])
    before = done
    _say("begin")
    begin, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(case["seconds"])
    count = done - before
    _result(count, begin, cpu)
    stop = 0
    await asyncio.gather(*workers)


async def registrations(case: dict[str, Any]) -> None:
    """Handshake, CONNECT, SUBSCRIBE, register, poll until assigned; each name once."""
    contexts = {name: tls_context(case, name) for name in case["names"]}
    names = iter(case["names"])
    waits: list[float] = []

    async def worker() -> None:
        for name in names:
            started = time.perf_counter()
            await _register(case, name, contexts[name])
            waits.append(time.perf_counter() - started)

    _say("ready")
    await _wait_for_line()
    _say("begin")
    begin, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(case["parallel"])))
    _result(len(waits), begin, cpu)


async def _register(case: dict[str, Any], name: str, context: ssl.SSLContext) -> None:
    reader, writer = await asyncio.open_connection(
        case["host"], case["port"], ssl=context, server_hostname="localhost"
    )
    user = f"{case['id_scope']}/registrations/{name}/api-version=2019-03-31"
    writer.write(connect_packet(name, user))
    if (await reader.readexactly(4))[3]:
        raise RuntimeError(f"{name} was refused")
    writer.write(subscribe_packet("$dps/registrations/res/#", 1))
    await reader.readexactly(5)
    body = json.dumps({"registrationId": name}).encode()
    writer.write(publish_packet("$dps/registrations/PUT/iotdps-register/?$rid=1", body, 2))
    answer = await _publish_received(reader, writer)
    number = 3
    while answer.get("status") == "assigning":
        await asyncio.sleep(case["poll"])
        topic = (
            "$dps/registrations/GET/iotdps-get-operationstatus/"
            f"?$rid={number}&operationId={answer['operationId']}"
        )
        writer.write(publish_packet(topic, b" ", number))
        answer = await _publish_received(reader, writer)
        number += 1
    if answer.get("status") != "assigned":
        raise RuntimeError(f"{name}: {answer}")
    writer.transport.abort()


async def _publish_received(reader: asyncio.StreamReader, writer: Any) -> dict[str, Any]:
    while True:
        head = (await reader.readexactly(1))[0]
        length = shift = 0
        while True:
            byte = (await reader.readexactly(1))[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        body = await reader.readexactly(length)
        if head >> 4 != 3:
            continue
        start = 2 + int.from_bytes(body[:2], "big")
        if head & 6:
            writer.write(b"\x40\x02" + body[start : start + 2])
            start += 2
        answer: dict[str, Any] = json.loads(body[start:])
        return answer


async def issuance(case: dict[str, Any]) -> None:
    """POST prepared bodies over keep-alive connections, each once."""
    context = ssl.create_default_context(cafile=case["server_ca"]) if case["server_ca"] else None
    bodies = Path(case["bodies"]).read_bytes().split(b"\n")
    head = "\r\n".join(
        [f"POST {case['path']} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
        + [f"{key}: {value}" for key, value in case["headers"].items()]
    )
    queue = iter(bodies)
    done = 0

    async def worker() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection(
            case["host"],
            case["port"],
            ssl=context,
            server_hostname="localhost" if context else None,
        )
        for body in queue:
            writer.write(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            header = await reader.readuntil(b"\r\n\r\n")
            answer = await _body(header, reader)
            if b" 200 " not in header[:16] or case["expect"].encode() not in answer:
                raise RuntimeError((header + answer)[:500])
            done += 1
        writer.transport.abort()

    _say("ready")
    await _wait_for_line()
    _say("begin")
    begin, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(case["parallel"])))
    _result(done, begin, cpu)


async def _body(header: bytes, reader: asyncio.StreamReader) -> bytes:
    for line in header.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(int(line[15:]))
    parts = b""
    while size := int(await reader.readline(), 16):
        parts += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return parts


def _say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def _result(count: int, begin: float, cpu: float) -> None:
    wall = time.perf_counter() - begin
    _say(json.dumps({"count": count, "seconds": wall, "cpu": time.process_time() - cpu}))


async def _wait_for_line() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


KINDS = {
    "telemetry": telemetry,
    "idle": idle,
    "connects": connects,
    "registrations": registrations,
    "issuance": issuance,
}


def main() -> None:
    os.sched_setaffinity(0, {LOAD_CORE})
    case = json.loads(sys.argv[2])
    case["names"] = [case["name"].format(number) for number in range(case.get("count", 0))]
    uvloop.run(KINDS[sys.argv[1]](case))


if __name__ == "__main__":
    main()
