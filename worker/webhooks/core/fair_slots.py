"""Shares a worker process's webhook slots between tenants and between a tenant's receivers. Pure.

A tenant may take another slot while it holds fewer than are free: one tenant gets half of the slots, two get a third
each, and so on. One share always stays free for the next tenant. It must be reserved in advance, because a slow
receiver's slot cannot be taken back. The same rule applies again to the receivers of a tenant, within the slots that
the tenant may still take. (Choudhury and Hahne, Dynamic queue length thresholds, IEEE/ACM Transactions on Networking
6(2), 1998, with a factor of one.)
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TypeVar

T = TypeVar("T")


class FairSlots:
    """The slots of one worker while it claims a batch. `held`: slots in use by (tenant, receiver's id)."""

    def __init__(self, slots: int, held: Mapping[tuple[str, str], int]) -> None:
        self._free = slots - sum(held.values())
        self._tenants: Counter[str] = Counter()
        self._receivers: Counter[str] = Counter()
        for (tenant, receiver_id), count in held.items():
            self._tenants[tenant] += count
            self._receivers[receiver_id] += count

    def held(self, receiver_id: str) -> int:
        """Return how many slots a receiver holds."""
        return self._receivers[receiver_id]

    def left(self, tenant: str) -> int:
        """Return how many more slots a tenant may take."""
        return _may_take(self._free, self._tenants[tenant])

    def take(self, tenant: str, receiver_id: str) -> bool:
        """Take a slot for a receiver of a tenant; False if one of the two has its share already."""
        if _may_take(self.left(tenant), self._receivers[receiver_id]) < 1:
            return False
        self._free -= 1
        self._tenants[tenant] += 1
        self._receivers[receiver_id] += 1
        return True


def round_robin(groups: Iterable[Sequence[T]]) -> list[T]:
    """Return the first item of each group, then the second of each, and so on."""
    # Items are wrapped in tuples, because an empty tuple marks a group that has ended.
    rounds = zip_longest(*([(item,) for item in group] for group in groups), fillvalue=())
    return [item for cells in rounds for cell in cells for item in cell]


def _may_take(free: int, held: int) -> int:
    """Return how many of `free` slots may be taken in turn while the holder of `held` slots has fewer than are free."""
    return max(0, (free - held + 1) // 2)
