"""The tables. Status columns and bodies are in different tables, so a move never rewrites a prompt or an answer.

There are no foreign keys. The code that moves a job is the only writer of its attempts and bodies, and each key would
lock the job's row once more for every attempt and body.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

from worker.chat.usage import TOKENS
from worker.core.lifecycle import FINAL, Outcome, Status
from worker.store.clock import now
from worker.store.types import Id, Instant, JsonText, Money

metadata = MetaData()

# Indexes with this prefix serve queries on the views only. The migrations that create the views create these indexes,
# with the same expressions, and those differ by dialect. The worker's statements on tables use none of these indexes.
VIEW_INDEXES = "afterword_view_"

# SQLite numbers rows automatically only if the column is declared INTEGER.
Serial = BigInteger().with_variant(Integer, "sqlite")


def one_of(column: str, values: list[str]) -> str:
    """Return the condition of a CHECK that a column has one of these values."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in sorted(values))})"


jobs = Table(
    "afterword_jobs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant", String, nullable=False),
    Column("status", String, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("model", String),
    Column("priority", SmallInteger, nullable=False),
    # The earliest start. Every claim tests it.
    Column("run_at", Instant, nullable=False),
    Column("deadline", Instant, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("not_before", Instant),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    # The fence: each claim adds one; it never decreases.
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    # Requests that the endpoint may have executed; counted against `max_attempts`.
    Column("attempts_used", Integer, nullable=False, server_default=text("0")),
    Column("max_attempts", Integer, nullable=False),
    # The number of attempts in a row that were refused for the moment. Valid only while `error_code` is such a refusal.
    Column("refusals", Integer, nullable=False, server_default=text("0")),
    Column("answer_attempt", Integer),
    # Part of the Idempotency-Key. A replay adds one, because some endpoints store failures under a key.
    Column("generation", Integer, nullable=False, server_default=text("0")),
    # Seconds from acceptance to the first deadline. The first replay stores them for later replays.
    Column("replay_time_s", Float),
    Column("worker_id", Id),
    Column("cancel_requested_at", Instant),
    Column("waiting_for", String),
    Column("timeout_s", Float, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("choices", Integer),
    # The most tokens that the request allows for an answer; `usage_flags` marks an answer with more.
    Column("token_limit", BigInteger),
    Column("batch", String),
    Column("custom_id", String),
    Column("idempotency_key", String),
    # False if another job owns the key (a conflict), or if the request was refused.
    Column("owns_key", Boolean, nullable=False, server_default=text("false")),
    Column("fingerprint", String, nullable=False),
    Column("ordering_key", String),
    Column("traceparent", String),
    Column("webhook", Text),
    Column("metadata", JsonText),
    Column("error_code", String),
    Column("error_message", Text),
    Column("error", JsonText),
    CheckConstraint(one_of("status", list(Status)), name="afterword_jobs_status"),
    CheckConstraint("(status = 'in_progress') = (worker_id IS NOT NULL)", name="afterword_jobs_holder"),
    CheckConstraint(f"({one_of('status', list(FINAL))}) = (finished_at IS NOT NULL)", name="afterword_jobs_finish"),
    CheckConstraint("(status = 'completed') = (answer_attempt IS NOT NULL)", name="afterword_jobs_answer"),
    CheckConstraint("priority BETWEEN 0 AND 9", name="afterword_jobs_priority"),
    # Dispatch: the best due rows of one lane (endpoint, tenant), without reading the rows of other lanes.
    Index(
        "afterword_jobs_due", "endpoint", "tenant", "priority", "run_at",
        postgresql_where=text("status = 'queued'"), sqlite_where=text("status = 'queued'"),
    ),
    # The next start in any lane: when the dispatcher must look again.
    Index(
        "afterword_jobs_start", "run_at",
        postgresql_where=text("status = 'queued'"), sqlite_where=text("status = 'queued'"),
    ),
    # Expiry: rows past their deadline, however many rows have a better priority.
    Index(
        "afterword_jobs_deadline", "deadline",
        postgresql_where=text("status IN ('queued', 'in_progress')"),
        sqlite_where=text("status IN ('queued', 'in_progress')"),
    ),
    # Take-back after a lease has ended, and the holder's query for cancellations.
    Index(
        "afterword_jobs_held", "worker_id",
        postgresql_where=text("status = 'in_progress'"), sqlite_where=text("status = 'in_progress'"),
    ),
    # One job for each tenant and idempotency key.
    Index(
        "afterword_jobs_key", "tenant", "idempotency_key", unique=True,
        postgresql_where=text("owns_key"), sqlite_where=text("owns_key"),
    ),
    # Queries for the jobs of a batch.
    Index(
        "afterword_jobs_batch", "batch",
        postgresql_where=text("batch IS NOT NULL"), sqlite_where=text("batch IS NOT NULL"),
    ),
)  # fmt: skip

requests = Table(
    "afterword_requests",
    metadata,
    Column("job_id", Id, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("request", JsonText),
)

attempts = Table(
    "afterword_attempts",
    metadata,
    Column("job_id", Id, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("endpoint", String, nullable=False),
    Column("worker_id", Id, nullable=False),
    # Written with the claim, before the request is sent. Cleared at the end if the connection never opened.
    Column("sent_at", Instant),
    Column("first_byte_at", Instant),
    Column("first_token_at", Instant),
    Column("finished_at", Instant),
    Column("outcome", String),
    Column("error_code", String),
    Column("error_message", Text),
    Column("http_status", SmallInteger),
    Column("billed", String, nullable=False),
    Column("request_id", String),
    Column("retry_after_s", Float),
    # The owner of the failure, judged from this attempt alone: `job` or `endpoint`. NULL in rows of older releases.
    Column("trouble", String),
    Column("headers", JsonText),
    Column("usage_requested", Boolean, nullable=False, server_default=text("false")),
    Column("usage_source", String),
    Column("usage_flags", JsonText),
    Column("reported_cost", Money),
    *(Column(name, BigInteger) for name in TOKENS),
    CheckConstraint(f"outcome IS NULL OR {one_of('outcome', list(Outcome))}", name="afterword_attempts_outcome"),
    CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name="afterword_attempts_finish"),
    CheckConstraint(one_of("billed", ["yes", "no", "unknown"]), name="afterword_attempts_billed"),
)

# The exact bytes of an answer, whole or partial, and the values parsed from them.
answers = Table(
    "afterword_answers",
    metadata,
    Column("job_id", Id, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("raw", LargeBinary, nullable=False),
    Column("raw_encoding", String, nullable=False),
    Column("usage_raw", LargeBinary),
    Column("usage", JsonText),
    Column("response", JsonText),
    Column("content", Text),
    Column("reasoning_content", Text),
    Column("refusal", Text),
    Column("tool_calls", JsonText),
    Column("finish_reason", String),
    Column("response_id", String),
    Column("response_model", String),
    Column("system_fingerprint", String),
)

# The feed: cursors rise in the order of commit (jobs/store/finished_feed.py), so `cursor > N` never misses a row.
finished = Table(
    "afterword_finished",
    metadata,
    Column("cursor", BigInteger, primary_key=True, autoincrement=False),
    Column("job_id", Id, nullable=False, unique=True),
)

counters = Table(
    "afterword_counters",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# Ids that lead to a job with another id: of duplicates, and task or inbox ids of jobs that name their own `id`.
aliases = Table(
    "afterword_aliases",
    metadata,
    Column("id", Id, primary_key=True),
    Column("job_id", Id, nullable=False),
    Column("outcome", String, nullable=False),
    Column("created_at", Instant, nullable=False),
)

# Jobs inserted through submit_v1, as unparsed text: a jsonb column would abort the caller's transaction on \u0000.
inbox = Table(
    "afterword_inbox",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=True),
    Column("id", Id, nullable=False, server_default=text("gen_random_uuid()")),
    Column("job", Text, nullable=False),
    Column("created_at", Instant, nullable=False, server_default=now()),
    # Values that the producer gives for views and filters. At acceptance only the job's text counts.
    *(Column(name, String) for name in ("tenant", "batch", "custom_id", "idempotency_key")),
    # Queries on jobs_v1 by id.
    Index("afterword_inbox_id", "id"),
)

# The state of each endpoint, and the trouble that led to it. An endpoint without a row is open.
endpoints = Table(
    "afterword_endpoints",
    metadata,
    Column("name", String, primary_key=True),
    Column("state", String, nullable=False),
    # Who paused it (see the CHECK below), and the failure code that was the reason.
    Column("cause", String),
    Column("reason", String),
    Column("since", Instant, nullable=False),
    # While the endpoint is paused, no probe starts before `probe_at`, and only `probe_job` can be claimed.
    Column("probe_at", Instant),
    Column("probe_job", Id),
    # The job that met trouble first; trouble of a second, different job pauses the endpoint.
    Column("suspect_job", Id),
    Column("suspect_at", Instant),
    # Start of the first call that met trouble, if no call was answered since. The wait of a job held alone grows by it.
    Column("troubled_at", Instant),
    # Start of the latest call that was answered, and the time of the latest answer to any worker. Written about once a
    # second.
    Column("alive_at", Instant),
    Column("answered_at", Instant),
    # JSON: up to ten ids of different jobs, of all workers, that the endpoint failed since its latest answer.
    Column("sick_jobs", Text),
    CheckConstraint(one_of("state", ["open", "paused", "slow"]), name="afterword_endpoints_state"),
    CheckConstraint(
        f"cause IS NULL OR {one_of('cause', ['breaker', 'operator', 'trouble'])}", name="afterword_endpoints_cause"
    ),
    CheckConstraint("(state = 'paused') = (cause IS NOT NULL)", name="afterword_endpoints_pause"),
)

# Ids cancelled through cancel_v1. A row stays until the job's end is in the feed, or until the job's message arrives.
cancellations = Table(
    "afterword_cancellations",
    metadata,
    Column("id", Id, primary_key=True),
    Column("created_at", Instant, nullable=False),
)

dead_letters = Table(
    "afterword_dead_letters",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=True),
    Column("queue", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("message", Text, nullable=False),
    # The id of the entry, if one could be read. It may be no UUID.
    Column("job_id", Text),
    Column("entry", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
)

workers = Table(
    "afterword_workers",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("lease_until", Instant, nullable=False),
    # Length of the lease at its last renewal, in seconds. NULL in rows of workers of release 0007.
    Column("lease_s", Float),
    # The number of the worker's release, see store/version.py. NULL in rows of releases that did not write it.
    Column("release", String),
)

# One row: the number of the oldest release that the schema serves.
contract = Table(
    "afterword_contract",
    metadata,
    Column("serves_from", String, primary_key=True),
)

leaders = Table(
    "afterword_leaders",
    metadata,
    Column("name", String, primary_key=True),
    Column("worker_id", Id),
    Column("lease_until", Instant, nullable=False),
)
