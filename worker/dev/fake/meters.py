"""Fake endpoint: meters for an amount a minute, one class for each way of counting. Uses no clock: `now` is in seconds.

Sources of the ways: OpenAI and Anthropic refill a bucket, Azure judges short windows, gateways count a minute.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

MINUTE_S = 60.0
SLACK = 1e-6  # of a token or request: a bucket's level is a float


class Meter(Protocol):
    """Counts one amount, such as tokens. `limit` is the number that the rate-limit headers show."""

    limit: float

    def wait_s(self, amount: float, now: float) -> float:
        """Return the seconds until `amount` fits: 0.0 if it fits now, infinity if it never does."""

    def take(self, amount: float, now: float) -> None:
        """Count `amount`, whether it fits or not."""

    def used(self, now: float) -> float:
        """Return the part of `limit` that is used now."""

    def reset_s(self, now: float) -> float:
        """Return the seconds until nothing is used, if nothing more comes."""


@dataclass(slots=True)
class BucketMeter:
    """A token bucket: `limit` refills in `period_s`, the bucket holds `burst_s` of it. It may be more than empty."""

    limit: float
    burst_s: float = MINUTE_S
    period_s: float = MINUTE_S
    _taken: float = 0.0
    _at: float = -math.inf

    @property
    def capacity(self) -> float:
        return max(1.0, self.limit * self.burst_s / self.period_s)

    def wait_s(self, amount: float, now: float) -> float:
        if amount > self.capacity + SLACK:
            return math.inf
        short = amount - (self.capacity - self.used(now))
        return short * self.period_s / self.limit if short > SLACK else 0.0

    def take(self, amount: float, now: float) -> None:
        self._taken = self.used(now) + amount
        self._at = max(self._at, now)

    def used(self, now: float) -> float:
        refilled = max(0.0, now - self._at) * self.limit / self.period_s
        return max(0.0, self._taken - refilled)

    def reset_s(self, now: float) -> float:
        return self.used(now) * self.period_s / self.limit


@dataclass(slots=True)
class SlidingMinuteMeter:
    """The sum of the last 60 seconds."""

    limit: float
    _charges: deque[tuple[float, float]] = field(default_factory=deque)
    _sum: float = 0.0

    def wait_s(self, amount: float, now: float) -> float:
        if amount > self.limit:
            return math.inf
        over = self.used(now) + amount - self.limit
        wait_s = 0.0
        for at, charged in self._charges:
            if over <= 0:
                break
            over, wait_s = over - charged, at + MINUTE_S - now
        return wait_s

    def take(self, amount: float, now: float) -> None:
        self._charges.append((now, amount))
        self._sum += amount

    def used(self, now: float) -> float:
        while self._charges and self._charges[0][0] <= now - MINUTE_S:
            self._sum -= self._charges.popleft()[1]
        return self._sum

    def reset_s(self, now: float) -> float:
        return self._charges[-1][0] + MINUTE_S - now if self.used(now) > 0 else 0.0


@dataclass(slots=True)
class FixedWindowMeter:
    """The sum since the last multiple of `length_s` on the clock. `limit` is that of one window."""

    limit: float
    length_s: float = MINUTE_S
    _window: float = -math.inf
    _sum: float = 0.0

    def wait_s(self, amount: float, now: float) -> float:
        if amount > self.limit:
            return math.inf
        return 0.0 if self.used(now) + amount <= self.limit else self._end(now) - now

    def take(self, amount: float, now: float) -> None:
        self._sum = self.used(now) + amount
        self._window = now // self.length_s

    def used(self, now: float) -> float:
        return self._sum if now // self.length_s == self._window else 0.0

    def reset_s(self, now: float) -> float:
        return self._end(now) - now if self.used(now) > 0 else 0.0

    def _end(self, now: float) -> float:
        return (now // self.length_s + 1) * self.length_s
