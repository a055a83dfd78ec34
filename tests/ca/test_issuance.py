"""Crashes, repetitions and races: no certificate exists unknown."""

from __future__ import annotations

import asyncio

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import update

from muster.errors import Kind, Problem
from muster.model.authority import Hashing, KeyType
from muster.store.certificates import certificates


class Crash(BaseException):
    """The process ends here; no handler of ours sees it coming."""


class CrashingLedger:
    """A ledger whose process dies before or after one of its methods."""

    def __init__(self, inner, method: str, when: str) -> None:
        self._inner, self._method, self._when = inner, method, when

    def __getattr__(self, name):
        real = getattr(self._inner, name)
        if name != self._method:
            return real

        async def crashing(*args, **kwargs):
            if self._when == "before":
                raise Crash
            await real(*args, **kwargs)
            raise Crash

        return crashing


class CrashingSigner:
    """A keystore whose process dies before or after it signs, and which keeps what it signed."""

    def __init__(self, inner, when: str) -> None:
        self._inner, self._when = inner, when
        self.signed: list[bytes] = []

    async def sign(self, key_id, data, hashing):
        """Sign, and die."""
        if self._when == "before":
            raise Crash
        self.signed.append(await self._inner.sign(key_id, data, hashing))
        raise Crash


CRASHES = [
    ("record_intended", "before", 0),
    ("record_intended", "after", 1),
    ("sign", "before", 1),
    ("sign", "after", 1),
    ("store_issued", "before", 1),
    ("store_issued", "after", 1),
]


@pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: f"{crash[1]} {crash[0]}")
@pytest.mark.parametrize("key_type", [KeyType.ECDSA_P256, KeyType.RSA_2048])
async def test_crash_at_any_step_leaves_nothing_unknown(world, csr, key_type, crash) -> None:
    """Whatever was signed has a row by its serial, and the same request again finishes it."""
    step, when, rows = crash
    made = await world.hierarchy(key_type=key_type)
    await world.register(made, "dev-1")
    text = csr("dev-1")
    signer, ledger = world.signer, world.ledger
    if step == "sign":
        world.signer = CrashingSigner(signer, when)
    else:
        world.ledger = CrashingLedger(ledger, step, when)
    with pytest.raises(Crash):
        await world.request(made, text)
    left = world.certificate_rows("dev-1")
    assert len(left) == rows

    signed = getattr(world.signer, "signed", [])
    world.signer, world.ledger = signer, ledger
    certificate = await world.request(made, text)
    after = world.certificate_rows("dev-1")
    assert [row.status for row in after] == ["issued"]
    assert after[0].der == certificate.public_bytes(Encoding.DER)
    assert certificate.serial_number == int.from_bytes(after[0].serial, "big")
    if left:
        assert certificate.tbs_certificate_bytes == left[0].to_be_signed
    # Signing again after the crash makes the same certificate again, byte for byte.
    assert all(signature == certificate.signature for signature in signed)


async def test_same_request_again_gets_the_same_certificate(world, plant, csr) -> None:
    """A client that repeats a POST whose answer was lost does not get a second certificate."""
    text = csr("dev-1")
    first = await world.request(plant, text)
    world.clock.advance(minutes=9)
    assert await world.request(plant, text) == first
    assert len(world.certificate_rows("dev-1")) == 1


async def test_the_same_csr_later_is_a_renewal(world, plant, csr) -> None:
    """Terraform renews with the CSR it has: after the window that is a new request."""
    text = csr("dev-1")
    first = await world.request(plant, text)
    world.clock.advance(minutes=11)
    second = await world.request(plant, text)
    assert second.serial_number != first.serial_number
    assert second.not_valid_after_utc > first.not_valid_after_utc


async def test_other_wishes_or_another_caller_are_another_request(
    world, plant, csr, principals
) -> None:
    """Only what is wholly the same is a repetition."""
    made = await world.hierarchy("Other")
    for where in (plant, made):
        await world.register(
            where, "shared", requesters=tuple(map(_party, (principals.agent, principals.stranger)))
        )
    text = csr("shared")
    serials = {
        (await world.request(plant, text)).serial_number,
        (await world.request(plant, text, days=11)).serial_number,
        (await world.request(plant, text, by=principals.stranger)).serial_number,
        (await world.request(made, text)).serial_number,
    }
    assert len(serials) == 4


async def test_parallel_repetitions_get_one_certificate(world, plant, csr) -> None:
    """Twenty at once: one record, one certificate, the same answer for all."""
    text = csr("dev-1")
    answers = await asyncio.gather(*(world.request(plant, text) for _ in range(20)))
    assert len(set(answers)) == 1
    assert len(world.certificate_rows("dev-1")) == 1


async def test_revoked_repetition_is_issued_anew(world, plant, csr) -> None:
    """A certificate that was revoked within the window is not handed out again."""
    text = csr("dev-1")
    first = await world.request(plant, text)
    with world.database.engine.begin() as connection:
        connection.execute(update(certificates).values(status="revoked", revoked=world.clock.now()))
    assert (await world.request(plant, text)).serial_number != first.serial_number


