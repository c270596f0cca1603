"""How far another clock is ahead of our monotonic one, and whether that clock was moved between two looks at it.

Every clock that an operator, NTP or a resumed machine may set is such a clock: it gives instants, and no durations.
"""

from dataclasses import dataclass
from typing import Final

# The most by which two clocks part between two looks, without a step: NTP slews by 0.5 ms a second.
TOLERANCE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Offset:
    """Seconds that the other clock is ahead, between `least` and `most`: the answer came some time after the question.

    >>> Offset.seen(1000.0, asked_at=5.0, answered_at=5.2)
    Offset(least=994.8, most=995.0)
    """

    least: float
    most: float

    @classmethod
    def seen(cls, other_s: float, *, asked_at: float, answered_at: float) -> "Offset":
        """Return the offset by one look: the other clock said `other_s` between two monotonic times."""
        return cls(other_s - answered_at, other_s - asked_at)

    def step_s(self, later: "Offset", *, tolerance_s: float = TOLERANCE_S) -> float:
        """Return by how many seconds, at least, the other clock was set forward (or back, negative); 0.0 for not."""
        forward, back = later.least - self.most, self.least - later.most
        if forward > tolerance_s:
            return forward
        return -back if back > tolerance_s else 0.0
