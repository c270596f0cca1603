"""The limits of the fake endpoint: tables of cases, and the promise of each kind for any pattern of arrivals."""

import copy
import heapq
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.dev.fake.limiter import AdmittedCall, Demand, LimitRefusal, ProviderLimiter
from worker.dev.fake.limits import ProviderLimit, parse_limits
from worker.dev.fake.usage import Counts

NOON = 1_800_000_000.0  # a multiple of 60
SLACK = 1e-3


def demand(
    prompt: int = 10, most: int = 20, spoken: int = 5, *, key: str = "k", model: str = "m", cached: int = 0
) -> Demand:
    return Demand(key, model, Counts(prompt, most, cached=cached), Counts(prompt, spoken, cached=cached))


def limiter(*limits: dict[str, Any]) -> ProviderLimiter:
    return ProviderLimiter(parse_limits(limits))


def admitted(limits: ProviderLimiter, asked: Demand, *times_s: float) -> list[bool]:
    """Ask at these seconds after noon; no call ends."""
    return [isinstance(limits.admit(asked, NOON + time_s), AdmittedCall) for time_s in times_s]


@pytest.mark.parametrize(
    ("limit", "times_s", "expected"),
    [
        # reserve: 10 + 20 tokens each; the bucket holds 60 and refills one a second.
        ({"kind": "reserve", "tokens_per_minute": 60}, (0, 0, 0, 29, 30, 30), (1, 1, 0, 0, 1, 0)),
        ({"kind": "reserve", "tokens_per_minute": 60, "burst_s": 30}, (0, 0, 29, 30), (1, 0, 0, 1)),
        ({"kind": "reserve", "requests_per_minute": 2}, (0, 0, 0, 29, 30), (1, 1, 0, 0, 1)),
        ({"kind": "reserve", "input_tokens_per_minute": 15}, (0, 0, 19, 20), (1, 0, 0, 1)),
        ({"kind": "reserve", "output_tokens_per_minute": 40}, (0, 0, 0, 30), (1, 1, 0, 1)),
        # after: nothing is charged before the end.
        ({"kind": "after", "tokens_per_minute": 1}, (0, 0, 0, 0), (1, 1, 1, 1)),
        ({"kind": "after", "requests_per_minute": 1}, (0, 0, 60), (1, 0, 1)),
        # sliding: 10 + 5 tokens each, in the last 60 seconds.
        ({"kind": "sliding", "tokens_per_minute": 30}, (0, 50, 59, 60, 60, 109, 110), (1, 1, 0, 1, 0, 0, 1)),
        # window: the minute of the clock.
        ({"kind": "window", "tokens_per_minute": 30}, (50, 51, 59, 60, 61, 62, 119), (1, 1, 0, 1, 1, 0, 0)),
        ({"kind": "window10s", "requests_per_minute": 12}, (8, 9, 9.9, 10, 11, 12), (1, 1, 0, 1, 1, 0)),
        ({"kind": "slots", "max_in_flight": 2}, (0, 0, 100), (1, 1, 0)),
    ],
)
def test_each_kind_counts_in_its_way(limit: dict[str, Any], times_s: tuple[float, ...], expected: list[int]) -> None:
    assert admitted(limiter(limit), demand(), *times_s) == list(map(bool, expected))


def test_the_debt_of_an_answer_is_paid_before_the_next_request() -> None:
    limits = limiter({"kind": "after", "tokens_per_minute": 60})
    calls = [limits.admit(demand(prompt=0, spoken=90), NOON) for _ in range(2)]
    for call in calls:
        assert isinstance(call, AdmittedCall)
        limits.leave(call, NOON + 10)
    refusal = limits.admit(demand(), NOON + 10)
    assert isinstance(refusal, LimitRefusal)
    assert refusal.wait_s == pytest.approx(2 * 90 - 60 + 1)
    assert admitted(limits, demand(), 130, 132) == [False, True]


def test_a_free_slot_lets_the_next_call_in() -> None:
    limits = limiter({"kind": "slots", "max_in_flight": 1})
    call = limits.admit(demand(), NOON)
    assert isinstance(call, AdmittedCall)
    assert isinstance(limits.admit(demand(), NOON), LimitRefusal)
    limits.leave(call, NOON)
    assert isinstance(limits.admit(demand(), NOON), AdmittedCall)


