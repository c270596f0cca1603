"""One chaos run, from its first fault to the comparison of the ledgers. ops/chaos and the short test start it."""

import argparse
import math
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.faults import Done, Faults
from tests.chaos.ledger import Book
from tests.chaos.parts import Parts
from tests.chaos.producers import Producers
from tests.chaos.reader import Reader
from tests.chaos.reconcile import Outcome, open_ids, reconcile
from tests.chaos.schedule import KINDS, Kind, draw
from tests.chaos.table import report_lines

# The run stops waiting after this time without an ended job.
SETTLE_S = 120.0
# The shortest and longest gap between two faults: about the time a part needs for its repair.
GAP_S = (1.0, 4.0)


@dataclass(frozen=True, slots=True)
class Run:
    """The results of a run, its faults, and the times of completed jobs (seconds of time.time(), in order)."""

    outcome: Outcome
    faults: tuple[Done, ...]
    completed_at: tuple[float, ...]
    settled_s: float
    errors: dict[str, int]


def chaos(
    folder: Path,
    *,
    seed: int,
    seconds: float,
    rate: float = 15.0,
    gap_s: tuple[float, float] = GAP_S,
    kinds: Sequence[Kind] = KINDS,
    workers: int = 3,
) -> Run:
    """Break parts for `seconds` while producers send about `rate` jobs a second; then let all jobs end and compare."""
    parts = Parts(folder, workers=workers)
    book = Book()
    try:
        parts.start()
        reader = Reader(parts)
        producers = Producers(parts, book, seed=seed, rate=rate)
        faults = Faults(parts, draw(seed, seconds=seconds, gap_s=gap_s, kinds=kinds))
        reader.start()
        try:
            producers.start()
            faults.start()
            faults.join()
            producers.finish()
            quiet_at = time.monotonic()
            waiting = _settle(parts, book)
            settled_s = time.monotonic() - quiet_at
        finally:
            faults.stop()
            producers.close()
            reader.close()
        outcome = reconcile(parts, book, reader)
        outcome.wrong += [f"not settled, and nothing moved for {SETTLE_S:.0f} s: {one}" for one in waiting]
        outcome.wrong += [f"a fault failed: {one}" for one in faults.failed]
        ended = "SELECT extract(epoch FROM finished_at) AS at FROM afterword_jobs WHERE status = 'completed' ORDER BY 1"
        completed_at = tuple(float(row.at) for row in parts.rows(ended))
        return Run(outcome, tuple(faults.done), completed_at, settled_s, dict(book.errors))
    finally:
        parts.stop()


def _settle(parts: Parts, book: Book) -> list[str]:
    """Wait until every job is final and the queue and the inbox are empty; return the rest when no more jobs end."""
    give_up, least = time.monotonic() + SETTLE_S, math.inf
    while True:
        parts.note_deaths()
        waiting: list[str] = parts.patiently(lambda: open_ids(parts, book))
        if len(waiting) < least:
            give_up, least = time.monotonic() + SETTLE_S, len(waiting)
        if not waiting or time.monotonic() > give_up:
            return waiting
        threading.Event().wait(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description="Break everything for a while, then prove that nothing is lost.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=15.0, help="jobs a second, about")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="keep the logs, and say where")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="afterword-chaos-"))
    run = chaos(folder, seed=args.seed, seconds=60 * args.minutes, rate=args.rate, workers=args.workers)
    print("\n".join(report_lines(run.outcome, run.faults, run.completed_at, run.settled_s, run.errors)))
    if args.keep or not run.outcome.sound:
        print(f"\nThe logs are in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if run.outcome.sound else 1)


if __name__ == "__main__":
    main()
