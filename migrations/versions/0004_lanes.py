"""Two indexes for the order of deliveries: what follows a million that are over is found at once."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INDEXES = {
    "afterword_deliveries_lane": "ordering_key IS NOT NULL AND status IN ('queued', 'in_progress', 'held')",
    "afterword_deliveries_lost": "ordering_key IS NOT NULL AND status = 'failed'",
}


def upgrade() -> None:
    for name, where in INDEXES.items():
        columns = ["receiver_id", "ordering_key", "sequence"]
        condition = sa.text(where)
        op.create_index(name, "afterword_deliveries", columns, postgresql_where=condition, sqlite_where=condition)


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name, "afterword_deliveries")
