"""Reading costs what it returns: views without a volatile clock, indexes for their queries; unread jobs have names."""

from collections.abc import Callable, Sequence

import sqlalchemy as sa
from alembic import context, op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TOKENS = (
    "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "cache_write_tokens", "prompt_text_tokens",
    "prompt_audio_tokens", "prompt_image_tokens", "completion_text_tokens", "completion_audio_tokens",
    "completion_image_tokens", "reasoning_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens",
)  # fmt: skip
SQLITE_NOW = "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"
SQLITE_UUID = (
    "(lower(substr(hex(randomblob(4)), 1, 8) || '-' || substr(hex(randomblob(2)), 1, 4) || '-4' "
    "|| substr(hex(randomblob(2)), 2, 3) || '-' || substr('89ab', abs(random() % 4) + 1, 1) "
    "|| substr(hex(randomblob(2)), 2, 3) || '-' || hex(randomblob(6))))"
)
# What a producer may say beside the job's text. The longest that a job may have of each is 255 characters.
HINTS = ("tenant", "batch", "custom_id", "idempotency_key")
INDEXED_HINTS = ("batch", "custom_id", "idempotency_key")
LONGEST = 255
# What of a job's row the view shows, and what it needs to show the rest.
OF_THE_ROW = (
    "id", "tenant", "status", "batch", "custom_id", "idempotency_key", "endpoint", "model", "priority", "attempt",
    "attempts_used", "max_attempts", "created_at", "not_before", "deadline", "started_at", "finished_at", "run_at",
    "waiting_for", "answer_attempt", "error_code", "error_message", "error", "metadata",
)  # fmt: skip


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    for name in HINTS:
        op.add_column("afterword_inbox", sa.Column(name, sa.String))
    for name, (table, columns, where) in indexes(dialect).items():
        condition = f" WHERE {where}" if where else ""
        op.get_bind().exec_driver_sql(f"CREATE INDEX {name} ON {table} ({columns}){condition}")
    if dialect == "postgresql":
        # What its planner knows of a partial index on an expression it does not use; half a percent is its guess.
        for name in INDEXED_HINTS:
            shown = _hint(dialect, name)
            op.execute(f"CREATE STATISTICS afterword_view_unread_{name}_values ON ({shown}) FROM afterword_inbox")
    if dialect == "sqlite":
        _drop_views()
    # Replaced where that can be: the rights on a view would go with it.
    create = "CREATE OR REPLACE VIEW" if dialect == "postgresql" else "CREATE VIEW"
    for statement in views(dialect):
        # Not text(): a colon in a cast is no parameter.
        op.get_bind().exec_driver_sql(statement.replace("CREATE VIEW", create, 1))


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    _drop_views()
    for name in indexes(dialect):
        op.drop_index(name)
    for name in HINTS:
        op.drop_column("afterword_inbox", name)
    for revision in _BEFORE:
        for statement in context.script.get_revision(revision).module.views(dialect):
            if any(f"{view} (" in statement or f"ON {view}" in statement for view in _BEFORE[revision]):
                op.get_bind().exec_driver_sql(statement)


_BEFORE = {"0001": ("submit_v1",), "0008": ("jobs_v1", "finished_v1")}


def _drop_views() -> None:
    for view in ("submit_v1", "jobs_v1", "finished_v1"):
        op.execute(f"DROP VIEW {view}")


