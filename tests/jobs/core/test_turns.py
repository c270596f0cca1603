"""Tenants take turns by tokens: shares stay within bounds, no slot stays free, nobody starves."""

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.jobs.core.turns import UNKNOWN_TOKENS, Share, VirtualTime, lists, turns

A, B, C = (Share("one", tenant) for tenant in "abc")
ELSEWHERE = Share("two", "a")


def order(rows: dict[Share, float], count: int, **more: object) -> list[Share]:
    times = dict.fromkeys(rows, 0.0) | more.get("times", {})
    steps = dict.fromkeys(rows, 1.0) | more.get("steps", {})
    return turns(times, steps, rows, more.get("in_use", {}), more.get("most", {}), count)


def test_the_least_served_share_is_next() -> None:
    assert order({A: 9, B: 9}, 4, times={A: 2.5}) == [B, B, B, A]


def test_shares_with_equal_times_alternate() -> None:
    assert order({A: 9, B: 9}, 4) == [A, B, A, B]


def test_turns_that_a_share_cannot_use_go_to_the_others() -> None:
    assert order({A: 9, B: 1}, 4) == [A, B, A, A]
    assert order({A: 0, B: 1}, 4) == [B]


def test_the_endpoint_with_the_fewest_calls_is_next() -> None:
    assert order({A: 9, ELSEWHERE: 9}, 4, in_use={"one": 3}) == [ELSEWHERE, ELSEWHERE, ELSEWHERE, A]


def test_an_endpoint_has_no_more_turns_than_its_limit() -> None:
    assert Counter(order({A: 9, B: 9, ELSEWHERE: 9}, 6, most={"one": 2})) == {A: 1, B: 1, ELSEWHERE: 4}
    assert order({A: 9}, 6, most={"one": 0}) == []


@given(
    rows=st.dictionaries(st.builds(Share, st.sampled_from("xyz"), st.sampled_from("abcd")), st.integers(0, 30)),
    count=st.integers(0, 60),
    times=st.lists(st.floats(0, 1e6), min_size=12, max_size=12),
)
def test_no_turn_stays_unused_while_a_row_waits(rows: dict[Share, float], count: int, times: list[float]) -> None:
    given_turns = order(rows, count, times=dict(zip(rows, times, strict=False)))

    assert len(given_turns) == min(count, sum(rows.values()))
    assert all(number <= rows[share] for share, number in Counter(given_turns).items())


def simulate(weights: dict[str, float], tokens: dict[str, float], ticks: int) -> dict[str, float]:
    """Return the tokens served to tenants that always wait: 40 slots, each tick ends the calls of the tick before."""
    time = VirtualTime(weights.__getitem__)
    shares = [Share("one", tenant) for tenant in weights]
    served = dict.fromkeys(weights, 0.0)
    running: Counter[Share] = Counter()
    for _ in range(ticks):
        for share, jobs in running.items():
            time.record(share, jobs=jobs, tokens=jobs * tokens[share.tenant])
            served[share.tenant] += jobs * tokens[share.tenant]
        times = time.times(shares, {})
        steps = {share: time.step(share) for share in shares}
        running = Counter(turns(times, steps, dict.fromkeys(shares, math.inf), {}, {}, 40))
        time.waited(shares, {})
    return served


@settings(max_examples=50, deadline=None)
@given(
    mix=st.dictionaries(
        st.sampled_from("abcdef"), st.tuples(st.floats(0.2, 5), st.floats(100, 5000)), min_size=2, max_size=5
    )
)
def test_tokens_are_shared_by_weight_within_bounds(mix: dict[str, tuple[float, float]]) -> None:
    weights = {tenant: weight for tenant, (weight, _) in mix.items()}
    tokens = {tenant: size for tenant, (_, size) in mix.items()}
    served = simulate(weights, tokens, 300)

    times = [served[tenant] / weights[tenant] for tenant in mix]
    # All 40 slots of one tick may go to one tenant, and the first ticks know no sizes.
    bound = 3 * 40 * max(max(tokens[tenant], UNKNOWN_TOKENS) / weights[tenant] for tenant in mix)
    assert max(times) - min(times) <= bound


def test_three_tenants_get_tokens_as_one_to_one_to_three() -> None:
    served = simulate({"a": 1, "b": 1, "c": 3}, {"a": 150, "b": 2000, "c": 500}, 1000)
    total = sum(served.values())

    assert [round(served[tenant] / total, 2) for tenant in "abc"] == [0.2, 0.2, 0.6]


def test_a_share_that_comes_begins_at_the_least_of_those_that_wait() -> None:
    time = VirtualTime()
    time.waited([A, B], {})
    time.record(A, jobs=1, tokens=500)
    time.record(B, jobs=1, tokens=900)

    assert time.times([A, B, C], {}) == {A: 500, B: 900, C: 500}


def test_a_pause_gives_no_credit_and_forgives_no_debt() -> None:
    time = VirtualTime()
    time.waited([A, B], {})
    time.record(B, jobs=1, tokens=5000)
    time.waited([A], {})
    time.record(A, jobs=1, tokens=1000)
    assert time.times([A, B], {})[B] == 5000

    time.waited([A], {})
    time.record(A, jobs=1, tokens=9000)
    assert time.times([A, B], {}) == {A: 10_000, B: 10_000}


def test_calls_in_progress_count_by_the_mean_of_the_share() -> None:
    time = VirtualTime()
    assert time.times([A], {A: 2})[A] == 2 * UNKNOWN_TOKENS
    time.record(A, jobs=10, tokens=3000)

    assert time.times([A], {A: 2})[A] == 3000 + 2 * 300


def test_a_job_without_tokens_is_not_free() -> None:
    time = VirtualTime()
    time.record(A, jobs=10, tokens=0)
    time.record(B, jobs=10, tokens=0, unknown=10)

    assert time.times([A, B], {}) == {A: 1000, B: 10 * UNKNOWN_TOKENS}


def test_what_has_no_effect_is_forgotten() -> None:
    time = VirtualTime()
    time.waited([A], {})
    for number in range(1000):
        time.record(Share("one", str(number)), jobs=1, tokens=100)
    time.record(A, jobs=1, tokens=1000)
    time.waited([A], {})

    assert len(time._passed) == 1


def test_a_nudge_moves_to_the_best_list_of_later_nudges_of_others() -> None:
    assert lists([(A, 5), (B, 0), (A, 7), (C, 9), (B, 3)]) == [0, 0, 3, 3, 3]


def test_the_nudges_of_one_share_stay_ordered_by_priority() -> None:
    assert lists([(A, 5), (A, 0)]) == [5, 0]


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(0, 9)), max_size=30))
def test_no_nudge_is_overtaken_by_a_later_one_of_another_tenant(order: list[tuple[Share, int]]) -> None:
    found = lists(order)

    assert all(place <= priority for place, (_, priority) in zip(found, order, strict=True))
    for first, (share, _) in enumerate(order):
        for later in range(first + 1, len(order)):
            if order[later][0].tenant != share.tenant:
                assert found[first] <= found[later]
