"""The sealed columns of receivers: the first keys of a new receiver, and pages of rows for key rotation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sqlalchemy import Connection, exists, or_, select, update

from worker.webhooks.store.tables import receivers

COLUMNS: Final = ("url_sealed", "headers_sealed", "keys_sealed")
PAGE: Final = 200
FIRST: Final = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class FirstKeys:
    """New keys for a receiver without keys: sealed, and the public key; its URL without the query, and sealed."""

    receiver_id: str
    sealed: str = field(repr=False)
    public_key: str | None
    url: str = field(repr=False)
    url_sealed: str | None = field(repr=False)


class SealedRow(NamedTuple):
    """A receiver and its sealed values as (column, token). `url` is the address without the query."""

    id: str
    tenant: str
    name: str
    url: str
    tokens: tuple[tuple[str, str], ...]


_HAS_SEALED = or_(*(receivers.c[column].is_not(None) for column in COLUMNS))


def store_first_keys(connection: Connection, items: Sequence[FirstKeys]) -> list[str]:
    """Store each receiver's keys unless another worker was first; return the column `keys_sealed` of each.

    The column `url` loses its query, because `url_sealed` now holds it.
    """
    for item in sorted(items, key=lambda item: item.receiver_id):
        is_receiver = receivers.c.id == item.receiver_id
        without_keys = update(receivers).where(is_receiver, receivers.c.keys_sealed.is_(None))
        connection.execute(without_keys.values(keys_sealed=item.sealed, public_key=item.public_key))
        if item.url_sealed is not None:
            # If an operator has changed the address in the meantime, it is sealed already or has no query.
            unsealed = update(receivers).where(
                is_receiver, receivers.c.url_sealed.is_(None), receivers.c.url.like("%?%")
            )
            connection.execute(unsealed.values(url=item.url, url_sealed=item.url_sealed))
    found = select(receivers.c.id, receivers.c.keys_sealed).where(
        receivers.c.id.in_(sorted({item.receiver_id for item in items}))
    )
    stored = {row.id: row.keys_sealed for row in connection.execute(found)}
    return [stored[item.receiver_id] for item in items]


def any_sealed(connection: Connection) -> bool:
    """Say whether any receiver has a sealed value. A placeholder made for a job has none before its first delivery."""
    return bool(connection.execute(select(exists().where(receivers.c.status != "removed", _HAS_SEALED))).scalar())


def page(connection: Connection, *, after: str = FIRST, limit: int = PAGE) -> list[SealedRow]:
    """Return the next receivers after an id that have sealed values, in the order of their ids."""
    columns = (receivers.c[name] for name in ("id", "tenant", "name", "url", *COLUMNS))
    rows = connection.execute(
        select(*columns).where(receivers.c.id > after, _HAS_SEALED).order_by(receivers.c.id).limit(limit)
    )
    return [SealedRow(row.id, row.tenant, row.name, row.url, _tokens(row._asdict())) for row in rows]


def replace(connection: Connection, receiver_id: str, column: str, *, old: str, new: str) -> bool:
    """Replace a token; False when the column no longer holds `old`."""
    unchanged = (receivers.c.id == receiver_id, receivers.c[column] == old)
    return connection.execute(update(receivers).where(*unchanged).values({column: new})).rowcount == 1


def _tokens(row: dict[str, str | None]) -> tuple[tuple[str, str], ...]:
    return tuple((column, token) for column in COLUMNS if (token := row[column]) is not None)
