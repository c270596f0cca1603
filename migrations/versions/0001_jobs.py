"""Jobs, their bodies, attempts, answers, doors, leases, and the views of contract version 1."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TOKENS = (
    "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "cache_write_tokens", "prompt_text_tokens",
    "prompt_audio_tokens", "prompt_image_tokens", "completion_text_tokens", "completion_audio_tokens",
    "completion_image_tokens", "reasoning_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens",
)  # fmt: skip
VIEWS = ("submit_v1", "finished_v1", "usage_v1", "attempts_v1", "job_ids_v1", "jobs_v1")
TABLES = (
    "jobs", "requests", "attempts", "answers", "finished", "counters", "aliases", "inbox", "dead_letters", "workers",
    "leaders",
)  # fmt: skip
SQLITE_NOW = "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"
SQLITE_UUID = (
    "(lower(substr(hex(randomblob(4)), 1, 8) || '-' || substr(hex(randomblob(2)), 1, 4) || '-4' "
    "|| substr(hex(randomblob(2)), 2, 3) || '-' || substr('89ab', abs(random() % 4) + 1, 1) "
    "|| substr(hex(randomblob(2)), 2, 3) || '-' || hex(randomblob(6))))"
)

Id = postgresql.UUID(as_uuid=False).with_variant(sa.String(36), "sqlite")
Json = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
Instant = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")
Money = sa.Numeric().with_variant(sa.Text(), "sqlite")
Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    _tables(postgres)
    if postgres:
        # A default is computed with the rights of whoever inserts: INSERT on submit_v1 must be all that takes.
        op.execute("GRANT USAGE ON SEQUENCE afterword_inbox_seq_seq TO PUBLIC")
    _indexes()
    for statement in views(op.get_bind().dialect.name):
        # Not text(): a colon in a cast is no parameter.
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for view in VIEWS:
        op.execute(f"DROP VIEW {view}")
    for table in TABLES:
        op.drop_table(f"afterword_{table}")


def _tables(postgres: bool) -> None:
    column, check = sa.Column, sa.CheckConstraint
    op.create_table(
        "afterword_jobs",
        column("id", Id, primary_key=True),
        column("tenant", sa.String, nullable=False),
        column("status", sa.String, nullable=False),
        column("endpoint", sa.String, nullable=False),
        column("model", sa.String),
        column("priority", sa.SmallInteger, nullable=False),
        column("run_at", Instant, nullable=False),
        column("deadline", Instant, nullable=False),
        column("created_at", Instant, nullable=False),
        column("not_before", Instant),
        column("started_at", Instant),
        column("finished_at", Instant),
        column("attempt", sa.Integer, nullable=False, server_default=sa.text("0")),
        column("attempts_used", sa.Integer, nullable=False, server_default=sa.text("0")),
        column("max_attempts", sa.Integer, nullable=False),
        column("answer_attempt", sa.Integer),
        column("generation", sa.Integer, nullable=False, server_default=sa.text("0")),
        column("worker_id", Id),
        column("cancel_requested_at", Instant),
        column("waiting_for", sa.String),
        column("timeout_s", sa.Float, nullable=False),
        column("streamed", sa.Boolean, nullable=False),
        column("choices", sa.Integer),
        column("token_limit", sa.BigInteger),
        column("batch", sa.String),
        column("custom_id", sa.String),
        column("idempotency_key", sa.String),
        column("owns_key", sa.Boolean, nullable=False, server_default=sa.text("false")),
        column("fingerprint", sa.String, nullable=False),
        column("ordering_key", sa.String),
        column("traceparent", sa.String),
        column("webhook", sa.Text),
        column("metadata", Json),
        column("error_code", sa.String),
        column("error_message", sa.Text),
        column("error", Json),
        check(
            "status IN ('cancelled', 'completed', 'expired', 'failed', 'in_progress', 'queued')",
            name="afterword_jobs_status",
        ),
        check("(status = 'in_progress') = (worker_id IS NOT NULL)", name="afterword_jobs_holder"),
        check(
            "(status IN ('cancelled', 'completed', 'expired', 'failed')) = (finished_at IS NOT NULL)",
            name="afterword_jobs_finish",
        ),
        check("(status = 'completed') = (answer_attempt IS NOT NULL)", name="afterword_jobs_answer"),
        check("priority BETWEEN 0 AND 9", name="afterword_jobs_priority"),
    )
    op.create_table(
        "afterword_requests",
        column("job_id", Id, primary_key=True),
        column("body", sa.LargeBinary, nullable=False),
        column("request", Json),
    )
    op.create_table(
        "afterword_attempts",
        column("job_id", Id, primary_key=True),
        column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        column("endpoint", sa.String, nullable=False),
        column("worker_id", Id, nullable=False),
        column("sent_at", Instant),
        column("first_byte_at", Instant),
        column("first_token_at", Instant),
        column("finished_at", Instant),
        column("outcome", sa.String),
        column("error_code", sa.String),
        column("error_message", sa.Text),
        column("http_status", sa.SmallInteger),
        column("billed", sa.String, nullable=False),
        column("request_id", sa.String),
        column("retry_after_s", sa.Float),
        column("headers", Json),
        column("usage_requested", sa.Boolean, nullable=False, server_default=sa.text("false")),
        column("usage_source", sa.String),
        column("usage_flags", Json),
        column("reported_cost", Money),
        *(column(name, sa.BigInteger) for name in TOKENS),
        check(
            "outcome IS NULL OR outcome IN ('cancelled', 'completed', 'expired', 'failed', 'released', 'unknown')",
            name="afterword_attempts_outcome",
        ),
        check("(outcome IS NULL) = (finished_at IS NULL)", name="afterword_attempts_finish"),
        check("billed IN ('no', 'unknown', 'yes')", name="afterword_attempts_billed"),
    )
    op.create_table(
        "afterword_answers",
        column("job_id", Id, primary_key=True),
        column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        column("raw", sa.LargeBinary, nullable=False),
        column("raw_encoding", sa.String, nullable=False),
        column("usage_raw", sa.LargeBinary),
        column("usage", Json),
        column("response", Json),
        column("content", sa.Text),
        column("reasoning_content", sa.Text),
        column("refusal", sa.Text),
        column("tool_calls", Json),
        column("finish_reason", sa.String),
        column("response_id", sa.String),
        column("response_model", sa.String),
        column("system_fingerprint", sa.String),
    )
    op.create_table(
        "afterword_finished",
        column("cursor", sa.BigInteger, primary_key=True, autoincrement=False),
        column("job_id", Id, nullable=False, unique=True),
    )
    counters = op.create_table(
        "afterword_counters",
        column("name", sa.String, primary_key=True),
        column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(counters, [{"name": "finished", "value": 0}])
    op.create_table(
        "afterword_aliases",
        column("id", Id, primary_key=True),
        column("job_id", Id, nullable=False),
        column("outcome", sa.String, nullable=False),
        column("created_at", Instant, nullable=False),
    )
    op.create_table(
        "afterword_inbox",
        column("seq", Serial, primary_key=True, autoincrement=True),
        column("id", Id, nullable=False, server_default=sa.text("gen_random_uuid()" if postgres else SQLITE_UUID)),
        column("job", sa.Text, nullable=False),
        column(
            "created_at",
            Instant,
            nullable=False,
            server_default=sa.text("clock_timestamp()" if postgres else SQLITE_NOW),
        ),
    )
    op.create_table(
        "afterword_dead_letters",
        column("seq", Serial, primary_key=True, autoincrement=True),
        column("queue", sa.String, nullable=False),
        column("reason", sa.String, nullable=False),
        column("message", sa.Text, nullable=False),
        column("job_id", sa.Text),
        column("entry", sa.LargeBinary, nullable=False),
        column("created_at", Instant, nullable=False),
    )
    op.create_table(
        "afterword_workers",
        column("id", Id, primary_key=True),
        column("name", sa.String, nullable=False),
        column("slots", sa.Integer, nullable=False),
        column("started_at", Instant, nullable=False),
        column("lease_until", Instant, nullable=False),
    )
    leaders = op.create_table(
        "afterword_leaders",
        column("name", sa.String, primary_key=True),
        column("worker_id", Id),
        column("lease_until", Instant, nullable=False),
    )
    long_ago = "TIMESTAMPTZ '1970-01-01 00:00:00+00'" if postgres else "0"
    op.execute(sa.insert(leaders).values(name="dispatch", lease_until=sa.literal_column(long_ago)))


def _indexes() -> None:
    for name, columns, where, unique in (
        ("due", ["endpoint", "tenant", "priority", "run_at"], "status = 'queued'", False),
        ("start", ["run_at"], "status = 'queued'", False),
        ("deadline", ["deadline"], "status IN ('queued', 'in_progress')", False),
        ("held", ["worker_id"], "status = 'in_progress'", False),
        ("key", ["tenant", "idempotency_key"], "owns_key", True),
        ("batch", ["batch"], "batch IS NOT NULL", False),
    ):
        condition = sa.text(where)
        op.create_index(
            f"afterword_jobs_{name}",
            "afterword_jobs",
            columns,
            unique=unique,
            postgresql_where=condition,
            sqlite_where=condition,
        )
    op.create_index("afterword_inbox_id", "afterword_inbox", ["id"])


def views(dialect: str) -> list[str]:
    """Return the statements that create the views, as `api_contracts/sql` shows them."""
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
    day = "CAST(a.sent_at AT TIME ZONE 'UTC' AS date)" if postgres else "date(a.sent_at / 1000000, 'unixepoch')"
    columns = f"""
    id, tenant, status, batch, custom_id, idempotency_key, endpoint, model, priority, attempts, max_attempts,
    created_at, not_before, deadline, started_at, finished_at, waiting_for, waiting_until, finish_reason, content,
    reasoning_content, refusal, tool_calls, response, response_id, response_model, system_fingerprint, error_code,
    error_message, error, {", ".join(TOKENS)},
    usage, reported_cost, metadata, request, cursor"""
    job = f"""SELECT j.id, j.tenant, j.status, j.batch, j.custom_id, j.idempotency_key, j.endpoint, j.model, j.priority,
    j.attempt, j.max_attempts, {at("j.created_at")}, {at("j.not_before")}, {at("j.deadline")},
    {at("j.started_at")}, {at("j.finished_at")},
    CASE WHEN j.status <> 'queued' THEN NULL
         WHEN j.waiting_for IS NOT NULL AND j.run_at > {now} THEN j.waiting_for
         WHEN j.run_at > {now} THEN 'start'
         ELSE 'slot' END,
    CASE WHEN j.status = 'queued' AND j.run_at > {now} THEN {at("j.run_at")} END,
    r.finish_reason, r.content, r.reasoning_content, r.refusal, r.tool_calls, r.response, r.response_id,
    r.response_model, r.system_fingerprint, j.error_code, j.error_message, j.error,
    {tokens},
    r.usage, a.reported_cost, j.metadata, q.request, f.cursor"""
    bodies = """LEFT JOIN afterword_requests q ON q.job_id = j.id
