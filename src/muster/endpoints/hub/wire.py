"""What all of a hub's HTTP wires share: who is calling which hub, and how a refusal is worded.

A refusal has one of two shapes, as on IoT Hub: the registry's, whose `Message` begins with
`ErrorCode:`, and that of twins and methods, whose `Message` is a JSON text.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from muster.clock import Clock
from muster.endpoints.codes import HUB_CODE, INTERNAL_HUB_CODE
from muster.endpoints.rendering import JSON_UTF_8, encode_json, json_response
from muster.endpoints.service_door import Caller, ServiceDoor
from muster.endpoints.wire import INTERNAL, Operation, Wire
from muster.errors import Problem
from muster.ids import new_uuid
from muster.model.resource import Hub
from muster.observe.refusals import note_refusal

Call = Caller[Hub]
HUB_TYPE = "Microsoft.Devices/IotHubs"
json_answer = partial(json_response, media_type=JSON_UTF_8)


class HubWire(Wire[Call]):
    """The registry's wire, and that of all that words refusals like it."""

    name = "hub"

    def __init__(self, door: ServiceDoor[Hub]) -> None:
        self.door = door

    async def enter(self, request: Request, operation: Operation[Call]) -> Call:
        """Let in who has the operation's right by its key, or may do its action by its role."""
        assert operation.right is not None
        assert operation.action is not None
        return await self.door.enter(request, operation.right, operation.action)

    def refuse(self, request: Request, problem: Problem, tracking_id: str) -> Response:  # noqa: ARG002 - of the base class
        """Return the registry's shape of a refusal."""
        return self._worded(HUB_CODE[problem.kind], problem.detail, tracking_id)

    def fail(self, request: Request, tracking_id: str) -> Response:  # noqa: ARG002 - as above
        """Return the same shape for a bug."""
        return self._worded(INTERNAL_HUB_CODE, INTERNAL, tracking_id)

    def _worded(self, code: tuple[int, str], detail: str, tracking_id: str) -> Response:
        body = {
            "Message": f"ErrorCode:{code[1]};{detail}",
            "ExceptionMessage": f"Tracking ID:{tracking_id}",
        }
        return _error(code, body)


class TwinWire(HubWire):
    """The wire of twins and methods."""

    name = "hub twin"

    def __init__(self, door: ServiceDoor[Hub], clock: Clock) -> None:
        super().__init__(door)
        self._clock = clock

    def _worded(self, code: tuple[int, str], detail: str, tracking_id: str) -> Response:
        inner = _document(code, detail, tracking_id, self._clock.now())
        return _error(code, {"Message": inner.decode(), "ExceptionMessage": ""})


def error_document(problem: Problem, now: datetime) -> bytes:
    """Return the JSON that tells a twin's client of *problem* on MQTT; HTTP's has the same shape.

    Logs it, bounded: the tracking id is how one who complains is found.
    """
    tracking_id = new_uuid()
    note_refusal("hub twin over mqtt", problem, tracking_id=tracking_id)
    return _document(HUB_CODE[problem.kind], problem.detail, tracking_id, now)


def timestamp(moment: datetime) -> str:
    """Return *moment* (UTC) as IoT Hub's JSON spells it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _document(code: tuple[int, str], detail: str, tracking_id: str, now: datetime) -> bytes:
    return encode_json(
        {
            "errorCode": code[0],
            "trackingId": tracking_id,
            "message": detail,
            "timestampUtc": timestamp(now),
        }
    )


def _error(code: tuple[int, str], body: dict[str, str]) -> Response:
    number, name = code
    headers = {"iothub-errorcode": name}
    return json_answer(body, number // 1000, headers)
