"""Chooses the due rows for the window: an equal share per lane, and a slow start for endpoints that are just back."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from sqlalchemy import Engine

from worker.jobs.core.endpoint_health import Ramp
from worker.jobs.store import due
from worker.jobs.store.due import JobLane
from worker.queue.nudges import nudge
from worker.store.transitions import DueRow

# A transaction on SQLite holds the only write lock; this keeps it to a few milliseconds.
LANES_A_TRANSACTION = 20
# How often the unused shares of short lanes are divided among longer ones; the next tick continues.
PASSES = 3


class FairShare:
    """Reads due rows while `leads()` is true."""

    def __init__(self, engine: Engine, *, leads: Callable[[], bool]) -> None:
        self._engine, self._leads = engine, leads
        self._ramp = Ramp()

    def missing(
        self, lanes: Sequence[JobLane], slow: Mapping[str, float], room: int, window: Mapping[bytes, int]
    ) -> list[tuple[int, bytes]]:
        """Return (priority, nudge) pairs to add to `window`, a mapping of nudge to priority.

        `slow` maps each slow endpoint to the seconds since it came back; its starts are limited (`Ramp`).
        """
        found: list[tuple[int, bytes]] = []
        for name, slow_s in slow.items():
            its_lanes = [lane for lane in lanes if lane.endpoint == name]
            share = math.ceil(room * len(its_lanes) / max(1, len(lanes)))
            more = self._entries(its_lanes, min(share, self._ramp.left(name, slow_s)), window)
            self._ramp.spend(name, slow_s, len(more))
            found += more
        return found + self._entries([lane for lane in lanes if lane.endpoint not in slow], room - len(found), window)

    def _entries(self, lanes: Sequence[JobLane], wanted: int, window: Mapping[bytes, int]) -> list[tuple[int, bytes]]:
        # Rows that the window already holds are dropped below; the rest of the `wanted` rows is enough to fill it.
        entries = [
            (row.priority, nudge(row.row_id, row.attempt)) for row in self._best(lanes, wanted)[: max(0, wanted)]
        ]
        # A row whose priority was raised is pushed again; its old nudge then finds the row claimed.
        return [entry for entry in entries if entry[0] < window.get(entry[1], math.inf)]

    def _best(self, lanes: Sequence[JobLane], wanted: int) -> list[DueRow]:
        """Return about `wanted` due rows, best first: an equal share per lane; unused shares go to other lanes."""
        rows: dict[JobLane, list[DueRow]] = {}
        deep, share = list(lanes), 0
        for _ in range(PASSES):
            left = wanted - sum(map(len, rows.values()))
            if left <= 0 or not deep:
                break
            share += math.ceil(left / len(deep))
            rows.update(self._read(deep, share))
            deep = [lane for lane in deep if len(rows.get(lane, ())) == share]
        return sorted((row for of_lane in rows.values() for row in of_lane), key=lambda row: (row.priority, -row.age_s))

    def _read(self, lanes: Sequence[JobLane], limit: int) -> Iterator[tuple[JobLane, list[DueRow]]]:
        for first in range(0, len(lanes), LANES_A_TRANSACTION):
            if not self._leads():
                return
            with self._engine.begin() as connection:
                read = [(lane, due.due(connection, lane, limit=limit)) for lane in lanes[first:][:LANES_A_TRANSACTION]]
            yield from read