def test_a_refused_request_counts_nowhere() -> None:
    limits = limiter({"kind": "window", "requests_per_minute": 5, "max_in_flight": 1, "tokens_per_minute": 1000})
    assert admitted(limits, demand(), *[0] * 50) == [True] + [False] * 49
    (call,) = limits.running
    limits.leave(call, NOON)
    (group,) = limits.groups(demand())
    assert (group.in_flight, group.meters["requests_per_minute"].used(NOON)) == (0, 1)


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        ("key_and_model", [True, True, True, False]),
        ("key", [True, True, False, False]),
        ("model", [True, False, True, False]),
        ("all", [True, False, False, False]),
    ],
)
def test_counters_are_shared_as_the_limit_says(per: str, expected: list[bool]) -> None:
    limits = limiter({"requests_per_minute": 1, "per": per})
    pairs = [("a", "m"), ("b", "m"), ("a", "n"), ("a", "m")]
    found = [isinstance(limits.admit(demand(key=key, model=model), NOON), AdmittedCall) for key, model in pairs]
    assert found == expected


def test_a_limit_holds_for_its_key_and_model_only() -> None:
    limits = limiter({"key": "sk-blue", "model": "gpt-4o*", "requests_per_minute": 1})
    for _ in range(3):
        assert isinstance(limits.admit(demand(key="sk-green", model="gpt-4o"), NOON), AdmittedCall)
        assert isinstance(limits.admit(demand(key="sk-blue", model="other"), NOON), AdmittedCall)
    assert admitted(limits, demand(key="sk-blue", model="gpt-4o-mini"), 0, 0) == [True, False]


def test_every_limit_that_matches_must_have_room() -> None:
    same = {"requests_per_minute": 3, "kind": "sliding"}
    limits = limiter(same, same, {"tokens_per_minute": 40})
    refusal = [limits.admit(demand(), NOON) for _ in range(2)][1]
    assert isinstance(refusal, LimitRefusal)
    assert (refusal.name, refusal.asked, refusal.used) == ("tokens_per_minute", 30, 30)


def test_cached_input_may_be_free() -> None:
    asked = demand(prompt=10, cached=10)
    assert admitted(limiter({"input_tokens_per_minute": 10, "cached_input_counts": False}), asked, 0, 0) == [True, True]
    assert admitted(limiter({"input_tokens_per_minute": 10}), asked, 0, 0) == [True, False]


def test_a_request_larger_than_the_limit_never_fits() -> None:
    for kind in ("reserve", "sliding", "window", "window10s"):
        refusal = limiter({"kind": kind, "tokens_per_minute": 12}).admit(demand(), NOON)
        assert isinstance(refusal, LimitRefusal)
        assert math.isinf(refusal.wait_s)


def test_other_limits_keep_the_calls_in_flight_and_forget_the_rates() -> None:
    limits = limiter()
    first = limits.admit(demand(), NOON)
    limits.replace(parse_limits([{"max_in_flight": 2, "requests_per_minute": 1}]))
    assert admitted(limits, demand(), 0, 0) == [True, False]
    limits.replace(parse_limits([{"max_in_flight": 3, "requests_per_minute": 1}]))
    assert admitted(limits, demand(), 0, 60) == [True, False]
    assert isinstance(first, AdmittedCall)
    limits.leave(first, NOON)
    assert admitted(limits, demand(), 60) == [True]


@dataclass
class Run:
    """The admissions and the ends of a simulated hour, in order of time."""

    limits: ProviderLimiter
    admissions: list[tuple[float, Demand]] = field(default_factory=list)
    ends: list[tuple[float, Demand]] = field(default_factory=list)
    ends_before: list[int] = field(default_factory=list)  # the number of ends before each admission
    most_in_flight: int = 0


ARRIVALS = st.lists(
    st.tuples(st.floats(0, 40), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.floats(0, 100)),
    min_size=1,
    max_size=60,
)  # seconds since the last arrival, prompt, reserved and spoken tokens, length of the answer


def play(limit: dict[str, Any], arrivals: list[tuple[float, int, int, int, float]], start_s: float) -> Run:
    run, now = Run(limiter(limit)), NOON + start_s
    running: list[tuple[float, int, AdmittedCall]] = []

    for number, (gap_s, prompt, most, spoken, length_s) in enumerate(arrivals):
        now += gap_s
        while running and running[0][0] <= now:
            end_s, _, call = heapq.heappop(running)
            run.limits.leave(call, end_s)
            run.ends.append((end_s, call.demand))
        asked = demand(prompt, most, spoken)
        verdict = run.limits.admit(asked, now)
        if isinstance(verdict, LimitRefusal):
            check_wait(run.limits, asked, now, verdict)
            continue
        run.admissions.append((now, asked))
        run.ends_before.append(len(run.ends))
        heapq.heappush(running, (now + length_s, number, verdict))
        run.most_in_flight = max(run.most_in_flight, len(running))
    return run


