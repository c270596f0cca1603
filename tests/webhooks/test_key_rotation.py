"""Changing the master keys: a wrong or removed key, and a rotation that is interrupted and repeated."""

import pytest
from sqlalchemy import Engine, update

from tests.store.made import rows
from tests.store.receiving import MASTER, URL, found, receiver
from worker.webhooks import sealed_fields
from worker.webhooks.key_rotation import UnusableSecret, examine, reseal, unusable_secrets
from worker.webhooks.store import secrets as sealed
from worker.webhooks.store.tables import receivers
from worker.webhooks.vault import Vault, key_id, new_master_key

NEW, WRONG = new_master_key(), new_master_key()
BOTH = Vault([NEW, MASTER])
TOKENS = "SELECT url_sealed, headers_sealed, keys_sealed FROM afterword_receivers ORDER BY name"


def secrets(engine: Engine, vault: Vault) -> list[UnusableSecret]:
    with engine.begin() as connection:
        return examine(connection, vault)[1]


def unusable(engine: Engine, *keys: str) -> str | None:
    with engine.begin() as connection:
        return unusable_secrets(connection, keys)


def reseal_all(engine: Engine, vault: Vault) -> int:
    resealed, after = 0, sealed.FIRST
    while True:
        with engine.begin() as connection:
            step = reseal(connection, vault, after=after)
        resealed += step.resealed
        if step.after is None:
            return resealed
        after = step.after


def test_every_secret_is_sealed_with_the_first_key_and_the_old_one_is_needed_no_more(engine: Engine) -> None:
    made = receiver(engine)
    keys = sealed_fields.keys_of(BOTH, made.id, made.sealed.keys_sealed)
    assert {one.key_id for one in secrets(engine, BOTH)} == {key_id(MASTER)}

    assert reseal_all(engine, BOTH) == 3

    only = Vault([NEW])
    assert [one.fault for one in secrets(engine, only)] == [None, None, None]
    assert sealed_fields.keys_of(only, made.id, found(engine, made.id).sealed.keys_sealed) == keys


def test_resealing_again_changes_nothing(engine: Engine) -> None:
    receiver(engine)
    reseal_all(engine, BOTH)
    before = rows(engine, TOKENS)

    assert reseal_all(engine, BOTH) == 0
    assert rows(engine, TOKENS) == before


def test_headers_of_release_0_1_0_are_bound_to_the_origin_of_their_receiver(engine: Engine) -> None:
    made = receiver(engine)
    vault = Vault([MASTER])
    old = vault.seal(made.id, sealed_fields.HEADERS, '{"X-Key": "geheim"}')
    with engine.begin() as connection:
        connection.execute(update(receivers).values(headers_sealed=old))

    assert reseal_all(engine, vault) == 1
    assert reseal_all(engine, vault) == 0

    new = found(engine, made.id).sealed.headers_sealed
    assert sealed_fields.headers_of(vault, made.id, new, url=URL) == {"X-Key": "geheim"}
    assert new != old
    assert new is not None
    assert sealed_fields.bind_headers(vault, made.id, new, url=URL) is None


def test_an_address_changed_by_hand_is_found_by_the_check_of_secrets(engine: Engine) -> None:
    receiver(engine)
    with engine.begin() as connection:
        connection.execute(update(receivers).values(url="https://thief.example/", url_sealed=None))

    (fault,) = [one.fault for one in secrets(engine, Vault([MASTER])) if one.fault]
    assert "were sealed for https://" in fault


def test_resealing_that_was_broken_off_goes_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "PAGE", 1)
    monkeypatch.setattr(sealed.page, "__kwdefaults__", {"after": sealed.FIRST, "limit": 1})
    for number in range(3):
        receiver(engine, f"r{number}")
    with engine.begin() as connection:
        assert reseal(connection, BOTH).resealed == 3  # the process ends here

    assert reseal_all(engine, BOTH) == 6
    assert reseal_all(engine, BOTH) == 0


def test_a_secret_changed_in_between_is_not_overwritten(engine: Engine) -> None:
    made = receiver(engine)
    with engine.begin() as connection:
        (row,) = sealed.page(connection)
        connection.execute(update(receivers).values(keys_sealed="newer"))
        column, token = row.tokens[-1]
        assert not sealed.replace(connection, made.id, column, old=token, new="older")

    assert found(engine, made.id).sealed.keys_sealed == "newer"


def test_a_removed_key_is_found_with_the_names_that_need_it(engine: Engine) -> None:
    receiver(engine)
    receiver(engine, "second", vault=Vault([NEW]))

    found_out = {one.receiver: one.fault for one in secrets(engine, Vault([NEW]))}

    assert found_out["default/second"] is None
    assert "the key that sealed it is missing" in (found_out["default/billing"] or "")


def test_a_moved_secret_is_found_and_never_resealed(engine: Engine) -> None:
    victim, thief = receiver(engine), receiver(engine, "thief")
    with engine.begin() as connection:
        stolen = update(receivers).where(receivers.c.id == thief.id).values(keys_sealed=victim.sealed.keys_sealed)
        connection.execute(stolen)

    (moved,) = [one for one in secrets(engine, BOTH) if one.fault]
    assert (moved.receiver, moved.kind, moved.key_id) == ("default/thief", "keys", None)
    assert "moved or copied" in (moved.fault or "")
    with engine.begin() as connection:
        step = reseal(connection, BOTH)
    assert (step.resealed, [one.receiver for one in step.faults]) == (5, ["default/thief"])


def test_a_worker_without_receivers_needs_no_keys(engine: Engine) -> None:
    assert unusable(engine) is None


def test_a_worker_with_receivers_and_no_keys_must_not_start(engine: Engine) -> None:
    receiver(engine)
    assert (unusable(engine) or "").startswith("the database has receivers of webhooks, but AFTERWORD_SECRET_KEYS is")


def test_a_worker_with_a_wrong_key_must_not_start_and_one_with_the_right_key_among_others_may(engine: Engine) -> None:
    receiver(engine)

    assert f"no key of AFTERWORD_SECRET_KEYS ({key_id(WRONG)}) opens" in (unusable(engine, WRONG) or "")
    assert unusable(engine, WRONG, MASTER) is None


def test_one_damaged_row_keeps_no_worker_from_starting(engine: Engine) -> None:
    receiver(engine)
    damaged = receiver(engine, "damaged")
    with engine.begin() as connection:
        connection.execute(update(receivers).where(receivers.c.id == damaged.id).values(keys_sealed="damaged"))

    assert unusable(engine, MASTER) is None


def test_a_receiver_that_jobs_have_only_named_needs_no_keys(engine: Engine) -> None:
    made = receiver(engine)
    with engine.begin() as connection:
        bare = dict.fromkeys(sealed.COLUMNS)
        connection.execute(update(receivers).where(receivers.c.id == made.id).values(**bare))

    assert unusable(engine) is None
    assert unusable(engine, WRONG) is None
