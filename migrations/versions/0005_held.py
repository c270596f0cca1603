"""What is on hold is found at once; where an attempt's time went; two columns go that repeated a third."""

import sqlalchemy as sa
from alembic import op

from worker.store.types import Instant

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

HELD = "afterword_deliveries_on_hold"
TIMES = ("dns_ms", "tls_ms")


def upgrade() -> None:
    condition = sa.text("status = 'held'")
    op.create_index(
        HELD, "afterword_deliveries", ["receiver_id", "created_at"], postgresql_where=condition, sqlite_where=condition
    )
    for name in TIMES:
        op.add_column("afterword_delivery_attempts", sa.Column(name, sa.Integer))
    # `health` says both.
    op.drop_column("afterword_receivers", "blocked_until")
    op.drop_column("afterword_receivers", "allowed")


def downgrade() -> None:
    op.add_column("afterword_receivers", sa.Column("blocked_until", Instant))
    op.add_column("afterword_receivers", sa.Column("allowed", sa.Integer))
    for name in TIMES:
        op.drop_column("afterword_delivery_attempts", name)
    op.drop_index(HELD, "afterword_deliveries")