async def test_revoked_between_record_and_store_is_not_handed_out(world, plant, csr) -> None:
    """Whoever revokes what may exist wins over the signature that comes after."""
    signer = world.signer

    class RevokingSigner:
        async def sign(self, key_id, data, hashing):
            with world.database.engine.begin() as connection:
                connection.execute(
                    update(certificates)
                    .where(certificates.c.common_name == "dev-1")
                    .values(status="revoked", revoked=world.clock.now())
                )
            return await signer.sign(key_id, data, hashing)

    world.signer = RevokingSigner()
    with pytest.raises(Problem) as caught:
        await world.request(plant, csr("dev-1"))
    assert caught.value.kind is Kind.FORBIDDEN
    assert [row.status for row in world.certificate_rows("dev-1")] == ["revoked"]


@pytest.mark.parametrize("answer", [("it looks odd",), RuntimeError("the linter broke")])
async def test_linter_fails_closed(world, plant, csr, answer) -> None:
    """A finding refuses; a linter that raises issues nothing either, and no row is left."""

    def lint(draft, issuer):
        if isinstance(answer, Exception):
            raise answer
        return answer

    world.lint = lint
    with pytest.raises((Problem, RuntimeError)):
        await world.request(plant, csr("dev-1"))
    assert world.certificate_rows("dev-1") == []


@pytest.mark.parametrize("fault", ["other key", "garbage", "empty"])
async def test_wrong_signature_is_never_handed_out(world, plant, csr, fault) -> None:
    """A keystore that signs with another key, or not at all, is caught by the comparison."""

    class WrongSigner:
        async def sign(self, key_id, data, hashing):
            if fault == "other key":
                from cryptography.hazmat.primitives import hashes

                return ec.generate_private_key(ec.SECP256R1()).sign(data, ec.ECDSA(hashes.SHA256()))
            return b"" if fault == "empty" else bytes(70)

    world.signer = WrongSigner()
    with pytest.raises(ValueError, match="signature"):
        await world.request(plant, csr("dev-1"))
    assert [row.der for row in world.certificate_rows("dev-1")] == [None]


async def test_absent_key_is_unavailable_and_recovers(
    world, plant, csr, tmp_path, keystore
) -> None:
    """Nothing is signed with another key, and once the key is back the request goes through."""
    keystore._keys.clear()
    path = tmp_path / "keys" / f"{plant.issuing.key_id}.pem"
    away = path.rename(path.with_suffix(".away"))
    text = csr("dev-1")
    with pytest.raises(Problem) as caught:
        await world.request(plant, text)
    assert caught.value.kind is Kind.UNAVAILABLE
    away.rename(path)
    assert await world.request(plant, text)
    assert len(world.certificate_rows("dev-1")) == 1


async def test_serial_used_before_is_refused(world, plant, csr) -> None:
    """Should the random numbers ever repeat, the database says so before anything is signed."""
    from muster.ca.issuance import Issuance
    from muster.ca.requests import CertificateRequests

    def requests(serial: int) -> CertificateRequests:
        return CertificateRequests(
            authorities=world.authorities, domains=world.domain_store, ledger=world.ledger,
            issuance=Issuance(world.ledger, world.signer, world.clock, new_serial=lambda: serial),
            clock=world.clock, locations=world.locations,
        )  # fmt: skip

    agent = next(line[0] for line in world.audit_lines() if line[1] == "domain.register")
    from muster.model.principal import Principal, PrincipalKind

    caller = Principal(plant.issuing.tenant_id, agent, PrincipalKind.APPLICATION, "agent")
    serial = x509.random_serial_number() | 1 << 150
    await requests(serial).request(caller, world.asked(plant, csr("dev-1")))
    with pytest.raises(Problem) as caught:
        await requests(serial).request(caller, world.asked(plant, csr("dev-1")))
    assert caught.value.kind is Kind.CONFLICT


async def test_serials_are_long_and_random(world, plant, csr) -> None:
    """Two hundred in a row: all different, all positive, with the bits of random ones."""
    serials = [world.issuance._new_serial() for _ in range(200)]
    assert len(set(serials)) == 200
    assert all(0 < serial < 2**159 for serial in serials)
    assert max(serial.bit_length() for serial in serials) >= 150


async def test_every_step_is_audited(world, plant, csr, principals) -> None:
    """Registration, signing and issue name the caller; so does a refusal."""
    await world.request(plant, csr("dev-1"))
    with pytest.raises(Problem):
        await world.request(plant, csr("dev-1"), by=principals.stranger)
    agent, stranger = principals.agent.object_id, principals.stranger.object_id
    assert world.audit_lines()[-4:] == [
        (agent, "domain.register", "ok"),
        (agent, "certificate.sign", "ok"),
        (agent, "certificate.issue", "ok"),
        (stranger, "certificate.request", "forbidden"),
    ]


async def test_hashing_of_the_ca_is_used(world, csr) -> None:
    """A SHA-384 CA signs leaves with SHA-384."""
    made = await world.hierarchy(key_type=KeyType.ECDSA_P384, hashing=Hashing.SHA384)
    await world.register(made, "dev-1")
    certificate = await world.request(made, csr("dev-1"))
    assert certificate.signature_hash_algorithm.name == "sha384"


def _party(principal):
    from muster.model.domain import Party

    return Party(principal.object_id)
