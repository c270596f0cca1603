"""The tables of webhooks: receivers, events with their frozen bodies, deliveries, their attempts, recoveries."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from worker.core.lifecycle import DELIVERY_ENDED, DeliveryOutcome, DeliveryStatus
from worker.store.tables import metadata, one_of
from worker.store.types import Id, Instant, JsonText

receivers = Table(
    "afterword_receivers",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant", String, nullable=False),
    Column("name", String, nullable=False),
    # Without the query, because the query may hold a token; the whole URL is in url_sealed.
    Column("url", Text, nullable=False),
    Column("url_sealed", Text),
    Column("is_default", Boolean, nullable=False),
    Column("events", JsonText, nullable=False),
    Column("payload", String, nullable=False),
    Column("profile", String, nullable=False),
    Column("headers_sealed", Text),
    # None: a receiver made for a job's URL; its first delivery makes its keys.
    Column("keys_sealed", Text),
    Column("public_key", String),
    Column("timeout_s", Float, nullable=False),
    # Seconds between attempts; None: the default schedule.
    Column("schedule", JsonText),
    Column("rate_per_s", Float),
    Column("in_flight", Integer, nullable=False),
    Column("ordering", String, nullable=False),
    Column("on_exhausted", String, nullable=False),
    Column("status", String, nullable=False),
    Column("disabled_reason", String),
    Column("disabled_at", Instant),
    Column("created_at", Instant, nullable=False),
    # A ReceiverHealth of webhooks.core.receiver_health.
    Column("health", JsonText),
    # The bucket of its rate: the tokens at the instant tokens_at.
    Column("tokens", Float),
    Column("tokens_at", Instant),
    CheckConstraint(one_of("status", ["enabled", "disabled", "removed"]), name="afterword_receivers_status"),
    CheckConstraint(one_of("payload", ["thin", "full", "auto"]), name="afterword_receivers_payload"),
    CheckConstraint(one_of("profile", ["afterword", "openai"]), name="afterword_receivers_profile"),
    CheckConstraint(one_of("ordering", ["none", "per_key"]), name="afterword_receivers_ordering"),
    CheckConstraint(one_of("on_exhausted", ["skip", "block"]), name="afterword_receivers_exhausted"),
    # Lookup by name, unique in a tenant; a removed receiver's name is free again.
    Index(
        "afterword_receivers_name", "tenant", "name", unique=True,
        postgresql_where=text("status <> 'removed'"), sqlite_where=text("status <> 'removed'"),
    ),
)  # fmt: skip

events = Table(
    "afterword_events",
    metadata,
    Column("id", Id, primary_key=True),
    # None: a receiver's test.
    Column("job_id", Id),
    Column("tenant", String, nullable=False),
    Column("type", String, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("thin", LargeBinary, nullable=False),
    # None if no delivery may send it.
    Column("full", LargeBinary),
    # For receivers with the profile openai; None if the event has no such receiver.
    Column("openai", LargeBinary),
    # The events of a job.
    Index(
        "afterword_events_job", "job_id",
        postgresql_where=text("job_id IS NOT NULL"), sqlite_where=text("job_id IS NOT NULL"),
    ),
)  # fmt: skip

_LANE = "ordering_key IS NOT NULL AND status IN ('queued', 'in_progress', 'held')"
_LOST = "ordering_key IS NOT NULL AND status = 'failed'"

deliveries = Table(
    "afterword_deliveries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("event_id", Id, nullable=False),
    Column("receiver_id", Id, nullable=False),
    Column("job_id", Id),
    Column("tenant", String, nullable=False),
    Column("event_type", String, nullable=False),
    Column("status", String, nullable=False),
    Column("run_at", Instant, nullable=False),
    Column("deadline", Instant, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    # As for jobs: attempt is the fence, attempts_used the budget.
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("attempts_used", Integer, nullable=False, server_default=text("0")),
    Column("worker_id", Id),
    Column("waiting_for", String),
    # The body of the event that it sends.
    Column("variant", String, nullable=False),
    Column("origin", String, nullable=False),
    # Its number among the deliveries of the same receiver and key; the key is None if order does not matter.
    Column("ordering_key", String),
    Column("sequence", BigInteger, nullable=False),
    Column("after_gap", Boolean, nullable=False, server_default=text("false")),
    Column("last_http_status", SmallInteger),
    Column("last_error_code", String),
    CheckConstraint(one_of("status", list(DeliveryStatus)), name="afterword_deliveries_status"),
    CheckConstraint("(status = 'in_progress') = (worker_id IS NOT NULL)", name="afterword_deliveries_holder"),
    CheckConstraint(
        f"({one_of('status', list(DELIVERY_ENDED))}) = (finished_at IS NOT NULL)", name="afterword_deliveries_finish"
    ),
    CheckConstraint(one_of("variant", ["thin", "full", "openai"]), name="afterword_deliveries_variant"),
    UniqueConstraint("event_id", "receiver_id", name="afterword_deliveries_once"),
    # Dispatch: the due deliveries of each receiver.
    Index(
        "afterword_deliveries_due", "receiver_id", "run_at",
        postgresql_where=text("status = 'queued'"), sqlite_where=text("status = 'queued'"),
    ),
    # The next due time over all receivers.
    Index(
        "afterword_deliveries_start", "run_at",
        postgresql_where=text("status = 'queued'"), sqlite_where=text("status = 'queued'"),
    ),
    # Deliveries past their deadline.
    Index(
        "afterword_deliveries_deadline", "deadline",
        postgresql_where=text("status = 'queued'"), sqlite_where=text("status = 'queued'"),
    ),
    # The deliveries of a worker.
    Index(
        "afterword_deliveries_held", "worker_id",
        postgresql_where=text("status = 'in_progress'"), sqlite_where=text("status = 'in_progress'"),
    ),
    # The number in flight to a receiver.
    Index(
        "afterword_deliveries_flight", "receiver_id",
        postgresql_where=text("status = 'in_progress'"), sqlite_where=text("status = 'in_progress'"),
    ),
    # The deliveries of one key in order.
    Index(
        "afterword_deliveries_order", "receiver_id", "ordering_key", "sequence",
        postgresql_where=text("ordering_key IS NOT NULL"), sqlite_where=text("ordering_key IS NOT NULL"),
    ),
    # The first delivery of a key that has not ended, without reading those that have; and the first that has failed.
    # SQLite uses afterword_deliveries_lane only for a condition with exactly these words.
    Index(
        "afterword_deliveries_lane", "receiver_id", "ordering_key", "sequence",
        postgresql_where=text(_LANE), sqlite_where=text(_LANE),
    ),
    Index(
        "afterword_deliveries_lost", "receiver_id", "ordering_key", "sequence",
        postgresql_where=text(_LOST), sqlite_where=text(_LOST),
    ),
    # Recoveries, and doctor's figures: a receiver's deliveries by time.
    Index("afterword_deliveries_time", "receiver_id", "created_at"),
    # Resume, and the drop of old ones: a receiver's held deliveries.
    Index(
        "afterword_deliveries_on_hold", "receiver_id", "created_at",
        postgresql_where=text("status = 'held'"), sqlite_where=text("status = 'held'"),
    ),
    # A job's deliveries.
    Index(
        "afterword_deliveries_job", "job_id",
        postgresql_where=text("job_id IS NOT NULL"), sqlite_where=text("job_id IS NOT NULL"),
    ),
)  # fmt: skip

delivery_attempts = Table(
    "afterword_delivery_attempts",
    metadata,
    Column("delivery_id", Id, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("receiver_id", Id, nullable=False),
    Column("worker_id", Id, nullable=False),
    Column("origin", String, nullable=False),
    Column("variant", String, nullable=False),
    # Written with the claim, before the wire; cleared at the close if the connection never opened.
    Column("sent_at", Instant),
    Column("finished_at", Instant),
    Column("outcome", String),
    Column("error_code", String),
    Column("http_status", SmallInteger),
    Column("retry_after_s", Float),
    # Durations: lookup; connect with TLS; TLS alone; first byte; total. None if the attempt did not get so far.
    Column("dns_ms", Integer),
    Column("connect_ms", Integer),
    Column("tls_ms", Integer),
    Column("first_byte_ms", Integer),
    Column("total_ms", Integer),
    Column("response_headers", JsonText),
    Column("response_body", LargeBinary),
    Column("is_truncated", Boolean, nullable=False, server_default=text("false")),
    # Only for the operator: a tenant must not learn the address of a name.
    Column("peer", String),
    CheckConstraint(
        f"outcome IS NULL OR {one_of('outcome', list(DeliveryOutcome))}", name="afterword_delivery_attempts_outcome"
    ),
    CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name="afterword_delivery_attempts_finish"),
)

recoveries = Table(
    "afterword_recoveries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("receiver_id", Id, nullable=False),
    Column("statuses", JsonText, nullable=False),
    Column("since", Instant, nullable=False),
    Column("until", Instant, nullable=False),
    Column("rate_per_s", Float, nullable=False),
    Column("status", String, nullable=False),
    # The position: the last delivery that was read.
    Column("at", Instant),
    Column("at_id", Id),
    Column("redelivered", Integer, nullable=False, server_default=text("0")),
    Column("created_at", Instant, nullable=False),
    Column("stepped_at", Instant),
    Column("finished_at", Instant),
    CheckConstraint(one_of("status", ["running", "done", "cancelled"]), name="afterword_recoveries_status"),
    # One running recovery for each receiver: two people cannot start the same recovery twice.
    Index(
        "afterword_recoveries_running", "receiver_id", unique=True,
        postgresql_where=text("status = 'running'"), sqlite_where=text("status = 'running'"),
    ),
)  # fmt: skip