def indexes(dialect: str) -> dict[str, tuple[str, str, str | None]]:
    """Return the indexes that serve questions to the views, by name: table, columns, condition.

    On SQLite a time is indexed as the text that the view shows.
    """
    at = _at(dialect)
    jobs, inbox = "afterword_jobs", "afterword_inbox"
    ended = at("finished_at")
    found = {
        # jobs_v1 WHERE custom_id = …
        "custom_id": (jobs, "custom_id", "custom_id IS NOT NULL"),
        # jobs_v1 WHERE idempotency_key = …, with a tenant or without
        "key": (jobs, "idempotency_key", "idempotency_key IS NOT NULL"),
        # jobs_v1 ORDER BY created_at DESC LIMIT …
        "newest": (jobs, at("created_at"), None),
        # jobs_v1 WHERE status = 'failed' AND finished_at > …; the counts of `doctor`
        "ended": (jobs, f"status, {ended}", f"{ended} IS NOT NULL"),
        # jobs_v1 WHERE status <> 'completed' AND finished_at > …
        "failed": (jobs, ended, f"status <> 'completed' AND {ended} IS NOT NULL"),
        # usage_v1 WHERE day = …
        "day": ("afterword_attempts", f"({_day(dialect, 'sent_at')})", None),
        # The same questions to jobs_v1, of what no worker has read yet.
        "unread_newest": (inbox, at("created_at"), None),
    }
    for name in INDEXED_HINTS:
        shown = _hint(dialect, name)
        found[f"unread_{name}"] = (inbox, f"({shown})", f"{shown} IS NOT NULL")
    # Conditions word for word as the view writes the column: SQLite does not see that they follow from another one.
    return {f"afterword_view_{name}": index for name, index in found.items()}


def views(dialect: str) -> list[str]:
    """Return the statements that create the views, as `api_contracts/sql` shows them."""
    at, tokens = _at(dialect), ", ".join(f"a.{name}" for name in TOKENS)
    columns = f"""
    id, tenant, status, batch, custom_id, idempotency_key, endpoint, model, priority, attempts, max_attempts,
    created_at, not_before, deadline, started_at, finished_at, waiting_for, waiting_until, finish_reason, content,
    reasoning_content, refusal, tool_calls, response, response_id, response_model, system_fingerprint, error_code,
    error_message, error, {", ".join(TOKENS)},
    usage, reported_cost, metadata, request, cursor, attempts_used"""

    def job(waiting: str) -> str:
        return f"""SELECT j.id, j.tenant, j.status, j.batch, j.custom_id, j.idempotency_key, j.endpoint, j.model,
    j.priority, j.attempt, j.max_attempts, {at("j.created_at")}, {at("j.not_before")}, {at("j.deadline")},
    {at("j.started_at")}, {at("j.finished_at")},
    {waiting},
    r.finish_reason, r.content, r.reasoning_content, r.refusal, r.tool_calls, r.response, r.response_id,
    r.response_model, r.system_fingerprint, j.error_code, j.error_message, j.error,
    {tokens},
    r.usage, a.reported_cost, j.metadata, q.request, f.cursor, j.attempts_used"""

    bodies = """LEFT JOIN afterword_requests q ON q.job_id = j.id
LEFT JOIN afterword_attempts a ON a.job_id = j.id AND a.attempt = j.answer_attempt
LEFT JOIN afterword_answers r ON r.job_id = j.id AND r.attempt = j.answer_attempt"""
    nothing = f"{_null(dialect, 'varchar')}, {_null(dialect, 'timestamptz')}"
    of_all = {"postgresql": _all_jobs_postgresql, "sqlite": _all_jobs_sqlite}[dialect]
    return [
        f"""CREATE VIEW finished_v1 ({columns}) AS
{job(nothing)}
FROM afterword_finished f
JOIN afterword_jobs j ON j.id = f.job_id
{bodies}""",
        f"CREATE VIEW jobs_v1 ({columns}) AS\n{of_all(job(_waiting(dialect)), bodies)}",
        *_submit(dialect),
    ]


def _waiting(dialect: str) -> str:
    """Return waiting_for and waiting_until."""
    at = _at(dialect)
    # Not clock_timestamp(): PostgreSQL plans a view with a volatile function apart from the question about it.
    now = "statement_timestamp()" if dialect == "postgresql" else SQLITE_NOW
    return f"""CASE WHEN j.status <> 'queued' THEN NULL
         WHEN j.waiting_for IS NULL AND j.run_at > {now} THEN 'start'
         WHEN e.state = 'paused' THEN 'endpoint_paused'
         WHEN j.run_at > {now} THEN j.waiting_for
         ELSE 'slot' END,
    CASE WHEN j.status <> 'queued' THEN NULL
         WHEN e.state = 'paused' AND e.probe_at > j.run_at THEN {at("e.probe_at")}
         WHEN j.run_at > {now} THEN {at("j.run_at")}
         WHEN e.state = 'paused' THEN {at("e.probe_at")}
         ELSE NULL END"""


