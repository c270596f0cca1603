"""Fake endpoint: count requests and charges, for tests to compare with a client's own records."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

KEPT = 1000
KEPT_BYTES = 64 * 1024


@dataclass(slots=True)
class Row:
    """The counters of a job: its requests and its charges. The Idempotency-Key names the job, else the body."""

    requests: int = 0
    billed: int = 0
    running: int = 0
    fingerprint: str = ""


@dataclass(slots=True)
class Ledger:
    """All counters since the start or the last reset."""

    requests: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    abandoned: int = 0
    replayed: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    jobs: dict[str, Row] = field(default_factory=dict)
    recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))

    def open(self, job: str, model: str) -> Row:
        """Count a request and return its job's row."""
        row = self.jobs.setdefault(job, Row())
        row.requests += 1
        row.running += 1
        self.requests += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self.models[model] += 1
        return row

    def close(self, row: Row) -> None:
        """Note the end of a request, successful or not."""
        row.running -= 1
        self.in_flight -= 1

    def stats(self) -> dict[str, Any]:
        """Return all counters; `billed_duplicates` counts the charges after the first of each job."""
        billed = [row.billed for row in self.jobs.values()]
        return {
            "requests": self.requests,
            "jobs": len(self.jobs),
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
            "billed": sum(billed),
            "billed_duplicates": sum(times - 1 for times in billed if times > 1),
            "abandoned": self.abandoned,
            "replayed": self.replayed,
            "statuses": dict(self.statuses),
            "models": dict(self.models),
        }

    def job(self, name: str) -> dict[str, int]:
        """Return the counters of a job; zeros for an unknown job."""
        row = self.jobs.get(name, Row())
        return {"requests": row.requests, "billed": row.billed}

    def keep(self, *, job: str, headers: dict[str, str], body: bytes) -> None:
        """Store a request for `GET /__requests`: the last thousand, bodies up to 64 KiB, never the key."""
        shown = {name.lower(): value for name, value in headers.items()}
        if "authorization" in shown:
            shown["authorization"] = f"{shown['authorization'].partition(' ')[0]} ***"
        text = body[:KEPT_BYTES].decode("utf-8", "replace")
        self.recent.append({"job": job, "headers": shown, "body": text, "body_bytes": len(body)})