def check_wait(limits: ProviderLimiter, asked: Demand, now: float, refusal: LimitRefusal) -> None:
    """Require that the request fits after the wait of its refusal, and not before."""
    if refusal.name == "max_in_flight" or math.isinf(refusal.wait_s):
        return
    assert isinstance(copy.deepcopy(limits).admit(asked, now + refusal.wait_s + SLACK), AdmittedCall)
    if refusal.wait_s > SLACK:
        assert isinstance(copy.deepcopy(limits).admit(asked, now + refusal.wait_s - SLACK), LimitRefusal)


def reserved(asked: Demand) -> int:
    return asked.reserved.prompt + asked.reserved.completion


def used(asked: Demand) -> int:
    return asked.used.prompt + asked.used.completion


LIMITS = st.fixed_dictionaries({"tokens_per_minute": st.integers(6, 80), "requests_per_minute": st.integers(6, 20)})
STARTS = st.floats(0, 60)


@given(LIMITS, st.floats(0, 90), ARRIVALS, STARTS)
def test_a_reserving_bucket_never_gives_more_than_its_content_and_its_rate(
    rates: dict[str, int], burst_s: float, arrivals: Any, start_s: float
) -> None:
    run = play({"kind": "reserve", "burst_s": burst_s, **rates}, arrivals, start_s)
    for first, (from_s, _) in enumerate(run.admissions):
        tokens = 0
        for number, (at_s, asked) in enumerate(run.admissions[first:], start=1):
            tokens += reserved(asked)
            for count, rate in ((tokens, rates["tokens_per_minute"]), (number, rates["requests_per_minute"])):
                assert count <= max(1, rate * burst_s / 60) + rate * (at_s - from_s) / 60 + SLACK


@given(LIMITS, ARRIVALS, STARTS)
def test_a_bucket_charged_after_the_answer_admits_nothing_while_it_is_empty(
    rates: dict[str, int], arrivals: Any, start_s: float
) -> None:
    run = play({"kind": "after", **rates}, arrivals, start_s)
    rate = rates["tokens_per_minute"]
    for (at_s, _), before in zip(run.admissions, run.ends_before, strict=True):
        ends = [(end_s, used(asked)) for end_s, asked in run.ends[:before]]
        for number, (from_s, _) in enumerate(ends):
            charged = sum(tokens for _, tokens in ends[number:])
            assert charged + 1 <= rate + rate * (at_s - from_s) / 60 + SLACK


@given(LIMITS, ARRIVALS, STARTS)
def test_no_sliding_minute_holds_more_than_the_limit(rates: dict[str, int], arrivals: Any, start_s: float) -> None:
    run = play({"kind": "sliding", **rates}, arrivals, start_s)
    for until_s, _ in run.admissions:
        minute = [asked for at_s, asked in run.admissions if until_s - 60 < at_s <= until_s]
        assert len(minute) <= rates["requests_per_minute"]
        assert sum(map(used, minute)) <= rates["tokens_per_minute"]


@pytest.mark.parametrize(("kind", "length_s"), [("window", 60), ("window10s", 10)])
@given(rates=LIMITS, arrivals=ARRIVALS, start_s=STARTS)
def test_no_fixed_window_holds_more_than_its_share(
    kind: str, length_s: int, rates: dict[str, int], arrivals: Any, start_s: float
) -> None:
    run = play({"kind": kind, **rates}, arrivals, start_s)
    windows: dict[float, list[Demand]] = {}
    for at_s, asked in run.admissions:
        windows.setdefault(at_s // length_s, []).append(asked)
    for inside in windows.values():
        assert len(inside) <= rates["requests_per_minute"] * length_s / 60
        assert sum(map(used, inside)) <= rates["tokens_per_minute"] * length_s / 60


@pytest.mark.parametrize("kind", ["slots", "reserve", "after", "sliding", "window", "window10s"])
@given(most=st.integers(1, 5), arrivals=ARRIVALS)
def test_there_are_never_more_calls_in_flight_than_slots(kind: str, most: int, arrivals: Any) -> None:
    run = play({"kind": kind, "max_in_flight": most}, arrivals, 0.0)
    assert run.most_in_flight <= most


def test_every_field_of_a_limit_can_be_left_out() -> None:
    assert parse_limits([ProviderLimit(max_in_flight=1)]) == parse_limits({"max_in_flight": 1})