def _all_jobs_postgresql(job: str, bodies: str) -> str:
    """Unite rows of single tables and join outside: so an index of each gives the order that is asked for."""
    instants = ("not_before", "deadline", "started_at", "finished_at", "run_at")
    kinds = {"priority": "smallint", "max_attempts": "integer", "answer_attempt": "integer", "error_message": "text"}
    kinds |= dict.fromkeys(instants, "timestamptz") | dict.fromkeys(("error", "metadata"), "jsonb")
    shown = {
        "id": "id",
        "status": "CAST('queued' AS varchar)",
        "attempt": "0",
        "attempts_used": "0",
        "created_at": "created_at",
    }
    shown |= {name: _hint("postgresql", name) for name in HINTS}
    unread = [shown.get(name, f"CAST(NULL AS {kinds.get(name, 'varchar')})") for name in OF_THE_ROW]
    return f"""{job}
FROM (
    SELECT {_lines(OF_THE_ROW)}
    FROM afterword_jobs
    UNION ALL
    SELECT {_lines(unread)}
    FROM afterword_inbox
) j
LEFT JOIN afterword_finished f ON f.job_id = j.id
{bodies}
LEFT JOIN afterword_endpoints e ON e.name = j.endpoint"""


def _all_jobs_sqlite(job: str, bodies: str) -> str:
    """Join first, and unite columns of the same affinity: SQLite takes no other union apart to use the indexes."""
    text, number = "CAST(NULL AS text)", "CAST(NULL AS integer)"
    tenant, batch, custom_id, key = (_hint("sqlite", f"i.{name}") for name in HINTS)
    return f"""{job}
FROM afterword_jobs j
LEFT JOIN afterword_finished f ON f.job_id = j.id
{bodies}
LEFT JOIN afterword_endpoints e ON e.name = j.endpoint
UNION ALL
SELECT i.id, {tenant}, CAST('queued' AS text), {batch},
    {custom_id}, {key}, {text}, {text}, {number},
    CAST(0 AS integer), {number}, {_at("sqlite")("i.created_at")}, NULL, NULL,
    NULL, NULL,
    'slot', NULL,
    {_lines([text] * 12)},
    {_lines([number] * len(TOKENS))},
    {_lines([text] * 4)}, {number}, CAST(0 AS integer)
FROM afterword_inbox i"""


def _lines(columns: Sequence[str]) -> str:
    """Return columns, a few a line."""
    return ",\n    ".join(", ".join(columns[start : start + 7]) for start in range(0, len(columns), 7))


def _submit(dialect: str) -> list[str]:
    names = f"id, job, {', '.join(HINTS)}"
    view = f"CREATE VIEW submit_v1 ({names}) AS SELECT {names} FROM afterword_inbox"
    if dialect == "postgresql":
        # A view of one table takes inserts, and their RETURNING, by itself.
        return [view]
    new = ", ".join(f"NEW.{name}" for name in HINTS)
    return [
        view,
        f"""CREATE TRIGGER afterword_submit_v1 INSTEAD OF INSERT ON submit_v1
BEGIN
    INSERT INTO afterword_inbox ({names})
    VALUES (coalesce(lower(NEW.id), {SQLITE_UUID}), NEW.job, {new});
END""",
    ]


def _at(dialect: str) -> Callable[[str], str]:
    """Return what writes a column of instants as the views show it."""
    if dialect == "postgresql":
        return str
    return lambda column: (
        f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000000, 'unixepoch') || printf('.%06dZ', {column} % 1000000)"
    )


def _day(dialect: str, column: str) -> str:
    """Return the day of usage_v1, as its view writes it."""
    if dialect == "postgresql":
        return f"CAST({column} AT TIME ZONE 'UTC' AS date)"
    return f"date({column} / 1000000, 'unixepoch')"


def _hint(dialect: str, column: str) -> str:
    """Return a hint as the view shows it: a text of any length goes in, an index of PostgreSQL holds 2,700 bytes."""
    if dialect == "postgresql":
        return f"CAST(left({column}, {LONGEST}) AS varchar)"
    return f"CAST(substr({column}, 1, {LONGEST}) AS text)"


def _null(dialect: str, kind: str) -> str:
    return f"CAST(NULL AS {kind})" if dialect == "postgresql" else "NULL"
