"""Register devices: admit, assign, answer.

Rules:

1. Who registers is judged at CONNECT and again at each call, from stored state: an enrolment that
   was disabled or a CA that was removed meanwhile counts at once. The verdict of a connection is
   used again only while everything it was made of is unchanged and inside its validity.
2. A call returns when its operation is stored; a task of this service then has the device at its
   hub and stores the assignment. Hub first: a crash in between leaves a device that the next
   call or poll finds and brings up to date, for `ensure_device` is safe to repeat.
3. The version of the stored registration is the judge of races (`operation`): of two tasks that
   finish one assignment, one is too late, and nothing of its work is kept.
4. A device that is refused learns the kind of refusal; the log and the audit trail learn the
   reason. Refusals cost a bounded number of audit lines a minute, so that nobody fills the disk
   by being refused.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.certs.chain import load_chain
from muster.certs.identity import sha256_thumbprint
from muster.clock import Clock
from muster.errors import Kind, Problem
from muster.ids import DeviceId, ETag, RegistrationId, new_etag, new_uuid
from muster.model.audit import AuditEntry
from muster.model.device import ProvisionedDevice
from muster.model.peer import Peer
from muster.model.quiet import QuietLog
from muster.model.registration import Registration, RegistrationStatus
from muster.model.resource import LinkedHub, ProvisioningService
from muster.ports.hubs import DeviceMover, LinkedHubRegistry, ServiceDirectory
from muster.ports.registrations import RegistrationStore
from muster.provisioning import operation
from muster.provisioning.allocation import begins_anew, choose_hub, substatus_of
from muster.provisioning.attestation import (
    INVALID_CERTIFICATE,
    Attested,
    Refused,
    attest,
)
from muster.provisioning.enrollments import Enrollments, Trusted
from muster.provisioning.throttle import Bucket, Throttle

_log = structlog.get_logger("muster.provisioning")

# What the service calls a failed assignment (facts/dps.md 1.2): 400208 no hub, 400209 the link to
# the hub is not authorised. The others are the HTTP status times 1000, as all its codes are.
FAILURE_CODE: Mapping[Kind, int] = {
    Kind.MALFORMED: 400004,
    Kind.UNAUTHENTICATED: 400209,
    Kind.FORBIDDEN: 400209,
    Kind.NOT_FOUND: 400208,
    Kind.CONFLICT: 409203,
    Kind.PRECONDITION_FAILED: 412001,
    Kind.TOO_LARGE: 413001,
    Kind.UNSUPPORTED: 501001,
    Kind.THROTTLED: 429001,
    Kind.UNAVAILABLE: 503001,
}
_BUG_CODE = 500001
# Worth another try: the hub said "not now".
_PASSING = frozenset({Kind.UNAVAILABLE, Kind.THROTTLED})

# One assignment with all its retries; less than `operation.ASSIGNMENT_DEADLINE`.
ASSIGNMENT_SECONDS = 30.0
# How often a register call looks again when parallel calls of one id get in its way.
_ATTEMPTS = 8
# Audit lines for refusals: this many at once and this many a second, a service.
_REFUSALS, _REFUSALS_PER_SECOND = 60, 1.0
_KEPT_SERVICES = 1_000


@dataclass(frozen=True, slots=True)
class RegistrarSettings:
    """How patient the registrar is.

    `retry_after` is what devices are told to wait before they poll, in whole seconds: an
    assignment takes milliseconds, and 1 is the least that can be said. `retry_delays` are the
    waits, in seconds, before an assignment is tried again. `max_running` bounds assignments under
    way (each holds a task and a certificate chain, some 20 KiB). `register_burst` lets fifty
    parallel calls of one id through; afterwards one id registers once a second. `poll_burst` does
    the same for one connection, which then polls as often as it is told to.
    """

    retry_after: int = 1
    retry_delays: tuple[float, ...] = (0.2, 1.0, 3.0)
    max_running: int = 1_000
    register_burst: int = 60
    poll_burst: int = 10

    def __post_init__(self) -> None:
        """Refuse settings that contradict themselves."""
        if self.retry_after < 1 or self.max_running < 1:
            raise ValueError("retry_after and max_running are at least 1")
        if sum(self.retry_delays) >= ASSIGNMENT_SECONDS:
            raise ValueError("retry_delays take longer than an assignment may")


@dataclass(frozen=True, slots=True)
class Admission:
    """What a connection was admitted on. Made by `Registrar.judge`, good for its other calls."""

    id_scope: str
    registration_id: RegistrationId
    service: ProvisioningService
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    trusted: Trusted = field(repr=False)
    attested: Attested = field(repr=False)
    polls: Bucket = field(repr=False)


@dataclass(frozen=True, slots=True)
class OperationStatus:
    """What a device is answered: the handle it used and how the registration stands."""

    operation_id: str
    registration: Registration

    @property
    def is_under_way(self) -> bool:
        """Whether the device is to ask again."""
        return self.registration.status is RegistrationStatus.ASSIGNING


class Registrar:
    """Admits devices and has them assigned to hubs. Owns the tasks that assign."""

    def __init__(
        self,
        *,
        services: ServiceDirectory,
        enrollments: Enrollments,
        registrations: RegistrationStore,
        hubs: LinkedHubRegistry,
        mover: DeviceMover | None,
        clock: Clock,
        settings: RegistrarSettings | None = None,
    ) -> None:
        self._services = services
        self._enrollments = enrollments
        self._registrations = registrations
        self._hubs = hubs
        self._mover = mover
        self._clock = clock
        self.settings = settings or RegistrarSettings()
        # By the version of the registration that each is to finish: a task that has stored its
        # outcome and not yet ended is not taken for the one of the next assignment.
        self._running: dict[ETag, asyncio.Task[None]] = {}
        self._registers = Throttle(self.settings.register_burst, 1.0, most=10_000)
        self._quiet = QuietLog(monotonic=clock.monotonic)
        self._refusals = Throttle(_REFUSALS, _REFUSALS_PER_SECOND, most=_KEPT_SERVICES)
        self._closed = False

    async def judge(self, id_scope: str, registration_id: RegistrationId, peer: Peer) -> Admission:
        """Admit *peer* under *registration_id*, or refuse it.

        *peer* has proved possession of its leaf's key in its handshake: the caller made sure.
        Raises `Problem(NOT_FOUND)` when no service has that scope, `Problem(UNAUTHENTICATED)` with
        what a device may know of its refusal.
        """
        service = await self._service(id_scope)
        try:
            chain = load_chain(peer.chain)
        except Problem as problem:
            refused = Refused(INVALID_CERTIFICATE, problem.detail)
            raise await self._refuse(service, registration_id, refused) from None
        polls = Bucket(self.settings.poll_burst, 1 / self.settings.retry_after)
        trusted, attested = await self._attest(service, registration_id, chain)
        return Admission(id_scope, registration_id, service, chain, trusted, attested, polls)

    async def register(self, admission: Admission) -> OperationStatus:
        """Begin an assignment, or join the one under way; return when that is stored.

        Raises as `judge`, `Problem(CONFLICT)` (see `operation`), `Problem(THROTTLED)`.
        """
        if self._closed:
            raise Problem(Kind.UNAVAILABLE, "the service is stopping", retry_after=5)
        key = (admission.service.id, admission.registration_id.folded)
        _throttle(self._registers.take(key, self._clock.monotonic()))
        admission = await self._judge_again(admission)
        request = _request(admission)
        for _ in range(_ATTEMPTS):
            now = self._clock.now()
            stored = await self._registrations.get_registration(
                request.service_id, request.registration_id
            )
            shared = operation.joins(stored, request, now=now)
            if stored is not None and shared is not None:
                self._ensure_running(admission, stored)
                return OperationStatus(shared.operation_id, stored)
            if len(self._running) >= self.settings.max_running:
                raise Problem(Kind.THROTTLED, "too many registrations are under way", retry_after=2)
            begun = operation.begin(
                stored, request, operation_id=_new_operation_id(), etag=new_etag(), now=now
            )
            audit = self._audit(begun, "registration.register")
            if stored is None:
                kept = await self._registrations.insert_registration(begun, audit)
            else:
                kept = await self._registrations.replace_registration(begun, stored.etag, audit)
            if kept:
                self._ensure_running(admission, begun)
                return OperationStatus(begun.operations[-1].operation_id, begun)
        raise Problem(Kind.UNAVAILABLE, "this id is being registered elsewhere", retry_after=1)

    async def look_up(self, admission: Admission, operation_id: str) -> OperationStatus:
        """Return how the registration behind *operation_id* stands.

        A handle of another registration, one that expired and one that never was are alike:
        `Problem(NOT_FOUND)`. Raises as `judge`, and `Problem(THROTTLED)`.
        """
        _throttle(admission.polls.take(self._clock.monotonic()))
        admission = await self._judge_again(admission)
        stored = await self._registrations.get_registration(
            admission.service.id, admission.registration_id
        )
        handle = None if stored is None else stored.operation(operation_id, self._clock.now())
        if stored is None or handle is None:
            raise Problem(Kind.NOT_FOUND, "this registration has no such operation")
        # The task may have died with an earlier process, or failed to store its outcome.
        if stored.status is RegistrationStatus.ASSIGNING and _is_same(stored, admission):
            self._ensure_running(admission, stored)
        return OperationStatus(handle.operation_id, stored)

    async def settle(self) -> None:
        """Return when every assignment that is under way now has ended."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def close(self, *, patience: float = 2.0) -> None:
        """Begin nothing more, give what is under way *patience* seconds, then cut it. Idempotent.

        What was cut goes on when its device asks again.
        """
        self._closed = True
        tasks = list(self._running.values())
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=patience)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    # Judging

    async def _service(self, id_scope: str) -> ProvisioningService:
        service = await self._services.find_service(id_scope)
        if service is None:
            raise Problem(Kind.NOT_FOUND, "no provisioning service has this id scope")
        return service

    async def _judge_again(self, admission: Admission) -> Admission:
        service = await self._service(admission.id_scope)
        trusted = await self._enrollments.trusted(service)
        if (
            service.id == admission.service.id
            and trusted is admission.trusted
            and admission.attested.holds_at(self._clock.now())
        ):
            return replace(admission, service=service)
        trusted, attested = await self._attest(service, admission.registration_id, admission.chain)
        return replace(admission, service=service, trusted=trusted, attested=attested)

    async def _attest(
        self,
        service: ProvisioningService,
        registration_id: RegistrationId,
        chain: tuple[x509.Certificate, ...],
    ) -> tuple[Trusted, Attested]:
        trusted = await self._enrollments.trusted(service)
        verdict = attest(chain, registration_id, trusted.candidates, now=self._clock.now())
        if isinstance(verdict, Refused):
            raise await self._refuse(service, registration_id, verdict)
        return trusted, verdict

    async def _refuse(
        self, service: ProvisioningService, registration_id: RegistrationId, refused: Refused
    ) -> Problem:
        """Write the reason down and return what the device is told."""
        self._quiet.write(
            _log.info,
            "device refused",
            "device refused",
            service=service.address.name,
            registration_id=str(registration_id),
            enrollment=refused.group_id,
            reason=refused.reason,
        )
        if self._refusals.take(service.id, self._clock.monotonic()) == 0:
            detail = {"reason": refused.reason}
            if refused.group_id is not None:
                detail["enrollment"] = refused.group_id
            line = AuditEntry(
                at=self._clock.now(),
                actor=f"device:{registration_id}",
                action="registration.refuse",
                subject=f"{service.id}/{registration_id}",
                outcome="refused",
                detail=detail,
            )
            try:
                await self._registrations.insert_refusal(line)
            except Problem as problem:
                # A full disk must not turn "no" into "try again".
                _log.warning("refusal not stored", reason=problem.detail)
        return Problem(Kind.UNAUTHENTICATED, refused.message)

    # Assigning

    def _ensure_running(self, admission: Admission, registration: Registration) -> None:
        version = registration.etag
        if version in self._running or self._closed:
            return
        task = asyncio.create_task(self._run(admission, registration))
        # Registered by the creator: a task that registers itself can be missed by close().
        self._running[version] = task
        task.add_done_callback(lambda _: self._running.pop(version, None))

    async def _run(self, admission: Admission, registration: Registration) -> None:
        try:
            outcome = await self._outcome(admission, registration)
            action = (
                "registration.assign"
                if outcome.status is RegistrationStatus.ASSIGNED
                else "registration.fail"
            )
            audit = self._audit(outcome, action)
            if not await self._registrations.replace_registration(
                outcome, registration.etag, audit
            ):
                _log.info("assignment overtaken", registration_id=str(registration.registration_id))
        except Problem as problem:
            # Not stored: the device asks again and the task is started again.
            _log.warning(
                "assignment not stored",
                registration_id=str(registration.registration_id),
                reason=problem.detail,
            )
        except Exception:  # noqa: BLE001 - a task has nobody to raise to; it is logged as a bug
            _log.exception("assignment died", registration_id=str(registration.registration_id))

    async def _outcome(self, admission: Admission, registration: Registration) -> Registration:
        """Do the assignment; return the registration as it is to be stored."""
        try:
            async with asyncio.timeout(ASSIGNMENT_SECONDS):
                hub = await self._place_patiently(admission, registration)
        except Problem as problem:
            code, message = FAILURE_CODE[problem.kind], problem.detail
        except TimeoutError:
            code, message = FAILURE_CODE[Kind.UNAVAILABLE], "the hub took too long"
        except Exception:  # noqa: BLE001 - the device is told "internal error" and no more
            _log.exception(
                "bug in an assignment", registration_id=str(registration.registration_id)
            )
            code, message = _BUG_CODE, "internal error"
        else:
            return operation.assign(
                registration,
                hub=hub.hostname,
                device_id=_device_id(admission, registration),
                substatus=substatus_of(
                    admission.attested.group,
                    former=registration.assigned_hub,
                    chosen=hub.hostname,
                ),
                etag=new_etag(),
                now=self._clock.now(),
            )
        return operation.fail(
            registration, code=code, message=message, etag=new_etag(), now=self._clock.now()
        )

    async def _place_patiently(self, admission: Admission, registration: Registration) -> LinkedHub:
        for delay in self.settings.retry_delays:
            try:
                return await self._place(admission, registration)
            except Problem as problem:
                if problem.kind not in _PASSING:
                    raise
            await asyncio.sleep(delay)
        return await self._place(admission, registration)

    async def _place(self, admission: Admission, registration: Registration) -> LinkedHub:
        """Have the device at the hub that it belongs to now, and only there."""
        group, former = admission.attested.group, registration.assigned_hub
        hub = choose_hub(registration.registration_id, admission.service, group, current=former)
        device = ProvisionedDevice(
            device_id=_device_id(admission, registration),
            chain=tuple(one.public_bytes(Encoding.DER) for one in admission.chain),
            iot_edge=group.iot_edge,
            initial_twin=group.initial_twin,
        )
        origin = admission.service.linked_hub(former) if former is not None else None
        anew = begins_anew(group, former=former)
        if origin is not None and origin.hostname.lower() != hub.hostname.lower():
            await self._movers().move_device(origin, hub, device, keep_data=not anew)
        elif anew:
            await self._movers().reset_device(hub, device)
        else:
            await self._hubs.ensure_device(hub, device)
        return hub

    def _movers(self) -> DeviceMover:
        if self._mover is None:
            raise Problem(
                Kind.UNSUPPORTED, "this server cannot move or reset devices that it provisioned"
            )
        return self._mover

    def _audit(self, registration: Registration, action: str) -> AuditEntry:
        detail = {"enrollment": registration.group_id, "certificate": str(registration.leaf)}
        outcome = "ok"
        if registration.status is RegistrationStatus.ASSIGNED:
            detail["hub"] = str(registration.assigned_hub)
            detail["substatus"] = registration.substatus.value if registration.substatus else ""
        elif registration.status is RegistrationStatus.FAILED:
            outcome = "failed"
            detail["reason"] = f"{registration.error_code}: {registration.error_message}"
        return AuditEntry(
            at=self._clock.now(),
            actor=f"device:{registration.registration_id}",
            action=action,
            subject=f"{registration.service_id}/{registration.registration_id}",
            outcome=outcome,
            detail=detail,
        )


def _request(admission: Admission) -> operation.Request:
    return operation.Request(
        service_id=admission.service.id,
        registration_id=admission.registration_id,
        group_id=admission.attested.group.group_id,
        leaf=sha256_thumbprint(admission.chain[0].public_bytes(Encoding.DER)),
        common_name=admission.attested.common_name,
    )


def _is_same(registration: Registration, admission: Admission) -> bool:
    request = _request(admission)
    return (
        registration.leaf == request.leaf
        and registration.group_id.lower() == request.group_id.lower()
    )


def _device_id(admission: Admission, registration: Registration) -> DeviceId:
    return registration.device_id or DeviceId(admission.attested.common_name)


def _new_operation_id() -> str:
    # Letters, digits, dots and dashes look the same encoded or not (facts/dps.md 1.1). 186 random
    # bits: not to be guessed in the hour that it is good for.
    return f"4.{secrets.token_hex(8)}.{new_uuid()}"


def _throttle(wait: float) -> None:
    if wait > 0:
        raise Problem(Kind.THROTTLED, "too many requests", retry_after=max(1.0, wait))
