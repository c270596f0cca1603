"""The fourth comparison: the requests that receivers got against the events, deliveries and attempts in SQL."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.chaos import hooks
from tests.chaos.parts import Parts
from worker.webhooks.core.event import event_id_of
from worker.webhooks.core.payload import webhook_id

DELIVERIES = """
SELECT d.id, d.status, d.receiver_id, d.event_id, d.sequence, d.ordering_key, d.event_type, d.job_id, d.created_at,
       d.last_error_code, r.name, r.tenant
FROM afterword_deliveries d JOIN afterword_receivers r ON r.id = d.receiver_id
"""
ATTEMPTS = "SELECT delivery_id, attempt, outcome, sent_at, finished_at FROM afterword_delivery_attempts"
ENDED = "SELECT id, tenant, status, webhook, finished_at FROM afterword_jobs WHERE finished_at IS NOT NULL"
Attempt = tuple[str, int]


@dataclass
class Heard:
    """The results. `lost`: ends without a delivery, and deliveries marked delivered that no receiver accepted."""

    events: int = 0
    jobs_with_events: int = 0
    requests: int = 0
    again: int = 0
    explained: int = 0
    taken_twice: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    unsigned: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, list[str]]:
        """The faults of the product, by name."""
        names = ("lost", "unexplained", "unsigned", "disordered")
        return {name: getattr(self, name) for name in names}

    @property
    def wrong(self) -> bool:
        return any(self.faults.values())


def hear(parts: Parts) -> Heard:
    """Compare after every delivery has ended."""
    ledger = list(parts.hooks.ledger)
    deliveries = {str(row.id): row for row in parts.rows(DELIVERIES)}
    attempts: dict[Attempt, Any] = {(str(row.delivery_id), row.attempt): row for row in parts.rows(ATTEMPTS)}
    found = Heard(requests=len(ledger))
    found.statuses = Counter(row.status for row in deliveries.values())
    found.outcomes = Counter(str(row.outcome) for row in attempts.values())
    found.events = len({row.event_id for row in deliveries.values()})
    found.jobs_with_events = len({row.job_id for row in deliveries.values()})
    _ends(parts, deliveries, found)
    _delivered(ledger, deliveries, attempts, found)
    _requests(ledger, deliveries, attempts, found)
    _order(ledger, found)
    return found


def _ends(parts: Parts, deliveries: dict[str, Any], found: Heard) -> None:
    """Check that each end has a delivery to every subscribed receiver, and no other delivery."""
    sent_to: dict[str, set[str]] = defaultdict(set)
    since: dict[str, Any] = {str(row.id): row.finished_at for row in parts.rows(ENDED)}
    for row in deliveries.values():
        if row.created_at >= since[str(row.job_id)]:
            sent_to[str(row.job_id)].add(f"{row.name} {row.event_type}")
    for job in parts.rows(ENDED):
        expected = {f"{name} job.{job.status}" for name in _audience(job)}
        if sent_to[str(job.id)] != expected:
            found.lost.append(f"job {job.id}, {job.status}, was sent to {sent_to[str(job.id)]}, not to {expected}")


def _audience(job: Any) -> set[str]:
    if job.webhook is None:
        return {"usual", "flaky"} if job.tenant == hooks.FLAKY_TENANT else {"usual"}
    target = json.loads(job.webhook)
    return set() if target is None else {target["to"]}


def _delivered(
    ledger: list[hooks.Heard], deliveries: dict[str, Any], attempts: dict[Attempt, Any], found: Heard
) -> None:
    """Check that a receiver accepted each delivered attempt, and that every delivery is delivered."""
    taken = {(one.delivery_id, one.attempt) for one in ledger if one.said is not None and one.said < 300}
    for key, row in attempts.items():
        if row.outcome == "delivered" and key not in taken:
            found.lost.append(f"attempt {key} says delivered, and its receiver did not take it")
    had = {delivery_id for delivery_id, _ in taken}
    for delivery_id, row in deliveries.items():
        if row.status == "delivered" and delivery_id not in had:
            found.lost.append(f"delivery {delivery_id} to {row.name} is delivered, and its receiver has nothing")
        if row.status != "delivered":
            # Twenty retries outlast the run, so no delivery may end in another status.
            found.lost.append(f"delivery {delivery_id} to {row.name} is {row.status} ({row.last_error_code})")


def _requests(
    ledger: list[hooks.Heard], deliveries: dict[str, Any], attempts: dict[Attempt, Any], found: Heard
) -> None:
    """Check that each request is one attempt in SQL, is signed, has its event's id, and follows no accepted request."""
    came = Counter((one.delivery_id, one.attempt) for one in ledger)
    for one in ledger:
        row, key = deliveries.get(one.delivery_id), (one.delivery_id, one.attempt)
        attempt = attempts.get(key)
        if one.fault is not None:
            found.unsigned.append(f"{key} at {one.receiver}: {one.fault}")
        if row is None or attempt is None or attempt.sent_at is None or came[key] > 1:
            found.unexplained.append(f"{key} at {one.receiver}, seen {came[key]} times, has the row {attempt}")
        elif one.webhook_id != webhook_id(event_id_of(UUID(str(row.event_id))), str(row.receiver_id)):
            found.unexplained.append(f"{key} at {one.receiver} came as {one.webhook_id}")
        elif (one.job_id, one.type, one.sequence) != (str(row.job_id), row.event_type, row.sequence):
            found.unexplained.append(f"{key} at {one.receiver} says {one}, the row {row}")
    by_delivery = Counter(one.delivery_id for one in ledger)
    found.again = len(ledger) - len(by_delivery)
    for key, row in attempts.items():
        later = attempts.get((key[0], key[1] + 1))
        if row.outcome != "delivered" or later is None:
            continue
        found.taken_twice += 1
        if later.sent_at is not None and row.finished_at < later.sent_at:
            found.unexplained.append(f"{key} was delivered at {row.finished_at}, and sent again at {later.sent_at}")
    found.explained = found.again - len(found.unexplained)


def _order(ledger: list[hooks.Heard], found: Heard) -> None:
    """Check that first requests of one key arrive with consecutive sequence numbers."""
    last: dict[tuple[str, str], int] = defaultdict(int)
    seen: set[str] = set()
    for one in ledger:
        if one.receiver != "ordered" or one.key is None or one.webhook_id in seen:
            continue
        seen.add(one.webhook_id)
        lane = (one.tenant, one.key)
        if one.sequence != last[lane] + 1:
            found.disordered.append(f"{lane}: {one.sequence} came after {last[lane]}")
        last[lane] = one.sequence
