"""Adds whose trouble ended an attempt, refusals in a row, the beginning of trouble; `jobs_v1` shows what was spent."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TOKENS = (
    "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "cache_write_tokens", "prompt_text_tokens",
    "prompt_audio_tokens", "prompt_image_tokens", "completion_text_tokens", "completion_audio_tokens",
    "completion_image_tokens", "reasoning_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens",
)  # fmt: skip
SQLITE_NOW = "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"

Instant = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")


def upgrade() -> None:
    # The count is a constant: neither database rewrites the table for it.
    op.add_column("afterword_jobs", sa.Column("refusals", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.add_column("afterword_attempts", sa.Column("trouble", sa.String))
    op.add_column("afterword_endpoints", sa.Column("troubled_at", Instant))
    _replace_views()


def downgrade() -> None:
    for view in ("finished_v1", "jobs_v1"):
        op.execute(f"DROP VIEW {view}")
    op.drop_column("afterword_endpoints", "troubled_at")
    op.drop_column("afterword_attempts", "trouble")
    op.drop_column("afterword_jobs", "refusals")
    for statement in _job_views(op.get_bind().dialect.name, counted=False):
        op.get_bind().exec_driver_sql(statement)


def _replace_views() -> None:
    """Put the new views in the place of the old ones; on PostgreSQL whoever may read them still may."""
    dialect = op.get_bind().dialect.name
    if dialect == "sqlite":
        for view in ("finished_v1", "jobs_v1"):
            op.execute(f"DROP VIEW {view}")
    for statement in views(dialect):
        # Not text(): a colon in a cast is no parameter.
        kept = statement.replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1) if dialect == "postgresql" else statement
        op.get_bind().exec_driver_sql(kept)


def views(dialect: str) -> list[str]:
    """Return the statements that create the views, as `api_contracts/sql` shows them."""
    return _job_views(dialect, counted=True)


def _job_views(dialect: str, *, counted: bool) -> list[str]:
    """Return jobs_v1 and finished_v1; not `counted`: as they were before."""
    postgres = dialect == "postgresql"
    now = "clock_timestamp()" if postgres else SQLITE_NOW

    def at(column: str) -> str:
        if postgres:
            return column
        return f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000000, 'unixepoch') || printf('.%06dZ', {column} % 1000000)"

    def null(kind: str) -> str:
        return f"CAST(NULL AS {kind})" if postgres else "NULL"

    json = "jsonb" if postgres else "text"
    moment = "timestamptz" if postgres else "text"
    tokens = ", ".join(f"a.{name}" for name in TOKENS)
    no_tokens = ", ".join(f"{null('bigint')}" for _ in TOKENS)
    used, used_column, none_used = (", j.attempts_used", ", attempts_used", ", 0") if counted else ("", "", "")
    # A job that its endpoint holds is due before the next probe.
    probe = f"\n         WHEN e.state = 'paused' AND e.probe_at > j.run_at THEN {at('e.probe_at')}" if counted else ""
    columns = f"""
    id, tenant, status, batch, custom_id, idempotency_key, endpoint, model, priority, attempts, max_attempts,
    created_at, not_before, deadline, started_at, finished_at, waiting_for, waiting_until, finish_reason, content,
    reasoning_content, refusal, tool_calls, response, response_id, response_model, system_fingerprint, error_code,
    error_message, error, {", ".join(TOKENS)},
    usage, reported_cost, metadata, request, cursor{used_column}"""
    job = f"""SELECT j.id, j.tenant, j.status, j.batch, j.custom_id, j.idempotency_key, j.endpoint, j.model, j.priority,
    j.attempt, j.max_attempts, {at("j.created_at")}, {at("j.not_before")}, {at("j.deadline")},
    {at("j.started_at")}, {at("j.finished_at")},
    CASE WHEN j.status <> 'queued' THEN NULL
         WHEN j.waiting_for IS NULL AND j.run_at > {now} THEN 'start'
         WHEN e.state = 'paused' THEN 'endpoint_paused'
         WHEN j.run_at > {now} THEN j.waiting_for
         ELSE 'slot' END,
    CASE WHEN j.status <> 'queued' THEN NULL{probe}
         WHEN j.run_at > {now} THEN {at("j.run_at")}
         WHEN e.state = 'paused' THEN {at("e.probe_at")}
         ELSE NULL END,
    r.finish_reason, r.content, r.reasoning_content, r.refusal, r.tool_calls, r.response, r.response_id,
    r.response_model, r.system_fingerprint, j.error_code, j.error_message, j.error,
    {tokens},
    r.usage, a.reported_cost, j.metadata, q.request, f.cursor{used}"""
    bodies = """LEFT JOIN afterword_requests q ON q.job_id = j.id
LEFT JOIN afterword_attempts a ON a.job_id = j.id AND a.attempt = j.answer_attempt
LEFT JOIN afterword_answers r ON r.job_id = j.id AND r.attempt = j.answer_attempt
LEFT JOIN afterword_endpoints e ON e.name = j.endpoint"""
    return [
        f"""CREATE VIEW finished_v1 ({columns}) AS
{job}
FROM afterword_finished f
JOIN afterword_jobs j ON j.id = f.job_id
{bodies}""",
        f"""CREATE VIEW jobs_v1 ({columns}) AS
{job}
FROM afterword_jobs j
LEFT JOIN afterword_finished f ON f.job_id = j.id
{bodies}
UNION ALL
SELECT i.id, {null("varchar")}, 'queued', {null("varchar")}, {null("varchar")}, {null("varchar")}, {null("varchar")},
    {null("varchar")}, {null("smallint")}, 0, {null("integer")}, {at("i.created_at")}, {null(moment)}, {null(moment)},
    {null(moment)}, {null(moment)}, 'slot', {null(moment)}, {null("varchar")}, {null("text")}, {null("text")},
    {null("text")}, {null(json)}, {null(json)}, {null("varchar")}, {null("varchar")}, {null("varchar")},
    {null("varchar")}, {null("text")}, {null(json)},
    {no_tokens},
    {null(json)}, {null("numeric")}, {null(json)}, {null(json)}, {null("bigint")}{none_used}
FROM afterword_inbox i""",
    ]
