"""The size of the window: the number of nudges to keep in Redis, from the rate of starts."""

import math
from collections.abc import Set as AbstractSet

# The smallest window, in nudges for each slot: a freed slot finds a nudge even during the next tick.
SLOTS_AHEAD = 2
LARGEST_WINDOW = 20_000
# A shorter time between two ticks gives no useful rate.
SHORTEST_S = 0.02


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
