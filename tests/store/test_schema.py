"""Column types keep exactly what they were given, or refuse it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.sqlite.base import SQLiteDialect

from muster.store.schema import JsonDocument, UtcDateTime

DIALECT = SQLiteDialect()


@given(st.datetimes(timezones=st.timezones()))
def test_moments_round_trip(moment: datetime) -> None:
    """Any aware moment comes back as the same moment, in UTC, to the microsecond."""
    column = UtcDateTime()
    try:
        expected = moment.astimezone(UTC)
    except OverflowError:  # a few hours before the year 1 or after 9999
        return
    stored = column.process_bind_param(moment, DIALECT)
    found = column.process_result_value(stored, DIALECT)
    assert found == expected
    assert found.tzinfo is UTC


def test_moments_sort_as_integers() -> None:
    """Stored moments order as the moments do, whatever their zones."""
    column = UtcDateTime()
    early = datetime(2026, 1, 1, 10, tzinfo=timezone(timedelta(hours=5)))
    late = datetime(2026, 1, 1, 6, tzinfo=UTC)
    assert column.process_bind_param(early, DIALECT) < column.process_bind_param(late, DIALECT)
    assert column.process_bind_param(None, DIALECT) is None
    assert column.process_result_value(None, DIALECT) is None


def test_naive_moments_are_bugs() -> None:
    """A moment without a zone is refused before it reaches the database."""
    with pytest.raises(ValueError, match="naive"):
        UtcDateTime().process_bind_param(datetime(2026, 1, 1), DIALECT)  # noqa: DTZ001 - the point


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_documents_round_trip(document: object) -> None:
    """Any JSON value comes back equal; None is JSON null, not NULL."""
    column = JsonDocument()
    stored = column.process_bind_param(document, DIALECT)
    assert isinstance(stored, bytes)
    assert column.process_result_value(stored, DIALECT) == document
    assert column.process_result_value(None, DIALECT) is None
