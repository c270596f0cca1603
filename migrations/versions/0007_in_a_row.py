"""Which jobs an endpoint failed in a row, counted by all workers together, and when it last answered one of them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

Instant = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")


def upgrade() -> None:
    op.add_column("afterword_endpoints", sa.Column("answered_at", Instant))
    op.add_column("afterword_endpoints", sa.Column("sick_jobs", sa.Text))


def downgrade() -> None:
    op.drop_column("afterword_endpoints", "sick_jobs")
    op.drop_column("afterword_endpoints", "answered_at")
