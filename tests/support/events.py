"""Read a hub's event stream back, as a back end would."""

from __future__ import annotations

import json
from typing import Any

from tests.support.device import client, token
from tests.support.server import MusterProcess

_HUB_SCOPE = "https://iothubs.azure.net/.default"


def read_events(
    server: MusterProcess, device_id: str, count: int, *, seconds: float = 20
) -> list[dict[str, Any]]:
    """Return the first *count* events of *device_id*, oldest first, as they become readable.

    Returns fewer when no more came within *seconds*.
    """
    found: list[dict[str, Any]] = []
    with client(server, token(server, _HUB_SCOPE)) as http:
        parameters = {"from": "earliest", "waitSeconds": str(int(seconds))}
        with http.stream(
            "GET", "/messages/events", params=parameters, timeout=seconds + 5
        ) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                if not line.strip():
                    continue
                event = json.loads(line)
                if event["annotations"]["iothub-connection-device-id"] == device_id:
                    found.append(event)
                    if len(found) == count:
                        break
    return found
