"""The tables. Narrow rows that move, and bodies apart from them: a move never rewrites a prompt or an answer.

There are no foreign keys: the mover is the only writer of the rows that refer, and each key would lock the job's row
once more for every attempt and body.
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

# Indexes of this name serve questions to the views alone. The migrations that make the views make them, in the words of
# the views, which differ by dialect; no statement of ours is planned by them, but those that ask a view.
VIEW_INDEXES = "afterword_view_"

# SQLite numbers rows by itself only where the column is declared INTEGER.
Serial = BigInteger().with_variant(Integer, "sqlite")


def one_of(column: str, values: list[str]) -> str:
    """Return the condition of a CHECK that a column holds one of a few words."""
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
    # The earliest start, tested by every claim. Neither an alarm nor a lease.
    Column("run_at", Instant, nullable=False),
    Column("deadline", Instant, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("not_before", Instant),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    # The fence: rises by one with each claim, never goes back.
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    # The budget: requests the endpoint may have executed.
    Column("attempts_used", Integer, nullable=False, server_default=text("0")),
    Column("max_attempts", Integer, nullable=False),
    # How many attempts in a row the endpoint refused for the moment; valid while `error_code` is such a refusal's.
    Column("refusals", Integer, nullable=False, server_default=text("0")),
    Column("answer_attempt", Integer),
    # Part of the Idempotency-Key; a replay begins a new one, because some endpoints store failures under a key.
    Column("generation", Integer, nullable=False, server_default=text("0")),
    # From acceptance to the first deadline; kept by the first replay for those after it.
    Column("replay_time_s", Float),
    Column("worker_id", Id),
    Column("cancel_requested_at", Instant),
    Column("waiting_for", String),
    Column("timeout_s", Float, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("choices", Integer),
    # The most tokens an answer may have by its request; more is flagged in the usage.
    Column("token_limit", BigInteger),
    Column("batch", String),
    Column("custom_id", String),
    Column("idempotency_key", String),
    # False where the job carries a key that is not its own: a conflict, or a request that was refused.
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
    # Dispatch, lane by lane: the best due rows of one (endpoint, tenant), whatever waits or is paused beside them.
    Index(
        "afterword_jobs_due", "endpoint", "tenant", "priority", "run_at",
        postgresql_where=text("status = 'queued'"), sqlite_where=text("status = 'queued'"),
    ),
    # The next start of all lanes: when the dispatcher must look again.
    Index(
        "afterword_jobs_start", "run_at",
        postgresql_where=text("status = 'queued'"), sqlite_where=text("status = 'queued'"),
    ),
    # Expiry: what passed its deadline, behind however many better rows.
    Index(
        "afterword_jobs_deadline", "deadline",
        postgresql_where=text("status IN ('queued', 'in_progress')"),
        sqlite_where=text("status IN ('queued', 'in_progress')"),
    ),
    # Take-back of an ended lease, and the holder's look for cancellations.
    Index(
        "afterword_jobs_held", "worker_id",
        postgresql_where=text("status = 'in_progress'"), sqlite_where=text("status = 'in_progress'"),
    ),
    # One job a key and tenant.
    Index(
        "afterword_jobs_key", "tenant", "idempotency_key", unique=True,
        postgresql_where=text("owns_key"), sqlite_where=text("owns_key"),
    ),
    # Reading a batch.
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
    # Written with the claim, before the wire; cleared at the close if the connection never opened.
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
    # Whose trouble the failure is by itself, `job` or `endpoint`; NULL in rows of releases before.
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

# What came on the wire, exactly, and what was understood of it: whole answers and partial ones.
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

# The feed: numbers given in the order of commit (store.finish), so that `cursor > N` never misses a row.
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

# Ids that a producer used and that became another job, or the mark of one.
aliases = Table(
    "afterword_aliases",
    metadata,
    Column("id", Id, primary_key=True),
    Column("job_id", Id, nullable=False),
    Column("outcome", String, nullable=False),
    Column("created_at", Instant, nullable=False),
)

# The SQL door: the job's text, unread; a jsonb column would abort the caller's transaction on \u0000.
inbox = Table(
    "afterword_inbox",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=True),
    Column("id", Id, nullable=False, server_default=text("gen_random_uuid()")),
    Column("job", Text, nullable=False),
    Column("created_at", Instant, nullable=False, server_default=now()),
    # What its producer says of the job, for the views and for filters; at acceptance the text decides.
    *(Column(name, String) for name in ("tenant", "batch", "custom_id", "idempotency_key")),
    # jobs_v1 by id.
    Index("afterword_inbox_id", "id"),
)

# Endpoints that rest, and what makes us think of it; a name without a row is open.
endpoints = Table(
    "afterword_endpoints",
    metadata,
    Column("name", String, primary_key=True),
    Column("state", String, nullable=False),
    # Who paused it, and the failure code that made us.
    Column("cause", String),
    Column("reason", String),
    Column("since", Instant, nullable=False),
    # While it is paused: no probe before `probe_at`, and no claim but that of `probe_job`.
    Column("probe_at", Instant),
    Column("probe_job", Id),
    # The first of two different jobs that met trouble.
    Column("suspect_job", Id),
    Column("suspect_at", Instant),
    # When the first call began that met trouble, if none was answered since; the waits of a job held alone grow by it.
    Column("troubled_at", Instant),
    # When the latest call began that was answered, and when an answer last came to anybody; told about once a second.
    Column("alive_at", Instant),
    Column("answered_at", Instant),
    # JSON: the different jobs whose calls it failed since, by all workers; ten at most.
    Column("sick_jobs", Text),
    CheckConstraint(one_of("state", ["open", "paused", "slow"]), name="afterword_endpoints_state"),
    CheckConstraint(
        f"cause IS NULL OR {one_of('cause', ['breaker', 'operator', 'trouble'])}", name="afterword_endpoints_cause"
    ),
    CheckConstraint("(state = 'paused') = (cause IS NOT NULL)", name="afterword_endpoints_pause"),
)

# Ids somebody cancelled through cancel_v1: until the job's end is numbered and told, or its message has come.
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
    # Whatever id could be read; it need not be a UUID.
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
    # How long the lease was when it was renewed, seconds; NULL of a worker of 0007.
    Column("lease_s", Float),
    # The number of its release, see store/version.py; NULL: a release that did not say it.
    Column("release", String),
)

# One row: the oldest release that the schema serves.
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
