"""The doors of SQLite read an id of 32 digits without hyphens, as PostgreSQL's type uuid and the queue do."""

import importlib.util
from pathlib import Path
from types import ModuleType

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# Each trigger, and the migration that wrote it last.
TRIGGERS = {"cancel_v1": "0002", "replay_v1": "0006", "submit_v1": "0010"}
BEFORE = "lower(NEW.id)"
AFTER = (
    "lower(CASE WHEN length(NEW.id) = 32 THEN substr(NEW.id, 1, 8) || '-' || substr(NEW.id, 9, 4) || '-' "
    "|| substr(NEW.id, 13, 4) || '-' || substr(NEW.id, 17, 4) || '-' || substr(NEW.id, 21) ELSE NEW.id END)"
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _replace([one.replace(BEFORE, AFTER) for one in _triggers()])


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _replace(_triggers())


def views(dialect: str) -> list[str]:
    """Return the statements that create the doors, as `api_contracts/sql` shows them."""
    if dialect != "sqlite":
        return []
    return [one.replace(BEFORE, AFTER) for view in TRIGGERS for one in _statements(view)]


def _replace(triggers: list[str]) -> None:
    for view, trigger in zip(TRIGGERS, triggers, strict=True):
        op.execute(f"DROP TRIGGER afterword_{view}")
        op.get_bind().exec_driver_sql(trigger)


def _triggers() -> list[str]:
    return [one for view in TRIGGERS for one in _statements(view) if one.startswith("CREATE TRIGGER")]


def _statements(view: str) -> list[str]:
    """Return the view and its trigger as they were written last."""
    statements = _migration(TRIGGERS[view]).views("sqlite")
    starts = (f"CREATE VIEW {view} ", f"CREATE TRIGGER afterword_{view} ")
    return [one for one in statements if one.startswith(starts)]


def _migration(number: str) -> ModuleType:
    (path,) = Path(__file__).parent.glob(f"{number}_*.py")
    spec = importlib.util.spec_from_file_location(f"migration_{number}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
