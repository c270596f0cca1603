"""Turns: tenants share an endpoint by tokens, in proportion to their weights. Pure.

Each tenant has a virtual time: the tokens that it was served, divided by its weight. The tenant with the least virtual
time has the next turn. A tenant that had nothing waiting begins at the least virtual time of those that wait, so it
gains nothing by its pause and pays nothing for it. (Sheng et al., Fairness in Serving Large Language Models, OSDI 2024,
arXiv 2401.00588: the difference between two tenants that always wait is bounded, and no slot stays free while a job
waits.)
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

# The least tokens that a job counts: a job that fails at once takes a turn too.
LEAST_TOKENS = 100.0
# Tokens of a job of a tenant that has finished no job yet, and of a job without a report of its usage.
UNKNOWN_TOKENS = 1000.0
# The mean tokens of a tenant's jobs move by this share of the difference for each job: about 50 jobs count.
LEARNED_A_JOB = 0.02
MOST_MEANS = 10_000


class Share(NamedTuple):
    """A tenant at one endpoint."""

    endpoint: str
    tenant: str


class VirtualTime:
    """The virtual times of all shares; `weight(tenant)` is above 0."""

    def __init__(self, weight: Callable[[str], float] = lambda tenant: 1.0) -> None:
        self._weight = weight
        self._passed: dict[Share, float] = {}
        self._means: dict[Share, float] = {}
        self._waiting: frozenset[Share] = frozenset()

    def record(self, share: Share, *, jobs: int, tokens: float, unknown: int = 0) -> None:
        """Note finished jobs and their tokens; the tokens of `unknown` of these jobs are not known."""
        tokens = max(tokens + unknown * UNKNOWN_TOKENS, jobs * LEAST_TOKENS)
        self._passed[share] = self._passed.get(share, 0.0) + tokens / self._weight(share.tenant)
        mean = self._means.pop(share, tokens / jobs)
        self._means[share] = mean + (tokens / jobs - mean) * (1 - (1 - LEARNED_A_JOB) ** jobs)
        while len(self._means) > MOST_MEANS:
            del self._means[next(iter(self._means))]

    def step(self, share: Share) -> float:
        """Return by how much one more job moves the share's virtual time."""
        return self._means.get(share, UNKNOWN_TOKENS) / self._weight(share.tenant)

    def times(self, candidates: Collection[Share], held: Mapping[Share, int]) -> dict[Share, float]:
        """Return the virtual times of `candidates`, which may have due rows.

        `held`: the calls in progress and the nudges in the window. They count by the share's mean tokens.
        """
        times = self._times(candidates, held)
        least = _least(times, self._waiting & times.keys())
        for share in times.keys() - self._waiting:
            lift = least.get(share.endpoint, times[share]) - times[share]
            if lift > 0:
                self._passed[share] = self._passed.get(share, 0.0) + lift
                times[share] += lift
        return times

    def waited(self, waiting: Iterable[Share], held: Mapping[Share, int]) -> None:
        """Note the shares that had due rows at this tick; forget what has no effect any more."""
        self._waiting = frozenset(waiting)
        known = self._passed.keys() | held.keys() | self._waiting
        times = self._times(known, held)
        least = _least(times, self._waiting)
        # A share behind the least will be lifted to it. At an endpoint where nothing waits, all begin alike.
        self._passed = {
            share: self._passed.get(share, 0.0)
            for share, time in times.items()
            if share in self._waiting or time > least.get(share.endpoint, math.inf)
        }

    def _times(self, shares: Collection[Share], held: Mapping[Share, int]) -> dict[Share, float]:
        return {share: self._passed.get(share, 0.0) + held.get(share, 0) * self.step(share) for share in shares}


def _least(times: Mapping[Share, float], shares: Iterable[Share]) -> dict[str, float]:
    """Return the least virtual time of `shares` at each endpoint."""
    least: dict[str, float] = {}
    for share in shares:
        least[share.endpoint] = min(times[share], least.get(share.endpoint, math.inf))
    return least


def turns(
    times: Mapping[Share, float],
    steps: Mapping[Share, float],
    rows: Mapping[Share, float],
    in_use: Mapping[str, int],
    most: Mapping[str, int],
    count: int,
) -> list[Share]:
    """Return up to `count` turns, in order.

    `times`, `steps`: a share's virtual time, and its growth with each turn. `rows`: the turns that a share can use
    (infinity: unknown). `in_use`: calls and nudges of each endpoint; the endpoint with the fewest is next. `most`: the
    most turns of an endpoint, if it has a limit.
    """
    queues: dict[str, list[tuple[float, Share]]] = {}
    for share, time in times.items():
        if rows[share] > 0 and most.get(share.endpoint, 1) > 0:
            queues.setdefault(share.endpoint, []).append((time, share))
    for queue in queues.values():
        heapify(queue)
    endpoints = [(in_use.get(endpoint, 0), endpoint) for endpoint in queues]
    heapify(endpoints)
    used: dict[Share, int] = {}
    given: dict[str, int] = {}
    order: list[Share] = []
    while endpoints and len(order) < count:
        uses, endpoint = heappop(endpoints)
        queue = queues[endpoint]
        time, share = heappop(queue)
        order.append(share)
        used[share] = used.get(share, 0) + 1
        given[endpoint] = given.get(endpoint, 0) + 1
        if used[share] < rows[share]:
            heappush(queue, (time + steps[share], share))
        if queue and given[endpoint] < most.get(endpoint, math.inf):
            heappush(endpoints, (uses + 1, endpoint))
    return order


def lists(order: Sequence[tuple[Share, int]]) -> list[int]:
    """Return the priority list of each (share, priority), so that Redis pops the shares in this order.

    Redis pops the list of the best priority first. A nudge therefore moves to the best list of all later nudges of
    other tenants; the nudges of one tenant stay ordered by priority.
    """
    found: list[int] = []
    # The best list so far and its tenant, and the best list of all other tenants.
    best: tuple[float, str | None] = (math.inf, None)
    second = math.inf
    for share, priority in reversed(order):
        chosen = int(min(priority, second if best[1] == share.tenant else best[0]))
        found.append(chosen)
        if share.tenant == best[1]:
            best = (min(best[0], chosen), share.tenant)
        elif chosen < best[0]:
            best, second = (chosen, share.tenant), best[0]
        else:
            second = min(second, chosen)
    return found[::-1]
