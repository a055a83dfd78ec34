"""Which enrolment decides about a chain, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from tests.support.hostile import STRANGERS, Chain, Count, insider
from tests.support.pki import Credential, TestAuthority
from tests.support.provisioning import a_group, der, uploaded

from muster.certs.signatures import MAX_SIGNATURE_CHECKS, Signatures
from muster.ids import RegistrationId
from muster.model.enrollment import (
    CaReferences,
    EnrollmentGroup,
    ProvisioningStatus,
    SigningCertificates,
)
from muster.model.resource import CaCertificate
from muster.provisioning import attestation
from muster.provisioning.attestation import (
    CA_NOT_FOUND,
    INVALID_CERTIFICATE,
    UNAUTHORIZED,
    Attested,
    Candidates,
    Refused,
    attest,
)

ROOT = TestAuthority("Root")
MIDDLE = ROOT.below("Middle")
ISSUING = MIDDLE.below("Issuing")
DEVICE = ISSUING.leaf("dev-1")
OTHER_ROOT = TestAuthority("Somebody Else")


def judge(
    credential: Credential,
    certificates: list[CaCertificate],
    *groups: EnrollmentGroup,
    name: str = "dev-1",
    length: int = 3,
    now: datetime | None = None,
) -> Attested | Refused:
    """Judge the first *length* certificates of *credential*."""
    return attest(
        (credential.certificate, *credential.issuers)[:length],
        RegistrationId.parse(name),
        Candidates(certificates, groups),
        now=now or datetime.now(UTC),
    )


def refer(group_id: str, *names: str, **changes: Any) -> EnrollmentGroup:
    """A group that refers to uploaded certificates."""
    return a_group(CaReferences(*names), group_id=group_id, **changes)


ALL = [uploaded("root", ROOT), uploaded("middle", MIDDLE), uploaded("issuing", ISSUING)]
OFF = ProvisioningStatus.DISABLED


def test_root_group_admits_the_whole_chain() -> None:
    """A group on the root admits a device that sends every intermediate."""
    verdict = judge(DEVICE, ALL[:1], refer("g", "root"))
    assert isinstance(verdict, Attested)
    assert verdict.group.group_id == "g"
    assert verdict.common_name == "dev-1"
    assert [one.subject for one in verdict.path.certificates] == [
        one.subject for one in (DEVICE.certificate, *DEVICE.issuers)
    ]


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_group_on_the_issuer_needs_no_more_than_the_leaf(length: int) -> None:
    """Whatever the device sends beyond the CA of the enrolment changes nothing."""
    verdict = judge(DEVICE, ALL[2:], refer("g", "issuing"), length=length)
    assert isinstance(verdict, Attested)


def test_missing_intermediate_is_refused() -> None:
    """A leaf alone does not reach a group on the root."""
    verdict = judge(DEVICE, ALL[:1], refer("g", "root"), length=1)
    assert isinstance(verdict, Refused)
    assert (verdict.message, verdict.group_id) == (CA_NOT_FOUND, None)
    assert "Issuing" in verdict.reason


def test_verified_certificates_of_the_service_fill_gaps() -> None:
    """The device may leave out an intermediate that the service has and verified."""
    assert isinstance(judge(DEVICE, ALL, refer("g", "root"), length=1), Attested)


def test_unverified_certificates_fill_no_gaps() -> None:
    """An intermediate that nobody proved is not lent to devices."""
    certificates = [ALL[0], replace(ALL[1], is_verified=False), replace(ALL[2], is_verified=False)]
    assert isinstance(judge(DEVICE, certificates, refer("g", "root"), length=1), Refused)


def test_deepest_group_decides() -> None:
    """A group on the issuing CA is found before one on the root."""
    verdict = judge(DEVICE, ALL, refer("above", "root"), refer("below", "issuing"))
    assert isinstance(verdict, Attested)
    assert verdict.group.group_id == "below"


@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("closed", ["issuing", "middle"])
def test_disabled_group_stops_the_walk(closed: str, length: int) -> None:
    """A disabled group refuses, whatever is enabled above it and whatever is sent."""
    verdict = judge(
        DEVICE, ALL, refer("off", closed, status=OFF), refer("on", "root"), length=length
    )
    assert isinstance(verdict, Refused)
    assert (verdict.message, verdict.group_id) == (UNAUTHORIZED, "off")


def test_another_certificate_of_the_same_ca_does_not_dodge_a_disabled_group() -> None:
    """A renewed certificate of a CA is still that CA (rule 2)."""
    now = datetime.now(UTC)
    renewed = (
        x509.CertificateBuilder()
        .subject_name(ISSUING.certificate.subject)
        .issuer_name(ROOT.certificate.subject)
        .public_key(ISSUING.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ROOT.key, hashes.SHA256())
    )
    dodger = replace(DEVICE, issuers=(renewed, ROOT.certificate))
    groups = (refer("off", "issuing", status=OFF), refer("on", "root"))
    assert isinstance(judge(dodger, ALL, groups[1]), Attested)
    assert isinstance(judge(dodger, ALL, *groups), Refused)


def test_deleting_the_deep_group_leaves_the_one_above() -> None:
    """Documented: a device may come in by the root's group when its CA's group is gone."""
    assert isinstance(judge(DEVICE, ALL, refer("on", "root")), Attested)


def test_unverified_reference_never_authenticates() -> None:
    """A CA whose possession was not proved admits nobody, not even by a verified CA above."""
    certificates = [ALL[0], replace(ALL[2], is_verified=False)]
    verdict = judge(DEVICE, certificates, refer("g", "issuing"), refer("on", "root"))
    assert isinstance(verdict, Refused)
    assert verdict.message == CA_NOT_FOUND
    assert "not verified" in verdict.reason


def test_dangling_reference_admits_nobody() -> None:
    """A reference to a certificate that was removed is as if it were not there."""
    verdict = judge(DEVICE, [], refer("g", "issuing"))
    assert isinstance(verdict, Refused)
    assert verdict.message == CA_NOT_FOUND


def test_secondary_counts_like_primary() -> None:
    """Both CAs of a group admit, which is what rotation lives on."""
    group = refer("g", "other", "root")
    certificates = [uploaded("other", OTHER_ROOT), ALL[0]]
    assert isinstance(judge(DEVICE, certificates, group), Attested)
    assert isinstance(judge(OTHER_ROOT.leaf("dev-1"), certificates, group), Attested)


def test_references_are_compared_without_case() -> None:
    """Names of certificates follow the resource manager's rule."""
    assert isinstance(judge(DEVICE, ALL, refer("g", "ROOT")), Attested)


