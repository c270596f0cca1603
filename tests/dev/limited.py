"""A limiter and its requests, for tests of the fake endpoint's limits."""

from typing import Any

from worker.dev.fake.limiter import Demand, ProviderLimiter
from worker.dev.fake.limits import parse_limits
from worker.dev.fake.usage import Counts

NOON = 1_800_000_000.0  # a multiple of 60


def demand(
    prompt: int = 10, most: int = 20, spoken: int = 5, *, key: str = "k", model: str = "m", cached: int = 0
) -> Demand:
    return Demand(key, model, Counts(prompt, most, cached=cached), Counts(prompt, spoken, cached=cached))


def limiter(*limits: dict[str, Any]) -> ProviderLimiter:
    return ProviderLimiter(parse_limits(limits))
