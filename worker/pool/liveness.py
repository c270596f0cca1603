"""Record the last turn of each thread of this process, and report stalled threads.

A turn is one round of the thread's work: it succeeded, found nothing to do, or waits because the database or Redis is
away. An outage therefore stalls no thread: it has its own log lines, and must not end a process that holds paid
answers. A thread that always fails, or waits for ever, makes no turns.
"""

import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import structlog

# Longer than the longest legal wait: 30 s for SQLite's lock (`store.engine`).
STALLED_S = 35.0
LOOK_S = 1.0
FRAMES = 6

log = structlog.get_logger()


def thread_name(name: str) -> str:
    """Return the Python thread's name for the turns recorded as `name`."""
    return f"afterword-{name}"


class Liveness:
    """The turns of the threads of one process. Safe from any thread; recording a turn costs one assignment."""

    def __init__(self, *, stalled_s: float = STALLED_S, look_s: float = LOOK_S) -> None:
        self.stalled_s, self._look_s = stalled_s, look_s
        self._turned_at: dict[str, float] = {}
        self._asked: dict[str, Callable[[], float | None]] = {}
        # After the whole process was frozen, quiet times count from here.
        self._awake_since = monotonic()
        self._stalled: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=thread_name("liveness"), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; threads may end now."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._look_s)

    def turns(self, name: str) -> Callable[[], None]:
        """Return a function that the thread calls at each turn. Its first call starts the watch."""

        def turned() -> None:
            self._turned_at[name] = monotonic()

        return turned

    def ask(self, name: str, turned_at: Callable[[], float | None]) -> None:
        """Watch a thread by a function that returns the monotonic time of its last turn, or None before it runs."""
        self._asked[name] = turned_at

    def forget(self, *names: str) -> None:
        """Stop watching these threads, because they were asked to end."""
        for name in names:
            self._turned_at.pop(name, None)
            self._asked.pop(name, None)
            self._stalled.discard(name)

    def quiet_s(self) -> dict[str, float]:
        """Return the seconds since the last turn of each thread."""
        asked = {name: turned_at() for name, turned_at in tuple(self._asked.items())}
        last = dict(self._turned_at) | {name: at for name, at in asked.items() if at is not None}
        now = monotonic()
        return {name: max(0.0, now - max(at, self._awake_since)) for name, at in last.items()}

    def stalled(self) -> dict[str, float]:
        """Return the stalled threads, each with the seconds since its last turn."""
        return {name: quiet_s for name, quiet_s in self.quiet_s().items() if quiet_s > self.stalled_s}

    def look(self) -> None:
        """Log each thread that has stalled or resumed since the last call."""
        quiet = self.quiet_s()
        for name, quiet_s in quiet.items():
            is_stalled = quiet_s > self.stalled_s
            if is_stalled and name not in self._stalled:
                self._stalled.add(name)
                log.error("thread.stalled", thread=name, quiet_s=round(quiet_s, 1), where=_places(thread_name(name)))
            elif not is_stalled and name in self._stalled:
                self._stalled.discard(name)
                log.warning("thread.resumed", thread=name)

    def _run(self) -> None:
        looked_at = monotonic()
        while not self._stopping.wait(self._look_s):
            now = monotonic()
            if now - looked_at > self._look_s + self.stalled_s / 2:
                self._awake_since = now
            looked_at = now
            try:
                self.look()
            except Exception:
                log.exception("liveness.failed")


def _places(name: str) -> list[str]:
    """Return the last frames of a thread, innermost last: `intake.py:120 _run`."""
    idents = [thread.ident for thread in threading.enumerate() if thread.name == name]
    frame = sys._current_frames().get(idents[0] or 0) if idents else None
    if frame is None:
        return ["the thread has ended"]
    frames = traceback.extract_stack(frame)[-FRAMES:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
