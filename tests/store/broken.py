"""Damage that no code of ours does to a database, for the rules of `verify` that must report it."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, Executable, text

from worker.verify.verify import VerifyReport, Violation, verify

CHECKS = {
    "jobs": ("status", "holder", "finish", "answer"),
    "deliveries": ("status", "holder", "finish"),
    "endpoints": ("state", "cause", "pause"),
    "receivers": ("status",),
}


def hurt(engine: Engine, *statements: Executable) -> None:
    """Execute statements without the CHECK constraints."""
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.execute(text("PRAGMA ignore_check_constraints = ON"))
        else:
            for table, names in CHECKS.items():
                for name in names:
                    drop = f"ALTER TABLE afterword_{table} DROP CONSTRAINT IF EXISTS afterword_{table}_{name}"
                    connection.execute(text(drop))
        for statement in statements:
            connection.execute(statement)
        if connection.dialect.name == "sqlite":
            connection.execute(text("PRAGMA ignore_check_constraints = OFF"))


def look(engine: Engine, *, span: int = 2, pause: Callable[[float], object] = lambda seconds: None) -> VerifyReport:
    return verify(engine, grace_s=5.0, span=span, pause=pause)


def broken(engine: Engine, **options: Any) -> dict[str, Violation]:
    return {one.name: one for one in look(engine, **options).broken}


@contextmanager
def refusing(engine: Engine, table: str, moment: str, state: str = "23514") -> Iterator[None]:
    """Make a trigger refuse every write of one kind (`moment`: INSERT, UPDATE or DELETE) to a table."""
    name = f"refuses_{uuid.uuid4().hex[:8]}"
    if engine.dialect.name == "sqlite":
        made = [f"CREATE TRIGGER {name} BEFORE {moment} ON {table} BEGIN SELECT RAISE(ABORT, 'not now'); END"]
        dropped = [f"DROP TRIGGER {name}"]
    else:
        body = f"$$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{state}'; END $$"
        made = [
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS {body}",
            f"CREATE TRIGGER {name} BEFORE {moment} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()",
        ]
        dropped = [f"DROP TRIGGER {name} ON {table}"]
    _execute(engine, *made)
    try:
        yield
    finally:
        _execute(engine, *dropped)


def _execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
