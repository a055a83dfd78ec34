"""A provisioning service to try things on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.provisioning import World, a_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A service with one hub and one enrolment group."""
    async with a_world(tmp_path) as opened:
        yield opened
