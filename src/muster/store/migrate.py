"""Bring a database to the tables this program knows.

The history lies in `migrations/versions`, one file for each change of the tables. A file
never imports living code, because history must not depend on the present: column types of
ours are written down as what they are in SQL. There is no way back but a backup.

A developer who changed a table runs

    python -m muster.store.migrate revision "what changed"

which compares all tables with the history and writes the next file, to be read before it is
committed; `tests/store/test_migrate.py` fails until it is there.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, inspect
from sqlalchemy.exc import DBAPIError

import muster.store
from muster.errors import Kind, Problem
from muster.store.schema import metadata
from muster.store.sqlite import is_unavailable, writing_engine

_HISTORY = Path(__file__).parent / "migrations"


def all_tables() -> MetaData:
    """Return the metadata with the tables of every store module."""
    for module in pkgutil.iter_modules(muster.store.__path__, "muster.store."):
        if not module.ispkg and module.name != __name__:
            importlib.import_module(module.name)
    return metadata


def upgrade(engine: Engine, *, history: Path = _HISTORY) -> None:
    """Bring the database to the newest tables, from whatever older state it is in.

    All steps are one transaction: they happen wholly or not at all, and once when several
    processes start together. Harmless when there is nothing to do.

    Raises `Problem(UNSUPPORTED)` when a newer program, or none of ours, made what is there;
    `Problem(UNAVAILABLE)` when the database cannot be written.
    """
    config = _config(history)
    try:
        with engine.connect() as connection:
            _upgrade(connection, config)
    except DBAPIError as error:
        if is_unavailable(error):
            raise Problem(Kind.UNAVAILABLE, "the database cannot be upgraded") from error
        raise


def differences(connection: Connection, tables: MetaData) -> list[Any]:
    """Return what the database at *connection* lacks of *tables* or has beyond them."""
    return list(compare_metadata(MigrationContext.configure(connection), tables))


def write_revision(
    message: str, *, tables: MetaData | None = None, history: Path = _HISTORY
) -> Path:
    """Write the next step of *history*, from what it leads to now to *tables*; return its file.

    Raises `Problem(CONFLICT)` when there is nothing to change.
    """
    if tables is None:
        tables = all_tables()
    config = _config(history)
    with tempfile.TemporaryDirectory() as directory:
        engine = writing_engine(Path(directory) / "history.db")
        try:
            upgrade(engine, history=history)
            with engine.connect() as connection:
                if not differences(connection, tables):
                    raise Problem(Kind.CONFLICT, "the history already leads to these tables")
                config.attributes.update(connection=connection, tables=tables)
                number = len(list(ScriptDirectory.from_config(config).walk_revisions())) + 1
                script = command.revision(
                    config, message=message, autogenerate=True, rev_id=f"{number:04d}"
                )
        finally:
            engine.dispose()
    assert script is not None
    assert not isinstance(script, list)
    return Path(script.path)


def _config(history: Path) -> Config:
    config = Config(cmd_opts=argparse.Namespace(quiet=True))
    # A percent sign would start an interpolation.
    config.set_main_option("script_location", str(history).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return config


def _upgrade(connection: Connection, config: Config) -> None:
    driver: Any = connection.connection.driver_connection
    # SQLite changes a column by making the table anew, which must not empty the tables that
    # refer to it; the setting can only be made outside a transaction.
    if connection.dialect.name == "sqlite":
        driver.execute("PRAGMA foreign_keys=OFF")
    try:
        with connection.begin():
            _refuse_foreign(connection, ScriptDirectory.from_config(config))
            config.attributes.update(connection=connection, tables=None)
            command.upgrade(config, "head")
            if connection.dialect.name == "sqlite":
                broken = driver.execute("PRAGMA foreign_key_check").fetchall()
                if broken:
                    raise RuntimeError(f"a migration left rows that refer to nothing: {broken[:5]}")
    finally:
        if connection.dialect.name == "sqlite":
            driver.execute("PRAGMA foreign_keys=ON")


def _refuse_foreign(connection: Connection, scripts: ScriptDirectory) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    heads = set(MigrationContext.configure(connection).get_current_heads())
    if heads - known:
        raise Problem(
            Kind.UNSUPPORTED,
            "a newer version of Muster made this database: run that version, "
            "or restore a backup from before it",
        )
    if not heads and set(inspect(connection).get_table_names()) - {"alembic_version"}:
        raise Problem(
            Kind.UNSUPPORTED, "the database holds tables but no history: Muster did not make it"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the next migration; for developers."""
    parser = argparse.ArgumentParser(prog="python -m muster.store.migrate")
    commands = parser.add_subparsers(dest="command", required=True)
    revision = commands.add_parser("revision", help="write the migration that is missing")
    revision.add_argument("message", help="what changes, in a few words")
    revision.add_argument("--history", type=Path, default=_HISTORY, help="where it is written")
    parsed = parser.parse_args(arguments)
    try:
        path = write_revision(parsed.message, history=parsed.history)
    except Problem as problem:
        print(problem.detail, file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
