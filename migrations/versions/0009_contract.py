"""The database says which releases it serves; a worker says which release it is."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# A release has the number of its newest migration. This one ends at 0007.
OLDEST = "0007"


def upgrade() -> None:
    contract = op.create_table("afterword_contract", sa.Column("serves_from", sa.String, primary_key=True))
    op.bulk_insert(contract, [{"serves_from": OLDEST}])
    op.add_column("afterword_workers", sa.Column("release", sa.String))


def downgrade() -> None:
    op.drop_column("afterword_workers", "release")
    op.drop_table("afterword_contract")
