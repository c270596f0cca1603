"""Writes the SQL text of each view to postgresql/ and sqlite/, as the newest migration creates it.

Run `python api_contracts/sql/write.py` after a migration changes a view. A test compares the files with the migrations.
"""

import importlib.util
import re
from collections import defaultdict
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parent
MIGRATIONS = FOLDER.parent.parent / "migrations" / "versions"
DIALECTS = ("postgresql", "sqlite")

_subject = re.compile(
    r"CREATE VIEW (\w+)|CREATE TRIGGER \w+ INSTEAD OF INSERT ON (\w+)"
    r"|(?:CREATE|REVOKE EXECUTE ON) FUNCTION afterword_(\w+)\("
)


def texts() -> dict[Path, str]:
    """Return the text of each file by its path: a view, and the trigger and function for INSERTs into it."""
    found: dict[Path, str] = {}
    for migration in _migrations():
        for dialect in DIALECTS:
            found |= _texts(migration.views(dialect), FOLDER / dialect)
    return found


def _texts(statements: list[str], folder: Path) -> dict[Path, str]:
    found: dict[Path, list[str]] = defaultdict(list)
    for statement in statements:
        subject = _subject.match(statement)
        if subject is None:
            raise ValueError(
                f"{statement[:60]!r} creates no view; views() of a migration may return only views and their triggers"
            )
        found[folder / f"{subject[1] or subject[2] or subject[3]}.sql"].append(f"{statement};\n")
    return {path: "\n".join(parts) for path, parts in found.items()}


def _migrations() -> list[ModuleType]:
    """Return the migrations that have views, oldest first: the newest text of a view replaces the older ones."""
    found = []
    for path in sorted(MIGRATIONS.glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"migration_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if hasattr(module, "views"):
            found.append(module)
    return found


def main() -> None:
    """Write every file, and delete the files of removed views."""
    wanted = texts()
    for path in FOLDER.glob("*/*.sql"):
        if path not in wanted:
            path.unlink()
    for path, content in wanted.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
