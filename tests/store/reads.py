"""The queries that the pages recommend for the views, and the rows that they read."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from worker.jobs.store.listing import counts
from worker.store.clock import POSTGRESQL_NOW, SQLITE_NOW
from worker.store.row_count import MOST
from worker.store.types import microseconds
from worker.webhooks.store.metrics import unfinished

Ask = Callable[[Connection], Any]

DAY, OLD_DAY = "2024-11-20", "2024-10-01"
_N = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})"
JOBS = f"""
INSERT INTO afterword_jobs (id, tenant, status, endpoint, model, priority, run_at, deadline, created_at, started_at,
                            finished_at, attempt, attempts_used, max_attempts, answer_attempt, timeout_s, streamed,
                            fingerprint, batch, custom_id, idempotency_key, owns_key, error_code)
{_N}
SELECT {{id}}, 'default', CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'completed' END, 'default', 'm', 5, {{at}},
       {{at}} + {{second}} * 86400, {{at}}, {{at}}, {{at}}, 1, 1, 5, CASE WHEN n % 50 = 0 THEN NULL ELSE 1 END, 60,
       false, 'x', '{{name}}-' || (n / 20), '{{name}}-' || n, '{{name}}-' || n, true,
       CASE WHEN n % 50 = 0 THEN 'bad_request' END
FROM n
"""
FINISHED = f"INSERT INTO afterword_finished (cursor, job_id) {_N} SELECT {{tag}} * 10000000 + n, {{id}} FROM n"
ATTEMPTS = f"""
INSERT INTO afterword_attempts (job_id, attempt, endpoint, worker_id, sent_at, finished_at, outcome, billed,
                                prompt_tokens, completion_tokens)
{_N}
SELECT {{id}}, 1, 'default', {{id}}, CASE WHEN n % 50 = 1 THEN {{sent}} ELSE {{at}} END, {{at}},
       CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'completed' END, 'yes', 5, 6
FROM n
"""
ANSWERS = f"""
INSERT INTO afterword_answers (job_id, attempt, raw, raw_encoding, content, finish_reason)
{_N}
SELECT {{id}}, 1, {{empty}}, 'identity', 'Good day.', 'stop' FROM n WHERE n % 50 <> 0
"""
REQUESTS = f"INSERT INTO afterword_requests (job_id, body) {_N} SELECT {{id}}, {{empty}} FROM n"
QUEUED = f"""
INSERT INTO afterword_jobs (id, tenant, status, endpoint, priority, run_at, deadline, created_at, max_attempts,
                            timeout_s, streamed, fingerprint, batch)
{_N}
SELECT {{id}}, 'default', 'queued', 'default', 5, {{at}}, {{at}} + {{second}} * 86400000, {{at}}, 5, 60, false, 'x',
       '{{name}}' FROM n
"""
UNREAD = f"""
INSERT INTO afterword_inbox (id, job, created_at, tenant, batch, custom_id, idempotency_key)
{_N}
SELECT {{id}}, '{{{{"request": {{{{}}}}}}}}', {{at}}, 'default', '{{name}}-' || (n / 20), '{{name}}-' || n,
       '{{name}}-' || n
