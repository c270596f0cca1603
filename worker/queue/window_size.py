"""The size of a window: the number of nudges to keep in Redis, from the free slots and the rate of starts."""

import math
from collections.abc import Set as AbstractSet

# The smallest window of deliveries, in nudges for each slot: a freed slot finds a nudge even during the next tick.
SLOTS_AHEAD = 2
LARGEST_WINDOW = 20_000
# A shorter time between two ticks gives no useful rate.
SHORTEST_S = 0.02
# The rate at which calls end is averaged over this time.
AVERAGE_S = 1.0
# The longest recent time between two ticks fades by this factor with each tick.
FADING = 0.8


class WindowSize:
    """The size of the window: about `window_s` seconds of starts, at least SLOTS_AHEAD nudges for each slot.

    The rate is the number of nudges that left the window between two ticks, averaged over about `window_s`. An empty
    window was too small, and the true rate is unknown. If the window had been full, its size doubles.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._starts_per_s = 0.0
        self._room = 0
        self._entries: AbstractSet[bytes] = frozenset()
        self._measured_at: float | None = None

    def room(self, entries: AbstractSet[bytes], *, slots: int, at: float) -> int:
        """Return the new size of the window; `entries` are in it at the monotonic time `at`."""
        if self._measured_at is not None:
            elapsed_s = max(at - self._measured_at, SHORTEST_S)
            left_per_s = len(self._entries - entries) / elapsed_s
            self._starts_per_s += (left_per_s - self._starts_per_s) * min(1.0, elapsed_s / self._window_s)
        wanted = max(SLOTS_AHEAD * slots, math.ceil(self._window_s * self._starts_per_s))
        if not entries and 0 < self._room <= len(self._entries):
            wanted = max(wanted, 2 * self._room)
        self._room = min(wanted, LARGEST_WINDOW)
        self._entries, self._measured_at = entries, at
        return self._room

    def filled(self, pushed: AbstractSet[bytes]) -> None:
        """Note the entries that were added to the window."""
        self._entries = self._entries | pushed


class ShortWindow:
    """The size of the window of jobs: the free slots, and nudges for the calls that end in the next `ahead_s` seconds.

    A job that comes late waits behind every nudge in the window, so the window holds no more than the workers need
    until the next ticks. The rate is the number of calls that ended between two ticks: the nudges that left the window,
    less the growth of the calls in progress. The first nudges for free slots thus say nothing about the rate. If the
    window was full and ran dry while slots were free, the calls are shorter than the rate shows: `ahead_s` of starts
    doubles. If the ticks are late, because the machine is busy, `ahead_s` grows to two of the longest recent times
    between ticks, at most `most_s`.
    """

    def __init__(self, ahead_s: float, *, most_s: float = 2.0) -> None:
        self._ahead_s, self._most_s = ahead_s, most_s
        self._tick_s = 0.0
        self._ended_per_s = 0.0
        self._room = self._ahead = self._in_progress = 0
        self._entries: AbstractSet[bytes] = frozenset()
        self._measured_at: float | None = None

    def room(self, entries: AbstractSet[bytes], *, free: int, in_progress: int, at: float) -> int:
        """Return the new size of the window; `entries` are in it at the monotonic time `at`.

        `free` and `in_progress`: free slots and calls in progress of all workers.
        """
        if self._measured_at is not None:
            elapsed_s = max(at - self._measured_at, SHORTEST_S)
            self._tick_s = max(elapsed_s, FADING * self._tick_s)
            ended = len(self._entries - entries) - (in_progress - self._in_progress)
            self._ended_per_s += (max(0, ended) / elapsed_s - self._ended_per_s) * min(1.0, elapsed_s / AVERAGE_S)
        ahead_s = min(max(self._ahead_s, 2 * self._tick_s), self._most_s)
        ahead = math.ceil(ahead_s * self._ended_per_s)
        if not entries and free > 0 and 0 < self._room <= len(self._entries):
            ahead = max(ahead, 2 * self._ahead)
        self._ahead = ahead
        self._room = min(free + ahead, LARGEST_WINDOW)
        self._entries, self._in_progress, self._measured_at = entries, in_progress, at
        return self._room

    def filled(self, pushed: AbstractSet[bytes]) -> None:
        """Note the entries that were added to the window."""
        self._entries = self._entries | pushed
