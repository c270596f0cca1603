"""Fake endpoint: count requests and charges, for tests to compare with a client's own records."""

import hashlib
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any

KEPT = 1000
KEPT_BYTES = 64 * 1024
KEPT_LINES = 250_000  # about 500 bytes each


@dataclass(slots=True)
class Row:
    """The counters of a job: its requests and its charges. The Idempotency-Key names the job, else the body."""

    requests: int = 0
    billed: int = 0
    running: int = 0
    fingerprint: str = ""


@dataclass(slots=True, eq=False)
class LedgerLine:
    """One request. Times are seconds since 1970; `number` counts the ends of requests from 1."""

    in_s: float
    job: str
    key: str
    model: str
    row: Row = field(default_factory=Row)
    out_s: float | None = None
    number: int | None = None
    status: int | None = None  # None: no status line was sent
    refused: str | None = None  # the allowance that had no room, such as tokens_per_minute
    retry_after_s: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    charged_tokens: int = 0
    in_flight: int = 0
    abandoned: bool = False

    def written(self) -> dict[str, Any]:
        """Return the line as a JSON object."""
        return {name: getattr(self, name) for name in SHOWN}


SHOWN = tuple(name for name in LedgerLine.__slots__ if name != "row")


@dataclass(slots=True)
class Ledger:
    """All counters since the start or the last reset."""

    requests: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    abandoned: int = 0
    replayed: int = 0
    refused: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    jobs: dict[str, Row] = field(default_factory=dict)
    recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    ended: int = 0
    ended_lines: deque[LedgerLine] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    running_lines: dict[int, LedgerLine] = field(default_factory=dict)

    def open(self, line: LedgerLine) -> None:
        """Count a request."""
        row = line.row = self.jobs.setdefault(line.job, line.row)
        row.requests += 1
        row.running += 1
        self.requests += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self.models[line.model] += 1
        self.running_lines[id(line)] = line

    def close(self, line: LedgerLine, out_s: float) -> None:
        """Note the end of a request, successful or not."""
        line.row.running -= 1
        self.in_flight -= 1
        self.abandoned += line.abandoned
        self.refused += line.refused is not None
        self.ended += 1
        line.out_s, line.number = out_s, self.ended
        del self.running_lines[id(line)]
        self.ended_lines.append(line)

    def lines(self, after: int = 0) -> list[LedgerLine]:
        """Return the lines of ended requests with a number above `after`, then those of running requests."""
        first = self.ended - len(self.ended_lines)
        return [*islice(self.ended_lines, max(0, after - first), None), *self.running_lines.values()]

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
            "refused": self.refused,
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


@lru_cache
def key_name(key: str) -> str:
    """Return the name of a Bearer key in the ledger: its last four characters and a part of its hash."""
    return f"{key[-4:]}:{hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:6]}" if key else ""
