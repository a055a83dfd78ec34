"""Signature checks: each pair once, within a budget, and with no key that does not count."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from muster.certs import signatures
from muster.certs.signatures import Signatures
from muster.errors import Kind, Problem


def test_a_pair_is_checked_once(make, root) -> None:
    """Whoever asks again gets the answer without spending."""
    leaf, forged = make("device", root), make("root", ca=True)
    found = Signatures(2)
    for _ in range(3):
        assert found.made_by(root.certificate, leaf.certificate)
        assert not found.made_by(forged.certificate, leaf.certificate)
    assert not found.is_spent


def test_budget_is_the_end(make, root) -> None:
    """What is known stays known; the next check, and every one after it, is refused."""
    leaves = [make("device", root).certificate for _ in range(2)]
    found = Signatures(1)
    assert found.made_by(root.certificate, leaves[0])
    for _ in range(2):
        with pytest.raises(Problem) as caught:
            found.made_by(root.certificate, leaves[1])
        assert caught.value.kind is Kind.UNAUTHENTICATED
    assert found.is_spent
    assert found.made_by(root.certificate, leaves[0])


def test_others_spend_from_the_same_budget() -> None:
    """A whole path at once, or nothing of it."""
    found = Signatures(5)
    found.spend(5)
    found.spend(0)
    with pytest.raises(Problem):
        found.spend(1)


def test_wrong_names_and_flawed_keys_cost_nothing(make, root, monkeypatch) -> None:
    """Neither needs a signature to be looked at."""
    monkeypatch.setattr(signatures, "_verifies", lambda *_: pytest.fail("was verified"))
    found = Signatures(0)
    other = make("other", ca=True)
    assert not found.made_by(other.certificate, make("device", root).certificate)
    weak = make("weak", ca=True, key=rsa.generate_private_key(3, 2048))
    assert not found.made_by(weak.certificate, make("device", weak).certificate)
