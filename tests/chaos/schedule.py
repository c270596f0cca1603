"""The schedule of faults, drawn from a seed. Pure: the same seed and length give the same list."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LEASE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: its part, its shortest and longest duration in seconds, and its weight among the kinds."""

    name: str
    part: str
    lasts_s: tuple[float, float]
    weight: int = 2


KINDS: Final = (
    Kind("worker killed", "worker", (0.5, 3.0), 4),
    Kind("worker stopped, less than a lease", "worker", (0.5, 0.6 * LEASE_S)),
    Kind("worker stopped, longer than a lease", "worker", (1.8 * LEASE_S, 3.0 * LEASE_S), 4),
    Kind("worker restarted", "worker", (0.0, 0.0), 3),
    Kind("all workers killed", "fleet", (0.2, 2.0), 1),
    Kind("redis flushed", "redis", (0.0, 0.0)),
    Kind("redis restarted, log kept", "redis", (0.2, 2.0)),
    Kind("redis restarted, all lost", "redis", (0.2, 2.0)),
    Kind("redis frozen", "redis", (1.0, 6.0), 1),
    Kind("redis connections killed", "redis", (0.0, 0.0)),
    Kind("database restarted, fast", "database", (0.1, 2.0)),
    Kind("database restarted, immediate", "database", (0.1, 4.0), 3),
    Kind("database connections killed", "database", (0.0, 0.0), 3),
    Kind("database locked, longer than a lease", "database", (1.5 * LEASE_S, 2.0 * LEASE_S), 2),
    Kind("endpoint refuses connections", "endpoint", (1.0, 4.0)),
    Kind("endpoint slow", "endpoint", (2.0, 5.0)),
    Kind("endpoint answers 500", "endpoint", (1.0, 3.0)),
    Kind("endpoint answers 429", "endpoint", (1.0, 3.0)),
    Kind("endpoint resets after reading", "endpoint", (1.0, 3.0)),
    Kind("endpoint cuts its answers", "endpoint", (1.0, 3.0)),
    Kind("endpoint answers 401", "endpoint", (2.0, 5.0)),
    Kind("endpoint paused by an operator", "endpoint", (1.0, 4.0), 1),
    Kind("receivers hang up", "receivers", (0.5, 1.5), 1),
    Kind("receivers disabled, then enabled", "receivers", (0.5, 3.0), 3),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault at `at_s` after the start, for `lasts_s`; `chance` in [0, 1) chooses among equal parts."""

    kind: Kind
    at_s: float
    lasts_s: float
    chance: float


def draw(seed: int, *, seconds: float, gap_s: tuple[float, float], kinds: Sequence[Kind] = KINDS) -> list[Fault]:
    """Return the faults of a run.

    Each kind comes once before kinds are drawn by weight, so a short run meets as many as possible. Every third fault
    begins during the fault before it.
    """
    chance = random.Random(seed)
    first = list(kinds)
    chance.shuffle(first)
    faults: list[Fault] = []
    at_s = gap_s[0]
    while True:
        kind = first.pop() if first else chance.choices(kinds, [one.weight for one in kinds])[0]
        lasts_s = chance.uniform(*kind.lasts_s)
        if at_s + lasts_s > seconds:
            return faults
        faults.append(Fault(kind, at_s, lasts_s, chance.random()))
        overlaps = chance.random() < 1 / 3
        at_s += chance.uniform(0.0, lasts_s) if overlaps else lasts_s + chance.uniform(*gap_s)
