"""How the slots of webhooks are shared: nobody takes more than the others are left. Pure.

A place is a slot of one worker process. One more is given to whoever holds fewer than are free: alone a tenant has half
of them, two have a third each, and so on; one share is always free for who comes next. Nobody can be sent away from a
place that a slow receiver holds, so it must be kept before. The same once more among the receivers of a tenant, in what
the tenant may still take. (Choudhury and Hahne, Dynamic queue length thresholds, IEEE/ACM Transactions on Networking
6(2), 1998, with a factor of one.)
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TypeVar

T = TypeVar("T")


class FairSlots:
    """The places of one worker while a batch is decided. `held`: how many each (tenant, receiver's id) has."""

    def __init__(self, slots: int, held: Mapping[tuple[str, str], int]) -> None:
        self._free = slots - sum(held.values())
        self._tenants: Counter[str] = Counter()
        self._receivers: Counter[str] = Counter()
        for (tenant, receiver_id), count in held.items():
            self._tenants[tenant] += count
            self._receivers[receiver_id] += count

    def held(self, receiver_id: str) -> int:
        """Return how many places a receiver holds."""
        return self._receivers[receiver_id]

    def left(self, tenant: str) -> int:
        """Return how many more a tenant may take."""
        return _more(self._free, self._tenants[tenant])

    def take(self, tenant: str, receiver_id: str) -> bool:
        """Give a place to a receiver of a tenant, if both have room for it."""
        if _more(self.left(tenant), self._receivers[receiver_id]) < 1:
            return False
        self._free -= 1
        self._tenants[tenant] += 1
        self._receivers[receiver_id] += 1
        return True


def round_robin(groups: Iterable[Sequence[T]]) -> list[T]:
    """Return the first of each group, then the second of each, and so on."""
    rounds = zip_longest(*([(one,) for one in group] for group in groups), fillvalue=())
    return [one for each in rounds for place in each for one in place]


def _more(free: int, held: int) -> int:
    """Return how many more of `free` places may be taken by one that holds `held`, each while it holds fewer."""
    return max(0, (free - held + 1) // 2)
