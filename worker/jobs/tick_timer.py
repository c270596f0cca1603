"""The pauses of the dispatcher's thread: until the next tick, or until the window must be topped up between two ticks.

A refill is the cheap part of a tick. It runs only while jobs wait for slots.
"""

import math
import threading
import time

# The least time between two ticks, however many rows become due and however often `wake` is called.
SHORTEST_S = 0.02
# While jobs wait for slots, the window is topped up this often: it holds only half a second of starts.
REFILL_S = 0.25
# A refill that takes longer than REFILL_S / REST is followed by a rest of REST times its duration.
REST = 2


class TickTimer:
    """Wakes one thread. Any thread may call `wake`, `refill` and `stop`."""

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._changed = threading.Condition()
        self._wake_at = self._next_at = math.inf
        self._rested_at = self._refill_at = 0.0
        self._is_refill_asked = False
        self.is_stopping = False

    def stop(self) -> None:
        """End the pause; there will be no other."""
        with self._changed:
            self.is_stopping = True
            self._changed.notify()

    def wake(self, delay_s: float) -> None:
        """Tick again within `delay_s`."""
        with self._changed:
            self._wake_at = min(self._wake_at, time.monotonic() + delay_s)
            self._changed.notify()

    def refill(self) -> None:
        """Refill within about REFILL_S."""
        with self._changed:
            self._is_refill_asked = True
            self._changed.notify()

    def ticked(self, took_s: float, next_s: float | None) -> None:
        """Note a tick that took `took_s`; a row becomes due in `next_s`.

        The pause is at least as long as the tick was. Without this, rows that become due one by one in thousands of
        lanes would keep the thread busy all the time.
        """
        now = time.monotonic()
        self._rested_at = now + max(SHORTEST_S, min(took_s, self._tick_s))
        self._next_at = now + (self._tick_s if next_s is None else next_s)

    def refilled(self, next_s: float | None) -> None:
        """Note a refill between two ticks; a row becomes due in `next_s`."""
        self._next_at = min(self._next_at, math.inf if next_s is None else time.monotonic() + next_s)

    def filled(self, took_s: float) -> None:
        """Note that the window was topped up, in a tick or between two, and took `took_s`."""
        self._refill_at = time.monotonic() + max(REFILL_S, REST * took_s)

    def pause(self, *, is_waiting: bool) -> bool:
        """Wait for the next tick; with `is_waiting` only for the next refill. Return True if a refill is due."""
        with self._changed:
            while not self.is_stopping:
                tick_at = max(self._rested_at, min(self._next_at, self._wake_at))
                until = min(tick_at, self._refill_at) if is_waiting or self._is_refill_asked else tick_at
                if (left_s := until - time.monotonic()) <= 0:
                    if time.monotonic() < tick_at:
                        self._is_refill_asked = False
                        return True
                    break
                self._changed.wait(left_s)
            if self._wake_at <= time.monotonic():
                self._wake_at = math.inf
            self._is_refill_asked = False
            return False