# Carried certificates: docs/decisions/0010.


def carry(*certificates: x509.Certificate, **changes: Any) -> EnrollmentGroup:
    """A group that carries its signing certificates."""
    return a_group(SigningCertificates(*(der(one) for one in certificates)), **changes)


def test_carried_copy_of_a_verified_ca_admits() -> None:
    """A carried certificate that equals a verified one needs nothing else."""
    assert isinstance(judge(DEVICE, ALL[2:], carry(ISSUING.certificate)), Attested)


@pytest.mark.parametrize("length", [3, 4])
def test_carried_intermediate_below_a_verified_ca_admits(length: int) -> None:
    """A carried intermediate admits when the chain goes on to a verified CA."""
    verdict = judge(DEVICE, ALL[:1], carry(ISSUING.certificate), length=length)
    assert isinstance(verdict, Attested)
    assert verdict.path.anchor == ROOT.certificate


def test_carried_ca_without_proof_never_authenticates() -> None:
    """Writing somebody's public CA certificate into an enrolment proves nothing."""
    for certificates in (
        [],
        [uploaded("other", OTHER_ROOT)],
        [uploaded("r", ROOT, verified=False)],
    ):
        verdict = judge(DEVICE, certificates, carry(ROOT.certificate), length=4)
        assert isinstance(verdict, Refused)
        assert verdict.message == CA_NOT_FOUND
        assert "verified CA" in verdict.reason


