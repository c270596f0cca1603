"""Chooses the due rows for the window: tenants take turns by tokens, and endpoints that are just back start slowly."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine

from worker.jobs.core.endpoint_health import Ramp
from worker.jobs.core.turns import Share, VirtualTime, lists, turns
from worker.jobs.store import due
from worker.jobs.store.due import JobLane
from worker.jobs.store.tenant_usage import FINISHED_BATCH, CallsInProgress, finished_jobs
from worker.queue.nudges import nudge
from worker.store.transitions import DueRow

# A transaction on SQLite holds the only write lock; this keeps it to a few milliseconds.
LANES_A_TRANSACTION = 20
# How often the unused turns of short lanes are divided among longer ones; the next tick continues.
PASSES = 3
# After an outage a leader reads so many batches of finished jobs in a tick.
FINISHED_BATCHES = 4
# So many ticks after a lane was last seen, where one tick does not see all lanes, it counts as empty.
FORGOTTEN_AFTER = 100

Entry = tuple[int, bytes]
"""A nudge and its priority list."""


@dataclass(slots=True)
class Waiting:
    """The lanes with queued rows at one tick.

    `urgent`: endpoint, tenant and row of jobs near their deadline. `calls`: the calls in progress. `slow`: the seconds
    since each slow endpoint came back; `Ramp` limits its starts. `is_all`: no lane was left for the next tick.
    """

    lanes: Sequence[JobLane]
    urgent: Sequence[tuple[str, str, DueRow]] = ()
    calls: Sequence[CallsInProgress] = ()
    slow: Mapping[str, float] = field(default_factory=dict)
    is_all: bool = True


class FairShare:
    """Reads due rows while `leads()` is true; tenants get tokens in proportion to `weight(tenant)`."""

    def __init__(
        self, engine: Engine, *, leads: Callable[[], bool], weight: Callable[[str], float] = lambda tenant: 1.0
    ) -> None:
        self._engine, self._leads = engine, leads
        self._weight = weight
        self._ramp = Ramp()
        self.begin()

    def begin(self) -> None:
        """Begin with equal tenants, because this worker leads from now on.

        Who waited while another worker led is not known. Without this, a tenant that was alone then would owe all the
        tokens of that time to those that wait now.
        """
        self._time = VirtualTime(self._weight)
        self._cursor: int | None = None
        # The ticks since each share that waits was seen.
        self._seen: dict[Share, int] = {}
        # The shares of the nudges in the window.
        self._shares: dict[bytes, Share] = {}

    def learn(self, connection: Connection) -> None:
        """Note the tokens of the jobs that finished since the last call."""
        for _ in range(FINISHED_BATCHES):
            before = self._cursor
            finished, self._cursor = finished_jobs(connection, after=before)
            for row in finished:
                share = Share(row.endpoint, row.tenant)
                self._time.record(share, jobs=row.jobs, tokens=row.tokens, unknown=row.unknown)
            # Cursors have no gaps.
            if before is None or self._cursor - before < FINISHED_BATCH:
                break

    def missing(self, waiting: Waiting, window: Mapping[bytes, int], count: int) -> list[Entry]:
        """Return the entries to push, in order: up to `count` new nudges, after older ones that they would overtake.

        `window` maps each nudge in Redis to its priority list.
        """
        self._shares = {entry: share for entry, share in self._shares.items() if entry in window}
        lanes = {Share(lane.endpoint, lane.tenant): lane for lane in waiting.lanes}
        held = _calls(waiting.calls) + Counter(self._shares.values())
        rows = _Rows(window, self._shares, waiting.urgent)
        order = self._order(waiting, lanes, held, rows, count)
        for endpoint, slow_s in waiting.slow.items():
            self._ramp.spend(endpoint, slow_s, sum(share.endpoint == endpoint for share in order))
        self._note_waiting(waiting, lanes, rows, held)
        return self._entries(order, rows, window)

    def _order(
        self, waiting: Waiting, lanes: Mapping[Share, JobLane], held: Counter[Share], rows: "_Rows", count: int
    ) -> list[Share]:
        """Return whose turn it is, `count` times at most; read as many rows of each lane as its turns need."""
        times = self._time.times(lanes.keys(), held)
        steps = {share: self._time.step(share) for share in times}
        most = {endpoint: self._ramp.left(endpoint, slow_s) for endpoint, slow_s in waiting.slow.items()}
        in_use: Counter[str] = Counter()
        for share, number in held.items():
            in_use[share.endpoint] += number
        for _ in range(PASSES):
            order = turns(times, steps, {share: rows.depth(share) for share in times}, in_use, most, count)
            wanted = {share: rows.limit(share, number) for share, number in Counter(order).items()}
            unread = [(lanes[share], limit) for share, limit in wanted.items() if limit]
            if not unread:
                return order
            for lane, limit, found in self._read(unread):
                rows.add(Share(lane.endpoint, lane.tenant), found, is_all=len(found) < limit)
        return turns(times, steps, {share: rows.found(share) for share in times}, in_use, most, count)

    def _read(self, lanes: Sequence[tuple[JobLane, int]]) -> Iterator[tuple[JobLane, int, list[DueRow]]]:
        for first in range(0, len(lanes), LANES_A_TRANSACTION):
            if not self._leads():
                return
            with self._engine.begin() as connection:
                batch = lanes[first:][:LANES_A_TRANSACTION]
                read = [(lane, limit, due.due(connection, lane, limit=limit)) for lane, limit in batch]
            yield from read

    def _note_waiting(
        self, waiting: Waiting, lanes: Mapping[Share, JobLane], rows: "_Rows", held: Mapping[Share, int]
    ) -> None:
        nudged = set(self._shares.values())
        now = {share for share in lanes if rows.depth(share) or share in nudged}
        self._seen = {share: 0 for share in now} | {
            share: ticks + 1
            for share, ticks in self._seen.items()
            if share not in lanes and ticks < FORGOTTEN_AFTER and not waiting.is_all
        }
        self._time.waited(self._seen.keys(), held)

    def _entries(self, order: Sequence[Share], rows: "_Rows", window: Mapping[bytes, int]) -> list[Entry]:
        old = sorted((window[entry], share, entry) for entry, share in self._shares.items())
        left = {share: iter(rows.new[share]) for share in set(order)}
        new = [(row.priority, share, nudge(row.row_id, row.attempt)) for share in order for row in [next(left[share])]]
        self._shares |= {entry: share for _, share, entry in new}
        places = lists([(share, priority) for priority, share, _ in [*old, *new]])
        pairs = zip(places, (entry for _, _, entry in [*old, *new]), strict=True)
        return [(place, entry) for place, entry in pairs if place < window.get(entry, math.inf)]


class _Rows:
    """The due rows of each share that one tick has read, without those in the window; urgent rows come first."""

    def __init__(
        self, window: Mapping[bytes, int], shares: dict[bytes, Share], urgent: Sequence[tuple[str, str, DueRow]]
    ) -> None:
        self._window, self._shares = window, shares
        self._nudged = Counter(shares.values())
        self._urgent: dict[Share, list[DueRow]] = {}
        for endpoint, tenant, row in urgent:
            self._urgent.setdefault(Share(endpoint, tenant), []).append(row)
        self.new: dict[Share, list[DueRow]] = {}
        self._complete: set[Share] = set()

    def found(self, share: Share) -> int:
        return len(self.new.get(share, ()))

    def depth(self, share: Share) -> float:
        """Return the number of rows; infinity until all of them are read."""
        return self.found(share) if share in self._complete else math.inf

    def limit(self, share: Share, number: int) -> int:
        """Return how many rows to read so that `number` of them are new; 0 if they are read."""
        if share in self._complete or self.found(share) >= number:
            return 0
        return number + self._nudged[share]

    def add(self, share: Share, read: Sequence[DueRow], *, is_all: bool) -> None:
        """Note the rows that were read, the best of the share."""
        urgent = self._urgent.get(share, [])
        ids = {row.row_id for row in urgent}
        new = []
        for row in [*urgent, *(row for row in read if row.row_id not in ids)]:
            entry = nudge(row.row_id, row.attempt)
            if entry in self._window and entry not in self._shares:
                # Pushed by the intake or by another leader.
                self._shares[entry] = share
                self._nudged[share] += 1
            if row.priority < self._window.get(entry, math.inf):
                new.append(row)
        self.new[share] = new
        if is_all:
            self._complete.add(share)


def _calls(calls: Sequence[CallsInProgress]) -> Counter[Share]:
    found: Counter[Share] = Counter()
    for row in calls:
        if row.endpoint is not None and row.tenant is not None:
            found[Share(row.endpoint, row.tenant)] += row.calls
    return found
