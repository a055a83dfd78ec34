"""The certificates of hubs and of provisioning services: one set of operations, two dialects.

A hub's PUT may answer 201; a provisioning service's must answer 200 always, or its SDK raises
(facts/control-plane.md 1.5).
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import Response

from muster.control.certificates import CertificateManager
from muster.endpoints.control.documents import (
    certificate_document,
    certificate_request,
    values,
)
from muster.endpoints.control.wire import Call, empty_response, json_answer
from muster.endpoints.wire import Operation
from muster.model.resource import CaCertificate


@dataclass(frozen=True, slots=True)
class CertificateOperations:
    """The operations for resources of type *kind*, which stand at *path*."""

    manager: CertificateManager
    kind: str
    path: str
    created: int

    def operations(self) -> list[Operation[Call]]:
        """Return the table of operations."""
        one = f"{self.path}/certificates/{{certificate}}"
        action = f"{self.kind}/certificates"
        return [
            Operation("GET", f"{self.path}/certificates", self.list, f"{action}/read"),
            Operation("GET", one, self.get, f"{action}/read"),
            Operation("PUT", one, self.put, f"{action}/write"),
            Operation("DELETE", one, self.delete, f"{action}/delete"),
            Operation(
                "POST",
                f"{one}/generateVerificationCode",
                self.challenge,
                f"{action}/generateVerificationCode/action",
            ),
            Operation("POST", f"{one}/verify", self.verify, f"{action}/verify/action"),
        ]

    async def list(self, call: Call) -> Response:
        """List a resource's certificates."""
        entries = await self.manager.list(call.address)
        documents = [certificate_document(entry, call.address, self.kind) for entry in entries]
        return json_answer(values(documents))

    async def get(self, call: Call) -> Response:
        """Show one."""
        entry = await self.manager.get(call.address, call.parameters["certificate"])
        return self._answer(call, entry)

    async def put(self, call: Call) -> Response:
        """Upload one, verified by the uploader's word if the body says so."""
        text, verified = certificate_request(await call.json())
        entry, new = await self.manager.put(
            call.address,
            call.parameters["certificate"],
            text,
            verified=verified,
            precondition=call.precondition,
            by=call.by,
        )
        return self._answer(call, entry, self.created if new else 200)

    async def delete(self, call: Call) -> Response:
        """Forget one."""
        name = call.parameters["certificate"]
        await self.manager.delete(call.address, name, call.required_if_match, by=call.by)
        return empty_response()

    async def challenge(self, call: Call) -> Response:
        """Make a code that the certificate's key has to sign."""
        entry = await self.manager.challenge(
            call.address, call.parameters["certificate"], call.required_if_match, by=call.by
        )
        document = certificate_document(entry, call.address, self.kind, with_code=True)
        return json_answer(document)

    async def verify(self, call: Call) -> Response:
        """Take the certificate that was made with the code."""
        text, _ = certificate_request(await call.json())
        entry = await self.manager.verify(
            call.address,
            call.parameters["certificate"],
            text,
            call.required_if_match,
            by=call.by,
        )
        return self._answer(call, entry)

    def _answer(self, call: Call, entry: CaCertificate, status: int = 200) -> Response:
        return json_answer(certificate_document(entry, call.address, self.kind), status)