def test_carried_ca_is_not_lent_the_trust_of_another_path() -> None:
    """A carried CA with a verified sibling below another root stays untrusted."""
    mine = TestAuthority("Issuing")  # the name of another CA, and a key of its own
    verdict = judge(mine.leaf("dev-1"), ALL, carry(mine.certificate), length=4)
    assert isinstance(verdict, Refused)
    assert verdict.message == CA_NOT_FOUND


# The leaf itself.


@pytest.mark.parametrize("name", ["dev-2", "dev", "dev-11"])
def test_other_name_is_refused(name: str) -> None:
    """The common name must be the registration id."""
    verdict = judge(DEVICE, ALL, refer("g", "root"), name=name)
    assert isinstance(verdict, Refused)
    assert verdict.message == UNAUTHORIZED
    assert "dev-1" in verdict.reason


def test_name_is_compared_without_case() -> None:
    """Registration ids are case-insensitive; the certificate's spelling is reported."""
    verdict = judge(DEVICE, ALL, refer("g", "root"), name="DEV-1")
    assert isinstance(verdict, Attested)
    assert verdict.common_name == "dev-1"


def test_no_certificate_is_refused() -> None:
    """Without evidence there is nothing to judge."""
    verdict = attest((), RegistrationId("dev-1"), Candidates(ALL, []), now=datetime.now(UTC))
    assert verdict == Refused(UNAUTHORIZED, "no client certificate was sent")


@pytest.mark.parametrize(
    ("days", "words"), [(11, "expired"), (-1, "not valid before")], ids=["after", "before"]
)
def test_leaf_outside_its_validity_is_refused(days: int, words: str) -> None:
    """The message says only that the certificate is invalid; the reason says why."""
    moment = datetime.now(UTC) + timedelta(days=days)
    verdict = judge(DEVICE, ALL, refer("g", "root"), now=moment)
    assert isinstance(verdict, Refused)
    assert verdict.message == INVALID_CERTIFICATE
    assert words in verdict.reason


def test_impostor_of_the_issuer_is_refused() -> None:
    """A CA of the same name with another key is not the enrolment's."""
    impostor = TestAuthority("Issuing").leaf("dev-1")
    verdict = judge(impostor, ALL, refer("g", "issuing"), length=2)
    assert isinstance(verdict, Refused)
    assert verdict.message == CA_NOT_FOUND


def test_self_signed_leaf_is_refused() -> None:
    """A certificate that vouches for itself reaches no group."""
    alone = TestAuthority("dev-1")
    chain = (alone.certificate,)
    candidates = Candidates(ALL, [refer("g", "root")])
    verdict = attest(chain, RegistrationId("dev-1"), candidates, now=datetime.now(UTC))
    assert isinstance(verdict, Refused)


def test_the_ca_itself_is_not_one_of_its_devices() -> None:
    """Whoever holds a self-signed CA's key issues certificates; it does not provision."""
    authority = TestAuthority("dev-1")
    candidates = Candidates([uploaded("ca", authority)], [refer("g", "ca")])
    verdict = attest(
        (authority.certificate,), RegistrationId("dev-1"), candidates, now=datetime.now(UTC)
    )
    assert isinstance(verdict, Refused)
    assert verdict.message == INVALID_CERTIFICATE


def test_cross_signed_loop_ends() -> None:
    """Two CAs that sign each other do not keep the walk going."""
    first, second = TestAuthority("A"), TestAuthority("B")
    now = datetime.now(UTC)

    def cross(subject: TestAuthority, issuer: TestAuthority) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(subject.certificate.subject)
            .issuer_name(issuer.certificate.subject)
            .public_key(subject.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(issuer.key, hashes.SHA256())
        )

    hints = tuple(cross(*pair) for _ in range(4) for pair in ((first, second), (second, first)))
    looped = replace(first.leaf("dev-1"), issuers=hints)
    assert isinstance(judge(looped, ALL, refer("g", "root"), length=9), Refused)


