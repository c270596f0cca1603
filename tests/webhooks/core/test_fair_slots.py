"""The slots of a worker: a tenant, then a receiver, may take another while it holds fewer than are free."""

from collections import Counter
from collections.abc import Sequence

import pytest

from worker.webhooks.core.fair_slots import FairSlots, round_robin


def filled(slots: int, names: Sequence[str]) -> tuple[Counter[str], int]:
    """Let receivers (`tenant/receiver`) take slots in turn until none can; return each receiver's slots and the free
    slots.
    """
    places, took = FairSlots(slots, {}), Counter[str]()
    while new := [name for name in names if places.take(name.split("/")[0], name)]:
        took.update(new)
    return took, slots - took.total()


def held(took: Counter[str], tenant: str) -> int:
    return sum(count for name, count in took.items() if name.startswith(f"{tenant}/"))


@pytest.mark.parametrize(
    ("slots", "receivers", "tenant_has"),
    [(1, 1, 1), (2, 1, 1), (2, 5, 1), (3, 5, 2), (20, 1, 5), (20, 50, 10), (100, 1, 25), (100, 4, 40), (100, 200, 50)],
)
def test_a_tenant_alone_has_half_of_the_places_at_most(slots: int, receivers: int, tenant_has: int) -> None:
    took, left = filled(slots, [f"a/{number}" for number in range(receivers)])

    assert held(took, "a") == tenant_has
    assert max(took.values()) - min(took[f"a/{number}"] for number in range(receivers)) <= 1
    assert left >= slots // 2


@pytest.mark.parametrize("tenants", [1, 2, 3, 4, 9])
def test_tenants_have_like_shares_and_one_share_stays_free(tenants: int) -> None:
    names = [f"{tenant}/{number}" for number in range(100) for tenant in range(tenants)]

    took, left = filled(100, names)

    share = 100 / (tenants + 1)
    assert all(abs(held(took, str(tenant)) - share) <= 1 for tenant in range(tenants))
    assert left >= int(share)


@pytest.mark.parametrize("slots", [2, 3, 10, 100])
def test_a_tenant_without_a_slot_always_gets_one(slots: int) -> None:
    places = FairSlots(slots, {})
    while any([places.take("bad", f"bad {number}") for number in range(300)]):
        pass

    assert places.take("good", "good")


def test_a_receiver_that_holds_nothing_finds_a_place_beside_slow_ones_of_its_tenant() -> None:
    places = FairSlots(100, {})
    while any([places.take("same", f"slow {number}") for number in range(5)]):
        pass

    assert places.take("same", "well")


def test_a_tenant_above_its_share_takes_nothing_until_it_has_less() -> None:
    places = FairSlots(10, {("old", "a"): 6, ("old", "b"): 2})

    assert places.left("old") == 0
    assert not places.take("old", "a")
    assert places.take("new", "c")
    assert places.held("c") == 1


def test_no_slot_is_given_beyond_the_number_of_slots() -> None:
    # The setting was lowered.
    places = FairSlots(2, {("a", "a"): 5})

    assert not places.take("b", "b")


@pytest.mark.parametrize(
    ("groups", "order"),
    [([], []), (["abc"], list("abc")), (["abc", "x", "yz"], list("axybzc")), (["", "a"], ["a"])],
    ids=["none", "one", "several", "empty"],
)
def test_groups_take_turns(groups: list[str], order: list[str]) -> None:
    assert round_robin(groups) == order