FROM n
"""
ENDED = (JOBS, FINISHED, ATTEMPTS, ANSWERS, REQUESTS)


def fill(engine: Engine, *statements: str, rows: int, name: str, tag: int, age_s: int, day: str = OLD_DAY) -> None:
    """Insert rows created `age_s` seconds ago; every fiftieth request was sent on `day`."""
    sent = datetime.fromisoformat(f"{day}T12:00:00+00:00")
    if engine.dialect.name == "postgresql":
        words = {
            "id": f"CAST('{tag:08d}-0000-4000-8000-' || lpad(CAST(n AS text), 12, '0') AS uuid)",
            "at": f"({POSTGRESQL_NOW} - interval '{age_s} s')",
            "sent": f"timestamptz '{sent}'",
            "second": "interval '1 s'",
            "empty": "'\\x7b7d'",
        }
    else:
        words = {
            "id": f"printf('{tag:08d}-0000-4000-8000-%012d', n)",
            "at": f"({SQLITE_NOW} - {age_s}000000 + n % 1000)",
            "sent": str(microseconds(sent)),
            "second": "1000000",
            "empty": "x'7b7d'",
        }
    with engine.begin() as connection:
        for statement in statements:
            made = statement.format(**words, rows=rows, name=name, tag=tag)
            connection.exec_driver_sql(made.replace("%", "%%") if engine.dialect.name == "postgresql" else made)


def fill_ours(engine: Engine) -> None:
    """Insert the jobs that READS finds, and as many queued and unread jobs."""
    fill(engine, *ENDED, rows=MOST, name="ours", tag=1, age_s=60, day=DAY)
    fill(engine, QUEUED, rows=MOST, name="queued", tag=98, age_s=90)
    fill(engine, UNREAD, rows=MOST, name="unread", tag=99, age_s=90)


def settle(engine: Engine) -> None:
    """Update the planner's statistics and clean the pages, as autovacuum does within minutes."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE")


def sql(statement: str, **values: Any) -> Ask:
    """Return a function that runs the statement and returns its rows. It replaces AN_HOUR_AGO by the database's own
    expression.
    """

    def ask(connection: Connection) -> Any:
        postgres = connection.dialect.name == "postgresql"
        hour = "now() - interval '1 hour'" if postgres else "strftime('%Y-%m-%dT%H:%M:%S', 'now', '-1 hour')"
        return connection.execute(text(statement.replace("AN_HOUR_AGO", hour)), values).all()

    return ask


_ID = "00000001-0000-4000-8000-000000000007"
_SOME = "cursor, id, status, custom_id, content, error_code"
# `fill_ours()` inserts the rows that these queries find.
READS: Mapping[str, Ask] = {
    "a page of the feed": sql(f"SELECT {_SOME} FROM finished_v1 WHERE cursor > 10000500 ORDER BY cursor LIMIT 100"),
    "a page with all columns": sql("SELECT * FROM finished_v1 WHERE cursor > 10000500 ORDER BY cursor LIMIT 100"),
    "the newest cursor": sql("SELECT cursor FROM finished_v1 ORDER BY cursor DESC LIMIT 1"),
    "a job by id": sql("SELECT * FROM jobs_v1 WHERE id = :id", id=_ID),
    "what an id led to": sql("SELECT job_id, outcome FROM job_ids_v1 WHERE id = :id", id=_ID),
    "a job's attempts": sql("SELECT * FROM attempts_v1 WHERE job_id = :id ORDER BY attempt", id=_ID),
    "a job by custom_id": sql("SELECT * FROM jobs_v1 WHERE custom_id = 'ours-7'"),
    "a job by idempotency key": sql("SELECT * FROM jobs_v1 WHERE tenant = 'default' AND idempotency_key = 'ours-7'"),
    "a batch": sql("SELECT custom_id, status, content, error_code FROM jobs_v1 WHERE batch = 'ours-7'"),
    "the statuses of a batch": sql("SELECT status, count(*) FROM jobs_v1 WHERE batch = 'ours-7' GROUP BY status"),
    "the newest jobs": sql("SELECT id, status, created_at FROM jobs_v1 ORDER BY created_at DESC LIMIT 20"),
    "failures of the last hour": sql(
        "SELECT error_code, count(*) FROM jobs_v1 "
        "WHERE status IN ('failed', 'expired') AND finished_at > AN_HOUR_AGO GROUP BY error_code"
    ),
    "what did not succeed in the last hour": sql(
        "SELECT error_code, count(*) FROM jobs_v1 "
        "WHERE finished_at > AN_HOUR_AGO AND status <> 'completed' GROUP BY error_code"
    ),
    "a day's usage": sql(
        f"SELECT tenant, model, count(*), sum(prompt_tokens) FROM usage_v1 WHERE day = '{DAY}' GROUP BY tenant, model"
    ),
    "doctor's counts of jobs": counts,
    "doctor's counts of deliveries": unfinished,
}
