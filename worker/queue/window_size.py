"""The size of the window: how many nudges stand in Redis, by how fast they leave it."""

import math
from collections.abc import Set as AbstractSet

# At least: every free slot finds a nudge while the next tick is under way.
SLOTS_AHEAD = 2
LARGEST_WINDOW = 20_000
# Two looks closer than that say nothing about a rate.
SHORTEST_S = 0.02


class WindowSize:
    """How many nudges should stand in Redis: about `window_s` seconds of starts, at least twice the slots.

    Starts per second are what left the window between two ticks, averaged over about `window_s`. An empty window says
    only that it was too small: it doubles, if it was full and more stood behind it.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._starts_per_s = 0.0
        self._room = 0
        self._stood: AbstractSet[bytes] = frozenset()
        self._at: float | None = None

    def room(self, standing: AbstractSet[bytes], *, slots: int, at: float) -> int:
        """Return the size of the window; `standing` is what is in it at the monotonic time `at`."""
        if self._at is not None:
            elapsed_s = max(at - self._at, SHORTEST_S)
            left_per_s = len(self._stood - standing) / elapsed_s
            self._starts_per_s += (left_per_s - self._starts_per_s) * min(1.0, elapsed_s / self._window_s)
        wanted = max(SLOTS_AHEAD * slots, math.ceil(self._window_s * self._starts_per_s))
        if not standing and 0 < self._room <= len(self._stood):
            wanted = max(wanted, 2 * self._room)
        self._room = min(wanted, LARGEST_WINDOW)
        self._stood, self._at = standing, at
        return self._room

    def filled(self, pushed: AbstractSet[bytes]) -> None:
        """Note what was added to the window."""
        self._stood = self._stood | pushed
