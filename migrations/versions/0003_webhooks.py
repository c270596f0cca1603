"""Webhooks: receivers, events with their frozen bodies, deliveries and their attempts, recoveries, and their view."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = ("recoveries", "delivery_attempts", "deliveries", "events", "receivers")

Id = postgresql.UUID(as_uuid=False).with_variant(sa.String(36), "sqlite")
Json = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
Instant = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")
column, check = sa.Column, sa.CheckConstraint


def upgrade() -> None:
    _receivers_and_events()
    _deliveries()
    _indexes()
    for statement in views(op.get_bind().dialect.name):
        # Not text(): a colon in a cast is no parameter.
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    op.execute("DROP VIEW webhook_deliveries_v1")
    for table in TABLES:
        op.drop_table(f"afterword_{table}")


def _receivers_and_events() -> None:
    op.create_table(
        "afterword_receivers",
        column("id", Id, primary_key=True),
        column("tenant", sa.String, nullable=False),
        column("name", sa.String, nullable=False),
        column("url", sa.Text, nullable=False),
        column("url_sealed", sa.Text),
        column("is_default", sa.Boolean, nullable=False),
        column("events", Json, nullable=False),
        column("payload", sa.String, nullable=False),
        column("profile", sa.String, nullable=False),
        column("headers_sealed", sa.Text),
        column("keys_sealed", sa.Text),
        column("public_key", sa.String),
        column("timeout_s", sa.Float, nullable=False),
        column("schedule", Json),
        column("rate_per_s", sa.Float),
        column("in_flight", sa.Integer, nullable=False),
        column("ordering", sa.String, nullable=False),
        column("on_exhausted", sa.String, nullable=False),
        column("status", sa.String, nullable=False),
        column("disabled_reason", sa.String),
        column("disabled_at", Instant),
        column("created_at", Instant, nullable=False),
        column("health", Json),
        column("blocked_until", Instant),
        column("allowed", sa.Integer),
        column("tokens", sa.Float),
        column("tokens_at", Instant),
        check("on_exhausted IN ('block', 'skip')", name="afterword_receivers_exhausted"),
        check("ordering IN ('none', 'per_key')", name="afterword_receivers_ordering"),
        check("payload IN ('auto', 'full', 'thin')", name="afterword_receivers_payload"),
        check("profile IN ('afterword', 'openai')", name="afterword_receivers_profile"),
        check("status IN ('disabled', 'enabled', 'removed')", name="afterword_receivers_status"),
    )
    op.create_table(
        "afterword_events",
        column("id", Id, primary_key=True),
        column("job_id", Id),
        column("tenant", sa.String, nullable=False),
        column("type", sa.String, nullable=False),
        column("created_at", Instant, nullable=False),
        column("thin", sa.LargeBinary, nullable=False),
        column("full", sa.LargeBinary),
        column("openai", sa.LargeBinary),
    )


def _deliveries() -> None:
    op.create_table(
        "afterword_deliveries",
        column("id", Id, primary_key=True),
        column("event_id", Id, nullable=False),
        column("receiver_id", Id, nullable=False),
        column("job_id", Id),
        column("tenant", sa.String, nullable=False),
        column("event_type", sa.String, nullable=False),
        column("status", sa.String, nullable=False),
        column("run_at", Instant, nullable=False),
        column("deadline", Instant, nullable=False),
        column("created_at", Instant, nullable=False),
        column("finished_at", Instant),
        column("attempt", sa.Integer, server_default=sa.text("0"), nullable=False),
        column("attempts_used", sa.Integer, server_default=sa.text("0"), nullable=False),
        column("worker_id", Id),
        column("waiting_for", sa.String),
        column("variant", sa.String, nullable=False),
        column("origin", sa.String, nullable=False),
        column("ordering_key", sa.String),
        column("sequence", sa.BigInteger, nullable=False),
        column("after_gap", sa.Boolean, server_default=sa.text("false"), nullable=False),
        column("last_http_status", sa.SmallInteger),
        column("last_error_code", sa.String),
        check("(status = 'in_progress') = (worker_id IS NOT NULL)", name="afterword_deliveries_holder"),
        check(
            "(status IN ('cancelled', 'delivered', 'failed')) = (finished_at IS NOT NULL)",
            name="afterword_deliveries_finish",
        ),
        check(
            "status IN ('cancelled', 'delivered', 'failed', 'held', 'in_progress', 'queued')",
            name="afterword_deliveries_status",
        ),
        check("variant IN ('full', 'openai', 'thin')", name="afterword_deliveries_variant"),
        sa.UniqueConstraint("event_id", "receiver_id", name="afterword_deliveries_once"),
    )
    op.create_table(
        "afterword_delivery_attempts",
        column("delivery_id", Id, primary_key=True),
        column("attempt", sa.Integer, autoincrement=False, primary_key=True),
        column("receiver_id", Id, nullable=False),
        column("worker_id", Id, nullable=False),
        column("origin", sa.String, nullable=False),
        column("variant", sa.String, nullable=False),
        column("sent_at", Instant),
        column("finished_at", Instant),
        column("outcome", sa.String),
        column("error_code", sa.String),
        column("http_status", sa.SmallInteger),
        column("retry_after_s", sa.Float),
        column("connect_ms", sa.Integer),
        column("first_byte_ms", sa.Integer),
        column("total_ms", sa.Integer),
        column("response_headers", Json),
        column("response_body", sa.LargeBinary),
        column("is_truncated", sa.Boolean, server_default=sa.text("false"), nullable=False),
        column("peer", sa.String),
        check(
            "outcome IS NULL OR outcome IN ('delivered', 'failed', 'released', 'unknown')",
            name="afterword_delivery_attempts_outcome",
        ),
        check("(outcome IS NULL) = (finished_at IS NULL)", name="afterword_delivery_attempts_finish"),
    )
    op.create_table(
        "afterword_recoveries",
        column("id", Id, primary_key=True),
        column("receiver_id", Id, nullable=False),
        column("statuses", Json, nullable=False),
        column("since", Instant, nullable=False),
        column("until", Instant, nullable=False),
        column("rate_per_s", sa.Float, nullable=False),
        column("status", sa.String, nullable=False),
        column("at", Instant),
        column("at_id", Id),
        column("redelivered", sa.Integer, server_default=sa.text("0"), nullable=False),
        column("created_at", Instant, nullable=False),
        column("stepped_at", Instant),
        column("finished_at", Instant),
        check("status IN ('cancelled', 'done', 'running')", name="afterword_recoveries_status"),
    )


def _indexes() -> None:
    for table, name, columns, where, unique in (
        ("receivers", "name", ["tenant", "name"], "status <> 'removed'", True),
        ("events", "job", ["job_id"], "job_id IS NOT NULL", False),
        ("deliveries", "deadline", ["deadline"], "status = 'queued'", False),
        ("deliveries", "due", ["receiver_id", "run_at"], "status = 'queued'", False),
        ("deliveries", "flight", ["receiver_id"], "status = 'in_progress'", False),
        ("deliveries", "held", ["worker_id"], "status = 'in_progress'", False),
        ("deliveries", "job", ["job_id"], "job_id IS NOT NULL", False),
        ("deliveries", "order", ["receiver_id", "ordering_key", "sequence"], "ordering_key IS NOT NULL", False),
        ("deliveries", "start", ["run_at"], "status = 'queued'", False),
        ("deliveries", "time", ["receiver_id", "created_at"], None, False),
        ("recoveries", "running", ["receiver_id"], "status = 'running'", True),
    ):
        condition = None if where is None else sa.text(where)
        op.create_index(
            f"afterword_{table}_{name}",
            f"afterword_{table}",
            columns,
            unique=unique,
            postgresql_where=condition,
            sqlite_where=condition,
        )


def views(dialect: str) -> list[str]:
    """Return the statements that create the view, as `api_contracts/sql` shows it."""
    postgres = dialect == "postgresql"

    def at(column: str) -> str:
        if postgres:
            return column
        return f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000000, 'unixepoch') || printf('.%06dZ', {column} % 1000000)"

    return [
        f"""CREATE VIEW webhook_deliveries_v1 (
    id, job_id, event_id, event_type, tenant, receiver, status, attempts, next_attempt_at, waiting_for,
    last_http_status, last_error_code, delivered_at, created_at, deadline, sequence, origin) AS
SELECT d.id, d.job_id, d.event_id, d.event_type, d.tenant, r.name, d.status, d.attempt,
    CASE WHEN d.status = 'queued' AND coalesce(d.waiting_for, '') <> 'order' THEN {at("d.run_at")} END,
    CASE WHEN d.status = 'queued' THEN d.waiting_for END, d.last_http_status, d.last_error_code,
    CASE WHEN d.status = 'delivered' THEN {at("d.finished_at")} END, {at("d.created_at")}, {at("d.deadline")},
    d.sequence, d.origin
FROM afterword_deliveries d
JOIN afterword_receivers r ON r.id = d.receiver_id"""
    ]
