"""`muster demo`: what it compares, and that it leaves nothing behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest

from muster.cli import demo
from muster.client.device_sdk import Telemetry
from muster.client.events import Event
from muster.errors import Kind, Problem

SENT = [Telemetry(f'{{"messageId":{n}}}', {"temperatureAlert": "false"}) for n in range(2)]


def event(number: int, **changes) -> Event:
    """Return what the hub should give back for message *number*."""
    details = {
        "partition": 0, "sequence_number": number, "offset": "0", "enqueued_time": "",
        "body": f'{{"messageId":{number}}}', "body_encoding": "utf-8",
        "properties": {"temperatureAlert": "false"}, **changes,
    }  # fmt: skip
    return Event(**details)


def test_the_same_messages_pass():
    """Bodies, properties and order."""
    demo.compare(SENT, [event(0), event(1)])


@pytest.mark.parametrize(
    "events",
    [
        [],
        [event(0)],
        [event(1), event(0)],
        [event(0), event(1), event(2)],
        [event(0), event(1, properties={})],
        [event(0), event(1, properties={"temperatureAlert": "true"})],
        [event(0), event(1, body='{"messageId":7}')],
    ],
)
def test_anything_else_fails(events):
    """The demo must not pass because something came back."""
    with pytest.raises(Problem) as caught:
        demo.compare(SENT, events)
    assert caught.value.kind is Kind.CONFLICT


def test_a_taken_port_is_said_before_anything_starts(muster, monkeypatch):
    """The SDK dials one port, so the demo cannot do without it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(demo, "MQTT_PORT", port)
        status, out, err = muster("demo")
    assert (status, out) == (2, "")
    assert f"port {port}" in err
    assert "--host" in err


@pytest.fixture
def child(monkeypatch, tmp_path, ready_document):
    """Start a program in place of the server; it is stopped at the end of the test."""
    made: list[demo._Child] = []
    original = subprocess.Popen

    def start(program: str) -> demo._Child:
        def run_program(command, **options):
            file = command[command.index("--ready-file") + 1]
            source = f"READY = {file!r}; DOCUMENT = {json.dumps(ready_document)!r}\n{program}"
            return original([sys.executable, "-c", source], **options)

        monkeypatch.setattr(demo.subprocess, "Popen", run_program)
        made.append(demo._Child(tmp_path, "127.0.0.1"))
        return made[0]

    yield start
    for one in made:
        one.stop()


READY = """
import os, signal, sys, threading
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
open(READY + ".new", "w").write(DOCUMENT)
os.rename(READY + ".new", READY)
threading.Event().wait()
"""


def test_a_server_is_found_once_it_is_ready_and_stopped_in_order(child):
    """SIGTERM first; stopping again is harmless."""
    started = child(READY)
    assert started.wait_until_ready().url == "https://localhost:8443"
    assert started.stop() == 0
    assert started.stop() == 0


def test_a_server_that_ignores_sigterm_is_killed(child, monkeypatch):
    """No demo leaves a server behind."""
    monkeypatch.setattr(demo, "_STOP_SECONDS", 0.05)
    started = child(READY.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN"))
    started.wait_until_ready()
    assert started.stop() == -signal.SIGKILL


def test_a_server_that_does_not_start_is_reported_with_its_words(child):
    """At once, not after the time-out."""
    started = child("import sys; sys.exit('muster: port 8883 is in use')")
    with pytest.raises(Problem, match=r"did not start \(exit 1\)"):
        started.wait_until_ready()
    assert started.last_words() == "; the server said: muster: port 8883 is in use"


def test_a_server_that_is_never_ready_is_given_up(child, monkeypatch):
    """The wait has an end."""
    monkeypatch.setattr(demo, "_START_SECONDS", 0.05)
    started = child("import threading; threading.Event().wait()")
    with pytest.raises(Problem, match=r"not ready in 0\.05 s"):
        started.wait_until_ready()
