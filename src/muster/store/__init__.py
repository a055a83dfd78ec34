"""Where state is kept: SQLAlchemy Core tables, one module per aggregate.

SQL is written once, as synchronous functions of a `Connection`; `Database` runs them, so the
same functions serve SQLite here and PostgreSQL over asyncpg (`AsyncConnection.run_sync`).
"""
