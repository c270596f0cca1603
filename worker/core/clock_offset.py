"""The offset between a clock that can be set and our monotonic clock; finds steps of the clock that can be set.

An operator, NTP or the resume of a suspended machine can set a wall clock. It gives instants, but no durations.
"""

from dataclasses import dataclass
from typing import Final

# A smaller change of the offset between two readings is drift, not a step: NTP slews by 0.5 ms a second.
TOLERANCE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Offset:
    """The other clock is ahead by `least` to `most` seconds; a range, because reading that clock takes time.

    >>> Offset.from_reading(1000.0, asked_at=5.0, answered_at=5.2)
    Offset(least=994.8, most=995.0)
    """

    least: float
    most: float

    @classmethod
    def from_reading(cls, other_s: float, *, asked_at: float, answered_at: float) -> "Offset":
        """Return the offset from one reading: the other clock showed `other_s` between two monotonic times."""
        return cls(other_s - answered_at, other_s - asked_at)

    def step_s(self, later: "Offset", *, tolerance_s: float = TOLERANCE_S) -> float:
        """Return the least step of the other clock between two readings, in seconds: < 0 is back, 0.0 is no step."""
        forward, back = later.least - self.most, self.least - later.most
        if forward > tolerance_s:
            return forward
        return -back if back > tolerance_s else 0.0
