"""Writes the views' texts beside this file, as the newest migration that has them creates them.

Run `python api_contracts/sql/write.py` after a migration changes a view; a test compares them.
"""

import importlib.util
import re
from collections import defaultdict
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parent
MIGRATIONS = FOLDER.parent.parent / "migrations" / "versions"
DIALECTS = ("postgresql", "sqlite")

_subject = re.compile(r"CREATE VIEW (\w+)|CREATE TRIGGER \w+ INSTEAD OF INSERT ON (\w+)")


def texts() -> dict[Path, str]:
    """Return what each file should hold: a view, and on SQLite the trigger that lets rows into it."""
    views = _newest().views
    found: dict[Path, list[str]] = defaultdict(list)
    for dialect in DIALECTS:
        for statement in views(dialect):
            subject = _subject.match(statement)
            if subject is None:
                raise ValueError(f"{statement[:60]!r} creates no view; only views belong into a migration's views()")
            found[FOLDER / dialect / f"{subject[1] or subject[2]}.sql"].append(f"{statement};\n")
    return {path: "\n".join(statements) for path, statements in found.items()}


def _newest() -> ModuleType:
    for path in sorted(MIGRATIONS.glob("*.py"), reverse=True):
        spec = importlib.util.spec_from_file_location(f"migration_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if hasattr(module, "views"):
            return module
    raise LookupError(f"no migration in {MIGRATIONS} has views()")


def main() -> None:
    """Write every file and delete those whose view is gone."""
    wanted = texts()
    for path in FOLDER.glob("*/*.sql"):
        if path not in wanted:
            path.unlink()
    for path, content in wanted.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
