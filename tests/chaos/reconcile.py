"""Four ledgers compared after the run: the producers', SQL, the endpoint's and the receivers'."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.hearing import Heard, hear
from tests.chaos.ledger import Book
from tests.chaos.parts import Parts
from tests.chaos.reader import Reader
from worker.store.engine import open_engine
from worker.verify.verify import verify

FINAL = ("completed", "failed", "cancelled", "expired")
JOBS = """
SELECT i.id, i.job_id, j.status, j.error_code, j.attempt FROM job_ids_v1 i JOIN afterword_jobs j ON j.id = i.job_id
"""
OPEN_DELIVERIES = """
SELECT id, status FROM afterword_deliveries WHERE status IN ('queued', 'in_progress', 'held') UNION ALL
SELECT delivery_id, 'open' FROM afterword_delivery_attempts WHERE outcome IS NULL
"""
# Log events of unforeseen trouble in a worker.
UNEXPECTED = (
    "attempt.broken", "writer.failed", "lease.failed", "dispatch.failed", "intake.refused", "endpoint.unknown",
    "answer.lost", "intake.split", "clock.stepped",
)  # fmt: skip


@dataclass
class Outcome:
    """The results of a run. The run is sound if `wrong` is empty; `wrong` lists every fault of the product."""

    jobs: int = 0
    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    requests: int = 0
    asked_jobs: int = 0
    explained: int = 0
    unseen_attempts: int = 0
    replays: int = 0
    heard: Heard = field(default_factory=Heard)
    answered_twice: int = 0
    starved: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)
    log_lines: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def sound(self) -> bool:
        return not (self.lost or self.doubled or self.unexplained or self.wrong or self.heard.wrong)


def open_ids(parts: Parts, book: Book) -> list[str]:
    """Return everything that is not final yet: ids of submissions, and entries in the queue and the inbox."""
    status = {str(row.id): row.status for row in parts.rows(JOBS)}
    waiting = [one.id for one in book.all() if status.get(one.id) not in FINAL]
    waiting += [f"inbox {row.id}" for row in parts.rows("SELECT id FROM afterword_inbox")]
    waiting += [f"running {row.id}" for row in parts.rows("SELECT id FROM afterword_jobs WHERE finished_at IS NULL")]
    waiting += [f"cancel request of {row.id}" for row in parts.rows("SELECT id FROM afterword_cancellations")]
    waiting += [f"delivery {row.id} {row.status}" for row in parts.rows(OPEN_DELIVERIES)]
    waiting += [f"junk {one.entry[:40]!r}" for one in book.open_junk()]
    lists = [key for key in parts.redis.scan_iter("*intake*") if parts.redis.type(key) == b"list"]
    return waiting + [f"list {key!r}" for key in lists]


def reconcile(parts: Parts, book: Book, reader: Reader) -> Outcome:
    """Compare the four ledgers; the workers still run, but have no work left."""
    found = Outcome(sent=sum(1 for _ in book.all()))
    rows = {str(row.id): row for row in parts.rows(JOBS)}
    _producers(book, rows, found)
    _endpoint(parts, found)
    _feed(parts, reader, found)
    _dead_letters(parts, book, found)
    found.heard = hear(parts)
    engine = open_engine(parts.database.url, reading=True)
    try:
        for finding in verify(engine, grace_s=10.0).broken:
            found.wrong.append(f"verify: {finding.name}: {finding.broken}: {finding.first[:3]}")
    finally:
        engine.dispose()
    found.starved = parts.starved
    found.wrong += [f"ended by itself: {text}" for text in parts.died]
    for line in _log(parts):
        found.log_lines[f"{line.get('level')} {line.get('event')}"] += 1
        # Celery logs exceptions of its signal receivers and goes on.
        if line.get("event") in UNEXPECTED or str(line.get("event")).startswith("Signal handler"):
            found.wrong.append(f"log: {json.dumps(line)[:600]}")
    return found


def _producers(book: Book, rows: dict[str, Any], found: Outcome) -> None:
    ours: set[str] = set()
    for one in book.all():
        row = rows.get(one.id)
        if row is not None:
            ours.add(str(row.job_id))
        if row is None or row.status not in FINAL:
            found.lost.append(f"{one.id} by {one.way}, {one.sends} times: {row and row.status}")
            continue
        if row.status not in one.expects:
            found.wrong.append(f"{one.id} by {one.way} is {row.status} ({row.error_code}), not {sorted(one.expects)}")
        twin = rows.get(one.twin_of or one.id)
        if twin is not None and str(twin.job_id) != str(row.job_id):
            found.doubled.append(f"{one.id} and its twin {one.twin_of} became two jobs")
    made = {str(row.job_id): row.status for row in rows.values()}
    found.jobs, found.statuses = len(made), Counter(made.values())
    found.doubled += [f"{job_id}: nobody sent it" for job_id in sorted(made.keys() - ours)]


def _endpoint(parts: Parts, found: Outcome) -> None:
    """Check that each request at the endpoint came once and has an attempt row with `sent_at`."""
    rows = parts.rows("SELECT job_id, attempt, outcome, sent_at FROM afterword_attempts")
    sent = {f"{row.job_id}.{row.attempt}" for row in rows if row.sent_at is not None}
    seen = parts.ledger.attempts
    found.requests = seen.total()
    found.asked_jobs = len({name.partition(".")[0] for name in seen})
    found.unexplained = [f"{name} seen {times} times" for name, times in seen.items() if times > 1 or name not in sent]
    extra = found.requests - found.asked_jobs
    found.explained = extra - sum(seen[text.partition(" ")[0]] for text in found.unexplained)
    found.unseen_attempts = len(sent - seen.keys())
    found.outcomes = Counter(str(row.outcome) for row in rows)
    answered = Counter(str(row.job_id) for row in rows if row.outcome == "completed")
    found.answered_twice = sum(1 for times in answered.values() if times > 1)


def _feed(parts: Parts, reader: Reader, found: Outcome) -> None:
    """Check that the reader saw every final job once, in order, in its final state, and replayed jobs in earlier states
    too.
    """
    now = parts.rows("SELECT cursor, id, status, finished_at FROM finished_v1 ORDER BY cursor")
    generations = parts.rows("SELECT id, generation FROM afterword_jobs WHERE generation > 0")
    replayed = {str(row.id): row.generation for row in generations}
    found.replays = sum(replayed.values())
    cursors = {row.cursor for row in now}
    saw = [tuple(row) for row in reader.rows if row.cursor in cursors or str(row.id) not in replayed]
    if saw != [tuple(row) for row in now]:
        differing = [str(row) for row in set(saw) ^ set(map(tuple, now))]
        found.doubled.append(f"the feed was {len(saw)} rows and is {len(now)}: {differing[:5]}")
    if now and now[-1].cursor - len(now) > found.replays:
        found.wrong.append(f"the feed has {now[-1].cursor - len(now)} gaps, for {found.replays} replays")


def _dead_letters(parts: Parts, book: Book, found: Outcome) -> None:
    ours = {one.entry for one in book.junk}
    for row in parts.rows("SELECT queue, reason, entry FROM afterword_dead_letters"):
        found.dead_letters[f"{row.queue}: {row.reason}"] += 1
        if row.queue == "chat.intake" and bytes(row.entry) not in ours:
            found.wrong.append(f"dead letter {row.reason}: {bytes(row.entry)[:300]!r}")
        if row.queue == "submit_v1":
            found.wrong.append(f"dead letter of the inbox: {row.reason}")
    found.lost += [f"junk {one.entry[:80]!r} has no dead letter" for one in book.junk if not one.seen]


def _log(parts: Parts) -> Iterator[dict[str, Any]]:
    for path in sorted(parts.folder.glob("worker-*.log")):
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                try:
                    yield json.loads(line)
                except ValueError:  # the worker was killed while it wrote
                    continue
            elif "Traceback" in line:
                yield {"level": "error", "event": "Traceback"}