LEFT JOIN afterword_attempts a ON a.job_id = j.id AND a.attempt = j.answer_attempt
LEFT JOIN afterword_answers r ON r.job_id = j.id AND r.attempt = j.answer_attempt"""
    statements = [
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
    {null(json)}, {null("numeric")}, {null(json)}, {null(json)}, {null("bigint")}
FROM afterword_inbox i""",
        """CREATE VIEW job_ids_v1 (id, job_id, outcome) AS
SELECT id, id, CASE WHEN error_code = 'idempotency_conflict' THEN 'conflict'
                    WHEN error_code = 'invalid_request' AND attempt = 0 THEN 'refused'
                    ELSE 'accepted' END
FROM afterword_jobs
UNION ALL
SELECT id, job_id, outcome FROM afterword_aliases""",
        f"""CREATE VIEW attempts_v1 (
    job_id, attempt, tenant, endpoint, model, sent_at, first_byte_at, first_token_at, finished_at, outcome,
    error_code, error_message, http_status, billed, request_id, retry_after_s, worker, partial,
    {", ".join(TOKENS)},
    usage, usage_source, usage_flags, usage_requested, reported_cost, headers) AS
SELECT a.job_id, a.attempt, j.tenant, a.endpoint, j.model, {at("a.sent_at")}, {at("a.first_byte_at")},
    {at("a.first_token_at")}, {at("a.finished_at")}, a.outcome, a.error_code, a.error_message, a.http_status,
    a.billed, a.request_id, a.retry_after_s, a.worker_id,
    CASE WHEN a.outcome <> 'completed' THEN r.response END,
    {tokens},
    r.usage, a.usage_source, a.usage_flags, a.usage_requested, a.reported_cost, a.headers
FROM afterword_attempts a
JOIN afterword_jobs j ON j.id = a.job_id
LEFT JOIN afterword_answers r ON r.job_id = a.job_id AND r.attempt = a.attempt""",
        f"""CREATE VIEW usage_v1 (
    job_id, attempt, tenant, batch, endpoint, model, metadata, day, outcome, billed, usage_source, usage_flags,
    {", ".join(TOKENS)},
    reported_cost) AS
SELECT a.job_id, a.attempt, j.tenant, j.batch, a.endpoint, j.model, j.metadata, {day}, a.outcome, a.billed,
    a.usage_source, a.usage_flags,
    {tokens},
    a.reported_cost
FROM afterword_attempts a
JOIN afterword_jobs j ON j.id = a.job_id
WHERE a.sent_at IS NOT NULL AND a.billed <> 'no'""",
        "CREATE VIEW submit_v1 (id, job) AS SELECT id, job FROM afterword_inbox",
    ]
    if not postgres:
        # A PostgreSQL view of one table takes inserts, and their RETURNING, by itself.
        statements.append(
            f"""CREATE TRIGGER afterword_submit_v1 INSTEAD OF INSERT ON submit_v1
BEGIN
    INSERT INTO afterword_inbox (id, job) VALUES (coalesce(lower(NEW.id), {SQLITE_UUID}), NEW.job);
END"""
        )
    return statements
