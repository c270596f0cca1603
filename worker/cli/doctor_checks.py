"""The checks of `afterword doctor`: one finding for each part. None changes anything or costs money."""

import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from redis import Redis, RedisError
from redis.exceptions import NoPermissionError

from worker.cli.doctor_webhooks import Finding, counted, webhook_findings
from worker.cli.support import hold_words
from worker.cli.support.database import database
from worker.core.endpoint import Endpoint
from worker.jobs.core.endpoint_health import Cause
from worker.jobs.store.due import oldest_overdue_job_s
from worker.jobs.store.listing import CannotRead, Listing, counts
from worker.queue.redis_check import server_facts, unread_lists, unusable
from worker.queue.sentinel import pool_of
from worker.settings import Settings
from worker.store.engine import UnusableDatabase
from worker.store.row_count import MOST
from worker.webhooks.core.explain import words
from worker.webhooks.key_rotation import unusable_secrets

PATIENCE_S = 3.0


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield a finding for each part."""
    yield from _database(settings)
    yield from _redis(settings)
    if not settings.endpoints:
        yield Finding("endpoint", "failed", "none is configured; set AFTERWORD_ENDPOINT_URL")
    known = _known_endpoints(settings)
    for endpoint in settings.endpoints.values():
        yield _with_trouble(_endpoint(endpoint), known.pop(endpoint.name, {}))
    for name, row in known.items():
        # This endpoint is in the settings of another worker.
        if hold_words.endpoint(row) is not None:
            yield _with_trouble(Finding("endpoint", "ok", f"{name}: not configured here"), row)


def own_worker(settings: Settings) -> Finding:
    """Check that a worker of this host has a lease that has not ended."""
    host = socket.gethostname()
    try:
        with database(settings) as listing:
            seen = listing.workers()
    except (CannotRead, UnusableDatabase) as error:
        return Finding("worker", "failed", str(error))
    alive = [name for name, left_s in seen.items() if left_s > 0 and name.startswith(f"{host}:")]
    if alive:
        return Finding("worker", "ok", f"{', '.join(alive)} renews its lease")
    return Finding("worker", "failed", f"no worker of {host} renews a lease; see its log")


def _database(settings: Settings) -> Iterator[Finding]:
    if settings.database_url is None:
        yield Finding("database", "failed", "AFTERWORD_DATABASE_URL is not set")
        return
    try:
        with database(settings) as listing:
            (current, newest), fault = listing.state(), listing.fault()
            yield _migrated(listing.kind, current, newest, fault)
            if sentence := listing.open_schema():
                yield Finding("rights", "failed", sentence)
            if current is not None:
                yield _workers(listing.workers())
                overdue_s = listing.ask(oldest_overdue_job_s) if fault is None else None
                yield _jobs(listing.ask(counts), overdue_s)
            if fault is None:
                yield from _webhooks(listing, settings)
    except (CannotRead, UnusableDatabase) as error:
        yield Finding("database", "failed", str(error))


def _migrated(kind: str, current: str | None, newest: str, fault: str | None) -> Finding:
    if fault is not None:
        return Finding("database", "failed", f"{kind}: {fault}")
    if current == newest:
        return Finding("database", "ok", f"{kind}, at migration {current}")
    return Finding("database", "warning", f"{kind}, at migration {current} of a newer release, which serves this one")


def _workers(seen: dict[str, float]) -> Finding:
    alive = [name for name, left_s in seen.items() if left_s > 0]
    if not alive:
        return Finding("workers", "warning", "none is alive: jobs wait; start one with: afterword worker")
    return Finding("workers", "ok", f"{len(alive)} alive: {', '.join(alive[:10])}")


def _jobs(counts: dict[str, int], overdue_s: float | None) -> Finding:
    text = counted(counts) or "none yet"
    # An overdue job alone is no warning: a large batch may wait for hours on purpose.
    text += f"; the oldest is overdue for {words(overdue_s)}" if overdue_s is not None else ""
    figures = {
        "counts": counts,
        "counted_to": MOST,
        "oldest_overdue_s": None if overdue_s is None else round(overdue_s, 3),
    }
    return Finding("jobs", "warning" if counts["dead_letters"] else "ok", text, figures)


def _webhooks(listing: Listing, settings: Settings) -> Iterator[Finding]:
    if trouble := listing.ask(lambda connection: unusable_secrets(connection, settings.secret_keys)):
        yield Finding("webhooks", "failed", trouble)
    yield from listing.ask(lambda connection: list(webhook_findings(connection)))


def _redis(settings: Settings) -> Iterator[Finding]:
    if settings.redis_url is None:
        yield Finding("redis", "failed", "AFTERWORD_REDIS_URL is not set")
        return
    pool = pool_of(settings.redis_url, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S)
    with Redis.from_pool(pool) as client:
        try:
            yield _redis_server(server_facts(client))
            yield from _unread(client)
        except RedisError as error:
            yield Finding("redis", "failed", f"{type(error).__name__}: {error}")


def _redis_server(facts: dict[str, Any]) -> Finding:
    if not facts:
        return Finding("redis", "ok", "answers; this user may not run INFO, so its version and policy are unknown")
    if sentence := unusable(facts):
        return Finding("redis", "failed", sentence)
    policy = facts.get("maxmemory_policy")
    if policy != "noeviction":
        return Finding("redis", "warning", f"its maxmemory-policy {policy} deletes messages; set noeviction")
    return Finding("redis", "ok", f"version {facts.get('redis_version')}, {facts.get('used_memory_human')} used")


def _unread(client: "Redis") -> Iterator[Finding]:
    """Find lists that hold jobs but have no reader, because of a producer's Celery options."""
    try:
        found = list(unread_lists(client))
    except NoPermissionError:
        return
    if found:
        shown = ", ".join(f"{name!r} ({length})" for name, length in found[:10])
        yield Finding(
            "queues",
            "warning",
            f"jobs are in lists that no worker reads: {shown}; a producer's Celery options send them there, see "
            "api_contracts/README.md",
            {"unread_lists": dict(found)},
        )


def _known_endpoints(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the database's rows of endpoints; empty if it cannot be read, because `_database` reports that."""
    if settings.database_url is None:
        return {}
    try:
        with database(settings) as listing:
            current, newest = listing.state()
            return {row["name"]: row for row in listing.endpoints()} if current == newest else {}
    except (CannotRead, UnusableDatabase):
        return {}


def _with_trouble(found: Finding, row: Mapping[str, Any]) -> Finding:
    """Add the reason of an endpoint's pause to the finding about its address."""
    reason = hold_words.endpoint(row)
    if reason is None:
        return found
    # People must repair trouble. A breaker closes by itself, and an operator's pause is on purpose.
    fails = row["cause"] == Cause.trouble or found.state == "failed"
    text = f"{found.text}; {reason.rstrip('.')}; {row['queued']} queued"
    return replace(found, state="failed" if fails else "warning", text=text)


def _endpoint(endpoint: Endpoint) -> Finding:
    """Try to open a connection, and send nothing: a request would cost money."""
    parts = urlsplit(endpoint.proxy or endpoint.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = f"{endpoint.name}: {parts.hostname}:{port}" + (" (the proxy)" if endpoint.proxy else "")
    try:
        socket.create_connection((parts.hostname or "", port), timeout=PATIENCE_S).close()
    except OSError as error:
        return Finding("endpoint", "failed", f"{address} cannot be reached: {error}")
    if endpoint.key is None:
        return Finding("endpoint", "warning", f"{address} can be reached; no key is set")
    return Finding("endpoint", "ok", f"{address} can be reached")
