"""From a PUBLISH to a durable event, and only then to its PUBACK."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.support.hub import ManualStream, MemoryLog, RecordingLink, a_hub

from muster.errors import Kind, Problem
from muster.hub.access import AuthMethod
from muster.hub.envelope import Sender, open_envelope
from muster.hub.telemetry import (
    MAX_MESSAGE_BYTES,
    Telemetry,
    TelemetryChannel,
    TelemetryWriter,
    partition_of,
)
from muster.model.message import Event
from muster.protocols.mqtt.events import PingAnswered, PublishReceived

SENDER = Sender("dev1", None, "generation-1", AuthMethod.DEVICE_KEY.value)
PREFIX = "devices/dev1/messages/events/"


class Channel:
    """A channel with everything around it, recorded in one list of what happened."""

    def __init__(self) -> None:
        self.stream = ManualStream()
        self.link = RecordingLink()
        self.acknowledged: list[list[int]] = []
        self.failures: list[str] = []
        self.others: list[object] = []
        self.channel = TelemetryChannel(
            TelemetryWriter(self.stream, SENDER),
            prefix=PREFIX,
            link=self.link,
            acknowledge=self._acknowledge,
            fail=self.failures.append,
        )

    def _acknowledge(self, ids: Sequence[int]) -> None:
        self.acknowledged.append(list(ids))

    def take(self, *events: object) -> None:
        """Hand events to the channel."""
        self.channel.take(events, self.others.append)  # type: ignore[arg-type]  # tests mix kinds

    def events(self) -> list[Event]:
        """Return what is durable, as readers see it."""
        stored = self.stream.stored[partition_of("dev1", 4)]
        return [open_envelope(0, one) for one in stored]


def publish(
    payload: bytes = b"x", packet_id: int = 1, *, bag: str = "", qos: int = 1,
    retain: bool = False, topic: str | None = None,
) -> PublishReceived:  # fmt: skip
    """Return a PUBLISH to the device's own topic, but for what is given."""
    return PublishReceived(topic or PREFIX + bag, payload, qos, packet_id, False, retain)


def test_nothing_is_acknowledged_before_it_is_durable() -> None:
    """A batch is one acknowledgement and one flush, when all of it is on disk."""
    at = Channel()
    at.take(publish(b"a", 5), publish(b"b", 6, bag="k=1"), publish(b"c", 7))
    assert (at.acknowledged, at.link.flushes) == ([], 0)
    assert at.events() == []
    at.stream.settle()
    assert (at.acknowledged, at.link.flushes) == ([[5, 6, 7]], 1)
    assert [event.body for event in at.events()] == [b"a", b"b", b"c"]
    assert [event.properties for event in at.events()] == [{}, {"k": "1"}, {}]


def test_acknowledgements_leave_in_order() -> None:
    """Batches that become durable together are answered in the order they came."""
    at = Channel()
    for packet_id in (3, 1, 2):
        at.take(publish(packet_id=packet_id))
    at.stream.settle()
    assert at.acknowledged == [[3], [1], [2]]


def test_qos_0_is_stored_and_not_acknowledged() -> None:
    """What is sent without wanting an answer gets none."""
    at = Channel()
    at.take(publish(b"a", 0, qos=0), publish(b"b", 9))
    at.stream.settle()
    assert at.acknowledged == [[9]]
    assert [event.body for event in at.events()] == [b"a", b"b"]


def test_what_could_not_be_stored_ends_the_connection_unacknowledged() -> None:
    """A failed batch is never acknowledged: the device will send it again."""
    at = Channel()
    at.take(publish())
    at.stream.settle(Problem(Kind.UNAVAILABLE, "the disk is full"))
    assert at.acknowledged == []
    assert at.failures == ["messages could not be stored: the disk is full"]


def test_a_stream_that_takes_nothing_ends_the_connection() -> None:
    """A refusal at once is as good as a later one."""
    at = Channel()
    at.stream.failing = Problem(Kind.UNAVAILABLE, "full")
    with pytest.raises(Problem):
        at.take(publish())
    assert at.stream.waiting == []


def test_a_closed_channel_owes_nothing() -> None:
    """What becomes durable after the connection is gone is stored, and nobody is told."""
    at = Channel()
    at.take(publish())
    at.channel.close()
    at.stream.settle()
    assert (at.acknowledged, at.link.flushes, len(at.events())) == ([], 0, 1)


