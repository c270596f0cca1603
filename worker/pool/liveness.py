"""When each thread of this process last made a turn, so that a thread that stands still is known.

A turn is a round of the thread's work that succeeded, or found nothing to do, or waits for a database or a Redis that
is away: an outage has log lines of its own, and must end no process that holds paid answers. A thread that fails for
ever, or waits for ever, makes no turns.
"""

import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import structlog

# The longest wait that a thread may be in: 30 s for the lock of SQLite (`store.engine`).
STALLED_S = 35.0
LOOK_S = 1.0
FRAMES = 6

log = structlog.get_logger()


def thread_name(name: str) -> str:
    """Return the name of the Python thread that makes the turns called `name`."""
    return f"afterword-{name}"


class Liveness:
    """The threads of one process. Any thread may ask; each notes its own turns, which costs one assignment."""

    def __init__(self, *, stalled_s: float = STALLED_S, look_s: float = LOOK_S) -> None:
        self.stalled_s, self._look_s = stalled_s, look_s
        self._turned_at: dict[str, float] = {}
        self._asked: dict[str, Callable[[], float | None]] = {}
        # A process that was frozen as a whole is judged from here on.
        self._awake_since = monotonic()
        self._stalled: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=thread_name("liveness"), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; threads may end now."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._look_s)

    def turns(self, name: str) -> Callable[[], None]:
        """Return the function that a thread calls at each turn. From its first call on the thread is watched."""

        def turned() -> None:
            self._turned_at[name] = monotonic()

        return turned

    def ask(self, name: str, turned_at: Callable[[], float | None]) -> None:
        """Watch a thread that knows the monotonic time of its last turn; None: it does not run."""
        self._asked[name] = turned_at

    def forget(self, *names: str) -> None:
        """Watch these no more: they were asked to end."""
        for name in names:
            self._turned_at.pop(name, None)
            self._asked.pop(name, None)
            self._stalled.discard(name)

    def quiet_s(self) -> dict[str, float]:
        """Return for how many seconds each thread has made no turn."""
        asked = {name: turned_at() for name, turned_at in tuple(self._asked.items())}
        last = dict(self._turned_at) | {name: at for name, at in asked.items() if at is not None}
        now = monotonic()
        return {name: max(0.0, now - max(at, self._awake_since)) for name, at in last.items()}

    def stalled(self) -> dict[str, float]:
        """Return the threads that stand still, each with the seconds since its last turn."""
        return {name: quiet_s for name, quiet_s in self.quiet_s().items() if quiet_s > self.stalled_s}

    def look(self) -> None:
        """Log each thread that has come to stand still since the last look, or turns again."""
        quiet = self.quiet_s()
        for name, quiet_s in quiet.items():
            stands = quiet_s > self.stalled_s
            if stands and name not in self._stalled:
                self._stalled.add(name)
                log.error("thread.stalled", thread=name, quiet_s=round(quiet_s, 1), where=_places(thread_name(name)))
            elif not stands and name in self._stalled:
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
    """Return where a thread is, innermost last: `intake.py:120 _run`."""
    idents = [thread.ident for thread in threading.enumerate() if thread.name == name]
    frame = sys._current_frames().get(idents[0] or 0) if idents else None
    if frame is None:
        return ["the thread has ended"]
    found = traceback.extract_stack(frame)[-FRAMES:]
    return [f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in found]
