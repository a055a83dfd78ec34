"""`muster demo`: the tutorial from an empty directory, on this machine, checked to the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from muster.cli.output import console
from muster.cli.quickstart import Names, set_up
from muster.cli.server import Server, read_ready_file
from muster.client.device_sdk import MQTT_PORT, Telemetry
from muster.client.events import Event, EventRead
from muster.client.session import Session
from muster.client.shared_access import ConnectionString
from muster.client.simulation import (
    ByProvisioning,
    Plan,
    SimulatedDevice,
    Simulator,
    choose_authority,
)
from muster.errors import Kind, Problem
from muster.ids import new_uuid

T = TypeVar("T")

# Far over the three seconds of the design's target; a slow machine deserves patience.
_START_SECONDS = 60.0
# `muster up` promises to end within 5 s of SIGTERM.
_STOP_SECONDS = 10.0
# Acknowledged messages are durable and at hand: this is for a machine under load.
_READ_SECONDS = 20.0
_LOG_LINES = 3


class Steps:
    """Prints each step with the time it took."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._out = console()

    def do(self, title: str, action: Callable[[], T], outcome: Callable[[T], str]) -> T:
        """Run *action*; print *title*, its time and what *outcome* makes of its result."""
        began = time.monotonic()
        result = action()
        took = time.monotonic() - began
        self._out.print(f"{took:7.2f} s  {title:<34} {outcome(result)}", markup=False)
        return result

    def end(self, text: str) -> None:
        """Print the total."""
        self._out.print(f"{time.monotonic() - self._began:7.2f} s  {text}", markup=False)


def demo(
    host: Annotated[
        str, typer.Option("--host", help="Loopback address to serve on, if 8883 is taken.")
    ] = "127.0.0.1",
) -> None:
    """Run the tutorial end to end in a temporary directory; exit 0 only if it all came true.

    Starts a server on loopback, makes and links a CA, a hub and a provisioning service, gives a
    simulated device a certificate, provisions it, sends five messages and reads them back from
    the hub. Everything is stopped and removed at the end.
    """
    _check_mqtt_port(host)
    # As Ctrl-C does: unwind, so that the server is stopped and the directory removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    steps = Steps()
    with tempfile.TemporaryDirectory(prefix="muster-demo-") as directory:
        child = _Child(Path(directory), host)
        try:
            server = steps.do("start the server", child.wait_until_ready, lambda made: made.url)
            with server.session() as session:
                _tell(steps, session, server)
        except Problem as problem:
            # What the server said last explains more than what its client saw.
            raise Problem(problem.kind, f"{problem.detail}{child.last_words()}") from problem
        finally:
            steps.do("stop the server", child.stop, lambda status: f"exit {status}")
    steps.end("the five messages came back, as they were sent")


def _tell(steps: Steps, session: Session, server: Server) -> None:
    made = steps.do(
        "CA, hub, provisioning, enrolment",
        lambda: set_up(session, server, Names("Demo Devices", "demo-hub", "demo-dps", "devices")),
        lambda document: f"ID scope {document['dps']['id_scope']}",
    )
    authorities = session.call(server.ezca().available_authorities())
    plan = Plan(
        ezca=server.ezca(),
        authority=choose_authority(authorities, made["ca"]["id"], None)[0],
        route=ByProvisioning(made["dps"]["global_endpoint"], made["dps"]["id_scope"]),
        server_ca=server.server_ca,
    )
    device_id = new_uuid()
    device = steps.do(
        "simulate a device",
        lambda: Simulator(session, plan, lambda said: typer.echo(f"           {said}")).run(
            device_id
        ),
        lambda simulated: f"{simulated.device_id} on {simulated.hub}",
    )
    hub = ConnectionString.parse(made["hub"]["connection_string"])
    events = steps.do(
        "read the hub's event stream",
        lambda: _read_back(session, hub, device),
        lambda found: f"{len(found)} events of the device",
    )
    compare(device.sent, events)


def _read_back(session: Session, hub: ConnectionString, device: SimulatedDevice) -> list[Event]:
    read = EventRead(hub, start="earliest", wait_seconds=_READ_SECONDS)
    found: list[Event] = []
    for event in session.stream(read):
        if event.device_id == device.device_id:
            found.append(event)
            if len(found) == len(device.sent):
                break
    return found


def compare(sent: Sequence[Telemetry], events: Sequence[Event]) -> None:
    """Raise `Problem(CONFLICT)` unless *events* are *sent*: same bodies, properties and order."""
    if len(events) != len(sent):
        raise Problem(Kind.CONFLICT, f"{len(events)} of {len(sent)} messages came back")
    for number, (telemetry, event) in enumerate(zip(sent, events, strict=True)):
        same_body = _parsed(event.content) == _parsed(telemetry.body.encode())
        if not same_body or dict(event.properties) != dict(telemetry.properties):
            raise Problem(Kind.CONFLICT, f"message {number} came back other than it was sent")


def _parsed(body: bytes) -> Any:
    return msgspec.json.decode(body)


class _Child:
    """The server as a child process. `stop` may be called at any time, and again."""

    def __init__(self, directory: Path, host: str) -> None:
        self._ready_file = directory / "ready.json"
        self._log = directory / "server.log"
        command = [
            *(sys.executable, "-m", "muster.cli.main", "up"),
            *("--data", str(directory / "data"), "--host", host),
            *("--ready-file", str(self._ready_file)),
            *("--https-port", "0", "--http-port", "0"),
            *("--mqtts-port", str(MQTT_PORT)),
        ]
        # Settings of another server in the environment are not the demo's.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def wait_until_ready(self) -> Server:
        """Return the server once it has written its ready file.

        Raises `Problem(UNAVAILABLE)` when it ends or takes too long instead.
        """
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            # Written by rename, so it is whole as soon as it is there.
            if self._ready_file.exists():
                ready = read_ready_file(self._ready_file.read_bytes(), self._ready_file)
                return Server(ready, self._ready_file.parent)
            try:
                status = self._process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            raise Problem(Kind.UNAVAILABLE, f"the server did not start (exit {status})")
        raise Problem(Kind.UNAVAILABLE, f"the server was not ready in {_START_SECONDS:g} s")

    def stop(self) -> int:
        """End the process, by SIGTERM and if need be by SIGKILL; return its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                return self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def last_words(self) -> str:
        """Return the end of what the server printed, on one line; "" when it printed nothing."""
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        said = " | ".join(line.strip() for line in lines[-_LOG_LINES:] if line.strip())
        return f"; the server said: {said}" if said else ""


def _check_mqtt_port(host: str) -> None:
    """Raise `Problem(MALFORMED)` when somebody listens on the port the device SDK insists on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, MQTT_PORT))
        except OSError as error:
            raise Problem(
                Kind.MALFORMED,
                f"port {MQTT_PORT} of {host} cannot be had ({error.strerror}) and the device SDK "
                "dials no other: stop what listens there, or give --host 127.0.0.2",
            ) from None
