"""What Alembic runs to reach a database: `muster.store.migrate` hands it the connection."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy.types import TypeDecorator


def _render(kind: str, item: Any, _autogenerate: Any) -> str | Literal[False]:
    """Write a column type of ours as the SQL type beneath it: history imports no living code."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl_instance!r}"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["tables"],
    # SQLite can alter little in place; batches make the table anew where it must.
    render_as_batch=True,
    render_item=_render,
)
with context.begin_transaction():
    context.run_migrations()
