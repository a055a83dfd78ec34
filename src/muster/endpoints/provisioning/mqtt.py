"""Device provisioning over MQTT 3.1.1.

Rules (facts/dps.md 1.1, 1.2):

1. Who a device is, is judged at CONNECT and again by each request; a session keeps no state
   that a later one would find, so SessionPresent is always 0, whatever CleanSession says.
2. Requests of one connection are served one after the other, in order. The PUBACK of a request
   goes out when what it asked for is stored, and right before the answer: .NET takes any other
   order for a failure, and PUBACKs must come in the order of the messages (MQTT-4.6.0-2).
3. Clients publish at QoS 0 or 1, with bodies or without; answers go out at the QoS that the
   subscription was granted, and not at all without one.
4. An error is an answer like any other: a JSON object under the request's own `$rid`. What has no
   `$rid` cannot be answered, and what is no topic of provisioning is not served: both end
   the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from math import ceil
from typing import Any

import structlog

from muster.clock import Clock
from muster.endpoints.codes import INTERNAL_PROVISIONING_CODE, PROVISIONING_CODE
from muster.endpoints.provisioning.documents import (
    begun_document,
    check_register_body,
    encode,
    error_document,
    problem_document,
    status_document,
)
from muster.endpoints.wire import INTERNAL
from muster.errors import Kind, Problem
from muster.ids import new_uuid
from muster.model.peer import Peer
from muster.observe.refusals import log_bug
from muster.protocols.machine import Link
from muster.protocols.mqtt.events import (
    ConnectRequested,
    Event,
    PublishReceived,
    SubscribeRequested,
    UnsubscribeRequested,
)
from muster.protocols.mqtt.server import ServerConnection
from muster.protocols.topics.provisioning import (
    ANSWER_FILTER,
    Poll,
    Register,
    answer_topic,
    parse_request,
)
from muster.protocols.topics.query import parse_query, request_id
from muster.protocols.user_name import ProvisioningUserName, parse_user_name
from muster.provisioning.registration import Admission, Registrar

_log = structlog.get_logger("muster.provisioning")

# A device has one request under way, or two when it lost patience with the first.
MAX_WAITING = 16
_REFUSED = 0x80  # MQTT-3.9.3: failure
_INTERNAL_STATUS = INTERNAL_PROVISIONING_CODE // 1000


class ProvisioningMqtt:
    """`endpoints.mqtt.wire.MqttWire` of provisioning."""

    def __init__(self, registrar: Registrar, clock: Clock) -> None:
        self._registrar = registrar
        self._clock = clock

    async def connect(
        self, request: ConnectRequested, peer: Peer, machine: ServerConnection, link: Link
    ) -> ProvisioningMqttSession:
        """Judge a CONNECT. Raises the `Problem` that is the reason to refuse it."""
        name = parse_user_name(request.username or "")
        if not isinstance(name, ProvisioningUserName):
            raise Problem(Kind.MALFORMED, "the user name is not provisioning's")
        if request.client_id.lower() != name.registration_id.folded:
            raise Problem(Kind.FORBIDDEN, "the client id is not the registration id")
        if request.will is not None:
            raise Problem(Kind.FORBIDDEN, "provisioning takes no will")
        if request.password:
            raise Problem(
                Kind.UNSUPPORTED,
                "a password was sent; only X.509 attestation is offered, which has none",
            )
        admission = await self._registrar.judge(name.id_scope, name.registration_id, peer)
        return ProvisioningMqttSession(self._registrar, self._clock, admission, machine, link)


class ProvisioningMqttSession:
    """One admitted device: `endpoints.mqtt.wire.MqttWireSession`."""

    session_present = False
    keep_alive: float | None = None

    def __init__(
        self,
        registrar: Registrar,
        clock: Clock,
        admission: Admission,
        machine: ServerConnection,
        link: Link,
    ) -> None:
        self._registrar = registrar
        self._clock = clock
        self._admission = admission
        self._machine = machine
        self._link = link
        self._granted: int | None = None  # the QoS of the subscription; None without one
        self._waiting: deque[PublishReceived] = deque()
        self._task: asyncio.Task[None] | None = None

    def handle(self, events: Sequence[Event]) -> None:
        """Act on what the device sent. Raises `Problem` for what ends the connection."""
        for event in events:
            match event:
                case PublishReceived():
                    self._take_request(event)
                case SubscribeRequested():
                    codes = [self._subscribe(*one) for one in event.filters]
                    self._machine.answer_subscribe(event.packet_id, codes)
                case UnsubscribeRequested():
                    if ANSWER_FILTER in event.filters:
                        self._granted = None
                    self._machine.answer_unsubscribe(event.packet_id)
                case _:
                    pass  # PUBACKs of answers, and the end, which `closed` tells as well

    def closed(self, reason: str) -> None:
        """Take note that the connection is gone; what it began goes on without it."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None
        _log.debug(
            "provisioning connection closed",
            registration_id=str(self._admission.registration_id),
            reason=reason,
        )

    def _subscribe(self, name: str, qos: int) -> int:
        if name != ANSWER_FILTER:
            return _REFUSED
        self._granted = min(qos, 1)
        return self._granted

    def _take_request(self, message: PublishReceived) -> None:
        _request_id(message.topic)  # what could not be answered is not waited for
        if len(self._waiting) >= MAX_WAITING:
            raise Problem(Kind.THROTTLED, f"{MAX_WAITING} requests wait for their answer")
        self._waiting.append(message)
        if self._task is None:
            self._task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        while self._waiting:
            message = self._waiting[0]
            topic, body = await self._answer(message)
            if not self._waiting:
                return  # closed meanwhile
            self._waiting.popleft()
            if message.qos:
                self._machine.acknowledge([message.packet_id])
            if self._granted is not None:
                self._send(topic, body)
            self._link.flush()
        self._task = None

    def _send(self, topic: str, body: bytes) -> None:
        try:
            self._machine.publish(topic, body, qos=self._granted or 0)
        except Problem as problem:
            # A client that never acknowledges what it asked for.
            self._machine.fail(problem.detail)

    async def _answer(self, message: PublishReceived) -> tuple[str, bytes]:
        """Do what *message* asks and return the topic and the body of the answer."""
        rid = _request_id(message.topic)
        try:
            status, retry_after, document = await self._do(message)
        except Problem as problem:
            status = PROVISIONING_CODE[problem.kind] // 1000
            retry_after = None if problem.retry_after is None else ceil(problem.retry_after)
            document = problem_document(problem, self._clock.now())
        except Exception:  # noqa: BLE001 - a bug costs this request, not the connection
            status, retry_after, tracking_id = _INTERNAL_STATUS, None, new_uuid()
            log_bug("a provisioning request failed", tracking_id=tracking_id)
            document = error_document(
                INTERNAL_PROVISIONING_CODE, INTERNAL, tracking_id=tracking_id, now=self._clock.now()
            )
        if status >= 429 and not retry_after:
            # Clients send these again, by their own clock unless they are told.
            retry_after = self._registrar.settings.retry_after
        return answer_topic(status, rid, retry_after), encode(document)

    async def _do(self, message: PublishReceived) -> tuple[int, int | None, dict[str, Any]]:
        """Return status, retry-after and body."""
        match parse_request(message.topic):
            case Register():
                check_register_body(message.payload, self._admission.registration_id)
                begun = await self._registrar.register(self._admission)
                return 202, self._registrar.settings.retry_after, begun_document(begun)
            case Poll(operation_id=operation_id):
                found = await self._registrar.look_up(self._admission, operation_id)
                if found.is_under_way:
                    return 202, self._registrar.settings.retry_after, status_document(found)
                return 200, None, status_document(found)


def _request_id(topic: str) -> str:
    """Return the `$rid` of a request to any topic of provisioning; raises `Problem`."""
    try:
        parse_request(topic)
    except Problem as problem:
        if problem.kind is Kind.FORBIDDEN:
            raise
    # Found even where the request is not right otherwise, so that it can be told.
    return request_id(parse_query(topic[topic.find("?") :]))
