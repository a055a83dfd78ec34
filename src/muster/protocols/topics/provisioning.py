"""The topics of device provisioning.

    register   $dps/registrations/PUT/iotdps-register/?$rid={rid}
    poll       $dps/registrations/GET/iotdps-get-operationstatus/?$rid={rid}&operationId={id}
    answer     $dps/registrations/res/{status}/?$rid={rid}[&retry-after={seconds}]
    filter     $dps/registrations/res/#

Rules:

1. `$rid` is repeated in the answer to the letter; embedded clients use 1 for every request.
2. `operationId` is percent-decoded: the Python SDK encodes it, the others do not.
3. The answer has exactly this shape: SDKs take it apart by `$`, `&` and `=`, and not one of
   them would take it in another order, or with a part that lacks its `=`.
"""

from __future__ import annotations

from dataclasses import dataclass

from muster.errors import Kind, Problem
from muster.protocols.percent import decode_percent
from muster.protocols.topics.query import parse_query, request_id

ANSWER_FILTER = "$dps/registrations/res/#"
_REGISTER = "$dps/registrations/PUT/iotdps-register/"
_POLL = "$dps/registrations/GET/iotdps-get-operationstatus/"
# Ours have some 50 characters; whatever a longer one is, it is none of ours.
_MAX_OPERATION_ID_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Register:
    """A device asks to be provisioned."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Poll:
    """A device asks how its operation gets on. `operation_id` is decoded and not yet known."""

    request_id: str
    operation_id: str


def parse_request(topic: str) -> Register | Poll:
    """Return what a PUBLISH to *topic* asks for.

    Raises:
        Problem(FORBIDDEN): the topic is none that a device may publish to.
        Problem(MALFORMED): a request without `$rid` or `operationId`, or with two of them.
    """
    if topic.startswith(_REGISTER):
        return Register(request_id(parse_query(topic[len(_REGISTER) :])))
    if topic.startswith(_POLL):
        values = parse_query(topic[len(_POLL) :])
        rid = request_id(values)
        operation_id = decode_percent(values.get("operationId", ""))
        if not 0 < len(operation_id) <= _MAX_OPERATION_ID_LENGTH:
            raise Problem(
                Kind.MALFORMED,
                f"a poll needs an operationId of 1 to {_MAX_OPERATION_ID_LENGTH} characters",
            )
        return Poll(rid, operation_id)
    raise Problem(Kind.FORBIDDEN, "provisioning has no such topic to publish to")


def answer_topic(status: int, request_id: str, retry_after: int | None = None) -> str:
    """Return the topic of an answer; *retry_after* is in whole seconds."""
    topic = f"$dps/registrations/res/{status}/?$rid={request_id}"
    return topic if retry_after is None else f"{topic}&retry-after={retry_after}"
