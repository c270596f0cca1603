"""Notices rows that other processes put into a SQLite inbox: its version changes with each of their commits."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy import Engine

from worker.store.engine import describe, is_away, is_busy

# How often it is looked at; a look costs microseconds.
WATCH_S = 0.02
PAUSE_S = 2.0

log = structlog.get_logger()


class InboxWatch:
    """Calls `drain` when something stands in the inbox, until `stopping` is set; `run` is for a thread."""

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
        """Watch; a database that cannot be read is looked at again."""
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
            # A look without a lock; taking the rows needs one.
            if connection.execute("SELECT 1 FROM afterword_inbox LIMIT 1").fetchone():
                self._drain()
