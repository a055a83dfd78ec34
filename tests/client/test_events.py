"""The event stream: lines to events, however they are cut."""

from __future__ import annotations

import base64
from urllib.parse import parse_qs, unquote

import httpx2
import msgspec
import pytest

from muster.client import events
from muster.client.errors import ServiceError
from muster.client.events import Event, EventRead
from muster.client.session import Session
from muster.client.shared_access import ConnectionString, SharedAccessKey

HUB = ConnectionString("hub.test:8443", SharedAccessKey("service", "a2V5a2V5a2V5a2V5a2V5a2V5"))


def line(number: int, partition: int = 0, **members) -> bytes:
    """Return one event as the service writes it."""
    document = {
        "partition": partition,
        "sequenceNumber": number,
        "offset": str(number * 100),
        "enqueuedTime": f"2026-11-23T12:00:0{number}.000000Z",
        "systemProperties": {},
        "properties": {"temperatureAlert": "false", "flag": None},
        "annotations": {"iothub-connection-device-id": "d", "x-opt-sequence-number": number},
        "body": f'{{"n":{number}}}',
        "bodyEncoding": "utf-8",
        **members,
    }
    return msgspec.json.encode(document) + b"\n"


def test_events_are_read_however_the_bytes_are_cut():
    """Whole, byte by byte, with heartbeats between, and with an unfinished tail."""
    data = line(0) + b"\n" + line(1, 3) + b"\n\n"
    whole = list(EventRead(HUB).receive(data + b'{"part'))
    read = EventRead(HUB)
    piecewise = [event for byte in data for event in read.receive(bytes([byte]))]
    assert whole == piecewise
    assert [(event.partition, event.sequence_number, event.device_id) for event in whole] == [
        (0, 0, "d"),
        (3, 1, "d"),
    ]
    assert whole[0].content == b'{"n":0}'


def test_bodies_come_back_byte_for_byte():
    """What is not text travels as base64."""
    body = bytes(range(256))
    text = base64.b64encode(body).decode()
    (event,) = EventRead(HUB).receive(line(0, body=text, bodyEncoding="base64"))
    assert event.content == body
    for wrong in ({"body": "!", "bodyEncoding": "base64"}, {"bodyEncoding": "rot13"}):
        (event,) = EventRead(HUB).receive(line(0, **wrong))
        with pytest.raises(ServiceError, match="a body is not"):
            _ = event.content


def test_an_event_of_no_device_has_no_device_id():
    """Not everything in a stream is telemetry."""
    (event,) = EventRead(HUB).receive(line(0, annotations={}))
    assert event.device_id == ""


@pytest.mark.parametrize("bad", [b"{}\n", b"no\n", b"\xff\n", b"[]\n"])
def test_what_is_no_event_is_reported(bad):
    """A line of something else ends the reading with an error."""
    with pytest.raises(ServiceError, match="a line is not an event"):
        EventRead(HUB).receive(bad)


def test_a_line_that_does_not_end_is_not_kept(monkeypatch):
    """A service cannot fill the memory of its reader."""
    monkeypatch.setattr(events, "_MAX_LINE", 10)
    read = EventRead(HUB)
    assert read.receive(b"x" * 10) == []
    with pytest.raises(ServiceError, match="does not end"):
        read.receive(b"x")


def test_the_request_says_what_to_read(service):
    """Group, position and limits are parameters; the token lasts a day, as the reading may."""
    read = EventRead(HUB, start="7", partition=2, max_events=5, wait_seconds=1.5)
    service.answer(text=line(7).decode())
    with Session(transport=httpx2.MockTransport(service.handle)) as session:
        assert [event.sequence_number for event in session.stream(read)] == [7]
    request = service.requests[0]
    assert request.url.path == "/messages/events"
    assert dict(request.url.params) == {
        "consumerGroup": "$Default",
        "from": "7",
        "partition": "2",
        "maxEvents": "5",
        "waitSeconds": "1.500",
    }
    token = request.headers["authorization"].partition(" ")[2]
    assert unquote(parse_qs(token)["sr"][0]) == "hub.test:8443"


def test_a_reading_goes_on_where_it_ended():
    """By time, with what was seen left out, and per partition."""
    read = EventRead(HUB, start="earliest", wait_seconds=9)
    read.receive(line(1) + line(2) + line(5, 1))
    again = read.resumed(wait_seconds=3)
    assert again.request.params["from"] == "2026-11-23T12:00:05.000000Z"
    assert again.request.params["waitSeconds"] == "3.000"
    more = again.receive(line(1) + line(2) + line(3) + line(5, 1) + line(6, 1))
    assert [(event.partition, event.sequence_number) for event in more] == [(0, 3), (1, 6)]
    assert isinstance(more[0], Event)


def test_a_reading_without_events_starts_over():
    """There is nothing to go on from."""
    assert EventRead(HUB, start="latest").resumed().request.params["from"] == "latest"
