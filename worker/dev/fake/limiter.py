"""Fake endpoint: admit or refuse requests under limits. Uses no clock: `now` is in seconds since 1970."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from worker.dev.fake.limits import RATES, WINDOWS_IN_A_MINUTE, ProviderLimit
from worker.dev.fake.meters import MINUTE_S, BucketMeter, FixedWindowMeter, Meter, SlidingMinuteMeter
from worker.dev.fake.usage import Counts

SLOT_WAIT_S = 1.0  # the wait for a free slot: nothing is known about the ends of other calls
STALE_S = 60.0
DAY_S = 86_400.0
# Groq's free tier: 30 requests a minute, 14,400 a day; the headers show the day (console.groq.com/docs/rate-limits).
DAY_OF_MINUTES = 480


class Demand(NamedTuple):
    """A request as the limits see it. `used` are the tokens of its answer, which the fake endpoint knows at arrival."""

    key: str
    model: str
    reserved: Counts
    used: Counts


class ShownAllowance(NamedTuple):
    """One allowance for the rate-limit headers; `name` is that of its field in ProviderLimit."""

    name: str
    limit: float
    used: float
    reset_s: float


@dataclass(frozen=True, slots=True)
class LimitRefusal:
    """The allowance that has no room. `wait_s` is infinite for a request that never fits."""

    limit: ProviderLimit
    name: str
    allowed: float
    used: float
    asked: float
    wait_s: float


@dataclass(slots=True, eq=False)
class LimitCounters:
    """The counters of one limit for the requests that share them."""

    limit: ProviderLimit
    meters: dict[str, Meter]
    day: BucketMeter | None = None
    in_flight: int = 0
    _shown: tuple[ShownAllowance, ...] = ()
    _shown_at: float = -math.inf

    def refusals(self, demand: Demand, now: float) -> Iterator[LimitRefusal]:
        """Yield the allowances that have no room for a request."""
        most = self.limit.max_in_flight
        if most is not None and self.in_flight >= most:
            yield LimitRefusal(self.limit, "max_in_flight", most, self.in_flight, 1, SLOT_WAIT_S)
        for name, asked in self._asked(demand).items():
            meter = self.meters[name]
            if (wait_s := meter.wait_s(asked, now)) > 0:
                yield LimitRefusal(self.limit, name, meter.limit, meter.used(now), asked, wait_s)

    def enter(self, demand: Demand, now: float) -> None:
        """Count an admitted request."""
        self.in_flight += 1
        for name, asked in self._asked(demand).items():
            if name == "requests_per_minute" or self.limit.kind != "after":
                self.meters[name].take(asked, now)
        if self.day is not None:
            self.day.take(1, now)

    def leave(self, demand: Demand, now: float) -> None:
        """Count the end of an answer; the kind `after` charges its tokens now."""
        self.in_flight -= 1
        if self.limit.kind == "after":
            for name, used in self._amounts(demand.used).items():
                if name != "requests_per_minute":
                    self.meters[name].take(used, now)

    def show(self, now: float) -> tuple[ShownAllowance, ...]:
        """Return the allowances for the headers; those of `stale` are up to a minute old."""
        if self.limit.headers != "stale" or now - self._shown_at >= STALE_S:
            self._shown_at = now
            meters = self.meters | ({} if self.day is None else {"requests_per_minute": self.day})
            self._shown = tuple(
                ShownAllowance(name, meter.limit, meter.used(now), meter.reset_s(now)) for name, meter in meters.items()
            )
        return self._shown

    def charged(self, demand: Demand) -> int:
        """Return the tokens, input and output, that this limit counts for a request."""
        counts = demand.reserved if self.limit.kind == "reserve" else demand.used
        return self._input(counts) + counts.completion

    def _asked(self, demand: Demand) -> dict[str, int]:
        if self.limit.kind == "after":
            return dict.fromkeys(self.meters, 1)  # any room will do; the debt is paid by those who come later
        return self._amounts(demand.reserved if self.limit.kind == "reserve" else demand.used)

    def _amounts(self, counts: Counts) -> dict[str, int]:
        amounts = (1, self._input(counts) + counts.completion, self._input(counts), counts.completion)
        return {name: amount for name, amount in zip(RATES, amounts, strict=True) if name in self.meters}

    def _input(self, counts: Counts) -> int:
        return counts.prompt - (0 if self.limit.cached_input_counts else counts.cached)


@dataclass(slots=True, eq=False)
class AdmittedCall:
    """An admitted request, until it leaves."""

    demand: Demand
    groups: tuple[LimitCounters, ...] = ()

    @property
    def charged(self) -> int:
        """The tokens that the limits count; without limits the tokens of the answer."""
        if not self.groups:
            return self.demand.used.prompt + self.demand.used.completion
        return max(group.charged(self.demand) for group in self.groups)


@dataclass(slots=True)
class ProviderLimiter:
    """All limits, their counters and the calls in flight."""

    limits: tuple[ProviderLimit, ...] = ()
    running: set[AdmittedCall] = field(default_factory=set)
    in_flight: Counter[tuple[str, str]] = field(default_factory=Counter)  # by key and model
    _groups: dict[tuple[int, str, str], LimitCounters] = field(default_factory=dict)

    def admit(self, demand: Demand, now: float) -> AdmittedCall | LimitRefusal:
        """Admit a request, or return the refusal with the longest wait; a refused request is not counted."""
        groups = self.groups(demand)
        if refusals := [refusal for group in groups for refusal in group.refusals(demand, now)]:
            return max(refusals, key=lambda refusal: refusal.wait_s)
        for group in groups:
            group.enter(demand, now)
        call = AdmittedCall(demand, groups)
        self.running.add(call)
        self.in_flight[demand.key, demand.model] += 1
        return call

    def leave(self, call: AdmittedCall, now: float) -> None:
        """Note the end of an admitted request, successful or not."""
        self.running.remove(call)
        self.in_flight[call.demand.key, call.demand.model] -= 1
        for group in call.groups:
            group.leave(call.demand, now)

    def replace(self, limits: Sequence[ProviderLimit]) -> None:
        """Set other limits. Rates start unused; the calls in flight stay counted."""
        self.limits, self._groups = tuple(limits), {}
        for call in self.running:
            call.groups = self.groups(call.demand)
            for group in call.groups:
                group.in_flight += 1

    def groups(self, demand: Demand) -> tuple[LimitCounters, ...]:
        """Return the counters that apply to a request."""
        if not self.limits:
            return ()
        return tuple(
            self._group(number, demand.key, demand.model)
            for number, limit in enumerate(self.limits)
            if limit.matches(demand.key, demand.model)
        )

    def _group(self, number: int, key: str, model: str) -> LimitCounters:
        limit = self.limits[number]
        place = (number, key if "key" in limit.per else "", model if "model" in limit.per else "")
        group = self._groups.get(place)
        if group is None:
            group = self._groups[place] = _new_group(limit)
        return group


def _new_group(limit: ProviderLimit) -> LimitCounters:
    rates = {name: rate for name in RATES if (rate := getattr(limit, name)) is not None}
    day = None
    if limit.headers == "per_day" and limit.requests_per_minute is not None:
        day = BucketMeter(limit.requests_per_minute * DAY_OF_MINUTES, burst_s=DAY_S, period_s=DAY_S)
    return LimitCounters(limit, {name: _meter(limit, rate) for name, rate in rates.items()}, day)


def _meter(limit: ProviderLimit, per_minute: int) -> Meter:
    match limit.kind:
        case "sliding":
            return SlidingMinuteMeter(per_minute)
        case "window":
            return FixedWindowMeter(per_minute)
        case "window10s":
            return FixedWindowMeter(per_minute / WINDOWS_IN_A_MINUTE, length_s=MINUTE_S / WINDOWS_IN_A_MINUTE)
        case _:
            return BucketMeter(per_minute, burst_s=limit.burst_s)