@pytest.mark.parametrize("hostile", STRANGERS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("trusted", ["Issuing", "Root"])
def test_strangers_chain_costs_no_more_than_the_budget(
    monkeypatch: pytest.MonkeyPatch, hostile: Callable[[str, str], Chain], trusted: str
) -> None:
    """The plain case, the walk, the verdicts and their reasons all draw on one budget."""
    chain = hostile(trusted, "dev-1")
    groups = [refer("a", "issuing"), refer("b", "middle"), refer("c", "root")]
    count = Count(monkeypatch)
    verdict = attest(chain, RegistrationId("dev-1"), Candidates(ALL, groups), now=datetime.now(UTC))
    assert isinstance(verdict, Refused)
    assert 0 < count.checks <= MAX_SIGNATURE_CHECKS


@pytest.mark.parametrize("carried", [False, True], ids=["referred", "carried"])
def test_insiders_chain_costs_no_more_than_the_budget(
    monkeypatch: pytest.MonkeyPatch, carried: bool
) -> None:
    """Nor if all its signatures are good, and each path breaks a rule at its end."""
    chain = insider("Root", "dev-1", ROOT.key)
    groups = [carry(chain[-2]), refer("c", "root")] if carried else [refer("c", "root")]
    count = Count(monkeypatch)
    verdict = attest(chain, RegistrationId("dev-1"), Candidates(ALL, groups), now=datetime.now(UTC))
    assert isinstance(verdict, Refused)
    assert verdict.message == INVALID_CERTIFICATE
    assert MAX_SIGNATURE_CHECKS / 2 < count.checks <= MAX_SIGNATURE_CHECKS


def test_spent_budget_is_a_refusal_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it happens to run out, nothing is admitted and nothing but a verdict comes back."""
    needed = 0
    for budget in range(MAX_SIGNATURE_CHECKS):
        monkeypatch.setattr(attestation, "Signatures", lambda budget=budget: Signatures(budget))
        verdict = judge(DEVICE, ALL[:1], refer("g", "root"))
        if isinstance(verdict, Attested):
            needed = budget
            break
        assert verdict.message == INVALID_CERTIFICATE
        assert "too many possible paths" in verdict.reason
    # Three to walk up, three for the library.
    assert needed == 6


def test_verdict_holds_for_the_path_s_validity_only() -> None:
    """The verdict of a connection ends with the first certificate that does."""
    verdict = judge(DEVICE, ALL, refer("g", "root"))
    assert isinstance(verdict, Attested)
    end = DEVICE.certificate.not_valid_after_utc
    assert verdict.holds_at(end)
    assert not verdict.holds_at(end + timedelta(seconds=1))
    assert not verdict.holds_at(DEVICE.certificate.not_valid_before_utc - timedelta(seconds=1))


def test_plain_case_and_walk_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short way is a shorter way to the same verdict, whatever is enabled, named or sent."""
    namesake = TestAuthority("Issuing")
    certificates = [*ALL, uploaded("namesake", namesake)]
    settings = [
        (refer("g", "issuing"),),
        (refer("g", "issuing", status=OFF),),
        (refer("g", "namesake"),),
        (refer("g", "issuing"), refer("h", "namesake")),
        (refer("g", "issuing"), refer("h", "namesake", status=OFF)),
        (refer("g", "root"), refer("h", "middle", status=OFF)),
        (carry(ISSUING.certificate),),
        (refer("g", "root"),),
    ]
    cases = [
        (credential, groups, length)
        for credential in (DEVICE, namesake.leaf("dev-1"), ROOT.leaf("dev-1"))
        for groups in settings
        for length in (1, 3)
    ]

    def verdicts() -> list[str]:
        found = [judge(one, certificates, *groups, length=n) for one, groups, n in cases]
        return [repr(getattr(one, "message", one.__class__)) for one in found]

    short = verdicts()
    monkeypatch.setattr(attestation, "_attest_plainly", lambda *_: None)
    assert verdicts() == short
    assert len(set(short)) > 2
