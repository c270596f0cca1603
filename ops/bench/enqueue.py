"""Measure enqueue_many into `submit_v1`, commit included: `python ops/bench/enqueue.py DATABASE_URL [jobs]`.

The database must be migrated. The script removes its rows again. The best of five rounds counts.
"""

import sys
import time

from sqlalchemy import create_engine, text

from afterword import Afterword

REQUEST = {"model": "DeepSeek-V3.2", "messages": [{"role": "user", "content": "What is a queue?" * 16}]}
ROUNDS = 5


def main(url: str, jobs: str = "20000") -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    batch = [REQUEST] * int(jobs)
    best = 0.0
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        with engine.begin() as connection:
            ids = Afterword().enqueue_many(connection, batch, batch="bench")
        best = max(best, len(ids) / (time.perf_counter() - begun))
        with engine.begin() as connection:
            connection.execute(text('DELETE FROM afterword_inbox WHERE job LIKE \'%"batch":"bench"%\''))
    print(f"{best:,.0f} jobs/s enqueued on {engine.dialect.name}, {jobs} in one transaction")


if __name__ == "__main__":
    main(*sys.argv[1:])
