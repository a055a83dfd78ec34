"""`muster hub monitor-events`."""

from __future__ import annotations

import json

import pytest

from muster.cli import hub

LINE = {
    "partition": 1,
    "sequenceNumber": 4,
    "offset": "400",
    "enqueuedTime": "2026-11-23T12:00:00.000000Z",
    "properties": {"alert": "\x1b[31m[bold]yes"},
    "annotations": {"iothub-connection-device-id": "sensor-1"},
    "body": '{"t": 21}',
    "bodyEncoding": "utf-8",
}
TEXT = (
    "HostName=localhost:8443;SharedAccessKeyName=service;SharedAccessKey=a2V5a2V5a2V5a2V5a2V5a2V5"
)


def stream(*numbers: int) -> bytes:
    """Return events of those sequence numbers, as the service writes them."""
    return b"".join(json.dumps({**LINE, "sequenceNumber": n}).encode() + b"\n" for n in numbers)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    """Resume at once."""
    monkeypatch.setattr(hub.time, "sleep", lambda _: None)


def test_events_are_shown_and_cannot_colour_the_screen(muster, server):
    """Where, who, what and how; what a device sent is text."""
    server.events = stream(4)
    muster("quickstart")
    status, out, err = muster("hub", "monitor-events", "--count", "1")
    assert (status, err) == (0, "")
    assert '1/4 sensor-1 {"t": 21} alert= [31m[bold]yes' in out
    assert "\x1b" not in out


def test_json_is_one_document_a_line(muster, server):
    """As the hub stored it, for a program to read."""
    server.events = stream(4, 5)
    status, out, _ = muster(
        "hub", "monitor-events", "--connection-string", TEXT, "--count", "2", "--json",
        "--from", "earliest", "--partition", "1", "--consumer-group", "billing",
    )  # fmt: skip
    assert status == 0
    assert [json.loads(line)["sequenceNumber"] for line in out.splitlines()] == [4, 5]
    query = dict(server.requests[-1].url.params)
    assert (query["from"], query["partition"], query["consumerGroup"]) == (
        "earliest",
        "1",
        "billing",
    )
    assert "waitSeconds" not in query


def test_a_reading_that_ends_is_resumed_without_repeating(muster, server):
    """The service ends a stream with its token; the watcher does not notice."""
    server.events = stream(4, 5)
    calls = iter([stream(4, 5), stream(5, 6)])
    original = server.hub

    def hub_path(path: str):
        server.events = next(calls) if path == "/messages/events" else b""
        return original(path)

    server.hub = hub_path
    status, out, _ = muster(
        "hub", "monitor-events", "--connection-string", TEXT, "--count", "3", "--json"
    )
    assert status == 0
    assert [json.loads(line)["sequenceNumber"] for line in out.splitlines()] == [4, 5, 6]


def test_too_few_events_in_time_is_exit_1(muster, server):
    """A script can tell whether what it waited for came."""
    server.events = stream(4)
    arguments = ("hub", "monitor-events", "--connection-string", TEXT, "--timeout", "0")
    assert muster(*arguments)[0] == 0
    status, _, err = muster(*arguments, "--count", "2")
    assert (status, err) == (1, "muster: 1 of 2 events came\n")


def test_hub_and_connection_string_exclude_each_other(muster, server):
    """And a broken connection string is not shown."""
    status, _, err = muster("hub", "monitor-events", "--hub", "h", "--connection-string", TEXT)
    assert status == 2
    assert "a2V5" not in err
    status, _, err = muster("hub", "monitor-events", "--connection-string", "a2V5")
    assert status == 2
    assert "a2V5" not in err
