"""What a hand does to a database that no code of ours does, for the rules that must notice it."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, Executable, text

from worker.store.verify import Finding, Report, verify

CHECKS = {
    "jobs": ("status", "holder", "finish", "answer"),
    "deliveries": ("status", "holder", "finish"),
    "endpoints": ("state", "cause", "pause"),
    "receivers": ("status",),
}


def hurt(engine: Engine, *statements: Executable) -> None:
    """Execute these with the constraints lifted."""
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


def look(engine: Engine, *, span: int = 2, pause: Callable[[float], object] = lambda seconds: None) -> Report:
    return verify(engine, grace_s=5.0, span=span, pause=pause)


def broken(engine: Engine, **options: Any) -> dict[str, Finding]:
    return {one.name: one for one in look(engine, **options).broken}
