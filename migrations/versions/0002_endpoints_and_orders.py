"""Endpoints that rest, marks of cancelled ids, the doors `cancel_v1` and `replay_v1`; jobs wait for their endpoint."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TOKENS = (
    "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "cache_write_tokens", "prompt_text_tokens",
    "prompt_audio_tokens", "prompt_image_tokens", "completion_text_tokens", "completion_audio_tokens",
    "completion_image_tokens", "reasoning_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens",
)  # fmt: skip
SQLITE_NOW = "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"
CANCELLED = "The job was cancelled."
# Neither ran nor could: there is nothing to repeat, and a key that belongs to another request stays with it.
REFUSED = "(attempt = 0 AND error_code IN ('invalid_request', 'idempotency_conflict'))"

Id = postgresql.UUID(as_uuid=False).with_variant(sa.String(36), "sqlite")
Instant = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")


def upgrade() -> None:
    _drop_changed_views()
    _tables()
    for statement in views(op.get_bind().dialect.name):
        # Not text(): a colon in a cast is no parameter.
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for view in ("cancel_v1", "replay_v1"):
        op.execute(f"DROP VIEW {view}")
        if op.get_bind().dialect.name == "postgresql":
            op.execute(f"DROP FUNCTION afterword_{view}()")
    _drop_changed_views()
    op.drop_table("afterword_endpoints")
    op.drop_table("afterword_cancellations")
    op.drop_column("afterword_jobs", "replay_time_s")
    for statement in _job_views(op.get_bind().dialect.name, paused=False):
        op.get_bind().exec_driver_sql(statement)


def _drop_changed_views() -> None:
    op.execute("DROP VIEW finished_v1")
    op.execute("DROP VIEW jobs_v1")


def _tables() -> None:
    column, check = sa.Column, sa.CheckConstraint
    op.add_column("afterword_jobs", column("replay_time_s", sa.Float))
    op.create_table(
        "afterword_endpoints",
        column("name", sa.String, primary_key=True),
        column("state", sa.String, nullable=False),
        column("cause", sa.String),
        column("reason", sa.String),
        column("since", Instant, nullable=False),
        column("probe_at", Instant),
        column("probe_job", Id),
        column("suspect_job", Id),
        column("suspect_at", Instant),
        column("alive_at", Instant),
        check("state IN ('open', 'paused', 'slow')", name="afterword_endpoints_state"),
        check("cause IS NULL OR cause IN ('breaker', 'operator', 'trouble')", name="afterword_endpoints_cause"),
        check("(state = 'paused') = (cause IS NOT NULL)", name="afterword_endpoints_pause"),
    )
    op.create_table(
        "afterword_cancellations",
        column("id", Id, primary_key=True),
        column("created_at", Instant, nullable=False),
    )


def views(dialect: str) -> list[str]:
    """Return the statements that create what is new here, as `api_contracts/sql` shows them."""
    doors = _postgresql_doors() if dialect == "postgresql" else _sqlite_doors()
    return [*_job_views(dialect, paused=True), *doors]


def _job_views(dialect: str, *, paused: bool) -> list[str]:
    """Return jobs_v1 and finished_v1; `paused`: a queued job says that its endpoint rests."""
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
    resting = "\n         WHEN e.state = 'paused' THEN 'endpoint_paused'" if paused else ""
    probing = f"\n         WHEN e.state = 'paused' THEN {at('e.probe_at')}" if paused else ""
    endpoint = "\nLEFT JOIN afterword_endpoints e ON e.name = j.endpoint" if paused else ""
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
         WHEN j.waiting_for IS NULL AND j.run_at > {now} THEN 'start'{resting}
         WHEN j.run_at > {now} THEN j.waiting_for
         ELSE 'slot' END,
    CASE WHEN j.status = 'queued' AND j.run_at > {now} THEN {at("j.run_at")}
         WHEN j.status <> 'queued' THEN NULL{probing}
         ELSE NULL END,
    r.finish_reason, r.content, r.reasoning_content, r.refusal, r.tool_calls, r.response, r.response_id,
    r.response_model, r.system_fingerprint, j.error_code, j.error_message, j.error,
    {tokens},
    r.usage, a.reported_cost, j.metadata, q.request, f.cursor"""
    bodies = f"""LEFT JOIN afterword_requests q ON q.job_id = j.id
LEFT JOIN afterword_attempts a ON a.job_id = j.id AND a.attempt = j.answer_attempt
LEFT JOIN afterword_answers r ON r.job_id = j.id AND r.attempt = j.answer_attempt{endpoint}"""
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
    {null(json)}, {null("numeric")}, {null(json)}, {null(json)}, {null("bigint")}
