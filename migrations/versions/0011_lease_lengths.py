"""How long each lease is: one that has more left than that was made before the database's clock was set back."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("afterword_workers", sa.Column("lease_s", sa.Float))


def downgrade() -> None:
    op.drop_column("afterword_workers", "lease_s")
