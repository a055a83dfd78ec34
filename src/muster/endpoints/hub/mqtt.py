"""The hub over MQTT 3.1.1: what a device may say after its CONNECT, and what it is told.

Rules (facts/hub.md 1):

1. A device publishes to its own telemetry topic and to the `$iothub` topics of a device. Anything
   else ends the connection, with the reason in our log: MQTT 3.1.1 has no words for it.
2. A SUBSCRIBE is answered for each filter: the documented ones of this device are granted, at
   QoS 1 at most; the rest get 0x80. There are four of them, so IoT Hub's limit of five
   subscriptions is kept by itself.
3. Subscriptions outlive the connection when CleanSession is 0.
4. A will is telemetry: it is judged at CONNECT and stored when the device vanishes, but not
   when the device was refused to stay.
5. Twins and methods are not served yet: a twin request is answered 501, so that nobody waits.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import structlog

from muster.clock import Clock
from muster.endpoints.hub.wire import error_document
from muster.errors import Kind, Problem
from muster.hub.access import Attempt
from muster.hub.sessions import LiveSession, Sessions
from muster.hub.subscriptions import Subscriptions
from muster.hub.telemetry import Telemetry, TelemetryChannel, check_size
from muster.model.peer import Peer
from muster.protocols.machine import Link
from muster.protocols.mqtt.events import (
    ConnectionEnded,
    ConnectRequested,
    Event,
    PublishReceived,
    SubscribeRequested,
    UnsubscribeRequested,
    Will,
)
from muster.protocols.mqtt.server import ServerConnection
from muster.protocols.property_bag import parse_property_bag
from muster.protocols.topics.hub import (
    TWIN_ANSWERS_FILTER,
    Feed,
    MethodAnswer,
    TwinGet,
    TwinReport,
    parse_filter,
    parse_publish,
    telemetry_prefix,
    twin_answer_topic,
)
from muster.protocols.user_name import HubUserName, parse_user_name

log = structlog.get_logger(__name__)
_standard = logging.getLogger(__name__)

_REFUSED = 0x80  # MQTT-3.9.3: failure


class HubMqtt:
    """`endpoints.mqtt.wire.MqttWire` of the hub."""

    def __init__(
        self,
        sessions: Sessions,
        telemetry: Telemetry,
        subscriptions: Subscriptions,
        clock: Clock,
    ) -> None:
        self._sessions = sessions
        self._telemetry = telemetry
        self._subscriptions = subscriptions
        self._clock = clock

    async def connect(
        self, request: ConnectRequested, peer: Peer, machine: ServerConnection, link: Link
    ) -> HubMqttSession:
        """Judge a CONNECT. Raises the `Problem` that is the reason to refuse it."""
        attempt = _attempt(request, peer)
        prefix = telemetry_prefix(attempt.device_id)
        if request.will is not None:
            _check_will(request.will, prefix)
        live, admission = await self._sessions.open(attempt, link.close)
        try:
            writer = await self._telemetry.open(admission.hub, admission.sender)
        except BaseException:
            live.close()
            raise
        if live.ended:  # by a change or a newer connection, while the stream was opened
            raise Problem(Kind.UNAUTHENTICATED, live.end_reason or "the session has ended")
        key = (live.hub_id, live.device_id, live.generation_id)
        filters, present = self._subscriptions.begin(key, clean=request.clean_session)
        session = HubMqttSession(
            live,
            machine,
            link,
            self._clock,
            filters=filters,
            session_present=present,
            will=request.will,
        )
        session.channel = TelemetryChannel(
            writer,
            prefix=prefix,
            link=link,
            acknowledge=machine.acknowledge,
            fail=session.fail,
        )
        if _standard.isEnabledFor(logging.DEBUG):  # else the line costs more than it says
            log.debug(
                "device connected",
                hub=live.hub_id,
                device=live.device_id,
                address=peer.address,
                by=admission.auth_method.name.lower(),
            )
        return session


class HubMqttSession:
    """One admitted device: `endpoints.mqtt.wire.MqttWireSession`."""

    keep_alive: float | None = None  # the machine's rule is IoT Hub's: 1.5 times, at most 1,767 s
    channel: TelemetryChannel

    def __init__(
        self,
        live: LiveSession,
        machine: ServerConnection,
        link: Link,
        clock: Clock,
        *,
        filters: dict[str, int],
        session_present: bool,
        will: Will | None,
    ) -> None:
        self.session_present = session_present
        self._live = live
        self._machine = machine
        self._link = link
        self._clock = clock
        self._filters = filters
        self._will = will
        self._names = {"hub": live.hub_id, "device": live.device_id}

    def handle(self, events: Sequence[Event]) -> None:
        """Act on what the device sent. Nothing, once the session has been ended.

        Raises the `Problem` that ends the connection.
        """
        if not self._live.ended:
            self._live.touch(self._clock.now())
            self.channel.take(events, self._take_other)

    def closed(self, reason: str) -> None:
        """Take note that the connection is gone; store the will of who vanished."""
        self.channel.close()
        if self._will is not None and not self._live.is_refused:
            try:
                self.channel.will(self._will.topic, self._will.payload)
            except Problem as problem:
                log.warning("will not stored", reason=problem.detail, **self._names)
        self._will = None
        self._live.close()
        if _standard.isEnabledFor(logging.DEBUG):
            log.debug("device disconnected", reason=reason, **self._names)

    def fail(self, reason: str) -> None:
        """End the connection from outside `handle`."""
        log.info("connection ended by the hub", reason=reason, **self._names)
        self._machine.fail(reason)
        self._link.flush()

    def _take_other(self, event: Event) -> None:
        match event:
            case PublishReceived():
                self._take_request(event)
            case SubscribeRequested():
                self._machine.answer_subscribe(
                    event.packet_id, [self._subscribe(*one) for one in event.filters]
                )
            case UnsubscribeRequested():
                for name in event.filters:
                    self._filters.pop(name, None)
                self._machine.answer_unsubscribe(event.packet_id)
            case ConnectionEnded(graceful=True):
                self._will = None  # MQTT-3.1.2-10
            case _:
                pass  # PUBACKs: nothing is sent at QoS 1 yet

    def _subscribe(self, name: str, qos: int) -> int:
        try:
            wanted = parse_filter(name)
        except Problem:
            wanted = None
        if (
            wanted is None
            or wanted.feed is Feed.INPUTS
            or wanted.device_id not in {None, self._live.device_id}
        ):
            log.info("subscription refused", filter=name[:200], **self._names)
            return _REFUSED
        granted = min(qos, 1)
        self._filters[name] = granted
        return granted

    def _take_request(self, message: PublishReceived) -> None:
        match parse_publish(message.topic):
            case TwinGet(request_id) | TwinReport(request_id):
                if TWIN_ANSWERS_FILTER in self._filters:
                    problem = Problem(Kind.UNSUPPORTED, "twins are not supported yet")
                    answer = error_document(problem, self._clock.now())
                    self._machine.publish(twin_answer_topic(501, request_id), answer)
            case MethodAnswer():
                pass  # nobody asked: a late answer is nobody's fault
            case _:
                raise Problem(
                    Kind.FORBIDDEN, "the device may not publish to another one's telemetry topic"
                )


def _attempt(request: ConnectRequested, peer: Peer) -> Attempt:
    name = parse_user_name(request.username or "")
    if not isinstance(name, HubUserName):
        raise Problem(Kind.MALFORMED, "the user name is not a hub's")
    return Attempt(
        host=name.host,
        device_id=name.device_id,
        module_id=name.module_id,
        client_id=request.client_id,
        password=request.password,
        chain=peer.chain,
    )


def _check_will(will: Will, prefix: str) -> None:
    if not will.topic.startswith(prefix):
        raise Problem(Kind.FORBIDDEN, "the will is not for the device's own telemetry topic")
    if will.qos > 1:
        raise Problem(Kind.UNSUPPORTED, "the will is for QoS 2, which the hub does not have")
    bag = will.topic[len(prefix) :]
    check_size(bag, will.payload)
    parse_property_bag(bag)
