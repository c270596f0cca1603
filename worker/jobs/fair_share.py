"""The dispatcher's choice: the best due rows, a like share of each lane, of endpoints just back not all at once."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from sqlalchemy import Engine

from worker.jobs.core.endpoint_health import Ramp
from worker.jobs.store import due
from worker.jobs.store.due import JobLane
from worker.queue.nudges import nudge
from worker.store.transitions import Due

# On SQLite a transaction holds the one write lock: a few milliseconds at a time.
LANES_A_TRANSACTION = 20
# Shares that shallow lanes leave are handed to the deep ones this often; the next tick goes on.
PASSES = 3


class FairShare:
    """Reads due rows as long as `leads()` says that it is our turn."""

    def __init__(self, engine: Engine, *, leads: Callable[[], bool]) -> None:
        self._engine, self._leads = engine, leads
        self._ramp = Ramp()

    def missing(
        self, lanes: Sequence[JobLane], slow: Mapping[str, float], room: int, standing: Mapping[bytes, int]
    ) -> list[tuple[int, bytes]]:
        """Return priorities and nudges that the window lacks: of each of the endpoints `slow` no more than may start.

        `slow`: for how many seconds each has been.
        """
        found: list[tuple[int, bytes]] = []
        for name, slow_s in slow.items():
            some = [lane for lane in lanes if lane.endpoint == name]
            share = math.ceil(room * len(some) / max(1, len(lanes)))
            more = self._entries(some, min(share, self._ramp.left(name, slow_s)), standing)
            self._ramp.spend(name, slow_s, len(more))
            found += more
        return found + self._entries([lane for lane in lanes if lane.endpoint not in slow], room - len(found), standing)

    def _entries(self, lanes: Sequence[JobLane], wanted: int, standing: Mapping[bytes, int]) -> list[tuple[int, bytes]]:
        # Of `wanted` rows at most those that stand are known: the others are enough to fill the window.
        entries = [
            (row.priority, nudge(row.row_id, row.attempt)) for row in self._best(lanes, wanted)[: max(0, wanted)]
        ]
        # Again where its priority is better by now than its place; the nudge left behind finds it claimed.
        return [entry for entry in entries if entry[0] < standing.get(entry[1], math.inf)]

    def _best(self, lanes: Sequence[JobLane], wanted: int) -> list[Due]:
        """Return about `wanted` due rows, best first: a like share of each lane, and what some leave to the others."""
        rows: dict[JobLane, list[Due]] = {}
        deep, share = list(lanes), 0
        for _ in range(PASSES):
            left = wanted - sum(map(len, rows.values()))
            if left <= 0 or not deep:
                break
            share += math.ceil(left / len(deep))
            rows.update(self._read(deep, share))
            deep = [lane for lane in deep if len(rows.get(lane, ())) == share]
        return sorted((row for some in rows.values() for row in some), key=lambda row: (row.priority, -row.age_s))

    def _read(self, lanes: Sequence[JobLane], limit: int) -> Iterator[tuple[JobLane, list[Due]]]:
        for first in range(0, len(lanes), LANES_A_TRANSACTION):
            if not self._leads():
                return
            with self._engine.begin() as connection:
                some = [(lane, due.due(connection, lane, limit=limit)) for lane in lanes[first:][:LANES_A_TRANSACTION]]
            yield from some
