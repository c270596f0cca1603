"""A reader that follows the feed of finished jobs all the time, like a billing system: `cursor > N`."""

import threading
from typing import Any

from sqlalchemy import text

from tests.chaos.parts import Parts
from worker.store.engine import open_engine

FOLLOW = text(
    "SELECT cursor, id, status, finished_at FROM finished_v1 WHERE cursor > :after ORDER BY cursor LIMIT 1000"
)


class Reader:
    """`rows` lists the rows in the order in which the reader saw them."""

    def __init__(self, parts: Parts) -> None:
        self._engine = open_engine(parts.database.url, reading=True)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader")
        self.rows: list[Any] = []

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop after a last read."""
        self._stopping.set()
        self._thread.join()
        self._look()
        self._engine.dispose()

    def _run(self) -> None:
        while not self._stopping.wait(0.1):
            try:
                self._look()
            except Exception:
                continue

    def _look(self) -> None:
        with self._engine.connect() as connection:
            found = connection.execute(FOLLOW, {"after": self.rows[-1].cursor if self.rows else 0}).all()
        self.rows += found
