"""A receiver created from a job's URL: the first worker gives it keys and seals the query of its URL."""

import pytest
from sqlalchemy import Engine, update

from tests.store.made import one
from tests.store.receiving import URL, VAULT, found
from tests.webhooks.store.delivery_attempts import delivery_ids, ended
from worker.webhooks import sealed_fields
from worker.webhooks.store.receivers import Receiver
from worker.webhooks.store.secrets import FirstKeys, store_first_keys
from worker.webhooks.store.tables import receivers

OTHER = "https://hooks.example.com/in?other"


def brought(engine: Engine, url: str = URL) -> Receiver:
    """End a job that names a URL; return the receiver created for it."""
    ended(engine, webhook={"url": url})
    return found(engine, str(one(engine, "SELECT id FROM afterword_receivers").id))


def offered(to: Receiver, sealed: str, url: str = URL) -> FirstKeys:
    return FirstKeys(to.id, sealed, f"whpk_{sealed}", *sealed_fields.seal_url(VAULT, to.id, url))


def give(engine: Engine, *items: FirstKeys) -> list[str]:
    with engine.begin() as connection:
        return store_first_keys(connection, items)


def test_the_first_delivery_seals_the_query_and_gives_the_keys(engine: Engine) -> None:
    made = brought(engine)
    assert (made.sealed.url, made.sealed.url_sealed) == (URL, None)

    assert give(engine, offered(made, "first")) == ["first"]

    kept = found(engine, made.id).sealed
    assert (kept.url, kept.public_key) == ("https://hooks.example.com/in", "whpk_first")
    assert sealed_fields.url_of(VAULT, made.id, kept.url, kept.url_sealed) == URL
    assert len(delivery_ids(engine)) == 1


def test_of_two_workers_the_first_one_gives_and_both_sign_with_its_keys(engine: Engine) -> None:
    made = brought(engine)

    assert give(engine, offered(made, "first"), offered(made, "second")) == ["first", "first"]
    assert give(engine, offered(made, "third")) == ["first"]

    assert found(engine, made.id).sealed.public_key == "whpk_first"


def test_a_receiver_that_has_keys_has_its_query_sealed_all_the_same(engine: Engine) -> None:
    made = brought(engine)
    bare = offered(made, "first", "https://hooks.example.com/in")
    give(engine, bare)
    assert found(engine, made.id).sealed.url == URL

    assert give(engine, offered(made, "second")) == ["first"]

    assert "?" not in found(engine, made.id).sealed.url


@pytest.mark.parametrize("sealed_with", [OTHER, "https://b.example/in"], ids=["query", "none"])
def test_a_url_set_in_between_stays(engine: Engine, sealed_with: str) -> None:
    made = brought(engine)
    shown, hidden = sealed_fields.seal_url(VAULT, made.id, sealed_with)
    with engine.begin() as connection:
        connection.execute(update(receivers).values(url=shown, url_sealed=hidden))

    give(engine, offered(made, "first"))

    kept = found(engine, made.id).sealed
    assert sealed_fields.url_of(VAULT, made.id, kept.url, kept.url_sealed) == sealed_with
