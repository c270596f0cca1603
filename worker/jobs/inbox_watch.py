"""Watches a SQLite inbox for rows of other processes: `PRAGMA data_version` changes with each of their commits."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy import Engine

from worker.store.engine import describe, is_away, is_busy

# The time between two looks at the version; a look costs microseconds.
WATCH_S = 0.02
PAUSE_S = 2.0

log = structlog.get_logger()


class InboxWatch:
    """Calls `drain` when the inbox has rows, until `stopping` is set; start `run` in a thread."""

    def __init__(
        self,
        engine: Engine,
        drain: Callable[[], None],
        stopping: threading.Event,
        *,
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine, self._drain, self._stopping, self._turned = engine, drain, stopping, turned

    def run(self) -> None:
        """Watch; if the database cannot be read, log it and try again after PAUSE_S."""
        self._turned()
        while not self._stopping.is_set():
            try:
                with contextlib.closing(self._engine.raw_connection()) as connection:
                    self._watch(connection)
            except Exception as error:
                if is_away(error) or is_busy(error):
                    self._turned()
                log.warning("inbox.not_watched", **describe(error))
                self._stopping.wait(PAUSE_S)

    def _watch(self, connection: Any) -> None:
        seen: Any = None
        while not self._stopping.wait(WATCH_S):
            version = connection.execute("PRAGMA data_version").fetchone()
            self._turned()
            if version == seen:
                continue
            seen = version
            # This SELECT takes no lock; `drain` needs the write lock.
            if connection.execute("SELECT 1 FROM afterword_inbox LIMIT 1").fetchone():
                self._drain()