FROM afterword_inbox i""",
    ]


_CANCEL_VIEW = "CREATE VIEW cancel_v1 (id) AS SELECT id FROM afterword_cancellations"
_REPLAY_VIEW = f"""CREATE VIEW replay_v1 (id) AS
SELECT id FROM afterword_jobs
WHERE status IN ('cancelled', 'expired', 'failed') AND NOT coalesce({REFUSED}, false)"""


def _order(job: str, *, now: str, mark: str, error: str, time_s: str, later: str) -> tuple[str, str]:
    """Return the statements of a cancellation and of a replay of the id `job`.

    `mark`: an INSERT of `{owner}`, the job that the id leads to; `time_s`: the seconds a job had from its acceptance to
    its deadline; `later`: so many seconds from now.
    """
    owner = f"coalesce((SELECT job_id FROM afterword_aliases WHERE id = {job}), {job})"
    # The first UPDATE holds the job still. The mark last: a replay and the dispatcher lock in this order too.
    cancel = f"""    UPDATE afterword_jobs SET cancel_requested_at = {now}
    WHERE id = {owner} AND status IN ('queued', 'in_progress') AND cancel_requested_at IS NULL;
    UPDATE afterword_jobs
    SET status = 'cancelled', finished_at = {now}, waiting_for = NULL,
        error_code = 'cancelled', error_message = '{CANCELLED}', error = {error}
    WHERE id = {owner} AND status = 'queued';
    {mark.format(owner=owner)};"""
    replay = f"""    UPDATE afterword_jobs
    SET status = 'queued', finished_at = NULL, cancel_requested_at = NULL, waiting_for = NULL, worker_id = NULL,
        attempts_used = 0, generation = generation + 1, run_at = {now}, replay_time_s = {time_s}, deadline = {later},
        error_code = NULL, error_message = NULL, error = NULL
    WHERE id = {owner} AND status IN ('cancelled', 'expired', 'failed') AND NOT coalesce({REFUSED}, false);
    DELETE FROM afterword_cancellations WHERE id IN ({job}, {owner});
    DELETE FROM afterword_finished
    WHERE job_id = {owner} AND EXISTS (SELECT 1 FROM afterword_jobs WHERE id = {owner} AND status = 'queued');"""
    return cancel, replay


def _sqlite_doors() -> list[str]:
    error = f"""'{{"code":"cancelled","message":"{CANCELLED}"}}'"""
    mark = f"INSERT OR IGNORE INTO afterword_cancellations (id, created_at)\n    VALUES ({{owner}}, {SQLITE_NOW})"
    time_s = "coalesce(replay_time_s, (deadline - created_at) / 1000000.0)"
    later = f"{SQLITE_NOW} + CAST({time_s} * 1000000 AS INTEGER)"
    cancel, replay = _order("lower(NEW.id)", now=SQLITE_NOW, mark=mark, error=error, time_s=time_s, later=later)
    return [
        _CANCEL_VIEW,
        f"CREATE TRIGGER afterword_cancel_v1 INSTEAD OF INSERT ON cancel_v1\nBEGIN\n{cancel}\nEND",
        _REPLAY_VIEW,
        f"CREATE TRIGGER afterword_replay_v1 INSTEAD OF INSERT ON replay_v1\nBEGIN\n{replay}\nEND",
    ]


def _postgresql_doors() -> list[str]:
    """Return views that a role may be allowed to insert into without any right on the tables behind them.

    The search path is that of the migration (`migrations/env.py`): our schema, and temporary tables last.
    """
    error = f"""'{{"code":"cancelled","message":"{CANCELLED}"}}'::jsonb"""
    mark = (
        "INSERT INTO afterword_cancellations (id, created_at)\n"
        "    VALUES ({owner}, clock_timestamp()) ON CONFLICT DO NOTHING"
    )
    statements = []
    time_s = "coalesce(replay_time_s, EXTRACT(EPOCH FROM deadline - created_at)::float8)"
    later = f"clock_timestamp() + make_interval(secs => {time_s})"
    orders = _order("NEW.id", now="clock_timestamp()", mark=mark, error=error, time_s=time_s, later=later)
    for view, created, body in zip(("cancel_v1", "replay_v1"), (_CANCEL_VIEW, _REPLAY_VIEW), orders, strict=True):
        statements += [
            created,
            f"CREATE FUNCTION afterword_{view}() RETURNS trigger LANGUAGE plpgsql\n"
            f"SECURITY DEFINER SET search_path FROM CURRENT AS $$\nBEGIN\n{body}\n    RETURN NEW;\nEND $$",
            f"CREATE TRIGGER afterword_{view} INSTEAD OF INSERT ON {view}\n"
            f"FOR EACH ROW EXECUTE FUNCTION afterword_{view}()",
            # Whoever may execute it can hang it on a table of their own, and needs no right on the view.
            f"REVOKE EXECUTE ON FUNCTION afterword_{view}() FROM PUBLIC",
        ]
    return statements