def test_other_events_keep_their_place() -> None:
    """What is not telemetry is handed on, in order, and acknowledged in order too."""
    at = Channel()
    ping = PingAnswered()
    request = publish(packet_id=2, topic="$iothub/twin/GET/?$rid=1")
    at.take(publish(packet_id=1), ping, request, publish(packet_id=3))
    assert at.others == [ping, request]
    at.stream.settle()
    assert at.acknowledged == [[1, 2, 3]]


@pytest.mark.parametrize(
    "topic",
    [
        "devices/dev10/messages/events/",
        "devices/other/messages/events/",
        "devices/dev1/messages/eventsX",
        "devices/dev1/messages/devicebound/",
        "devices/dev1/modules/m/messages/events/",
        "/devices/dev1/messages/events/",
        "DEVICES/dev1/messages/events/",
        "$SYS/x",
    ],
)
def test_only_the_device_s_own_topic_is_telemetry(topic: str) -> None:
    """No other topic reaches the stream."""
    at = Channel()
    at.take(publish(topic=topic))
    assert len(at.others) == 1
    assert at.stream.appended == []


@pytest.mark.parametrize("topic", [PREFIX, PREFIX[:-1], PREFIX + "a=1", PREFIX + "a=1/"])
def test_spellings_of_the_own_topic(topic: str) -> None:
    """The last slash may be missing without a bag, and there with one."""
    at = Channel()
    at.take(publish(topic=topic))
    at.stream.settle()
    assert at.events()[0].properties == ({"a": "1"} if "=" in topic else {})


@pytest.mark.parametrize("bag", ["%", "a=%zz", "=1", "a=1&a=2", "a=1&%61=2", "a=%ff", "a=%00"])
def test_a_bad_bag_is_refused_before_it_is_stored(bag: str) -> None:
    """Consumers never meet a bag that breaks the grammar, also when it comes twice."""
    at = Channel()
    for _ in range(2):
        with pytest.raises(Problem) as caught:
            at.take(publish(bag=bag))
        assert caught.value.kind is Kind.MALFORMED
    assert at.stream.appended == []


def test_the_size_limit_counts_body_and_properties() -> None:
    """256 KiB pass, one byte more does not, whichever side it is on."""
    at = Channel()
    at.take(publish(b"x" * (MAX_MESSAGE_BYTES - 3), bag="k=1"))
    for payload, bag in ((MAX_MESSAGE_BYTES - 2, "k=1"), (MAX_MESSAGE_BYTES + 1, "")):
        with pytest.raises(Problem) as caught:
            at.take(publish(b"x" * payload, bag=bag))
        assert caught.value.kind is Kind.TOO_LARGE


def test_retain_becomes_a_property_of_that_message_alone() -> None:
    """Retained is said of the message that was, not of the next on the same topic."""
    at = Channel()
    at.take(publish(bag="k=1", retain=True), publish(bag="k=1"), publish(bag="k=1", retain=True))
    at.stream.settle()
    assert [event.properties.get("mqtt-retain") for event in at.events()] == ["true", None, "true"]


def test_a_will_is_marked() -> None:
    """The last message of a vanished device says what it is."""
    at = Channel()
    at.channel.will(PREFIX + "k=1", b"gone")
    at.stream.settle()
    assert at.events()[0].properties == {"k": "1", "iothub-MessageType": "Will"}


@pytest.mark.parametrize(("size", "count"), [(1, 512), (256 * 1024, 4)])
def test_a_flood_is_not_read_until_half_of_it_is_durable(size: int, count: int) -> None:
    """Too many messages, or too many bytes, under way pause the device; QoS 0 counts too."""
    at = Channel()
    for number in range(count):
        assert at.link.reading
        at.take(publish(b"x" * size, number % 2, qos=number % 2))
    assert not at.link.reading
    callbacks, at.stream.waiting = at.stream.waiting, []
    for number, callback in enumerate(callbacks, start=1):
        callback(None)
        assert at.link.reading == (number >= count // 2)


def test_partitions_are_stable_and_spread() -> None:
    """A device's partition never changes, and many devices use them all."""
    assert [partition_of(f"dev{n}", 4) for n in range(4)] == [3, 3, 0, 0]
    counts = [0] * 8
    for number in range(8000):
        counts[partition_of(f"device-{number}", 8)] += 1
    assert min(counts) > 850


async def test_a_hub_has_one_stream_of_its_own() -> None:
    """Devices of one hub share a stream made as the hub says."""
    log = MemoryLog()
    telemetry = Telemetry(log)
    hub = a_hub(partition_count=2)
    one, two = await telemetry.open(hub, SENDER), await telemetry.open(hub, SENDER)
    assert one.stream is two.stream is log.streams[hub.id]
    assert one.stream.partition_count == 2
